"""Sealed jobs for programs that have the key: opened, and the results of the jobs before."""

from .. import group
from ..here import queue_here
from ..keys import keys_of
from .token import NotOpened, columns_of, open_cell, parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..job import Job
    from ..keys import Given
    from ..queue import Queue


def opened(job: "Job", keys: "Given" = None) -> "Job":
    """Return a job whose sealed cells are plain: payload, result, error, steps; nothing is written.

    Plain cells stay as they are.  KeyMissing, or NotOpened for a cell that was changed.
    """
    known = keys_of(keys)
    try:
        plain = {name: cell for name in columns_of(job) if (cell := open_cell(known, job, name))}
    except NotOpened as problem:
        raise type(problem)(f"job {job.id}: {problem}") from None
    return job.with_cells(plain) if plain else job


def sealed_with(job: "Job") -> str | None:
    """Return the fingerprint of the key that a job's payload is sealed with, None for a plain one.

    Keys(…).by_name has the fingerprints of one's own.
    """
    found = parts("payload", job.cells[2])
    return None if found is None else found[0]


def previous_results(keys: "Given" = None, *, queue_file: "Queue | None" = None) -> "list[Any]":
    """Return the results of the jobs that this handler's job has waited for, opened.

    As those of `chain.previous_results`, which gives them sealed; each is checked to be the result
    of just that job.
    """
    return [opened(before, keys).result for before in group.waited_for(queue_here(queue_file))]


def previous_result(keys: "Given" = None, *, queue_file: "Queue | None" = None) -> "Any":
    """Return the result of the job before, opened; of several, of the last one."""
    return next(reversed(previous_results(keys, queue_file=queue_file)), None)
