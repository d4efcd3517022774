"""The commands that ask live workers: pause, resume, stop, and kill for one job of theirs."""

import time

from .. import Queue, limits
from ..show import span
from .output import Output, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace


def pause(queue: Queue, given: "Namespace", out: Output) -> int:
    """Pause a queue, and print its label."""
    changed = limits.pause(given.label, queue)
    return _tell_change(queue, given.label, out, "" if changed else "is paused already")


def resume(queue: Queue, given: "Namespace", out: Output) -> int:
    """Resume a queue, and print its label."""
    changed = limits.resume(given.label, queue)
    return _tell_change(queue, given.label, out, "" if changed else "is not paused")


def _tell_change(queue: Queue, label: str, out: Output, why_not: str) -> int:
    if out.json:
        out.document({"changed": not why_not, "paused": limits.paused(queue), "file": queue.path})
    elif not why_not:
        out.line(label)
    if why_not:
        tell(f"{queue.path}: queue {label} {why_not}")
    return 1 if why_not else 0


def stop(queue: Queue, given: "Namespace", out: Output) -> int:
    """Ask live workers to stop after their current jobs, and wait for that."""
    name = given.name
    asked = [worker.id for worker in queue.workers() if name in (None, worker.name, worker.id)]
    left = {worker.id: worker for worker in queue.stop(name, given.wait)}
    stopped = [id for id in asked if id not in left]
    if out.json:
        documents = [{"id": one.id, "pid": one.pid, "jobs": one.jobs} for one in left.values()]
        out.document({"stopped": stopped, "left": documents, "file": queue.path})
    for id in () if out.json else stopped:
        out.line(id)
    now = time.time()
    for worker in left.values():
        runs = [f"runs {id} for {span(now - since)}" for id, since in worker.jobs.items()]
        tell(f"worker {worker.id} (pid {worker.pid}) is left: {', '.join(runs) or 'runs nothing'}")
    if not asked and not left:
        named = f" with the name {name}" if name else ""
        tell(f"{queue.path}: no worker lives{named}")
    return 0 if stopped and not left else 1


def kill(queue: Queue, given: "Namespace", out: Output) -> int:
    """End running jobs, and print the ids of those that have ended."""
    ids = dict.fromkeys(given.ids)
    asked = {id: queue.kill(id) for id in ids}
    until = time.monotonic() + given.wait
    ended, left = [], {}
    for id in ids:
        why = _why_not_ended(queue, id, max(0.0, until - time.monotonic()), asked[id])
        if why:
            left[id] = why
        else:
            ended.append(id)
            if not out.json:
                out.line(id)
    if out.json:
        documents = [{"id": id, "why": why} for id, why in left.items()]
        out.document({"ended": ended, "left": documents, "file": queue.path})
    for why in left.values():
        tell(why)
    return 1 if left else 0


def _why_not_ended(queue: Queue, id: str, seconds: float, asked: bool) -> str:
    """Wait for the end of a job; return why it has not ended, "" when it has."""
    if asked:
        try:
            end = queue.wait(id, seconds).status
            if end != "cancelled":
                tell(f"job {id} is {end}: it ended before it could be killed")
            return ""
        except TimeoutError:
            pass
    job = queue.get(id)
    if job is None:
        return f"no job has the id {id}"
    if job.status == "pending":
        return f"job {id} does not run, it is pending: `cancel {id}` is the word"
    if job.finished:
        return f"job {id} is {job.status} already"
    if asked:
        return f"job {id} still runs, by worker {job.worker}: it was asked to end"
    return f"job {id} has no live worker: the next tick takes it in"
