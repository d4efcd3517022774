"""The commands that follow jobs: watch, as they move; history, what became of one."""

import os
import sys
import time

from .. import Queue, QueueError
from ..redact import masked, redacted
from ..show import clock, document
from ..stats import stats
from .output import Output, flush, tell
from .values import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable
    from typing import Any

HEAD = ("TIME", "EVENT", "ATTEMPT", "STATUS", "BY", "ERROR")


def watch(queue: Queue, given: "Namespace", out: Output) -> int:
    """Print a line for each change, as it comes."""
    from .. import events  # here, since no other command needs it

    until = _Idle(queue, given).is_so if given.until_idle else None
    since = None if given.since is None else time.time() - given.since
    out.place(queue.path)
    with events.watch(
        *given.event, type=given.type, queue=given.queue, since=since, timeout=given.timeout,
        until=until, queue_file=queue,
    ) as changes:  # fmt: skip
        for event, job in changes:
            if out.json:
                out.document({"event": event, "time": round(time.time(), 3), "job": document(job)})
            else:
                error = redacted(job).error
                why = f"  {error}" if error and event != "started" else ""
                now = time.strftime("%H:%M:%S")
                out.line(f"{now}  {event:<10}  {job.id}  {job.type}{why}")
            flush(sys.stdout)
    return 0


class _Idle:
    """Whether nothing runs and nothing is due; looked at as rarely as that is dear."""

    def __init__(self, queue: Queue, given: "Namespace") -> None:
        self._queue = queue
        self._given = given
        self._next = 0.0

    def is_so(self) -> bool:
        begun = time.monotonic()
        if begun < self._next or not os.path.exists(self._queue.path):
            return not os.path.exists(self._queue.path)
        found = stats(queue=self._given.queue, type=self._given.type, queue_file=self._queue)
        spent = time.monotonic() - begun
        self._next = begun + spent + max(0.3, 9 * spent)
        return not found["due"] and not found["statuses"]["processing"]


def history(queue: Queue, given: "Namespace", out: Output) -> int:
    """Print the audit trail of one job, or what its row says."""
    from ..audit import history as trail_of

    try:
        entries = trail_of(given.id, queue)
    except OSError as error:
        raise QueueError(f"{error.filename}: cannot be read: {error.strerror}") from error
    found: list[dict[str, Any]] = [entry._asdict() for entry in entries]
    job = queue.get(given.id)
    if job is not None:
        for entry in found:
            entry["error"] = masked(job, entry["error"])
    out.place(queue.path)
    if not found:
        found = _of_row(queue, given.id)
        if found:
            tell("there is no audit trail of this job; this is what its row says")
    if out.json:
        out.documents(found)
    elif not out.table(
        HEAD,
        [
            [
                clock(one["time"]), one["event"], str(one["attempt"]), one["status"],
                one["by"] or one["worker"], one["error"],
            ]
            for one in found
        ],
    ):  # fmt: skip
        tell(f"{queue.path}: no job has the id {given.id}")
    return 0 if found else 1


def _of_row(queue: Queue, id: str) -> "list[dict[str, Any]]":
    job = queue.get(id)
    if job is None:
        return []
    job = redacted(job)
    begun = {"started": job.started_at, job.status if job.finished else "": job.finished_at}
    lines: list[tuple[str, float | None]] = [("enqueued", float(job.created_at)), *begun.items()]
    return [
        {
            "time": at, "event": event, "id": job.id, "type": job.type, "queue": job.queue,
            "attempt": 0 if event == "enqueued" else job.attempts,
            "status": {"enqueued": "pending", "started": "processing"}.get(event, job.status),
            "worker": job.worker or "" if event != "enqueued" else "", "by": "",
            "error": job.error or "" if event == job.status else "",
        }
        for event, at in lines
        if at is not None and event
    ]  # fmt: skip


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the words of these commands."""
    p = add(
        "watch", watch, "Print a line for each change of a job, as it comes, until Ctrl-C.",
        """watch
           watch --type send_email --event failed
           watch --since 1h --json | jq -r .job.error
           watch --until-idle""",
        "With --json each line is a document.  It sees what any process does, and takes no lock.",
    )  # fmt: skip
    words = "enqueued started progressed completed failed retried snoozed cancelled archived purged"
    p.add_argument(
        "--event", nargs="+", action="extend", default=[], metavar="EVENT", help=f"only: {words}"
    )
    p.add_argument("--type", help="only jobs of this type")
    p.add_argument("--queue", help="only jobs of this queue")
    ago = "begin with what was added or has finished since so long ago"
    p.add_argument("--since", type=duration, metavar="TIME", help=ago)
    p.add_argument("--timeout", type=duration, metavar="TIME", help="end after so long")
    p.add_argument("--until-idle", action="store_true", help="end when nothing is due nor runs")
    p = add(
        "history", history, "Say what became of one job, from the audit trail or else its row.",
        """history 6474847126a6107c
           history 6474847126a6107c --json""",
        "The trail is there where a listener of dbbasic_queue.audit writes it.",
    )  # fmt: skip
    p.add_argument("id", metavar="ID")
