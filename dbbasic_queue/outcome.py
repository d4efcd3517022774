"""How a run ends, in the cells of the row: completed, failed, cancelled, or pending again."""

import math
import time

from .errors import Discard, JobTimeout, Killed, Retry, Snooze, Stopped
from .job import Job
from .journal import now
from .log import error, error_with, info, traceback_of, warn
from .options import Options
from .recover import ON_REQUEST, killed
from .tsv import dump, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .journal import Cells

LONGEST_ERROR = 2000  # characters


def completed(attempt: int, result: "Any") -> "Cells":
    """Return the cells of a job whose handler returned; BadArgument when the result is not JSON."""
    finished_at = now()
    return {
        "status": b"completed",
        "attempts": b"%d" % attempt,
        "error": b"",
        "result": dump(result, "the result"),
        "finished_at": finished_at,
    }


def ended_by(failure: BaseException, job: Job, options: Options) -> "Cells":
    """Return the cells of a job whose handler raised, and log that with the whole traceback.

    `job.attempts` counts this attempt.  A Retry or Discard that nothing has caused says it all.
    """
    text, readable = text_of(failure)
    cells = _cells(failure, text, job, options)
    line = "job %s %s attempt %d by %s ended with %s"
    values = (job.id, job.type, job.attempts, job.worker or "", text)
    if isinstance(failure, (Snooze, KeyboardInterrupt, Stopped, Killed)):
        info(line, *values)
    elif isinstance(failure, (Retry, Discard)) and not (failure.__cause__ or failure.__context__):
        error(line, *values)
    else:
        error_with(line, values, traceback_of(failure, readable))
    return cells


def _cells(failure: BaseException, text: str, job: Job, options: Options) -> "Cells":
    if isinstance(failure, Snooze):
        cells = put_back(job, failure.seconds)
        return cells | {"error": escape(text).encode()} if failure.reason else cells
    if isinstance(failure, (KeyboardInterrupt, Stopped)):
        return put_back(job, 0)
    if isinstance(failure, Killed):
        return {"attempts": b"%d" % job.attempts} | killed(escape(text).encode() or ON_REQUEST)
    cells = {"attempts": b"%d" % job.attempts, "error": escape(text).encode()}
    if isinstance(failure, Discard) or job.attempts >= options.attempts_of(job):
        return cells | {"status": b"failed", "finished_at": b"%.3f" % time.time()}
    wait = failure.after if isinstance(failure, Retry) else None
    if wait is None:
        wait = _backoff(job, options)
    return cells | {"status": b"pending", "worker": b"", "run_at": later(wait)}


def put_back(job: Job, seconds: float) -> "Cells":
    """Return the cells of a job that goes back without an attempt."""
    return {
        "status": b"pending",
        "worker": b"",
        "attempts": b"%d" % (job.attempts - 1),
        "run_at": later(seconds),
    }


def later(seconds: float) -> bytes:
    now = time.time()
    return b"%d" % (int(now) if seconds <= 0 else math.ceil(now + min(seconds, 1e10)))


def _backoff(job: Job, options: Options) -> float:
    try:
        return max(0.0, float(options.backoff_of(job)(job.attempts)))
    except Exception as problem:  # the user's function: the job must not be lost for it
        warn("the backoff of job %s raised %s; 60 s are taken", job.id, repr(problem))
        return 60.0


def text_of(failure: BaseException) -> tuple[str, bool]:
    """Return the type and the message of an exception, as the job's error; False when that raised
    too.
    """
    kind = type(failure)
    name = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        message = str(failure.reason if isinstance(failure, Discard) else failure)
    except BaseException:  # an exception whose own __str__ raises
        return f"{name}: (its text cannot be read)", False
    if isinstance(failure, JobTimeout):
        message = message or "timed out"
    elif not isinstance(failure, (Discard, Snooze, Killed, Retry)):
        message = f"{name}: {message}" if message else name
    return message[:LONGEST_ERROR], True
