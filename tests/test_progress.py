"""The line on the terminal while a command takes long: a real terminal, and what it shows."""

import fcntl
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import pytest

from dbbasic_queue import Queue, cli
from dbbasic_queue.cli import progress
from dbbasic_queue.cli.output import tell
from dbbasic_queue.cli.progress import bytes_moved

ROOT = Path(__file__).resolve().parent.parent
needs_proc_io = pytest.mark.skipif(
    not os.path.exists("/proc/self/io"), reason="only Linux tells how many bytes were moved"
)
HANDLERS = """
import os, time

def shout(payload):
    return payload.upper()

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)
    print("printed", flush=True)

ALL = {"shout": shout, "wait_for": wait_for}
"""


class Terminal:
    """A terminal, and what was written to it."""

    def __init__(self, columns=80):
        self.fd, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._data = b""

    def written(self):
        """All that was written to it so far."""
        while select.select([self.fd], [], [], 0)[0]:
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:  # Linux: the other side is closed
                break
            if not data:
                break
            self._data += data
        return self._data.decode()

    def lines(self):
        """What a person sees in the end."""
        shown = []
        for text in self.written().replace("\r\n", "\n").split("\n"):
            line = ""
            for part in text.split("\r"):
                line = part + line[len(part) :]
            shown.append(line.rstrip())
        return [line for line in shown if line]

    def run(self, words):
        """Run a command whose stderr it is."""
        with open(os.dup(self.theirs), "w") as stderr, redirect_stderr(stderr):
            return cli.main(shlex.split(words))

    def close(self):
        for fd in (self.fd, self.theirs):
            os.close(fd)


@pytest.fixture
def terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    yield terminal
    terminal.close()


@pytest.fixture
def soon(monkeypatch):
    """Let a command take long after 40 ms already."""
    monkeypatch.setattr(progress, "BEGINS", 0.04)
    monkeypatch.setattr(progress, "EVERY", 0.02)


@pytest.fixture
def queue():
    queue = Queue(sync="off")
    queue.enqueue_many([("mail", n) for n in range(3)])
    return queue


@pytest.fixture
def handlers(tmp_path):
    name = f"handlers_{os.urandom(4).hex()}"
    (tmp_path / f"{name}.py").write_text(HANDLERS)
    yield f"{name}:ALL"
    sys.modules.pop(name, None)


@contextmanager
def held_while(queue, condition):
    """Hold the queue's lock, in another thread, while a condition holds."""
    inside, over = threading.Event(), threading.Event()

    def hold():
        with queue.edit():
            inside.set()
            while condition() and not over.wait(0.005):
                pass

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(60)
    yield
    over.set()
    thread.join()


@pytest.fixture
def held(queue, terminal):
    """Hold the queue's lock until the terminal has shown two versions of the line."""
    with held_while(queue, lambda: terminal.written().count("\r") < 4):
        yield


@pytest.fixture
def held_for_a_while(queue):
    """Hold the queue's lock for three times what `soon` calls long."""
    until = time.monotonic() + 0.12
    with held_while(queue, lambda: time.monotonic() < until):
        yield


@pytest.mark.parametrize(
    ("words", "doing"),
    [
        ("archive --older-than 1h", "archiving, 0 s"),
        ("purge --status pending --yes", "purging, 0 s"),
        ("backup copy.tsv", "copying, 0 s"),
        ("retry --all", "retrying, 0 s"),
        ("enqueue mail", "adding, 0 s"),
    ],
)
def test_what_takes_long_says_so_in_one_line_that_goes_away(terminal, soon, held, words, doing):
    terminal.run(words)

    written = terminal.written()
    assert written.count(f"\r{doing}") >= 2
    assert doing not in "".join(terminal.lines())
    assert "\n" not in written[: written.rindex(doing)]
    assert [one.name for one in threading.enumerate() if one.name == "progress"] == []


@needs_proc_io
def test_it_says_how_much_was_read_and_written(terminal, soon, queue):
    with progress.Progress(terminal.theirs, "copying", bytes_moved("purge", queue.path)):
        wait_for(lambda: "\rcopying, 0 s" in terminal.written())
        with open("/dev/zero", "rb", buffering=0) as zeros, open(os.devnull, "wb") as nothing:
            nothing.write(zeros.read(12_000_000))
            nothing.write(zeros.read(3_500_000))
        wait_for(lambda: re.search(r"\d s, 1[5-9] MB read, 1[5-9] MB written", terminal.written()))

    assert "B read" not in terminal.written().split("\r")[1]


def test_what_is_quick_says_nothing(terminal, queue):
    assert terminal.run("archive --older-than 1h") == 0

    assert terminal.written() == ""
    assert [one.name for one in threading.enumerate() if one.name == "progress"] == []


@pytest.mark.soak
@pytest.mark.parametrize("words", ["--json archive --older-than 1h", "backup --json copy.tsv"])
def test_with_json_it_says_nothing(terminal, soon, held_for_a_while, words):
    terminal.run(words)

    assert terminal.written() == ""


@pytest.mark.soak
def test_on_a_dumb_terminal_it_says_nothing(terminal, soon, held_for_a_while, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")

    terminal.run("archive --older-than 1h")

    assert terminal.written() == ""


@pytest.mark.soak
def test_without_a_terminal_it_says_nothing(soon, held_for_a_while, capfd):
    cli.main(["archive", "--older-than", "1h"])

    assert capfd.readouterr().err == ""


@pytest.mark.soak
def test_in_the_background_it_leaves_the_terminal_alone(
    terminal, soon, held_for_a_while, monkeypatch
):
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp() + 1)

    terminal.run("archive --older-than 1h")

    assert terminal.written() == ""


def test_it_never_takes_a_second_line(terminal, soon):
    fcntl.ioctl(terminal.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))

    with progress.Progress(terminal.theirs, "archiving", lambda: ", much longer than that"):
        wait_for(lambda: "archiving" in terminal.written())

    assert set(map(str.strip, terminal.written().split("\r"))) == {"", "archiving, 0 s, muc"}


def test_a_terminal_that_goes_away_is_no_error(terminal, soon):
    drawn = []
    with progress.Progress(terminal.theirs, "waiting", lambda: drawn.append(1) or ""):
        wait_for(lambda: "waiting" in terminal.written())
        os.close(terminal.fd)
        terminal.fd = os.dup(terminal.theirs)
        wait_for(lambda: not any(one.name == "progress" for one in threading.enumerate()))

    assert drawn


def test_what_is_told_meanwhile_stands_on_a_line_of_its_own(terminal, soon, queue):
    shown = progress.Progress(terminal.theirs, "purging", lambda: ", with a long text behind")

    with shown, open(os.dup(terminal.theirs), "w") as stderr, redirect_stderr(stderr):
        wait_for(lambda: "purging" in terminal.written())
        tell("stays")
        wait_for(lambda: terminal.written().count("purging") > 3)

    assert terminal.lines() == ["dbbasic-queue: stays"]


def test_while_somebody_is_asked_it_keeps_away(terminal, soon, queue, monkeypatch):
    """And the time that the answer took does not count."""
    for job_id in [job.id for job in queue.jobs()]:
        queue.cancel(job_id)

    class Slow:
        def isatty(self):
            return True

        def readline(self):
            time.sleep(0.1)
            return "y\n"

    monkeypatch.setattr(sys, "stdin", Slow())

    assert terminal.run("purge --all") == 0

    assert "for good? [y/N]" in terminal.written()
    assert "purging" not in terminal.written()


def test_work_says_how_many_jobs_have_ended(terminal, soon, queue, handlers, capfd):
    queue.enqueue("shout", "a")
    queue.enqueue("shout", 1)
    queue.enqueue("wait_for", "over")
    saying = re.compile(r"\rworking, \d+ s, [12] completed, [01] failed *\r")

    def let_go():
        wait_for(lambda: saying.search(terminal.written()))
        Path("over").touch()

    watching = threading.Thread(target=let_go)
    watching.start()

    assert terminal.run(f"work {handlers} --max-attempts 1") == 0

    watching.join()
    assert "printed\n" in capfd.readouterr().out
    assert not any("working" in line for line in terminal.lines())


def test_work_that_logs_says_nothing_else(terminal, soon, queue, handlers):
    queue.enqueue("wait_for", "over")
    threading.Timer(0.1, Path("over").touch).start()

    assert terminal.run(f"work {handlers} -v") == 0

    assert "working" not in terminal.written()


@needs_proc_io
def test_the_share_of_the_file_is_told_while_it_is_read(queue):
    with queue.edit() as e:
        e.change(next(e.scan()), payload="x" * 500_000)
    more = bytes_moved("stats", queue.path)

    with open(queue.path, "rb", buffering=0) as file:
        assert re.match(r", \d %$", more())
        file.read(250_000)
        assert re.match(r", [56]\d %, 2[56]\d KB read", more())
        file.seek(0)
        file.read()
        assert re.match(r", [78]\d\d KB read$", more())


@needs_proc_io
def test_a_pager_has_the_terminal_while_nothing_moves(queue):
    listing, counting = bytes_moved("list", queue.path), bytes_moved("stats", queue.path)

    for _ in range(5):
        assert counting() is not None
        assert listing() is None
    with open("/dev/zero", "rb", buffering=0) as zeros:
        zeros.read(10_000)
    assert "KB read" in listing()


# --- the real program, with its real times


def wait_for(what):
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.soak
def test_the_real_program_waits_a_second_and_speaks_twice_a_second(queue):
    terminal = Terminal()
    with queue.edit():
        child = subprocess.Popen(
            [sys.executable, "-m", "dbbasic_queue", "archive", "--older-than", "1h"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=terminal.theirs,
        )
        time.sleep(0.9)
        early = terminal.written()
        wait_for(lambda: "archiving, 4 s" in terminal.written())
    out, _ = child.communicate(timeout=60)

    texts = re.findall(r"\r(archiving, \d s)", terminal.written())
    assert early == ""
    assert child.returncode == 0 and b"0 jobs moved" in out
    assert {text[-3:] for text in texts} >= {"1 s", "2 s", "3 s", "4 s"}
    assert 5 <= len(texts) <= 9
    assert terminal.lines() == []
    terminal.close()


@pytest.mark.soak
def test_the_real_program_counts_what_its_processes_do(queue, handlers):
    for _ in range(50):
        queue.enqueue("shout", "a")
    queue.enqueue("wait_for", "over")
    terminal = Terminal()
    child = subprocess.Popen(
        [sys.executable, "-m", "dbbasic_queue", "work", handlers, "--processes", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
    )
    wait_for(lambda: re.search(r"working, \d s, [1-9]\d* completed, 0 failed", terminal.written()))
    Path("over").touch()

    assert child.wait(60) == 0
    assert terminal.lines()[-1].startswith("printed")  # over what was there
    terminal.close()
