"""Async handlers side by side: the jobs of one worker in one event loop, `concurrency` at most.

A handler that is no `async def` runs alone, and so holds up the others.  When a job's time is over,
when it is to end on request or the worker's grace is over, its task is cancelled.
"""

import asyncio

from .errors import Stopped
from .run import Attempt, clock
from .worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .journal import Cells

_TICK = 0.1  # seconds between two looks at the time


def run_side_by_side(worker: Worker, limit: int) -> None:
    """Run what the worker has claimed, and claim more while it runs, until nothing runs."""
    asyncio.run(_Loop(worker, limit).work())


class _Loop:
    def __init__(self, worker: Worker, limit: int) -> None:
        self._worker = worker
        self._held = worker.held
        self._limit = limit
        self._tasks: dict[asyncio.Task[Cells], Attempt] = {}
        self._ended: list[asyncio.Task[Cells]] = []
        self._waiting: asyncio.Future[None] | None = None
        self._looked = 0.0

    async def work(self) -> None:
        self._begin(self._held.next(None))
        while self._tasks:
            room = self._limit - len(self._tasks)
            if room > 0 and self._worker.claim_beside(room):
                self._begin(self._held.next(None))
            if not self._ended:
                await self._until_one_ends()
            ended, self._ended = self._ended, []
            for task in ended:
                attempt = self._tasks.pop(task)
                self._begin(self._held.next((attempt, self._cells(task, attempt))))
            self._mind_the_time()

    def _cells(self, task: "asyncio.Task[Cells]", attempt: Attempt) -> "Cells":
        """Return the cells of a task that has ended, perhaps before its first step."""
        if not task.cancelled():
            return task.result()
        failure = attempt.ending if attempt.told else asyncio.CancelledError()
        return self._worker.outcome(attempt, None, failure)

    async def _until_one_ends(self) -> None:
        """Let the handlers go on; no longer than until the next look at the time."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(_TICK, self._wake)
        await self._waiting
        timer.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _begin(self, attempt: Attempt | None) -> None:
        """Start a task for a job that has started, and for others while there is room."""
        while attempt is not None:
            task = asyncio.create_task(self._one(attempt))
            task.add_done_callback(self._end)
            self._tasks[task] = attempt
            full = len(self._tasks) >= self._limit
            attempt = None if full else self._held.next(None)

    def _end(self, task: "asyncio.Task[Cells]") -> None:
        self._ended.append(task)
        self._wake()

    async def _one(self, attempt: Attempt) -> "Cells":
        self._worker.tell_start(attempt)
        try:
            result = await self._worker.run.side_by_side(attempt)
        except asyncio.CancelledError as failure:
            return self._worker.outcome(attempt, None, attempt.ending if attempt.told else failure)
        except BaseException as failure:
            return self._worker.outcome(attempt, None, attempt.meaning(failure))
        return self._worker.outcome(attempt, result)

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
