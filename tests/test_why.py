"""Why a job is where it is, told from real queues."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Snooze, cli, errors, journal, limits, lookup
from dbbasic_queue.batch import enqueue_batch
from dbbasic_queue.redact import sensitive
from dbbasic_queue.why import reasons, why

ROOT = Path(__file__).resolve().parent.parent
FROZEN = "2025-10-09 08:53:20"
NOW = 1760000000


def bad(payload):
    raise ValueError(payload)


def later(payload):
    raise Snooze(120, "the shop is closed")


HANDLERS = {"good": str, "bad": bad, "later": later}
RUNS = """
    import math, os, sys, time
    from dbbasic_queue import Queue
    def slow(path):
        print("runs", flush=True)
        while not os.path.exists("stop"):
            time.sleep(0.01)
    Queue("data/queue.tsv", sync="off").process_jobs(
        {"slow": slow, "good": str}, name="anna", run_for=math.inf, max_workers=9
    )
"""


@pytest.fixture(autouse=True)
def clock():
    with freeze_time(FROZEN) as clock:
        yield clock


@pytest.fixture
def ask(queue):
    return lambda id: why(id, queue)


@pytest.fixture
def start(run_python, clock):
    """Start a worker named anna whose first job runs until it is killed."""

    def start(code=RUNS):
        child = run_python(code)
        assert child.stdout.readline() == "runs\n"
        return child

    clock.tick(time.clock_gettime(time.CLOCK_REALTIME) - NOW)  # a child has the true time
    return start


def tick(queue, handlers=HANDLERS, **options):
    queue.process_jobs(handlers, **options)
    ended = time.time()
    os.utime(queue.path + ".d/tick", (ended, ended))  # the kernel's clock is not frozen


# --- what is to come first


def test_a_job_for_later_says_when(queue, ask):
    id = queue.enqueue("good", run_at=NOW + 7500)

    assert ask(id)[0].startswith("scheduled: it is due in 2h 5m, at 2025-10-09 ")


def test_a_retry_says_after_which_error(queue, ask, clock):
    id = queue.enqueue("bad", "no such shop")
    tick(queue)
    clock.tick(10)

    [answer] = ask(id)
    assert answer.startswith("retrying: it is due in 50s, at 2025-10-09 ")
    assert answer.endswith(", after attempt 1: ValueError: no such shop")


def test_an_error_hides_what_is_sensitive(queue, ask):
    id = queue.enqueue("bad", {"password": "tiger-tiger"}, columns=sensitive("password"))
    tick(queue)

    assert "***" in ask(id)[0]
    assert "tiger" not in ask(id)[0]


def test_a_snoozed_job_says_its_reason(queue, ask):
    id = queue.enqueue("later")
    tick(queue)

    [answer] = ask(id)
    assert answer.startswith("snoozed: it is due in 2m, at ")
    assert answer.endswith(": the shop is closed")


def test_a_paused_queue_is_named_with_the_word_that_ends_it(queue, ask):
    id = queue.enqueue("good", queue="mail")
    limits.pause("mail", queue)

    assert ask(id) == ["paused: nobody claims a job of queue mail before `resume mail`"]


def test_each_thing_that_holds_a_job_is_said(queue, ask):
    id = queue.enqueue("good", run_at=NOW + 60, queue="mail")
    limits.pause("mail", queue)

    assert [text.partition(":")[0] for text in ask(id)] == ["scheduled", "paused"]


def test_a_job_that_waits_names_the_others_and_what_holds_them(queue, ask):
    over = queue.enqueue("good")
    tick(queue)
    first = queue.enqueue("good", run_at=NOW + 60)
    second = queue.enqueue("bad", queue="mail")
    limits.pause("mail", queue)
    id = queue.enqueue("good", after=[over, first, second])

    assert ask(id)[0] == f"waiting: for job {first}, job {second}  (ok:{over},{first},{second})"
    assert ask(id)[1].startswith(f"job {first} (good) is pending: scheduled: it is due in 1m, at ")
    assert ask(id)[2].startswith(f"job {second} (bad) is pending: paused: ")


def test_a_job_that_waits_for_a_group_says_how_many_are_open(queue, ask):
    jobs = [("good", n) for n in range(5)]
    batch = enqueue_batch(jobs, then=("good", "end"), queue_file=queue).id
    tick(queue, max_jobs=2)
    [id] = [job.id for job in queue.jobs() if job.after]

    text = f"waiting: for 3 of 5 jobs of group {batch}, which have not finished  (ok:@{batch})"
    assert ask(id)[0] == text


def test_a_condition_that_is_met_holds_nothing(queue, ask):
    parent = queue.enqueue("good")
    id = queue.enqueue("good", after=parent)
    tick(queue, max_jobs=1)

    assert ask(id) == ["due: the next tick runs it; the last one was 0s ago"]


def test_an_after_that_cannot_be_read_is_told(queue, ask):
    id = queue.enqueue("good", after=queue.enqueue("good"))
    data = Path(queue.path).read_bytes()
    Path(queue.path).write_bytes(data.replace(b"\tok:", b"\tko:"))

    assert ask(id)[0].startswith("waiting: what for cannot be read; after='ko:")


def test_what_can_never_be_met_is_cancelled_next(queue, ask):
    parent = queue.enqueue("good")
    id = queue.enqueue("good", after=parent)
    data = Path(queue.path).read_bytes()
    Path(queue.path).write_bytes(data.replace(parent.encode() + b"\tgood", b"0" * 16 + b"\tgood"))

    assert ask(id) == [f"never ok: job {parent} is gone: the next tick cancels it"]


def test_a_payload_that_is_not_json_is_told(queue, ask):
    id = queue.enqueue("good", {"number": 1})
    data = Path(queue.path).read_bytes()
    Path(queue.path).write_bytes(data.replace(b'{"number":', b'{"number"!'))

    assert ask(id) == [f"unreadable: its payload is not JSON; `edit {id}` lets you mend it"]


# --- who could run it


def test_a_queue_that_nobody_serves_is_told_with_those_that_are(queue, ask):
    queue.enqueue("good", queue="mail")
    id = queue.enqueue("good", queue="report")
    tick(queue, queues=["mail", "high"], name="anna")

    text = "not served: no worker serves queue report; served: queues high, mail"
    assert ask(id) == [text]


def test_a_type_without_a_handler_is_told_with_what_each_worker_handles(queue, ask):
    id = queue.enqueue("report")
    tick(queue, {"good": str}, name="anna")
    tick(queue, {"report": str, "bad": bad}, queues=["mail"])
    tick(queue, {})

    assert ask(id) == [
        "not handled: no worker has a handler for type report",
        "worker anna handles type good",
        "the worker handles nothing",
        "the worker of queue mail handles it, and does not serve queue default",
    ]


def test_a_mapping_that_cannot_be_listed_may_handle_it(queue, ask):
    class Any(dict):
        def __contains__(self, type):
            return type != "report"

    id = queue.enqueue("report")
    tick(queue, Any())

    assert ask(id)[0].startswith("due: ")


def test_a_worker_of_long_ago_counts_no_more(queue, ask, clock):
    id = queue.enqueue("report")
    tick(queue)
    clock.tick(8 * 86400)

    assert ask(id)[0].startswith("no tick since 2025-10-09 ")


# --- when


def test_a_due_job_says_when_the_last_tick_was(queue, ask, clock):
    queue.enqueue("good")
    tick(queue)
    clock.tick(19)
    id = queue.enqueue("good")
    clock.tick(1)

    assert ask(id) == ["due for 1s: the next tick runs it; the last one was 20s ago"]


def test_without_a_tick_ever_a_worker_is_missing(queue, ask, clock):
    id = queue.enqueue("good")
    clock.tick(90)

    answer = "no tick: due for 1m, and no worker has ever come to this file"
    assert ask(id)[0] == answer
    assert f"dbbasic-queue --file {queue.path} work" in ask(id)[1]


def test_after_three_minutes_without_a_tick_cron_is_asked_about(queue, ask, clock):
    queue.enqueue("good")
    tick(queue)
    id = queue.enqueue("good")
    clock.tick(720)

    first, second = ask(id)
    assert first.startswith("no tick since 2025-10-09 ")
    assert first.endswith(", 12m ago: has cron stopped?")
    assert second == "due for 12m"


def test_jobs_that_come_first_are_counted(queue, ask):
    queue.enqueue("good")
    tick(queue)
    parent = queue.enqueue("good", priority=3)
    queue.enqueue("good", priority=5)
    queue.enqueue("good", priority=-1, queue="mail")
    queue.enqueue("good", priority=-1, after=parent)
    queue.enqueue("good", priority=-1, run_at=NOW + 60)
    queue.enqueue("good", priority=3)
    id = queue.enqueue("good", priority=3)

    assert ask(id)[1:] == ["2 due jobs of queue default come before it"]


# --- limits


def test_a_rate_says_when_the_next_may_start(queue, ask, clock):
    first, second = queue.enqueue("good"), queue.enqueue("good")
    tick(queue, admit=[limits.rate(1, 60, type="good")])
    clock.tick(20)

    assert queue.get(first).finished
    assert ask(second) == ["limited: rate(1, 60, type='good'); the next may start in 40s"]


@pytest.mark.parametrize("how, left", [("fixed", "40s"), ("spacing", "30s")])
def test_each_kind_of_rate_is_understood(queue, ask, how, left):
    queue.enqueue_many([("good", n) for n in range(3)])
    tick(queue, admit=[limits.rate(2, 60, how=how, name="shop")])
    *_, id = [job.id for job in queue.jobs()]

    assert ask(id)[0].startswith(f"limited: rate(2, 60, how='{how}'); the next may start in {left}")


def test_what_started_in_the_last_window_is_free_in_the_next(queue, ask, clock):
    queue.enqueue_many([("good", n) for n in range(3)])
    tick(queue, admit=[limits.rate(2, 60, how="fixed")])
    *_, id = [job.id for job in queue.jobs()]
    clock.tick(45)

    assert ask(id)[0].startswith("due for 45s: ")


def test_a_rate_by_a_field_holds_only_the_same_value(queue, ask):
    jobs = [{"to": "ada"}, {"to": "ada"}, {"to": "bob"}]
    _, held, _ = queue.enqueue_many([("good", job) for job in jobs])
    tick(queue, admit=[limits.rate(1, 60, key="to")])
    free = queue.enqueue("good", {"to": "eve"})

    assert ask(held)[0].startswith("limited: rate(1, 60, key='to'); ")
    assert ask(free)[0].startswith("due: ")


def test_a_limit_of_others_holds_nothing(queue, ask):
    queue.enqueue("good")
    tick(queue, admit=[limits.rate(1, 60, type=["good", "bad"]), limits.concurrency(1, queue="x")])
    id = queue.enqueue("later")

    assert ask(id) == ["due: the next tick runs it; the last one was 0s ago"]


def test_a_function_of_the_caller_is_named_where_a_tick_has_looked_since(queue, ask, clock):
    def not_on_sundays(job, counts):
        return False

    id = queue.enqueue("good")
    clock.tick(60)
    tick(queue, admit=[not_on_sundays])

    function = f"{__name__}.{not_on_sundays.__qualname__}"
    left = f"a tick has looked since, and perhaps left it: it asks {function} before each start"
    assert ask(id)[1:] == [left]


# --- live workers


def test_a_running_job_says_by_whom_and_until_when(queue, ask, start):
    id = queue.enqueue("slow", timeout=300)
    child = start()

    running, limit = ask(id)
    assert running.startswith("running: for 0s, attempt 1, by worker anna-")
    assert running.endswith(f" (pid {child.pid})")
    assert limit.startswith("its timeout is 5m: it is ended in ")


def test_a_job_behind_a_busy_worker_says_what_runs(queue, ask, start):
    slow = queue.enqueue("slow")
    child = start()
    id = queue.enqueue("good")

    answer, runs = ask(id)
    assert answer.startswith("busy: due")
    assert "its worker runs other jobs" in answer
    assert runs.startswith(f"worker anna-{child.pid}-")
    assert f" runs job {slow} (slow) for " in runs


def test_a_job_beyond_a_concurrency_says_how_many_run(queue, ask, start):
    queue.enqueue("slow")
    start(
        RUNS.replace(
            "max_workers=9",
            "admit=[__import__('dbbasic_queue.limits').limits.concurrency(1, type='slow')]",
        )
    )
    id = queue.enqueue("slow")

    assert ask(id) == ["limited: concurrency(1, type='slow'), and 1 such run now"]


def test_a_job_whose_worker_died_is_stuck(queue, ask, start):
    id = queue.enqueue("slow")
    child = start()
    child.kill()
    child.wait()

    first, last = ask(id)
    assert first.startswith("stuck: its worker anna-")
    assert first.endswith(" has died; the next tick takes it in")
    assert last == "no tick has come yet"


@pytest.fixture
def alive(queue):
    """Make a live worker that runs a job, as its file says, without a process of its own."""
    made = []

    def make(running=None, name="bert"):
        queue.file.make_side()
        made.append(journal.WorkerFile(queue.file, name, None, HANDLERS))
        made[-1].register()
        if running:
            line = journal.start_line(b"1", running.encode(), 1, journal.now(), 3)
            made[-1].append(line, durable=False)
        return made[-1].id

    yield make
    for one in made:
        one.close()


def test_a_job_that_is_claimed_and_not_begun_says_what_its_worker_runs(queue, ask, alive):
    runs, id = queue.enqueue("good"), queue.enqueue("good")
    worker = alive(running=runs)
    with queue.edit() as e:
        e.change(e.get(id), status="processing", worker=f"{worker}.1")

    claimed, slow = ask(id)
    assert claimed == f"claimed: worker {worker} (pid {os.getpid()}) has not begun it yet"
    assert slow == f"worker {worker} runs job {runs} (good) for 0s"


def test_an_idle_worker_takes_it_at_its_next_look(queue, ask, alive):
    id = queue.enqueue("good")
    worker = alive()

    assert ask(id) == [f"due: worker {worker} takes it at its next look"]


def test_as_many_workers_as_may_live_are_told(queue, ask, alive, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for _ in range(4):
        alive(running=queue.enqueue("good", priority=9))
    id = queue.enqueue("good")

    text = "busy: due; 4 workers live, and one more may not by default (max_workers)"
    assert ask(id)[0] == text


# --- what has ended


def test_a_failed_job_says_when_and_with_what(queue, ask, clock):
    id = queue.enqueue("bad", "no such shop", max_attempts=1)
    tick(queue)
    clock.tick(180)

    assert ask(id) == [
        "failed 3m ago, after 1 attempt: ValueError: no such shop",
        f"`retry {id}` makes it pending again",
    ]


def test_a_completed_job_says_how_long_it_ran(queue, ask, clock):
    id = queue.enqueue("good")
    tick(queue, {"good": lambda payload: clock.tick(2.5) and None})

    assert ask(id) == ["completed 0s ago, after 1 attempt; it ran for 2.5s"]


def test_a_job_cancelled_because_of_its_parent_names_it(queue, ask):
    parent = queue.enqueue("bad", "x", max_attempts=1)
    id = queue.enqueue("good", after=parent)
    tick(queue)

    answer, waited, told, _ = ask(id)
    assert answer == f"cancelled 0s ago: never ok: job {parent}"
    assert waited == f"it waited: ok:{parent}"
    assert told == f"job {parent} (bad) is failed since 0s: ValueError: x"


def test_a_job_cancelled_by_hand_says_so(queue, ask):
    id = queue.enqueue("good")
    queue.cancel(id)

    assert ask(id)[0] == "cancelled 0s ago, by hand"


def test_an_archived_job_says_that_it_is(queue, ask, clock):
    id = queue.enqueue("bad", "x", max_attempts=1)
    tick(queue)
    clock.tick(60)
    queue.archive(1)

    assert ask(id) == [
        "failed 1m ago, after 1 attempt: ValueError: x",
        "archived: it is not in the queue any more, and cannot be retried there",
    ]


def test_an_unknown_job_is_an_error(ask):
    with pytest.raises(errors.UnknownJob, match="no job has the id"):
        ask("0123456789abcdef")


def test_hostile_texts_come_without_control_characters(queue, ask):
    id = queue.enqueue("bad", "a\x1b[31m\nb", max_attempts=1)
    tick(queue)

    assert "a\\x1b[31m\\nb" in ask(id)[0]


def test_the_first_answer_does_not_look_at_what_comes_first(queue, monkeypatch):
    queue.enqueue("good")
    tick(queue)
    id = queue.enqueue("good")
    asked = []
    real = lookup.jobs
    monkeypatch.setattr(lookup, "jobs", lambda *given, **words: asked.append(given) or real(*given))

    assert next(reasons(id, queue)).startswith("due: ")
    assert asked == []


# --- the command


def test_the_command_prints_the_answer_and_below_it_the_rest(queue, capsys):
    id = queue.enqueue("bad", "no such shop", max_attempts=1)
    tick(queue)

    status = cli.main(["why", id])

    answer = capsys.readouterr()
    assert status == 0
    assert answer.out == (
        f"{id}  failed 0s ago, after 1 attempt: ValueError: no such shop\n"
        f"                  `retry {id}` makes it pending again\n"
    )
    assert answer.err == f"queue {queue.path}\n"


def test_at_a_terminal_the_id_stands_out(queue, tmp_path):
    id = queue.enqueue("bad", run_at=NOW + 10**9)
    terminal, theirs = pty.openpty()

    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}\n"
         "from dbbasic_queue.cli import main; sys.exit(main())", "--file", queue.path, "why", id],
        stdout=theirs, stderr=subprocess.PIPE, cwd=ROOT, text=True,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    os.close(theirs)
    out = os.read(terminal, 4096).decode()
    os.close(terminal)
    assert (done.returncode, done.stderr) == (0, f"queue {queue.path}\n")
    assert out.startswith(f"\x1b[1m{id}\x1b[0m  scheduled: it is due in ")


def test_the_command_answers_no_for_an_unknown_job_and_goes_on(queue, capsys):
    id = queue.enqueue("good", run_at=NOW + 60)

    status = cli.main(["why", "0123456789abcdef", id, "--json"])

    answer = capsys.readouterr()
    [document] = json.loads(answer.out)
    assert (status, document["id"]) == (1, id)
    assert document["why"][0].startswith("scheduled: ")
    assert answer.err.endswith("no job has the id 0123456789abcdef\n")


def test_show_says_why_a_job_has_not_run(queue, capsys):
    waits, over = queue.enqueue("good", run_at=NOW + 60), queue.enqueue("good")
    tick(queue)

    cli.main(["show", waits])
    assert re.search(r"^why +scheduled: it is due in 1m, at ", capsys.readouterr().out, re.M)
    cli.main(["show", over])
    assert not re.search(r"^why ", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    "limit",
    ["rate(1e400, 60)", "rate(0, 60)", "rate(1, 0, how='fixed')", "rate(0, 9, how='spacing')",
     "concurrency(0)", "rate(1, 1e400)"],
)  # fmt: skip
def test_a_limit_that_cannot_be_is_told_and_not_weighed(queue, ask, limit):
    id = queue.enqueue("good")
    queue.file.make_side()
    with open(queue.path + ".d/types", "w") as file:
        file.write(f"anna\t\tgood\t{NOW}\t{limit}\n")

    assert ask(id)[0].startswith("no tick: due")


def test_a_job_whose_worker_ends_during_the_look_is_told_as_it_is(queue, ask, monkeypatch):
    id = queue.enqueue("good")
    with queue.edit() as e:
        e.change(e.get(id), status="processing", worker="w-1-abc.1")
    known = queue.workers

    def ended():
        with queue.edit() as e:
            e.change(e.get(id), status="completed", finished_at=time.time())
        return known()

    monkeypatch.setattr(queue, "workers", ended)

    assert ask(id)[0].startswith("completed")
