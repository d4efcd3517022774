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
from ..redact import HIDDEN, hides_lines
from ..tsv import COLUMNS, CONTRACT, STATUSES, Header, row, split, visible
from .finding import Finding, note, ok, problem, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN = 80  # characters of a bad line
# Columns that features bring.
OURS = (
    "unique", "about", "on_failure", "cpu_seconds", "peak_mb", "signature", "sensitive", "steps",
    "checkpoint", "progress", "errors", "tags", "needs", "expires_at", "keep", "traceback",
    "task_errors",
)  # fmt: skip
EDITOR = "put it right in an editor"
_MARKS = {
    b"\xef\xbb\xbf": "UTF-8 with a byte order mark",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class Lines:
    """What the lines say that is looked at later."""

    def __init__(self) -> None:
        self.is_queue = False  # a file with a queue's header, or an empty one
        self.has_header = False
        self.locked = False  # somebody holds the lock, or we may not ask
        self.rows = 0
        self.held: dict[str, list[Job]] = {}  # processing jobs by worker
        self.due = 0
        self.due_in: dict[str, int] = {}  # by queue
        self.oldest_due = 0.0  # seconds


def look_at_file(queue: Queue, seen: Lines) -> "Iterator[Finding]":
    """Look at the file and, if it is a queue, at every line."""
    path = queue.path
    try:
        st = os.stat(path)
        if not stat.S_ISREG(st.st_mode):
            kind = "a folder" if stat.S_ISDIR(st.st_mode) else "no regular file"
            yield problem("file", f"{path}: is {kind}", "name the file itself")
            return
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        link = f", but a link to {os.readlink(path)}" if os.path.islink(path) else ""
        yield problem(
            "file",
            f"{path}: there is no such file{link}",
            "if jobs were added, another file is meant: say --file PATH, or set DBBASIC_QUEUE;"
            " else the first enqueue makes it",
        )
        return
    except OSError as error:
        yield _closed(path, error)
        return
    try:
        yield from _look(fd, path, st, seen)
    except OSError as error:
        yield _closed(path, error)
    finally:
        os.close(fd)


def _closed(path: str, error: OSError) -> Finding:
    return unknown(
        "file", f"{path}: cannot be read: {error.strerror}", "look as a user who may read it"
    )


def _look(fd: int, path: str, st: os.stat_result, seen: Lines) -> "Iterator[Finding]":
    start = os.pread(fd, 3, 0)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            yield problem("file", f"{path}: is {encoding}", "save it as plain UTF-8")
            return
    try:
        header = read_header(fd, path)
    except ForeignFile as error:
        yield problem("header", str(error), "say --file PATH if another file is meant")
        return
    seen.is_queue, seen.has_header = True, header is not None
    if header is None:
        what = "empty" if not st.st_size else "nothing but the beginning of a header"
        yield ok("file", f"{path}: {what}; the next write makes the header")
        return
    findings = list(_look_at_lines(fd, header, st.st_size, seen))
    yield ok("file", f"{path}: {st.st_size:,} bytes of UTF-8, jobs: {seen.rows:,}")
    if st.st_nlink > 1:
        yield problem(
            "file",
            f"{path}: has {st.st_nlink} hard links, so edits are refused",
            f"find the others, and remove them: find / -xdev -samefile {path}",
        )
    yield from _look_at_header(header)
    yield from findings


def _look_at_header(header: Header) -> "Iterator[Finding]":
    theirs = [name for name in header.columns if name not in COLUMNS and name not in OURS]
    missing = [name for name in COLUMNS if name not in header.index]
    if theirs:
        yield note("header", f"columns of others, kept as they are: {', '.join(theirs)}")
    if missing:
        yield note("header", f"columns that the first edit will add: {', '.join(missing)}")
    if not theirs and not missing:
        yield ok("header", f"the {header.width} columns of this version")


# --- line by line


def _look_at_lines(fd: int, header: Header, size: int, seen: Lines) -> "Iterator[Finding]":
    number, end, highest, now = 1, len(header.line) + 1, b"", time.time()
    suspects: set[bytes] = set()  # ids that may stand twice, since they do not rise
    for offset, block in blocks(fd, end, size):
        end = offset + len(block)
        for line in block.split(b"\n")[:-1]:
            number += 1
            cells = row(line, header)
            if cells is None:
                yield problem(
                    "line",
                    f"line {number} is no job, {why_bad(line, header)}: {quoted(line, header)}",
                    f"{EDITOR}, or let --mend move it out",
                    number,
                )
                continue
            seen.rows += 1
            if cells[0] <= highest:
                suspects.add(cells[0])
            highest = max(highest, cells[0])
            job = Job(cells, header)
            yield from _look_at_job(job, number)
            _note(job, seen, now)
    if end < size:
        yield problem(
            "line",
            f"line {number + 1} has no newline: {quoted(os.pread(fd, 4 * SHOWN, end), header)}",
            "if it is whole, add the newline; else the next write moves it to torn.tsv",
            number + 1,
        )
    if suspects:
        yield from _look_for_twins(fd, header, size, suspects)


def shortened(line: bytes) -> str:
    """Return the beginning of a line, escaped."""
    return visible(line[: 4 * SHOWN].decode(errors="replace")[:SHOWN])


def quoted(line: bytes, header: Header) -> str:
    """Return the beginning of a line that is no job, `***` where something may be sensitive."""
    return HIDDEN if hides_lines(header) else shortened(line)


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
        return f"it has {len(line.split(bytes([9])))} cells, not {header.width}{nine}"
    if not cells[0] or not cells[1]:
        return "it has no " + ("type" if cells[0] else "id")
    if cells[3].decode() not in STATUSES:
        return f"its status is {quoted(cells[3], header)!r}"
    for at in header.numbers:
        if (cells[at] or at < len(CONTRACT)) and not _plain_number(cells[at]):
            return f"its {header.columns[at]} is {quoted(cells[at], header)!r}"
    return "it ends in \\r\\n" if line.endswith(b"\r") else "it cannot be read"


def _plain_number(cell: bytes) -> bool:
    whole, _, part = cell.removeprefix(b"-").partition(b".")
    return whole.isdigit() and (part.isdigit() or not part)


def _look_at_job(job: Job, number: int) -> "Iterator[Finding]":
    id, ends = job.id[:SHOWN], ""
    if job.cells[-1].endswith(b"\r") or job.cells[8].endswith(b"\r"):
        ends = "; the line ends in \\r\\n"
    for column, then in (("payload", "the job never runs"), ("result", "get_job() raises")):
        try:
            getattr(job, column)
        except ValueError as error:
            text = f"line {number}, job {id}: the {column} is not JSON ({error}){ends}: {then}"
            yield problem("line", text, f"{EDITOR}, or purge {id}", number)
    if job.status != "pending":
        return
    checks = (
        ("after", after.parse, "the job never runs"),
        ("backoff", parse_backoff, "60 s are taken"),
    )
    for column, read, then in checks:
        try:
            text = job.cell(column)
            if text:
                read(text)
        except BadArgument as error:
            text = f"line {number}, job {id}: {error}: {then}"
            yield problem("line", text, f"{EDITOR}, or cancel {id}", number)


def _note(job: Job, seen: Lines, now: float) -> None:
    if job.status == "processing" and not job.is_elsewhere:
        seen.held.setdefault(worker_of(job)[0], []).append(job)
    elif job.status == "pending" and not job.after and job.is_due(now):
        seen.due += 1
        seen.due_in[job.queue] = seen.due_in.get(job.queue, 0) + 1
        seen.oldest_due = max(seen.oldest_due, now - job.run_at)


def _look_for_twins(
    fd: int, header: Header, size: int, suspects: set[bytes]
) -> "Iterator[Finding]":
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
            text = (
                f"the id {shortened(id)} stands in lines {where}; only one of them is found by it"
            )
            yield problem("line", text, "give the others ids of their own", numbers[1])
