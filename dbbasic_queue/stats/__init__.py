"""The figures of a queue, computed from its rows: nothing is stored a second time.

stats() looks once; Figures() is kept, and reads only what has changed since its last look.
"""

from ..queue import Queue
from .figures import WINDOW as WINDOW
from .figures import Figures as Figures
from .ticks import SILENT as SILENT
from .ticks import last_tick_age as last_tick_age
from .ticks import ticks as ticks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def stats(
    *, queue: str | None = None, type: str | None = None, queue_file: Queue | None = None
) -> "dict[str, Any]":
    """Return the figures of a queue file, or of one queue or type in it; no lock is held meanwhile.

    Counts: jobs, statuses, queues and types (each by status), due, scheduled, retrying, waiting,
    stuck, archived, bad_lines, processed and failed_ever (completed or failed, with the archive; a
    retry or a purge lowers them); by_queue has the kinds of each.  Seconds, None where there is
    nothing: oldest_due_age, last_tick_age; uptime is the age of the oldest live worker, else 0.
    Of the last `window` seconds, at most the 20,000 jobs that stand last in the file: run_time and
    wait_time (average, p50, p95), success_rate, by_type.  rate is jobs per minute in the last hour.
    by_worker lists the live ones with the jobs of theirs that are in the file, and the share of
    their life that they were busy.  `workers` is None where it cannot be told, since the lock did
    not come free or is not ours; `paused`, the labels of paused queues, where their file cannot be
    read.
    """
    return Figures(queue_file, queue=queue, type=type).look()


def errors(
    *,
    queue: str | None = None,
    type: str | None = None,
    limit: int = 20,
    queue_file: Queue | None = None,
) -> "list[dict[str, Any]]":
    """Return the failed jobs by type and first line of their error; see `Figures.errors`."""
    return Figures(queue_file, queue=queue, type=type).errors(limit)
