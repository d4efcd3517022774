"""The run of a schedule's row: it adds the job of the slot, and the row of the slot after it."""

import time
from dataclasses import replace
from datetime import timezone

from ..errors import BadArgument, Discard
from ..here import current_job, queue_here
from ..log import tell
from .row import ENDED, PAUSED, SKIPPED, TYPE, UNFINISHED, Plan, edited, read
from .slots import datetime_of, slot_of, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Any

    from ..edit import Edit
    from ..job import Job
    from .slots import Step


def slot() -> "datetime":
    """Return the slot, in UTC, of the job that runs here; its time when `run_now` added it.

    BadArgument where no job of a schedule runs.
    """
    job = current_job()
    text = job.cell("unique").rpartition("@")[2].removesuffix("~now")
    try:
        return datetime_of(slot_of(text), timezone.utc)
    except ValueError:
        raise BadArgument(f"job {job.id} was added by no schedule: it has no slot") from None


def fire(functions: "Mapping[str, Callable[..., Any]]") -> "dict[str, Any]":
    """Add what is due of the schedule whose row runs here, in one edit; return what that is."""
    queue, own = queue_here(), current_job()
    row: Job | None = own
    while row is not None:
        plan, now = read(row), int(time.time())
        seen = row.raw("payload")
        step = _step(plan, now, functions)
        added = edited(queue, lambda e: _advance(e, own.id, seen, plan, step, now))  # noqa: B023
        if added is not None:
            tell(queue.listeners, "enqueued", added)
            return _said(plan, added)
        row = queue.get(own.id)  # it has changed meanwhile: once more
    return _said(None, [])


def _step(plan: Plan, now: int, functions: "Mapping[str, Callable[..., Any]]") -> "Step":
    if plan.mark:
        return plan.slot, None
    try:
        return plan.step(now, functions)
    except Discard as said:  # would end the schedule for good
        raise BadArgument(f"next={plan.next!r} raised Discard: {said}") from said


def _advance(
    e: "Edit", id: str, seen: bytes, plan: Plan, step: "Step", now: int
) -> "list[Job] | None":
    """Add the job and the row of the following slot; None when the row is not as it was seen.

    Where a later row of this schedule is there, an earlier run of this one has added it.
    """
    own = e.get(id)
    if own is None or own.status != "processing":
        return []
    if own.raw("payload") != seen:
        return None
    if plan.is_over:
        return []
    latest, following = step
    mark = plan.cell(latest)
    has_run = False
    for row in e.rows(_needles(plan, own, step)):
        has_run = has_run or (row.type == plan.type and row.cell("unique") == mark)
        its_own = row.type == TYPE and row.cell("unique").startswith(f"{plan.schedule}@")
        if its_own and row.at > own.at:
            return []
    if plan.mark == PAUSED:
        return _added(e, [replace(plan, follows=id).row()])
    late = plan.catch_up == "skip" and now - latest > SKIPPED
    most = plan.max_count or plan.count + 2
    runs = not (has_run or late or latest < plan.since or plan.count >= most)
    new = [plan.job({"unique": mark})] if runs else []
    count = plan.count + (runs or has_run)
    ends = following is None or count >= most
    if following is not None and not ends:
        new.append(replace(plan, slot=following, count=count, since=0, follows=id).row())
    if plan.max_count or ends:
        # not an append, of which a crash may leave the first row: then this run is not counted
        replace(plan, count=count, mark=ENDED).write(e, own)
    return _added(e, new)


def _needles(plan: Plan, own: "Job", step: "Step") -> list[bytes]:
    """Return what the rows hold that may say that something is there already: few, ever."""
    texts = [f"\t{plan.cell(slot)}\t" for slot in step if slot is not None]
    texts += [f'"schedule": "{plan.schedule}"}}\t{status}\t' for status in UNFINISHED]
    return [text.encode() for text in (*texts, f'"follows": "{own.id}"')]


def _added(e: "Edit", new: "list[Job]") -> "list[Job]":
    e.add_all(new)
    return new


def _said(plan: Plan | None, added: "list[Job]") -> "dict[str, Any]":
    """Return the result of the row: the id of the job, the slot of the following row."""
    rows = [row for row in added if row.type == TYPE]
    jobs = [job.id for job in added if job.type != TYPE]
    following = text_of(read(rows[0]).slot) if plan and rows else None
    return {"job": jobs[0] if jobs else None, "next": following}
