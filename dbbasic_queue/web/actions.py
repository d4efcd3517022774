"""What a form may do, and the line in the log that says who did what to how many."""

import logging
import os
import re
from typing import NamedTuple

from .. import Queue, audit, batch, limits, schedule
from ..errors import UnknownJob
from ..show import visible
from .html import Safe
from .request import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .view import View

    Fields = dict[str, str]

log = logging.getLogger("dbbasic_queue")
_WAIT = 10.0  # seconds for the lock: a browser waits


class Done(NamedTuple):
    """What an action has done, in words, and where to go; or the page that is to be shown."""

    text: str
    to: str
    body: "Safe | None" = None


def act(view: "View", fields: "Fields", who: str) -> Done:
    """Do what a form says, and log it."""
    action = fields.get("action", "")
    if action in BULK and "id" not in fields:
        from .pages.confirm import act_on_many

        return act_on_many(view, fields, who)
    do = ACTIONS.get(action)
    if do is None:
        raise Refused("400 Bad Request", "There is no such action.")
    done = do(view, queue_for(view.queue, who), fields)
    note(who, action, fields, done.text)
    return done


def note(who: str, action: str, fields: "Fields", text: str) -> None:
    """Write the line of an action into the log."""
    left_out = ("action", "proof", "token", "back")
    of = " ".join(f"{name}={one}" for name, one in fields.items() if name not in left_out)
    log.warning("dashboard: %s: %s %s: %s", *map(visible, (who, action, of, text)))


def queue_for(queue: Queue, who: str) -> Queue:
    """Return the queue as one person changes it: where there is a trail, it names them."""
    listeners = queue.listeners
    if not listeners and os.path.exists(audit.audit_path(queue)):
        listeners = (audit.trail(queue, by=f"dashboard {who} "),)
    wait = min(_WAIT, queue.lock_timeout)
    return Queue(queue.path, sync=queue.sync, lock_timeout=wait, listeners=listeners)


def counted(number: int, verb: str) -> str:
    return f"{number:,} job{'' if number == 1 else 's'} {verb}"


# --- one job


def _retry(view: "View", queue: Queue, fields: "Fields") -> Done:
    id = _id(fields)
    back = queue.retry(id)
    _check(queue, id, back, "It was not retried: only failed and cancelled jobs can be.")
    more = f" {len(back) - 1:,} that waited for it came back too." if len(back) > 1 else ""
    return Done(f"Job {id} is pending again.{more}", view.url("job", id=id))


def _cancel(view: "View", queue: Queue, fields: "Fields") -> Done:
    id = _id(fields)
    _check(queue, id, queue.cancel(id), "It was not cancelled: only pending jobs can be.")
    return Done(f"Job {id} is cancelled.", view.url("job", id=id))


def _kill(view: "View", queue: Queue, fields: "Fields") -> Done:
    id = _id(fields)
    _check(queue, id, queue.kill(id), "It does not run now.")
    return Done(f"The worker of job {id} was asked to end it.", view.url("job", id=id))


def _delete(view: "View", queue: Queue, fields: "Fields") -> Done:
    id = _id(fields)
    job = queue.get(id)
    why = "It was not deleted: it is unfinished or archived, or an unfinished job waits for it."
    gone = queue.purge(status=job.status, ids=[id]) if job and job.finished else 0
    _check(queue, id, gone, why)
    return Done(f"Job {id} is deleted.", view.url("jobs"))


def _copy(view: "View", queue: Queue, fields: "Fields") -> Done:
    from .pages.job import arguments_of

    id = _id(fields)
    job = queue.get(id)
    arguments = arguments_of(job) if job else None
    _check(queue, id, arguments, "It is sealed or signed, or cannot be read: no copy would run.")
    new = queue.enqueue(**arguments or {})
    return Done(f"This is the copy of job {id}.", view.url("job", id=new))


def _id(fields: "Fields") -> str:
    id = fields.get("id", "")
    if not re.fullmatch(r"[\w.-]{1,100}", id):
        raise Refused("400 Bad Request", "This is no id.")
    return id


def _check(queue: Queue, id: str, done: object, text: str) -> None:
    """Refuse what could not be done to a job."""
    if not done:
        if queue.get(id) is None:
            raise UnknownJob(f"{queue.path}: no job has the id {id}")
        raise Refused("409 Conflict", text)


# --- queues, workers, schedules, groups


def _pause(view: "View", queue: Queue, fields: "Fields") -> Done:
    label = fields.get("queue", "")
    done = limits.pause(label, queue)
    return Done(f"Queue {label} is paused{'' if done else ' already'}.", view.url("metrics"))


def _resume(view: "View", queue: Queue, fields: "Fields") -> Done:
    label = fields.get("queue", "")
    done = limits.resume(label, queue)
    return Done(f"Queue {label} {'goes on' if done else 'is not paused'}.", view.url("metrics"))


def _stop(view: "View", queue: Queue, fields: "Fields") -> Done:
    name = fields.get("name") or fields.get("worker") or ""
    if not name:
        raise Refused("400 Bad Request", "Which worker is to stop?")
    left = [one for one in queue.stop(name) if name in (one.id, one.name)]
    if not left:
        return Done(f"No worker {name} lives now.", view.url("workers"))
    return Done(f"Worker {name} was asked to stop after its job.", view.url("workers"))


def _run_schedule(view: "View", queue: Queue, fields: "Fields") -> Done:
    id = schedule.run_now(fields.get("name", ""), queue_file=queue)
    return Done(f"Schedule {fields['name']} has added this job.", view.url("job", id=id))


def _pause_schedule(view: "View", queue: Queue, fields: "Fields") -> Done:
    schedule.pause_schedule(fields.get("name", ""), queue_file=queue)
    return Done(f"Schedule {fields['name']} is paused.", view.url("schedules"))


def _resume_schedule(view: "View", queue: Queue, fields: "Fields") -> Done:
    schedule.resume_schedule(fields.get("name", ""), queue_file=queue)
    return Done(f"Schedule {fields['name']} goes on.", view.url("schedules"))


def _cancel_batch(view: "View", queue: Queue, fields: "Fields") -> Done:
    id = fields.get("id", "")
    gone = batch.cancel_batch(id, queue_file=queue)
    return Done(f"{counted(gone, 'cancelled')}.", view.url("batches", id=id))


BULK = ("retry", "cancel", "delete")
ACTIONS: "dict[str, Callable[[View, Queue, Fields], Done]]" = {
    "retry": _retry,
    "cancel": _cancel,
    "delete": _delete,
    "kill": _kill,
    "copy": _copy,
    "pause": _pause,
    "resume": _resume,
    "stop": _stop,
    "run_schedule": _run_schedule,
    "pause_schedule": _pause_schedule,
    "resume_schedule": _resume_schedule,
    "cancel_batch": _cancel_batch,
}
