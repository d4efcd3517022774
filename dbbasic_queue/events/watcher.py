"""What has become of jobs between two looks at the file, told by comparing its versions.

The version that was seen last is held open: an edit puts a new file in its place, so the old one
stays readable, costs no memory, and its inode is not used again.  What runs is read in the workers'
files, so an outcome is told before it is in the queue's.
"""

import os
import time
from collections import OrderedDict
from typing import NamedTuple

from ..errors import QueueError
from ..files import stamp_of
from ..job import Job
from ..run import clock
from ..tsv import FINISHED, PENDING, PROCESSING
from .differ import differences
from .tails import Archive, Journal, as_job
from .version import Version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..journal import Line
    from ..queue import Queue
    from ..tsv import Header

    Pair = tuple[Job | None, Job | None]

EVENTS = (
    "enqueued started progressed completed failed retried snoozed cancelled archived purged"
).split()
_RECENT = 10_000  # final states that were told last
_ROUNDING = 0.001  # seconds: a finished_at has three digits


class Change(NamedTuple):
    """One change: an event word, and the job as it was then."""

    event: str
    job: Job


class Watcher:
    """Made, it has seen the file as it is; each `look()` yields what has changed since."""

    def __init__(self, queue: "Queue", since: float | None = None) -> None:
        self._file = queue.file
        self._path = queue.path
        self._since = since
        self._version: Version | None = None  # that was seen last
        self._stamp: tuple[int, int, int] | None = None
        self._began = False
        self._looked_at = time.time()
        self._compare_from = 0.0
        self._running: dict[bytes, Job] = {}  # rows that are processing
        self._cells: dict[bytes, tuple[bytes, float, dict[str, bytes]]] = {}
        self._told: dict[bytes, tuple[bytes, Job]] = {}  # ends that the queue's file has not yet
        self._early: dict[bytes, Job] = {}  # rows newer than the version seen last
        self._recent: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()
        self._journals: dict[str, Journal] = {}
        self._archive = Archive(queue.file)
        self._tails: dict[bytes, tuple[bytes, Header]] = {}
        if since is None:
            for _ in self.look():
                pass
            if not self._began:  # there is no file, or an empty one
                self._began = True
                for _ in self._archive.begin(None):
                    pass

    def close(self) -> None:
        version, self._version = self._version, None
        if version is not None:
            version.close()
        self._archive.close()

    def look(self) -> "Iterator[Change]":
        """Yield what has changed."""
        try:
            try:
                stale = stamp_of(os.stat(self._path)) != self._stamp
            except FileNotFoundError:
                stale = False
            if stale and clock() >= self._compare_from:
                yield from self._compare()
                stale = False
            if self._running or stale:
                yield from self._follow_workers(stale)
        except OSError as error:
            raise QueueError(f"{self._path}: cannot be watched: {error.strerror}") from error

    # --- the queue's file

    def _compare(self) -> "Iterator[Change]":
        begun, now = clock(), time.time()
        try:
            version = Version(self._path)
        except FileNotFoundError:
            return
        drop: Version | None = version
        try:
            self._stamp = None
            if version.is_empty:  # what comes is compared with what was
                pass
            elif not self._began:
                self._began = True
                yield from self._begin(version)
            else:
                news = self._archive.news()
                self._tails.update((line.partition(b"\t")[0], (line, one)) for line, one in news)
                for before, after in self._pairs(version):
                    yield from self._moved(before, after)
                yield from self._archived(version)
                yield from self._lost(version)
            self._stamp, self._looked_at = version.stamp, now
            if not version.is_empty:
                drop, self._version = self._version, version
        finally:
            if drop is not None:
                drop.close()
            self._compare_from = clock() + 9 * (clock() - begun)

    def _begin(self, version: Version) -> "Iterator[Change]":
        """Take the file as it is for seen; tell what happened since `since`."""
        since = self._since
        for line, header in self._archive.begin(since):
            job = as_job(line, header)
            if since is not None and job and (job.finished_at or 0) >= since:
                yield Change(job.status, job)
                yield Change("archived", job)
        for job in version.jobs(needles=(b"\tprocessing\t",) if since is None else ()):
            if job.cells[3] == PROCESSING:
                self._running[job.cells[0]] = job
            if since is not None and job.created_at >= since:
                yield Change("enqueued", job)
            if since is not None and job.finished and (job.finished_at or 0) >= since:
                yield self._final(job)
        yield from self._follow_workers(False, since)

    def _pairs(self, version: Version) -> "Iterator[Pair]":
        """Yield each row that differs, as it was and as it is."""
        old = self._version
        if old is not None and not old.is_file_of(version):
            lines = differences(old.fd, old.stop, old.header, version.fd, version.stop,
                                version.header)  # fmt: skip
            for x, y in lines:
                yield as_job(x, version.header), as_job(y, version.header)
        elif old is None or old.is_start_of(version):
            for job in version.jobs(old.stop if old else 0):
                yield None, job
        else:
            yield from self._overwritten(version, old.last_id)

    def _overwritten(self, version: Version, last_id: bytes) -> "Iterator[Pair]":
        """Yield the rows of a file that somebody wrote in place: what was there is not known.

        Of those that did not run, only what says that it is newer than the last look is told.
        """
        gone = set(self._running)
        for job in version.jobs():
            id, was = job.cells[0], self._running.get(job.cells[0])
            gone.discard(id)
            newer = (job.finished_at or 0) >= self._looked_at - _ROUNDING
            ended = newer and self._recent.get(id) != _key(job)
            if was is not None or job.cells[3] == PROCESSING:
                yield was or job, job
            elif id > last_id:
                yield None, job
            elif ended:
                yield job.replace(status="pending"), job
        for id in gone:
            del self._running[id]

    def _moved(self, before: Job | None, now: Job | None) -> "Iterator[Change]":
        """Yield what became of one row."""
        row = now or before
        if row is None:
            return
        id = row.cells[0]
        mark, told = self._told.get(id, (b"", None))
        if now is None:
            yield from self._gone(id, told or row)
            return
        if told and now.cells[3] == PROCESSING and now.raw("worker") == mark:
            self._running[id] = now
            return
        was = told or before
        if was is None and id not in self._early:
            yield Change("enqueued", now)
        self._early.pop(id, None)
        begun = self._cells.pop(id, None)
        self._told.pop(id, None)
        self._running.pop(id, None)
        if now.cells[3] == PROCESSING:
            self._running[id] = now
            if begun and begun[0] == now.raw("worker"):
                self._cells[id], begun = begun, None
        if now.finished:
            if was is None or _key(was) != _key(now):
                yield self._final(now)
        elif was is not None and (was.finished or now.attempts > was.attempts):
            yield Change("retried", now)
        elif begun and not told:
            yield Change("snoozed", now)

    def _final(self, job: Job) -> Change:
        self._recent[job.cells[0]] = _key(job)
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return Change(job.status, job)

    def _gone(self, id: bytes, was: Job) -> "Iterator[Change]":
        """Yield what became of a row that is not there any more."""
        self._told.pop(id, None)
        self._running.pop(id, None)
        self._cells.pop(id, None)
        self._early.pop(id, None)
        tail = self._tails.pop(id, None)
        job = as_job(*tail) if tail else None
        if job is None:
            yield Change("purged", was)
            return
        if _key(was) != _key(job):
            yield self._final(job)
        yield Change("archived", job)

    def _archived(self, version: Version) -> "Iterator[Change]":
        """Yield the jobs that came and were archived between two looks."""
        for id, tail in list(self._tails.items()):
            if version.job(id):
                continue  # its edit comes, or was cut off: the queue's row is the one that counts
            job = as_job(*self._tails.pop(id, tail))
            if job is not None and id not in self._early:
                yield Change("enqueued", job)
            if job is None:
                continue
            self._early.pop(id, None)
            _, told = self._told.pop(id, (b"", None))
            if told is None or _key(told) != _key(job):
                yield self._final(job)
            yield Change("archived", job)

    def _lost(self, version: Version) -> "Iterator[Change]":
        """Yield the jobs that a worker's file told of, and which no version has that was seen."""
        for id, row in self._early.items():
            if not version.job(id):
                _, told = self._told.pop(id, (b"", None))
                yield Change("purged", told or row)
        self._early.clear()

    # --- the workers' files

    def _follow_workers(self, stale: bool, since: float | None = None) -> "Iterator[Change]":
        names = {name[:-4] for name in self._file.workers() if name.endswith(".tsv")}
        first = not self._journals and not self._stamp
        for name in self._journals.keys() - names:
            del self._journals[name]
        for name in sorted(names):
            journal = self._journals.get(name)
            if journal is None:
                path = os.path.join(self._file.side, "workers", name + ".tsv")
                journal = self._journals[name] = Journal(path)
            for entry in journal.news():
                silent = first and (since is None or entry.time < since)
                for change in self._entry(name, entry, stale):
                    if not silent:
                        yield change

    def _entry(self, worker: str, entry: "Line", stale: bool) -> "Iterator[Change]":
        """Yield what one line of a worker's file says of a row that is this worker's."""
        id, mark = entry.id, b"%b.%d" % (worker.encode(), entry.k)
        if entry.event == "worker" or self._told.get(id, (b"",))[0] == mark:
            return
        row = self._running.get(id) or self._early.get(id)
        if stale and (row is None or row.raw("worker") != mark):
            row = self._row_now(id)
            if row is not None and row.raw("worker") == mark:
                if id not in self._early and not self._is_known(id):
                    yield Change("enqueued", row)
                self._early[id] = row
        if row is None or row.cells[3] != PROCESSING or row.raw("worker") != mark:
            return
        begun, last, cells = self._cells.get(id, (b"", 0.0, {}))
        if begun != mark:
            last, cells = 0.0, {}
        if entry.event == "start":
            if begun == mark:
                return
            cells = {"attempts": b"%d" % entry.attempt, "started_at": b"%.3f" % entry.time}
            self._cells[id] = mark, last, cells
            yield Change("started", row.with_cells(cells))
        elif entry.event == "record" and entry.time > last:
            cells = cells | entry.cells
            self._cells[id] = mark, entry.time, cells
            yield Change("progressed", row.with_cells(cells))
        elif entry.event == "end":
            job = row.with_cells(cells | entry.cells)
            self._told[id] = mark, job
            self._cells.pop(id, None)
            if job.cells[3] in FINISHED:
                yield self._final(job)
            elif job.cells[3] == PENDING:
                yield Change("retried" if job.attempts >= entry.attempt else "snoozed", job)

    def _row_now(self, id: bytes) -> Job | None:
        """Return a row as the file has it now, where that is newer than the version seen last."""
        try:
            version = Version(self._path)
        except FileNotFoundError:
            return None
        try:
            return version.job(id)
        finally:
            version.close()

    def _is_known(self, id: bytes) -> bool:
        """Whether the version that was seen last has a row."""
        return self._version is not None and self._version.job(id) is not None


def _key(job: Job) -> "tuple[bytes, ...]":
    """Return what tells one final state of a job from another."""
    return job.cells[3], job.cells[6], job.raw("finished_at")
