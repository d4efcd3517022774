"""Adding new jobs, which is what most programs do here: an append, without the rest of an edit."""

from .after import is_id
from .disk import QueueFile
from .errors import QueueError
from .job import Job, is_ahead, new_id, new_ids
from .tsv import HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_AFTER = HEADER.index["after"]


def add(file: QueueFile, job: Job, timeout: float, *, durable: bool) -> str:
    """Add a job, give it its id and return that.

    "", with nothing done, when that takes an edit: it is not plain, or the file has other columns.
    """
    cells = job.cells
    if not _is_plain(job):
        return ""
    file.refuse_nested()
    try:
        id = ""
        file.lock_first(timeout, create=True)
        if file.header is HEADER:
            id, (_, last) = new_id(), file.end()
            cells[0] = id.encode()
            if cells[0] <= last[:16] and (above := last_id(last)):
                [id] = new_ids(1, above)
                cells[0] = id.encode()
            file.append(b"\t".join(cells) + b"\n", durable=durable)
        file.unlock(lent=False)
        return id
    except BaseException as error:  # out of a signal handler, perhaps before it was unlocked
        file.unlock()
        if isinstance(error, OSError):
            raise QueueError(f"{file.path}: cannot be read: {error.strerror}") from error
        raise


def add_many(
    file: QueueFile, made: "Sequence[Job | bytes]", timeout: float, *, durable: bool
) -> list[str]:
    """Add plain jobs, all of them by their rows, and return their ids; else [], as `add`."""
    if set(map(type, made)) != {bytes}:
        return []
    file.refuse_nested()
    try:
        ids, lines = [], bytearray()
        file.lock_first(timeout, create=True)
        if file.header is HEADER:
            ids = new_ids(len(made), last_id(file.end()[1]))
            for id, row in zip(ids, made, strict=True):
                lines += id.encode()
                lines += row  # type: ignore[arg-type]
            file.append(lines, durable=durable)
        file.unlock()
        return ids
    except BaseException as error:  # as above
        file.unlock()
        if isinstance(error, OSError):
            raise QueueError(f"{file.path}: cannot be read: {error.strerror}") from error
        raise


def _is_plain(job: Job) -> bool:
    """Whether a job may be appended as it is: no id or columns of its own, and waits for none."""
    return job.header is HEADER and not job.cells[0] and not job.cells[_AFTER]


def as_row(job: Job) -> Job | bytes:
    """Return the row of a plain job, which lacks only the id: many need far less room so."""
    return b"\t".join(job.cells) + b"\n" if _is_plain(job) else job


def as_job(made: Job | bytes) -> Job:
    return Job(made[:-1].split(b"\t"), HEADER) if isinstance(made, bytes) else made


def last_id(line: bytes) -> str:
    """Return the id of a row that all later ones exceed; "" where it is none, or ahead of time."""
    id = line.partition(b"\t")[0].decode(errors="replace")
    return id if is_id(id) and not is_ahead(id) else ""
