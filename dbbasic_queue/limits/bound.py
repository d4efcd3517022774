"""A bound on how many jobs of a queue may wait or run: counted and added to in one edit."""

from ..errors import BadArgument, QueueError
from ..files import blocks
from ..here import queue_here
from ..log import tell
from ..new import new_job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ..disk import QueueFile
    from ..edit import Edit
    from ..new import When
    from ..queue import Queue

_UNFINISHED = (b"\tpending\t", b"\tprocessing\t")


class QueueFull(QueueError):
    """As many jobs of the queue are unfinished as its bound allows; nothing was added."""


def enqueue_bounded(
    job_type: str,
    payload: "Any" = None,
    run_at: "When" = None,
    *,
    longest: int,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int | None = None,
    timeout: float | None = None,
    backoff: str | None = None,
    after: "str | Iterable[str] | None" = None,
    group: str | None = None,
    id: str | None = None,
    columns: "Mapping[str, str]" = {},  # noqa: B006 (never changed)
    queue_file: "Queue | None" = None,
) -> str:
    """Add a job and return its id, unless `longest` jobs of its queue are unfinished: QueueFull.

    Unfinished is all that is pending, also for later, or processing; a job that has just ended
    counts until its outcome is in the file, a second at most.  Counted and added under one lock, so
    that any number of processes keep to the bound; plain `enqueue` does not ask for it.  The other
    arguments are those of `enqueue`.
    """
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
        raise BadArgument(f"longest={longest!r:.80} is no whole number of at least 1")
    job = new_job(
        job_type, payload, run_at, queue=queue, priority=priority, max_attempts=max_attempts,
        timeout=timeout, backoff=backoff, after=after, group=group, id=id, columns=columns,
    )  # fmt: skip
    file = queue_here(queue_file)
    with file.edit() as e:
        if _is_full(e, file.file, queue, longest):
            raise QueueFull(f"{file.path}: {longest} jobs of queue {queue} are unfinished: full")
        added = e.add(job)
    tell(file.listeners, "enqueued", [job])
    return added


def _is_full(e: "Edit", file: "QueueFile", queue: str, longest: int) -> bool:
    if _are_fewer(e, file, queue, longest):
        return False
    left = longest
    for job in e.rows(_UNFINISHED):
        if job.queue == queue and not job.finished:
            left -= 1
            if not left:
                return True
    return False


def _are_fewer(e: "Edit", file: "QueueFile", queue: str, longest: int) -> bool:
    """Whether it is plain from the bytes alone, which is quick, that fewer rows are unfinished."""
    label = b"\t%b" % queue.encode()
    unfinished = labelled = 0
    for _, block in blocks(file.fd, e.start, e.size):
        unfinished += sum(map(block.count, _UNFINISHED))
        labelled += block.count(label) if queue != "default" else longest
        if min(unfinished, labelled) >= longest:
            return False
    return True
