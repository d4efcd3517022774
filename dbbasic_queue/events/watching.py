"""`for event, job in watch():` – what happens to the jobs of a queue, seen from any process."""

import time

from ..errors import BadArgument, in_seconds
from ..here import queue_here
from ..run import clock
from .watcher import EVENTS, Change, Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from datetime import timedelta

    from ..queue import Queue

REST = 0.1  # seconds between two looks, at least


class Watch:
    """An iterator of changes; `close()`, the end of a `with`, or its last reference ends it."""

    def __init__(
        self,
        queue_file: "Queue | None",
        events: "tuple[str, ...]",
        type: str | None,
        queue: str | None,
        since: float | None,
        timeout: "float | timedelta | None",
        until: "Callable[[], object] | None",
    ) -> None:
        if unknown := [word for word in events if word not in EVENTS]:
            raise BadArgument(
                f"watch({unknown[0]!r:.80}): none of {', '.join(EVENTS)}; a Queue is queue_file="
            )
        if since is not None and (isinstance(since, bool) or not isinstance(since, (int, float))):
            raise BadArgument(
                f"watch(since={since!r:.80}) is no Unix time: an hour ago is time.time() - 3600"
            )
        self._wants = events, type, queue
        self._ends = None if timeout is None else clock() + in_seconds(timeout)
        self._until = until
        self._changes: Iterator[Change] = iter(())
        self._spent = 0.0  # seconds of this look
        self._told = False  # this look has told something
        self._rests = True
        self._watcher: Watcher | None = Watcher(queue_here(queue_file), since)

    def __iter__(self) -> "Watch":
        return self

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_watcher", None):
            self.close()

    def close(self) -> None:
        """Let go of the file; there are no more changes then."""
        watcher, self._watcher = self._watcher, None
        self._changes = iter(())  # a look that was not heard to its end has the file open, too
        if watcher is not None:
            watcher.close()

    def __next__(self) -> Change:
        while self._watcher is not None:
            if self._rests:
                time.sleep(self.rest())
            change = self.step()
            if change is not None:
                return change
        raise StopIteration

    def step(self) -> Change | None:
        """Return the next change of this look, None at its end."""
        if self._watcher is None:
            return None
        if self._rests:
            self._changes, self._spent, self._told = self._watcher.look(), 0.0, False
            self._rests = False
        begun = clock()
        try:
            for change in self._changes:
                self._told = True
                if self._is_wanted(change):
                    return change
        finally:
            self._spent += clock() - begun
        self._rests = True
        over = self._ends is not None and clock() >= self._ends
        if over or (not self._told and self._until is not None and self._until()):
            self.close()
        return None

    def rest(self) -> float:
        """Return the seconds until the next look: it looks no more than a tenth of the time."""
        rest = max(REST, 9 * self._spent)
        return rest if self._ends is None else min(rest, max(0.0, self._ends - clock()))

    @property
    def closed(self) -> bool:
        return self._watcher is None

    def _is_wanted(self, change: Change) -> bool:
        events, type, queue = self._wants
        return (
            (not events or change.event in events)
            and type in (None, change.job.type)
            and queue in (None, change.job.queue)
        )


def watch(
    *events: str,
    type: str | None = None,
    queue: str | None = None,
    since: float | None = None,
    timeout: "float | timedelta | None" = None,
    until: "Callable[[], object] | None" = None,
    queue_file: "Queue | None" = None,
) -> Watch:
    """Return an iterator of changes (event, job) from now on, also those that others make.

    `events`: only these of EVENTS; `type`, `queue`: only such jobs.  Each final state that a job
    has is told once, however many edits lie between two looks, also that of a job which was added
    and archived meanwhile.  What lies between may be left out: a job that has failed, was retried
    and runs again between two looks is told as retried.  A job that was deleted before its end was
    seen is told as purged.

    It looks ten times a second, takes no lock, and rests nine times as long as a look took; while
    nothing happens, a look is one `stat`.  `since`: begin with what was added or finished since
    this Unix time, so a program goes on where it stopped; some of it is then told twice.
    `timeout`: end after so many seconds; `until`: a function, asked after each look that found
    nothing, that returns true to end it.

    Where a program writes the file in place (no edit of ours does), what finished since the last
    look is told, and no more.
    """
    return Watch(queue_file, events, type, queue, since, timeout, until)


async def awatch(
    *events: str,
    type: str | None = None,
    queue: str | None = None,
    since: float | None = None,
    timeout: "float | timedelta | None" = None,
    until: "Callable[[], object] | None" = None,
    queue_file: "Queue | None" = None,
) -> "AsyncIterator[Change]":
    """As `watch`, for `async for`; the looks are made in a thread."""
    import asyncio

    with Watch(queue_file, events, type, queue, since, timeout, until) as found:
        while not found.closed:
            for change in await asyncio.to_thread(_one_look, found):
                yield change
            if not found.closed:
                await asyncio.sleep(found.rest())


def _one_look(found: Watch) -> list[Change]:
    changes = []
    while (change := found.step()) is not None:
        changes.append(change)
    return changes
