"""Upkeep in a tick, by `keep=`: old finished jobs are archived or deleted, at most once an hour.

What is old is looked for without the lock.  Where something is, one edit takes all of it out.  No
failure of it stops a job: it is logged, and tried again.
"""

import calendar
import math
import os
import re
import time

from .beside import make, open_queue, open_regular, unlink
from .edit import Edit
from .errors import BadArgument, QueueBusy, in_seconds, seconds_of
from .files import blocks, read_header, stamp_of
from .hint import TENDED, is_tended
from .job import Job, whole
from .leave import age_from, take_out, waited_for
from .log import tell, traceback_of, warn
from .lookup import archives, month_of
from .output import remove_orphans, remove_output
from .run import clock
from .tsv import row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from .disk import QueueFile
    from .queue import Listener, Queue
    from .tsv import Header

FINISHED = ("completed", "failed", "cancelled")
MOST = 50_000  # jobs of one edit, so that nobody waits long for the lock; the next edit goes on
_LOOK = 60  # seconds after which a worker that goes on looks whether it is time again
_PATIENCE = 1.0  # seconds that it waits for the lock
_OWN = "keep"  # the column in which a job has words of its own


def upkeep(
    queue: "Queue", keep: "Mapping[str, Any]", keep_by: str, listeners: "Sequence[Listener]"
) -> "Callable[[], None]":
    """Return what does the upkeep when it is due; BadArgument when `keep` or `keep_by` is wrong.

    `keep` says how long finished jobs stay, by status, and under "archive" how long archived ones
    do: 3600, timedelta(days=7), "90s", "12h", "7d", "for_ever".  A status that is not named stays.
    What a job has in its own column `keep` wins.
    """
    if not hasattr(keep, "items"):
        raise BadArgument(f"keep={keep!r:.80} is no mapping of statuses to durations")
    ages = {_checked(what): seconds(f"keep[{what!r}]", age) for what, age in keep.items()}
    if keep_by not in ("archive", "purge"):
        raise BadArgument(f"keep_by={keep_by!r:.80} is neither archive nor purge")
    event = "archived" if keep_by == "archive" else "purged"
    again = 0.0

    def tend() -> None:
        nonlocal again
        if clock() < again:
            return
        again = clock() + _LOOK
        if is_tended(queue.path) or not os.path.exists(queue.path):
            return
        try:
            gone, is_all = _tend(queue, ages, event)
        except Exception as problem:  # no reason to run no jobs
            expected = isinstance(problem, (OSError, ValueError, QueueBusy))
            text = str(problem) if expected or not listeners else traceback_of(problem)
            warn("%s: no upkeep: %s", queue.path, text)
            return
        again = again if is_all else 0.0
        tell(listeners, event, gone)

    return tend


def seconds(what: str, how_long: "Any") -> float | None:
    """Return a duration in seconds, None for for_ever; BadArgument names `what` it is not."""
    if how_long == "for_ever":
        return None
    try:
        if isinstance(how_long, str) and how_long[-1:].isdigit():
            raise BadArgument(f"{how_long!r:.80} has no unit such as s, m, h, d, w")
        return seconds_of(how_long) if isinstance(how_long, str) else in_seconds(how_long)
    except BadArgument as error:
        raise BadArgument(f"{what}={error}, or for_ever") from None


def _checked(what: "Any") -> str:
    if what not in (*FINISHED, "archive"):
        raise BadArgument(f"keep has {what!r:.80}, which is none of {', '.join(FINISHED)}, archive")
    return str(what)


def _tend(queue: "Queue", ages: "Mapping[str, float | None]", event: str) -> tuple[list[Job], bool]:
    """Do the upkeep; return the jobs that went, and whether those are all that were to go."""
    file, now = queue.file, time.time()
    old = _Old(ages, now)
    remove_orphans(file)
    months = _old_months(file, now - age) if (age := ages.get("archive")) is not None else {}
    if not months and not _is_any(queue.path, old):
        _stamp(file, now)
        return [], True
    gone: list[Job] = []
    is_all = True
    try:
        with Edit(file, min(queue.lock_timeout, _PATIENCE), create=False) as e:
            if not e.exists or is_tended(queue.path):
                return [], True  # somebody was quicker
            _stamp(file, now)
            rows = old.jobs(file.fd, e.header, e.start, e.size)
            gone = take_out(e, rows, file if event == "archived" else None, MOST)
            needed = {month_of(id) for id in waited_for(e)[0]} if months else set()
            for path, stamp in months.items():
                if os.path.basename(path)[:7] not in needed and stamp_of(os.lstat(path)) == stamp:
                    unlink(path)
            is_all = len(gone) < MOST
            if not is_all:
                _stamp(file, now - TENDED)
    except QueueBusy:
        _stamp(file, now - TENDED)
        raise
    if event == "purged":
        remove_output(file, gone)
    return gone, is_all


def _stamp(file: "QueueFile", at: float) -> None:
    """Note when the upkeep was done, as the time of a file."""
    fd = make(file.make_side() + "/upkeep", os.O_WRONLY, file.real)
    try:
        os.utime(fd, (int(at), int(at)))
    except PermissionError:  # another user's: only the present can be said
        os.utime(fd)
    finally:
        os.close(fd)


def _is_any(path: str, old: "_Old") -> bool:
    """Whether a job is old, as far as can be told without the lock."""
    try:
        fd = open_queue(path)
    except FileNotFoundError:
        return False
    try:
        header = read_header(fd, path)
        if header is None:
            return False
        start, size = len(header.line) + 1, os.fstat(fd).st_size
        return next(old.jobs(fd, header, start, size), None) is not None
    finally:
        os.close(fd)


class _Old:
    """Which finished rows are old now."""

    def __init__(self, ages: "Mapping[str, float | None]", now: float) -> None:
        self._now = now
        self._before = {  # by status: what finished before this is old
            status.encode(): -math.inf if (age := ages.get(status)) is None else now - age
            for status in FINISHED
        }
        self._latest = max(self._before.values())
        self._told = False

    def jobs(self, fd: int, header: "Header", start: int, stop: int) -> "Iterator[Job]":
        """Yield them in the order of the file.

        A row cannot have finished before it was added, and rows stand in the order of adding: the
        first one that is too young ends the look, unless jobs may have words of their own.
        """
        own = header.index.get(_OWN)
        if own is None and self._latest == -math.inf:
            return
        for offset, block in blocks(fd, start, stop):
            at = offset
            for line in block.split(b"\n")[:-1]:
                end = at + len(line) + 1
                cells = line.split(b"\t", 6 if own is None else -1)
                added = _added(cells)
                if own is None and self._latest < added <= self._now:
                    return
                words = cells[own] if own is not None and own < len(cells) else b""
                before = self._before.get(cells[3]) if len(cells) > 3 else None
                if before is not None and (words or added < before):
                    whole_row = row(line, header)
                    job = Job(whole_row, header, at, end - at) if whole_row else None
                    if job and age_from(job) < (self._own_limit(job) if words else before):
                        yield job
                at = end

    def _own_limit(self, job: Job) -> float:
        try:
            age = seconds(_OWN, job.cell(_OWN))
        except BadArgument as problem:  # rather kept than lost
            if not self._told:
                self._told = True
                warn("job %s stays: %s", job.id, str(problem))
            return -math.inf
        return -math.inf if age is None else self._now - age


def _added(cells: list[bytes]) -> float:
    """Return when a row was added; infinity when it does not say so."""
    try:
        return whole(cells[4])
    except (ValueError, OverflowError, IndexError):
        return math.inf


# --- the archive


def _old_months(file: "QueueFile", before: float) -> "dict[str, tuple[int, int, int]]":
    """Return the archive's files in which every job finished before, with what they are now."""
    found: dict[str, tuple[int, int, int]] = {}
    for path in archives(file):
        match = re.fullmatch(r"(\d{4})-(\d\d)\.tsv", os.path.basename(path), re.ASCII)
        if not match or _end_of(int(match[1]), int(match[2])) > before:
            continue
        fd = open_regular(path, os.O_RDONLY)
        try:
            stamp = stamp_of(os.fstat(fd))
            if _all_before(fd, path, before):
                found[path] = stamp
        finally:
            os.close(fd)
    return found


def _end_of(year: int, month: int) -> int:
    return calendar.timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))


def _all_before(fd: int, path: str, before: float) -> bool:
    """Whether each line is a job that finished before; what cannot be read may be younger."""
    header = read_header(fd, path)
    if header is None:
        return False
    at = len(header.line) + 1
    for offset, block in blocks(fd, at):
        at = offset + len(block)
        for line in block.split(b"\n")[:-1]:
            cells = row(line, header)
            job = Job(cells, header) if cells else None
            if job is None or age_from(job) >= before:
                return False
    return at == os.fstat(fd).st_size
