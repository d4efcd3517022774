"""The file, its header, and every line in it."""

import os
import stat
import time

from .. import after
from ..errors import BadArgument, ForeignFile
from ..files import blocks, read_header
from ..job import Job
from ..journal import worker_of
from ..new import parse_backoff
from ..queue import Queue
from ..tsv import COLUMNS, CONTRACT, STATUSES, Header, row, split, visible
from .finding import NOTE, OK, PROBLEM, UNKNOWN, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN = 80  # characters of a bad line
_BOMS = {b"\xef\xbb\xbf": "UTF-8 with a byte order mark", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Lines:
    """What the lines say that others look at later."""

    def __init__(self) -> None:
        self.is_queue = False  # a file with a queue's header
        self.rows = 0
        self.held: dict[str, list[Job]] = {}  # processing jobs by worker
        self.due = 0
        self.oldest_due = 0.0  # seconds


def look_at_file(queue: Queue, seen: Lines) -> "Iterator[Finding]":
    """Look at the file and, if it is a queue, at every line."""
    path = queue.path
    try:
        st = os.stat(path)
    except FileNotFoundError:
        link = f", but a link to {os.readlink(path)}" if os.path.islink(path) else ""
        yield Finding(PROBLEM, "file", f"{path}: there is no such file{link}",
                      "if jobs were added, it was to another file: say --file PATH, or set DBBASIC_QUEUE; "
                      "else the first enqueue makes it")  # fmt: skip
        return
    except OSError as error:
        yield _closed(path, error)
        return
    if not stat.S_ISREG(st.st_mode):
        kind = "a folder" if stat.S_ISDIR(st.st_mode) else "no regular file"
        yield Finding(PROBLEM, "file", f"{path}: is {kind}", "name the file itself")
        return
    if st.st_nlink > 1:
        yield Finding(PROBLEM, "file", f"{path}: has {st.st_nlink} hard links; edits are refused",
                      f"remove the others: find / -xdev -samefile {path}")  # fmt: skip
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        yield _closed(path, error)
        return
    try:
        yield from _look(fd, path, st.st_size, seen)
    except OSError as error:
        yield _closed(path, error)
    finally:
        os.close(fd)


def _closed(path: str, error: OSError) -> Finding:
    return Finding(UNKNOWN, "file", f"{path}: cannot be read: {error.strerror}",
                   "look as a user who may read it")  # fmt: skip


def _look(fd: int, path: str, size: int, seen: Lines) -> "Iterator[Finding]":
    start = os.pread(fd, 3, 0)
    for mark, encoding in _BOMS.items():
        if start.startswith(mark):
            yield Finding(PROBLEM, "file", f"{path}: is {encoding}", "save it as plain UTF-8")
            return
    try:
        header = read_header(fd, path)
    except ForeignFile as error:
        yield Finding(PROBLEM, "header", str(error),
                      "it is not touched; say --file PATH if another file is meant")  # fmt: skip
        return
    seen.is_queue = True
    if header is None:
        what = "empty" if not size else "nothing but the beginning of a header"
        yield Finding(OK, "file", f"{path}: {what}; the next write makes the header")
        return
    findings = list(_look_at_lines(fd, header, size, seen))
    yield Finding(OK, "file", f"{path}: {size:,} bytes, {seen.rows:,} jobs")
    yield from _look_at_header(header)
    yield from findings


def _look_at_header(header: Header) -> "Iterator[Finding]":
    theirs = [name for name in header.columns if name not in COLUMNS]
    missing = [name for name in COLUMNS if name not in header.index]
    if theirs:
        names = ", ".join(theirs)
        yield Finding(NOTE, "header", f"columns of others, which are kept as they are: {names}")
    if missing:
        yield Finding(NOTE, "header", f"columns that the first edit will add: {', '.join(missing)}")
    if not theirs and not missing:
        yield Finding(OK, "header", f"the {header.width} columns of this version")


def _look_at_lines(fd: int, header: Header, size: int, seen: Lines) -> "Iterator[Finding]":
    number, at, highest, now = 1, len(header.line) + 1, b"", time.time()
    suspects: set[bytes] = set()  # ids that may stand twice: they do not rise
    for _, block in blocks(fd, at, size):
        for line in block.split(b"\n")[:-1]:
            number += 1
            at += len(line) + 1
            cells = row(line, header)
            if cells is None:
                yield Finding(PROBLEM, "line", f"line {number} is no job: {why_bad(line, header)}: "
                              f"{visible(line.decode(errors='replace')[:SHOWN])}",
                              "put it right in an editor, or let --mend move it out", number)  # fmt: skip
                continue
            seen.rows += 1
            if cells[0] > highest:
                highest = cells[0]
            else:
                suspects.add(cells[0])
            job = Job(cells, header)
            yield from _look_at_job(job, number)
            _note(job, seen, now)
    if at < size:
        text = visible(os.pread(fd, SHOWN * 4, at).decode(errors="replace")[:SHOWN])
        yield Finding(PROBLEM, "line", f"line {number + 1} has no newline at its end: {text}",
                      "if it is whole, add the newline; else the next write moves it to torn.tsv", number + 1)  # fmt: skip
    if suspects:
        yield from _look_for_twins(fd, header, size, suspects)


def why_bad(line: bytes, header: Header) -> str:
    """Return why a line cannot be read as a row."""
    if not line.strip():
        return "it is empty"
    if line.startswith("\t".join(CONTRACT).encode()):
        return "it is a second header"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 at byte {error.start + 1}"
    cells = split(line, header)
    if cells is None:
        nine = "" if header.width == len(CONTRACT) else f" or {len(CONTRACT)}"
        return f"it has {line.count(bytes([9])) + 1} cells instead of {header.width}{nine}"
    if not cells[0] or not cells[1]:
        return "it has no " + ("type" if cells[0] else "id")
    if cells[3].decode() not in STATUSES:
        return f"its status is {cells[3].decode()[:SHOWN]!r}"
    for at in header.numbers:
        if cells[at] or at < len(CONTRACT):
            try:
                if float(cells[at]) - float(cells[at]) == 0:
                    continue
            except ValueError:
                pass
            return f"its {header.columns[at]} is {cells[at].decode()[:SHOWN]!r}, which is no number"
    return "it ends in \\r\\n" if line.endswith(b"\r") else "it cannot be read"


def _look_at_job(job: Job, number: int) -> "Iterator[Finding]":
    name = f"line {number}, job {job.id[:SHOWN]}"
    for column in ("payload", "result"):
        try:
            getattr(job, column)
        except ValueError as error:
            then = "the job never runs" if column == "payload" else "get_job() raises"
            ends = "; the line ends in \\r\\n" if job.cells[-1].endswith(b"\r") else ""
            yield Finding(PROBLEM, "line", f"{name}: the {column} is not JSON ({error}){ends}: {then}",
                          f"put it right in an editor, or purge {job.id[:SHOWN]}", number)  # fmt: skip
    if job.status != "pending":
        return
    for column, read in (("after", after.parse), ("backoff", parse_backoff)):
        text = job.cell(column)
        try:
            if text:
                read(text)
        except BadArgument as error:
            then = "the job never runs" if column == "after" else "60 s are taken"
            yield Finding(PROBLEM, "line", f"{name}: {error}: {then}",
                          f"put it right in an editor, or cancel {job.id[:SHOWN]}", number)  # fmt: skip


def _note(job: Job, seen: Lines, now: float) -> None:
    if job.status == "processing":
        seen.held.setdefault(worker_of(job)[0], []).append(job)
    elif job.status == "pending" and not job.after and job.is_due(now):
        seen.due += 1
        seen.oldest_due = max(seen.oldest_due, now - job.run_at)


def _look_for_twins(fd: int, header: Header, size: int, suspects: set[bytes]) -> "Iterator[Finding]":
    places: dict[bytes, list[int]] = {}
    number = 1
    for _, block in blocks(fd, len(header.line) + 1, size):
        for line in block.split(b"\n")[:-1]:
            number += 1
            id = line.partition(b"\t")[0]
            if id in suspects and row(line, header):
                places.setdefault(id, []).append(number)
    for id, numbers in places.items():
        if len(numbers) > 1:
            where = ", ".join(map(str, numbers))
            yield Finding(PROBLEM, "line", f"the id {id.decode()[:SHOWN]} stands in lines {where}; only the first is found",
                          "give the others ids of their own, or remove them", numbers[1])  # fmt: skip
