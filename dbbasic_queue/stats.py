"""The figures of a queue, computed from its rows at each call: nothing is stored a second time.

Pending jobs are of four kinds, each job of exactly one: *waiting* for other jobs, *due*, and, where
the time has not come, *retrying* after an attempt or *scheduled*.
"""

import os
import time

from . import admit, after
from .errors import QueueError
from .queue import Queue, default_queue
from .tsv import PENDING, STATUSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .job import Job

    Counts = dict[str, dict[str, int]]


class _Kinds:
    """The pending jobs by kind."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.counts = {"due": 0, "scheduled": 0, "retrying": 0, "waiting": 0}
        self.oldest_due = 0.0  # seconds
        self.linked: list[tuple[str, int, int, bool]] = []  # of those with `after`

    def note(self, job: "Job") -> None:
        after_cell = job.cell("after")
        if after_cell:
            self.linked.append((after_cell, job.run_at, job.attempts, job.is_due(self.now)))
        else:
            self._add(job.run_at, job.attempts, job.is_due(self.now))

    def _add(self, run_at: int, attempts: int, due: bool) -> None:
        if due:
            self.counts["due"] += 1
            self.oldest_due = max(self.oldest_due, self.now - run_at)
        else:
            self.counts["retrying" if attempts else "scheduled"] += 1

    def settle(self, file: Queue) -> None:
        """Tell the linked jobs that still wait from those whose condition is met."""
        met = _met(file, {cell for cell, *_ in self.linked})
        for cell, run_at, attempts, due in self.linked:
            if cell in met:
                self._add(run_at, attempts, due)
            else:
                self.counts["waiting"] += 1


def stats(
    *, queue: str | None = None, type: str | None = None, queue_file: Queue | None = None
) -> "dict[str, Any]":
    """Return the figures of a queue file, or of one queue or type in it; no lock is held meanwhile.

    `oldest_due_age` and `last_tick_age` are seconds; None when nothing is due, or no tick has run.
    `workers` is None where it cannot be told, since the lock did not come free or is not ours;
    `paused`, the labels of paused queues, where their file cannot be read.
    """
    file = queue_file or default_queue()
    kinds = _Kinds(time.time())
    counted: dict[tuple[bytes, bytes, bytes], int] = {}
    for job in file.jobs():
        if (queue is not None and job.queue != queue) or (type is not None and job.type != type):
            continue
        cells = job.cells
        at = job.header.index.get("queue")
        key = (cells[at] if at is not None else b"", cells[1], cells[3])
        counted[key] = counted.get(key, 0) + 1
        if cells[3] == PENDING:
            kinds.note(job)
    kinds.settle(file)
    statuses = dict.fromkeys(STATUSES, 0)
    queues: Counts = {}
    types: Counts = {}
    for (label, kind, status), count in counted.items():
        name = status.decode()
        statuses[name] += count
        for table, row in ((queues, label or b"default"), (types, kind)):
            line = table.setdefault(row.decode(), dict.fromkeys(STATUSES, 0))
            line[name] += count
    return {
        "file": file.path,
        "jobs": sum(statuses.values()),
        "statuses": statuses,
        **kinds.counts,
        "oldest_due_age": round(kinds.oldest_due, 3) if kinds.counts["due"] else None,
        "last_tick_age": last_tick_age(file),
        "workers": _live(file),
        "paused": _paused(file, queue),
        "queues": dict(sorted(queues.items())),
        "types": dict(sorted(types.items())),
    }


def last_tick_age(file: Queue) -> float | None:
    """Return the seconds since a tick ended, None when none has."""
    try:
        return round(max(0.0, time.time() - os.stat(file.file.side + "/tick").st_mtime), 3)
    except OSError:
        return None


def _live(file: Queue) -> int | None:
    try:
        return len(file.workers())
    except (QueueError, OSError):
        return None


def _paused(file: Queue, queue: str | None) -> list[str] | None:
    try:
        return [label for label in sorted(admit.paused(file.file)) if queue in (None, label)]
    except QueueError:
        return None


def _met(file: Queue, cells: set[str]) -> set[str]:
    """Return those `after` cells whose conditions hold now."""
    ids: dict[str, str | None] = {}
    groups: dict[str, after.GroupCount] = {}
    for cell in cells:
        for condition in _conditions(cell):
            ids.update(dict.fromkeys(condition.ids))
            if condition.group:
                groups[condition.group] = after.GroupCount(any=False, open=False, notok=0)
    if not ids and not groups:
        return set()
    for job in file.jobs():
        if job.id in ids:
            ids[job.id] = job.status
        members = groups.get(job.group or "")
        if members and not after.is_callback(job):
            members.any = True
            members.open = members.open or not job.finished
            members.notok += job.status in ("failed", "cancelled")
    for id in [id for id, status in ids.items() if status is None]:
        found = file.get(id)  # archived, perhaps
        ids[id] = found.status if found else None
    return {
        cell for cell in cells if after.state(cell, ids.get, groups.__getitem__)[0] == after.MET
    }


def _conditions(cell: str) -> list[after.Condition]:
    try:
        return after.parse(cell)
    except QueueError:
        return []
