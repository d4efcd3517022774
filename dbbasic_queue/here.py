"""Where this code runs: which job, and in which queue."""

from contextvars import ContextVar

from .errors import BadArgument
from .queue import Queue, default_queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .job import Job
    from .run import Attempt

running: "ContextVar[Attempt]" = ContextVar("dbbasic_queue_job")
working: "ContextVar[Queue]" = ContextVar("dbbasic_queue_file")


def current_job() -> "Job":
    """Return the job that runs here, inside its handler; BadArgument elsewhere.

    Its `attempts` counts this attempt too.
    """
    try:
        return running.get().job
    except LookupError:
        raise BadArgument("current_job() was called where no job runs") from None


def queue_here(queue_file: Queue | None = None) -> Queue:
    """Return the queue given, else the one whose worker runs here, else the default queue."""
    if queue_file is None:
        return working.get(None) or default_queue()
    if not isinstance(queue_file, Queue):
        raise BadArgument(f"queue_file={queue_file!r:.80} is no Queue: give Queue(path)")
    return queue_file
