"""Changes by hand: a copy of some rows for an editor, and what was typed, in one edit.

The copy is rows as they stand in the file, under its header; no lock is held while somebody types.
A row that was changed there is applied only while the queue still has it byte for byte as the copy
had it: nobody else's change is undone, and nothing that runs is touched.
"""

import os

from ..after import is_id
from ..beside import open_queue
from ..errors import QueueError
from ..files import read_header
from ..job import Job
from ..lookup import find_row, forwards
from ..queue import Queue
from ..tsv import HEADER, PROCESSING, row
from .apply import Applied as Applied
from .apply import apply as apply
from .compare import Refused as Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from ..tsv import Header


class Copied:
    """What a copy has: how many rows; how many were left out because they run; unknown ids."""

    __slots__ = ("rows", "running", "unknown")

    def __init__(self) -> None:
        self.rows = 0
        self.running = 0
        self.unknown: list[str] = []


def copy(
    queue: Queue,
    target: "BinaryIO",
    *,
    ids: "Iterable[str] | None" = None,
    wanted: "Callable[[Job], bool] | None" = None,
) -> Copied:
    """Write the header and the rows of these ids, or all that are wanted, as the file has them.

    Rows that are processing are left out: they are their worker's.  No lock is taken.
    """
    copied = Copied()
    try:
        fd = open_queue(queue.path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise QueueError(f"{queue.path}: cannot be read: {error.strerror}") from error
    try:
        header = read_header(fd, queue.path) or HEADER
        target.write(header.line + b"\n")
        lines = forwards(fd, len(header.line) + 1)
        if ids is not None:
            lines = _lines_of(fd, header, ids, copied)
        for line in lines:
            cells = row(line, header)
            if cells is None:
                continue
            job = Job(cells, header)
            if wanted is not None and not wanted(job):
                continue
            if cells[3] == PROCESSING:
                copied.running += 1
                continue
            copied.rows += 1
            target.write(job.line(header))
    finally:
        os.close(fd)
    return copied


def _lines_of(fd: int, header: "Header", ids: "Iterable[str]", copied: Copied) -> "Iterator[bytes]":
    start, stop = len(header.line) + 1, os.fstat(fd).st_size
    for id in dict.fromkeys(ids):
        plain = is_id(id) or (id.isascii() and id.isprintable())
        found = find_row(fd, id.encode(), start, stop) if plain else None
        if found is None or row(found[1][:-1], header) is None:
            copied.unknown.append(id)
        else:
            yield found[1][:-1]
