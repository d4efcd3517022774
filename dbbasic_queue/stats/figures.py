"""All figures of one queue file, kept from one look to the next."""

import os
import threading
import time

from .. import admit
from ..beside import open_queue
from ..errors import BadArgument, QueueError
from ..files import close_quietly, read_header, stamp_of
from ..journal import all_lines, overlay, pid_of, worker_of
from ..kinds import DUE, KINDS, RETRYING, SCHEDULED, STUCK, WAITING, Kinds, timed
from ..queue import Queue, default_queue
from ..tsv import PROCESSING, STATUSES, escape
from .archived import Archived
from .blocks import Block, look
from .summary import Summary, name_of, places_of, plain
from .ticks import last_tick_age
from .times import by_type, percentiles, rate, times
from .whole import Whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..recover import LiveWorker
    from ..tsv import Header

    Figure = dict[str, Any]

WINDOW = 86400  # seconds of which the times and the rates of success are told
_TRIES = 3  # looks, until no worker has ended during one that tells of stuck jobs
_KEPT = 1.0  # seconds for which the ages of an answer are good enough


class Figures:
    """The figures of a queue file, or of one queue or type in it; no lock is held meanwhile.

    A first look reads the whole file.  A later one reads what has changed; while nothing has, it
    costs a few stats.  It may be used by several threads.
    """

    def __init__(
        self,
        queue_file: "Queue | None" = None,
        *,
        queue: str | None = None,
        type: str | None = None,
    ) -> None:
        self.queue_file = queue_file or default_queue()
        self._only = queue, type
        self._blocks: list[Block] = []
        self._header: bytes | None = None
        self._version = ""
        self._read_at = self._looked_at = 0.0
        self._whole = Whole([], Summary(0))
        self._kinds: Kinds | None = None
        self._archived = Archived()
        self._answer: Figure = {}
        self._turn = threading.Lock()

    def version(self) -> str:
        """Return a text that is another one whenever a look may say something else.

        It sees that the process of a worker has gone, where /proc tells that; who lives is told by
        the lock, at the look.
        """
        side = self.queue_file.file.side
        stamps = [_stamp(self.queue_file.path)]
        for name in ("tick", "paused", "archive", "types"):
            stamps.append(_stamp(f"{side}/{name}"))
        try:
            names = sorted(os.listdir(f"{side}/workers"))
        except OSError:
            names = []
        for name in names:
            gone = not os.path.exists(f"/proc/{pid_of(name.rpartition('.')[0])}")
            stamps.append(f"{_stamp(f'{side}/workers/{name}')}.{gone:d}")
        return "-".join(stamps)

    def look(self) -> "Figure":
        """Return the figures as they are now: the keys that `stats` names."""
        with self._turn:
            for _ in range(_TRIES):
                version, now = self.version(), time.time()
                if now < self._read_at:  # the clock was set back: what was left out counts again
                    self._blocks, self._version = [], ""
                if version != self._version or not self._answer:
                    self._read(now)
                    self._version, self._read_at = version, now
                elif 0 <= now - self._looked_at < _KEPT:
                    return self._answer
                answer = self._figures(now)
                if not answer[STUCK] or self.version() == version:
                    break  # else a worker may have ended since its rows were read
            self._answer, self._looked_at = answer, now
            return self._answer

    def count(
        self, status: str | None = None, type: str | None = None, queue: str | None = None
    ) -> int:
        """Return how many jobs have these values, one of the five statuses; no row is read."""
        if status not in (None, *STATUSES):
            raise BadArgument(f"status={status!r:.80} is none of {', '.join(STATUSES)}")
        self.look()
        queue = None if queue is None else escape(queue)
        wanted = [None if one is None else one.encode() for one in (queue, type, status)]
        wanted[0] = None if wanted[0] is None else plain(wanted[0])
        return sum(
            count
            for key, count in self._whole.counts.items()
            if all(one in (None, cell) for one, cell in zip(wanted, key, strict=True))
        )

    # --- series and groups, of what the last look has seen

    def errors(self, limit: int = 20) -> "list[Figure]":
        """Return the failed jobs grouped by type and first line of their error, most first.

        Each is {"type", "error", "jobs", "first", "last", "ids"}: Unix times, and at most three
        ids, the newest first.
        """
        self.look()
        found = sorted(
            self._whole.errors.items(), key=lambda item: (-item[1].jobs, -item[1].last, item[0])
        )
        return [
            {"type": type, "error": error, "jobs": one.jobs, "first": one.first, "last": one.last,
             "ids": [id for _, id in one.newest]}
            for (type, error), one in found[:limit]
        ]  # fmt: skip

    def throughput(self, minutes: int = 60) -> list[tuple[int, int, int]]:
        """Return (Unix time of a minute, completed, failed) of the last minutes, the last first."""
        self.look()
        told = self._whole.minutes
        return [(at * 60, *told.get(at, (0, 0))) for at in _minutes(minutes)]

    def waiting(self, minutes: int = 60) -> list[tuple[int, int]]:
        """Return (Unix time of a minute, jobs that were due and not begun at its end)."""
        self.look()
        counts = sorted(self._whole.queued.items())
        found, level, place = [], 0, 0
        for at in _minutes(minutes):
            while place < len(counts) and counts[place][0] <= at:
                level += counts[place][1]
                place += 1
            found.append((at * 60, max(0, level)))
        return found

    def waits(self, minutes: int = 60) -> "list[tuple[int, float, float] | None]":
        """Return (Unix time of a minute, p50, p95 of the seconds waited) of the jobs that began
        then; None for a minute in which none did.
        """
        self.look()
        by_minute: dict[int, list[float]] = {}
        for _, begun, waited, _ in self._whole.ended(time.time() - WINDOW)[0]:
            if waited >= 0:
                by_minute.setdefault(int(begun) // 60, []).append(waited)
        return [
            (at * 60, *percentiles(sorted(by_minute[at]))) if at in by_minute else None
            for at in _minutes(minutes)
        ]

    def load(self, hours: int = 24) -> list[tuple[int, int]]:
        """Return (Unix time of an hour, pending jobs whose time comes in it), from this hour on."""
        self.look()
        first = int(time.time()) // 3600
        told = self._whole.hours
        return [(at * 3600, told.get(at, 0)) for at in range(first, first + hours)]

    # --- reading

    def _read(self, now: float) -> None:
        file = self.queue_file.file
        queue, type = self._only
        since = now - WINDOW

        def read(block: bytes, header: "Header") -> Summary:
            return Summary(since, queue, type).read(block, header)

        lines = _journals(self.queue_file)  # before the file: what is folded now stands there
        try:
            fd = open_queue(file.path)
        except FileNotFoundError:
            self._blocks, self._header = [], None
        except OSError as error:
            raise QueueError(f"{file.path}: cannot be read: {error.strerror}") from error
        else:
            try:
                header = read_header(fd, file.path)
                same = header is not None and header.line == self._header
                known = self._blocks if same else []
                self._blocks = look(fd, header, known, read) if header else []
                self._header = header.line if header else None
            except OSError as error:
                raise QueueError(f"{file.path}: cannot be read: {error.strerror}") from error
            finally:
                close_quietly(fd)
        running = Summary(since, queue, type)
        for block in self._blocks:
            for job in block.summary.running:
                worker, k = worker_of(job)
                job, ended = overlay(job, lines.get(worker, ()), k)
                if ended and job.cells[3] != PROCESSING:
                    running.add(job.cells, job.header, places_of(job.header))
                else:
                    running.running.append(job)
        self._whole = Whole([block.summary for block in self._blocks], running.settled())
        self._kinds = None

    # --- telling

    def _figures(self, now: float) -> "Figure":
        whole, file = self._whole, self.queue_file
        live = _live(file)
        kinds = {name: 0 for name in KINDS}
        by_queue: dict[str, Figure] = {}
        statuses = dict.fromkeys(STATUSES, 0)
        queues: dict[str, dict[str, int]] = {}
        types: dict[str, dict[str, int]] = {}
        for (label, type, status), count in whole.counts.items():
            statuses[status.decode()] += count
            for table, name in ((queues, name_of(label)), (types, type.decode())):
                line = table.setdefault(name, dict.fromkeys(STATUSES, 0))
                line[status.decode()] += count
        for name in queues:
            by_queue[name] = {**dict.fromkeys(KINDS, 0), "processing": 0, "oldest_due_age": None}
        self._count_pending(now, by_queue)
        for job in whole.running:
            lost = live is not None and worker_of(job)[0] not in {one.id for one in live}
            stuck = lost and not job.is_elsewhere
            by_queue[job.queue][STUCK if stuck else "processing"] += 1
        for told in by_queue.values():
            for kind in kinds:
                kinds[kind] += told[kind]
        ages = [age for told in by_queue.values() if (age := told["oldest_due_age"]) is not None]
        rows, names = whole.ended(now - WINDOW)
        archived = self._archived.count(file.file) if self._only == (None, None) else {}
        of_archive = sum(archived.values())
        failed = statuses["failed"] + archived.get("failed", 0)
        return {
            "file": file.path,
            "jobs": sum(statuses.values()),
            "statuses": statuses,
            **kinds,
            "oldest_due_age": max(ages) if ages else None,
            "last_tick_age": last_tick_age(file),
            "workers": None if live is None else len(live),
            "paused": _paused(file, self._only[0]),
            "queues": dict(sorted(queues.items())),
            "types": dict(sorted(types.items())),
            "processed": statuses["completed"] + archived.get("completed", 0) + failed,
            "failed_ever": failed,
            "archived": of_archive,
            "uptime": round(max([now - one.started_at for one in live or ()], default=0.0), 3),
            "window": WINDOW,
            "success_rate": rate([status for _, status in names]),
            "run_time": times([row[3] for row in rows]),
            "wait_time": times([row[2] for row in rows if row[2] >= 0]),
            "rate": round(sum(map(sum, self._last_hour(now))) / 60, 3),
            "by_queue": dict(sorted(by_queue.items())),
            "by_type": by_type(rows, names),
            "by_worker": [self._worker(one, now) for one in live or ()],
            "bad_lines": whole.bad,
        }

    def _count_pending(self, now: float, by_queue: "dict[str, Figure]") -> None:
        """Count the pending jobs of each queue by kind."""
        oldest: dict[str, int] = {}
        for label, parts in self._whole.pending.items():
            name = name_of(label)
            for part in parts:
                due, scheduled, retrying, since = part.at(now)
                for kind, count in ((DUE, due), (SCHEDULED, scheduled), (RETRYING, retrying)):
                    by_queue[name][kind] += count
                if due:
                    oldest[name] = min(oldest.get(name, since), since)
        if self._whole.linked:
            kinds = self._kinds
            if kinds is None:
                kinds = self._kinds = Kinds(self.queue_file, now)
                kinds.read({cell for cell, *_ in self._whole.linked})
            for cell, run_at, attempts, at_once, label in self._whole.linked:
                name = name_of(label)
                due = at_once or run_at <= now
                kind = timed(due, attempts) if kinds.is_met(cell) else WAITING
                by_queue[name][kind] += 1
                if kind == DUE:
                    oldest[name] = min(oldest.get(name, run_at), run_at)
        for name, since in oldest.items():
            by_queue[name]["oldest_due_age"] = round(max(0.0, now - since), 3)

    def _last_hour(self, now: float) -> list[list[int]]:
        first = int(now) // 60 - 59
        return [told for at, told in self._whole.minutes.items() if at >= first]

    def _worker(self, live: "LiveWorker", now: float) -> "Figure":
        jobs, seconds = self._whole.workers.get(live.id.encode(), (0, 0.0))
        seconds += sum(max(0.0, now - since) for since in live.jobs.values())
        age = max(now - live.started_at, 0.001)
        return {
            "id": live.id, "name": live.name, "pid": live.pid, "since": live.started_at,
            "queues": live.queues, "types": live.types, "running": dict(live.jobs),
            "jobs": int(jobs), "busy": round(min(1.0, seconds / age), 3),
        }  # fmt: skip


def _minutes(count: int) -> range:
    last = int(time.time()) // 60
    return range(last - count + 1, last + 1)


# --- what may not be there


def _stamp(path: str) -> str:
    try:
        return ".".join(f"{one:x}" for one in stamp_of(os.stat(path)))
    except OSError:
        return "0"


def _journals(queue: Queue) -> "dict[str, Any]":
    folder = queue.file.side + "/workers"
    try:
        return all_lines(queue.file.side)
    except OSError as error:
        raise QueueError(f"{folder}: cannot be read: {error.strerror}") from error


def _live(queue: Queue) -> "list[LiveWorker] | None":
    try:
        return queue.workers()
    except (QueueError, OSError):
        return None


def _paused(file: Queue, queue: str | None) -> list[str] | None:
    try:
        return [label for label in sorted(admit.paused(file.file)) if queue in (None, label)]
    except QueueError:
        return None
