"""The commands that change the queue: enqueue, retry, cancel, purge, archive, backup."""

import json
import os
import sys
import time

from .. import Queue
from ..errors import BadArgument
from ..tags import tags_of
from .output import Output, ask, numbered, tell
from .progress import aside
from .shell import enqueue_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator
    from typing import Any

    from .. import Job

FILTERS = ("status", "type", "queue", "worker", "tag", "older_than")
FINISHED = ("completed", "failed", "cancelled")
RETRIED = ("failed", "cancelled")


def enqueue(queue: Queue, given: "Namespace", out: Output) -> int:
    """Add a job and print its id."""
    after = [one if ":" in one else f"ok:{one}" for one in given.after or ()]
    settings = {
        "run_at": given.run_at,
        "queue": given.queue,
        "priority": given.priority,
        "max_attempts": given.max_attempts,
        "timeout": given.timeout,
        "backoff": given.backoff,
        "after": " ".join(after) or None,
        "group": given.group,
        "id": given.id,
    }
    if given.argv is not None:
        id = enqueue_command(queue, given, settings)
    elif given.type is None:
        raise BadArgument("give a type and perhaps its JSON, or -- and a command")
    elif given.env:
        raise BadArgument("--env is for a command: give -- and a command")
    else:
        id = queue.enqueue(given.type, read_payload(given.payload), **settings)
    if out.json:
        out.document({"id": id, "file": queue.path})
    else:
        out.line(id)
    return 0


def read_payload(text: str | None) -> "Any":
    """Return what a payload on the command line says; - is stdin."""
    if text is None:
        return None
    where = "the payload on stdin" if text == "-" else "the payload"
    data = os.fsencode(text)
    if text == "-":
        with aside(restart=True):  # somebody may be typing
            data = sys.stdin.buffer.read()
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        hint = "; a command is enqueue -- COMMAND" if text != "-" and text[:1].isalpha() else ""
        raise BadArgument(f"{where} is not JSON: {reason}{hint}") from None


def retry(queue: Queue, given: "Namespace", out: Output) -> int:
    """Make failed or cancelled jobs pending again, and print their ids."""
    _check_choice(given, "failed")
    if given.status not in (None, *RETRIED):
        raise BadArgument(f"--status {given.status}: only failed and cancelled jobs can be retried")
    if given.ids:
        back = queue.retry(given.ids, copy=given.copy)
    elif given.status == "cancelled" or any(
        one is not None for one in (given.worker, given.tag, given.older_than)
    ):
        wanted = [job.id for job in chosen(queue, given, given.status or "failed")]
        back = queue.retry(wanted, copy=given.copy)
    else:
        back = queue.retry(type=given.type, queue=given.queue, copy=given.copy)
    _say(out, "retried", back)
    left = [] if given.copy else [id for id in dict.fromkeys(given.ids) if id not in back]
    if given.copy:
        left = [id for id in dict.fromkeys(given.ids) if _status(queue, id) not in RETRIED]
    for id in left:
        _why_not(queue, id, "retried", *RETRIED)
    if not back and not left:
        tell("no job is like that")
    return 0 if back and not left else 1


def cancel(queue: Queue, given: "Namespace", out: Output) -> int:
    """Cancel pending jobs, and print their ids."""
    gone: list[str] = []
    queue = Queue(queue.path, listeners=[lambda event, job: gone.append(job.id)])
    left = [id for id in dict.fromkeys(given.ids) if not queue.cancel(id) and id not in gone]
    _say(out, "cancelled", gone)
    for id in left:
        _why_not(queue, id, "cancelled", "pending")
    return 1 if left else 0


def purge(queue: Queue, given: "Namespace", out: Output) -> int:
    """Delete jobs for good, after asking."""
    _check_choice(given, "finished")
    if given.ids:
        found = [job for id in dict.fromkeys(given.ids) for job in [queue.get(id)] if job]
        for id in given.ids:
            if id not in {job.id for job in found}:
                tell(f"no job has the id {id}")
    else:
        found = list(chosen(queue, given, *([given.status] if given.status else FINISHED)))
    running = sum(job.status == "processing" for job in found)
    if running:
        tell(f"{numbered(running)} processing: such are never deleted")
    by_status: dict[str, list[str]] = {}
    for job in found:
        if job.status != "processing":
            by_status.setdefault(job.status, []).append(job.id)
    count = sum(map(len, by_status.values()))
    if count and not given.yes:
        if not sys.stdin.isatty():
            raise BadArgument(f"would delete {numbered(count)} from {queue.path}: say --yes")
        if not ask(f"Delete {numbered(count)} from {queue.path} for good?"):
            tell("nothing was deleted")
            return 1
    # what has changed its status since it was counted stays
    gone = sum(queue.purge(status=status, ids=ids) for status, ids in by_status.items())
    if out.json:
        out.document({"purged": gone, "kept": count - gone, "file": queue.path})
    else:
        out.line(f"{numbered(gone)} deleted from {queue.path}")
    if gone < count:
        why = "unfinished jobs wait for them, or they are archived, or they have changed"
        tell(f"{numbered(count - gone)} stayed: {why}")
    return 0 if gone and gone == (len(set(given.ids)) or gone) else 1


def archive(queue: Queue, given: "Namespace", out: Output) -> int:
    """Move old finished jobs to the archive."""
    moved = queue.archive(given.older_than)
    folder = os.path.realpath(queue.path) + ".d/archive"
    if out.json:
        out.document({"archived": moved, "file": queue.path, "folder": folder})
    else:
        out.line(f"{numbered(moved)} moved from {queue.path} to {folder}")
    return 0


def backup(queue: Queue, given: "Namespace", out: Output) -> int:
    """Copy the queue to a file."""
    target = os.path.abspath(given.target)
    if not os.path.exists(queue.path):
        tell(f"{queue.path}: there is no queue to copy")
        return 1
    queue.backup(target)
    if out.json:
        out.document({"backup": target, "file": queue.path})
    else:
        out.line(f"{queue.path} copied to {target}")
    return 0


# --- which jobs


def chosen(
    queue: Queue, given: "Namespace", *statuses: str, newest: bool = False
) -> "Iterator[Job]":
    """Yield the jobs that the filters choose, of these statuses (any, when there are none)."""
    status = statuses[0] if len(statuses) == 1 else None
    jobs = queue.jobs(status, given.type, given.queue, given.worker, newest)
    return filter(matching(given, *statuses), jobs)


def matching(given: "Namespace", *statuses: str) -> "Callable[[Job], bool]":
    """Return whether the filters choose a job, of these statuses (any, when there are none)."""
    before = time.time() - given.older_than if given.older_than is not None else None
    starts = (f"{given.worker}.", f"{given.worker}-")

    def wanted(job: "Job") -> bool:
        return (
            (not statuses or job.status in statuses)
            and given.type in (None, job.type)
            and given.queue in (None, job.queue)
            and (given.worker is None or (job.worker or "").startswith(starts))
            and (given.tag is None or given.tag in tags_of(job))
            and (before is None or (job.finished_at or job.created_at) < before)
        )

    return wanted


def filtered(given: "Namespace") -> bool:
    """Whether any filter was given."""
    return any(getattr(given, name) is not None for name in FILTERS)


def _check_choice(given: "Namespace", what: str) -> None:
    ways = sum((bool(given.ids), filtered(given), given.all))
    if not ways:
        raise BadArgument(f"which jobs? give ids, filters as --type, or --all for every {what} one")
    if ways > 1:
        raise BadArgument("give ids, filters or --all, one of the three")


def _say(out: Output, what: str, ids: "list[str]") -> None:
    if out.json:
        out.document({what: ids})
    for id in () if out.json else ids:
        out.line(id)


def _status(queue: Queue, id: str) -> str | None:
    job = queue.get(id)
    return job.status if job else None


def _why_not(queue: Queue, id: str, verb: str, *statuses: str) -> None:
    status = _status(queue, id)
    if status is None:
        tell(f"no job has the id {id}")
    elif status in statuses:
        tell(f"job {id} is {status}, but archived, and stays so")
    else:
        tell(f"job {id} is {status}: only {' and '.join(statuses)} jobs can be {verb}")
