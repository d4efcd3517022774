"""The kinds of jobs that are computed and never stored: of pending ones *due*, *scheduled*,
*retrying* and *waiting*, of processing ones *stuck*.

Waiting: its `after` is not met.  Where the time has not come: retrying after an attempt, else
scheduled.  Stuck: no worker lives that has it, so the next tick takes it in.
"""

import time

from . import after
from .beside import open_queue
from .errors import QueueError
from .files import close_quietly, read_header
from .journal import worker_of
from .lookup import archive_path, forwards, get, ids_in, jobs, month_of
from .tsv import PROCESSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .disk import QueueFile
    from .job import Job
    from .queue import Queue

DUE, SCHEDULED, RETRYING, WAITING, STUCK = "due", "scheduled", "retrying", "waiting", "stuck"
KINDS = (DUE, SCHEDULED, RETRYING, WAITING, STUCK)
_LOOKS = 500  # for one parent each; more are found in one pass through the file
_GROUP_LOOKS = 8
_SETTLED = frozenset((b"completed", b"failed", b"cancelled", b"pending"))


class Kinds:
    """One look at what is needed besides a row; `now` is Unix time, None is the present."""

    def __init__(self, queue: "Queue", now: float | None = None) -> None:
        self._queue = queue
        self._file = queue.file
        self.now = time.time() if now is None else now
        self._met: dict[str, bool] = {}
        self._statuses: dict[str, str | None] = {}
        self._groups: dict[str, after.GroupCount] = {}
        self._live: set[str] | None = None
        self._dead: set[str] = set()

    def of(self, job: "Job") -> str:
        """Return the kind of a job that is pending or stuck, else its status."""
        status = job.status
        if status == "pending":
            cell = job.after
            if cell and not self.is_met(cell):
                return WAITING
            return timed(job.is_due(self.now), job.attempts)
        return STUCK if status == "processing" and self.is_stuck(job) else status

    def is_met(self, cell: str) -> bool:
        """Whether the conditions of an `after` cell hold."""
        if cell not in self._met:
            answer = after.state(cell, self._status, self._count)[0]
            self._met[cell] = answer == after.MET
        return self._met[cell]

    def read(self, cells: "Iterable[str]") -> None:
        """Learn what many `after` cells name in one pass, where asking for each would be slow."""
        ids = {one for cell in cells for one in after.named(cell)} - self._statuses.keys()
        groups = {one[1:] for one in ids if one.startswith("@")} - self._groups.keys()
        ids = {one for one in ids if not one.startswith("@")}
        if len(ids) > _LOOKS:
            self._statuses.update(_statuses(self._file, ids))
        if len(groups) > _GROUP_LOOKS:
            found = {name: after.GroupCount(any=False, open=False, notok=0) for name in groups}
            for job in jobs(self._file):
                _add(found.get(job.group or ""), job)
            self._groups.update(found)

    def is_stuck(self, job: "Job") -> bool:
        """Whether a processing job has no live worker; False where that cannot be told."""
        if job.is_elsewhere:
            return False
        id = worker_of(job)[0]
        if self._live is None or (id not in self._live and id not in self._dead):
            try:
                self._live = {one.id for one in self._queue.workers()}
            except (QueueError, OSError):
                return False
            if id not in self._live:
                self._dead.add(id)
        if id in self._live:
            return False
        again = get(self._file, job.id)  # its worker may have ended since the row was read
        return again is not None and again.cells[3] == PROCESSING and worker_of(again)[0] == id

    def _status(self, id: str) -> str | None:
        if id not in self._statuses:
            found = get(self._file, id)
            self._statuses[id] = found.status if found else None
        return self._statuses[id]

    def _count(self, group: str) -> after.GroupCount:
        if group not in self._groups:
            count = self._groups[group] = after.GroupCount(any=False, open=False, notok=0)
            for job in jobs(self._file, needle=b"\t%b\t" % group.encode()):
                if job.group == group:
                    _add(count, job)
        return self._groups[group]


def timed(due: bool, attempts: int) -> str:
    """Return the kind of a pending job that waits for no other."""
    return DUE if due else RETRYING if attempts else SCHEDULED


def _add(count: "after.GroupCount | None", job: "Job") -> None:
    if count is not None and not after.is_callback(job):
        count.any = True
        count.open = count.open or not job.finished
        count.notok += job.status in ("failed", "cancelled")


def _statuses(file: "QueueFile", ids: "set[str]") -> "dict[str, str | None]":
    """Return the status of many ids by one pass, None of those that are nowhere; those that run or
    are in the archive are left out.
    """
    wanted = {id.encode() for id in ids}
    missing = set(wanted)
    found: dict[str, str | None] = {}
    try:
        fd = open_queue(file.path)
    except FileNotFoundError:
        return found
    try:
        header = read_header(fd, file.path)
        for line in forwards(fd, len(header.line) + 1) if header else ():
            if line[:16] in wanted:
                missing.discard(line[:16])
                cells = line.split(b"\t", 4)
                if len(cells) == 5 and cells[3] in _SETTLED:
                    found[cells[0].decode()] = cells[3].decode()
    finally:
        close_quietly(fd)
    months = {month_of(id.decode()) for id in missing if after.is_id(id.decode())}
    for month in months:
        missing -= ids_in(archive_path(file, month), missing)
    return found | {id.decode(): None for id in missing}
