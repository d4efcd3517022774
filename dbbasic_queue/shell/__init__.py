"""Commands as jobs: `enqueue_command(["make", "-j4"])`, run by whoever has these `handlers`.

The exit status is the outcome.  What a command prints goes to `queue.tsv.d/output/ID.log`, its
input is empty, and it finds its queue and job as $DBBASIC_QUEUE and $DBBASIC_QUEUE_JOB.
"""

import os
import re
import time
from functools import partial

from ..errors import BadArgument, Discard, JobTimeout, Killed, Retry, Stopped
from ..here import queue_here, running
from .command import as_payload, line_of, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ..admit import Counts
    from ..job import Job
    from ..new import When
    from ..queue import Admit, Queue
    from .command import Text

TYPE = "shell"
_MARGIN = 0.25  # seconds that are left of a handler's time when it kills its command
_AGAIN = 5  # seconds until the load is looked at again


def enqueue_command(
    argv: "Iterable[Text]",
    *,
    cwd: "Text | None" = None,
    env: "Mapping[str, str | None] | None" = None,
    run_at: "When" = None,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int = 1,
    timeout: float | None = None,
    backoff: str | None = None,
    after: "str | Iterable[str] | None" = None,
    group: str | None = None,
    id: str | None = None,
    columns: "Mapping[str, str]" = {},  # noqa: B006 (never changed)
    queue_file: "Queue | None" = None,
) -> str:
    """Add a command and return the id of its job; no shell stands between.

    `cwd`: where it runs (None: the working folder).  `env`: variables beside those of the worker,
    None as value for one of here; PATH is taken along, and nothing else.  It is not repeated
    unasked: `max_attempts` is 1.  The rest is as with `enqueue`.
    """
    return queue_here(queue_file).enqueue(
        TYPE, as_payload(argv, cwd, env), run_at, queue=queue, priority=priority,
        max_attempts=max_attempts, timeout=timeout, backoff=backoff, after=after, group=group,
        id=id, columns=columns,
    )  # fmt: skip


def run_command(payload: "Any", *, output: int | None = None) -> "dict[str, Any]":
    """Run a command and return how it went; this is the handler of the type `shell`.

    Another exit status than 0, or a signal, is an attempt that did not succeed.
    """
    from .log import LIMIT, Log
    from .process import MOMENT, kill_left, run

    try:
        command = read(payload)
    except BadArgument as error:
        raise Discard(str(error)) from None
    attempt, queue = running.get(), queue_here()
    marks = {"DBBASIC_QUEUE": queue.path, "DBBASIC_QUEUE_JOB": attempt.job.id}
    env = {**os.environ, "PWD": command.cwd, **command.env, **marks}
    log = Log(queue, attempt.job, line_of(payload), LIMIT if output is None else output)
    how, began = "an error", time.monotonic()
    try:
        if log.was_cut_off:
            kill_left(marks)
        moment = min(MOMENT, attempt.cut_off - _MARGIN)
        status = run(command, env, log.add, moment)
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
    except OSError as error:
        how = _why_not_started(error, command.argv[0], command.cwd)
        raise Retry(how) from None
    except (JobTimeout, Killed, Stopped) as end:
        how = str(end) or type(end).__name__.lower()
        raise
    finally:
        seconds = time.monotonic() - began
        log.close(f"{how} after {seconds:.3f} s")
    if status:
        last = log.last_line()
        raise Retry(f"{how}: {last}" if last else how)
    return {"exit": 0, "seconds": round(seconds, 3)}


def _why_not_started(error: OSError, word: str, folder: str) -> str:
    if error.filename == folder and not os.path.isdir(folder):
        return f"exit status 126: its folder {folder}: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        return f"exit status 127: {word}: command not found"
    return f"exit status 126: {word}: {error.strerror}"


def handlers_with(*, output: int) -> "dict[str, Callable[[Any], Any]]":
    """Return `handlers` that keep at most so many bytes of a job's output."""
    if isinstance(output, bool) or not isinstance(output, int) or output < 0:
        raise BadArgument(f"output={output!r:.80} is no number of bytes")
    return {TYPE: partial(run_command, output=output)}


handlers: "Mapping[str, Callable[[Any], Any]]" = {TYPE: run_command}


def quiet(load: float) -> "Admit":
    """Return an `admit` function: no command starts while the load average is `load` or more.

    As `batch` does; commands start one by one, and the load of the last minute is asked each time.
    """
    if isinstance(load, bool) or not isinstance(load, (int, float)) or not load > 0:
        raise BadArgument(f"load={load!r:.80} is no number above 0")

    def admit(job: "Job", counts: "Counts") -> bool | None:
        if job.type != TYPE:
            return None
        if os.getloadavg()[0] < load:
            return True
        counts.ask_again(time.time() + _AGAIN)
        return False

    return admit


# --- what is seen of it


def command_line(job: "Job") -> str:
    """Return the command of a job as a line that a shell would read; "" when it has none."""
    try:
        return line_of(job.payload) if job.type == TYPE else ""
    except ValueError:
        return ""


def exit_status(job: "Job") -> int:
    """Return how a finished job ended, as a shell says it: 128 and more for a signal.

    124 where its time was over, as with timeout(1); 1 for what did not complete and was no
    command, or never ran.
    """
    if job.status == "completed":
        return 0
    error = job.error if job.type == TYPE else None
    found = re.match(r"(exit status|signal) (\d{1,3})\b", error or "")
    if not found:
        return 124 if (error or "").startswith("timed out") else 1
    return min(255, int(found[2]) + (128 if found[1] == "signal" else 0))
