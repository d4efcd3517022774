"""The commands that change the queue: enqueue, retry, cancel, purge, archive, backup."""

import json
import os
import sys

from .. import Queue, choose
from ..errors import BadArgument
from .filters import check_choice, choice_of, filtered, only_type_or_queue
from .output import Output, ask, numbered, tell
from .progress import aside
from .shell import enqueue_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

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
    check_choice(given, "failed")
    if given.status not in (None, *RETRIED):
        raise BadArgument(f"--status {given.status}: only failed and cancelled jobs can be retried")
    if given.ids:
        back = queue.retry(given.ids, copy=given.copy)
    elif filtered(given) and not only_type_or_queue(given):
        back = queue.retry(choose.ids(choice_of(given, "failed"), queue), copy=given.copy)
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
    check_choice(given, "pending")
    if given.status in ("processing", "completed", "failed", "cancelled", "stuck"):
        raise BadArgument(f"--status {given.status}: only pending jobs can be cancelled")
    wanted = list(dict.fromkeys(given.ids))
    gone = choose.cancel(wanted or choose.ids(choice_of(given, "pending"), queue), queue)
    _say(out, "cancelled", gone)
    left = [id for id in wanted if id not in set(gone)]
    for id in left:
        _why_not(queue, id, "cancelled", "pending")
    if not gone and not left:
        tell("no job is like that")
    return 0 if gone and not left else 1


def purge(queue: Queue, given: "Namespace", out: Output) -> int:
    """Delete jobs for good, after asking."""
    check_choice(given, "finished")
    if given.ids:
        found = [job for id in dict.fromkeys(given.ids) for job in [queue.get(id)] if job]
        for id in given.ids:
            if id not in {job.id for job in found}:
                tell(f"no job has the id {id}")
    else:
        found = list(choose.jobs(choice_of(given, *FINISHED), queue))
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
