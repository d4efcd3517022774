"""A bad job between good ones, in a process of its own: what is left is read by another reader.

The bad one ends as its table says, each good one completes with one effect, at the latest in the
next tick, and nothing else is left: no file, no process, no line that was printed twice.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dbbasic_queue import Queue

from . import reader
from .hell_handlers import ANY, CASES, POOLS
from .results import Result

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = Path(__file__).with_name("hell_handlers.py")
MODE = 0o640  # of the queue: not what any umask here gives
GOOD = range(5)  # payloads; the bad job stands in the middle of the first four
FROZEN = 1.0  # seconds after which a process that cannot end is killed
SECONDS = 30
BOUNDED = ("here", "pool", "loop")
UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def campaign(bounded, names=()):
    """Yield a Result for each handler, over the modes."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where a sync costs nothing
    with (
        tempfile.TemporaryDirectory(dir=memory) as folder,
        ThreadPoolExecutor(3 * (os.cpu_count() or 1)) as threads,
    ):
        os.chmod(folder, 0o755)  # one handler becomes somebody else
        found = {}
        for name in names or CASES:
            modes = [mode for mode in CASES[name].ends if not bounded or mode in BOUNDED]
            found[name] = [
                threads.submit(one_case, Path(folder, f"{name}-{mode}"), name, mode)
                for mode in modes
            ]
        for name, cases in found.items():
            violations = [text for case in cases for text in case.result()]
            yield Result(name, len(cases), violations)
        for forker in Forker.all:
            forker.close()


def one_case(path, name, mode):
    """Let one handler loose in one mode; return what was wrong afterwards."""
    file = path / "data" / "queue.tsv"
    file.parent.mkdir(parents=True)
    path.joinpath("effects").touch()
    path.joinpath("effects").chmod(0o666)
    queue = Queue(file, sync="off", lock_timeout=5)
    enqueue_all(queue, CASES[name])
    file.chmod(MODE)
    file.with_name("queue.tsv.lock").chmod(MODE)
    inode = file.stat().st_ino
    problems = []
    try:
        status = run(path, name, mode, problems)
        queue.enqueue("good", GOOD[-1], backoff="none")
        finish(queue, path)
        judge(path, name, mode, status, problems)
        if file.stat().st_ino == inode:
            problems.append("the file was never written anew")
    except Exception as problem:
        problems.append(f"{type(problem).__name__}: {problem}")
    shutil.rmtree(path)
    return [f"{name} {mode}: {text}" for text in problems]


def enqueue_all(queue, case):
    for number in GOOD[:-1]:
        if number == 2:
            queue.enqueue("bad", timeout=case.timeout, max_attempts=2)
        queue.enqueue("good", number, backoff="none")


class Forker:
    """A Python of each thread's own that has imported all, and forks the processes."""

    all = []
    _of_thread = threading.local()

    def __init__(self):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
        command = [sys.executable, str(SCRIPT)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=env, bufsize=0, **pipes)
        self.all.append(self)

    @classmethod
    def mine(cls):
        if not hasattr(cls._of_thread, "forker"):
            cls._of_thread.forker = cls()
        return cls._of_thread.forker

    def fork(self, *words):
        """Start a process and return its pid."""
        self.process.stdin.write("\t".join(map(str, words)).encode() + b"\n")
        return int(self.process.stdout.readline())

    def has_ended(self, seconds):
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def status(self):
        """Wait for the process and return its exit status, -9 of a killed one."""
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.all.remove(self)


def run(path, name, mode, problems):
    """Run one call of process_jobs in a process of its own, and return its exit status."""
    case, forker = CASES[name], Forker.mine()
    pid = forker.fork(path, name, mode)
    if case.freezes and mode not in POOLS:
        until(lambda: "bad" in effects(path))
        forker.has_ended(FROZEN)
        os.kill(pid, signal.SIGKILL)
    elif not forker.has_ended(SECONDS):
        problems.append(f"it goes on after {SECONDS} s")
        os.kill(pid, signal.SIGKILL)
    status = forker.status()
    if not case.stays and not until(lambda: not session(pid), 5):
        problems.append(f"{len(session(pid))} processes go on")
    for one in session(pid):
        os.kill(one, signal.SIGKILL)
    return status


def until(condition, seconds=SECONDS):
    """Ask again and again until the answer is true; False when it was not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def session(leader):
    """The pids of the processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def effects(path):
    return path.joinpath("effects").read_text().splitlines()


def finish(queue, path):
    """Make the next tick: it takes in the dead, and runs what is due and good."""

    def good(payload):
        with path.joinpath("effects").open("a") as file:
            file.write(f"good {payload}\n")
        return payload

    queue.process_jobs({"good": good}, max_workers=99)


# --- what must hold then


def judge(path, name, mode, status, problems):
    case = CASES[name]
    file = path / "data" / "queue.tsv"
    rows = reader.read(file)
    counts = Counter(effects(path))
    bad = next(row for row in rows if row["type"] == "bad")
    ends = [end for end in case.ends[mode] if is_like(end, bad, status)]
    if not ends:
        seen = bad["status"], bad["attempts"], bad["error"][:200], f"exit status {status}"
        problems.append(f"it ended as {seen}, and not as one of {case.ends[mode]}")
    most = 1 + max((end.beside for end in ends), default=9)
    for row in rows:
        if row["type"] == "good":
            judge_good(row, counts, most, problems)
    if bad["worker"] and bad["status"] in ("pending", "processing"):
        problems.append(f"the bad job is still marked by {bad['worker']}")
    charged = sum(int(row["attempts"]) for row in rows if row["type"] == "bad")
    if counts["bad"] > charged + (2 if mode == "two" else 1):
        problems.append(f"the bad job ran {counts['bad']} times, and is charged {bad['attempts']}")
    if left := reader.leftovers(file):
        problems.append(f"left over: {left}")
    wrong = {one: oct(mode) for one, mode in reader.modes(file).items() if mode != MODE}
    if wrong and name != "delete_the_lock_file":
        problems.append(f"modes: {wrong}")
    others = {str(one.relative_to(path)) for one in path.rglob("*") if "data" not in one.parts}
    if others - {"effects", "out", "err", "elsewhere"}:
        problems.append(f"beside the folder: {sorted(others)}")
    if counts["escaped"] and not case.noisy:
        problems.append("a worker came back into the caller's code")
    judge_printed(path, case, counts, problems)


def is_like(end, row, status):
    same = (end.status, str(end.attempts)) == (row["status"], row["attempts"])
    as_told = end.error in row["error"] if end.error else not row["error"]
    return same and as_told and end.exit in (ANY, status)


def judge_good(row, counts, most, problems):
    number = row["payload"]
    times = counts[f"good {number}"]
    if (row["status"], row["result"]) != ("completed", number):
        problems.append(f"good {number} is {row['status']}, {row['error']!r}")
    if not 1 <= times <= most:
        problems.append(f"good {number} ran {times} times")
    if int(row["attempts"]) > most:
        problems.append(f"good {number} is charged {row['attempts']} attempts")


def judge_printed(path, case, counts, problems):
    out = path.joinpath("out").read_text(errors="replace").replace("x", "")
    lines = Counter(filter(None, out.splitlines()))
    twice = [line for line, count in lines.items() if count > max(1, counts[line])]
    strange = [line for line in lines if not re.fullmatch(r"begin|end|good \d", line)]
    if (twice or strange) and not case.noisy:
        problems.append(f"printed: {twice or strange}")
    err = path.joinpath("err").read_text(errors="replace")
    if UNSAFE.search(err):
        problems.append("control characters in the log")
