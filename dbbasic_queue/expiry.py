"""Jobs that are of no use later: not started by its time, a job becomes cancelled.

    enqueue("remind", {"to": "ada"}, columns=expires(timedelta(minutes=10)))
    process_jobs(handlers, middleware=[expiring])

The moment stands in the column `expires_at`.  A worker without the layer runs the job all the same.
"""

import math
import time
from contextlib import contextmanager

from .errors import BadArgument, BadRow, Killed, in_seconds
from .layers import layer_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta
    from typing import Any

    from .job import Job

LONGEST = 10**8  # seconds; a greater number is meant as a Unix time


class Expired(Killed):
    """Raised in the place of a run that comes too late: the job becomes cancelled."""


def expires(when: "float | timedelta | datetime") -> dict[str, str]:
    """Return columns for enqueue: not to be started later than `when`.

    Seconds or a timedelta count from this call, not from `run_at`; an aware datetime is a moment.
    BadArgument for what is neither.
    """
    at: Any = when
    if hasattr(at, "timestamp"):
        if at.tzinfo is None or at.utcoffset() is None:
            raise BadArgument(
                f"expires({when!r}) has no time zone; make it aware, as with .astimezone()"
            )
        moment = at.timestamp()
    else:
        seconds = in_seconds(at)
        if not hasattr(at, "total_seconds") and seconds >= LONGEST:
            raise BadArgument(
                f"expires({when!r:.80}): seconds count from now; a moment is an aware datetime"
            )
        moment = time.time() + seconds
    if not moment > 0:
        raise BadArgument(f"expires({when!r:.80}) is before 1970")
    return {"expires_at": str(math.ceil(moment))}


@layer_of
@contextmanager
def expiring(job: "Job") -> "Iterator[None]":
    """A layer: a job that is started later than its `expires_at` becomes cancelled, unrun.

    So does a retry of it, until that cell is changed; a second attempt counts as a start too.  A
    cell that is no Unix time is a BadRow.
    """
    cell = job.cell("expires_at")
    if cell and not (cell.isascii() and cell.isdigit() and len(cell) <= 12):
        raise BadRow(f"job {job.id}: its column expires_at is {cell!r:.80}, no Unix time")
    late = time.time() - int(cell) if cell else 0
    if late > 0:
        raise Expired(f"expired: it was to start by {int(cell)}, and came {late:.1f} s too late")
    yield
