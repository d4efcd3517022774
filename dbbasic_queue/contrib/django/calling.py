"""The call of a task, plain or async; what is told to end has ended when this returns."""

import asyncio
import contextlib
import threading
from inspect import iscoroutinefunction

from asgiref.sync import async_to_sync

from .framework import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def call(task: Task, args: "list[Any]", kwargs: "dict[str, Any]") -> "Any":
    """Call a task and return what it returns.

    Async ones run in a loop in a thread of its own, as everywhere in Django: what they do with
    `sync_to_async`, as with the database, comes back to this thread.  When a time limit or a signal
    raises here, the coroutine is cancelled and waited for: it must not go on after its end is told.
    """
    if not iscoroutinefunction(task.func):
        return task.call(*args, **kwargs)
    told, ended = threading.Event(), threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def run() -> "Any":
        try:
            one = asyncio.current_task()
            assert one is not None
            running.append((asyncio.get_running_loop(), one))
            if told.is_set():  # before it began
                raise asyncio.CancelledError
            return await task.acall(*args, **kwargs)
        finally:
            ended.set()

    try:
        return async_to_sync(run)()
    except BaseException:
        told.set()
        if running and not ended.is_set():
            loop, one = running[0]
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                loop.call_soon_threadsafe(one.cancel)
            ended.wait()
        raise
