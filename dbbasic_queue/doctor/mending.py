"""What --mend does, each step safe to be killed in and to be done again."""

import os

from ..files import blocks, sync, sync_folder, write_all
from ..job import Job
from ..lock import make
from ..queue import Queue, default_queue
from ..tsv import row, visible
from .finding import OK
from .lines import SHOWN, Lines, look_at_file, why_bad
from .workers import leftovers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..edit import Edit

    Bad = tuple[int, int, bytes]  # number and offset of a line, and the line


def mend(queue_file: Queue | None = None) -> list[str]:
    """Take in dead workers, move bad lines to `bad.tsv`, remove what crashes left; say what was done.

    A file that is no queue is not touched.  QueueBusy when the lock does not come free.
    """
    queue = queue_file or default_queue()
    if not os.path.exists(queue.path) or not _is_queue(queue):
        return []
    return [*_take_in_the_dead(queue), *_move_bad_lines(queue), *_remove_leftovers(queue)]


def _is_queue(queue: Queue) -> bool:
    lines = Lines()
    for finding in look_at_file(queue, lines):
        if finding.level != OK and not lines.is_queue:
            return False
        break
    return lines.is_queue


def _take_in_the_dead(queue: Queue) -> list[str]:
    told: list[str] = []

    def note(event: str, job: Job) -> None:
        told.append(f"job {job.id}, whose worker died, is {job.status} now ({event})")

    queue.process_jobs({}, queues=[], listeners=[note])
    return told


def _move_bad_lines(queue: Queue) -> list[str]:
    done = []
    with queue.edit() as e:
        bad = list(_bad_lines(e, queue.file.fd))
        full = [line for _, _, line in bad if line.strip()]
        target = _append_to_bad(queue, full) if full else ""
        for number, at, line in bad:
            e.remove(Job([b""], e.header, at, len(line) + 1))
            what = f"moved to {target}" if line.strip() else "removed"
            text = visible(line.decode(errors="replace")[:SHOWN])
            done.append(f"line {number} {what}: {why_bad(line, e.header)}: {text}".rstrip(": "))
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


def _append_to_bad(queue: Queue, lines: list[bytes]) -> str:
    """Add lines, byte for byte, to `bad.tsv`; on the disk when this returns."""
    path = os.path.join(queue.file.make_side(), "bad.tsv")
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
            os.unlink(path)
            done.append(f"{path} removed, which a killed edit had left")
        unsettled = os.path.join(queue.file.side, "unsettled")
        if os.path.exists(unsettled):
            sync_folder(os.path.dirname(queue.file.real))
            os.unlink(unsettled)
            done.append("the last rename is on the disk now")
    finally:
        queue.file.unlock()
    return done
