"""Listeners made of a function: `process_jobs(listeners=[on_failure(alert)])`."""

from ..errors import BadArgument
from .watcher import EVENTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..job import Job
    from ..queue import Listener

_TOLD = (*EVENTS, "recovered")


def on_failure(call: "Callable[[Job], object]") -> "Listener":
    """Return a listener that calls `call(job)` when a job has failed for good, once per failure.

    By its last attempt, by Discard, or because its worker died in the last attempt; then the next
    worker tells it.  `job.error` says why.  A failed job that is retried can fail once more.
    """
    if not callable(call):
        raise BadArgument(f"on_failure({call!r:.80}): that is no function")

    def listener(event: str, job: "Job") -> None:
        if event in ("failed", "recovered") and job.status == "failed":
            call(job)

    return listener


def only(
    call: "Listener", *events: str, type: str | None = None, queue: str | None = None
) -> "Listener":
    """Return a listener that passes on some events only (all without `events`), of one type or
    queue.

    BadArgument for a word that is no event, which would never be told.
    """
    if not callable(call):
        raise BadArgument(f"only({call!r:.80}): that is no function")
    for word in events:
        if word not in _TOLD:
            raise BadArgument(f"only(…, {word!r:.80}): none of {', '.join(_TOLD)}")

    def listener(event: str, job: "Job") -> None:
        if events and event not in events:
            return
        if type in (None, job.type) and queue in (None, job.queue):
            call(event, job)

    return listener
