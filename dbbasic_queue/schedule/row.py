"""A schedule as its row keeps it: the payload says all of it, the column `unique` NAME@SLOT.

The payload of a row also names the row that has added it (`follows`), so that a run which is done
again after a crash sees what it did before.  Where no row follows, or runs are counted, the row
that has run says that too (`mark`).
"""

import time
from dataclasses import dataclass, fields, replace
from math import inf

from ..disk import unhurried
from ..edit import Edit
from ..errors import BadArgument, UnknownJob
from ..job import Job
from ..lookup import jobs
from ..new import LATEST, new_job
from ..queue import Queue
from ..tsv import load
from .slots import Called, Cron, Every, slot_of, text_of, zone_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVar

    from .slots import Step

    T = TypeVar("T")

TYPE = "schedule"
PAUSED, REMOVED, ENDED = "paused", "removed", "ended"  # marks; the last two: it adds no more
SKIPPED = 300  # seconds by which a slot may be late with catch_up="skip"
UNFINISHED = ("pending", "processing")
_LEAST = 1 - 2**31
_TIMES = ("slot", "run_at", "since")
_BOUNDS = {"count": (0, inf), "max_count": (1, inf), "every": (1, 2**31 - 1)}


@dataclass(frozen=True)
class Plan:
    """One schedule, with the slot that its row is for.  Times are Unix seconds."""

    slot: int
    count: int = 0  # runs until now
    cron: str | None = None
    every: int | None = None
    next: str | None = None
    tz: str = "UTC"
    run_at: int | None = None  # the first slot, as it was declared
    max_count: int | None = None
    catch_up: str = "once"
    type: str = ""
    payload: "Any" = None
    queue: str = "default"
    priority: int = 0
    max_attempts: int | None = None
    timeout: float | None = None
    backoff: str | None = None
    mark: str = ""
    since: int = 0  # no job for slots before this
    follows: str = ""  # the id of the row that has added this one
    schedule: str = ""  # its name; last, so that an unfinished row is found by its bytes

    def to_payload(self) -> "dict[str, Any]":
        """Return what its row's payload says; what is at its default is left out."""
        values: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in _TIMES and value:
                values[one.name] = text_of(value)
            elif value != one.default or one.name in ("count", "tz", "payload"):
                values[one.name] = value
        return values

    @property
    def timing(self) -> "tuple[object, ...]":
        """What its slots depend on."""
        return self.cron, self.every, self.next, self.run_at, self.tz if self.cron else None

    @property
    def is_over(self) -> bool:
        return self.mark in (REMOVED, ENDED)

    def cell(self, slot: int) -> str:
        return f"{self.schedule}@{text_of(slot)}"

    def slots(self, functions: "Mapping[str, Callable[..., Any]]") -> "Cron | Every | Called":
        """Return what knows the slots; BadArgument where a function or a package is missing."""
        if self.cron is not None:
            return Cron(self.cron, zone_of(self.tz))
        if self.every is not None:
            return Every(self.every, self.slot if self.run_at is None else self.run_at)
        if self.next is None or self.next not in functions:
            raise BadArgument(
                f"next={self.next!r}: this worker has no such function; give it to"
                " serving(handlers, functions={…})"
            )
        return Called(self.next, functions[self.next], zone_of(self.tz))

    def step(self, now: int, functions: "Mapping[str, Callable[..., Any]]") -> "Step":
        """Return the last slot until now, and the first one after; user code runs here."""
        return self.slots(functions).step(self.slot, now)

    def job(self, columns: "Mapping[str, str]") -> Job:
        """Return a new job of this schedule."""
        return new_job(
            self.type, self.payload, queue=self.queue, priority=self.priority,
            max_attempts=self.max_attempts, timeout=self.timeout, backoff=self.backoff,
            columns=columns,
        )  # fmt: skip

    def row(self) -> Job:
        """Return a new row for the slot: before the jobs that it adds, and never at its limit."""
        return new_job(
            TYPE, self.to_payload(), LATEST if self.mark == PAUSED else self.slot,
            queue=self.queue, priority=max(self.priority - 1, _LEAST), max_attempts=2**31 - 1,
            backoff="linear:60:3600", columns={"unique": self.cell(self.slot)},
        )  # fmt: skip

    def write(self, e: Edit, row: Job) -> Job:
        """Let a row be this schedule; one that runs takes it over to the row that follows."""
        cells: dict[str, Any] = {"payload": self.to_payload(), "unique": self.cell(self.slot)}
        cells |= {"queue": self.queue, "priority": max(self.priority - 1, _LEAST)}
        if row.status == "pending":
            cells["run_at"] = LATEST if self.mark == PAUSED else self.slot
            cells["run_at"] = int(time.time()) if self.since > self.slot else cells["run_at"]
        return e.change(row, **cells)


def read(row: Job) -> Plan:
    """Return the schedule of a row; BadArgument when its payload describes none."""
    try:
        values = load(row.raw("payload"))
        for name in _TIMES:
            if values.get(name) is not None:
                values[name] = slot_of(values[name])
        plan = Plan(**values)
        if (wrong := next(_wrong(plan), None)) is not None:
            raise ValueError(f"{wrong}={getattr(plan, wrong)!r:.80}")
        plan.job({})  # which checks what is for the job
        return plan
    except (ValueError, TypeError, AttributeError) as problem:
        raise BadArgument(f"row {row.id} describes no schedule: {problem}") from problem


def _wrong(plan: Plan) -> "Iterator[str]":
    """Yield the names of what `add_schedule` does not write: somebody did by hand."""
    for name in ("slot", "count", "since", "run_at", "max_count", "every"):
        value = getattr(plan, name)
        least, most = _BOUNDS.get(name, (0, LATEST))
        if not (type(value) is int and least <= value <= most) and (
            value is not None or name in ("slot", "count", "since")
        ):
            yield name
    given = [name for name in ("cron", "every", "next") if getattr(plan, name) is not None]
    if len(given) != 1:
        yield given[0] if given else "cron"
    for name in ("tz", "type", "schedule", *given):
        if name != "every" and not (isinstance(getattr(plan, name), str) and getattr(plan, name)):
            yield name
    if plan.mark not in ("", PAUSED, REMOVED, ENDED):
        yield "mark"
    if plan.catch_up not in ("once", "skip"):
        yield "catch_up"
    if plan.type == TYPE:
        yield "type"


def readable(row: Job) -> Plan | None:
    try:
        return read(row)
    except BadArgument:
        return None


def rows_of(e: Edit, name: str) -> list[Job]:
    """Return the rows of a schedule that the file has, in their order."""
    found = e.rows([f"\t{name}@".encode()])
    return [row for row in found if row.type == TYPE and row.cell("unique").startswith(f"{name}@")]


def is_live(row: Job) -> bool:
    """Whether a schedule goes on with this row."""
    return row.status in UNFINISHED and not ((plan := readable(row)) and plan.is_over)


def _follows(row: Job, before: Job) -> bool:
    """Whether one row was added by the run of another, which then goes on no more."""
    return f'"follows": "{before.id}"'.encode() in row.raw("payload")


def live_row_in(e: Edit, name: str) -> Job | None:
    """Return the row with which a schedule goes on, in an edit."""
    later: list[Job] = []
    for row in reversed(rows_of(e, name)):
        if is_live(row) and not any(_follows(one, row) for one in later):
            return row
        later.append(row)
    return None


def live_rows(queue: Queue) -> "dict[str, Job]":
    """Return the row with which each schedule goes on, by name; read without the lock."""
    found: dict[str, Job] = {}
    for row in jobs(queue.file, needle=b"\tschedule\t"):
        if row.type != TYPE:
            continue
        name = row.cell("unique").rpartition("@")[0] or row.id
        if row.status in UNFINISHED and is_live(row):
            found[name] = row
        elif name in found and _follows(row, found[name]):
            del found[name]
    return found


def live_row(queue: Queue, name: str) -> Job:
    """Return the row with which a schedule goes on; UnknownJob when there is none."""
    row = live_rows(queue).get(name)
    if row is None:
        raise UnknownJob(f"{queue.path}: there is no schedule {name!r:.80}")
    return row


def edited(queue: Queue, body: "Callable[[Edit], T]") -> "T":
    """Return what a body says of one edit, which is made again after a write without the lock."""
    answer: list[T] = []

    def once() -> list[Job]:
        with queue.edit() as e:
            answer[:] = [body(e)]
        return []

    unhurried(once)
    return answer[0]


def changed(queue: Queue, name: str, change: "Callable[[Plan], Plan]") -> None:
    """Change a schedule in one edit; what is computed for it is computed before the lock."""
    while True:
        seen = live_row(queue, name)
        old = read(seen)
        new = change(old)

        if edited(queue, lambda e: _is_changed(e, seen, old, new)):  # noqa: B023
            return


def _is_changed(e: Edit, seen: Job, old: Plan, new: Plan) -> bool:
    """Change a schedule's row; False, with nothing done, when it is not as it was seen."""
    row = live_row_in(e, old.schedule)
    if row is None or row.raw("payload") != seen.raw("payload"):
        return False
    if row.status == "processing":  # its slot runs
        new = replace(new, slot=old.slot, since=old.since)
    if new != old:
        new.write(e, row)
    return True
