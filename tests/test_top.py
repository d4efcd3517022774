"""The live screen, at a real terminal with a real worker; and one screen of it as text."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from dbbasic_queue import Queue, cli, limits
from dbbasic_queue.cli.terminal import cut, width

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\x9bc\u2028"
START = "\x1b[?1049h"
END = "\x1b[0m\x1b[?25h\x1b[?1049l"


class Screen:
    """Just enough of a terminal: it understands what `top` sends, and fails at anything else."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.lines = [""] * rows
        self.at = (0, 0)
        self.cursor = self.other = True  # shown; the screen that stays
        self.colours = set()

    def feed(self, text):
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[^\x1b]+|\x1b", text):
            if not part.startswith("\x1b"):
                assert not re.search("[\0-\x1f\x7f-\x9f]", part.replace("\r\n", "")), repr(part)
                row, column = self.at
                line = self.lines[row].ljust(column)
                self.lines[row] = line[:column] + part + line[column + len(part) :]
                self.at = (row, column + len(part))
            elif found := re.fullmatch(r"\x1b\[(\d+);1H", part):
                self.at = (int(found[1]) - 1, 0)
            elif part == "\x1b[K":
                row, column = self.at
                self.lines[row] = self.lines[row][:column]
            elif part == "\x1b[2J":
                self.lines = [""] * self.rows
            elif part in ("\x1b[?25h", "\x1b[?25l"):
                self.cursor = part.endswith("h")
            elif part in ("\x1b[?1049h", "\x1b[?1049l"):
                self.other = part.endswith("l")
            else:
                assert re.fullmatch(r"\x1b\[\d+m", part), repr(part)
                self.colours.add(part)

    @property
    def text(self):
        return "\n".join(self.lines)


class Top:
    """`top` on a terminal of its own."""

    def __init__(self, path, words=(), columns=100, rows=30, **env):
        self.end, theirs = pty.openpty()
        self.theirs = theirs
        self.before = termios.tcgetattr(theirs)
        self.screen = Screen(columns, rows)
        self.resize(columns, rows, tell=False)
        command = ["-S", "-c", f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n"
                   "from dbbasic_queue.cli import main; sys.exit(main())"]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, *command, "--file", path, "top", "--interval", "0.05", *words],
            stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=lambda: os.setpgid(0, 0),
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "", **env},
        )  # fmt: skip
        self.raw = b""

    def resize(self, columns, rows, tell=True):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.screen = Screen(columns, rows)
            self.process.send_signal(signal.SIGWINCH)

    def read(self, seconds=0.02):
        while select.select([self.end], [], [], seconds)[0]:
            data = os.read(self.end, 65536)
            self.raw += data
            self.screen.feed(data.decode())
            seconds = 0

    def until(self, pattern, seconds=6):
        """Return what the screen says, once it matches."""
        ends = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen.text)):
            assert time.monotonic() < ends, f"no {pattern!r} in:\n{self.screen.text}"
            assert self.process.poll() is None, self.screen.text
            self.read()
        return found

    def type(self, keys):
        os.write(self.end, keys.encode())

    def ended(self):
        status = self.process.wait(20)
        self.read()
        return status

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.end)
        os.close(self.theirs)


@pytest.fixture
def top(queue):
    """Start `top` on the queue; it is gone after the test."""
    started = []

    def start(*words, **settings):
        started.append(Top(queue.path, words, **settings))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def filled(queue):
    """One due job, one that failed, one that is for later."""
    ids = {
        "failed": queue.enqueue("bad", {"shop": 7}, max_attempts=1),
        "due": queue.enqueue("good", {"n": 1}, queue="mail"),
    }
    queue.process_jobs({"bad": lambda payload: 1 / 0})
    queue.enqueue("later", run_at=time.time() + 7200)
    return ids


# --- one screen as text


def test_once_prints_one_screen_of_plain_text(queue, filled, capsys):
    status = cli.main(["--file", queue.path, "top", "--once"])

    first, counts, more, empty, head, *jobs = capsys.readouterr().out.splitlines()
    assert status == 0
    assert re.fullmatch(re.escape(queue.path) + r" +\d\d:\d\d:\d\d", first)
    said = "due 1  scheduled 1  retrying 0  waiting 0  running 0  stuck 0  completed 0  failed 1"
    assert counts == said + "  cancelled 0"
    assert re.fullmatch(r"oldest due \d+s  last tick \d+s ago  workers 0  [\d.]+ a minute", more)
    assert empty == ""
    assert head.split() == "ID STATUS TYPE QUEUE TRY WHEN ERROR OR PAYLOAD".split()
    assert [line.split()[:4] for line in jobs] == [
        [filled["due"], "pending", "good", "mail"],
        [filled["failed"], "failed", "bad", "default"],
    ]
    assert jobs[1].endswith("ZeroDivisionError: division by zero")


def test_into_a_pipe_it_prints_once_and_answers_no_without_jobs(queue, capsys):
    status = cli.main(["--file", queue.path, "top"])

    assert status == 1
    assert capsys.readouterr().out.endswith("no job runs, is due or has failed\n")


def test_json_has_the_figures_and_the_jobs(queue, filled, capsys):
    cli.main(["--file", queue.path, "top", "--json"])

    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["due"] == 1
    assert [job["id"] for job in found["jobs"]] == [filled["due"], filled["failed"]]


def test_a_sensitive_field_is_not_shown(queue, capsys, monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE_REDACT", "token")
    queue.enqueue("good", {"token": "tiger-tiger"})

    cli.main(["--file", queue.path, "top", "--once"])

    assert "tiger" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, columns, kept",
    [("plain", 5, "plain"), ("plain", 4, "pla…"), ("東京都", 6, "東京都"), ("東京都", 5, "東京…"),
     ("東京都", 4, "東…"), ("e\u0301a", 2, "e\u0301a"), ("x", 0, "")],
)  # fmt: skip
def test_a_text_is_cut_by_the_columns_that_it_takes(text, columns, kept):
    assert cut(text, columns) == kept
    assert width(kept) <= columns


# --- live


@pytest.mark.soak
def test_a_failed_job_is_retried_after_a_yes_and_q_gives_the_terminal_back(top, queue, filled):
    screen = top()
    screen.until(r"failed 1")
    screen.type("j")
    screen.type("r")
    screen.until(rf"retry {filled['failed']} bad\? \[y/N\]")
    assert queue.get(filled["failed"]).status == "failed"
    screen.type("y")
    screen.until(rf"job {filled['failed']} is pending again")
    assert queue.get(filled["failed"]).status == "pending"
    screen.until(r"due 2 ")

    screen.type("q")

    assert screen.ended() == 0
    assert termios.tcgetattr(screen.theirs) == screen.before
    assert (screen.screen.cursor, screen.screen.other) == (True, True)


def test_any_other_key_than_y_changes_nothing(top, queue, filled):
    screen = top()
    screen.until("failed 1")

    screen.type("c")
    screen.until(r"cancel .* \[y/N\]")
    screen.type("x")

    screen.until("nothing was changed")
    assert queue.get(filled["due"]).status == "pending"


def test_a_due_job_is_cancelled_and_its_queue_paused_and_resumed(top, queue, filled):
    screen = top()
    screen.until("due 1 ")
    screen.type("p")
    screen.until(r"pause queue mail\?")
    screen.type("y")
    screen.until("paused mail")
    assert limits.paused(queue) == ["mail"]
    screen.type("p")
    screen.until(r"resume queue mail\?")
    screen.type("y")
    screen.until("queue mail is resumed")
    assert limits.paused(queue) == []

    screen.type("c")
    screen.until(rf"cancel {filled['due']} good\?")
    screen.type("y")

    screen.until("cancelled 1")
    assert queue.get(filled["due"]).status == "cancelled"


@pytest.mark.soak
def test_a_job_that_a_live_worker_runs_is_shown_with_it_and_ended(top, queue, run_python):
    id = queue.enqueue("slow")
    worker = run_python(f"""
        import math, time
        from dbbasic_queue import Queue
        def slow(payload):
            print("runs", flush=True)
            time.sleep(600)
        Queue({queue.path!r}).process_jobs({{"slow": slow}}, name="anna", run_for=math.inf)
    """)
    assert worker.stdout.readline() == "runs\n"
    screen = top()

    screen.until(rf"anna-{worker.pid}-\w+ .* slow {id} for \d+s")
    screen.type("c")
    screen.until(rf"{id} slow runs: end it\?")
    screen.type("y")

    screen.until("was asked to end it")
    assert queue.wait(id, 20).status == "cancelled"
    screen.until("running 0 .*cancelled 1")


def test_enter_shows_all_about_a_job_and_why_it_is_there(top, queue, filled):
    screen = top()
    screen.until("due 1 ")

    screen.type("\r")

    screen.until(r"why +not handled: no worker has a handler for type good")
    screen.until(r"payload +\{")
    screen.type("q")
    screen.until("r retry")


def test_a_filter_keeps_the_jobs_with_a_text(top, queue, filled):
    screen = top()
    screen.until("good")

    screen.type("/divisiox\x7fn\r")

    screen.until("filter /division")
    screen.until("ZeroDivisionError")
    assert " good " not in screen.screen.text
    screen.type("/" + "\x7f" * 8 + "\r")
    screen.until(" good ")


def test_the_keys_are_said(top, filled):
    screen = top()
    screen.until(r"\? help")
    screen.type("?")

    screen.until("Before anything is changed you are asked")


@pytest.mark.soak
def test_what_happens_elsewhere_is_seen(top, queue, filled):
    screen = top()
    screen.until("due 1 ")

    queue.enqueue("fresh")

    screen.until("due 2 ")
    screen.until(" fresh ")


@pytest.mark.soak
def test_hostile_text_never_steers_the_terminal(top, queue):
    """The terminal of these tests fails at any control that is not ours."""
    queue.enqueue("bad", HOSTILE, max_attempts=1)
    queue.process_jobs({"bad": bad})
    screen = top()

    screen.until(r"a\\x1b\]0;title")
    screen.type("\r")
    screen.until("traceback|error")
    screen.type("q/" + HOSTILE.replace("\x1b", "") + "\r")
    screen.until("no job runs|filter")

    assert b"\x07" not in screen.raw
    assert b"title\x07" not in screen.raw


def bad(payload):
    raise ValueError(payload)


@pytest.mark.soak
@pytest.mark.parametrize("columns, rows", [(20, 6), (1, 1), (300, 60)])
def test_a_terminal_of_any_size_does(top, filled, columns, rows):
    screen = top(columns=100, rows=30)
    screen.until("due 1 ")

    screen.resize(columns, rows)
    screen.until("…" if columns < 5 else "due 1")
    screen.read(0.1)

    assert all(width(line) <= columns for line in screen.screen.lines)
    screen.type("q")
    assert screen.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(top, filled, number):
    screen = top()
    screen.until("due 1 ")
    assert termios.tcgetattr(screen.theirs) != screen.before

    screen.process.send_signal(number)

    assert screen.ended() == 128 + number
    assert termios.tcgetattr(screen.theirs) == screen.before
    assert screen.raw.endswith(END.encode())


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(top, filled):
    screen = top()
    screen.until("due 1 ")

    screen.process.send_signal(signal.SIGTSTP)
    ends = time.monotonic() + 20
    while not os.waitid(os.P_PID, screen.process.pid, os.WSTOPPED | os.WNOHANG):
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert termios.tcgetattr(screen.theirs) == screen.before
    screen.read()
    assert screen.screen.other
    screen.process.send_signal(signal.SIGCONT)

    screen.until("due 1 ")
    screen.type("q")
    assert screen.ended() == 0


@pytest.mark.soak
def test_an_error_of_ours_gives_the_terminal_back(top, queue, filled):
    screen = top()
    screen.until("due 1 ")

    with open(queue.path, "r+b") as file:
        file.write(b"foreign")
    screen.until("foreign|header|not a queue|is no queue")
    screen.type("q")

    assert screen.ended() == 0
    assert termios.tcgetattr(screen.theirs) == screen.before


@pytest.mark.soak
def test_colours_only_where_they_are_wanted(top, filled):
    plain, coloured = top(NO_COLOR="1"), top()
    for one in (plain, coloured):
        one.until("failed 1")

    assert "\x1b[31m" in coloured.screen.colours
    assert plain.screen.colours <= {"\x1b[0m", "\x1b[1m", "\x1b[7m"}


def test_nothing_is_sent_and_little_asked_while_nothing_changes(queue, filled, monkeypatch):
    from dbbasic_queue.cli.screen import Scene

    scene = Scene(Queue(queue.path))
    scene.refresh()
    read = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda *given: read.append(given) or real(*given))

    assert not scene.refresh()

    assert read == []


@pytest.mark.soak
def test_what_stands_on_the_screen_is_not_sent_again(top, filled):
    screen = top()
    screen.until("due 1 ")
    screen.read()
    begun = len(screen.raw)

    for _ in range(10):
        screen.read(0.03)

    assert len(screen.raw) - begun < begun  # at most the clock and the ages


@pytest.mark.soak
def test_a_dumb_terminal_gets_one_screen(top, filled):
    screen = top(TERM="dumb")

    assert screen.process.wait(20) == 0
    assert select.select([screen.end], [], [], 5)[0]
    assert b"\x1b" not in os.read(screen.end, 65536)
