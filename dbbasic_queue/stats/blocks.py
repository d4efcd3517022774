"""The file as blocks of whole rows, each summarised once.

An edit copies what it does not change, so most blocks of the next version are the same bytes,
perhaps at another place.  A block is known again by its length and its hash; behind one that is
not, the next known one is found by the id of its first row.
"""

import os

from ..files import BLOCK, blocks, last_line, read_at
from ..lookup import find_row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..tsv import Header
    from .summary import Summary

_TRIES = 16  # blocks behind a changed one that are looked for


class Block:
    __slots__ = ("digest", "first", "size", "summary")

    def __init__(self, data: bytes, summary: "Summary") -> None:
        self.first = data[:16]  # the id of its first row
        self.size = len(data)
        self.digest = hash(data)
        self.summary = summary


def look(
    fd: int, header: "Header", known: "list[Block]", read: "Callable[[bytes, Header], Summary]"
) -> "list[Block]":
    """Return the blocks of an open file; those which are among `known` as they are there."""
    at, stop = len(header.line) + 1, os.fstat(fd).st_size
    stop -= len(open_end(fd, stop))
    found: list[Block] = []
    place = 0
    while at < stop:
        old = known[place] if place < len(known) else None
        if old is not None and (place + 1 < len(known) or old.size * 2 > BLOCK):
            data = read_at(fd, old.size, at)
            if len(data) == old.size and data[-1:] == b"\n" and hash(data) == old.digest:
                found.append(old)
                at, place = at + old.size, place + 1
                continue
        end, place = _next_known(fd, at, stop, known, place + 1)
        for _, data in blocks(fd, at, end):
            found.append(Block(data, read(data, header)))
            at += len(data)
        if at < end:  # the file is not as it was
            break
    return found


def open_end(fd: int, size: int) -> bytes:
    """Return what follows the last newline."""
    last = last_line(fd, size)
    return b"" if last.endswith(b"\n") else last


def _next_known(fd: int, at: int, stop: int, known: "list[Block]", place: int) -> tuple[int, int]:
    """Return where the changed stretch ends, and which of the known blocks begins there."""
    step = 1
    for _ in range(_TRIES):
        if place >= len(known):
            break
        row = find_row(fd, known[place].first, at, stop, everywhere=False)
        if row is not None and row[0] >= at + min(BLOCK // 4, stop - at):
            return row[0], place
        place += step
        step += row is None
    return stop, len(known)
