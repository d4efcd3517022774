"""`errors_kept`: the error of every attempt, in the column `errors`; the last is in `error`."""

from contextlib import contextmanager

from ..errors import BadRow
from ..layers import layer_of
from ..log import warn
from ..tsv import dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..job import Job

MOST = 50  # errors; the oldest go
LONGEST = 500  # characters of each


@layer_of
@contextmanager
def errors_kept(job: "Job") -> "Iterator[None]":
    """A layer: at the start of each attempt the error of the one before is added.

    Also `worker died (signal 9)`.  A job that `retry` makes pending again keeps them, a copy does
    not.
    """
    error, last = job.error, job.attempts - 1
    if error and last > 0:
        try:
            kept = errors_of(job)
        except BadRow as problem:
            warn("%s; a new list is begun", str(problem))
            kept = []
        entry = (last, error[:LONGEST])
        if entry not in kept[-1:]:  # a snooze: it is there since the start before
            kept = [*kept, entry][-MOST:]
            cell = dump({"job": job.id, "errors": kept}, "its errors")
            try:
                job.record(errors=cell.decode())
            except OSError as problem:
                warn("job %s: its errors are not stored: %s", job.id, str(problem))
    yield


def errors_of(job: "Job") -> list[tuple[int, str]]:
    """Return (attempt, error) of the attempts that are over but for the last, whose error is
    `job.error`; BadRow when the cell was spoilt, or is sealed: then give `crypt.opened(job)`.
    """
    cell = job.cell("errors")
    try:
        found = load(cell.encode())
        if found is None or found["job"] != job.id:
            return []
        return [(int(attempt), str(error)) for attempt, error in found["errors"]]
    except (ValueError, TypeError, LookupError):
        if cell.startswith("sealed "):
            text = "its column errors is sealed: give errors_of what crypt.opened(job) returns"
            raise BadRow(f"job {job.id}: {text}") from None
        raise BadRow(f"job {job.id}: its column errors cannot be read: {cell!r:.80}") from None
