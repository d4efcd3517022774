"""What a job stores while it runs: cells that hold the id of their job, and which run this is."""

import os

from ..errors import BadArgument, BadRow, NotStored
from ..here import current_job, running
from ..journal import pid_of, worker_of
from ..tsv import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..job import Job
    from ..run import Attempt


def run_here() -> "Attempt | None":
    """Return the run that this code is in, None where no job runs; BadArgument in a forked child,
    whose lines would be lost.
    """
    attempt = running.get(None)
    if attempt is None:
        return None
    pid = attempt.memory.get(__name__)
    if pid is None:
        pid = attempt.memory[__name__] = pid_of(worker_of(attempt.claimed)[0])
    if pid not in (0, os.getpid()):
        raise BadArgument(
            f"job {attempt.job.id} runs in another process: a child that its handler forked stores"
            " no step, checkpoint or progress; return it to the handler"
        )
    return attempt


def bound(id: str, name: str, cell: bytes, more: bytes = b"") -> str:
    """Return a cell that belongs to one job."""
    return (b'{"job": "%b", "%b": %b%b}' % (id.encode(), name.encode(), cell, more)).decode()


def store(what: str, **cells: str) -> None:
    job = current_job()
    try:
        job.record(**cells)
    except OSError as problem:
        raise NotStored(f"job {job.id}: {what} was not stored: {problem.strerror}") from problem


def read(job: "Job", column: str, name: str) -> "dict[str, Any]":
    """Return a cell of this job, {} when there is none or it belongs to the job that this one is a
    copy of; BadRow when it was spoilt.
    """
    text = job.cell(column)
    if not text:
        return {}
    try:
        found = load(text.encode())
    except ValueError as problem:
        raise spoilt(job, column, str(problem)) from None
    if not isinstance(found, dict) or not isinstance(found.get("job"), str) or name not in found:
        raise spoilt(job, column, f"no JSON with job and {name}")
    return found if found["job"] == job.id else {}


def spoilt(job: "Job", column: str, why: str) -> BadRow:
    return BadRow(
        f"job {job.id}: its column {column} cannot be read: {why}; mend the cell, or empty it: the"
        " job then begins from the first step"
    )
