"""At most one job of a kind at a time: look for the key and add the job in one edit.

The key stands in the column `unique` of the job's own row, so there is nothing to lock, to expire
or to leak: a key is held by a row, for as long as that row is what it is.
"""

import os
import time

from . import lookup
from .beside import open_regular
from .disk import unhurried
from .errors import BadArgument, QueueError, in_seconds
from .files import sync
from .here import queue_here
from .job import Job
from .journal import worker_of
from .log import tell
from .new import new_job, new_jobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta
    from typing import Any

    from .edit import Edit
    from .new import When
    from .queue import Queue

COLUMN = "unique"
LONGEST = 200  # characters of a key
REPLACED = "payload run_at priority queue max_attempts timeout backoff attempts error".split()


def enqueue_unique(
    job_type: str,
    payload: "Any" = None,
    run_at: "When" = None,
    *,
    key: "str | int | Callable[[Any], str | int]",
    seconds: "float | timedelta | None" = None,
    replace: bool = False,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int | None = None,
    timeout: float | None = None,
    backoff: str | None = None,
    after: "str | Iterable[str] | None" = None,
    group: str | None = None,
    id: str | None = None,
    columns: "Mapping[str, str]" = {},  # noqa: B006 (never changed)
    also: "Iterable[dict[str, Any]]" = (),
    queue_file: "Queue | None" = None,
) -> str:
    """Add a job and return its id, or write nothing and return the id of the job that has its key.

    `key` is a text of 1 to 200 characters (or a whole number), or a function payload -> key; each
    type has keys of its own.  A key is held by any job that has not finished, whatever its age: one
    that runs, waits, or is to be tried again.  With `seconds` (or a timedelta) a job that completed
    holds it too, until so many seconds after it was added, so its result serves as a cache; one
    that failed, was cancelled, archived or purged frees it at once; `retry` brings it back unasked.

    `replace=True`: a pending holder keeps its id and place and gets this payload, run_at, priority,
    queue, max_attempts, timeout and backoff, and its attempts begin anew: each call puts the run
    off.  What runs already, or has completed, stays as it is.  It goes with no `id`, so with no
    payload that holds for its id only: a sealed or a signed one.

    `also`: mappings of enqueue's arguments; these jobs are added in front of this one, in the same
    edit, or not at all where the key is held.  The other arguments are those of `enqueue`, as are
    the errors.  A look for a key reads the whole file, some 10 ms for 100,000 jobs; longer where
    many rows hold the key as the whole of another cell, as they do 0 or 1.
    """
    file = queue_here(queue_file)
    text = _checked(key(payload) if callable(key) else key)
    if COLUMN in columns:
        raise BadArgument(f"columns={columns!r:.200}: the column `unique` is for the key")
    if replace and id is not None:
        raise BadArgument(f"replace=True, id={id!r:.80}: the job that has the key keeps its own id")
    age = 0.0 if seconds is None else in_seconds(seconds)
    job = new_job(
        job_type, payload, run_at, queue=queue, priority=priority, max_attempts=max_attempts,
        timeout=timeout, backoff=backoff, after=after, group=group, id=id,
        columns={**columns, COLUMN: text},
    )  # fmt: skip
    beside = list(new_jobs(also))
    added: list[Job] = []

    def body() -> list[Job]:
        with file.edit() as e:
            holder = _holder(file, e, job, age)
            if holder is None:
                added[:] = [one.copy() for one in (*beside, job)]
                e.add_all(added)
                return added[-1:]
            if replace and holder.status == "pending":
                cells = {name: job.raw(name) for name in REPLACED}
                if any(holder.raw(name) != cell for name, cell in cells.items()):
                    e.set(holder, cells)
        return [holder]

    [found] = unhurried(body)
    tell(file.listeners, "enqueued", added)
    return found.id


def _checked(key: object) -> str:
    text = str(key) if isinstance(key, (str, int)) and not isinstance(key, bool) else ""
    if not 0 < len(text) <= LONGEST:
        raise BadArgument(f"key={key!r:.80} is neither a text of 1 to {LONGEST} characters nor a"
                          " whole number")  # fmt: skip
    return text


def _holder(file: "Queue", e: "Edit", job: Job, age: float) -> Job | None:
    """Return the job that holds the key of a new one: an unfinished one, else the youngest."""
    if COLUMN not in e.header.index:
        return None
    cell, found = job.raw(COLUMN), None
    end = b"\n" if e.header.columns[-1] == COLUMN else b"\t"
    for one in e.rows((b"\t%b%b" % (cell, end),)):
        if one.raw(COLUMN) != cell or one.cells[1] != job.cells[1]:
            continue
        one = _as_ended(file, one)
        if not one.finished:
            return one
        if one.status == "completed" and time.time() - one.created_at < age:
            found = one
    return found


def _as_ended(file: "Queue", job: Job) -> Job:
    """Return a job as it now is, also where only its worker's file says yet that it has finished.

    What relies on that outcome must not outlive it: before a new job is added, it is synced.
    """
    now = lookup.as_ended(file.file, job)
    if not now.finished or job.finished or file.sync == "off":
        return now if now.finished else job
    path = os.path.join(file.file.side, "workers", worker_of(job)[0] + ".tsv")
    try:
        fd = open_regular(path, os.O_RDONLY)
        try:
            sync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise QueueError(f"{path}: cannot be synced: {error.strerror}") from error
    return now
