"""Why a worker could not begin, in `queue.tsv.d/broken`: a line for each that cannot.

Its name, the Unix time, the reason.  Who can begin again takes its line away.  Nothing depends on
it: where it cannot be written, nothing breaks.
"""

import os
import time
from typing import NamedTuple

from ..beside import open_regular, replace, unlink
from ..errors import QueueError
from ..queue import Queue
from ..tsv import escape, unescape, visible

KEPT = 86400  # seconds after which a reason is old news
_MOST = 20  # lines
_LONGEST = 1 << 16
_PATIENCE = 0.5  # seconds that another may hold the queue's lock


class Broken(NamedTuple):
    """A worker that could not begin."""

    name: str
    at: int
    reason: str


def note(queue: Queue, name: str, reason: str) -> None:
    """Keep why the worker of this name cannot begin."""
    now = int(time.time())
    text = visible(" ".join(reason.split()))[:500]
    _change(queue, name, f"{escape(visible(name))}\t{now}\t{escape(text)}\n".encode())


def forget(queue: Queue, name: str) -> None:
    """Take away what is kept of this name: it can begin."""
    if os.path.lexists(_path(queue)):
        _change(queue, name, b"")


def broken(queue: Queue) -> list[Broken]:
    """Return who could not begin when it was last tried, within a day."""
    try:
        fd = open_regular(_path(queue), os.O_RDONLY)
    except OSError:
        return []
    try:
        return _read(fd)
    except OSError:
        return []
    finally:
        os.close(fd)


def _path(queue: Queue) -> str:
    return os.path.join(queue.file.side, "broken")


def _read(fd: int) -> list[Broken]:
    found, now = [], time.time()
    for line in os.pread(fd, _LONGEST, 0).decode(errors="replace").split("\n")[:-1]:
        cells = line.split("\t")
        digits = len(cells) == 3 and cells[1].isdecimal() and len(cells[1]) < 16
        if digits and abs(now - int(cells[1])) < KEPT:
            name, reason = (visible(unescape(cell)) for cell in (cells[0], cells[2]))
            found.append(Broken(name, int(cells[1]), reason))
    return found


def _change(queue: Queue, name: str, line: bytes) -> None:
    try:
        if not queue.file.lock(_PATIENCE):
            return
        try:
            others = [one for one in broken(queue) if one.name != visible(name)][1 - _MOST :]
            lines = [f"{escape(one.name)}\t{one.at}\t{escape(one.reason)}\n" for one in others]
            queue.file.make_side()
            if data := "".join(lines).encode() + line:
                replace(_path(queue), data, queue.file.real, durable=False)
            else:
                unlink(_path(queue))
        finally:
            queue.file.unlock()
    except (OSError, QueueError, ValueError):
        return
