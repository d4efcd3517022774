"""The output of a job: `queue.tsv.d/output/ID.log`, a file that goes when its job does.

An archived job keeps it.  Names are made of ids only, and no link is followed.
"""

import errno
import os
import time

from .after import is_id
from .beside import NoFile, is_folder, make, open_regular, unlink
from .lookup import archive_path, ids_in, month_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .disk import QueueFile
    from .job import Job

_YOUNG = 3600  # seconds for which a file of nobody stays: its job may be on its way


def output_path(file: "QueueFile", id: str) -> str:
    """Return where the output of a job lies."""
    return os.path.join(file.side, "output", id + ".log")


def open_to_add(file: "QueueFile", id: str) -> int:
    """Open the output of a job to add to it; a new one is as open as the queue file."""
    if not is_id(id):
        raise NoFile(errno.EINVAL, "no name is made of such an id", id)
    if not (is_folder(file.side) and is_folder(os.path.join(file.side, "output"))):
        file.make_side("output")
    return make(output_path(file, id), os.O_RDWR | os.O_APPEND, file.real)


def open_to_read(file: "QueueFile", id: str) -> int:
    """Open the output of a job, -1 when it has none."""
    try:
        return open_regular(output_path(file, id), os.O_RDONLY) if is_id(id) else -1
    except (FileNotFoundError, NoFile):
        return -1


def last_lines(fd: int, count: int, most: int = 1 << 20) -> bytes:
    """Return the last lines of an output, no more than `most` bytes."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, min(size, most), max(0, size - most))
    at = len(data) - data.endswith(b"\n")
    for _ in range(min(count, at + 1)):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            break
    return data[at + 1 :] if count else b""


def remove_output(file: "QueueFile", jobs: "Iterable[Job]") -> None:
    """Remove the output of jobs that are deleted."""
    if not os.path.lexists(os.path.join(file.side, "output")):
        return
    for job in jobs:
        if is_id(job.id):
            unlink(output_path(file, job.id))


def remove_orphans(file: "QueueFile") -> int:
    """Remove the output of jobs that are neither in the file nor archived; return how many."""
    folder = os.path.join(file.side, "output")
    if not is_folder(folder):
        return 0
    names = [name[:-4] for name in os.listdir(folder) if name.endswith(".log")]
    ids = {name.encode() for name in names if is_id(name)}
    if not ids:
        return 0
    # the file first: what is moved meanwhile stands in the archive before it leaves the file
    ids -= ids_in(file.real, ids)
    for month in {month_of(id.decode()) for id in ids}:
        ids -= ids_in(archive_path(file, month), ids)
    old = [path for id in ids if _age(path := output_path(file, id.decode())) > _YOUNG]
    for path in old:
        unlink(path)
    return len(old)


def _age(path: str) -> float:
    try:
        return abs(time.time() - os.lstat(path).st_mtime)  # a clock may have stepped back
    except FileNotFoundError:
        return 0.0
