"""Signed jobs: plain to read, and not to be changed, by whoever lacks the key.

The column `signature` holds an HMAC-SHA256 over id, type and payload.  It is compared before the
handler runs; a job that was edited, copied under another id or added without the key is refused.
Keys are those of sealed jobs; what signs is derived from them.  What is sealed needs no signature:
Fernet authenticates it.
"""

from contextlib import contextmanager

from .after import as_cell
from .errors import BadArgument, Discard, Snooze
from .here import queue_here, running
from .keys import (
    PAUSE,
    SIGNATURE,
    Keys,
    is_signature,
    keys_of,
    refuse_twice,
    signature,
)
from .keys import new_key as new_key
from .layers import layer_of
from .new import new_job
from .tsv import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from .job import Job
    from .keys import Given
    from .new import When
    from .queue import Layer, Queue


def sign(
    job_type: str,
    payload: "Any" = None,
    run_at: "When" = None,
    *,
    keys: "Given" = None,
    id: str | None = None,
    columns: "Mapping[str, str]" = {},  # noqa: B006 (never changed)
    **given: "Any",
) -> "dict[str, Any]":
    """Return a signed job as a mapping of enqueue's arguments, with its id, made now.

    The first key signs; None takes $DBBASIC_QUEUE_KEY.  Id, type and payload are signed; the other
    arguments of enqueue, as run_at and queue, are not.  BadArgument as from enqueue, or when there
    is no key.
    """
    id = queue_here().new_id() if id is None else id
    key = keys_of(keys).first
    if given.get("after"):
        given["after"] = as_cell(given["after"])  # it is read twice
    job = new_job(job_type, payload, run_at, id=id, columns=columns, **given)
    signed = {**columns, SIGNATURE: signature(key, id, job.type, load(job.cells[2]))}
    more = {} if run_at is None else {"run_at": run_at}
    return {
        "job_type": job_type, "payload": payload, **more, "id": id, "columns": signed, **given,
    }  # fmt: skip


def enqueue_signed(
    job_type: str,
    payload: "Any" = None,
    run_at: "When" = None,
    *,
    keys: "Given" = None,
    queue_file: "Queue | None" = None,
    **given: "Any",
) -> str:
    """Add a signed job and return its id; the other arguments are those of `enqueue`."""
    return queue_here(queue_file).enqueue(**sign(job_type, payload, run_at, keys=keys, **given))


def verifying(keys: "Given" = None, *, all: bool = True, besides: "Iterable[str]" = ()) -> "Layer":
    """Return a layer that runs a job only if its signature is good; all others are refused.

    A refused job fails at once and keeps its payload.  One whose key is missing goes back
    uncharged, and its `error` names the key.  `all=False`: a job without a signature runs, so that
    to remove it is enough to change the job.  `besides`: types that need none, as `schedule`, of
    which anybody who can write the file may then add jobs.
    """
    given = None if keys is None else keys_of(keys)
    free = frozenset([besides] if isinstance(besides, str) else besides)

    @contextmanager
    def around(job: "Job") -> "Iterator[None]":
        _check(job, given, optional=not all or job.type in free)
        yield

    return layer_of(around)


def _check(job: "Job", given: "Keys | None", *, optional: bool) -> None:
    """Raise Discard or Snooze where a job may not run."""
    attempt = running.get(None)
    row = job if attempt is None else attempt.claimed  # as it stands in the file
    cell = row.cell(SIGNATURE)
    if not cell:
        if optional:
            return
        raise Discard("it has no signature, and here only signed jobs run")
    try:
        keys = keys_of(given)
    except BadArgument as problem:
        raise Snooze(PAUSE, str(problem)) from None
    name = cell.partition(" ")[0][:8]
    key = keys.by_name.get(name)
    if key is None:
        raise Snooze(PAUSE, f"it is signed with the key {name!r}, which is not here")
    if not is_signature(cell, key, row.id, row.type, load(row.cells[2])):
        text = "its type or payload was changed, or its row copied under another id"
        raise Discard(f"its signature does not fit: {text}")
    refuse_twice(queue_here().file, row)
