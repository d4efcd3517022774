"""The lock, the files of the workers, the ticks, and what crashes left."""

import os
import time

from ..admit import paused
from ..beside import open_regular
from ..errors import QueueBusy, QueueError
from ..files import read_all
from ..flock import try_lock
from ..job import Job
from ..journal import parse
from ..lookup import get
from ..queue import Queue
from ..recover import LiveWorker
from ..stats import SILENT
from .finding import OK, Finding, note, ok, problem, unknown
from .lines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 2  # seconds that somebody may hold the lock
TAKEN_IN = "the next tick takes that in, or --mend now"
_NAMED = 5  # jobs that one text names


def look_at_lock(queue: Queue, seen: Lines) -> "Iterator[Finding]":
    """Look whether the lock can be had, and if not, who holds it."""
    name = queue.file.real + ".lock"
    missing = not os.path.lexists(name)
    if not missing and (os.path.islink(name) or not os.path.isfile(name)):
        seen.locked = True
        yield problem("lock", f"{name}: is no regular file", f"rm {name}")
    elif seen.has_header:  # else taking the lock would write the header
        try:
            queue.file.lock(PATIENCE)
            queue.file.unlock()
        except QueueBusy as error:
            seen.locked = True
            yield problem("lock", str(error), "look what that process does: the lock ends with it")
        except QueueError as error:
            seen.locked = True
            yield unknown("lock", str(error), "look as a user who may write the queue")
        else:
            yield ok("lock", f"{name}: nobody holds it" + (", it was missing" if missing else ""))


def look_at_workers(queue: Queue, seen: Lines) -> "Iterator[Finding]":
    """Look who lives, who died with jobs, and which jobs nobody holds."""
    live = 0
    if seen.has_header and not seen.locked and queue.file.lock(PATIENCE):  # nobody registers now
        try:
            for finding in _look_at_workers(queue, seen):
                live += finding.level == OK
                yield finding
        finally:
            queue.file.unlock()
    yield _look_at_ticks(queue, seen, live)


def _look_at_workers(queue: Queue, seen: Lines) -> "Iterator[Finding]":
    folder = os.path.join(queue.file.side, "workers")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in names:
        id, _, ending = name.rpartition(".")
        if ending == "tsv":
            yield _look_at_worker(os.path.join(folder, name), id, seen)
        elif f"{id}.tsv" not in names or ending not in ("why", "kill", "stop"):
            what = "damaged lines of a worker that died" if ending == "damaged" else "left over"
            path = os.path.join(folder, name)
            yield note("worker", f"{path}: {what}", f"when it has been looked at: rm {path}")
    for worker, jobs in seen.held.items():
        lost = [] if f"{worker}.tsv" in names else [one for one in jobs if _is_held(queue, one)]
        if lost:
            who = f"worker {worker}" if worker else "a worker that is not named"
            text = f"{_named(lost)} processing by {who}, which has no file"
            yield problem("worker", text, TAKEN_IN)


def _look_at_worker(path: str, id: str, seen: Lines) -> Finding:
    try:
        fd = open_regular(path, os.O_RDWR)
    except OSError as error:
        text = f"{path}: cannot be opened: {error.strerror}"
        return unknown("worker", text, "look as the user whom the worker runs as")
    try:
        free = try_lock(fd)
        lines, damaged = parse(read_all(fd))
    finally:
        os.close(fd)
    worker = LiveWorker(id, lines)
    harm = "; its file has damaged lines before good ones" if damaged else ""
    runs = ", ".join(worker.jobs) or "no job"
    if free:
        held = _named(seen.held.get(id, []))
        return problem(
            "worker", f"worker {id} died: it had begun {runs}, held {held}{harm}", TAKEN_IN
        )
    age = time.time() - worker.started_at
    text = f"worker {id}, process {worker.pid}, lives since {age:.0f} s, runs {runs}{harm}"
    if damaged:
        return problem(
            "worker",
            text,
            f"when it has ended, look at damaged-*.tsv beside {os.path.dirname(path)}",
        )
    return ok("worker", text)


def _is_held(queue: Queue, seen: Job) -> bool:
    """Whether a row that said `processing` when the lines were read still does."""
    job = get(queue.file, seen.id)
    return job is not None and job.status == "processing" and job.worker == seen.worker


def _named(jobs: "list[Job]") -> str:
    if len(jobs) > _NAMED:
        return f"{len(jobs)} jobs"
    return ", ".join(job.id for job in jobs) or "no job"


def _look_at_ticks(queue: Queue, seen: Lines, live: int) -> Finding:
    try:
        ago = time.time() - os.stat(os.path.join(queue.file.side, "tick")).st_mtime
    except OSError:
        ago = float("inf")
    last = f"the last tick was {max(ago, 0):.0f} s ago" if ago < 1e10 else "no tick has run yet"
    if seen.oldest_due > SILENT and not live and not seen.locked and ago > SILENT:
        text = f"jobs due: {seen.due}, the oldest for {seen.oldest_due:.0f} s, and {last}"
        return problem("ticks", text, "is the crontab line there, and what does its log say?")
    return ok("ticks", f"{last}; jobs due: {seen.due}")


def look_at_pauses(queue: Queue, seen: Lines) -> "Iterator[Finding]":
    """Look which queues are paused while jobs of theirs are due."""
    try:
        labels = sorted(paused(queue.file))
    except QueueError as error:
        yield problem("paused", str(error), "look what stands there: no worker runs anything")
        return
    for label in labels:
        if label in seen.due_in:
            text = f"queue {label} is paused, and jobs of it are due: {seen.due_in[label]}"
            yield note("paused", text, f"when they may run: dbbasic-queue resume {label}")


# --- what crashes left


def leftovers(queue: Queue) -> list[str]:
    """Return the neighbour files of edits: of killed ones, while the lock is held."""
    folder, name = os.path.split(queue.file.real)
    start = f".{name}."
    names = [one for one in os.listdir(folder) if one.startswith(start) and one.endswith(".tmp")]
    return [os.path.join(folder, one) for one in sorted(names)]


def look_at_leftovers(queue: Queue) -> "Iterator[Finding]":
    """Look for what killed writers left, and for what was put aside."""
    side = queue.file.side
    try:
        for path in leftovers(queue):
            text = f"{path}: of an edit that is under way, or was killed"
            yield note("leftovers", text, "the next edit removes it, or --mend now")
    except OSError as error:
        yield unknown("leftovers", f"the folder cannot be read: {error.strerror}")
    if os.path.exists(side + "/unsettled"):
        text = f"{side}/unsettled: a rename was not synced"
        yield note("leftovers", text, "the next enqueue does that, or --mend now")
    for name, what in (("torn", "cut off by crashes"), ("bad", "moved out by --mend")):
        path = f"{side}/{name}.tsv"
        try:
            with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as lines:
                count = sum(1 for _ in lines)
        except OSError:
            continue
        text = f"{path}: {count} line{'' if count == 1 else 's'}, {what}"
        yield note("leftovers", text, f"when nothing in it is needed: rm {path}")
