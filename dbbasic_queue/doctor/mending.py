"""What --mend does; each step may be killed at any point, and done again."""

import os

from .. import hint
from ..beside import make, unlink
from ..errors import QueueError
from ..files import blocks, sync, sync_folder, write_all
from ..job import Job
from ..queue import Queue, default_queue
from ..tsv import row
from .lines import Lines, look_at_file, quoted, why_bad
from .workers import leftovers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..disk import Piece
    from ..edit import Edit

    Bad = tuple[int, int, bytes]  # number and offset of a line, and the line


def mend(queue_file: Queue | None = None) -> list[str]:
    """Take in dead workers, move bad lines to `bad.tsv`, remove leftovers; say what was done.

    A file that is no queue is not touched.  QueueBusy when the lock does not come free.
    """
    queue = queue_file or default_queue()
    seen = Lines()
    list(look_at_file(queue, seen))
    if not seen.has_header:
        return []
    try:
        removed = _remove_leftovers(queue)  # before an edit does it in silence
        return [*_take_in_the_dead(queue), *_move_bad_lines(queue), *removed]
    except OSError as error:
        raise QueueError(f"{error.filename}: cannot be mended: {error.strerror}") from error


def _take_in_the_dead(queue: Queue) -> list[str]:
    told: list[str] = []

    def tell(event: str, job: Job) -> None:
        told.append(f"job {job.id}, whose worker died, is {job.status} now ({event})")

    queue.process_jobs({}, queues=[], listeners=[tell])  # a tick that claims nothing
    return told


def _move_bad_lines(queue: Queue) -> list[str]:
    with queue.edit() as e:
        bad = _bad_lines(e, queue.file.fd)
        if not bad:
            return []
        path = _append_to_bad(queue, [line for _, _, line in bad if line.strip()])
        queue.file.replace(_without(bad, e.size), e.seen)
        hint.forget(queue.file)
    done = []
    for number, _, line in bad:
        what = f"moved to {path}" if line.strip() else "removed"
        done.append(f"line {number} {what}, {why_bad(line, e.header)}: {quoted(line, e.header)}")
    return done


def _bad_lines(e: "Edit", fd: int) -> "list[Bad]":
    bad, number = [], 1
    for at, block in blocks(fd, e.start, e.size):
        for line in block.split(b"\n")[:-1]:
            number += 1
            if row(line, e.header) is None:
                bad.append((number, at, line))
            at += len(line) + 1
    return bad


def _without(bad: "list[Bad]", size: int) -> "list[Piece]":
    """Return the stretches of the file between the bad lines."""
    pieces, start = [], 0
    for _, at, line in bad:
        pieces.append((start, at))
        start = at + len(line) + 1
    return [(begin, end) for begin, end in (*pieces, (start, size)) if begin < end]


def _append_to_bad(queue: Queue, lines: list[bytes]) -> str:
    """Add lines, byte for byte, to `bad.tsv`; they are on the disk when this returns."""
    path = os.path.join(queue.file.make_side(), "bad.tsv")
    if lines:
        fd = make(path, os.O_WRONLY | os.O_APPEND, queue.file.real)
        try:
            write_all(fd, b"".join(line + b"\n" for line in lines))
            sync(fd)
        finally:
            os.close(fd)
        sync_folder(os.path.dirname(path))
    return path


def _remove_leftovers(queue: Queue) -> list[str]:
    done: list[str] = []
    if not queue.file.lock(queue.lock_timeout):
        return done
    try:
        for path in leftovers(queue):
            unlink(path)
            done.append(f"{path} removed, which a killed edit had left")
        if queue.file.settle_rename():
            done.append("the last rename is on the disk now")
    finally:
        queue.file.unlock()
    return done
