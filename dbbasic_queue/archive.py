"""Old jobs: moved to the archive, deleted, or copied to a backup."""

import os
import re
import time

from .beside import unlink
from .disk import QueueFile
from .edit import Edit
from .errors import BadArgument, NotStored, in_seconds
from .files import dress, sync_folder
from .job import Job
from .journal import all_lines, overlay, worker_of
from .leave import age_from, take_out
from .new import copy_target
from .output import remove_output
from .tsv import STATUSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta


def purge(
    edit: Edit,
    file: QueueFile,
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

    def wanted(job: Job) -> bool:
        return (
            status in (None, job.status)
            and type in (None, job.type)
            and queue in (None, job.queue)
            and (status is not None or ids is not None or job.finished)
            and (before is None or age_from(job) < before)
        )

    with edit as e:
        rows: Iterable[Job] = e.scan(status, type, queue)
        if ids is not None:
            rows = [job for id in dict.fromkeys(ids) if (job := e.get(id))]
        gone = take_out(e, filter(wanted, rows))
    remove_output(file, gone)
    return gone


def archive(
    edit: Edit, file: QueueFile, older_than: "float | timedelta", status: str | None = None
) -> list[Job]:
    """Move finished jobs to the archive and return them; after a crash none is there twice."""
    before = time.time() - in_seconds(older_than)
    with edit as e:
        old = (job for job in e.scan(status) if job.finished and age_from(job) < before)
        return take_out(e, old, file)


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
