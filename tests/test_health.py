"""Health: what is red when, what the one line says, and what work leaves when it cannot begin."""

import http.server
import json
import os
import pty
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, cli
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.health import Check, check, worst
from dbbasic_queue.limits import pause

ROOT = Path(__file__).resolve().parent.parent
NOON, TEN_PAST = 1_800_000_000, "2027-01-15T08:10:00"
BROKEN = {
    "missing module": ("import nothing_like_it\n", "No module named 'nothing_like_it'"),
    "syntax": ("def (:\n", "SyntaxError"),
    "no name": ("OTHERS = {}\n", "has no HANDLERS"),
    "no mapping": ("HANDLERS = 3\n", "is no mapping"),
    "exits": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "hostile": ("raise ValueError('a\\x1b[2J\\nb\\tc')\n", "ValueError: a\\x1b[2J b c"),
}


@pytest.fixture
def queue():
    return Queue(sync="off")


@pytest.fixture
def ask(capsys):
    """Run a command line in this process."""

    def run(words, *more):
        capsys.readouterr()
        status = cli.main([*shlex.split(words), *map(str, more)])
        return SimpleNamespace(status=status, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def module(tmp_path):
    """Write a module of handlers under a name of its own, anew at each call."""
    name = f"jobs_{os.urandom(4).hex()}"

    def write(text):
        sys.modules.pop(name, None)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        (tmp_path / f"{name}.py").write_text(text)
        sys.dont_write_bytecode = before
        return f"{name}:HANDLERS"

    yield write
    sys.modules.pop(name, None)


@pytest.fixture
def site():
    """A web site that notes what is asked for, and answers with `.status`."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *given):
            pass

    asked = []
    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    found = SimpleNamespace(
        status=200, asked=asked, url=f"http://127.0.0.1:{server.server_port}/secret-id"
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def tick(queue, **handlers):
    """Make a tick, which leaves its trace beside the file."""
    queue.process_jobs({"ok": lambda payload: None, **handlers}, max_attempts=1, backoff="none")


def ticked(queue, ago):
    """Move the last tick back."""
    at = time.time() - ago
    os.utime(queue.path + ".d/tick", (at, at))


def found(queue, **bounds):
    """The checks that are not ok, as name -> (level, text)."""
    return {one.name: (one.level, one.text) for one in check(queue, **bounds) if one.level != "ok"}


# --- ticks


def test_all_is_well_after_a_tick(queue):
    queue.enqueue("ok")
    tick(queue)

    checks = check(queue)

    assert worst(checks) == "ok"
    assert [one.text for one in checks if one.name == "tick"] == ["last tick 0s ago"]


@pytest.mark.parametrize(("ago", "level"), [(175, "ok"), (185, "critical")])
def test_without_a_tick_for_three_minutes_it_is_critical(queue, ago, level):
    queue.enqueue("ok")
    tick(queue)
    ticked(queue, ago)

    assert worst(check(queue)) == level


def test_it_says_since_when_there_was_no_tick(queue, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    queue.enqueue("ok")
    tick(queue)
    os.utime(queue.path + ".d/tick", (NOON, NOON))  # 08:00:00 UTC

    with freeze_time(TEN_PAST):
        soon = found(queue)
    with freeze_time("2027-01-17T08:10:00"):
        later = found(queue)

    assert soon["tick"] == ("critical", "no tick since 08:00:00")
    assert later["tick"] == ("critical", "no tick since 2027-01-15 08:00:00")


def test_a_bound_of_its_own_and_a_pair_for_a_warning(queue):
    queue.enqueue("ok")
    tick(queue)
    ticked(queue, 400)

    levels = [worst(check(queue, max_tick_age=bound)) for bound in (900, (300, 900), (60, 300))]

    assert levels == ["ok", "warning", "critical"]
    assert worst(check(queue, max_tick_age=None)) == "ok"


def test_a_file_that_no_tick_has_seen_is_red_after_three_minutes(queue):
    queue.enqueue("ok")

    now = found(queue)
    os.utime(queue.path, (time.time() - 200, time.time() - 200))

    assert now == {}
    assert found(queue)["tick"] == ("critical", "no tick yet")


def test_an_empty_file_is_no_trouble(queue):
    os.mkdir("data")
    open(queue.path, "w").close()
    os.utime(queue.path, (1, 1))

    assert found(queue) == {}


def test_a_worker_that_has_a_long_job_counts_as_a_tick(queue):
    levels = []
    queue.enqueue("ok")
    tick(queue)
    queue.enqueue("long")

    def long(payload):
        ticked(queue, 1000)
        levels.append(worst(check(queue)))

    tick(queue, long=long)

    assert levels == ["ok"]


# --- the log


TRACEBACK = """\
2026-01-01 - INFO - Starting queue worker
Traceback (most recent call last):
  File "/app/worker.py", line 12, in <module>
    from handlers import HANDLERS
ModuleNotFoundError: No module named 'handlers'
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TRACEBACK, "ModuleNotFoundError: No module named 'handlers'"),
        (TRACEBACK + "some words\n", "ModuleNotFoundError: No module named 'handlers'"),
        ("x" * 100_000 + "\n" + TRACEBACK, "ModuleNotFoundError: No module named 'handlers'"),
        ('  File "w.py", line 3\n    def (:\n        ^\nSyntaxError: bad\n', "SyntaxError: bad"),
        ("Traceback (most recent call last):\n  File\nmy.Problem: odd\n", "my.Problem: odd"),
        ("/bin/sh: 1: cd: can't cd to /app\n", "/bin/sh: 1: cd: can't cd to /app"),
        ("e\x1b[2J\x9b\n", "e\\x1b[2J\\x9b"),
        ("a\n    Traceback (most recent call last):\n      V\nb\n", "b"),
    ],
)
def test_the_log_says_why_there_is_no_tick(queue, text, words):
    queue.enqueue("ok")
    tick(queue)
    ticked(queue, 600)
    with open("queue.log", "w") as file:
        file.write(text)

    level, told = found(queue, log="queue.log")["tick"]

    assert level == "critical"
    assert told.endswith(f"; queue.log: {words}")


def test_a_log_that_is_older_than_the_tick_or_missing_or_empty_is_told(queue):
    queue.enqueue("ok")
    tick(queue)
    ticked(queue, 600)
    with open("old.log", "w") as file:
        file.write(TRACEBACK)
    os.utime("old.log", (time.time() - 600, time.time() - 600))
    open("empty.log", "w").close()

    told = [found(queue, log=f"{name}.log")["tick"][1] for name in ("old", "gone", "empty")]

    assert told[0].endswith("; old.log: nothing was written to it since then")
    assert told[1].endswith("; gone.log: No such file or directory")
    assert told[2].endswith("; empty.log is empty")


def test_an_endless_log_is_not_waited_for(queue):
    queue.enqueue("ok")
    tick(queue)
    ticked(queue, 600)
    os.mkfifo("queue.log")

    assert found(queue, log="queue.log")["tick"][1].endswith("; queue.log: is no regular file")


# --- what waits, what failed


def test_a_job_that_is_due_for_long_is_a_warning_and_then_critical(queue):
    queue.enqueue("ok")
    tick(queue)
    queue.enqueue("other", run_at=time.time() + 1)

    with queue.edit() as e:
        for job in e.scan(status="pending"):
            e.change(job, run_at=int(time.time()) - 700, created_at=int(time.time()) - 800)

    assert found(queue)["due"][0] == "warning"
    assert found(queue, max_due_age=60)["due"][0] == "critical"
    assert "due" not in found(queue, max_due_age=None)


def test_a_backlog_has_bounds_for_each_queue(queue):
    queue.enqueue_many([{"job_type": "ok", "queue": "mail"}] * 5 + [{"job_type": "ok"}] * 3)

    def levels(bound):
        return {
            one.text: one.level for one in check(queue, max_backlog=bound) if one.name == "backlog"
        }

    assert levels(None) == {}
    assert levels(4) == {"5 due in queue mail": "critical", "3 due in queue default": "ok"}
    assert levels({"mail": (4, 10)}) == {"5 due in queue mail": "warning"}
    assert levels({"mail": 10, "*": 2})["3 due in queue default"] == "critical"


def test_the_share_that_failed(queue):
    queue.enqueue_many([("ok",)] * 8 + [("bad",)] * 2)
    tick(queue, bad=lambda payload: 1 / 0)

    assert found(queue, max_fail=0.2) == {}
    text = "2 of 10 failed in the last 24h (20%)"
    level, told = found(queue, max_fail=0.1)["failures"]
    assert (level, told.replace("1d", "24h")) == ("critical", text)


# --- what is wrong with it


def test_a_bad_line_is_a_warning(queue):
    queue.enqueue("ok")
    tick(queue)
    with open(queue.path, "ab") as file:
        file.write(b"not a job\n")

    assert found(queue)["lines"] == ("warning", "1 bad line: `doctor` says which")


def test_due_jobs_that_nobody_handles_or_serves(queue):
    queue.enqueue("ok")
    tick(queue)
    queue.enqueue("stranger")

    assert found(queue)["types"] == ("critical", "due jobs of type stranger that nobody handles")

    os.unlink(queue.path + ".d/types")
    queue.enqueue("ok")
    queue.process_jobs({"ok": print, "stranger": print}, queues=["mail"])

    assert found(queue)["queues"][1] == "due jobs in queue default that nobody serves"


def test_a_job_of_the_future_needs_no_handler_yet(queue):
    queue.enqueue("ok")
    tick(queue)
    queue.enqueue("stranger", run_at=time.time() + 3600)

    assert found(queue) == {}


def test_a_paused_queue_is_a_warning_when_jobs_wait_in_it(queue):
    queue.enqueue("ok")
    tick(queue)
    pause("mail", queue_file=queue)
    before = found(queue)
    queue.enqueue("ok", queue="mail")

    assert before == {}
    assert found(queue) == {"paused": ("warning", "queue mail is paused, and 1 due")}


def test_a_job_whose_worker_is_gone_is_stuck(queue):
    job_id = queue.enqueue("ok")
    tick(queue)
    with queue.edit() as e:
        e.change(e.get(job_id), status="processing", worker="w-1-aaaaaa.1")

    assert found(queue)["stuck"] == ("warning", "1 stuck: no worker lives that has them")


def test_a_full_disk_is_critical_before_an_edit_fails(queue, monkeypatch):
    queue.enqueue("ok")
    tick(queue)
    real = os.statvfs

    def disk(free):
        def statvfs(path):
            st = real(path)
            names = "f_bavail f_frsize f_files f_favail f_flag".split()
            values = {name: getattr(st, name) for name in names}
            return SimpleNamespace(**values | {"f_bavail": free, "f_frsize": 1 << 20})

        return statvfs

    levels = []
    for free in (0, 30, 1000):
        monkeypatch.setattr(os, "statvfs", disk(free))
        levels.append(worst(check(queue)))

    assert levels == ["critical", "warning", "ok"]


def test_a_file_that_is_none_of_ours(queue):
    os.mkdir("data")

    missing = check(queue)
    with open(queue.path, "w") as file:
        file.write("name,age\nAna,3\n")
    foreign = check(queue)
    os.unlink(queue.path)
    os.mkdir(queue.path)
    folder = check(queue)
    os.rmdir(queue.path)
    os.mkdir(queue.path + ".d")
    gone = check(queue)

    assert missing == [Check("file", "unknown", f"there is no queue {queue.path}")]
    assert [worst(one) for one in (foreign, folder, gone)] == ["critical"] * 3


def test_whoever_may_not_read_it_cannot_tell(queue, monkeypatch):
    queue.enqueue("ok")
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "open", refuse(os.open))
    else:
        os.chmod(queue.path, 0)

    checks = check(queue)

    assert worst(checks) == "unknown"
    assert checks[0].text == f"{queue.path}: Permission denied"


def refuse(real):
    def open(path, *given, **more):
        if str(path).endswith("queue.tsv"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *given, **more)

    return open


def test_what_its_owner_cannot_write_is_critical(queue, monkeypatch):
    queue.enqueue("ok")
    monkeypatch.setattr(os, "access", lambda path, bits, **how: not path.endswith("queue.tsv"))

    (one,) = check(queue)

    assert one == Check("file", "critical", f"{queue.path} cannot be written by its owner")


def test_a_read_only_file_system_is_critical(queue, monkeypatch):
    queue.enqueue("ok")
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))

    (one,) = check(queue)

    assert one == Check("file", "critical", f"{queue.path}: the file system is read-only")


def test_a_job_that_waits_for_another_needs_no_handler_yet(queue):
    first = queue.enqueue("ok", run_at=time.time() + 3600)
    tick(queue)
    queue.enqueue("stranger", after=first)

    assert found(queue) == {}


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_tick_age": -1}, {"max_due_age": "1h"}, {"max_fail": (0.5, 0.1)}, {"max_fail": True},
        {"max_backlog": [1]}, {"max_backlog": {"mail": -1}}, {"max_tick_age": (1, 2, 3)},
    ],
)  # fmt: skip
def test_a_bound_that_is_none_is_refused(queue, bounds):
    with pytest.raises(BadArgument, match=next(iter(bounds))):
        check(queue, **bounds)


def test_the_worst_level_counts():
    def level(*levels):
        return worst(Check("x", one, "") for one in levels)

    assert level() == "ok"
    assert level("ok", "warning") == "warning"
    assert level("warning", "unknown", "ok") == "unknown"
    assert level("unknown", "critical", "warning") == "critical"


# --- work that cannot begin


@pytest.mark.parametrize("name", BROKEN)
def test_work_leaves_why_it_cannot_begin_until_it_can(ask, queue, module, name):
    text, reason = BROKEN[name]
    queue.enqueue("ok")
    words = module(text)

    broken = ask(f"work {words}")
    level, told = found(queue)["broken"]
    module("HANDLERS = {'ok': print}  # mended, and longer than what was there before\n")
    mended = ask(f"work {words}")

    assert (broken.status, mended.status) == (2, 0)
    assert level == "critical"
    assert told.startswith(f"{words}: ")
    assert reason in told
    assert found(queue) == {}
    assert not os.path.exists(queue.path + ".d/broken")


def test_each_worker_has_its_own_line(ask, queue, module):
    queue.enqueue("ok")
    words = module("HANDLERS = {}\n")

    ask(f"work {words}X --name mailer")
    ask(f"work {words} --options {words}Y")
    ask("work nowhere:HANDLERS")
    names = {one.text.partition(": ")[0] for one in check(queue) if one.name == "broken"}
    ask(f"work {words} --name mailer")

    assert names == {"mailer", words, "nowhere:HANDLERS"}
    left = {one.text.partition(": ")[0] for one in check(queue) if one.name == "broken"}
    assert left == {words, "nowhere:HANDLERS"}
    with open(queue.path + ".d/broken") as file:
        assert len(file.readlines()) == 2


def test_handlers_that_process_jobs_refuses_are_told_too(ask, queue, module):
    queue.enqueue("ok")

    answer = ask(f"work {module('HANDLERS = {1: 2}')}")

    assert answer.status == 2
    assert found(queue)["broken"][0] == "critical"


def test_a_reason_that_nobody_tries_again_becomes_a_warning_and_goes(ask, queue, module):
    queue.enqueue("ok")
    ask("work typed_by_hand:HANDLERS")
    tick(queue)
    path = queue.path + ".d/broken"
    with open(path) as file:
        name, _, reason = file.read().split("\t")

    def aged(seconds):
        with open(path, "w") as file:
            file.write(f"{name}\t{int(time.time() - seconds)}\t{reason}")
        return found(queue).get("broken", ("gone",))[0]

    assert [aged(seconds) for seconds in (10, 600, 90_000)] == ["critical", "warning", "gone"]


def test_where_the_reason_cannot_be_kept_nothing_breaks(ask, queue, module):
    missing = ask("work nowhere:HANDLERS")
    queue.enqueue("ok")
    os.mkdir(queue.path + ".d")
    os.mkdir(queue.path + ".d/broken")

    blocked = ask("work nowhere:HANDLERS")
    good = ask(f"work {module('HANDLERS = {}')}")

    assert (missing.status, blocked.status, good.status) == (2, 2, 0)
    assert "cannot import nowhere" in missing.err


def test_a_file_of_reasons_that_was_spoilt_is_no_trouble(queue):
    queue.enqueue("ok")
    tick(queue)
    now = int(time.time())
    with open(queue.path + ".d/broken", "wb") as file:
        file.write(
            b"\xff\xfe\n\n\t\t\t\t\nx\tnever\ty\nx\t%b\ty\n" % (b"9" * 5000)
            + b"m\x1b\t%d\ta\x9b\n" % now
            + b"half"
        )

    (one,) = [one for one in check(queue) if one.name == "broken"]

    assert one.text.isprintable()


# --- the command


def test_the_first_line_is_what_nagios_reads(ask, queue):
    job_id = queue.enqueue("ok")
    tick(queue)
    with queue.edit() as e:  # a label that only a hand can have written
        e.change(e.get(job_id), queue="a=b|c'd e")

    answer = ask("health --max-tick-age 2m:5m --max-backlog 100:1000 --max-fail 10%")

    assert (answer.status, answer.err) == (0, "")
    told, _, figures = answer.out.partition(" | ")
    assert told == "OK - last tick 0s ago, 0 due"
    assert figures.split(" free=")[0] == (
        "tick=0s;120;300;0 due=0;;;0 oldest_due=0s;600;3600;0 'due_a_b_c_d e'=0;100;1000;0"
        " failed=0;;0.1;0 bad_lines=0;0;;0 stuck=0;0;;0"
    )


def test_what_is_not_well_has_a_line_of_its_own(ask, queue):
    queue.enqueue("ok")
    tick(queue)
    ticked(queue, 600)
    with open(queue.path, "ab") as file:
        file.write(b"not|a job\n")

    answer = ask("health")

    first, *more = answer.out.splitlines()
    assert answer.status == 2
    assert first.startswith("CRITICAL - no tick since ")
    assert [line.split(" ", 1)[0] for line in more] == ["critical", "warning"]
    assert more[1] == "warning   lines: 1 bad line: `doctor` says which"


def test_at_a_terminal_the_levels_stand_out_and_the_first_line_is_the_same(queue):
    queue.enqueue("ok")
    terminal, theirs = pty.openpty()
    words = [sys.executable, "-m", "dbbasic_queue", "health", "--max-backlog", "0:"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "NO_COLOR": ""}

    status = subprocess.run(words, stdout=theirs, env=env, timeout=60).returncode
    os.close(theirs)
    first, second = os.read(terminal, 1 << 16).decode().splitlines()
    os.close(terminal)

    assert status == 1
    assert first.startswith("WARNING - 1 due in queue default, no tick yet, 1 due, the oldest for ")
    assert second == "\x1b[1mwarning\x1b[0m   backlog: 1 due in queue default"


@pytest.mark.parametrize(
    ("words", "status", "level"),
    [("", 0, "OK"), ("--max-backlog 0:", 1, "WARNING"), ("--max-backlog default=0", 2, "CRITICAL")],
)
def test_the_status_is_the_level(ask, queue, words, status, level):
    queue.enqueue("ok")

    answer = ask(f"health {words}")

    assert (answer.status, answer.out.split()[0]) == (status, level)


def test_without_a_queue_it_cannot_be_told(ask, queue):
    answer = ask("health")

    assert answer.status == 2
    assert answer.out == (
        f"UNKNOWN - there is no queue {queue.path}\n"
        f"unknown   file: there is no queue {queue.path}\n"
    )


def test_health_as_json(ask, queue):
    queue.enqueue("ok")
    tick(queue)

    found = json.loads(ask("health --json").out)

    assert (found["file"], found["level"]) == (queue.path, "ok")
    first = found["checks"][0]
    assert (first["name"], first["level"]) == ("tick", "ok")
    assert first["figures"][0]["critical"] == 180


@pytest.mark.parametrize(
    "words",
    [
        "--max-backlog x", "--max-backlog 10:5", "--max-backlog :", "--max-backlog =3",
        "--max-fail 2", "--max-fail x", "--max-tick-age soon", "--max-backlog 3 --max-backlog 4",
        "--ping ftp://example.com/x", "--ping file:///etc/passwd", "--ping http://", "--ping x",
    ],
)  # fmt: skip
def test_wrong_words_are_one_line_and_status_2(ask, queue, words):
    answer = ask(f"health {words}")

    assert (answer.status, answer.out) == (2, "")
    assert len(answer.err.splitlines()) == 1


# --- the ping


def test_a_good_check_asks_for_the_url_and_another_does_not(ask, queue, site):
    queue.enqueue("ok")
    tick(queue)

    good = ask(f"health --ping {site.url}")
    ticked(queue, 600)
    bad = ask(f"health --ping {site.url}")

    assert (good.status, bad.status) == (0, 2)
    assert site.asked == ["/secret-id"]


def test_a_ping_that_does_not_arrive_is_a_warning_without_its_secret(ask, queue, site):
    queue.enqueue("ok")
    site.status = 404

    answer = ask(f"health --ping {site.url}")

    assert answer.status == 1
    assert "the ping to 127.0.0.1 did not arrive: HTTPError" in answer.out
    assert "secret-id" not in answer.out + answer.err


def test_work_pings_after_a_good_tick_and_a_ping_harms_nothing(ask, queue, module, site, caplog):
    words = module("HANDLERS = {'ok': lambda payload: None}")
    queue.enqueue("ok")

    good = ask(f"work {words} --ping {site.url}")
    site.status = 500
    unheard = ask(f"work {words} --ping {site.url}")
    broken = ask(f"work {words}X --ping {site.url}")
    forever = ask(f"work {words} --forever --ping {site.url}")

    assert [one.status for one in (good, unheard, broken, forever)] == [0, 0, 2, 2]
    assert site.asked == ["/secret-id"] * 2
    assert "the ping to 127.0.0.1 did not arrive" in caplog.text
    assert "health --ping" in forever.err
    assert queue.counts("status") == {"completed": 1}
