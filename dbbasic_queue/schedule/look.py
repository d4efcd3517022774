"""What the schedules of a queue are, and when they run next."""

import time
from dataclasses import dataclass

from ..errors import BadArgument
from ..here import queue_here
from .row import PAUSED, Plan, live_row, live_rows, read
from .slots import datetime_of, zone_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Any

    from ..job import Job
    from ..queue import Queue

_UNITS = (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass(frozen=True)
class Schedule:
    """One schedule as its row said when it was read."""

    name: str
    type: str
    spec: str  # "cron 30 2 * * *", "every 15m" or "next month_end"
    tz: str
    next_run: "datetime | None"  # in its zone; None while it is paused
    count: int  # runs until now
    max_count: int | None
    paused: bool
    error: str | None  # of the last run of its row, when that did not succeed
    id: str  # of the row


def schedules(queue_file: "Queue | None" = None) -> list[Schedule]:
    """Return the schedules that go on, by name; one whose payload is spoilt says so in `error`."""
    rows = live_rows(queue_here(queue_file))
    return [_schedule(name, rows[name]) for name in sorted(rows)]


def _schedule(name: str, row: "Job") -> Schedule:
    try:
        plan = read(row)
        zone = zone_of(plan.tz)
    except BadArgument as problem:
        error = row.error or str(problem)
        return Schedule(name, "", "", "", None, 0, None, False, error, row.id)
    paused = plan.mark == PAUSED
    at = None if paused else datetime_of(plan.slot, zone)
    return Schedule(
        name, plan.type, spec(plan), plan.tz, at, plan.count, plan.max_count, paused, row.error,
        row.id,
    )  # fmt: skip


def spec(plan: Plan) -> str:
    if plan.cron is not None:
        return f"cron {plan.cron}"
    if plan.every is None:
        return f"next {plan.next}"
    left, words = plan.every, []
    for unit, size in _UNITS:
        if left >= size:
            words.append(f"{left // size}{unit}")
            left %= size
    return f"every {' '.join(words)}"


def next_runs(
    name: str,
    n: int = 5,
    *,
    functions: "Mapping[str, Callable[..., Any]] | None" = None,
    queue_file: "Queue | None" = None,
) -> "list[datetime]":
    """Return the next runs of a schedule, at most `n`, in its zone; none while it is paused.

    The first may be due already.  Of a `next=` schedule the first alone, unless its function is in
    `functions`.  UnknownJob when there is no schedule of that name.
    """
    plan = read(live_row(queue_here(queue_file), name))
    if plan.mark == PAUSED:
        return []
    left = n if plan.max_count is None else min(n, plan.max_count - plan.count)
    found = [plan.slot] if left > 0 else []
    if plan.next is None or plan.next in (functions or {}):
        slots, now = plan.slots(functions or {}), int(time.time())
        following = slots.step(plan.slot, now)[1] if left > 1 else None
        while following is not None and len(found) < left:
            found.append(following)
            following = slots.after(following)
    zone = zone_of(plan.tz)
    return [datetime_of(slot, zone) for slot in found]
