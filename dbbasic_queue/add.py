"""Adding one job, which is what most programs do here: an append, without the rest of an edit."""

from .after import is_id
from .disk import QueueFile
from .errors import QueueError
from .job import Job, is_ahead, new_id, new_ids


def add(file: QueueFile, job: Job, timeout: float, *, durable: bool) -> bool:
    """Add a job and give it its id.

    False, with nothing done, when that takes an edit: it has an id, it waits for others, or the
    file has other columns.
    """
    if job.cells[0] or job.raw("after"):
        return False
    file.refuse_nested()
    try:
        file.lock(timeout, create=True)
        if job.header is not file.header:
            return False
        id, (_, last) = new_id().encode(), file.end()
        if id <= last[:16] and (above := last_id(last)):
            id = new_ids(1, above)[0].encode()
        job.cells[0] = id
        file.append(job.line(job.header), durable=durable)
        return True
    except OSError as error:
        raise QueueError(f"{file.path}: cannot be read: {error.strerror}") from error
    finally:
        try:
            file.unlock(lent=False)
        except BaseException:  # out of a signal handler, perhaps before it was unlocked
            file.unlock()
            raise


def last_id(line: bytes) -> str:
    """Return the id of a row that all later ones exceed; "" where it is none, or ahead of time."""
    id = line.partition(b"\t")[0].decode(errors="replace")
    return id if is_id(id) and not is_ahead(id) else ""
