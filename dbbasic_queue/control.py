"""What is asked of a live worker: to stop, or to end one of its jobs.

A request is a small file beside the worker's own, which it looks for ten times a second.  No signal
is sent: a pid means nothing in another container, and may be somebody else's by now.
"""

import os
import time

from .beside import make
from .errors import QueueError, in_seconds
from .files import write_all
from .journal import worker_of
from .queue import Queue
from .stop import ALL, ONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .recover import LiveWorker


def stop(queue: Queue, name: str | None, timeout: float) -> "list[LiveWorker]":
    """Ask workers to stop, and return those that are left; see `Queue.stop`."""
    timeout = in_seconds(timeout)
    asked = [one for one in queue.workers() if name in (None, one.name, one.id)]
    for one in asked:
        _leave(queue, one.id + ".stop", ALL if name in (None, one.name) else ONE)
    ids, waited, pause = {one.id for one in asked}, 0.0, 0.01
    while True:
        left = [one for one in queue.workers() if one.id in ids] if ids else []
        if not left or waited >= timeout:
            return left
        time.sleep(pause)
        waited += pause
        pause = min(pause * 1.5, 0.2, max(0.01, timeout - waited))


def kill(queue: Queue, id: str) -> bool:
    """Ask a worker to end one job; see `Queue.kill`."""
    job = queue.get(id)
    if job is None or job.status != "processing":
        return False
    worker, k = worker_of(job)
    if worker not in {one.id for one in queue.workers()}:
        return False
    _leave(queue, worker + ".kill", b"%d\t%b\n" % (k, job.cells[0]))
    return True


def _leave(queue: Queue, name: str, text: bytes) -> None:
    """Add to a request; the file goes with the worker's."""
    path = os.path.join(queue.file.side, "workers", name)
    try:
        fd = make(path, os.O_WRONLY | os.O_APPEND, queue.file.real)
        try:
            write_all(fd, text)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return  # the last worker has gone, and its folder too
    except OSError as error:
        raise QueueError(f"{path}: the worker cannot be asked: {error.strerror}") from error
