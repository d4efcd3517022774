"""Which rows to run next: one look at the whole file, kept for as long as the file is the one we
wrote ourselves.

A byte regex leaves out pending rows that are plainly for later, so a million of them cost one pass
over bytes.
"""

import os
import re
import time
from bisect import bisect_left

from .after import named
from .due import AT, KIND, KINDS, Due
from .edit import Edit
from .errors import QueueError
from .files import blocks, close_own, identity, stamp_of
from .hint import NEVER_DUE, TRUSTED, Hint
from .job import Job, is_due, whole
from .lookup import lines_with
from .tsv import PENDING, PROCESSING, Header, row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Wants = Callable[[str, str], int | None]  # (type, queue) -> rank, None when the row is not ours

_PRINT = 256  # the last bytes by which a file is known again
_TICKETS = 10_000  # to remember


class Stale(QueueError):
    """A row is not what the kept look said: look at the whole file again."""


class Look:
    """What one look found: `due` tickets in order, other rows that matter, the next time."""

    def __init__(self, wants: "Wants", aging: "Mapping[str, float]") -> None:
        self._wants = wants
        self._aging = aging
        self._tickets: dict[tuple[bytes, ...], int | None] = {}  # by type, run_at, queue, priority
        self._kinds: dict[tuple[bytes, bytes], int] = {}  # a number for each type in each queue
        self.due = Due()
        self.passed = 0  # tickets of kinds that were left
        self.waiting: dict[bytes, Job] = {}
        self.processing: dict[bytes, Job] = {}
        self.twins: list[Job] = []  # further processing rows with an id that is among those
        self.to_weigh: set[bytes] = set()  # ids of waiting rows for which something has changed
        self._children: dict[str, list[bytes]] = {}  # who waits for a job or for an @group
        self.bad, self.bad_at = b"", 0  # the first line that looked due and is no row
        self.ready = 0  # rows whose `after` is met, and which were left all the same
        self.for_others = False  # rows are due that this worker does not run
        self.bound = NEVER_DUE  # when the first of the rows is due that are neither due nor waiting
        self.stamp: tuple[int, int, int] | None = None  # of the file when this look was kept
        self.at = 0
        self.full_at = 0
        self._pin = -1
        self._own: tuple[int, int] | None = None
        self._print = b""

    def close(self) -> None:
        """Take this look for outdated."""
        close_own(self._pin, self._own)
        self._pin = -1
        self.stamp = None

    def holds(self, edit: Edit, fd: int) -> bool:
        """Whether the file is still the one we looked at, perhaps with rows added."""
        if self._pin < 0:
            return False
        if identity(self._pin) != self._own or identity(fd) != self._own or edit.size < self.at:
            return False
        if edit.size == self.at and stamp_of(edit.seen) != self.stamp:
            return False  # written in place, without the lock
        if not 0 <= time.time() - self.full_at < TRUSTED:
            return False
        return os.pread(fd, len(self._print), self.at - len(self._print)) == self._print

    def keep(self, edit: Edit, path: str, fd: int) -> None:
        """After a commit: follow the rows to where it put them, and remember which file this is
        about.

        The open descriptor keeps the file's inode from being used again.
        """
        self.close()
        if edit.widened:
            return
        starts, shifts = edit.moves()
        if starts:
            self._move(starts, shifts)
        self.at = edit.size + shifts[-1]
        self._print = os.pread(fd, min(_PRINT, self.at), self.at - min(_PRINT, self.at))
        self._pin = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._own = identity(self._pin)
        self.stamp = stamp_of(os.fstat(fd))

    def take(self, edit: Edit, fd: int, now: float) -> None:
        """Look at what was added since; from the beginning at first."""
        if not self.at:
            self.at = edit.start
            self.full_at = int(now)
        elif self.at < edit.size:  # a new row may belong to a group
            for name, ids in self._children.items():
                self.to_weigh.update(ids if name.startswith("@") else ())
        self.due.add(self._scan(fd, edit, self.at, edit.size, now))
        self.at = edit.size

    def _scan(self, fd: int, edit: Edit, start: int, stop: int, now: float) -> list[int]:
        tickets: list[int] = []
        limit = int(now)
        spare = edit.header.width - 7  # columns that are empty in a new row
        pattern = _not_for_later(max(limit, self.bound - 1), spare)
        step, after = 1, edit.header.index.get("after")
        for offset, block in blocks(fd, start, stop):
            for begin, end in lines_with(block, (b"\tprocessing\t",)):
                cells = row(block[begin:end], edit.header)
                if cells is not None and cells[3] == PROCESSING:
                    self._hold(Job(cells, edit.header, offset + begin, end - begin + 1))
            found = pattern.search(block)
            while found:
                at = found.start()
                begin = block.rfind(b"\n", 0, at) + 1
                if found[2] and (first := self._new_at_0(block[begin:at], found[2])):
                    tickets.append(first | offset + begin << KIND)
                    found = pattern.search(block, found.end())
                    continue
                end = block.find(b"\n", at)
                cells = row(block[begin:end], edit.header)
                if cells is None and not self.bad:
                    self.bad, self.bad_at = block[begin:end], offset + begin
                elif cells is None or cells[3] != PENDING:
                    pass
                elif after is not None and cells[after]:
                    self.wait(Job(cells, edit.header, offset + begin, end - begin + 1))
                elif is_due(cells, now):
                    ticket = self._ticket(cells, edit.header, offset + begin)
                    if ticket is not None:
                        tickets.append(ticket)
                elif whole(cells[5]) < self.bound:
                    # coarse, so that falling times need few new patterns
                    self.bound = max(limit + 1, whole(cells[5]) - step)
                    step = min(step * 2, 3600)
                    pattern = _not_for_later(max(limit, self.bound - 1), spare)
                found = pattern.search(block, end)
        return tickets

    def _hold(self, job: Job) -> None:
        """Take in a row that is processing."""
        if job.cells[0] in self.processing:
            self.twins.append(job)
        else:
            self.processing[job.cells[0]] = job

    def ticket(self, job: Job) -> int | None:
        """Return a due row's place in the order as one number, None when it is not for us."""
        return self._ticket(job.cells, job.header, job.at)

    def _ticket(self, cells: list[bytes], header: Header, at: int) -> int | None:
        kind = header.kind_of(cells)
        ticket = self._tickets.get(kind, -1)
        if ticket == -1:
            if len(self._tickets) > _TICKETS:
                self._tickets.clear()
            ticket = self._tickets[kind] = self._ticket_at_0(Job(cells, header))
        if ticket is None:
            self.for_others = True
            return None
        return ticket | at << KIND

    def _new_at_0(self, start: bytes, run_at: bytes) -> int | None:
        """Return the ticket, as at position 0, of a row with nothing but an id, a type and a
        payload, and due at once.

        None where it is to be read as any other row is: it is odd, or the first one of its kind.
        """
        cells = start.split(b"\t")
        if len(cells) == 3 and cells[0] and start.isascii() and b"\0" not in start:
            return self._tickets.get((cells[1], run_at, b"", b""))
        return None

    def _ticket_at_0(self, job: Job) -> int | None:
        """Return a due row's ticket, but for its position."""
        rank = self._wants(job.type, job.queue)
        if rank is None:
            return None
        priority, run_at = job.priority, job.run_at
        if self._aging and (aging := self._aging.get(job.queue)):
            priority, run_at = 0, max(0, int(run_at + aging * priority))
        level = max(1, min(priority + (1 << 32), (1 << 33) - 1))
        key = (rank << 33 | level) << 40 | max(0, min(run_at, (1 << 40) - 1))
        kind = self._kinds.setdefault((job.cells[1], job.raw("queue")), len(self._kinds) + 1)
        return key << AT | (kind if kind <= KINDS else 0)

    def leave_kind(self, job: Job, left: set[int]) -> None:
        """Let what goes through `claimable` leave the other rows of this type and queue."""
        kind = self._kinds.get((job.cells[1], job.raw("queue")), 0)
        if 0 < kind <= KINDS:
            left.add(kind)

    def wait(self, job: Job) -> None:
        """Take in a row that waits for others."""
        id = job.cells[0]
        if id in self.waiting:  # a copied line: its turn comes with a new look
            self.bound = min(self.bound, int(time.time()) + 1)
        else:
            for name in named(job.cell("after")):
                self._children.setdefault(name, []).append(id)
            self.waiting[id] = job
            self.to_weigh.add(id)

    def weigh_children(self, job: Job) -> None:
        """A job has changed: weigh again who waits for it, or for its group."""
        if self._children:
            self.to_weigh.update(self._children.get(job.id, ()))
            self.to_weigh.update(self._children.get(f"@{job.cell('group')}", ()))

    def weighed(self) -> list[Job]:
        """Return the waiting rows for which something has changed, once."""
        ids, self.to_weigh = self.to_weigh, set()
        return [self.waiting[id] for id in ids if id in self.waiting]

    def add(self, job: Job) -> None:
        """Take a row that has become due into the order."""
        ticket = self.ticket(job)
        if ticket is not None:
            self.due.add([ticket])

    def claimable(
        self, edit: Edit, fd: int, now: float, left: set[int]
    ) -> "Iterator[tuple[int, int, Job]]":
        """Yield key and position of a ticket, and its row, in order, but for the kinds that are
        `left`, which may grow meanwhile; Stale when a row was changed.
        """
        header, block, start = edit.header, b"", 0  # a block that begins before a row
        self.passed = 0
        for key, spot in self.due.in_order():
            if left and spot & KINDS in left:
                self.passed += 1
                continue
            place = spot >> KIND
            job = edit.changed(place)
            if job is not None:
                job = job.copy()
            else:
                end = block.find(b"\n", place - start) if start < place else -1
                if end < 0:
                    start, block, end = _read_row(fd, place, near=0 < place - start <= len(block))
                line = block[place - start : end]
                cells = row(line, header) if end > 0 and block[place - start - 1] == 10 else None
                if cells is not None:
                    job = Job(cells, header, place, len(line) + 1)
            if job is None or job.cells[3] != PENDING or not is_due(job.cells, now):
                raise Stale(f"{edit.path}: rows were changed in place, without the lock")
            yield key, place, job

    def _move(self, starts: list[int], shifts: list[int]) -> None:
        self.due.move(starts, shifts)
        for job in (*self.waiting.values(), *self.processing.values()):
            number = bisect_left(starts, job.at)
            if number < len(starts) and starts[number] == job.at:
                job.size += shifts[number + 1] - shifts[number]
            job.at += shifts[number]

    def hint(self, fd: int, last_id: str) -> Hint:
        """Return what an idle tick needs to know of the file as it is now."""
        st = os.fstat(fd)
        bound = 0 if self.due or self.ready or self.for_others else self.bound
        return Hint(
            st.st_ino,
            st.st_size,
            st.st_mtime_ns,
            self.full_at,
            bound,
            len(self.waiting),
            len(self.processing),
            last_id,
        )


def _read_row(fd: int, at: int, *, near: bool) -> tuple[int, bytes, int]:
    """Return the start of a block from before a row on, the block, where the line ends in it or -1;
    `near` the last one a large block, since mostly the order is the file's.
    """
    start, reach = at - 1, 1 << 18 if near else 1 << 12
    while True:
        block = os.pread(fd, reach, start)
        end = block.find(b"\n", 1)
        if end >= 0 or len(block) < reach:
            return start, block, end
        reach *= 4


def _not_for_later(limit: int, spare: int) -> "re.Pattern[bytes]":
    """Return what finds pending rows, but for those that are plainly not due by a limit and wait
    for no other: with a whole run_at above it that is not created_at, and no `:` in what follows.

    Group 2 is the run_at of a row that is as new as `enqueue` makes it, to be run at once.
    """
    later = rb"(\d+)\t(?!\1\t)(?:%b)\t\d+\t*(?:\n|[^:\n]*\n)" % _above(limit).encode()
    return re.compile(rb"\tpending\t(?!%b)(?:(\d{1,20})\t\2\t0\t{%d}(?=\n))?" % (later, spare))


def _above(limit: int) -> str:
    """Return a regex for the whole numbers above a limit, without leading zeros."""
    if limit >= NEVER_DUE - 1:
        return "(?!)"
    form = "(?!)"
    for rest, digit in enumerate(reversed(str(limit))):
        same = digit + form
        form = f"(?:{same}|[{int(digit) + 1}-9]\\d{{{rest}}})" if digit != "9" else same
    return rf"{form}|\d{{{len(str(limit)) + 1},}}"
