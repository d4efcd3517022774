"""One tick of a back end's queue: Django's tasks as handlers, its signals and connections around
each.
"""

import json
import logging
import time
from contextvars import ContextVar

from django.db import close_old_connections, connections, reset_queries

from ... import Discard, Snooze, current_job, health
from ...errors import BadArgument, Stopped
from ...middleware import traceback_kept
from ...redact import redacting
from ...schedule import serving
from .backend import TSVBackend
from .calling import call
from .declared import discover, tasks
from .framework import (
    Task,
    TaskContext,
    TaskResult,
    TaskResultStatus,
    normalize_json,
    task_finished,
    task_started,
)
from .results import COLUMN, cell_with, change, error_of, failure_of, moment, result_of, worker_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ... import Job
    from ...queue import Handlers, Layer

WORKER = "manage.py process_jobs"  # by this name `health` tells why it cannot begin
_log = logging.getLogger("dbbasic_queue")
_running: "ContextVar[TaskResult]" = ContextVar("dbbasic_queue_task")
_PUT_BACK = (KeyboardInterrupt, Stopped, Snooze)  # the job has not ended


def work(
    backend: TSVBackend, *, max_attempts: int | None = None, timeout: float | None = None,
    backoff: str | None = None, **given: "Any",
) -> None:  # fmt: skip
    """Run the jobs of a back end that are due, and return: one tick.

    The arguments are those of process_jobs; None takes the back end's option.
    """
    options = backend.options
    limit = options.get("max_attempts", 1) if max_attempts is None else max_attempts
    try:
        handlers = handlers_of(backend)
    except Exception as error:
        health.note(backend.queue, WORKER, f"{type(error).__name__}: {error}")
        raise
    health.forget(backend.queue, WORKER)
    if given.get("processes"):
        connections.close_all()  # a forked process must not share one
    backend.queue.process_jobs(
        handlers,
        limit,
        timeout=options.get("timeout") if timeout is None else timeout,
        backoff=options.get("backoff") if backoff is None else backoff,
        middleware=[traceback_kept, told(backend, limit), redacting],
        **given,
    )


def handlers_of(backend: TSVBackend) -> "Handlers":
    """Return a handler for each task that is declared here, and what runs schedules."""
    discover(backend.modules)
    return serving({path: _handler(task) for path, task in tasks.items()})


def _handler(task: Task) -> "Callable[[Any], Any]":
    def handler(payload: "Any") -> "Any":
        result = _running.get()
        context = [TaskContext(task_result=result)] if task.takes_context else []
        value = normalize_json(call(task, [*context, *result.args], result.kwargs))
        json.dumps(value, allow_nan=False)  # else it could not be stored after it was told
        return value

    return handler


def told(backend: TSVBackend, max_attempts: int) -> "Layer":
    """Return the layer that tells Django of each run, and keeps what failed."""

    def layer(job: "Job", call_next: "Callable[[Job], Any]") -> "Any":
        if job.type not in tasks:
            return call_next(job)  # a schedule's row
        close_old_connections()
        reset_queries()
        started_at = time.time()
        result = _begun(job, backend, started_at)
        token = _running.set(result)
        try:
            task_started.send_robust(type(backend), task_result=result)
            value = call_next(job)
        except _PUT_BACK:
            raise
        except BaseException as error:
            _failed(job, error, result, started_at)
            limit = job.max_attempts or max_attempts
            if isinstance(error, Discard) or job.attempts >= limit:
                _end(backend, result, TaskResultStatus.FAILED)
            raise
        else:
            change(result, _return_value=value)
            _end(backend, result, TaskResultStatus.SUCCESSFUL)
            return value
        finally:
            _running.reset(token)
            close_old_connections()

    return layer


def _begun(job: "Job", backend: TSVBackend, at: float) -> TaskResult:
    """Return the result of a job that begins now, on its attempt `job.attempts`."""
    result = result_of(job, tasks[job.type], backend.alias)
    started_at = moment(at) if len(result.worker_ids) < 2 else result.started_at
    workers = [*result.worker_ids[:-1], worker_of(job)]
    change(
        result, status=TaskResultStatus.RUNNING, started_at=started_at or moment(at),
        last_attempted_at=moment(at), finished_at=None, worker_ids=workers,
    )  # fmt: skip
    return result


def _failed(job: "Job", error: BaseException, result: TaskResult, started_at: float) -> None:
    failure = failure_of(job, error, started_at)
    result.errors.append(error_of(failure))
    try:
        current_job().record(**{COLUMN: cell_with(job, failure)})
    except (OSError, BadArgument) as problem:
        _log.warning("job %s: its traceback is not stored: %s", job.id, problem)


def _end(backend: TSVBackend, result: TaskResult, status: "Any") -> None:
    change(result, status=status, finished_at=moment(time.time()))
    task_finished.send_robust(type(backend), task_result=result)
