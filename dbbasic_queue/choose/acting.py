"""Cancelling many jobs in one edit."""

import time

from ..disk import unhurried
from ..edit import Edit
from ..here import queue_here
from ..log import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..job import Job
    from ..queue import Queue

_FEW = 200  # ids that are looked up one by one


def cancel(ids: "Iterable[str]", queue_file: "Queue | None" = None) -> list[str]:
    """Cancel those of the jobs that are pending, in one edit; return the ids of all that it has
    cancelled, and so of those which can now never run.
    """
    queue = queue_here(queue_file)
    wanted = dict.fromkeys(ids)

    def body() -> "list[Job]":
        with Edit(queue.file, queue.lock_timeout, durable=queue.sync != "off", create=False) as e:
            if len(wanted) <= _FEW:
                found = [job for id in wanted if (job := e.get(id))]
            else:
                found = [job for job in e.scan("pending") if job.id in wanted]
            at = time.time()
            for job in found:
                if job.status == "pending":
                    e.cancelled.append(e.change(job, status="cancelled", finished_at=at))
        return e.cancelled

    cancelled = unhurried(body) if wanted else []
    tell(queue.listeners, "cancelled", cancelled)
    return [job.id for job in cancelled]
