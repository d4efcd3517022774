"""Jobs over HTTP for a Flask application: twelve routes, and the dashboard beside them.

init_app(app, auth=lambda request: request.headers.get("X-Key") == KEY, dashboard="/queue")

Who may use them is said by `auth`; without it only this machine, by no other name than its own.
Needs the extra `web`: pip install 'dbbasic-queue[web]'.
"""

import math
import os
import re
import subprocess
import sys
import threading
import time
from datetime import timedelta
from itertools import chain

from flask import Blueprint, Flask, Request, Response, current_app, request
from werkzeug.exceptions import HTTPException

from ... import Queue, QueueError
from ...errors import BadArgument, QueueBusy
from ...here import queue_here
from ...show import as_json, document
from ...stats import Figures
from .asked import (
    LABEL,
    WORKER,
    Refused,
    body,
    is_from_here,
    is_plain,
    label_in,
    limit_of,
    seconds_in,
)
from .mounted import mount, who

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from werkzeug.wrappers import Response as BaseResponse

    from ... import Job

    Auth = Callable[[Request], object]

NAME = "dbbasic_queue"
_STOP_WAIT = 5  # seconds in which workers that have nothing to do stop
_SIZES = ("high", "normal", "low")  # queues that are counted even when they have no job


class _Use:
    """What an application said to init_app."""

    def __init__(self, queue: Queue, auth: "Auth | None", label: str, worker: "list[str]") -> None:
        self.queue, self.auth, self.label, self.worker = queue, auth, label, worker
        self.figures = Figures(queue)


blueprint = Blueprint(NAME, __name__)


def init_app(
    app: Flask,
    queue_file: Queue | None = None,
    *,
    auth: "Auth | None" = None,
    url_prefix: str = "/api",
    dashboard: str | None = None,
    default_label: str = "normal",
    worker: "str | Sequence[str] | None" = None,
) -> Queue:
    """Add the routes under `url_prefix` to an application, and return the queue that they use.

    `auth(request)` is asked before each; false is 403, and it may abort(401) by itself.  None
    answers this machine only; behind a proxy on it everybody comes from this machine, so give one.
    `dashboard`: where the pages are mounted, as "/queue".  `default_label`: the queue of a request
    that names none.  `worker`: MODULE:HANDLERS, or a whole command as ["/app/bin/dbbasic-queue",
    "work", "jobs:HANDLERS"], that workers/start runs; None refuses it, since cron starts workers.
    """
    if auth is not None and not callable(auth):
        raise BadArgument(f"auth={auth!r:.80} is no function: give auth(request) -> bool")
    if not isinstance(default_label, str) or not LABEL.fullmatch(default_label):
        raise BadArgument(f"default_label={default_label!r:.80} is no label of a queue")
    if NAME in app.extensions:
        raise BadArgument("init_app was called for this application already")
    if isinstance(worker, str):
        worker = [sys.executable, "-m", NAME, "work", worker]
    use = _Use(queue_here(queue_file), auth, default_label, list(worker or ()))
    app.extensions[NAME] = use
    if blueprint.name not in app.blueprints:
        app.register_blueprint(blueprint, url_prefix=url_prefix)
    if dashboard is not None:
        from ...web import dashboard as dashboard_of  # only where somebody wants pages

        pages = dashboard_of(
            use.queue,
            auth=None if auth is None else who,
            hosts=[] if auth is None else ["*"],  # any name is the application's business then
            secret=app.secret_key,
        )
        mount(app, dashboard, pages, auth)
    return use.queue


def get_queue() -> Queue | None:
    """Return the queue of the application that runs here, None where init_app was not called."""
    use = current_app.extensions.get(NAME)
    return None if use is None else use.queue


def _use() -> _Use:
    use = current_app.extensions.get(NAME)
    if not isinstance(use, _Use):
        raise Refused("dbbasic-queue not initialized: call init_app(app)", 500)
    return use


# --- who may


@blueprint.before_request
def _ask() -> None:
    use = _use()
    if use.auth is None:
        if not is_from_here(request):
            text = "only this machine may ask: init_app(app, auth=...) says who else may"
            raise Refused(text, 403)
    elif not use.auth(request):
        raise Refused("not allowed", 403)
    if request.method == "POST" and not request.is_json and not is_plain(request):
        raise Refused("send JSON, with Content-Type: application/json")


# --- answers


def _json(value: "Any", status: int = 200) -> Response:
    return Response(as_json(value) + "\n", status, mimetype="application/json")


@blueprint.after_request
def _close(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response


@blueprint.errorhandler(Refused)
def _refuse(error: Refused) -> Response:
    return _json({"error": str(error)}, error.status)


@blueprint.errorhandler(HTTPException)
def _abort(error: HTTPException) -> "BaseResponse":
    response = error.get_response()
    if response.status_code >= 400:
        response.set_data(as_json({"error": error.description or error.name}) + "\n")
        response.mimetype = "application/json"
    return response


@blueprint.errorhandler(QueueError)
def _fail(error: QueueError) -> Response:
    status = 503 if isinstance(error, QueueBusy) else 400 if isinstance(error, BadArgument) else 500
    if status == 500:
        current_app.logger.error("%s", error)
    text = str(error).replace(_use().queue.path, "the queue")  # where it lies is nobody's business
    response = _json({"error": text}, status)
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response


def _job(job: "Job") -> "dict[str, Any]":
    """Return a job as people may see it; its type is its `name` too."""
    return {**document(job), "name": job.type}


def _listed(word: str, jobs: "Iterator[Job]") -> Response:
    """Return a list of jobs and their count, sent as they are read: no list is held."""
    first = next(jobs, None)  # what is wrong with the file is found before the answer begins

    def parts() -> "Iterator[str]":
        count = 0
        yield f'{{"{word}": ['
        for job in () if first is None else chain([first], jobs):
            yield (", " if count else "") + as_json(_job(job))
            count += 1
        yield f'], "count": {count}}}\n'

    return Response(parts(), mimetype="application/json")


def _enqueued(given: "dict[str, Any]", run_at: timedelta | None, priority: "Any" = 0) -> str:
    name = given.get("name")
    if not isinstance(name, str) or not name:
        raise Refused("name: give the type of the job, which is a text")
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise Refused(f"priority={priority!r:.80} is no whole number (lower runs first)")
    use = _use()
    label = label_in(given, "queue") or use.label
    try:
        return use.queue.enqueue(
            name, given.get("data", {}), run_at, queue=label, priority=priority
        )
    except BadArgument as error:
        text = str(error).replace("job_type=", "name=", 1)
        raise Refused(re.sub("^the payload of ", "data: the payload of ", text)) from None


# --- the routes


@blueprint.post("/jobs/dispatch")
def dispatch() -> Response:
    """Add a job that is due now."""
    given = body("name", "data", "queue", "priority")
    id = _enqueued(given, None, given.get("priority", 0))
    return _json({"success": True, "job_id": id, "message": "Job dispatched successfully"})


@blueprint.post("/jobs/schedule")
def schedule() -> Response:
    """Add a job that is due in `delay` seconds."""
    given = body("delay", "name", "data", "queue")
    delay = seconds_in(given, "delay", 0)
    now = time.time()
    id = _enqueued(given, timedelta(seconds=delay) if delay else None)
    job = _use().queue.get(id)
    at = job.run_at if job else math.ceil(now + delay)  # it has run, and was purged
    return _json({"success": True, "job_id": id, "scheduled_at": at})


@blueprint.get("/jobs/<job_id>/status")
def status(job_id: str) -> Response:
    """Tell everything about a job."""
    job = _use().queue.get(job_id)
    return _json({"error": "Job not found"}, 404) if job is None else _json(_job(job))


@blueprint.post("/jobs/<job_id>/retry")
def retry(job_id: str) -> Response:
    """Make a failed or cancelled job pending again."""
    return _json({"success": job_id in _use().queue.retry(job_id), "job_id": job_id})


@blueprint.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """Cancel a pending job."""
    return _json({"success": _use().queue.cancel(job_id), "job_id": job_id})


@blueprint.get("/jobs/pending")
def pending() -> Response:
    """List the pending jobs, of a queue or of all."""
    label = request.args.get("queue")
    jobs = _use().queue.jobs(status="pending", queue=label, limit=limit_of(None))
    return _listed("pending_jobs", jobs)


@blueprint.get("/jobs/failed")
def failed() -> Response:
    """List the jobs that failed, the last one added first."""
    jobs = _use().queue.jobs(status="failed", newest=True, limit=limit_of(50))
    return _listed("failed_jobs", jobs)


@blueprint.get("/jobs/stats")
def figures() -> Response:
    """Tell the figures of the queue."""
    found = _use().figures.look()
    sizes = dict.fromkeys(_SIZES, 0)
    sizes |= {label: counts["pending"] for label, counts in found["queues"].items()}
    theirs = {
        "processed_jobs": found["processed"],
        "failed_jobs": found["statuses"]["failed"],
        "active_workers": found["workers"],
        "queue_sizes": sizes,
    }
    ours = {name: value for name, value in found.items() if name != "file"}
    return _json({**ours, **theirs})


@blueprint.post("/jobs/clear-completed")
def clear_completed() -> Response:
    """Delete completed jobs that are `older_than` seconds old."""
    older_than = seconds_in(body("older_than"), "older_than", 3600)
    count = _use().queue.purge(older_than, status="completed")
    return _json({"success": True, "cleared_count": count})


@blueprint.post("/jobs/flush")
def flush() -> Response:
    """Delete the pending jobs, of a queue or of all."""
    label = label_in(body("queue"), "queue")
    count = _use().queue.purge(status="pending", queue=label)
    return _json({"success": True, "flushed_count": count})


@blueprint.post("/workers/start")
def start() -> Response:
    """Start one worker, as a process of its own: it runs what is due, and ends."""
    given = body("queue", "worker_id")
    label, name = label_in(given, "queue"), label_in(given, "worker_id", WORKER)
    use = _use()
    if not use.worker:
        text = "cron starts workers; init_app(app, worker='MODULE:HANDLERS') lets this do it too"
        raise Refused(text, 501)
    command = [*use.worker]
    command += [] if label is None else [f"--queue={label}"]
    command += [] if name is None else [f"--name={name}"]
    path = os.pathsep.join(dict.fromkeys(place or os.getcwd() for place in sys.path))
    # what the application can import, its worker can
    env = {**os.environ, "DBBASIC_QUEUE": use.queue.path, "PYTHONPATH": path}
    try:
        child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        current_app.logger.error("%s: %s", command[0], error.strerror)
        raise Refused("the worker cannot be started", 500) from None
    threading.Thread(target=child.wait, daemon=True).start()  # so that it leaves no zombie
    return _json({"success": True, "worker_id": name, "queue": label})


@blueprint.post("/workers/stop")
def stop() -> Response:
    """Ask the live workers to stop after their current jobs."""
    left = _use().queue.stop(timeout=_STOP_WAIT)
    jobs = f"{len(left)} of the workers will stop when their current jobs have ended"
    return _json({"success": True, "message": jobs if left else "Workers stopped gracefully"})
