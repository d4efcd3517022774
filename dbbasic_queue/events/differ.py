"""Two versions of the queue file, row by row: what was changed, added, removed.

An edit copies what it leaves alone byte for byte and in order, so both are read side by side, in
blocks; equal stretches are compared as bytes and never split into cells.
"""

import os

from ..files import BLOCK, blocks
from ..tsv import rehead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..tsv import Header

    Lines = list[bytes]
    Pair = tuple[bytes | None, bytes | None]  # a line before and now

_AHEAD = 4000  # lines that are looked through for where two versions meet again
_KEPT = 200_000  # lines for which a counterpart may still come


class _Reader:
    """The whole lines of one version from an offset to another, some at a time."""

    def __init__(self, fd: int, start: int, stop: int, old: "Header", new: "Header") -> None:
        self._blocks = blocks(fd, start, stop)
        self._old, self._new = old, new
        self.lines: Lines = []
        self.at = 0

    def fill(self, least: int = 1) -> int:
        """Have at least so many lines, if there are; return how many there are."""
        while len(self.lines) - self.at < least:
            block = next(self._blocks, None)
            if block is None:
                break
            lines = block[1].split(b"\n")
            lines.pop()
            if self._old is not self._new:
                lines = [rehead(line, self._old, self._new) for line in lines]
            self.lines = self.lines[self.at :] + lines
            self.at = 0
        return len(self.lines) - self.at


def differences(
    before: int, size: int, old: "Header", now: int, stop: int, new: "Header"
) -> "Iterator[Pair]":
    """Yield (line before, line now) of each row that differs; None where it is not there.

    `before` and `now` are descriptors, read up to `size` and `stop`, the ends of whole lines.
    """
    start = 0 if old is new else len(old.line) + 1
    begin = 0 if old is new else len(new.line) + 1
    if old is new:
        start = begin = _same_until(before, size, now, stop)
    a, b = _Reader(before, start, size, old, new), _Reader(now, begin, stop, new, new)
    gone: dict[bytes, bytes] = {}  # by id: lines whose counterpart has not come
    come: dict[bytes, bytes] = {}
    while True:
        count = min(a.fill(), b.fill())
        if not count:
            break
        xs, ys = a.lines[a.at : a.at + count], b.lines[b.at : b.at + count]
        if xs != ys:
            count = next(at for at, x in enumerate(xs) if x != ys[at])
        a.at += count
        b.at += count
        if count < len(xs):
            yield from _one(a, b, gone, come)
    for reader, side, other in ((a, gone, come), (b, come, gone)):
        while reader.fill():
            for line in reader.lines[reader.at :]:
                id = _id(line)
                if id in other:
                    match = other.pop(id)
                    pair = (line, match) if side is gone else (match, line)
                    if line != match:
                        yield pair
                else:
                    yield (line, None) if side is gone else (None, line)
            reader.at = len(reader.lines)
    for line in gone.values():
        yield line, None
    for line in come.values():
        yield None, line


def _one(
    a: _Reader, b: _Reader, gone: "dict[bytes, bytes]", come: "dict[bytes, bytes]"
) -> "Iterator[Pair]":
    """Step over the rows at which the two versions differ."""
    x, y = a.lines[a.at], b.lines[b.at]
    id, other = _id(x), _id(y)
    if id == other:
        a.at += 1
        b.at += 1
        yield x, y
    elif other in gone:
        b.at += 1
        if gone[other] != y:
            yield gone[other], y
        del gone[other]
    elif id in come:
        a.at += 1
        if x != come[id]:
            yield x, come[id]
        del come[id]
    elif removed := _until(a, other):
        gone.update((_id(line), line) for line in a.lines[a.at : a.at + removed])
        a.at += removed
    elif added := _until(b, id):
        come.update((_id(line), line) for line in b.lines[b.at : b.at + added])
        b.at += added
    elif id < other:  # rows mostly lie in the order of their ids
        _take(a, other, gone)
    else:
        _take(b, id, come)
    if len(gone) > _KEPT:
        yield from [(line, None) for line in gone.values()]
        gone.clear()
    if len(come) > _KEPT:
        yield from [(None, line) for line in come.values()]
        come.clear()


def _take(reader: _Reader, id: bytes, into: "dict[bytes, bytes]") -> None:
    """Step over the rows before an id."""
    lines = reader.lines[reader.at : reader.at + _AHEAD]
    count = next((at for at, line in enumerate(lines) if _id(line) >= id), len(lines))
    into.update((_id(line), line) for line in lines[:count])
    reader.at += count


def _until(reader: _Reader, id: bytes) -> int:
    """Return how many lines come before the row of an id, 0 when it is not near."""
    reader.fill(_AHEAD)
    start = id + b"\t"
    for count, line in enumerate(reader.lines[reader.at : reader.at + _AHEAD]):
        if line.startswith(start):
            return count
    return 0


def _id(line: bytes) -> bytes:
    return line.partition(b"\t")[0]


def _same_until(before: int, size: int, now: int, stop: int) -> int:
    """Return the end of the whole lines with which both versions begin."""
    at, end, last = 0, min(size, stop), 0
    while at < end:
        x = os.pread(before, min(BLOCK, end - at), at)
        y = os.pread(now, min(BLOCK, end - at), at)
        if x != y or not x:
            low, high = 0, min(len(x), len(y))
            while low < high:
                middle = (low + high + 1) // 2
                if x[:middle] == y[:middle]:
                    low = middle
                else:
                    high = middle - 1
            cut = x.rfind(b"\n", 0, low) + 1
            return at + cut if cut else last
        cut = x.rfind(b"\n") + 1
        last = at + cut if cut else last
        at += len(x)
    return last
