"""Limits while workers die: eight processes work, are killed at random moments, and others come.

What is held is seen from outside of the queue's rows: a handler takes a free slot by flock(2),
which the kernel frees at a death, and notes when it begins.
"""

import fcntl
import itertools
import os
import random
import shutil
import signal
import time
from pathlib import Path

from dbbasic_queue import Queue, QueueError, current_job
from dbbasic_queue.limits import (
    QueueFull,
    concurrency,
    enqueue_bounded,
    pause,
    paused,
    rate,
    resume,
)

from .cases import Result
from .killed import in_a_child

WORKERS = 8
PATIENCE = 30.0  # seconds until all jobs of a case must have ended
FAST = {"max_workers": 99, "max_attempts": 10**6}  # no number of kills fails a job


class Scene:
    """The folder of one case: a queue, what handlers note, and the processes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.queue = Queue(folder / "queue.tsv", sync="off", lock_timeout=PATIENCE)
        self.killed = 0
        self.does = {}  # by pid
        self.violations = []

    def start(self, does) -> None:
        """Do it in a process of its own."""
        seed = self.random.random()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                random.seed(seed)
                does()
                status = 0
            except SystemExit:  # after a SIGTERM
                pass
            except BaseException as problem:
                self.note("violations", f"a process raised {problem!r}")
            finally:
                os._exit(status)
        self.does[pid] = does

    def kill_one(self, *, again: bool = True) -> None:
        """Kill one of the processes; another one does the same."""
        pid = self.random.choice(list(self.does))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self.killed += os.WIFSIGNALED(status)
        does = self.does.pop(pid)
        if again:
            self.start(does)

    def end(self) -> None:
        for pid in self.does:
            os.kill(pid, signal.SIGTERM)
        for pid in self.does:
            os.waitpid(pid, 0)
        self.does.clear()

    def rest(self, most: float = 0.05) -> None:
        time.sleep(self.random.random() * most)

    def note(self, name: str, text: str) -> None:
        """Append a line by one write: a kill may follow."""
        fd = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, f"{text}\n".encode())
        os.close(fd)

    def notes(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def work(self, handler, admit) -> None:
        types = dict.fromkeys(("mail", "note"), handler)
        self.queue.process_jobs(types, run_for=PATIENCE, admit=admit, **FAST)

    def until_all_ended(self) -> None:
        until = time.monotonic() + PATIENCE
        while self.queue.counts().keys() - {"completed"}:
            if time.monotonic() > until:
                self.violations.append(f"jobs never end: {self.queue.counts()}")
                return
            time.sleep(0.005)

    def check(self, jobs: int) -> list[str]:
        """Return what is wrong now that all processes have ended."""
        self.violations += self.notes("violations")
        if self.queue.counts() != {"completed": jobs}:
            self.violations.append(f"{jobs} jobs were added, and {self.queue.counts()} are there")
        return self.violations


def slots(scene: Scene, limit, n: int, key: str | None) -> list[str]:
    """Kill workers; no more than n handlers (of a key) ever run at a time, and all jobs end."""

    def handler(payload):
        held = payload[key] if key else "all"
        for number in range(n):
            fd = os.open(scene.folder / f"slot-{held}-{number}", os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            time.sleep(random.random() * 0.01)
            os.close(fd)
            return
        scene.note("violations", f"more than {n} ran at a time, of {held}")

    jobs = 40
    scene.queue.enqueue_many([("mail", {"to": number % 3}) for number in range(jobs)])
    for _ in range(WORKERS):
        scene.start(lambda: scene.work(handler, [limit]))
    for _ in range(6):
        scene.rest()
        scene.kill_one()
    scene.until_all_ended()
    scene.end()
    return scene.check(jobs)


def starts(scene: Scene, how: str) -> list[str]:
    """Kill workers; handlers never begin more often than allowed.

    A claim is asked for at `asked`, and noted after that and before the handler begins: so of n + 1
    starts the last handler begins a window after the first one was asked for, at least.  What that
    leaves to chance is one edit: the time from the first one's question to its own begin.
    """
    n, window = (3, 0.15) if how != "spacing" else (6, 0.15)
    asked = {}

    def asks(job, counts):
        asked[job.id] = time.time()

    def admitted(job, counts):
        counts.if_claimed(lambda: asked.update({job.id + "!": time.time()}))

    def handler(payload):
        began, id = time.time(), current_job().id
        scene.note("starts", f"{asked[id]:.6f} {asked[id + '!']:.6f} {began:.6f}")

    jobs = 12
    scene.queue.enqueue_many([("mail", number) for number in range(jobs)])
    admit = [asks, rate(n, window, type="mail", how=how), admitted]
    for _ in range(WORKERS):
        scene.start(lambda: scene.work(handler, admit))
    for _ in range(5):
        scene.rest(0.08)
        scene.kill_one()
    scene.until_all_ended()
    scene.end()
    found = sorted(tuple(map(float, line.split())) for line in scene.notes("starts"))
    if how == "fixed":
        windows = [int(before / window) for before, after, _ in found
                   if int(before / window) == int(after / window)]  # fmt: skip
        many = [one for one in set(windows) if windows.count(one) > n]
        scene.violations += [f"{windows.count(one)} starts in a window of {n}" for one in many]
    else:
        apart, gap = (1, window / n) if how == "spacing" else (n, window)
        for (first, *_), (*_, last) in zip(found, found[apart:], strict=False):
            if last - first < gap - 2e-6:  # the notes are rounded
                scene.violations.append(f"{how}: {apart + 1} starts in {last - first:.4f} s")
    return scene.check(jobs)


def pauses(scene: Scene) -> list[str]:
    """Kill who pauses, resumes and works; each label is as its last change left it, and no job is
    claimed while its queue is known to be paused.
    """
    labels = ["a", "b", "c"]
    scene.queue.enqueue("mail", queue="a")
    asked = {}

    def asks(job, counts):
        asked[job.id] = time.monotonic()

    def handler(payload):
        job = current_job()
        scene.note(f"claims-{job.queue}", f"{asked[job.id]:.6f}")

    def changes(label):
        while True:
            for word, call in (("paused", pause), ("resumed", resume)):
                scene.note(f"changes-{label}", f"begin {word} {time.monotonic():.6f}")
                call(label, scene.queue)
                scene.note(f"changes-{label}", f"end {word} {time.monotonic():.6f}")
                scene.queue.enqueue("note", queue=label)
                time.sleep(random.random() * 0.02)

    for label in labels:
        scene.start(lambda label=label: changes(label))
    for _ in range(2):
        scene.start(lambda: scene.work(handler, [asks]))
    for _ in range(8):
        scene.rest()
        scene.kill_one()
    while scene.does:
        scene.kill_one(again=False)
    for label in labels:
        lines = [line.split() for line in scene.notes(f"changes-{label}")]
        sure = lines and lines[-1][0] == "end"
        allowed = {lines[-1][1]} if sure else {"paused", "resumed"}
        state = "paused" if label in paused(scene.queue) else "resumed"
        if state not in allowed:
            scene.violations.append(f"{label} is {state} after {lines[-1]}")
        spans = [(float(one[2]), float(two[2])) for one, two in itertools.pairwise(lines)
                 if one[:2] == ["end", "paused"]]  # fmt: skip
        for claim in map(float, scene.notes(f"claims-{label}")):
            if any(begin < claim < end for begin, end in spans):
                scene.violations.append(f"a job of {label} was claimed while it was paused")
        resume(label, scene.queue)
    scene.start(lambda: scene.work(handler, [asks]))
    scene.until_all_ended()
    scene.end()
    if paused(scene.queue) or os.path.exists(scene.queue.file.side + "/paused"):
        scene.violations.append("a file of pauses is left though nothing is paused")
    return scene.check(sum(scene.queue.counts().values()))


def bounds(scene: Scene) -> list[str]:
    """Kill who adds to a queue of ten; it never holds more, and what was acknowledged is there."""
    most = 10

    def adds():
        while True:
            try:
                id = enqueue_bounded("mail", longest=most, queue="b", queue_file=scene.queue)
                scene.note("ids", id)
            except QueueFull:
                time.sleep(0.002)

    def drains():
        scene.work(lambda payload: time.sleep(random.random() * 0.005), [])

    for _ in range(4):
        scene.start(adds)
    scene.start(drains)
    for _ in range(6):
        until = time.monotonic() + scene.random.random() * 0.05
        while time.monotonic() < until:
            unfinished = sum(not job.finished for job in scene.queue.jobs(queue="b"))
            if unfinished > most:
                scene.violations.append(f"{unfinished} jobs in a queue of {most}")
        scene.kill_one()
    while scene.does:
        scene.kill_one(again=False)
    there = {job.id for job in scene.queue.jobs()}
    lost = set(scene.notes("ids")) - there
    scene.violations += [f"{id} was acknowledged and is gone" for id in lost]
    scene.start(drains)
    scene.until_all_ended()
    scene.end()
    added = 0
    for _ in range(most + 1):
        try:
            added += bool(enqueue_bounded("mail", longest=most, queue="b", queue_file=scene.queue))
        except QueueError:
            break
    if added != most:
        scene.violations.append(f"an empty queue of {most} took {added}")
    scene.queue.purge(status="pending")
    return scene.check(len(there))


def calls(scene: Scene) -> list[str]:
    """Kill a tick, a pause and a bounded enqueue at one of their own calls, or in half of a write:
    of a rate a start may be lost, there is never one too many, and the next one goes on.
    """
    limit = [rate(3, 3600, type="mail"), concurrency(1)]
    queue, jobs = scene.queue, 8
    queue.enqueue_many([("mail", number) for number in range(jobs)])

    def tick():
        handler = {"mail": lambda payload: scene.note("effects", "ran")}
        queue.process_jobs(handler, queues=["default"], admit=limit, **FAST)

    def add():
        try:
            while True:
                enqueue_bounded("note", queue="b", longest=3, queue_file=queue)
        except QueueFull:
            pass

    def dies(does):
        how = scene.random.choice(("before", "after", "half"))
        killed, _ = in_a_child(does, scene.random.randrange(1, 30), how)
        scene.killed += killed

    for number in range(6):
        dies(tick)
        dies(lambda: pause("a", queue))
        if paused(queue) not in ([], ["a"]):
            scene.violations.append(f"a pause left {paused(queue)}")
        pause("b", queue)
        dies(lambda: resume("a", queue))
        if paused(queue) not in (["b"], ["a", "b"]):
            scene.violations.append(f"a resume left {paused(queue)}")
        resume("b", queue)
        resume("a", queue)
        dies(add)
        if sum(job.queue == "b" for job in queue.jobs()) > 3:
            scene.violations.append(f"more than 3 jobs in a queue of 3 after kill {number}")
    in_a_child(tick, 0, "")
    if len(scene.notes("effects")) > 3:
        scene.violations.append(f"{len(scene.notes('effects'))} starts where 3 may be")
    queue.purge(queue="b", status="pending")
    in_a_child(lambda: queue.process_jobs({"mail": str}), 0, "")
    return scene.check(jobs)


KINDS = {
    "concurrency(1)": lambda scene: slots(scene, concurrency(1, type="mail"), 1, None),
    "concurrency(3)": lambda scene: slots(scene, concurrency(3, queue="default"), 3, None),
    "a mutex per key": lambda scene: slots(scene, concurrency(1, key="to"), 1, "to"),
    "sliding": lambda scene: starts(scene, "sliding"),
    "fixed": lambda scene: starts(scene, "fixed"),
    "spacing": lambda scene: starts(scene, "spacing"),
    "pause": pauses,
    "bound": bounds,
    "calls": calls,
}


def run(cases: int, folder: Path, seed: int = 1) -> Result:
    """Run so many cases, each kind in turn, each in a folder of its own that is removed."""
    killed, violations = 0, []
    for number in range(cases):
        name = list(KINDS)[number % len(KINDS)]
        place = folder / f"case-{number}"
        place.mkdir()
        scene = Scene(place, seed * 100_003 + number)
        found = KINDS[name](scene)
        violations += [f"case {number}, {name}: {one}" for one in found]
        killed += scene.killed
        if not found:
            shutil.rmtree(place)
    return Result(cases, killed, violations)
