"""Declare a schedule, pause and resume it, run it at once, remove it: each is one edit."""

import time
from dataclasses import replace
from math import ceil

from ..after import is_label
from ..errors import BadArgument, UnknownJob, in_seconds
from ..here import queue_here
from ..log import tell
from ..new import start_time
from ..tsv import dump, load
from .row import (
    ENDED,
    PAUSED,
    REMOVED,
    TYPE,
    Plan,
    changed,
    edited,
    live_row,
    live_row_in,
    read,
    readable,
    rows_of,
)
from .slots import DAY, Cron, Every, machine_zone, zone_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any

    from ..edit import Edit
    from ..job import Job
    from ..new import When
    from ..queue import Queue


def add_schedule(
    name: str,
    job_type: str,
    payload: "Any" = None,
    *,
    cron: str | None = None,
    every: "float | timedelta | None" = None,
    next: str | None = None,
    tz: str | None = None,
    run_at: "When" = None,
    max_count: int | None = None,
    catch_up: str = "once",
    queue: str = "default",
    priority: int = 0,
    max_attempts: int | None = None,
    timeout: float | None = None,
    backoff: str | None = None,
    queue_file: "Queue | None" = None,
) -> str:
    """Declare a schedule, and return the id of its row; a worker with `serving` then runs it.

    Exactly one of `cron` (five fields, or @hourly @daily @weekly @monthly @yearly; it needs
    cronsim), `every` (whole seconds or a timedelta) and `next` (the name of a function given to
    `serving`).  `tz`: an IANA name for `cron` and `next`; None is this machine's zone, kept by
    name.  `run_at`: the first slot of `every` (None: `every` from now) and of `next`.  `max_count`:
    so many runs in all; None has no end.  When slots were missed, `catch_up="once"` runs the last
    of them; "skip" runs none that is more than 300 s late.  The rest is as for `enqueue`.

    Declaring a name again, as each deploy does, changes what differs and keeps its count; where
    nothing differs, nothing is written.  A slot that is due already is kept.  BadArgument, with
    nothing written, for what is no schedule or can never fire.
    """
    if not is_label(name):
        raise BadArgument(f"name={name!r:.200}: a name is 1 to 100 letters, digits, _ . or -")
    if sum(one is not None for one in (cron, every, next)) != 1:
        raise BadArgument(
            f"cron={cron!r:.80}, every={every!r:.80}, next={next!r:.80}: give exactly one of them"
        )
    if job_type == TYPE:
        raise BadArgument(f"job_type={job_type!r} is the type of the schedules themselves")
    if max_count is not None and (type(max_count) is not int or max_count < 1):
        raise BadArgument(f"max_count={max_count!r:.80} is no whole number of at least 1")
    if catch_up not in ("once", "skip"):
        raise BadArgument(f"catch_up={catch_up!r:.80} is none of once, skip")
    if tz is not None and not isinstance(tz, str):
        raise BadArgument(f"tz={tz!r:.80} is no name of a time zone, such as Europe/Berlin")
    plan = Plan(
        slot=0, cron=_words("cron", cron), every=_seconds(every), next=_words("next", next),
        tz=tz or machine_zone(), max_count=max_count, catch_up=catch_up, type=job_type,
        payload=payload, queue=queue, priority=priority, max_attempts=max_attempts,
        timeout=timeout, backoff=backoff, schedule=name,
    )  # fmt: skip
    plan.job({})  # which checks what is for the job
    plan = _with_first_slot(replace(plan, payload=load(dump(payload, ""))), run_at)
    row = plan.row()
    where = queue_here(queue_file)

    def body(e: "Edit") -> "tuple[str, list[Job]]":
        last = live_row_in(e, name)
        if last is None:
            ended = [one.id for one in rows_of(e, name)[-1:] if _has_ended(one, plan)]
            return (ended[0], []) if ended else (e.add(row), [row])
        old = readable(last)
        now = _as_now(plan, old, last)
        if now != old:
            now.write(e, last)
        return last.id, []

    id, added = edited(where, body)
    tell(where.listeners, "enqueued", added)
    return id


def _has_ended(row: "Job", plan: Plan) -> bool:
    """Whether this schedule has had all its runs, and is declared just as it was."""
    old = readable(row)
    return old is not None and old.mark == ENDED and _as_now(plan, old, row) == old


def _as_now(plan: Plan, old: Plan | None, row: "Job") -> Plan:
    """Return a declared schedule with what its row has come to.

    The slot stays where it is due already, where it runs, and where the times are what they were;
    but not where the clock was a day ahead when the row was added.
    """
    if old is None:
        return plan
    now = time.time()
    due = old.slot <= now and old.mark != PAUSED
    ahead = row.created_at > now + DAY and old.slot > plan.slot and plan.next is None
    same = plan.timing == old.timing and not ahead
    kept = due or row.status != "pending" or same
    return replace(
        plan, slot=old.slot if kept else plan.slot, count=old.count, mark=old.mark,
        since=old.since, follows=old.follows,
    )  # fmt: skip


def _words(what: str, value: object) -> str | None:
    if value is None:
        return None
    words = " ".join(value.split()) if isinstance(value, str) else ""
    if not words:
        raise BadArgument(f"{what}={value!r:.80} is no text")
    return words


def _seconds(every: "float | timedelta | None") -> int | None:
    if every is None:
        return None
    try:
        seconds = in_seconds(every)
    except BadArgument:
        seconds = 0
    if not (1 <= seconds < 2**31 and seconds == int(seconds)):
        raise BadArgument(f"every={every!r:.80}: give whole seconds, at least 1, or a timedelta")
    return int(seconds)


def _with_first_slot(plan: Plan, run_at: "When") -> Plan:
    now = int(time.time())
    zone = zone_of(plan.tz)
    if plan.cron is not None:
        if run_at is not None:
            raise BadArgument(f"run_at={run_at!r:.80} goes with every= and next=, not with cron=")
        first = Cron(plan.cron, zone).after(now)
        if first is None:
            raise BadArgument(f"cron={plan.cron!r:.80} can never fire")
        return replace(plan, slot=first)
    if run_at is None and plan.every is not None:
        return replace(plan, slot=now + plan.every)
    if run_at is None:
        raise BadArgument(f"next={plan.next!r:.80} needs run_at=, the first slot")
    given = ceil(start_time(run_at))
    if given <= 0:
        raise BadArgument(f"run_at={run_at!r:.80} is before 1970")
    slot = given
    if plan.every is not None and given < now:
        slot = Every(plan.every, given).after(now - 1)
    # a timedelta is from now, and would be another time at each deploy
    return replace(plan, slot=slot, run_at=None if hasattr(run_at, "total_seconds") else given)


def pause_schedule(name: str, *, queue_file: "Queue | None" = None) -> None:
    """Pause a schedule: once this has returned, it adds no job until it is resumed.

    Its row stays pending, with a `run_at` far away.  UnknownJob when there is none of that name.
    """
    changed(queue_here(queue_file), name, lambda plan: replace(plan, mark=PAUSED))


def resume_schedule(name: str, *, queue_file: "Queue | None" = None) -> None:
    """Let a paused schedule go on with its first slot from now on; those before are left out.

    UnknownJob when there is none of that name.
    """

    def resumed(plan: Plan) -> Plan:
        if plan.mark != PAUSED:
            return plan
        now = int(time.time())
        plan = replace(plan, mark="")
        if plan.slot >= now:
            return plan
        if plan.next is not None:
            return replace(plan, since=now)  # the worker has the function
        slot = plan.slots({}).after(now - 1)
        return plan if slot is None else replace(plan, slot=slot)

    changed(queue_here(queue_file), name, resumed)


def remove_schedule(name: str, *, queue_file: "Queue | None" = None) -> None:
    """End a schedule: its row is cancelled; jobs that it has added stay.

    UnknownJob when there is none of that name.
    """

    def body(e: "Edit") -> "list[Job]":
        row = live_row_in(e, name)
        plan = readable(row) if row else None
        if row is None:
            raise UnknownJob(f"{e.path}: there is no schedule {name!r:.80}")
        if row.status == "processing" and plan:  # what runs sees the mark, and adds nothing more
            replace(plan, mark=REMOVED).write(e, row)
            return []
        e.cancelled.append(
            e.change(row, status="cancelled", error="removed", finished_at=time.time())
        )
        return e.cancelled

    where = queue_here(queue_file)
    live_row(where, name)  # before an edit would make the file
    tell(where.listeners, "cancelled", edited(where, body))


def run_now(name: str, *, queue_file: "Queue | None" = None) -> str:
    """Add the job of a schedule at once, beside its slots, and return its id.

    It is not counted, and works for a paused schedule too.  UnknownJob when there is none.
    """

    def body(e: "Edit") -> "Job":
        row = live_row_in(e, name)
        if row is None:
            raise UnknownJob(f"{e.path}: there is no schedule {name!r:.80}")
        plan = read(row)
        job = plan.job({"unique": plan.cell(int(time.time())) + "~now"})
        e.add(job)
        return job

    where = queue_here(queue_file)
    live_row(where, name)  # as above
    job = edited(where, body)
    tell(where.listeners, "enqueued", [job])
    return job.id
