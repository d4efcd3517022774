"""Async handlers side by side: the jobs of one worker in one event loop, `concurrency` at most.

A handler that is no `async def` runs alone, and so holds up the others.  When a job's time is over,
when it is to end on request or the worker's grace is over, its task is cancelled.
"""

import asyncio
import os
import signal

from . import log
from .errors import Stopped
from .run import CUT_OFF, Attempt, clock
from .worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .journal import Cells

_TICK = 0.1  # seconds between two looks at the time


class Loop:
    """One event loop for all that this worker runs: what a handler keeps from job to job works."""

    def __init__(self, worker: Worker, limit: int) -> None:
        self._worker = worker
        self._held = worker.held
        self._limit = limit
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[asyncio.Task[Cells], Attempt] = {}
        self._ended: list[asyncio.Task[Cells]] = []
        self._waiting: asyncio.Future[None] | None = None
        self._looked = 0.0
        asyncio.set_event_loop(self._loop)

    def close(self) -> None:
        """End what handlers have left in the loop, as far as it ends within CUT_OFF seconds."""
        if os.getpid() != self._pid:
            return  # a handler forked, and its child came back
        try:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            left.add(self._loop.create_task(self._loop.shutdown_asyncgens()))
            self._loop.run_until_complete(asyncio.wait(left, timeout=CUT_OFF))
        except (Exception, SystemExit) as problem:  # theirs: a callback, or the loop is stopped
            log.warn("what a handler left in its event loop raised %s", repr(problem))
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def run(self) -> None:
        """Run what the worker has claimed, and claim more while it runs, until nothing runs.

        Also where a handler stops the loop or cancels all tasks.
        """
        self._begin(self._held.next(None))
        work = self._loop.create_task(self._work())
        while not work.done() or work.cancelled():
            if work.done():
                work = self._loop.create_task(self._work())
            try:
                self._loop.run_until_complete(work)
            except (asyncio.CancelledError, RuntimeError, SystemExit, KeyboardInterrupt) as theirs:
                if self._loop.is_closed() or (work.done() and not work.cancelled()):
                    raise
                if isinstance(theirs, KeyboardInterrupt):
                    self._worker.stop.ask(signal.SIGINT)
                log.warn("a handler has disturbed the event loop: %s", repr(theirs))

    async def _work(self) -> None:
        while self._tasks:
            while (room := self._limit - len(self._tasks)) > 0 and self._worker.claim_beside(room):
                self._begin(self._held.next(None))
            if not self._ended:
                await self._until_one_ends(self._worker.nap() if room > 0 else _TICK)
            ended, self._ended = self._ended, []
            for task in ended:
                attempt = self._tasks.pop(task)
                self._begin(self._held.next((attempt, self._cells(task, attempt))))
            self._mind_the_time()

    async def _until_one_ends(self, most: float) -> None:
        """Let the handlers go on; no longer than until the next look at the time."""
        self._waiting = self._loop.create_future()
        timer = self._loop.call_later(most, self._wake)
        await self._waiting
        timer.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _begin(self, attempt: Attempt | None) -> None:
        """Start a task for a job that has started, and for others while there is room."""
        while attempt is not None:
            task = self._loop.create_task(self._one(attempt))
            task.add_done_callback(self._end)
            self._tasks[task] = attempt
            full = len(self._tasks) >= self._limit
            attempt = None if full else self._held.next(None)

    def _end(self, task: "asyncio.Task[Cells]") -> None:
        self._ended.append(task)
        self._wake()

    async def _one(self, attempt: Attempt) -> "Cells":
        self._worker.tell_start(attempt)
        return await self._worker.run.side_by_side(attempt, self._worker.outcome)

    def _cells(self, task: "asyncio.Task[Cells]", attempt: Attempt) -> "Cells":
        """Return the outcome of a task that has ended, also of one cancelled before its start."""
        if task.cancelled():
            failure = attempt.meaning(asyncio.CancelledError())
            cells = self._worker.outcome(attempt, None, failure)
        else:
            cells = task.result()
        return self._worker.ended(attempt, cells)

    def _mind_the_time(self) -> None:
        """Cancel what has run too long, is to end on request, or outlives the worker's grace."""
        if clock() < self._looked + _TICK:
            return
        self._looked = clock()
        short = self._worker.stop.is_cut_short()
        for task, attempt in self._tasks.items():
            if short:
                attempt.end(Stopped())
            if attempt.is_over():
                attempt.tell()
                task.cancel()
