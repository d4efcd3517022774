"""Why a job has not run, or not yet: what holds it, who could run it, and what became of it.

    why("6474847126a6107c")  ->  ["waiting: for job 6474847126a60f31  (ok:6474847126a60f31)", …]

Computed from the rows, from the workers' files, and from what the workers have said about
themselves at their last ticks.
"""

from ..errors import UnknownJob
from ..here import queue_here
from ..tsv import visible
from .look import Look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..queue import Queue


def why(id: str, queue_file: "Queue | None" = None) -> list[str]:
    """Return why a job is where it is: the answer, then what else holds it or explains that.

    The texts are for people, and without control characters.  UnknownJob when no job has the id.
    """
    return list(reasons(id, queue_file))


def reasons(id: str, queue_file: "Queue | None" = None) -> "Iterator[str]":
    """Yield the texts of `why`, each looked up when it is asked for; the first one costs least."""
    queue = queue_here(queue_file)
    job = queue.get(id)
    if job is None:
        raise UnknownJob(f"{queue.path}: no job has the id {id!r:.80}")
    return map(visible, Look(queue, job).texts())
