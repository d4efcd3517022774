"""The shell's figures and filters: what stats and failed tell, and which jobs a command takes."""

import re
import shlex
import time
from datetime import timedelta

import pytest

from dbbasic_queue import Queue, cli
from dbbasic_queue.redact import sensitive


@pytest.fixture
def ask(capsys):
    """Run a command line in this process; return its status and what it printed."""

    def run(words):
        capsys.readouterr()
        return cli.main(shlex.split(words)), capsys.readouterr().out

    return run


@pytest.fixture
def queue():
    return Queue()


def refuse(payload):
    raise OSError(f"no route to {payload}")


def listed(ask, words):
    return re.findall(r"^[0-9a-f]{16}", ask(f"list {words}")[1], re.M)


def test_stats_without_jobs_is_status_1_for_programs_and_people(ask, queue):
    queue.enqueue("mail")

    assert [ask("stats --type note --json")[0], ask("stats --type note")[0]] == [1, 1]
    assert [ask("stats --json")[0], ask("stats")[0]] == [0, 0]


def test_stats_tells_stuck_jobs_behind_those_that_are_processing(ask, queue):
    id = queue.enqueue("mail")
    with queue.edit() as e:
        e.change(e.get(id), status="processing", worker="gone-1-abc.1", started_at=time.time())

    assert re.search(r"^processing +1  1 stuck$", ask("stats")[1], re.M)
    assert listed(ask, "--status stuck") == [id]


def test_stats_tells_what_is_archived(ask, queue):
    queue.enqueue("mail")
    queue.process_jobs({"mail": print})
    assert "archived" not in ask("stats")[1]

    queue.archive(0)

    assert re.search(r"^archived +1$", ask("stats")[1], re.M)


def test_stats_lists_the_live_workers_and_what_they_run(ask, queue):
    id = queue.enqueue("ask")
    told = []

    queue.process_jobs({"ask": lambda payload: told.append(ask("stats")[1])}, name="mailer")

    assert re.search(rf"^mailer-\S+ +\S+ +\d+ +\d+% +{id}$", told[0], re.M)
    assert "mailer" not in ask("stats")[1]


def test_failed_takes_filters_and_a_limit(ask, queue):
    queue.enqueue_many([("mail", "a"), ("mail", "b"), ("note", "c")])
    queue.enqueue("mail", "d", queue="high")
    queue.process_jobs({"mail": refuse, "note": refuse}, max_attempts=1)

    def errors(words):
        return set(re.findall(r"no route to (\w)", ask(f"failed {words}")[1]))

    assert errors("") == set("abcd")
    assert errors("--queue high") == set("d")
    assert errors("--type note") == set("c")
    assert len(errors("--limit 2")) == 2


def test_several_ids_are_cancelled_though_none_waits_for_another(ask, queue):
    ids = queue.enqueue_many([("mail", 1), ("mail", 2), ("mail", 3)])

    status, out = ask(f"cancel {ids[0]} {ids[2]}")

    assert (status, out.split()) == (0, [ids[0], ids[2]])
    assert queue.counts("status") == {"cancelled": 2, "pending": 1}


def test_every_filter_that_asks_for_words_leaves_others_out(ask, queue):
    queue.enqueue("mail", {"to": "Ben"})
    grouped = queue.enqueue("mail", {"to": "Ada"}, group="batch")
    late = queue.enqueue("mail", {"to": "Cy"}, run_at=timedelta(hours=1))

    assert listed(ask, "--group batch") == [grouped]
    assert listed(ask, "--text aDA") == [grouped]
    assert listed(ask, "--status scheduled") == [late]


def test_text_is_found_in_the_error_and_not_in_a_hidden_field_that_it_repeats(ask, queue):
    id = queue.enqueue("mail", {"to": "a", "pin": "tulip"}, columns=sensitive("pin"))
    queue.process_jobs({"mail": refuse}, max_attempts=1)

    assert listed(ask, "--text 'NO ROUTE'") == [id]
    assert [ask(f"{verb} --text tulip")[0] for verb in ("list", "retry", "cancel")] == [1, 1, 1]
    assert ask("export --text tulip")[0] == 1
    assert ask("export --text 'no route'")[0] == 0
