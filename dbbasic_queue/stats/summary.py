"""What a block of rows adds to the figures.

A summary does not depend on the clock, but for how far it looks back: so it holds for as long as
its rows are the same.
"""

from array import array
from bisect import bisect_right

from ..job import Job, whole
from ..redact import redacted
from ..tsv import CANCELLED, COMPLETED, FAILED, PENDING, PROCESSING, escape, row, unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..tsv import Header

    Key = tuple[bytes, bytes, bytes]  # queue, type, status
    Places = tuple[int, int, int, int, int]

FIRST_LINE = 200  # characters of an error by which failed jobs are told apart
NEVER = 1 << 62  # a later run_at, which somebody has written by hand, counts as this
IDS = 3  # of a group of errors: the newest


class Errors:
    """Failed jobs that said the same."""

    __slots__ = ("first", "jobs", "newest")

    def __init__(self) -> None:
        self.jobs = 0
        self.first = 0.0
        self.newest: list[tuple[float, str]] = []  # when they failed, and their ids

    @property
    def last(self) -> float:
        return self.newest[0][0]

    def note(self, at: float, id: str) -> None:
        self.first = min(self.first, at) if self.jobs else at
        if len(self.newest) < IDS or (at, id) > self.newest[-1]:
            self.newest = sorted([*self.newest, (at, id)], reverse=True)[:IDS]
        self.jobs += 1

    def add(self, other: "Errors") -> None:
        self.first = min(self.first, other.first) if self.jobs else other.first
        self.newest = sorted(self.newest + other.newest, reverse=True)[:IDS]
        self.jobs += other.jobs


class Pending:
    """The pending rows of one queue that wait for no other job."""

    __slots__ = ("now", "oldest", "retried", "scheduled")

    def __init__(self) -> None:
        self.now = 0  # rows that are due whatever the clock says
        self.oldest = NEVER  # run_at among them
        self.scheduled = array("q")  # run_at of the others, sorted by `settle`
        self.retried = array("q")  # of those that have had an attempt

    def settle(self) -> None:
        self.scheduled = array("q", sorted(self.scheduled))
        self.retried = array("q", sorted(self.retried))

    def at(self, now: float) -> tuple[int, int, int, int]:
        """Return how many are due, scheduled and retrying, and the run_at that is due longest."""
        due, oldest = self.now, self.oldest
        for times in (self.scheduled, self.retried):
            count = bisect_right(times, now)
            if count:
                due, oldest = due + count, min(oldest, times[0])
        scheduled = len(self.scheduled) - bisect_right(self.scheduled, now)
        return due, scheduled, len(self.retried) - bisect_right(self.retried, now), oldest


class Summary:
    """The figures of some rows.  `since`: what finished before it is counted, and no more."""

    def __init__(self, since: float, queue: str | None = None, type: str | None = None) -> None:
        self.since = since
        self._queue = None if queue is None else plain(escape(queue).encode())
        self._type = None if type is None else type.encode()
        self.counts: dict[Key, int] = {}
        self.pending: dict[bytes, Pending] = {}
        self.linked: list[tuple[str, int, int, bool, bytes]] = []  # of pending rows with `after`
        self.running: list[Job] = []  # processing rows, which nothing else here counts
        self.errors: dict[tuple[str, str], Errors] = {}
        self.minutes: dict[int, list[int]] = {}  # [completed, failed] of a minute
        self.queued: dict[int, int] = {}  # by minute: jobs that came due, less those that began
        self.hours: dict[int, int] = {}  # pending jobs by the hour of their run_at
        self.workers: dict[bytes, list[float]] = {}  # [jobs, seconds] by a worker's id
        # of each job: finished_at, begun_at, seconds waited (-1: it had an `after`), seconds run
        self.ended = array("d")
        self.ended_as: list[tuple[bytes, bytes]] = []  # type and status of each
        self._same: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}  # one for all equal ones
        self.bad = 0

    def read(self, block: bytes, header: "Header") -> "Summary":
        """Add the rows of a block of whole lines."""
        places = places_of(header)
        for line in block.split(b"\n")[:-1]:
            cells = row(line, header)
            if cells is None:
                self.bad += 1
            elif cells[3] == PROCESSING:
                label = plain(cells[places[0]]) if places[0] else b""
                if self._queue in (None, label) and self._type in (None, cells[1]):
                    self.running.append(Job(cells, header))
            else:
                self.add(cells, header, places)
        return self.settled()

    def settled(self) -> "Summary":
        for pending in self.pending.values():
            pending.settle()
        return self

    def add(self, cells: list[bytes], header: "Header", places: "Places") -> None:
        """Add one row."""
        queue, after, started, finished, worker = places
        label = plain(cells[queue]) if queue else b""
        if self._queue not in (None, label) or self._type not in (None, cells[1]):
            return
        type, status = cells[1], cells[3]
        key = (label, type, status)
        self.counts[key] = self.counts.get(key, 0) + 1
        linked = cells[after] if after else b""
        if status == PENDING:
            self._add_pending(cells, label, linked)
            return
        begun, ended = cells[started] if started else b"", cells[finished] if finished else b""
        at = float(ended) if ended else 0.0
        if status == FAILED:
            self._add_error(Job(cells, header), at)
        if worker and begun and cells[worker]:
            self._add_work(cells[worker], at - float(begun))
        if at >= self.since:
            self._add_recent(cells, status, at, float(begun) if begun else 0.0, bool(linked))

    def _add_pending(self, cells: list[bytes], label: bytes, linked: bytes) -> None:
        run_at = min(whole(cells[5]), NEVER)
        at_once = cells[4] == cells[5] or run_at == whole(cells[4])
        if linked:
            attempts = whole(cells[6])
            self.linked.append((linked.decode(), run_at, attempts, at_once, label))
            return
        _count(self.queued, run_at // 60, 1)
        pending = self.pending.get(label)
        if pending is None:
            pending = self.pending[label] = Pending()
        if at_once:
            pending.now += 1
            pending.oldest = min(pending.oldest, run_at)
            return
        (pending.retried if whole(cells[6]) else pending.scheduled).append(run_at)
        _count(self.hours, run_at // 3600, 1)

    def _add_work(self, mark: bytes, seconds: float) -> None:
        worker = mark.rpartition(b".")[0]
        told = self.workers.get(worker)
        if told is None:
            told = self.workers[worker] = [0, 0.0]
        told[0] += 1
        told[1] += seconds

    def _add_recent(
        self, cells: list[bytes], status: bytes, at: float, begun: float, linked: bool
    ) -> None:
        """Add what finished within the window; the wait of one with `after` tells nothing."""
        minute = int(at) // 60
        if status != CANCELLED:
            told = self.minutes.get(minute)
            if told is None:
                told = self.minutes[minute] = [0, 0]
            told[status != COMPLETED] += 1
        run_at = whole(cells[5])
        if not linked:
            due, left = run_at // 60, int(begun) // 60 if begun else minute
            if due < left:  # not one that was cancelled before it came due
                _count(self.queued, due, 1)
                _count(self.queued, left, -1)
        if begun and status != CANCELLED:
            waited = -1.0 if linked else max(0.0, begun - _due_at(cells, run_at))
            self.ended.extend((at, begun, waited, max(0.0, at - begun)))
            ended_as = cells[1], status
            self.ended_as.append(self._same.setdefault(ended_as, ended_as))

    def _add_error(self, job: Job, at: float) -> None:
        seen = redacted(job)
        first = (seen.error or "").partition("\n")[0][:FIRST_LINE]
        key = (seen.type, first)
        found = self.errors.get(key)
        if found is None:
            found = self.errors[key] = Errors()
        found.note(at or job.created_at, job.id)


def places_of(header: "Header") -> "Places":
    """Return where the columns stand that are not always there; 0 for one that is not."""
    at = header.index.get
    return (
        at("queue", 0), at("after", 0), at("started_at", 0), at("finished_at", 0), at("worker", 0)
    )  # fmt: skip


def _due_at(cells: list[bytes], run_at: int) -> float:
    """Return when a job was due: to the microsecond of its id where that was when it was added."""
    try:
        made = int(cells[0][:13], 16) / 1e6
    except ValueError:
        return run_at
    return made if cells[4] == cells[5] and int(made) == run_at else run_at


def plain(label: bytes) -> bytes:
    """Return the cell of a queue; the default one is written in two ways."""
    return b"" if label == b"default" else label


def name_of(label: bytes) -> str:
    """Return the name of a queue, whose cell somebody may have written by hand."""
    return unescape(label.decode()) or "default"


def _count(counts: dict[int, int], key: int, more: int) -> None:
    counts[key] = counts.get(key, 0) + more
