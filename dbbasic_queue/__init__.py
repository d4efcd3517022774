"""A job queue that is one TSV file: any script appends a row, a cron line runs
`process_jobs(handlers)`.

enqueue("send_email", {"to": "user@example.com"})        anywhere
process_jobs({"send_email": send_email})                 in worker.py, each minute
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from .errors import Discard as Discard
    from .errors import QueueError as QueueError
    from .errors import Retry as Retry
    from .errors import Snooze as Snooze
    from .here import current_job as current_job
    from .job import Job as Job
    from .new import Backoff, When
    from .queue import Admit, Handlers, Layer, Listener
    from .queue import Queue as Queue

__version__ = "2.0.0"
_ROOMS = {
    "Queue": "queue",
    "Job": "job",
    "current_job": "here",
    "Snooze": "errors",
    "Retry": "errors",
    "Discard": "errors",
    "QueueError": "errors",
}


def __getattr__(name: str) -> "Any":
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted(("enqueue", "process_jobs", "get_job", "cancel_job", *_ROOMS))


def enqueue(
    job_type: str,
    payload: "Any" = None,
    run_at: "When" = None,
    *,
    queue: str = "default",
    priority: int = 0,
    max_attempts: "int | None" = None,
    timeout: "float | None" = None,
    backoff: "str | None" = None,
    after: "str | Iterable[str] | None" = None,
    group: "str | None" = None,
    id: "str | None" = None,
    columns: "Mapping[str, str]" = {},  # noqa: B006 (never changed)
) -> str:
    """Add a job to the default queue and return its id; when this returns, the job is stored.

    `payload`: any JSON value up to 1 MiB.  `run_at`: not before this Unix time, aware datetime, or
    timedelta from now (None: now).  `queue`: a label that workers may choose by.  `priority`: lower
    runs first.  `max_attempts`, `timeout` (seconds), `backoff` ("none", "linear:BASE:CAP",
    "exponential:BASE:CAP[:jitter]"): None takes the worker's.  `after`: ids of jobs that must
    complete first, or conditions such as "any:ID" and "ok:@GROUP". `group`: a label that jobs
    share.  `id`: 16 lower-case hex characters of your own.  `columns`: text for columns of your
    own.

    Raises errors.BadArgument (a ValueError), errors.QueueBusy or errors.NotStored, all QueueError:
    then nothing was stored.
    """
    from .queue import default_queue

    return default_queue().enqueue(
        job_type, payload, run_at, queue=queue, priority=priority, max_attempts=max_attempts,
        timeout=timeout, backoff=backoff, after=after, group=group, id=id, columns=columns,
    )  # fmt: skip


def process_jobs(
    handlers: "Handlers",
    max_attempts: int = 3,
    *,
    queues: "Sequence[str] | None" = None,
    run_for: "float | None" = None,
    max_jobs: "int | None" = None,
    processes: "int | tuple[int, int]" = 0,
    name: "str | None" = None,
    timeout: "float | None" = None,
    backoff: "str | Backoff | None" = None,
    max_workers: "int | None" = None,
    grace: "float | None" = None,
    concurrency: int = 1,
    memory: "int | None" = None,
    middleware: "Sequence[Layer]" = (),
    listeners: "Sequence[Listener]" = (),
    admit: "Sequence[Admit]" = (),
    settings: "Mapping[str, Mapping[str, Any]] | None" = None,
    keep: "Mapping[str, Any] | None" = None,
    keep_by: str = "archive",
) -> None:
    """Run the due jobs of the default queue, then return: one tick.

    `handlers`: a mapping from type to function(payload) -> result (JSON).  A job that raises is
    tried `max_attempts` times in all.  `queues`: only these, in this order of precedence.
    `run_for`: go on for so many seconds, looking for new jobs each 0.1 s (math.inf: for ever).
    `max_jobs`: stop after so many.  `name` leads this worker's id.  `timeout` (seconds) and
    `backoff` (words, or a function attempts -> seconds) are for jobs that have none of their own.
    `processes`: run handlers in n forked workers, or (least, most) by what waits; 0 is in this
    process.  `memory`: megabytes that each of those may use.
    `max_workers`: leave at once when so many live already (None: one per CPU, at least 4).
    `grace`: seconds that the current job gets after SIGTERM (None: as long as it takes).
    `middleware`: functions layer(job, call_next) around each run; `listeners`: functions
    listener(event, job), told after the commit; `admit`: functions admit(job, count) -> None | True
    | False, asked under the lock before a claim.  `settings`: per queue, any of rank, max_attempts,
    timeout, backoff, aging.  `keep`: how long finished jobs stay, by status, as {"completed": "7d",
    "failed": timedelta(days=30)}; older ones are moved to the archive, or deleted with
    keep_by="purge", once an hour.  "archive" in it: how long archived ones do.  A job's own column
    `keep`, such as "1h" or "for_ever", wins.
    """
    from .files import usual_path
    from .hint import idle_tick, is_tended

    path = usual_path()
    idles = run_for is None and hasattr(handlers, "keys") and (keep is None or is_tended(path))
    if idles and idle_tick(path):
        return
    from .queue import default_queue

    default_queue().process_jobs(
        handlers, max_attempts, queues=queues, run_for=run_for, max_jobs=max_jobs,
        processes=processes, name=name, timeout=timeout, backoff=backoff, max_workers=max_workers,
        grace=grace, concurrency=concurrency, memory=memory, middleware=middleware,
        listeners=listeners, admit=admit, settings=settings, keep=keep, keep_by=keep_by,
    )  # fmt: skip


def get_job(job_id: str) -> "dict[str, Any] | None":
    """Return a job as a dict of its nine documented keys, None when the id is unknown."""
    from .queue import default_queue

    return default_queue().get_job(job_id)


def cancel_job(job_id: str) -> bool:
    """Cancel a pending job of the default queue; False when it is unknown, running or finished."""
    from .queue import default_queue

    return default_queue().cancel(job_id)
