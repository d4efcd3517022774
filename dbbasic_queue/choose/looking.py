"""Looking at the jobs of a choice: all, how many, or one page of a long file."""

import os
from bisect import bisect_left
from itertools import islice
from typing import NamedTuple

from ..beside import open_queue
from ..errors import QueueError
from ..files import BLOCK, blocks, close_quietly, read_at, read_header
from ..here import queue_here
from ..job import Job
from ..journal import all_lines, overlay, worker_of
from ..kinds import WAITING, Kinds
from ..lookup import find_row, lines_with
from ..tsv import PROCESSING, row
from .choice import Choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..queue import Queue

_FIRST, _MOST = 64, 4096  # jobs whose parents are asked for together


class Page(NamedTuple):
    """Some jobs, the newest first.

    `older` is the `before=` of the page that follows, `newer` the `after=` of the one before it;
    None where there is none.
    """

    jobs: list[Job]
    older: str | None
    newer: str | None


def jobs(
    choice: Choice, queue_file: "Queue | None" = None, *, newest: bool = False
) -> "Iterator[Job]":
    """Yield the jobs of a choice as they are now, in the order they were added, or the last first.

    Those of `ids=` come in the order of these, archived ones too.
    """
    queue = queue_here(queue_file)
    if choice.ids is not None:
        kinds = Kinds(queue)
        found = (job for id in choice.ids if (job := queue.get(id)))
        return (job for job in found if choice.matches(job, kinds))
    return _look(choice, queue, newest)


def count(choice: Choice, queue_file: "Queue | None" = None) -> int:
    """Return how many jobs a choice has now."""
    return sum(1 for _ in jobs(choice, queue_file))


def ids(choice: Choice, queue_file: "Queue | None" = None) -> list[str]:
    """Return the ids of the jobs of a choice, in the order of the file."""
    return [job.id for job in jobs(choice, queue_file)]


def page(
    choice: Choice,
    queue_file: "Queue | None" = None,
    *,
    before: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page:
    """Return a page of a choice: the newest jobs, or those that stand `before` or `after` the job
    of an id in the file.  That job may be gone.
    """
    queue = queue_here(queue_file)
    if after is not None:
        found = list(islice(_look(choice, queue, False, after=after), limit + 1))
        shown = found[:limit][::-1]
        newer = shown[0].id if len(found) > limit else None
        return Page(shown, shown[-1].id if shown else None, newer)
    found = list(islice(_look(choice, queue, True, before=before), limit + 1))
    shown = found[:limit]
    older = shown[-1].id if len(found) > limit else None
    return Page(shown, older, shown[0].id if shown and before is not None else None)


def _look(
    choice: Choice,
    queue: "Queue",
    newest: bool,
    *,
    before: str | None = None,
    after: str | None = None,
) -> "Iterator[Job]":
    kinds = Kinds(queue)
    every = _rows(choice, queue, newest, before, after)
    if WAITING not in choice.statuses and not choice.asks_kinds:
        yield from (job for job in every if choice.matches(job, kinds))
        return
    size = _FIRST
    while some := list(islice(every, size)):
        kinds.read({cell for job in some if (cell := job.cell("after"))})
        yield from (job for job in some if choice.matches(job, kinds))
        size = min(size * 4, _MOST)


def _rows(
    choice: Choice, queue: "Queue", newest: bool, before: str | None, after: str | None
) -> "Iterator[Job]":
    """Yield the rows that may be of a choice, as they are now."""
    file = queue.file
    try:
        lines = all_lines(file.side)  # before the file: what is folded now stands there
        fd = open_queue(file.path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise QueueError(f"{file.path}: cannot be read: {error.strerror}") from error
    try:
        header = read_header(fd, file.path)
        if header is None:
            return
        first, size = len(header.line) + 1, os.fstat(fd).st_size
        start = first if after is None else _place(fd, after, first, size, behind=True)
        stop = size if before is None else _place(fd, before, first, size, behind=False)
        needles, lowered = choice.needles(running=bool(lines)), choice.lowered()
        for block in _backwards(fd, start, stop) if newest else _forwards(fd, start, stop):
            for line in _candidates(block, needles, lowered, newest):
                cells = row(line, header)
                if cells is None:
                    continue
                job = Job(cells, header)
                if lines and cells[3] == PROCESSING:
                    worker, k = worker_of(job)
                    job, _ = overlay(job, lines.get(worker, ()), k)
                yield job
    finally:
        close_quietly(fd)


def _candidates(
    block: bytes, needles: "tuple[bytes, ...]", lowered: "tuple[bytes, ...]", newest: bool
) -> "Iterator[bytes]":
    """Yield the lines of a block that hold one of the needles, and in lower case one of those."""
    small = block.lower() if lowered else b""
    spans = lines_with(small, lowered) if lowered else lines_with(block, needles)
    for begin, end in sorted(spans, reverse=newest):
        line = block[begin:end]
        if not lowered or not needles or any(one in line for one in needles):
            yield line


def _forwards(fd: int, start: int, stop: int) -> "Iterator[bytes]":
    for _, block in blocks(fd, start, stop):
        yield block


def _backwards(fd: int, start: int, stop: int) -> "Iterator[bytes]":
    """Yield blocks of whole lines, the last one first; what has no end yet is left out."""
    reach, whole = BLOCK, False
    while stop > start:
        begin = max(start, stop - reach)
        block = read_at(fd, stop - begin, begin)
        cut = block.find(b"\n") + 1 if begin > start else 0  # before it is a line's end
        if begin > start and not 0 < cut < len(block):
            reach *= 2
            continue
        if not whole:
            block, whole = block[: block.rfind(b"\n") + 1], True
        yield block[cut:]
        stop, reach = begin + cut, BLOCK


def _place(fd: int, id: str, start: int, stop: int, *, behind: bool) -> int:
    """Return where the row of an id begins, or ends; where it would stand when it is gone."""
    found = find_row(fd, id.encode(), start, stop)  # everywhere: ids given by hand have no order
    if found is not None:
        return found[0] + (len(found[1]) if behind else 0)
    return _begin(fd, start + bisect_left(_Ids(fd, start, stop), id), stop)


class _Ids:
    """For each byte of the file the id of the first row that begins there or later."""

    def __init__(self, fd: int, start: int, stop: int) -> None:
        self._fd, self._start, self._stop = fd, start, stop

    def __len__(self) -> int:
        return max(0, self._stop - self._start)  # cut meanwhile, in place

    def __getitem__(self, at: int) -> str:
        key = read_at(self._fd, 16, _begin(self._fd, self._start + at, self._stop))
        return key.decode(errors="replace") if len(key) == 16 else "~"  # greater than any id


def _begin(fd: int, at: int, stop: int) -> int:
    """Return where the first line begins that begins at an offset or later."""
    reach = 1 << 10
    while at < stop:
        block = read_at(fd, min(reach, stop - at + 1), at - 1)
        cut = block.find(b"\n") + 1
        if cut:
            return at - 1 + cut
        if len(block) < reach:
            break
        reach *= 8
    return stop
