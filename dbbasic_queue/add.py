"""Adding one job, which is what most programs do here: an append, without the rest of an edit."""

from .after import is_id
from .disk import QueueFile
from .errors import QueueError
from .job import Job, is_ahead, new_id, new_ids
from .tsv import HEADER

_AFTER = HEADER.index["after"]


def add(file: QueueFile, job: Job, timeout: float, *, durable: bool) -> str:
    """Add a job, give it its id and return that.

    "", with nothing done, when that takes an edit: it has an id or columns of its own, it waits for
    others, or the file has other columns.
    """
    cells = job.cells
    if cells[0] or job.header is not HEADER or cells[_AFTER]:
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


def last_id(line: bytes) -> str:
    """Return the id of a row that all later ones exceed; "" where it is none, or ahead of time."""
    id = line.partition(b"\t")[0].decode(errors="replace")
    return id if is_id(id) and not is_ahead(id) else ""
