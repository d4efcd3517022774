"""What a worker runs of a task: its call inside its layers, and what tells of its failure."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import Job, Snooze, crypt, current_job
from ..call import from_payload
from ..errors import QueueError, UnknownJob
from ..here import queue_here
from ..layers import awaiting, inside, is_async
from ..unique import enqueue_unique
from .task import WAITS, Task, failure_of

if TYPE_CHECKING:
    from ..queue import Layer

Handler = Callable[[Any], Any]


def _made(task: Task[..., Any], payload: Any) -> Any:
    """Make the call of a payload."""
    bound = from_payload(task.name, task.signature, payload)
    return task.function(*bound.args, **bound.kwargs)


def handler_of(task: Task[..., Any], layers: "Sequence[Layer]") -> Handler:
    is_class = isinstance(task.function, type)

    def call(payload: Any) -> Any:
        made = _made(task, payload)
        return made.handle() if is_class else made

    if task.sealed:
        layers = [crypt.unsealing(task.keys, all=True), *layers]
    if not layers and not task.tells:
        return call
    if is_async(getattr(task.function, "handle", task.function)):
        layers = list(map(awaiting, layers))

    def innermost(job: Job) -> Any:
        if task.tells and task.sealed:  # it takes the plain payload, and seals it again
            _promise(task, job)
        return call(job.payload)

    run = inside(layers, innermost)

    def handler(payload: Any) -> Any:
        job = current_job()
        if payload is not job.payload:  # a layer around all tasks has given another one
            job = job.replace(payload=payload)
        if task.tells and not task.sealed:
            _promise(task, job)
        return run(job)

    return handler


def _promise(task: Task[..., Any], job: Job) -> None:
    """Add the job that calls `failed`, where none waits: this run may be the last one.

    One does since `enqueue`; but not after a retry, nor for what came as a mapping or from a shell.
    """
    queue = queue_here()
    waits = queue.get(job.cell(WAITS)) if job.cell(WAITS) else None
    if waits is not None and waits.status not in ("completed", "failed"):
        return
    row = queue.get(job.id)  # its payload as it is in the file
    if row is None:
        raise UnknownJob(f"{queue.path}: no row has the id {job.id}")
    like = {"job_type": task.name, "payload": job.payload if task.sealed else row.payload,
            "queue": job.queue, "priority": job.priority, "timeout": job.timeout}  # fmt: skip
    try:
        told = task.as_added(failure_of(like, job.id))
        id = enqueue_unique(**told, key=job.id, queue_file=queue)
    except QueueError as problem:  # it must stand before this job may be over
        raise Snooze(10) from problem
    current_job().record(**{WAITS: id})


def teller_of(task: Task[..., Any]) -> Handler:
    """Return the handler that calls `failed` of the job that this one has waited for."""

    async def awaited(result: Any) -> None:
        await result

    def handler(payload: Any) -> Any:
        id = (current_job().after or "").partition(":")[2]
        queue = queue_here()
        ended = queue.get(id)
        if ended is None:
            raise UnknownJob(f"{queue.path}: no job has the id {id}")
        if not ended.finished:  # somebody had it tried again
            raise Snooze(1)
        if ended.status != "failed":
            return None
        result = _made(task, payload).failed(_error_of(task, ended))
        return awaited(result) if hasattr(result, "__await__") else None

    if not task.sealed:
        return handler
    layer = crypt.unsealing(task.keys, all=True)
    layer = awaiting(layer) if is_async(getattr(task.function, "failed", None)) else layer
    run = inside([layer], lambda job: handler(job.payload))
    return lambda payload: run(current_job())


def _error_of(task: Task[..., Any], job: Job) -> str:
    try:
        return (crypt.opened(job, task.keys) if task.sealed else job).error or ""
    except crypt.NotOpened as problem:
        return f"({problem})"
