"""Jobs for other programs: the rows of a queue, and of its archive, as they are at one moment.

A spreadsheet takes a cell that begins with = + - @ for a formula, whoever wrote it: such cells get
a ' before them here.  The queue file is not changed.
"""

import os

from .beside import open_queue, open_regular
from .files import read_header
from .job import Job
from .journal import all_lines, overlay, worker_of
from .lookup import archive_jobs, archives, find_row, forwards
from .new import copy_target as copy_target
from .queue import Queue, default_queue
from .redact import redacted
from .tsv import HEADER, PROCESSING, Header, row, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .journal import Line

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read(
    queue_file: Queue | None = None, *, archived: bool = False
) -> "tuple[Header, Iterator[Job]]":
    """Return the header and the jobs, those of the archive first; no file is loaded.

    FileNotFoundError when there is no queue.
    """
    queue = queue_file or default_queue()
    lines = all_lines(queue.file.side)  # before the file: what is folded meanwhile stands there
    fd = open_queue(queue.path)
    try:
        header = read_header(fd, queue.path) or HEADER
        # after it: what is archived meanwhile is in both then, and counts as the queue's
        months = archives(queue.file) if archived else []
        columns = dict.fromkeys(header.columns)
        for path in months:
            columns |= dict.fromkeys(_header_of(path).columns)
        whole = header if len(columns) == header.width else Header(tuple(columns))
    except BaseException:
        os.close(fd)
        raise
    return whole, _jobs(fd, header, lines, months)


def spreadsheet_row(job: Job, header: Header, *, plain: bool = False) -> list[str]:
    """Return a job's cells as they stand in the file, in a form that no spreadsheet calculates.

    Sensitive fields are hidden, unless `plain`.
    """
    job = job if plain else redacted(job)
    cells = job.line(header)[:-1].decode().split("\t")
    numbers = header.numbers  # `row` has seen to it that there are numbers in them
    return [cell if not cell or at in numbers else inert(cell) for at, cell in enumerate(cells)]


def inert(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula, without control characters."""
    return visible("'" + text if text.startswith(_FORMULA) else text)


def _jobs(
    fd: int, header: Header, lines: "dict[str, list[Line]]", months: list[str]
) -> "Iterator[Job]":
    start = len(header.line) + 1
    try:
        for path in months:
            for job in archive_jobs(path):
                size = os.fstat(fd).st_size
                if not find_row(fd, job.cells[0], start, size, everywhere=False):
                    yield job
        for line in forwards(fd, start):
            cells = row(line, header)
            if cells is None:
                continue
            job = Job(cells, header)
            if lines and cells[3] == PROCESSING:
                worker, k = worker_of(job)
                job = overlay(job, lines.get(worker, ()), k)[0]
            yield job
    finally:
        os.close(fd)


# --- the archive


def _header_of(path: str) -> Header:
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb", 0) as file:
        return read_header(file.fileno(), path) or HEADER
