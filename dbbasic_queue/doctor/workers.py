"""The lock, the files of the workers, and what crashes left."""

import os
import time

from ..errors import QueueBusy, QueueError
from ..files import read_all
from ..job import Job
from ..journal import LiveWorker, parse
from ..lookup import get
from ..queue import Queue
from ..recover import is_free
from .finding import NOTE, OK, PROBLEM, UNKNOWN, Finding
from .lines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 2  # seconds that a lock may be held while we wait
_NAMED = 5  # jobs that one text names
_NO_TICK = 180  # seconds after which due jobs without a tick are a trouble


def look_at_lock(queue: Queue, seen: Lines) -> "Iterator[Finding]":
    """Look whether the lock can be had, and if not, who holds it."""
    name = queue.file.real + ".lock"
    if os.path.islink(name) or os.path.exists(name) and not os.path.isfile(name):
        yield Finding(PROBLEM, "lock", f"{name}: is no regular file", f"remove it: rm {name}")
        return
    missing = not os.path.exists(name)
    if not os.path.getsize(queue.path):
        return  # taking the lock would write the header
    try:
        queue.file.lock(PATIENCE)
    except QueueBusy as error:
        yield Finding(PROBLEM, "lock", str(error),
                      "look what that process does; the lock ends with it")  # fmt: skip
        return
    except QueueError as error:
        yield Finding(UNKNOWN, "lock", str(error), "look as a user who may write the queue")
        return
    queue.file.unlock()
    if missing and not os.path.exists(name):
        yield Finding(NOTE, "lock", f"{name}: cannot be made by this user; the file's own lock serves")
    elif missing:
        yield Finding(OK, "lock", f"{name}: was missing, and is there again; nobody holds it")
    else:
        yield Finding(OK, "lock", f"{name}: nobody holds it")


def look_at_workers(queue: Queue, seen: Lines) -> "Iterator[Finding]":
    """Look who lives, who died with jobs, and which jobs nobody holds."""
    folder = os.path.join(queue.file.side, "workers")
    live = 0
    if os.path.getsize(queue.path) and queue.file.lock(PATIENCE):  # so that nobody registers meanwhile
        try:
            names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            for name in names:
                finding = _look_at_worker(folder, name, names, seen)
                live += finding is not None and finding.level == OK
                if finding:
                    yield finding
            for worker, jobs in seen.held.items():
                lost = [job for job in jobs if f"{worker}.tsv" not in names and _still_held(queue, job)]
                if lost:
                    yield Finding(PROBLEM, "worker", f"{_named(lost)} processing, by worker {worker or '(none)'}, "
                                  "which has no file", "the next tick takes them in, or --mend now")  # fmt: skip
        finally:
            queue.file.unlock()
    yield from _look_at_ticks(queue, seen, live)


def _look_at_worker(folder: str, name: str, names: list[str], seen: Lines) -> Finding | None:
    path = os.path.join(folder, name)
    id, _, ending = name.rpartition(".")
    if ending in ("why", "kill", "stop") and f"{id}.tsv" in names:
        return None
    if ending != "tsv":
        text = "holds damaged lines of a worker that died" if ending == "damaged" else "is left over"
        return Finding(NOTE, "worker", f"{path}: {text}", f"when it has been looked at: rm {path}")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return Finding(UNKNOWN, "worker", f"{path}: cannot be opened: {error.strerror}",
                       "look as the user whom the worker runs as")  # fmt: skip
    try:
        free = is_free(fd)
        lines, damaged = parse(read_all(fd))
    finally:
        os.close(fd)
    worker = LiveWorker(id, lines)
    harm = "; its file has damaged lines before good ones" if damaged else ""
    if free:
        held = seen.held.get(id, [])
        begun = ", ".join(worker.jobs) or "no job"
        return Finding(PROBLEM, "worker", f"worker {id} died; it had begun {begun}, and held {_named(held)}{harm}",
                       "the next tick takes that in, or --mend now")  # fmt: skip
    age = time.time() - worker.started_at
    runs = ", ".join(worker.jobs) or "no job"
    level = PROBLEM if damaged else OK
    return Finding(level, "worker", f"worker {id} (process {worker.pid}) lives since {age:.0f} s, runs {runs}{harm}")


def _still_held(queue: Queue, seen: Job) -> bool:
    """Whether a row that said `processing` when the lines were read still does."""
    job = get(queue.file, seen.id)
    return job is not None and job.status == "processing" and job.worker == seen.worker


def _named(jobs: "list[Job]") -> str:
    if len(jobs) > _NAMED:
        return f"{len(jobs)} jobs"
    return ", ".join(job.id for job in jobs) or "no job"


def _look_at_ticks(queue: Queue, seen: Lines, live: int) -> "Iterator[Finding]":
    try:
        ago = time.time() - os.stat(os.path.join(queue.file.side, "tick")).st_mtime
    except OSError:
        ago = None
    last = "no tick has run yet" if ago is None else f"the last tick was {max(ago, 0):.0f} s ago"
    if seen.oldest_due > _NO_TICK and not live and (ago is None or ago > _NO_TICK):
        yield Finding(PROBLEM, "ticks", f"{seen.due} jobs are due, the oldest for {seen.oldest_due:.0f} s, and {last}",
                      "is the crontab line there, and does its log say something?")  # fmt: skip
    else:
        yield Finding(OK, "ticks", f"{last}; {seen.due} jobs are due")


def leftovers(queue: Queue) -> list[str]:
    """Return the neighbour files that a killed edit left; only while the lock is held they are surely such."""
    folder, name = os.path.split(queue.file.real)
    found = [one for one in os.listdir(folder) if one.startswith(f".{name}.") and one.endswith(".tmp")]
    return [os.path.join(folder, one) for one in sorted(found)]


def look_at_leftovers(queue: Queue) -> "Iterator[Finding]":
    """Look for what killed writers left, and for what was put aside."""
    try:
        for path in leftovers(queue):
            yield Finding(NOTE, "leftovers", f"{path}: an edit is under way, or was killed",
                          "the next edit removes it, or --mend now")  # fmt: skip
    except OSError as error:
        yield Finding(UNKNOWN, "leftovers", f"the folder cannot be read: {error.strerror}")
    side = queue.file.side
    if os.path.exists(side + "/unsettled"):
        yield Finding(NOTE, "leftovers", f"{side}/unsettled: a rename was not synced",
                      "the next durable enqueue does that, or --mend now")  # fmt: skip
    for name, what in (("torn", "cut off by crashes"), ("bad", "moved out by --mend")):
        path = f"{side}/{name}.tsv"
        try:
            with open(path, "rb") as lines:
                count = sum(1 for _ in lines)
        except OSError:
            continue
        yield Finding(NOTE, "leftovers", f"{path}: {count} lines, {what}",
                      f"when nothing in it is needed: rm {path}")  # fmt: skip
