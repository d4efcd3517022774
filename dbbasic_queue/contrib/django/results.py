"""A job as Django's TaskResult: its status, times, errors, and who has tried it.

The row keeps the last attempt.  What failed before it is in the column `task_errors`: for each
failed attempt its number, worker, start, exception and traceback.
"""

import json
import math
from dataclasses import fields
from datetime import datetime, timezone
from traceback import format_exception
from typing import NamedTuple

from django.conf import settings

from ...errors import Discard
from .framework import LEAST, MOST, Task, TaskError, TaskResult, TaskResultStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ... import Job

COLUMN = "task_errors"
_KEPT = 10  # errors of a job; the oldest go
_LONGEST = 4000  # characters of a traceback: the last ones, where it failed
_UNKNOWN = "unknown"  # the worker of an attempt of which nothing but its number is left
_STATUS = {
    "pending": TaskResultStatus.READY,
    "processing": TaskResultStatus.RUNNING,
    "completed": TaskResultStatus.SUCCESSFUL,
    "failed": TaskResultStatus.FAILED,
    "cancelled": TaskResultStatus.FAILED,
}
_OURS = __package__ or ""


class Failure(NamedTuple):
    """One failed attempt."""

    attempt: int
    worker: str
    started_at: float
    kind: str  # the path of the exception's class
    traceback: str


def fresh(task: Task, args: "Any", kwargs: "Any", alias: str) -> TaskResult:
    """Return the result of a task that no file has yet; TypeError for what is not JSON."""
    return TaskResult(
        task=task, id="", status=TaskResultStatus.READY, enqueued_at=None, started_at=None,
        finished_at=None, last_attempted_at=None, args=args, kwargs=kwargs, backend=alias,
        errors=[], worker_ids=[],
    )  # fmt: skip


def result_of(job: "Job", task: Task, alias: str) -> TaskResult:
    """Return what Django may know of a job; Discard where its payload is no call."""
    args, kwargs = call_in(job)
    failures = failures_of(job)
    last = job.started_at if job.attempts else None
    first = failures[0].started_at if failures and failures[0].attempt < job.attempts else last
    result = TaskResult(
        task=as_enqueued(task, job, alias), id=job.id, status=_STATUS[job.status],
        enqueued_at=moment(_enqueued_at(job)), started_at=moment(first),
        finished_at=moment(job.finished_at if job.finished else None),
        last_attempted_at=moment(last), args=args, kwargs=kwargs, backend=alias,
        errors=_errors(job, failures), worker_ids=_workers(job, failures),
    )  # fmt: skip
    if job.status == "completed":
        change(result, _return_value=job.result)
    return result


def change(result: TaskResult, **values: "Any") -> None:
    """Give a result other values: it is frozen for its readers only."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def call_in(job: "Job") -> "tuple[list[Any], dict[str, Any]]":
    """Return the arguments in a payload; without one it is a call without arguments."""
    payload = {} if job.payload is None else job.payload
    good = isinstance(payload, dict) and payload.keys() <= {"args", "kwargs"}
    args, kwargs = (payload.get("args", []), payload.get("kwargs", {})) if good else (None, None)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        text = 'the payload is no call: a task takes {"args": [...], "kwargs": {...}}'
        raise Discard(f"task {job.type}: {text}")
    return args, kwargs


def as_enqueued(task: Task, job: "Job", alias: str) -> Task:
    """Return the task as it was enqueued, whether the settings would still allow it or not."""
    made: Task = object.__new__(type(task))
    values = {field.name: getattr(task, field.name) for field in fields(task)}
    values |= {
        "priority": max(LEAST, min(MOST, -job.priority)),
        "queue_name": job.queue,
        "run_after": moment(job.run_at if job.run_at > job.created_at else None),
        "backend": alias,
    }
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def moment(at: float | None) -> datetime | None:
    """Return a Unix time as Django has times here: aware where USE_TZ says so."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, timezone.utc if settings.USE_TZ else None)


def _enqueued_at(job: "Job") -> float:
    """Return when a job was added: its id says it to the microsecond, its row in whole seconds."""
    at = math.floor(int(job.id[:13], 16) / 1000) / 1000  # not after a start, which has milliseconds
    return at if 0 <= at - job.created_at < 1 else float(job.created_at)


# --- what failed


def failure_of(job: "Job", error: BaseException, started_at: float) -> Failure:
    """Return what is kept of an exception that came out of a running job."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return Failure(
        job.attempts, worker_of(job), round(started_at, 3), kind, _text(error)[-_LONGEST:]
    )


def cell_with(job: "Job", failure: Failure) -> str:
    """Return the cell of a job's failures with one more; of another life of it none stays."""
    kept = [one for one in _kept(job) if one.attempt < failure.attempt]
    return json.dumps({"job": job.id, "errors": [*kept, failure][-_KEPT:]}, ensure_ascii=False)


def failures_of(job: "Job") -> list[Failure]:
    """Return the attempts that have failed, as far as they are kept."""
    ended = job.attempts - (job.status in ("processing", "completed"))  # the last one has not
    return [one for one in _kept(job) if one.attempt <= ended]


def worker_of(job: "Job") -> str:
    """Return the id of the worker that has, or had, a job."""
    return (job.worker or "").rpartition(".")[0] or _UNKNOWN


def error_of(failure: Failure) -> TaskError:
    return TaskError(exception_class_path=failure.kind, traceback=failure.traceback)


def _kept(job: "Job") -> list[Failure]:
    try:
        found = json.loads(job.cell(COLUMN) or "null")
        if found is None or found["job"] != job.id:
            return []
        return [Failure(*one) for one in found["errors"]]
    except (ValueError, TypeError, LookupError):
        return []  # changed by hand; the row says the last error too


def _text(error: BaseException) -> str:
    """Return the traceback from the task on: the calls that led to it are ours."""
    trace = error.__traceback__
    while trace and trace.tb_next and not _is_theirs(trace.tb_frame.f_globals.get("__name__", "")):
        trace = trace.tb_next
    try:
        return "".join(format_exception(type(error), error, trace))
    except BaseException:  # its own text cannot be made
        return f"{type(error).__qualname__}: (its text cannot be read)\n"


def _is_theirs(module: str) -> bool:
    return module.partition(".")[0] != _OURS.partition(".")[0]


def _errors(job: "Job", failures: list[Failure]) -> list[TaskError]:
    """Return the errors, and that of an attempt which could not tell: its worker died."""
    errors = list(map(error_of, failures))
    told = {one.attempt for one in failures}
    if job.error and job.status in ("pending", "failed") and job.attempts not in told:
        errors += [_said("QueueError", job.error)] if job.attempts else []
    if job.status == "cancelled":
        errors.append(_said("Killed", job.error or "cancelled"))
    return errors


def _said(kind: str, text: str) -> TaskError:
    return TaskError(exception_class_path=f"dbbasic_queue.errors.{kind}", traceback=f"{text}\n")


def _workers(job: "Job", failures: list[Failure]) -> list[str]:
    """Return a worker for each attempt, since Django counts attempts by them."""
    known = {one.attempt: one.worker for one in failures}
    if job.worker:
        known[job.attempts] = worker_of(job)
    return [known.get(number, _UNKNOWN) for number in range(1, job.attempts + 1)]
