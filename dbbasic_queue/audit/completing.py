"""What a trail has missed, added to it from the queue's file and its archive."""

import os
import time
from itertools import islice

from ..lookup import archive_jobs, archives
from .file import Entry, Writer, audit_path, parts, queue_of, read
from .trail import entry_of, who

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..job import Job
    from ..queue import Queue
    from .file import Where

_MARK = "complete "
_ENDS = ("retried", "snoozed", "recovered", "failed", "completed", "cancelled")
_AT_ONCE = 1000  # lines
_FINAL = ("completed", "failed", "cancelled")


class _Known:
    """What the trail says of one job, in its present series of attempts."""

    __slots__ = ("added", "archived", "attempts", "end", "gone", "last", "retries", "started")

    def __init__(self) -> None:
        self.added = self.archived = self.gone = False
        self.started: frozenset[int] = frozenset()
        self.attempts: frozenset[int] = frozenset()  # those that ended
        self.end = ("", "")  # the final status, and its time
        self.retries = 0  # made, and not in the trail
        self.last: tuple[str, str, int] = ("", "", 0)  # type, queue, attempt

    def take(self, entry: Entry) -> None:
        """Take in the next line."""
        at, event, _, type, queue, attempt, status, _, _, _ = entry
        self.last = type, queue, attempt
        if event in ("archived", "purged"):
            self.gone, self.archived = True, self.archived or event == "archived"
            return
        if event == "retried" and not attempt:
            self.added = True
            if self.retries and entry.by.startswith(_MARK):
                self.retries -= 1  # written later than it was
            elif self.end[0]:
                self.begin_anew()
            return
        ends = event in _ENDS and status in _FINAL
        if self.end[0] and (ends or event == "started") and not entry.by.startswith(_MARK):
            self.retries += 1
            self.begin_anew()
        self.added = self.added or event == "enqueued"
        if event == "started":
            self.started |= {attempt}
        elif event in _ENDS and event != "snoozed" and attempt:
            self.attempts |= {attempt}
        if ends:
            self.end = status, f"{at:.3f}"

    def begin_anew(self) -> None:
        self.started = self.attempts = frozenset()
        self.end = ("", "")


def complete(
    queue_file: "Where" = None, *, path: "str | None" = None, older_than: float = 60
) -> int:
    """Add to a trail what it lacks of the jobs in the file and the archive; return how many lines.

    They say so in `by`.  Of an attempt that ended unseen before the last one nothing but that is
    known: its line has the time of now, and no error.  What is younger than `older_than` seconds is
    left for the next time, since its line may be on its way.  A second call adds nothing.
    """
    queue = queue_of(queue_file)
    path = path or audit_path(queue)
    known: dict[str, _Known] = {}
    latest, leaving = time.time() - older_than, False
    for part in parts(path):
        for entry in read(part):
            known.setdefault(entry.id, _Known()).take(entry)
            leaving = leaving or (entry.event in ("archived", "purged") and entry.time > latest)
    if not os.path.exists(queue.path):
        return 0
    lines = _lacking(queue, known, latest, leaving)
    writer, count = Writer(path, queue), 0
    while some := list(islice(lines, _AT_ONCE)):
        writer.add(some)
        count += len(some)
    return count


def _lacking(
    queue: "Queue", known: "dict[str, _Known]", latest: float, leaving: bool
) -> "Iterator[Entry]":
    """Yield the lines that the trail lacks, job by job.

    `leaving`: somebody has just archived or deleted jobs, and may still be writing that.
    """
    for job, is_archived in _rows(queue):
        one = known.pop(job.id, None) or _Known()
        if max(job.created_at, job.finished_at or 0, job.started_at or 0) <= latest:
            yield from _lacking_of(job, one)
            if is_archived and not one.archived and not leaving:
                yield entry_of("archived", job, time.time(), _MARK)
    for id, one in known.items():
        if not one.gone and not leaving:
            type, label, attempt = one.last
            by = _MARK + who()
            yield Entry(time.time(), "purged", id, type, label, attempt, one.end[0], "", by, "")


def _lacking_of(job: "Job", known: _Known) -> "Iterator[Entry]":
    now = time.time()
    ended = (job.status, f"{job.finished_at or 0:.3f}") if job.finished else ("", "")
    anew = job.replace(status="pending", attempts=0, error="", worker="")
    if not known.added:
        yield entry_of("enqueued", anew, job.created_at, _MARK)
    if known.end[0] and known.end != ended:
        known.retries += 1
        known.begin_anew()
    for _ in range(known.retries):
        yield entry_of("retried", anew, now, _MARK)
    for attempt in range(1, job.attempts + 1):
        last = attempt == job.attempts
        goes_on = last and job.status != "pending"
        if attempt not in known.started and (not goes_on or job.started_at):
            at = (job.started_at if last else None) or now
            runs = anew.replace(status="processing", attempts=attempt, worker=job.worker)
            yield entry_of("started", runs, at, _MARK)
        if attempt not in known.attempts and not goes_on:
            error = (job.error or "") if last else ""
            yield entry_of("retried", anew.replace(attempts=attempt, error=error), now, _MARK)
    if job.finished and known.end != ended:
        yield entry_of(job.status, job, job.finished_at or now, _MARK)


def _rows(queue: "Queue") -> "Iterator[tuple[Job, bool]]":
    """Yield the jobs of the file, then those of the archive that are not in the file."""
    seen = set()
    for job in queue.jobs():
        seen.add(job.id)
        yield (job.with_cells({"payload": b"", "result": b""}), False)
    for path in archives(queue.file):
        for job in archive_jobs(path):
            if job.id not in seen:
                yield (job.with_cells({"payload": b"", "result": b""}), True)
