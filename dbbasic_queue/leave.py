"""How jobs leave the queue file: deleted, or moved to the archive beside it.

`queue.tsv.d/archive/YYYY-MM.tsv` has the queue's columns; a job lies in the month of its id.
"""

import os
import time

from .after import WAITING, parse
from .beside import make, note, open_regular, unlink
from .disk import QueueFile
from .edit import Edit
from .errors import BadArgument, NotStored
from .files import blocks, last_line, read_header, sync, sync_folder, write_all
from .job import Job
from .lookup import archive_path, month_of
from .tsv import HEADER, Header, rehead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def take_out(
    e: Edit, chosen: "Iterable[Job]", to: QueueFile | None = None, most: int | None = None
) -> list[Job]:
    """Delete rows, or move them to the archive of `to`; return the jobs, at most so many.

    What runs stays, and what an unfinished job waits for.
    """
    gone: list[Job] = []
    ids: set[str] | None = None
    for job in chosen:
        if ids is None:
            ids, groups = waited_for(e)
        if job.status == "processing" or job.id in ids or (job.group or "") in groups:
            continue
        gone.append(job)
        if len(gone) == most:
            break
    if to is not None:
        months: dict[str, list[Job]] = {}
        for job in gone:
            months.setdefault(_month(job), []).append(job)
        for month, jobs in sorted(months.items()):
            _add_to(to, month, jobs)
    for job in gone:
        e.remove(job)
    return gone


def waited_for(e: Edit) -> "tuple[set[str], set[str]]":
    """Return the ids, and the labels of the groups, that unfinished jobs wait for."""
    ids: set[str] = set()
    groups: set[str] = set()
    for job in e.rows(WAITING):
        if not job.finished and job.after:
            try:
                conditions = parse(job.after)
            except BadArgument:
                continue
            for condition in conditions:
                ids.update(condition.ids)
                groups.add(condition.group)
    groups.discard("")
    return ids, groups


def age_from(job: Job) -> float:
    return job.finished_at or job.created_at


def _month(job: Job) -> str:
    try:
        return month_of(job.id)
    except (ValueError, OverflowError, OSError):
        return time.strftime("%Y-%m", time.gmtime(job.created_at))


def _add_to(file: QueueFile, month: str, jobs: list[Job]) -> None:
    path = archive_path(file, month)
    try:
        folder = file.make_side("archive")
        for name in os.listdir(folder):
            if name.endswith(".tmp"):  # of a call that was killed
                unlink(os.path.join(folder, name))
        header = _widen(file, path, {name for job in jobs for name in job.columns_in_use()})
        fd = make(path, os.O_RDWR | os.O_APPEND, file.real)
        try:
            _append(fd, header, jobs)
        finally:
            os.close(fd)
        for one in (folder, file.side, os.path.dirname(file.real)):  # perhaps made just now
            sync_folder(one)
    except OSError as error:
        raise NotStored(f"{path}: not archived: {error.strerror}") from error


def _widen(file: QueueFile, path: str, columns: "set[str]") -> Header:
    """See to it that an archive has these columns, by a neighbour and a rename."""
    old, lines = None, b""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as before:
            old = read_header(before.fileno(), path)
            lines = before.read().partition(b"\n")[2]
    except FileNotFoundError:
        pass
    unlink(path + ".tmp")  # of one who died; after a power cut perhaps a second name of `path`
    header = (old or HEADER).with_columns(columns)
    if old is not header:
        rows = [rehead(line, old or header, header) for line in lines.split(b"\n")]
        note(path + ".tmp", b"\n".join([header.line, *rows]), file.real, durable=True)
        os.rename(path + ".tmp", path)
    return header


def _append(fd: int, header: Header, jobs: list[Job]) -> None:
    """Add rows that are not there yet; what a crash left unfinished is cut off first."""
    size = os.fstat(fd).st_size
    torn = last_line(fd, size)
    if not torn.endswith(b"\n"):
        size -= len(torn)
        os.ftruncate(fd, size)
    moving = dict.fromkeys(job.line(header) for job in jobs)
    for _, block in blocks(fd, 0):
        for line in block.split(b"\n"):
            moving.pop(line + b"\n", None)  # moved before a crash
    try:
        write_all(fd, b"".join(moving))
        sync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise
