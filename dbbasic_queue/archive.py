"""Old jobs: moved to the archive, deleted, or copied to a backup.

`queue.tsv.d/archive/YYYY-MM.tsv` has the queue's columns; a job lies in the month of its id.
"""

import os
import re
import time

from .after import WAITING, parse
from .beside import make, note, open_regular, unlink
from .disk import QueueFile
from .edit import Edit
from .errors import BadArgument, NotStored, in_seconds
from .files import (
    blocks,
    dress,
    last_line,
    read_header,
    sync,
    sync_folder,
    write_all,
)
from .job import Job
from .journal import all_lines, overlay, worker_of
from .lookup import month_of
from .new import copy_target
from .tsv import HEADER, STATUSES, Header, rehead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta


def purge(
    edit: Edit,
    older_than: "float | timedelta | None",
    status: str | None,
    type: str | None,
    queue: str | None,
    ids: "Iterable[str] | None",
) -> list[Job]:
    """Delete jobs and return them; see `Queue.purge`."""
    if status is not None and status not in STATUSES:
        raise BadArgument(f"status={status!r} is none of {', '.join(STATUSES)}")
    before = time.time() - in_seconds(older_than) if older_than is not None else None
    gone = []
    with edit as e:
        keep = _named(e)
        rows = (
            [job for id in dict.fromkeys(ids) if (job := e.get(id))]
            if ids is not None
            else e.scan(status, type, queue)
        )
        for job in rows:
            if (status is not None and job.status != status) or (
                type is not None and job.type != type
            ):
                continue
            if (
                (queue is not None and job.queue != queue)
                or job.status == "processing"
                or keep(job)
            ):
                continue
            if status is None and ids is None and not job.finished:
                continue
            if before is None or _age_from(job) < before:
                gone.append(job)
        for job in gone:
            e.remove(job)
    return gone


def archive(
    edit: Edit, file: QueueFile, older_than: "float | timedelta", status: str | None = None
) -> list[Job]:
    """Move finished jobs to the archive and return them; after a crash none is there twice."""
    before = time.time() - in_seconds(older_than)
    with edit as e:
        keep = _named(e)
        old = [
            job
            for job in e.scan(status)
            if job.finished and _age_from(job) < before and not keep(job)
        ]
        months: dict[str, list[Job]] = {}
        for job in old:
            months.setdefault(_month(job), []).append(job)
        for month, jobs in sorted(months.items()):
            _add_to(file, month, jobs)
        for job in old:
            e.remove(job)
    return old


def _named(e: Edit) -> "Callable[[Job], bool]":
    """Return whether an unfinished job waits for a job."""
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
    return lambda job: job.id in ids or (job.group or "") in groups


def _age_from(job: Job) -> float:
    return job.finished_at or job.created_at


def _month(job: Job) -> str:
    try:
        return month_of(job.id)
    except (ValueError, OverflowError, OSError):
        return time.strftime("%Y-%m", time.gmtime(job.created_at))


def _add_to(file: QueueFile, month: str, jobs: list[Job]) -> None:
    path = os.path.join(file.side, "archive", month + ".tsv")
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


def backup(edit: Edit, file: QueueFile, path: str) -> None:
    """Write the queue, with what workers have finished, to `path` by rename."""
    try:
        path = copy_target(path, file.real)
    except OSError as error:
        raise NotStored(f"{path}: no backup was made: {error.strerror}") from error
    with edit as e:
        if not e.exists:
            raise BadArgument(f"{file.path}: there is no queue to back up")
        try:
            lines = all_lines(file.side)
            for job in list(e.scan("processing")):
                worker, k = worker_of(job)
                seen, ended = overlay(job, lines.get(worker, ()), k)
                if ended:
                    e.put(job, seen)
            _copy(e, path, os.fstat(file.fd))
        except OSError as error:
            raise NotStored(f"{path}: no backup was made: {error.strerror}") from error
        try:
            sync_folder(os.path.dirname(path))
        except OSError as error:
            text = "made, but not known to be on the disk"
            raise NotStored(f"{path}: {text}: {error.strerror}") from error
        e.give_up()


def _copy(e: Edit, path: str, like: os.stat_result) -> None:
    """Put a backup in its place by rename; what a killed one has left is removed."""
    folder, name = os.path.split(path)
    for old in os.listdir(folder):
        if re.fullmatch(re.escape(name) + r"\.[0-9a-f]{8}\.tmp", old):
            unlink(os.path.join(folder, old))
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            dress(fd, like)
            e.copy_to(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
