"""What each command prints and how it exits, at a terminal and in a pipe, is what tests/golden has.

`PYTHONPATH=. python tests/test_golden.py` writes tests/golden anew: read the difference then.
"""

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from test_transcript import plain

from dbbasic_queue.cli.arguments import parser

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
STATE = """
import time
from datetime import timedelta
from dbbasic_queue import Queue, Retry
from dbbasic_queue.batch import enqueue_batch
from dbbasic_queue.schedule import add_schedule
from dbbasic_queue.shell import enqueue_command, handlers
queue = Queue("data/queue.tsv", sync="off")
jobs = [("mail", {"to": "ana@example.com"}), ("charge", {"order": 1815})]
done, failed = queue.enqueue_many(jobs)
said = enqueue_command(["echo", "Hello"], queue_file=queue)
def charge(payload):
    raise ValueError(f"card of order {payload['order']} refused\\nfor good")
queue.process_jobs({"mail": lambda payload: "sent", "charge": charge, **handlers}, max_attempts=1)
later = queue.enqueue("report", {"of": "sales"}, timedelta(hours=30), queue="slow")
waits = queue.enqueue("report", after=later)
due = queue.enqueue("mail", {"to": "ben@example.com"})
add_schedule("stock", "report", {"of": "stock"}, every=86400, queue_file=queue)
print(done, failed, said, later, waits, due)
"""
HANDLERS = 'HANDLERS = {"mail": lambda payload: "sent to " + payload["to"]}\n'
COMMANDS = {
    "archive": "archive --older-than 0s",
    "backup": "backup copy.tsv",
    "cancel": "cancel --type report --status scheduled",
    "completion": "completion bash",
    "cron": "cron handlers:HANDLERS --dry-run",
    "dashboard": "dashboard --help",
    "doctor": "doctor",
    "edit": "edit --status failed",
    "enqueue": 'enqueue mail \'{{"to": "carl@example.com"}}\' --run-at +2h',
    "export": "export --status failed",
    "failed": "failed",
    "forward": "forward --help",
    "graduate": "graduate --help",
    "health": "health --max-fail 0.1",
    "history": "history {failed}",
    "init": "init",
    "kill": "kill {due}",
    "list": "list",
    "makefile": "makefile",
    "metrics": "metrics",
    "new-key": "new-key",
    "pause": "pause slow",
    "purge": "purge --status completed --yes",
    "reseal": "reseal",
    "resume": "resume slow",
    "retry": "retry --text refused",
    "run": "run {due} handlers:HANDLERS",
    "schedule": "schedule list",
    "show": "show {failed}",
    "stats": "stats",
    "stop": "stop",
    "tail": "tail {said}",
    "top": "top --once",
    "wait": "wait {done} {failed}",
    "watch": "watch --since 3h --event failed --timeout 0",
    "why": "why {later} {waits} {due}",
    "work": "work handlers:HANDLERS",
    "workers": "workers",
}


def run(words, folder, out):
    """Run a command in a folder, its stdout and stderr at `out`; return its exit status."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("DBBASIC_")}
    done = subprocess.run(
        [sys.executable, "-m", "dbbasic_queue", *shlex.split(words)],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60,
        env=own | {
            "PYTHONPATH": str(ROOT), "TZ": "UTC", "LANG": "C.UTF-8", "TERM": "xterm",
            "EDITOR": "true", "VISUAL": "", "NO_COLOR": "", "COLUMNS": "", "LINES": "",
            "DBBASIC_QUEUE_KEY": "A" * 43 + "=",
        },
    )  # fmt: skip
    return done.returncode


def in_a_pipe(words, folder):
    with tempfile.TemporaryFile() as out:
        status = run(words, folder, out)
        out.seek(0)
        return status, out.read()


def at_a_terminal(words, folder):
    terminal, theirs = pty.openpty()
    said = []
    try:
        child = os.fork()
        if not child:
            os.close(terminal)
            os._exit(run(words, folder, theirs))
        os.close(theirs)
        while True:
            try:
                block = os.read(terminal, 65536)
            except OSError:
                break
            if not block:
                break
            said.append(block)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), b"".join(said)
    finally:
        os.close(terminal)


def told(words, folder, how):
    """Return what is compared: status and output, without what changes from run to run."""
    ids = make(folder)
    status, out = how(words.format(**ids), folder)
    text = out.decode().replace("\r\n", "\n").replace(str(folder), "/app")
    text = text.replace(sys.executable, "PYTHON").replace(str(ROOT), "PACKAGE")
    text = re.sub(r"(?m)^/\S+…", "/app/data/queue.tsv", text)  # where there was no room for it
    text = re.sub(r"\x1b\[(\d*)m", r"<\1>", text)
    text = plain(text.replace("\x1b", "^["))
    text = re.sub(r"(?<![\w-])[A-Za-z0-9_-]{43}=", "KEY", text)
    text = re.sub(r"[\d,]+ bytes", "N bytes", text)
    # what this machine is like, and whether the package is installed in this Python
    text = re.sub(r"(?m)(the file|its folder)( is)? [-drwxst]{10} \w+:\w+", r"\1\2 MODE", text)
    text = re.sub(r"(?m)the file system is \S+", "the file system is FS", text)
    text = re.sub(r"(?m)^.*in cron's bare environment.*\n( → install it .*\n)?", "", text)
    text = text.replace("due for SPAN:", "due:")  # said from the second second on
    text = re.sub(r"(?m)^(dbbasic_queue_\S+|.*_seconds\S*) [-\d.e+]+$", r"\1 NUMBER", text)
    text = re.sub(r"(?<=[ =])\d+\.\d+(?=[ ;,]|$)", "N", text)
    return f"exit {status}\n{text.rstrip()}\n"


def make(folder):
    """Make the queue of these tests in a folder; return its ids by name."""
    folder.mkdir()
    (folder / "handlers.py").write_text(HANDLERS)
    done = subprocess.run(
        [sys.executable, "-c", STATE], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TZ": "UTC"}, check=True,
    )  # fmt: skip
    return dict(zip("done failed said later waits due".split(), done.stdout.split(), strict=True))


def golden(name, folder):
    """Return the whole of a golden file as it would be now."""
    words = COMMANDS[name]
    pipe = told(words, folder / "pipe", in_a_pipe)
    terminal = told(words, folder / "terminal", at_a_terminal)
    return f"$ dbbasic-queue {words}\n\nin a pipe: {pipe}\nat a terminal: {terminal}"


def test_every_command_has_its_golden_file():
    (commands,) = (one.choices for one in parser()._actions if isinstance(one.choices, dict))

    assert set(COMMANDS) == set(commands)
    assert {path.stem for path in GOLDEN.iterdir()} == set(COMMANDS)


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_what_it_did(name, tmp_path):
    assert golden(name, tmp_path) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in COMMANDS:
        with tempfile.TemporaryDirectory() as folder:
            (GOLDEN / f"{name}.txt").write_text(golden(name, Path(folder)), encoding="utf-8")
    print(f"{len(COMMANDS)} files at {time.ctime()}")
