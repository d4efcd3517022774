"""The shell: each command, what it prints, and its exit status."""

import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, cli
from dbbasic_queue.cli import completion
from dbbasic_queue.cli.arguments import parse, parser
from dbbasic_queue.cli.work import Tally

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = "a\x1b[31mb\nc\td\re\x7ff\x9bg\u2028h\u0085i"
UNSAFE = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
HANDLERS = """
import os, time

def hostile(payload):
    raise ValueError(payload)

def shout(payload):
    return {"said": payload.upper()}

def wait_for(path):
    print("waiting", flush=True)
    while not os.path.exists(path):
        time.sleep(0.01)

def stubborn(path):
    print("waiting", flush=True)
    while True:
        try:
            if os.path.exists(path):
                return
            time.sleep(0.01)
        except BaseException:
            pass

def debugged(payload):
    answer = 42
    breakpoint()

ALL = {name: globals()[name] for name in "shout hostile wait_for stubborn debugged".split()}
NOTHING = None
"""


class Answer(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def doc(self):
        return json.loads(self.out)


@pytest.fixture
def ask(capsys):
    """Run a command line in this process."""

    def run(words, *more):
        capsys.readouterr()
        status = cli.main([*shlex.split(words), *map(str, more)])
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture
def start(tmp_path):
    """Start the real program; what is left of it is killed."""
    children = []

    def run(words, *more, env=None, **popen):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        options |= {"stderr": subprocess.PIPE, "text": True, "cwd": tmp_path, **popen}
        child = subprocess.Popen(
            [sys.executable, "-m", "dbbasic_queue", *shlex.split(words), *more],
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            **options,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        with child:
            child.kill()


@pytest.fixture
def handlers(tmp_path):
    """A module of handlers in the working folder, under a name of its own."""
    name = f"handlers_{os.urandom(4).hex()}"
    (tmp_path / f"{name}.py").write_text(HANDLERS)
    yield f"{name}:ALL"
    sys.modules.pop(name, None)


@pytest.fixture
def queue():
    """The queue that the commands mean without further words."""
    return Queue(sync="off")


def finish(queue, job_id, status="completed", **cells):
    with queue.edit() as e:
        e.change(e.get(job_id), status=status, finished_at=time.time(), **cells)


# --- enqueue


def test_enqueue_prints_the_id_of_a_stored_job(ask, queue):
    answer = ask("enqueue mail", '{"to": "Zürich"}')

    assert (answer.status, answer.err) == (0, "")
    job = queue.get(answer.out.strip())
    assert (job.type, job.payload, job.status) == ("mail", {"to": "Zürich"}, "pending")


def test_enqueue_passes_every_option_on(ask, queue):
    parent = ask("enqueue mail").out.strip()

    job_id = "0123456789abcdef"
    ask(f"enqueue mail [] --queue high --priority -5 --max-attempts 7 --timeout 1.5m --id {job_id}"
        f" --backoff linear:1:2 --group g --after {parent} --after any:{parent}")  # fmt: skip

    job = queue.get(job_id)
    assert (job.queue, job.priority, job.max_attempts, job.timeout) == ("high", -5, 7, 90)
    assert (job.backoff, job.group) == ("linear:1:2", "g")
    assert job.after == f"ok:{parent} any:{parent}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("+30s", 1_900_000_030),
        ("+5m", 1_900_000_300),
        ("+2h", 1_900_007_200),
        ("+1d", 1_900_086_400),
        ("+90", 1_900_000_090),
        ("1950000000", 1_950_000_000),
        ("1950000000.5", 1_950_000_001),
        ("2035-01-31T06:00Z", 2_053_836_000),
        ("2035-01-31T06:00:00+02:00", 2_053_828_800),
    ],
)
def test_run_at_is_a_time_or_a_span(ask, queue, text, seconds):
    with freeze_time(datetime.fromtimestamp(1_900_000_000, timezone.utc)):
        answer = ask("enqueue mail --run-at", text)

    assert queue.get(answer.out.strip()).run_at == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("2035-01-31T06:00", 2_053_857_600), ("2035-07-31", 2_069_470_800)]
)
def test_run_at_without_a_zone_is_local_time(ask, queue, summer_time, text, seconds):
    answer = ask("enqueue mail --run-at", text)

    assert queue.get(answer.out.strip()).run_at == seconds


@pytest.fixture
def summer_time():
    """Six hours west of Greenwich, five in summer."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "CST6CDT,M3.2.0,M11.1.0"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


def test_enqueue_reads_the_payload_from_stdin(ask, queue, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO('{"ü": [1]}'.encode())))

    answer = ask("enqueue mail -")

    assert queue.get(answer.out.strip()).payload == {"ü": [1]}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "COMMAND"),
        ("frobnicate", "frobnicate"),
        ("enqueue", "type"),
        ("enqueue 'a b'", "a b"),
        ("enqueue mail {", "the payload is not JSON"),
        ("enqueue mail NaN", "not JSON"),
        pytest.param(f"enqueue mail {'[' * 100_000}", "not JSON", id="deep"),
        ("enqueue mail '\udcff'", "not JSON"),
        ("enqueue mail --run-at tomorrow", "no time"),
        ("enqueue mail --run-at 20350131", "1970"),
        ("enqueue mail --run-at +1y", "no duration"),
        ("enqueue mail --run-at 2035-13-01", "no time"),
        ("enqueue mail --priority high", "priority"),
        ("enqueue mail --after nobody", "nobody"),
        ("enqueue mail --id xyz", "xyz"),
        ("enqueue mail --queue 'a b'", "a b"),
        ("enqueue mail --backoff often", "often"),
        ("list --status done", "done"),
        ("list --limit -1", "-1"),
        ("list --id 1 --type mail", "one of the two"),
        ("list --stat failed", "--stat"),
        ("show", "ID"),
        ("retry", "--all"),
        ("retry --all --type mail", "one of the three"),
        ("retry --status completed", "only failed and cancelled"),
        ("cancel", "which jobs"),
        ("purge", "--all"),
        ("purge 0123456789abcdef --all", "one of the three"),
        ("archive", "--older-than"),
        ("archive --older-than soon", "no duration"),
        ("work", "MODULE:HANDLERS"),
        ("work handlers", "MODULE:NAME"),
        ("work handlers_that_are_missing:ALL", "cannot import"),
        ("work json:nothing", "no nothing"),
        ("work json:dumps", "no mapping"),
        ("work json:__dict__ --queue high,", "high,default"),
        ("work json:__dict__ --run-for 1s --forever", "not allowed with"),
        ("list --tags shop", "--tags shop (see dbbasic-queue list --help)"),
        ("work json:__dict__ --keep-by purge", "--keep STATUS=TIME"),
        ("work json:__dict__ --options cli_options:ONE", "middleware=1 is no list of functions"),
        ("--file /dev/null enqueue mail", "is not a regular file"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(ask, queue, monkeypatch, words, says):
    options = SimpleNamespace(ONE={"middleware": 1})
    monkeypatch.setitem(sys.modules, "cli_options", options)

    answer = ask(words)

    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.startswith("dbbasic-queue: ")
    assert answer.err.count("\n") == 1
    assert says in answer.err
    assert not os.path.exists(queue.path)


def test_a_foreign_file_is_refused_and_not_touched(ask, tmp_path):
    file = tmp_path / "notes.tsv"
    file.write_text("a\tb\n1\t2\n")

    answers = [ask(f"--file {file} {words}") for words in ("list", "stats", "enqueue mail")]

    assert [answer.status for answer in answers] == [2, 2, 2]
    assert "not a queue" in answers[0].err
    assert file.read_text() == "a\tb\n1\t2\n"


def test_a_folder_is_no_queue(ask, tmp_path):
    for words in ("list", "stats", "enqueue mail"):
        answer = ask(f"--file {tmp_path} {words}")
        assert answer.status == 2
        assert answer.err.splitlines()[-1].startswith("dbbasic-queue: ")


# --- which file


@pytest.mark.parametrize("words", ["--file {} enqueue mail", "enqueue mail --file {}"])
def test_file_stands_before_or_after_the_command(ask, tmp_path, words):
    file = tmp_path / "other.tsv"

    ask(words.format(file))

    assert file.exists()
    assert not (tmp_path / "data").exists()


def test_the_environment_names_the_file(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE", str(tmp_path / "named.tsv"))

    ask("enqueue mail")

    assert (tmp_path / "named.tsv").exists()


@pytest.mark.parametrize("words", ["list", "stats", "workers", "show {}", "doctor"])
def test_what_prints_a_table_says_which_file_is_meant(ask, queue, words):
    job_id = ask("enqueue mail").out.strip()

    answer = ask(words.format(job_id))

    assert (answer.err + answer.out).startswith(f"queue {queue.path}\n")


def test_a_missing_file_is_told_and_not_made(ask, queue):
    answers = [ask(words) for words in ("list", "stats", "workers", "retry --all", "backup b")]

    assert [answer.status for answer in answers] == [1] * 5
    assert "there is no such file" in answers[0].err
    assert not os.path.exists(queue.path)


# --- looking


@pytest.fixture
def five(queue):
    """Five jobs, one of each status; the ids by status."""
    ids = dict(zip(("completed", "failed", "cancelled", "processing", "pending"),
                   queue.enqueue_many([("mail", n) for n in range(5)]), strict=True))  # fmt: skip
    old = time.time() - 7200
    with queue.edit() as e:
        for status, job_id in ids.items():
            finished = {} if status in ("processing", "pending") else {"finished_at": old}
            e.change(e.get(job_id), status=status, created_at=int(old), run_at=int(old), **finished)
        e.change(e.get(ids["failed"]), error="ValueError: boom", queue="high", attempts=3)
        e.change(e.get(ids["processing"]), worker="mailer-1-abc.1", started_at=time.time() - 65)
    return ids


@pytest.mark.parametrize(
    ("words", "statuses"),
    [
        ("", "completed failed cancelled processing pending"),
        ("--newest", "pending processing cancelled failed completed"),
        ("--newest --limit 2", "pending processing"),
        ("--limit 1", "completed"),
        ("--status failed", "failed"),
        ("--queue high", "failed"),
        ("--queue default --limit 1", "completed"),
        ("--type mail --status pending", "pending"),
        ("--worker mailer", "processing"),
        ("--older-than 1h --status pending", "pending"),
        ("--older-than 3h", ""),
        ("--type note", ""),
        ("--limit 0", ""),
    ],
)
def test_list_chooses(ask, five, words, statuses):
    answer = ask(f"list --json {words}")

    assert [job["id"] for job in answer.doc] == [five[one] for one in statuses.split()]
    assert answer.status == (0 if statuses else 1)


def test_list_by_ids(ask, five):
    first, second = five["failed"], five["pending"]

    answer = ask(f"list --json --id {second} {first} --id {second} 0123456789abcdef")

    assert [job["id"] for job in answer.doc] == [second, first]


def test_list_is_a_table(ask, five):
    lines = ask("list").out.splitlines()

    assert lines[0].split() == "ID STATUS TYPE QUEUE ATTEMPTS WHEN ERROR OR PAYLOAD".split()
    assert lines[1].split() == [five["completed"], "completed", "mail", "default", "0",
                                "2h", "ago", "0"]  # fmt: skip
    assert lines[2].split()[3:] == "high 3 2h ago ValueError: boom".split()
    assert "for 1m" in lines[4]
    assert "due 2h" in lines[5]


def test_list_without_jobs_answers_no(ask, queue):
    queue.enqueue("mail")
    queue.purge(status="pending")

    answer = ask("list")

    assert (answer.status, answer.out) == (1, "")
    assert "there are no jobs" in answer.err


def test_show_has_everything(ask, queue):
    job_id = queue.enqueue("mail", {"to": ["ada"]}, queue="high", columns={"tenant": "acme"})
    finish(queue, job_id, "failed", error="first\nsecond", result=None)

    answer = ask("show", job_id)

    assert answer.status == 0
    assert re.search(r"^status +failed, 0s ago$", answer.out, re.M)
    assert re.search(r"^tenant +acme$", answer.out, re.M)
    assert re.search(r"^error +first\n +second$", answer.out, re.M)
    assert re.search(r'^payload +\{\n +"to": \[\n +"ada"\n +\]\n +\}$', answer.out, re.M)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [("1795384252", r"2026-11-2\d .* \(1795384252\)"), ("noon", "noon"), ("1.2.3", "1.2.3")],
)
def test_show_tells_a_column_of_others_that_ends_in_at(ask, queue, cell, shown):
    job_id = queue.enqueue("mail", columns={"expires_at": cell})

    answer = ask("show", job_id)

    assert answer.status == 0
    assert re.search(rf"^expires_at +{shown}$", answer.out, re.M)


def test_show_as_json_has_every_column_with_its_type(ask, queue):
    job_id = queue.enqueue("mail", {"to": "ada"}, timeout=2.5, columns={"tenant": "acme"})

    doc = ask("show --json", job_id).doc

    assert doc["payload"] == {"to": "ada"}
    assert (doc["timeout"], doc["priority"], doc["error"], doc["tenant"]) == (2.5, 0, None, "acme")
    assert list(doc)[:9] == list(queue.get_job(job_id))


def test_show_of_an_unknown_job_answers_no(ask, queue):
    answer = ask("show 0123456789abcdef")

    assert (answer.status, answer.out) == (1, "")
    assert "no job has the id 0123456789abcdef" in answer.err


def test_show_finds_an_archived_job(ask, queue):
    job_id = queue.enqueue("mail")
    finish(queue, job_id)
    assert ask("archive --older-than 0").status == 0

    assert ask("show --json", job_id).doc["status"] == "completed"
    answer = ask("retry", job_id)
    assert answer.status == 1
    assert "is completed" in answer.err


def test_a_payload_that_is_not_json_is_shown_as_it_is(ask, queue):
    job_id = queue.enqueue("mail", {"a": 1})
    file = Path(queue.path)
    file.write_bytes(file.read_bytes().replace(b'{"a": 1}', b'{"a": NaN'))

    assert '{"a": NaN  (not JSON)' in ask("show", job_id).out
    doc = ask("show --json", job_id).doc
    assert (doc["payload"], doc["payload_text"]) == (None, '{"a": NaN')
    assert ask("list").status == 0


def test_a_number_that_is_none_is_shown_as_text(ask, queue):
    job_id = queue.enqueue("mail", {"a": [1]})
    file = Path(queue.path)
    file.write_bytes(file.read_bytes().replace(b'{"a": [1]}', b'{"a": [NaN, -Infinity]}'))

    assert ask("show --json", job_id).doc["payload"] == {"a": ["nan", "-inf"]}


def test_p24_no_command_shows_a_finished_job_as_running(ask, queue):
    """P24: its row says processing until the next fold, and only the row."""
    _, done, runs = queue.enqueue_many([("mail", 1), ("mail", 2), ("look", 3)])
    queue.enqueue_many([("mail", 0)] * 3)  # one claim takes all but the first
    seen = {}

    def look(payload):
        seen["row"] = Path(queue.path).read_text().splitlines()[2].split("\t")[3]
        seen["list"] = [job["id"] for job in ask("list --json --status processing").doc]
        seen["show"] = ask("show --json", done).doc["status"]
        seen["stats"] = ask("stats --json").doc["statuses"]["completed"]
        seen["export"] = [job["status"] for job in ask("export --json").doc][:3]

    queue.process_jobs({"mail": str, "look": look})

    assert seen.pop("row") == "processing"
    assert done not in seen["list"] and runs in seen["list"]
    assert seen == {
        "list": seen["list"],
        "show": "completed",
        "stats": 2,
        "export": ["completed", "completed", "processing"],
    }


def test_stats_counts_pending_jobs_by_kind(ask, queue):
    now = time.time()
    parent = queue.enqueue("mail", run_at=now + 3600)
    done = queue.enqueue("mail", queue="high")
    finish(queue, done)
    queue.enqueue("mail", after=parent)  # waiting
    queue.enqueue("mail", after=done)  # due
    queue.enqueue("note")  # due
    again = queue.enqueue("note")  # retrying
    with queue.edit() as e:
        e.change(e.get(again), run_at=int(now + 60), attempts=1)

    doc = ask("stats --json").doc

    kinds = {kind: doc[kind] for kind in ("due", "scheduled", "retrying", "waiting")}
    assert kinds == {"due": 2, "scheduled": 1, "retrying": 1, "waiting": 1}
    assert doc["statuses"] == {"pending": 5, "processing": 0, "completed": 1, "failed": 0,
                               "cancelled": 0}  # fmt: skip
    assert doc["queues"]["high"]["completed"] == 1
    assert doc["types"]["note"]["pending"] == 2
    assert (doc["jobs"], doc["workers"], doc["last_tick_age"]) == (6, 0, None)
    assert 0 <= doc["oldest_due_age"] < 5


def test_stats_knows_groups_and_archived_parents(ask, queue):
    archived = queue.enqueue("mail")
    finish(queue, archived)
    queue.archive(0)
    queue.enqueue("mail", group="g")
    queue.enqueue("mail", after=archived)
    member = queue.enqueue("mail", group="h")
    queue.enqueue("mail", after="ok:@g")
    queue.enqueue("mail", after="any:@h")
    finish(queue, member)

    doc = ask("stats --json").doc

    assert (doc["due"], doc["waiting"]) == (3, 1)


def test_stats_of_one_queue_or_type(ask, five):
    assert ask("stats --json --queue high").doc["jobs"] == 1
    assert ask("stats --json --type mail").doc["jobs"] == 5
    assert ask("stats --type note").status == 1


def test_stats_is_for_people_too(ask, five):
    out = ask("stats").out

    assert re.search(r"^pending +1  1 due$", out, re.M)
    assert re.search(r"^oldest due +for 2h$", out, re.M)
    assert re.search(r"^high +0 +0 +0 +0 +1 +0$", out, re.M)
    assert "#" not in out and "█" not in out


def test_stats_knows_times_and_rates(ask, queue):
    queue.enqueue_many([("mail", 1), ("mail", 2), ("bad", 3)])
    queue.process_jobs({"mail": print, "bad": lambda payload: 1 / 0}, max_attempts=1)

    out = ask("stats").out

    assert re.search(r"^rate +0\.05 a minute, in the last hour$", out, re.M)
    assert re.search(r"^run time +p50 [\d.]+m?s, p95 [\d.]+m?s$", out, re.M)
    assert re.search(r"^success +66.7% in the last day$", out, re.M)
    assert re.search(r"^mail +0 +0 +2 +0 +0 +100% ", out, re.M)
    assert re.search(r"^bad +0 +0 +0 +1 +0 +0% ", out, re.M)


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "█"), ("ascii", "#")])
def test_stats_draws_bars_at_a_terminal(start, queue, encoding, mark):
    queue.enqueue_many([("mail", n) for n in range(10)])
    queue.enqueue("mail", queue="high")
    terminal, theirs = pty.openpty()

    child = start("stats", stdout=theirs, env={"PYTHONIOENCODING": encoding, "NO_COLOR": "1"})
    os.close(theirs)
    child.wait(timeout=60)
    out = os.read(terminal, 65536).decode()
    os.close(terminal)

    assert child.returncode == 0
    bars = dict(re.findall(rf"^(default|high)\b.*?({mark}+) *\r?$", out, re.M))
    assert len(bars["default"]) > 5 * len(bars["high"]) > 0


# --- why jobs failed


def test_failed_groups_by_type_and_first_line(ask, queue):
    def refuse(payload):
        raise OSError(f"no route to {payload}\nat all")

    queue.enqueue_many([("mail", "a"), ("mail", "a"), ("mail", "b"), ("note", "a")])
    queue.process_jobs({"mail": refuse, "note": refuse}, max_attempts=1)

    told = ask("failed")
    one = ask("failed --type note --json")

    assert told.status == 0
    lines = told.out.splitlines()
    assert re.fullmatch(r"mail +2 +0s ago  0s ago  [0-9a-f]{16}  OSError: no route to a", lines[1])
    assert len(lines) == 4
    assert [(group["jobs"], group["error"]) for group in one.doc] == [(1, "OSError: no route to a")]


def test_failed_of_no_failure_is_status_1(ask, five):
    queue_without = ask("failed --type nothing")

    assert (queue_without.status, queue_without.out) == (1, "")
    assert "no job has failed" in queue_without.err


# --- which jobs


def test_list_takes_kinds_and_text(ask, queue):
    id = queue.enqueue("mail", {"to": "Ada"})
    queue.enqueue("mail", {"to": "Ben"}, run_at=timedelta(hours=1))

    assert [job["id"] for job in ask("list --status due --json").doc] == [id]
    assert [job["id"] for job in ask("list --text ada --json").doc] == [id]
    assert ask("list --status stuck").status == 1
    assert ask("list --group none").status == 1


def test_cancel_takes_filters_and_says_whom_it_took_along(ask, queue):
    ids = queue.enqueue_many([("mail", {"to": "Ada"}), ("mail", {"to": "Ben"})])
    after = queue.enqueue("report", after=ids[0])
    queue.enqueue("note")

    answer = ask("cancel --type mail")

    assert (answer.status, set(answer.out.split())) == (0, {*ids, after})
    assert ask("cancel --text Ada").status == 1
    assert ask("cancel --status failed").status == 2
    assert len(ask("cancel --all").out.split()) == 1


# --- pausing


@pytest.mark.soak
def test_a_paused_queue_is_told_by_stats_and_the_doctor_until_it_is_resumed(ask, five):
    paused = [ask("pause default"), ask("pause default"), ask("stats"), ask("doctor")]
    resumed = [ask("resume default"), ask("resume default"), ask("stats"), ask("doctor")]

    assert [answer.status for answer in (*paused[:2], *resumed[:2])] == [0, 1, 0, 1]
    assert [paused[0].out, resumed[0].out] == ["default\n", "default\n"]
    assert "queue default is paused already" in paused[1].err
    assert "queue default is not paused" in resumed[1].err
    assert re.search(r"^paused +default$", paused[2].out, re.M)
    assert "queue default is paused, and jobs of it are due: 1" in paused[3].out
    assert not re.search(r"^paused|is paused", resumed[2].out + resumed[3].out, re.M)


def test_pausing_prints_json_and_refuses_what_is_no_label(ask, five):
    assert ask("pause mail --json").doc["paused"] == ["mail"]
    assert ask("pause '../mail'").status == 2
    assert ask("--file missing.tsv pause mail").status == 2
    assert not os.path.exists("missing.tsv")


# --- moving


def test_retry_by_ids_says_which_it_could_not(ask, queue, five):
    answer = ask(f"retry {five['failed']} {five['cancelled']} {five['completed']} nobody")

    assert answer.status == 1
    assert answer.out.split() == [five["failed"], five["cancelled"]]
    assert f"job {five['completed']} is completed" in answer.err
    assert "no job has the id nobody" in answer.err
    assert queue.counts("status")["pending"] == 3


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("--all", "failed"),
        ("--type mail", "failed"),
        ("--queue high", "failed"),
        ("--status cancelled", "cancelled"),
        ("--older-than 1h", "failed"),
        ("--worker nobody", None),
        ("--type note", None),
    ],
)
def test_retry_by_filter(ask, queue, five, words, status):
    answer = ask(f"retry {words}")

    assert answer.out.split() == ([five[status]] if status else [])
    assert answer.status == (0 if status else 1)


def test_retry_copy_adds_new_jobs(ask, queue, five):
    answer = ask(f"retry --copy --json {five['failed']}")

    (new,) = answer.doc["retried"]
    assert new not in five.values()
    assert answer.status == 0
    assert queue.get(five["failed"]).status == "failed"
    assert queue.get(new).payload == 1


def test_cancel_ends_what_waits_too(ask, queue):
    parent = queue.enqueue("mail")
    child = queue.enqueue("mail", after=parent)

    answer = ask(f"cancel {parent} {child}")

    assert (answer.status, answer.out.split()) == (0, [parent, child])
    assert queue.counts("status") == {"cancelled": 2}
    answer = ask(f"cancel --json {parent}")
    assert (answer.status, answer.doc) == (1, {"cancelled": []})
    assert "only pending jobs" in answer.err


def test_purge_without_a_terminal_wants_yes(ask, queue, five):
    answer = ask("purge --older-than 1h")

    assert (answer.status, answer.out) == (2, "")
    assert "3 jobs" in answer.err
    assert "--yes" in answer.err
    assert len(list(queue.jobs())) == 5


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("--older-than 1h", "processing pending"),
        ("--older-than 3h", "completed failed cancelled processing pending"),
        ("--all", "processing pending"),
        ("--status failed", "completed cancelled processing pending"),
        ("--status pending", "completed failed cancelled processing"),
        ("--queue high", "completed cancelled processing pending"),
        ("--status processing", "completed failed cancelled processing pending"),
        ("{pending} {failed}", "completed cancelled processing"),
    ],
)
def test_purge_deletes_what_was_chosen(ask, queue, five, words, left):
    before = 5

    answer = ask(f"purge --yes --json {words.format(**five)}")

    assert [job.status for job in queue.jobs()] == left.split()
    assert answer.doc["purged"] == before - len(left.split())
    assert answer.status == (0 if answer.doc["purged"] else 1)


def test_purge_tells_what_stays(ask, queue):
    parent = queue.enqueue("mail")
    queue.enqueue("mail", after=f"any:{parent}")
    finish(queue, parent)

    answer = ask(f"purge --yes {parent} 0123456789abcdef")

    assert answer.status == 1
    assert "1 job stayed" in answer.err
    assert "no job has the id 0123456789abcdef" in answer.err
    assert queue.get(parent)


@pytest.mark.parametrize(("reply", "left", "status"), [("y\n", 2, 0), ("n\n", 5, 1), ("\n", 5, 1)])
def test_purge_asks_at_a_terminal(start, queue, five, reply, left, status):
    terminal, theirs = pty.openpty()
    os.write(terminal, reply.encode())

    child = start("purge --all", stdin=theirs)
    _, err = child.communicate(timeout=60)
    os.close(theirs)
    os.close(terminal)

    assert f"Delete 3 jobs from {queue.path} for good? [y/N]" in err
    assert child.returncode == status
    assert len(list(queue.jobs())) == left


def test_archive_moves_old_jobs_and_is_done_also_when_there_are_none(ask, queue, five):
    answers = [ask("archive --json --older-than 1h"), ask("archive --older-than 1h")]

    assert [answer.status for answer in answers] == [0, 0]
    assert answers[0].doc["archived"] == 3
    assert "0 jobs moved" in answers[1].out
    assert queue.get(five["failed"]).status == "failed"


def test_backup_copies_the_queue(ask, queue, five, tmp_path):
    answer = ask("backup copy.tsv")

    assert answer.status == 0
    assert str(tmp_path / "copy.tsv") in answer.out
    assert (tmp_path / "copy.tsv").read_bytes() == Path(queue.path).read_bytes()


@pytest.mark.parametrize("target", ["data/queue.tsv", "data", "missing/copy.tsv"])
def test_a_backup_that_cannot_be_made_says_why(ask, queue, five, tmp_path, target):
    before = Path(queue.path).read_bytes()

    answer = ask(f"backup {target}")

    assert answer.status == 2
    assert answer.err.startswith("dbbasic-queue: ")
    assert answer.err.count("\n") == 1
    assert Path(queue.path).read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))


# --- working


def test_work_is_one_tick(ask, queue, handlers):
    now, later = queue.enqueue("shout", "hi"), queue.enqueue("shout", "ho", time.time() + 60)

    answer = ask(f"work {handlers}")

    assert (answer.status, answer.out) == (0, "")
    assert queue.get(now).result == {"said": "HI"}
    assert queue.get(later).status == "pending"


def test_work_passes_its_options_on(ask, queue, handlers):
    low, high = queue.enqueue("shout", "a", queue="low"), queue.enqueue("shout", "b", queue="high")
    other = queue.enqueue("shout", "c")
    bad = queue.enqueue("hostile", "d", queue="high")

    answer = ask(f"work {handlers} --queue high,low --max-attempts 1 --name me --json")

    assert answer.doc == {"started": 3, "completed": 2, "failed": 1}
    first, second = queue.get(high), queue.get(low)
    assert first.started_at <= second.started_at
    assert first.worker.startswith("me-")
    assert queue.get(bad).attempts == 1
    assert queue.get(other).status == "pending"
    assert ask(f"work {handlers} --max-jobs 1 --run-for 20s").status == 0


def test_work_logs_when_asked(start, queue, handlers):
    queue.enqueue("shout", "hi")

    child = start(f"work {handlers} -v")
    _, err = child.communicate(timeout=60)

    assert child.returncode == 0
    assert f"INFO queue {queue.path}" in err
    assert "shout completed" in err


def test_work_shows_the_traceback_of_a_module_that_breaks(start, tmp_path):
    (tmp_path / "broken.py").write_text("import json\n\nsurely = not_there\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")

    child, leaves = start("work broken:ALL"), start("work leaves:ALL")
    _, err = child.communicate(timeout=60)
    leaves.communicate(timeout=60)

    assert (child.returncode, leaves.returncode) == (2, 2)
    assert 'broken.py", line 3' in err
    assert err.splitlines()[-1] == (
        "dbbasic-queue: cannot import broken: NameError: name 'not_there' is not defined"
    )


def test_sigterm_lets_the_job_finish_and_status_is_0(start, queue, handlers):
    long, next = queue.enqueue("wait_for", "over"), queue.enqueue("shout", "too late")

    child = start(f"work {handlers} --forever")
    assert child.stdout.readline() == "waiting\n"
    child.send_signal(signal.SIGTERM)
    Path("over").touch()

    assert child.wait(60) == 0
    assert queue.get(long).status == "completed"
    assert queue.get(next).status == "pending"
    assert queue.workers() == []


@pytest.mark.soak
def test_sigterm_without_a_job_is_status_0_too(start, queue, handlers):
    done = queue.enqueue("wait_for", ".")

    child = start(f"work {handlers} --forever -v")
    assert child.stdout.readline() == "waiting\n"
    queue.wait(done, timeout=60)
    child.send_signal(signal.SIGTERM)

    assert child.wait(60) == 0


def test_the_module_of_the_handlers_may_set_up_its_own_log(start, queue, handlers, tmp_path):
    queue.enqueue("hostile", "boom")
    with open(tmp_path / f"{handlers.partition(':')[0]}.py", "a") as module:
        module.write("import logging\nlogging.basicConfig(format='mine: %(message)s')\n")

    child = start(f"work {handlers} -v")
    _, err = child.communicate(timeout=60)

    assert err.startswith("mine: job ")


@pytest.mark.soak
def test_ctrl_c_ends_a_shell_loop_too(start, queue, handlers):
    queue.enqueue("wait_for", "over")

    # a shell's background job has SIGINT ignored, and whoever runs these tests may be one
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    child = start(f"work {handlers}", **heed)
    assert child.stdout.readline() == "waiting\n"
    child.send_signal(signal.SIGINT)
    Path("over").touch()
    _, err = child.communicate(timeout=60)

    assert (child.returncode, err) == (130, "")
    assert queue.counts("status") == {"completed": 1}


@pytest.mark.soak
def test_workers_shows_who_lives_and_stop_waits_for_them(start, ask, queue, handlers):
    job_id = queue.enqueue("wait_for", "over")
    child = start(f"work {handlers} --forever --name waiter")
    assert child.stdout.readline() == "waiting\n"

    (doc,) = ask("workers --json").doc
    table = ask("workers")
    stranger = ask("stop somebody")
    early = ask("stop waiter --wait 0.1s")
    early_doc = ask("stop --json --wait 0").doc

    def let_go():  # when `stop` has asked, and waits
        until = time.monotonic() + 30
        while request.read_bytes().count(b"\n") < 3 and time.monotonic() < until:
            time.sleep(0.005)
        Path("over").touch()

    request = Path(f"{queue.path}.d/workers/{doc['id']}.stop")
    watching = threading.Thread(target=let_go)
    watching.start()
    late = ask("stop --wait 60")
    watching.join()

    me = {"id": doc["id"], "pid": child.pid, "jobs": doc["jobs"]}
    assert (doc["name"], list(doc["jobs"])) == ("waiter", [job_id])
    assert table.status == 0
    assert re.search(rf"^waiter-\S+ +{child.pid} .* {job_id} for \d+s$", table.out, re.M)
    assert (stranger.status, stranger.out) == (1, "")
    assert "no worker lives with the name somebody" in stranger.err
    assert (early.status, early.out) == (1, "")
    assert f"worker {doc['id']} (pid {child.pid}) is left: runs {job_id} for" in early.err
    assert early_doc == {"stopped": [], "left": [me], "file": queue.path}
    assert late == (0, f"{doc['id']}\n", "")
    assert child.wait(60) == 0
    assert queue.get(job_id).status == "completed"
    assert ask("workers").status == ask("stop").status == 1


@pytest.mark.soak
def test_kill_ends_a_job_that_runs_and_tells_of_others_why_not(start, ask, queue, handlers):
    runs, done = queue.enqueue("wait_for", "never"), queue.enqueue("shout", "a", run_at=4e9)
    waits = queue.enqueue("shout", "b", run_at=4e9)
    finish(queue, done)
    child = start(f"work {handlers} --forever")
    assert child.stdout.readline() == "waiting\n"

    answer = ask(f"kill {waits} {runs} {done} nobody --wait 60")

    assert (answer.status, answer.out) == (1, f"{runs}\n")
    assert answer.err.splitlines() == [
        f"dbbasic-queue: job {waits} does not run, it is pending: `cancel {waits}` is the word",
        f"dbbasic-queue: job {done} is completed already",
        "dbbasic-queue: no job has the id nobody",
    ]
    assert (queue.get(runs).status, queue.get(runs).error) == ("cancelled", "ended on request")
    assert child.poll() is None


@pytest.mark.soak
def test_kill_waits_no_longer_than_it_was_told(start, ask, queue, handlers):
    runs = queue.enqueue("stubborn", "over")
    child = start(f"work {handlers}")
    assert child.stdout.readline() == "waiting\n"

    early = ask(f"kill --json {runs} --wait 0")
    Path("over").touch()

    assert (early.status, early.doc["ended"]) == (1, [])
    assert early.doc["left"][0]["id"] == runs
    assert "still runs, by worker w-" in early.err
    assert child.wait(60) == 0


def test_kill_of_a_job_whose_worker_died_says_so(start, ask, queue, handlers):
    runs = queue.enqueue("wait_for", "never")
    child = start(f"work {handlers}")
    assert child.stdout.readline() == "waiting\n"
    child.kill()
    child.wait(60)

    answer = ask(f"kill {runs}")

    assert (answer.status, answer.out) == (1, "")
    assert "no live worker: the next tick takes it in" in answer.err


@pytest.mark.soak
@pytest.mark.parametrize("processes", [0, 2])
def test_work_as_json_counts_in_every_process(start, queue, handlers, processes):
    queue.enqueue_many([("shout", "a"), ("hostile", "b"), ("shout", "c")])

    child = start(f"work {handlers} --json --max-attempts 1 --processes {processes}")
    out, _ = child.communicate(timeout=60)

    assert json.loads(out) == {"started": 3, "completed": 2, "failed": 1}


def test_a_tally_writes_into_nobody_else_s_file(tmp_path):
    tally = Tally()
    tally.note("started", None)
    counts = dict(tally.counts())

    with open(tmp_path / "mine", "w+b", buffering=0) as mine:
        os.dup2(mine.fileno(), tally._fd)  # a handler that closes all that it finds, and opens one
        tally.note("completed", None)
        tally.close()

        assert (counts["started"], tally.counts()) == (1, counts)
        assert os.fstat(mine.fileno()).st_size == 0
    os.close(tally._fd)


@pytest.mark.soak
def test_work_as_json_ended_by_a_signal_says_what_it_did(start, queue, handlers):
    done = queue.enqueue("wait_for", ".")
    child = start(f"work {handlers} --forever --json --processes 1")
    queue.wait(done, timeout=60)

    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=60)

    assert child.returncode == 0
    assert json.loads(out.removeprefix("waiting\n")) == {"started": 1, "completed": 1}


def test_run_runs_one_job_and_prints_its_result(ask, queue, handlers):
    first, wanted = queue.enqueue("shout", "a"), queue.enqueue("shout", "b", time.time() + 3600)

    answer = ask(f"run {wanted} {handlers}")

    assert (answer.status, json.loads(answer.out)) == (0, {"said": "B"})
    assert queue.get(wanted).status == "completed"
    assert queue.get(first).status == "pending"


def test_run_prints_the_traceback_of_a_failure(start, queue, handlers):
    job_id = queue.enqueue("hostile", "boom")

    child = start(f"run {job_id} {handlers}")
    out, err = child.communicate(timeout=60)

    assert (child.returncode, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert "raise ValueError(payload)" in err
    assert err.splitlines()[-1].endswith("is pending after attempt 1: ValueError: boom")


def test_run_says_why_it_does_not(ask, queue, five, handlers):
    child = queue.enqueue("shout", after=five["pending"])
    queue.enqueue("shout", "unrelated")
    refused = {five["completed"]: "completed already", five["failed"]: "`retry", "nobody": "no job",
               five["processing"]: "is running", five["pending"]: "no handler",
               child: "waits"}  # fmt: skip

    for job_id, reason in refused.items():
        answer = ask(f"run {job_id} {handlers}")
        assert (answer.status, answer.out) == (1, "")
        assert reason in answer.err
    assert queue.counts("type", "status")["shout", "pending"] == 2


def test_run_leaves_the_terminal_to_a_debugger(start, queue, handlers):
    job_id = queue.enqueue("debugged")

    child = start(f"run {job_id} {handlers}", stdin=subprocess.PIPE)
    out, _ = child.communicate("p answer * 1000\nc\n", timeout=60)

    assert child.returncode == 0
    assert "42000" in out
    assert queue.get(job_id).status == "completed"


# --- for programs, terminals and pipes

EVERY = {
    "enqueue": "enqueue mail",
    "retry": "retry --all",
    "cancel": "cancel {pending}",
    "purge": "purge --yes {completed}",
    "work": "work {handlers}",
    "run": "run {shout} {handlers}",
    "list": "list",
    "show": "show {failed}",
    "tail": "tail {completed}",
    "wait": "wait {completed}",
    "stats": "stats",
    "failed": "failed",
    "metrics": "metrics",
    "watch": "watch --since 3h --event failed --timeout 0",
    "history": "history {failed}",
    "top": "top --once",
    "why": "why {failed} {pending}",
    "completion": "completion bash",
    "workers": "workers",
    "archive": "archive --older-than 0",
    "backup": "backup copy.tsv",
    "edit": "edit",
    "export": "export",
    "pause": "pause mail",
    "resume": "resume mail",
    "kill": "kill {pending}",
    "stop": "stop",
    "doctor": "doctor",
    "health": "health",
    "cron": "cron {handlers}",
    "init": "init",
    "makefile": "makefile",
    "schedule": "schedule list",
    "new-key": "new-key",
    "reseal": "reseal",
}


def commands():
    (action,) = (one for one in parser()._actions if isinstance(one.choices, dict))
    return action.choices


@pytest.fixture
def quiet_editor(monkeypatch):
    monkeypatch.setenv("VISUAL", "true")
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", "A" * 43 + "=")  # for reseal


def test_the_table_of_these_tests_has_every_command():
    elsewhere = {"dashboard", "forward", "graduate"}  # tests/test_web.py, tests/test_celery.py

    assert set(EVERY) | elsewhere == set(commands())


def test_what_needs_an_extra_that_is_missing_names_it(ask, queue, monkeypatch):
    monkeypatch.setitem(sys.modules, "celery", None)

    for words in ("forward jobs:bridge", "graduate --to redis://localhost"):
        answer = ask(words)

        assert answer.status == 2
        assert "celery is not installed: pip install 'dbbasic-queue[celery]'" in answer.err


@pytest.mark.parametrize("name", EVERY)
def test_json_is_one_document(ask, queue, five, handlers, quiet_editor, name):
    shout = queue.enqueue("shout", HOSTILE)

    answer = ask("--json " + EVERY[name].format(**five, shout=shout, handlers=handlers))

    assert isinstance(answer.doc, (dict, list))
    assert answer.out.isascii()
    assert not UNSAFE.search(answer.out)
    assert "queue /" not in answer.err


@pytest.mark.parametrize("name", EVERY)
def test_p35_hostile_text_never_reaches_the_terminal(
    ask, queue, five, handlers, quiet_editor, name
):
    shout = queue.enqueue("shout", HOSTILE, columns={"tenant": HOSTILE})
    with queue.edit() as e:
        for job in list(e.scan()):
            text = {"error": HOSTILE} if job.finished else {}
            e.change(job, payload=HOSTILE, **text)

    answer = ask(EVERY[name].format(**five, shout=shout, handlers=handlers))

    assert answer.status in (0, 1) or name == "health"  # nothing has run these jobs for hours
    out = answer.out.replace("\n\t", "\n") if name == "makefile" else answer.out
    assert not UNSAFE.search(out + answer.err)


@pytest.mark.parametrize("words", ["list --type", "show", "retry", "cancel", "--file", "frob"])
def test_hostile_arguments_do_not_either(ask, queue, words):
    queue.enqueue("mail")

    answer = ask(words, HOSTILE, *(["list"] if words == "--file" else []))

    assert answer.status in (1, 2)
    assert not UNSAFE.search(answer.out + answer.err)


def test_hostile_lines_in_the_file_do_not_either(ask, queue, tmp_path):
    queue.enqueue("mail")
    with open(queue.path, "ab") as file:
        file.write(b"\x1b[31mbad\x9b\xff line\n")
        file.write(b"abc\t\x1b]0;title\x07\t{}\tpending\t1\t1\t0\t\x1b[2J\t\n")

    answers = [ask(words) for words in ("list", "show abc", "stats", "doctor", "doctor --mend")]

    assert [answer.status for answer in answers[:4]] == [0, 0, 0, 1]
    for answer in answers:
        assert not UNSAFE.search(answer.out + answer.err)


def test_log_lines_cannot_be_forged(start, queue, handlers):
    queue.enqueue("hostile", "x\n2030-01-01 00:00:00,000 INFO all is well\x1b[2J")

    child = start(f"work {handlers} -v")
    _, err = child.communicate(timeout=60)

    assert not UNSAFE.search(err)
    assert [line for line in err.splitlines() if line.startswith("2030")] == []


@pytest.mark.soak
def test_a_pipe_that_closes_early_is_no_error(start, queue):
    queue.enqueue_many([("mail", "x" * 100)] * 3000)

    child = start("list")
    child.stdout.readline()
    child.stdout.close()
    err = child.stderr.read()

    assert err == f"queue {queue.path}\n"
    assert child.wait(60) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_behind_stdout_is_told(start, queue):
    with open("/dev/full", "w") as full:
        child = start("enqueue mail", stdout=full)
        _, err = child.communicate(timeout=60)

    assert child.returncode == 2
    assert err == "dbbasic-queue: the answer cannot be written: No space left on device\n"


@pytest.mark.parametrize(("env", "colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_only_at_a_terminal_that_wants_them(start, queue, five, env, colours):
    terminal, theirs = pty.openpty()

    child = start("list", stdout=theirs, env={"TERM": "xterm", "NO_COLOR": "", **env})
    child.communicate(timeout=60)
    os.close(theirs)
    out = os.read(terminal, 1 << 16).decode()
    os.close(terminal)

    assert ("\x1b[31mfailed\x1b[0m" in out) is colours
    assert ("\x1b" in out) is colours
    assert max(map(len, re.sub("\x1b\\[[0-9]*m", "", out).splitlines())) <= 80


def test_a_bare_locale_shows_what_it_can(start, queue):
    queue.enqueue("mail", {"city": "Zürich"})

    child = start("list", env={"PYTHONIOENCODING": "ascii:strict"})
    out, _ = child.communicate(timeout=60)

    assert child.returncode == 0
    assert r"Z\xfcrich" in out


def test_a_bug_is_status_2_and_not_no(ask, queue, monkeypatch):
    monkeypatch.setattr(Queue, "get", lambda *given: 1 / 0)

    answer = ask("show 0123456789abcdef")

    assert answer.status == 2
    assert "ZeroDivisionError" in answer.err


# --- help


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_help_with_an_example(ask, name):
    answer = ask(f"{name} --help")

    assert answer.status == 0
    assert f"examples:\n  dbbasic-queue {name}" in answer.out
    assert "Exit status" in answer.out
    for action in commands()[name]._actions:
        assert action.help or action.metavar == "ID" or action.dest in ("status", "type", "queue")


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name, _ in completion.every(parser()) if " " in name])
def test_every_word_of_a_command_has_help_with_an_example(ask, name):
    answer = ask(f"{name} --help")

    assert answer.status == 0
    assert f"examples:\n  dbbasic-queue {name}" in answer.out


@pytest.mark.soak
def test_every_example_in_the_help_is_a_command(ask):
    for name, one in commands().items():
        for line in one.epilog.splitlines():
            if line.startswith("  dbbasic-queue"):
                words = re.split(r" [<>|] | \$\(", line)[0].split("#")[0]
                given = shlex.split(words)[1:]
                parse(given + (["x"] if "$(" in line else []))
                assert given[0] == name


@pytest.mark.parametrize("name", EVERY)
def test_every_command_is_in_the_readme(name):
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("README.md is not written yet")

    assert re.search(rf"dbbasic-queue {name}\b|`{name}\b", readme.read_text(encoding="utf-8"))


def test_the_version_is_the_package_s(start):
    child = start("--version")

    assert child.communicate(timeout=60)[0] == "dbbasic-queue 2.0.0\n"


# --- dbbasic-cli


def test_the_family_s_commands_exit_with_the_answer(capsys, queue):
    cli.COMMANDS["queue:enqueue"](["mail"])

    with pytest.raises(SystemExit) as ended:
        cli.COMMANDS["queue:failed"]([])

    assert ended.value.code == 1
    assert queue.counts("status") == {"pending": 1}


@pytest.mark.soak
def test_each_of_the_family_s_commands_has_help(capsys):
    for name, command in cli.COMMANDS.items():
        assert name.startswith("queue:")
        assert command.__doc__
        command(["--help"])
    assert capsys.readouterr().out.count("usage: dbbasic-queue") == len(cli.COMMANDS)


@pytest.mark.soak
def test_work_runs_async_handlers_side_by_side(queue, ask, tmp_path):
    (tmp_path / "naps.py").write_text(
        "import asyncio\nasync def nap(p):\n    await asyncio.sleep(p)\nHANDLERS = {'nap': nap}\n"
    )
    queue.enqueue_many([("nap", 0.2)] * 10)
    before = time.monotonic()

    assert ask("work naps:HANDLERS --concurrency 10").status == 0

    assert queue.counts() == {"completed": 10}
    assert time.monotonic() - before < 1.5  # 2 s one after the other
