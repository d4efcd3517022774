"""One job, and all that can be known of why it is where it is."""

import os
import time
from functools import cached_property

from .. import admit, after, lookup
from ..errors import QueueError
from ..job import Job
from ..journal import worker_of
from ..kinds import DUE, Kinds
from ..queue import Queue
from ..redact import redacted
from ..show import clock, span
from ..stats import SILENT, last_tick_age
from .holds import Hold, holds
from .who import Worker, listed, workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..recover import LiveWorker

_MOST = 5  # jobs that are named


class Look:
    """What is known of one job, and looked up once it is asked for."""

    def __init__(self, queue: Queue, job: Job) -> None:
        self.queue = queue
        self.job = job
        self.now = time.time()

    def texts(self) -> "Iterator[str]":
        """Yield the answer, and what else is known."""
        if self.job.finished:
            return self.finished()
        return self.pending() if self.job.status == "pending" else self.processing()

    @cached_property
    def error(self) -> str:
        return redacted(self.job).error or ""

    @cached_property
    def live(self) -> "list[LiveWorker]":
        try:
            return self.queue.workers()
        except QueueError:  # the lock is not ours, or did not come free
            return []

    @cached_property
    def workers(self) -> list[Worker]:
        return workers(self.queue, self.live)

    # --- what does not run any more

    def finished(self) -> "Iterator[str]":
        job = self.job
        ago = f" {span(self.now - job.finished_at)} ago" if job.finished_at else ""
        tries = f", after {_numbered(job.attempts, 'attempt')}" if job.attempts else ""
        if job.status == "failed":
            yield f"failed{ago}{tries}: {self.error or 'without an error'}"
        elif job.status == "cancelled" and self.error:
            yield f"cancelled{ago}{tries}: {self.error}"
        elif job.status == "cancelled":
            yield f"cancelled{ago}, by hand"
        else:
            took = job.finished_at - job.started_at if job.finished_at and job.started_at else None
            ran = "" if took is None else f"; it ran for {_seconds(took)}"
            yield f"completed{ago}{tries}{ran}"
        if self.error.startswith("never ") and job.after:
            yield f"it waited: {job.after}"
            for id in _ids(self.error):
                yield from self._told(id)
        if lookup.archived(self.queue.file, job.id) is not None and not lookup.ids_in(
            self.queue.file.real, {job.cells[0]}
        ):
            yield "archived: it is not in the queue any more, and cannot be retried there"
        elif job.status in ("failed", "cancelled"):
            yield f"`retry {job.id}` makes it pending again"

    def _told(self, id: str) -> "Iterator[str]":
        """Yield what became of a job for which this one waits."""
        found = self.queue.get(id)
        if found is None:
            yield f"job {id} is gone"
            return
        error = redacted(found).error
        text = f"job {id} ({found.type}) is {found.status}"
        if found.finished_at and found.finished:
            text += f" since {span(self.now - found.finished_at)}"
        yield f"{text}: {error}" if error else text

    # --- what runs

    def processing(self) -> "Iterator[str]":
        job = self.job
        if job.is_elsewhere:
            engine, _, k = job.cell("worker").partition(".")
            ago = f", {span(self.now - int(k) / 1e6)} ago" if k.isdecimal() else ""
            yield f"handed over: to {engine}{ago}; the next `forward` takes in what became of it"
            return
        worker, _ = worker_of(job)
        lives = [one for one in self.live if one.id == worker]
        if not lives:
            again = self.queue.get(job.id)
            if again is not None and again.cells != job.cells:  # its worker has ended meanwhile
                yield from Look(self.queue, again).texts()
                return
            if worker:
                text = f"its worker {worker} has died"
            else:
                text = "no worker is named in its row"
            yield f"stuck: {text}; the next tick takes it in"
            yield self._last_tick()
            return
        since = lives[0].jobs.get(job.id)
        who = f"worker {worker} (pid {lives[0].pid})"
        if since is None:
            yield f"claimed: {who} has not begun it yet"
            yield from self._runs(lives[0])
            return
        yield f"running: for {span(self.now - since)}, attempt {job.attempts or 1}, by {who}"
        if progress := redacted(job).cell("progress"):
            yield f"it says: {progress}"
        if job.timeout:
            left = since + job.timeout - self.now
            more = f"it is ended in {_seconds(left)}" if left > 0 else "that is over: it is ended"
            yield f"its timeout is {_seconds(job.timeout)}: {more}"

    def _runs(self, worker: "LiveWorker") -> "Iterator[str]":
        for id, since in list(worker.jobs.items())[:_MOST]:
            found = self.queue.get(id)
            kind = f" ({found.type})" if found else ""
            yield f"worker {worker.id} runs job {id}{kind} for {span(self.now - since)}"

    # --- what waits

    def pending(self) -> "Iterator[str]":
        held = False
        for text in self._held():
            held = True
            yield text
        able: list[Worker] = []
        for worker in self.workers:
            if worker.serves(self.job) and worker.handles(self.job):
                able.append(worker)
        nobody = self._nobody() if self.workers and not able else []
        yield from nobody
        if held or nobody:
            return
        limits = self._limited(able)
        yield from (hold.text for hold in limits if hold.is_sure)
        if any(hold.is_sure for hold in limits):
            return
        yield from self._due(able, [hold.text for hold in limits])

    def _held(self) -> "Iterator[str]":
        """Yield what must come first, whoever works: other jobs, the time, a resume, a payload."""
        job = self.job
        if not job.payload_is_json():
            yield f"unreadable: its payload is not JSON; `edit {job.id}` lets you mend it"
        yield from self._waits()
        if not job.is_due(self.now):
            due = f"it is due in {span(job.run_at - self.now + 0.999)}, at {clock(job.run_at)}"
            if job.attempts:
                last = f": {self.error}" if self.error else ""
                yield f"retrying: {due}, after attempt {job.attempts}{last}"
            elif self.error or job.started_at:
                yield f"snoozed: {due}" + (f": {self.error}" if self.error else "")
            else:
                yield f"scheduled: {due}"
        try:
            if job.queue in admit.paused(self.queue.file):
                text = f"nobody claims a job of queue {job.queue} before `resume {job.queue}`"
                yield f"paused: {text}"
        except QueueError as problem:
            yield f"paused, perhaps: {problem}"

    def _waits(self) -> "Iterator[str]":
        cell = self.job.after
        if not cell:
            return
        state, reason = self._state(cell)
        if state == after.NEVER:
            yield f"{reason}: the next tick cancels it"
        elif state == after.OPEN and reason:
            yield f"waiting: what for cannot be read; {reason}"
        elif state == after.OPEN:
            lines = []
            parts = []
            for condition in after.parse(cell):
                if condition.group:
                    found = self._count(condition.group)
                    if found.open:
                        of = f"{found.open} of {found.any} jobs of group {condition.group}"
                        parts.append(f"{of}, which have not finished")
                    continue
                open_ = [id for id in condition.ids if not self._is_over(id)]
                parts += [f"job {id}" for id in open_[:_MOST]]
                if len(open_) > _MOST:
                    parts.append(f"{len(open_) - _MOST} more")
                lines += open_[:_MOST]
            yield f"waiting: for {', '.join(parts)}  ({cell[:200]})"
            for id in lines:
                found_job = self.queue.get(id)
                if found_job is None:
                    continue
                text = f"job {id} ({found_job.type}) is {found_job.status}"
                first = next(Look(self.queue, found_job).first(), "")
                yield f"{text}: {first}" if first else text

    def first(self) -> "Iterator[str]":
        """Yield in a few words what a job that others wait for waits for itself."""
        if self.job.status == "pending":
            yield from self._held()
        elif self.job.status == "processing":
            yield from self.processing()

    def _state(self, cell: str) -> tuple[str, str]:
        return after.state(cell, self._status, self._count)

    def _status(self, id: str) -> str | None:
        found = self.queue.get(id)
        return found.status if found else None

    def _is_over(self, id: str) -> bool:
        return self._status(id) not in ("pending", "processing")

    def _count(self, group: str) -> after.GroupCount:
        found = after.GroupCount(0, 0, 0)
        for job in self.queue.jobs():
            if job.group == group and not after.is_callback(job):
                found.any += 1
                found.open += not job.finished
                found.notok += job.status in ("failed", "cancelled")
        return found

    # --- who could run it

    def _nobody(self) -> list[str]:
        """Return who is missing, and what those that were seen do."""
        job = self.job
        serving = [one for one in self.workers if one.serves(job)]
        if not serving:
            queues = sorted({label for one in self.workers for label in one.queues})
            text = f"no worker serves queue {job.queue}"
            return [f"not served: {text}; served: {listed(queues, 'queue')}"]
        text = f"not handled: no worker has a handler for type {job.type}"
        handled = [
            f"{one.label} handles {listed(one.types, 'type') or 'nothing'}"
            for one in serving[:_MOST]
        ]
        others = [
            f"{one.label} handles it, and does not serve queue {job.queue}"
            for one in self.workers
            if one not in serving and one.handles(job)
        ]
        return [text, *handled, *others[:_MOST]]

    def _limited(self, able: list[Worker]) -> list[Hold]:
        texts = dict.fromkeys(text for one in able for text in one.limits)
        return holds(self.queue, self.job, list(texts), self.now) if texts else []

    def _due(self, able: list[Worker], limits: list[str]) -> "Iterator[str]":
        """Yield why a job that may start has not: nobody looks, all are busy, others first."""
        job = self.job
        since = max(job.run_at, job.created_at)
        due = f"due for {span(self.now - since)}" if self.now - since >= 1 else "due"
        live = [one.live for one in able if one.live is not None]
        busy = [one for one in live if one.jobs]
        tick = last_tick_age(self.queue)
        if live and len(busy) < len(live):
            idle = next(one for one in live if not one.jobs)
            yield f"{due}: worker {idle.id} takes it at its next look"
        elif tick is None and not live:
            yield f"no tick: {due}, and no worker has ever come to this file"
            yield f"a crontab line starts one: `dbbasic-queue --file {self.queue.path} work …`"
        elif tick is not None and tick > SILENT and not live:
            yield f"no tick since {clock(self.now - tick)}, {span(tick)} ago: has cron stopped?"
            yield due
        elif busy:
            most = max(4, os.cpu_count() or 1)
            same = sum(one.queues == busy[0].queues for one in live)
            if same >= most:
                text = f"{same} workers live, and one more may not by default (max_workers)"
                yield f"busy: {due}; {text}"
            else:
                who = "its worker" if len(busy) == 1 else f"all {len(busy)} workers"
                yield f"busy: {due}; {who} runs other jobs" + self._next_tick(tick)
        else:
            yield f"{due}: the next tick runs it" + self._next_tick(tick)
        looked = tick is not None and self.now - tick > since + 1
        if limits and looked:
            yield from (f"a tick has looked since, and perhaps left it: {text}" for text in limits)
        for worker in busy[:_MOST]:
            yield from self._runs(worker)
        if before := self._before():
            yield f"{_numbered(before, 'due job')} of queue {job.queue} {_come(before)} before it"

    def _next_tick(self, age: float | None) -> str:
        return "" if age is None else f"; the last one was {span(age)} ago"

    def _last_tick(self) -> str:
        age = last_tick_age(self.queue)
        return "no tick has come yet" if age is None else f"the last tick was {span(age)} ago"

    def _before(self) -> int:
        """Return how many due jobs of its queue are claimed before it."""
        mine, kinds = self._place(self.job), Kinds(self.queue, self.now)
        others = lookup.jobs(self.queue.file, needle=b"\tpending\t")
        return sum(
            self._place(other) < mine and kinds.of(other) == DUE
            for other in others
            if other.id != self.job.id and other.queue == self.job.queue
        )

    @staticmethod
    def _place(job: Job) -> tuple[int, int, str]:
        return job.priority, job.run_at, job.id


def _ids(text: str) -> list[str]:
    return [word for word in text.replace(":", " ").split() if after.is_id(word)]


def _numbered(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _come(count: int) -> str:
    return "comes" if count == 1 else "come"


def _seconds(seconds: float) -> str:
    return span(seconds) if seconds >= 10 else f"{max(0.0, seconds):.3g}s"
