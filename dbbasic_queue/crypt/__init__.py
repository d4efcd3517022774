"""Sealed jobs: payload, result, error and steps of a job are encrypted in the file.

`enqueue_sealed` seals, the layer `unsealing` opens a job for its handler; in a worker without it
the handler gets `{"sealed": …}` for its payload.  Everything else of the row (type, status, times,
queue) stays plain, and so does how long a payload is.  Keys are Fernet's, from $DBBASIC_QUEUE_KEY
or `keys=`; the package `cryptography` is imported when one is used.
"""

import hmac

from ..after import as_cell
from ..errors import BadArgument
from ..here import queue_here
from ..keys import Keys as Keys
from ..keys import keys_of
from ..keys import new_key as new_key
from ..new import new_job
from ..tsv import load
from .layer import SealedError as SealedError
from .layer import unsealing as unsealing
from .reading import opened as opened
from .reading import previous_result as previous_result
from .reading import previous_results as previous_results
from .reading import sealed_with as sealed_with
from .rotate import reseal as reseal
from .token import KeyMissing as KeyMissing
from .token import NotOpened as NotOpened
from .token import seal_cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..keys import Given
    from ..new import When
    from ..queue import Queue


def seal(
    job_type: str,
    payload: "Any" = None,
    run_at: "When" = None,
    *,
    keys: "Given" = None,
    id: str | None = None,
    **given: "Any",
) -> "dict[str, Any]":
    """Return a sealed job as a mapping of enqueue's arguments, with its id, made now.

    For `enqueue(**…)`, `enqueue_many`, `enqueue_chain`, `enqueue_batch`.  The first key seals; the
    other arguments are enqueue's and stay plain.  It holds for this id and this type alone, so a
    copy of its row under another id (`retry(copy=True)` too) is refused: seal anew what `opened`
    tells.  BadArgument where enqueue would raise it, or when there is no key.
    """
    id = queue_here().new_id() if id is None else id
    key = keys_of(keys).first
    if given.get("after"):
        given["after"] = as_cell(given["after"])  # it is read twice
    job = new_job(job_type, payload, run_at, id=id, **given)
    try:
        cell = seal_cell(key, id, job.type, "payload", job.cells[2])
    except BadArgument as problem:
        raise BadArgument(f"the payload of {job_type!r}: {problem}") from None
    more = {} if run_at is None else {"run_at": run_at}
    return {"job_type": job_type, "payload": load(cell), **more, "id": id, **given}


def enqueue_sealed(
    job_type: str,
    payload: "Any" = None,
    run_at: "When" = None,
    *,
    keys: "Given" = None,
    queue_file: "Queue | None" = None,
    **given: "Any",
) -> str:
    """Add a sealed job and return its id; the other arguments are those of `enqueue`."""
    return queue_here(queue_file).enqueue(**seal(job_type, payload, run_at, keys=keys, **given))


def digest(text: str, keys: "Given" = None) -> str:
    """Return what stands for a text, such as a key made of arguments, and tells nothing of it.

    It is the same for the same text and first key.
    """
    return hmac.new(keys_of(keys).first.derived("unique"), text.encode(), "sha256").hexdigest()
