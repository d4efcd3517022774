"""One edit: find rows under the lock, change them, and put the new file in the place of the old
one, or nothing.

Rows are found by searching bytes; only candidates are split into cells.  What this edit has changed
is seen by what it asks afterwards.  When it ends jobs, it also ends those that can now never run,
down the whole graph.
"""

from . import after, hint
from .add import last_id
from .disk import QueueFile
from .errors import BadArgument, DuplicateId, QueueError, UnknownJob
from .files import blocks, read_at
from .job import Job, encode, new_ids, was_made_here
from .lookup import archived, find_row, last_lines_with, lines_with
from .tsv import FINISHED, HEADER, Header, check_column, rehead, row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from .disk import Piece


AFTER = HEADER.index["after"]
_AT_ONCE = 1000  # changed lines that are put together


class Edit:
    """`with queue.edit() as e:` holds the lock; a body that raises changes nothing.

    The body must be quick and must not call verbs of the same queue: that is a QueueBusy.
    """

    def __init__(
        self, file: QueueFile, timeout: float, *, durable: bool = True, create: bool = True
    ) -> None:
        self._file = file
        self.path = file.path
        self._timeout = timeout
        self._durable = durable
        self._create = create
        self._changed: dict[int, Job | None] = {}  # by offset; None is a removed row
        self._removed: dict[int, int] = {}  # sizes of removed rows, by offset
        self._moves: tuple[list[int], list[int]] = ([], [0])
        self.added: list[Job] = []
        self._by_id: dict[bytes, Job | None] = {}
        self._groups = after.Groups()
        self._wanted: set[str] = set()
        self.ended = False  # a job finished or went, and others may wait for it
        self._committed = False
        self.exists = False
        self.size = 0
        self.last_id = ""
        self.widened = False
        self.cancelled: list[Job] = []

    def __enter__(self) -> "Edit":
        self._file.refuse_nested()
        try:
            self.exists = self._file.lock(self._timeout, create=self._create, holder=self)
            if self.exists:
                self._begin()
            return self
        except BaseException as error:
            self._file.unlock()
            if isinstance(error, OSError):
                raise QueueError(f"{self.path}: cannot be read: {error.strerror}") from error
            raise

    def _begin(self) -> None:
        self.header = self._file.header
        self.seen, last = self._file.end()
        self.size = self.seen.st_size
        self.start = len(self.header.line) + 1
        self.last_id = last_id(last) if self.size > self.start else ""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        try:
            if self.exists and kind is None and not self._committed:
                self.commit()
                if self._changed:
                    hint.carry(self._file, self.seen, self._changed.values(), self.added)
        except OSError as problem:
            raise QueueError(f"{self.path}: not changed: {problem.strerror}") from problem
        finally:
            self._file.unlock()

    # --- asking

    def get(self, id: str) -> Job | None:
        """Return the job with this id as it stands in this edit, None when the file has none."""
        if not isinstance(id, str):
            return None
        key = id.encode(errors="replace")
        return self._by_id[key] if key in self._by_id else self._find_row(key)

    def _find_row(self, id: bytes, *, everywhere: bool = True) -> Job | None:
        if not self.exists or not id or b"\t" in id or b"\n" in id:
            return None
        found = find_row(self._file.fd, id, self.start, self.size, everywhere=everywhere)
        cells = row(found[1][:-1], self.header) if found else None
        return Job(cells, self.header, found[0], len(found[1])) if found and cells else None

    def find(self, column: str, value: "Any") -> "Iterator[Job]":
        """Yield each job whose column has this value."""
        cell = encode(column, value)
        for job in self.rows((cell,) if cell else ()):
            if job.raw(column) == cell or (
                column == "queue" and not cell and job.queue == "default"
            ):
                yield job

    def scan(
        self, status: str | None = None, type: str | None = None, queue: str | None = None
    ) -> "Iterator[Job]":
        """Yield each job with these values, lazily; those that this edit changed come first."""
        for job in self.rows(
            (b"\t%b\t" % (status or type or "").encode(),) if status or type else ()
        ):
            same = status in (None, job.status) and type in (None, job.type)
            if same and queue in (None, job.queue):
                yield job

    def rows(self, needles: "Iterable[bytes]" = ()) -> "Iterator[Job]":
        """Yield each readable row whose line holds one of the needles (any row without needles)."""
        if not self.exists:
            return
        before = dict(self._changed)
        yield from [job for job in (*before.values(), *self.added) if job is not None]
        for offset, block in blocks(self._file.fd, self.start, self.size):
            for begin, end in sorted(lines_with(block, needles)):
                at = offset + begin
                if at in before:
                    continue
                if at in self._changed:
                    job = self._changed[at]
                    if job is not None:
                        yield job
                    continue
                cells = row(block[begin:end], self.header)
                if cells:
                    yield Job(cells, self.header, at, end - begin + 1)

    def status_of(self, id: str) -> str | None:
        """Return a job's status here or in the archive, None when it is in neither."""
        job = self.get(id)
        if job is not None or id.encode() in self._by_id:
            return job.status if job else None
        job = archived(self._file, id)
        return job.status if job else None

    def count_group(self, group: str) -> "after.GroupCount":
        """Count a group's members: the rows with its label whose own `after` does not name it."""
        return self._groups.count(self, group)

    def last_rows(self, needle: bytes) -> "Iterator[Job]":
        """Yield what this edit has changed, then the other rows with a needle from the end on."""
        yield from self.touched()
        for line in last_lines_with(self._file.fd, self.start, self.size, needle):
            cells = row(line, self.header)
            if cells and cells[0] not in self._by_id:
                yield Job(cells, self.header)

    # --- changing

    def change(self, job: Job, **cells: "Any") -> Job:
        """Give cells of a job new values, and return the job as it now is.

        Any `Job` names its row by its id; UnknownJob when the file has none (any more).
        """
        new = {column: encode(column, value) for column, value in cells.items()}
        now = self._present(job)
        changed = now.with_cells(new)
        if row(changed.line(changed.header)[:-1], changed.header) is None:
            raise BadArgument(f"job {job.id}: with {cells!r:.200} its row could not be read")
        return self.set(now, new)

    def _present(self, job: Job) -> Job:
        """Return a job as it now stands in this edit, whenever it was read."""
        id = job.cells[0]
        read_here = id not in self._by_id and job.at >= 0 and job.header is self.header
        if read_here and read_at(self._file.fd, job.size, job.at) == job.line(self.header):
            return job
        now = self.get(job.id)
        if now is None:
            raise UnknownJob(f"{self.path}: no row has the id {job.id}")
        return now

    def set(self, job: Job, cells: "Mapping[str, bytes]") -> Job:
        """Give a job that was read in this edit new cells, as they are to stand in the file."""
        new = job.with_cells(cells)
        if new.header is not job.header:
            wanted = new.columns_in_use() - job.header.index.keys()
            for name in wanted - HEADER.index.keys():
                check_column(name)
        return self.put(job, new)

    def touch(self, job: Job) -> None:
        """Take in that this very `Job`, an unfinished one that was read here, has new cells.

        For whoever throws its jobs away when the edit fails.
        """
        self._by_id[job.cells[0]] = self._changed[job.at] = job
        self.ended = self.ended or job.cells[3] in FINISHED
        self._groups.follow(job)

    def put(self, old: Job, new: Job) -> Job:
        """Put one version of a job in the place of another."""
        if new.cells[3] in FINISHED and old.cells[3] not in FINISHED:
            self.ended = True
        if new.header is not self.header:
            self._wanted |= new.columns_in_use() - self.header.index.keys()
        self._by_id[new.cells[0]] = new
        self._groups.take(new, old)
        if new.at < 0:
            self.added = [new if job.cells[0] == new.cells[0] else job for job in self.added]
        else:
            self._changed[new.at] = new
        return new

    def add(self, job: Job) -> str:
        """Add a job made by `new_job`, and return its id."""
        return self.add_all([job])[0]

    def add_all(self, jobs: "list[Job]") -> list[str]:
        """Add jobs in order; those without an id of their own get rising ones."""
        given = [job.cells[0] for job in jobs if job.cells[0]]
        if given:
            self._refuse_duplicates(given)
        highest = max(self.last_id, self.added[-1].id if self.added else "")
        ids = iter(new_ids(len(jobs) - len(given), highest))
        for job in jobs:
            if not job.cells[0]:
                job.cells[0] = next(ids).encode()
            if job.header is not self.header:
                used = job.columns_in_use()
                self._wanted |= used - self.header.index.keys()
                self._wanted |= used.intersection(self.header.columns[-1:])  # see `Header`
        if any(job.cells[AFTER] if job.header is HEADER else job.raw("after") for job in jobs):
            after.refuse_unknown(self, jobs)
        self._by_id.update((job.cells[0], job) for job in jobs)
        self.added += jobs
        for job in jobs:
            self._groups.take(job)
        return [job.id for job in jobs]

    def _refuse_duplicates(self, given: list[bytes]) -> None:
        if len(set(given)) < len(given):
            raise DuplicateId("the same id is given to two of these jobs")
        for id in given:
            scan = not was_made_here(id.decode())  # else its row lies where its time belongs
            if id in self._by_id or self._find_row(id, everywhere=scan):
                raise DuplicateId(f"{self.path}: a job with the id {id.decode()} is there already")

    def remove(self, job: Job) -> None:
        """Delete a job's row."""
        job = self._present(job)
        self._by_id[job.cells[0]] = None
        self._groups.take(None, job)
        self.ended = True
        if job.at < 0:
            self.added = [other for other in self.added if other.cells[0] != job.cells[0]]
        else:
            self._changed[job.at] = None
            self._removed[job.at] = job.size

    # --- the end

    def commit(self) -> None:
        """Write what was changed; without changes nothing is written."""
        if self.ended:
            after.settle(self)
        self._committed = True
        if not self._changed and not self.added:
            return
        widen = self._wanted or self._changed
        target = self.header.with_columns(self._wanted) if widen else self.header
        if self._changed or target is not self.header:
            self._file.replace(self._pieces(target), self.seen)
        else:
            rows = b"".join(job.line(target) for job in self.added)
            self._file.append(rows, durable=self._durable)
        self.widened = target is not self.header

    def give_up(self) -> None:
        """Change nothing after all."""
        self._committed = True

    def copy_to(self, fd: int) -> None:
        """Write the file as this edit would leave it to another file."""
        target = self.header.with_columns(self._wanted) if self._wanted else self.header
        self._file.write(self._pieces(target), fd)

    def _pieces(self, target: Header) -> "Iterator[Piece]":
        if target is not self.header:
            yield from self._widened(target)
            return
        at, starts, shifts = 0, sorted(self._changed), [0]
        self._moves = starts, shifts
        lines: list[bytes] = []
        for start in starts:
            if start > at or len(lines) == _AT_ONCE:
                yield b"".join(lines)
                yield at, start
                lines = []
            job = self._changed[start]
            line, size = (job.line(target), job.size) if job else (b"", self._removed[start])
            lines.append(line)
            at = start + size
            shifts.append(shifts[-1] + len(line) - size)
        yield b"".join(lines)
        yield at, self.size
        yield b"".join(job.line(target) for job in self.added)

    def _widened(self, target: Header) -> "Iterator[Piece]":
        """Give each line its new cells; a line that is not a row stays as it is."""
        yield target.line + b"\n"
        for offset, block in blocks(self._file.fd, self.start, self.size):
            lines, at = [], offset
            for line in block.split(b"\n")[:-1]:
                if at not in self._changed:
                    lines.append(rehead(line, self.header, target) + b"\n")
                elif (job := self._changed[at]) is not None:
                    lines.append(job.line(target))
                at += len(line) + 1
            yield b"".join(lines)
        yield b"".join(job.line(target) for job in self.added)

    def touched(self) -> list[Job]:
        """Return the jobs that this edit has changed or added, as they now are."""
        return [job for job in self._by_id.values() if job is not None]

    def changed(self, at: int) -> Job | None:
        """Return the row at an offset as this edit has changed it, None when it has not."""
        return self._changed.get(at)

    def moves(self) -> "tuple[list[int], list[int]]":
        """After a commit (starts, shifts): `at` has moved by `shifts[bisect_left(starts, at)]`."""
        return self._moves
