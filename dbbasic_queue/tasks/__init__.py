"""Functions and small classes as jobs: `@task`, and the mapping `handlers` for `process_jobs`.

A task is enqueued as it is called, `send.enqueue("ana@example.com", retries=2)`, and its payload is
that call: `{"args": [...], "kwargs": {...}}`.  Its arguments are checked then, before anything is
written.  In the file a task is its name; no import path is stored.
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .. import Queue
from ..errors import BadArgument, in_seconds
from ..layers import check_layers
from .task import FAILURE as FAILURE
from .task import Task as Task
from .work import handler_of, teller_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from ..queue import Layer

P = ParamSpec("P")
R = TypeVar("R")


class Tasks(dict[str, Callable[[Any], Any]]):
    """A mapping of task names to handlers, for `process_jobs`, and the decorator that fills it."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, Task[..., Any]] = {}

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        max_attempts: int | None = None,
        timeout: float | None = None,
        backoff: str | None = None,
        unique: "bool | str | Callable[..., str] | None" = None,
        unique_for: "float | timedelta | None" = None,
        columns: "Mapping[str, str] | None" = None,
        middleware: "Sequence[Layer]" = (),
        queue_file: Queue | None = None,
        sealed: "bool | str | Iterable[str]" = False,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        max_attempts: int | None = None,
        timeout: float | None = None,
        backoff: str | None = None,
        unique: "bool | str | Callable[..., str] | None" = None,
        unique_for: "float | timedelta | None" = None,
        columns: "Mapping[str, str] | None" = None,
        middleware: "Sequence[Layer]" = (),
        queue_file: Queue | None = None,
        sealed: "bool | str | Iterable[str]" = False,
    ) -> Any:
        """Make a `Task` of a function, plain or `async def`, or of a class with `handle(self)`.

        A class without an `__init__` of its own is made a dataclass.  Its optional
        `failed(self, error)` is a job too: it runs once the first one has ended as failed for good,
        in whatever way, and again only if it raised or its worker died.

        `name` is the type in the file (None: the function's own); a second task of that name is a
        BadArgument, but the same function after a reload takes the place of the first.  `queue` to
        `backoff`, and `columns`, are those of enqueue.  `unique`: one unfinished job at a time,
        True for each set of arguments, a text for all, or a function of the arguments that returns
        the key; with `unique_for` seconds a completed job holds it too.  `middleware`: layers
        around each run of this task, inside those of process_jobs.  `sealed`: its jobs are sealed,
        see `crypt`; True takes the keys of $DBBASIC_QUEUE_KEY, else it is keys.  Its handler opens
        them by itself and runs no plain one.
        """
        check_layers(middleware)
        if not (unique is None or isinstance(unique, (bool, str)) or callable(unique)):
            raise BadArgument(f"unique={unique!r:.80} is no True, no text and no function")
        if unique_for is not None:
            in_seconds(unique_for)
            if not unique:
                raise BadArgument(f"unique_for={unique_for!r:.80} goes with unique= only")
        given = {
            "queue": queue, "priority": priority, "max_attempts": max_attempts,
            "timeout": timeout, "backoff": backoff, "columns": columns,
        }  # fmt: skip
        how = {what: value for what, value in given.items() if value is not None}

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            target = _checked(function)
            own = getattr(target, "__name__", "") if name is None else name
            made: Task[..., Any] = Task(
                target, own, dict(how), unique, unique_for, queue_file, sealed
            )
            self._add(made, tuple(middleware))
            return made

        return decorate if function is None else decorate(function)

    def _add(self, task: Task[..., Any], layers: "Sequence[Layer]") -> None:
        old = self._tasks.get(task.name)
        if task.name in self and not (old and _is_same(old.function, task.function)):
            there = old.function if old else self[task.name]
            raise BadArgument(
                f"there is a task {task.name} already, {_place(there)}: give"
                f" {_place(task.function)} a name of its own, @task(name=...)"
            )
        self._tasks[task.name] = task
        self[task.name] = task.handler = handler_of(task, layers)
        if task.tells:
            self[task.name + FAILURE] = teller_of(task)


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether a function stands in the body of a class and takes `self` or `cls` first."""
    if not inspect.isfunction(function):
        return False
    outer = function.__qualname__.rpartition(".")[0]
    takes = function.__code__.co_varnames[: function.__code__.co_argcount]
    return bool(outer) and not outer.endswith("<locals>") and takes[:1] in (("self",), ("cls",))


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    if not isinstance(function, type):
        if not callable(function) or inspect.isgeneratorfunction(function):
            text = "it is no plain function; a name is given as @task(name=…)"
            raise BadArgument(f"{function!r:.80} cannot be a task: {text}")
        if _is_method(function):
            text = "a method has no object in a worker; give a function, or a class with handle"
            raise BadArgument(f"{_place(function)} cannot be a task: {text}")
        return function
    if not callable(getattr(function, "handle", None)):
        raise BadArgument(f"{_place(function)} cannot be a task: it has no handle(self)")
    if not {"__dataclass_fields__", "__init__"} & vars(function).keys():
        return dataclasses.dataclass(function)
    return function


def _place(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"


def _is_same(one: Any, other: Any) -> bool:
    """Whether two are the same function, read twice; a script may be read as __main__ too."""
    files = [getattr(sys.modules.get(f.__module__), "__file__", f.__module__) for f in (one, other)]
    return files[0] == files[1] and bool(one.__qualname__ == other.__qualname__)


handlers = Tasks()
task = handlers.task
