"""Reading without a lock: one row out of a long file, or all rows in order.

A rename is atomic and an unterminated last line is not a row yet, so any moment shows whole rows of
one version.  Where a row says `processing`, its worker's file is asked whether the job has ended
since.
"""

import os
import time

from .after import is_id
from .beside import NoFile, open_queue, open_regular
from .errors import BadArgument, QueueError
from .files import BLOCK, blocks, is_there, read_at, read_header
from .job import Job
from .tsv import COLUMNS, HEADER, PROCESSING, row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from .disk import QueueFile

NEAR = 1 << 12


def find_row(
    fd: int, id: bytes, start: int, stop: int, *, everywhere: bool = True
) -> tuple[int, bytes] | None:
    """Return (offset, line with its newline) of the row with this id between two line ends, or
    None.

    Rows mostly lie in the order of their ids: halve the range by byte offset, then look 64 KiB to
    each side, then everywhere.
    """
    low, high = start, stop
    while high - low > NEAR:
        middle = (low + high) // 2
        block = read_at(fd, NEAR, middle)
        at = block.find(b"\n") + 1
        key = block[at : at + 17]
        if not at or middle + at >= high or len(key) < 17:
            break
        if key[:16] <= id:
            low = middle + at
        else:
            high = middle + at
    spread = 1 << 16
    stretches = [(low, high + NEAR), (low - spread, high + spread), (start, stop)]
    for left, right in stretches if everywhere else stretches[:2]:
        found = _find_row(fd, id, max(left, start), min(right, stop), start)
        if found:
            return found
    return None


def _find_row(fd: int, id: bytes, left: int, right: int, start: int) -> tuple[int, bytes] | None:
    """Search a stretch of whole rows, with the newline before it: every row follows one."""
    needle = b"\n" + id + b"\t"
    at, rest = left - 1, b""
    while at < right:
        block = rest + read_at(fd, min(BLOCK, right - at - len(rest)), at + len(rest))
        found = block.find(needle)
        if found >= 0:
            row = at + found + 1
            line = block[found + 1 :]
            while b"\n" not in line:
                more = read_at(fd, BLOCK, row + len(line))
                if not more:
                    return None
                line += more
            return row, line[: line.index(b"\n") + 1]
        if len(block) <= len(needle):
            return None
        rest = block[-len(needle) :]
        at += len(block) - len(rest)
        if at + len(rest) >= right:
            return None
    return None


def lines_with(
    block: bytes, needles: "Iterable[bytes]"
) -> "set[tuple[int, int]] | list[tuple[int, int]]":
    """Return (begin, end) of the lines of a block that hold a needle; all without needles."""
    found = set()
    every = True
    for needle in needles:
        every = False
        at = block.find(needle)
        while at >= 0:
            line = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
            found.add(line)
            at = block.find(needle, line[1])
    if not every:
        return found
    lines, begin = [], 0
    while (end := block.find(b"\n", begin)) >= 0:
        lines.append((begin, end))
        begin = end + 1
    return lines


def last_lines_with(fd: int, start: int, stop: int, needle: bytes) -> "Iterator[bytes]":
    """Yield the whole lines between two offsets that hold a needle, the last one first."""
    reach = 1 << 20
    while stop > start:
        begin = max(start, stop - reach)
        block = read_at(fd, stop - begin, begin)
        cut = block.find(b"\n") + 1 if begin > start else 0  # before it is a line's end
        if begin > start and not 0 < cut < len(block):
            reach *= 2
            continue
        at = block.rfind(needle, cut)
        while at >= 0:
            first, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
            if end >= 0:
                yield block[first:end]
            at = block.rfind(needle, cut, first)
        stop = begin + cut


def month_of(id: str) -> str:
    """Return the month (UTC, YYYY-MM) that an id was made in."""
    return time.strftime("%Y-%m", time.gmtime(int(id[:13], 16) / 1e6))


def archive_path(file: "QueueFile", month: str) -> str:
    return os.path.join(file.side, "archive", month + ".tsv")


def archives(file: "QueueFile") -> list[str]:
    """Return the paths of the archive's months, the oldest first; [] where there is none."""
    folder = os.path.join(file.side, "archive")
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise QueueError(f"{folder}: cannot be read: {error.strerror}") from error
    return [os.path.join(folder, name) for name in names if name.endswith(".tsv")]


def archive_jobs(path: str, needle: bytes = b"") -> "Iterator[Job]":
    """Yield the jobs of one month of the archive, those in whose line the needle stands."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb", 0) as file:
        header = read_header(file.fileno(), path)
        for line in forwards(file.fileno(), len(header.line) + 1) if header else ():
            if needle in line and header and (cells := row(line, header)):
                yield Job(cells, header)


def ids_in(path: str, ids: "set[bytes]") -> "set[bytes]":
    """Return those of the ids with which a line of a file begins; none where there is no file."""
    begins, found = {id + b"\t" for id in ids}, set()
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb", 0) as file:
            for _, block in blocks(file.fileno(), 0):
                found |= begins.intersection([line[:17] for line in block.split(b"\n")])
    except FileNotFoundError:
        pass
    return {begin[:-1] for begin in found}


def archived(file: "QueueFile", id: str) -> Job | None:
    """Return a job from the archive of its month: the last line with its id."""
    if not is_id(id):
        return None
    path = archive_path(file, month_of(id))
    try:
        fd = open_regular(path, os.O_RDONLY)
    except (FileNotFoundError, NoFile):
        return None
    except OSError as error:
        raise QueueError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        header = read_header(fd, path)
        last = None
        for _, block in blocks(fd, 0) if header else ():
            at = (b"\n" + block).rfind(b"\n%b\t" % id.encode())
            if at >= 0:
                last = block[at : block.find(b"\n", at)]
        cells = row(last, header) if last and header else None
        return Job(cells, header) if cells and header else None
    finally:
        os.close(fd)


def get(file: "QueueFile", id: str) -> Job | None:
    """Return a job as it is now: its row, what its worker has written since, or the archive's."""
    while True:
        job = _read(file, id)
        if job is None or job.cells[3] != PROCESSING:
            return job or archived(file, id)
        seen, ended = _seen(file, job)
        again = None if ended else _read(file, id)
        if ended or (again is not None and again.cells == job.cells):
            return seen


def as_ended(file: "QueueFile", job: Job) -> Job:
    """Return a job as its worker says it has ended; a row of which none says so as it is."""
    seen, ended = _seen(file, job) if job.cells[3] == PROCESSING else (job, False)
    return seen if ended else job


def _seen(file: "QueueFile", job: Job) -> tuple[Job, bool]:
    """Return a processing row as its worker's file has it, and whether the job has ended there."""
    from . import journal

    worker, k = journal.worker_of(job)
    path = os.path.join(file.side, "workers", worker + ".tsv")
    try:
        lines = journal.read(path) if worker else []
    except OSError as error:
        raise QueueError(f"{path}: cannot be read: {error.strerror}") from error
    return journal.overlay(job, lines, k)


def _read(file: "QueueFile", id: str) -> Job | None:
    if not isinstance(id, str) or not id.isascii() or "\t" in id or "\n" in id:
        return None
    fd = _open(file.path)
    if fd is None:
        return None
    try:
        header = read_header(fd, file.path)
        if header is None:
            return None
        found = find_row(fd, id.encode(), len(header.line) + 1, os.fstat(fd).st_size)
        cells = row(found[1][:-1], header) if found else None
        return Job(cells, header) if cells else None
    except OSError as error:
        raise QueueError(f"{file.path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def _open(path: str) -> int | None:
    try:
        return open_queue(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise QueueError(f"{path}: cannot be read: {error.strerror}") from error


def jobs(file: "QueueFile", newest: bool = False, needle: bytes = b"") -> "Iterator[Job]":
    """Yield every job as it is now, in the order of the file or from its end; with a needle, those
    whose line holds it.
    """
    lines = {}
    folder = os.path.join(file.side, "workers")
    try:
        if is_there(folder):
            from . import journal

            lines = journal.all_lines(file.side)  # before the file: what is folded now stands there
    except OSError as error:
        raise QueueError(f"{folder}: cannot be read: {error.strerror}") from error
    fd = _open(file.path)
    if fd is None:
        return
    try:
        header = read_header(fd, file.path) or HEADER
        start = len(header.line) + 1
        for line in backwards(fd, start) if newest else forwards(fd, start, needle):
            cells = row(line, header) if needle in line else None
            if cells is None:
                continue
            job = Job(cells, header)
            if lines and cells[3] == PROCESSING:
                worker, k = journal.worker_of(job)
                job, _ = journal.overlay(job, lines.get(worker, ()), k)
            yield job
    except OSError as error:
        raise QueueError(f"{file.path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def select(
    file: "QueueFile",
    status: str | None,
    type: str | None,
    queue: str | None,
    worker: str | None,
    newest: bool,
    limit: int | None,
) -> "Iterator[Job]":
    """Yield the jobs with these values; see `Queue.jobs`."""
    if limit == 0:
        return
    for job in jobs(file, newest):
        if (status is not None and job.status != status) or (type is not None and job.type != type):
            continue
        if queue is not None and job.queue != queue:
            continue
        if worker is not None and not (job.worker or "").startswith((worker + ".", worker + "-")):
            continue
        yield job
        limit = None if limit is None else limit - 1
        if limit == 0:
            return


def forwards(fd: int, start: int, needle: bytes = b"") -> "Iterator[bytes]":
    """Yield the whole lines from an offset on, with a needle those that hold it."""
    for _, block in blocks(fd, start):
        if not needle:
            yield from block.split(b"\n")[:-1]
        else:
            yield from (block[a:b] for a, b in sorted(lines_with(block, (needle,))))


def backwards(fd: int, start: int) -> "Iterator[bytes]":
    """Yield the whole lines from the last one back to an offset."""
    stop = os.fstat(fd).st_size
    rest = b""  # the end of a line whose beginning is not read yet
    whole = False  # what follows the last newline is not a row yet
    while stop > start:
        begin = max(start, stop - (1 << 16))
        first, *lines = (read_at(fd, stop - begin, begin) + rest).split(b"\n")
        stop, rest = begin, first
        if lines and not whole:
            lines.pop()
            lines, whole = [*lines], True
            if not lines:
                rest = first
        yield from reversed(lines)
    if whole and rest:
        yield rest


# --- counting

COUNTABLE = {"finished", *COLUMNS} - {"payload", "result"}


def counts(file: "QueueFile", columns: "Sequence[str]") -> "dict[Any, int]":
    """Count the jobs by the values of some columns; see `Queue.counts`."""
    if unknown := set(columns) - COUNTABLE:
        raise BadArgument(f"counts({unknown.pop()!r}): none of {', '.join(sorted(COUNTABLE))}")
    found: dict[Any, int] = {}
    for job in jobs(file):
        values = tuple(getattr(job, name) for name in columns)
        key = values if len(values) > 1 else values[0]
        found[key] = found.get(key, 0) + 1
    return found
