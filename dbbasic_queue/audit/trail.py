"""The listener that writes the trail."""

import os
import sys
import time

from .file import Entry, Writer, audit_path, queue_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..job import Job
    from ..queue import Listener
    from .file import Where

_who: "tuple[int, str]" = (0, "")


def trail(
    queue_file: "Where" = None,
    *,
    path: "str | os.PathLike[str] | None" = None,
    by: str = "",
) -> "Listener":
    """Return a listener that adds a line to the trail of a queue at each event.

    Give it to `Queue(path, listeners=[trail(path)])`, which tells it of every move, that queue's
    workers too; or to `process_jobs(listeners=[trail()])`.  `queue_file`: the queue or its path
    (None: the default queue); `path`: another place than `audit.tsv` in the queue's side folder.
    `by` stands before the user and the process in each line: for whom it is done.
    The line is on the disk as soon as the queue's `sync` asks for it of outcomes.  One that a
    worker could not write, since it died, `complete` adds.
    """
    writers: dict[str, Writer] = {}

    def listener(event: str, job: "Job") -> None:
        queue = queue_of(queue_file)
        where = os.fspath(path) if path is not None else audit_path(queue)
        writer = writers.get(where)
        if writer is None:
            writer = writers[where] = Writer(where, queue)
        at = job.finished_at if job.finished and event not in ("archived", "purged") else None
        writer.add([entry_of(event, job, at or time.time(), by)])

    return listener


def entry_of(event: str, job: "Job", at: float, by: str = "") -> Entry:
    """Return the line of an event."""
    error = "" if event in ("enqueued", "started", "progressed") else job.error or ""
    worker = job.worker or ""
    return Entry(
        at, event, job.id, job.type, job.queue, job.attempts, job.status, worker, by + who(), error
    )


def who() -> str:
    """Return user/pid/host/program of this process."""
    global _who
    if _who[0] != os.getpid():
        import pwd

        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            user = str(os.geteuid())
        program = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
        _who = os.getpid(), f"{user}/{os.getpid()}/{os.uname().nodename}/{program}"
    return _who[1]
