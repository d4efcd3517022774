"""`step` and `checkpoint`: what a job has done, found again when it runs again."""

import threading

from ..errors import BadArgument
from ..here import current_job
from ..layers import is_async
from ..tsv import dump, load
from .cells import bound, read, run_here, spoilt, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MOST = 1000  # steps of a job
LONGEST = 1 << 18  # bytes of JSON of all its results, and of a checkpoint


def step(name: str, function: "Callable[..., Any]", /, *args: "Any", **kwargs: "Any") -> "Any":
    """Call `function(*args, **kwargs)` once in the life of this job, and return its result.

    When the job runs again, the result that was stored is returned and nothing is called.  It is
    what JSON makes of it, also the first time: a list for a tuple.  Of an `async def` function, or
    one that returns an awaitable, there is something to await.  A function that raises is called
    again next time.  A kill between its end and the line that says so lets it run once more.

    The name is the step's identity, in whatever order steps come.  Given twice in one run, with the
    same function and the same arguments, it is the same step; with others it is a BadArgument, so
    in a loop write `step(f"mail {n}", …)`.  BadArgument too for a result that is not JSON and when
    there are too many; BadRow when the cell was spoilt; NotStored when the disk is full.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise BadArgument(f"step({name!r:.80}, …): a step's name is a text of 1 to 200 characters")
    if not callable(function):
        raise BadArgument(f"step({name!r}, {function!r:.80}): that is no function")
    run = _steps_here()
    if run is None:
        result = function(*args, **kwargs)
        return _awaited(run, name, result) if _awaits(result) else _as_json(name, result)
    stored = run.begin(name, function, _meaning(args, kwargs))
    if stored is not None:
        value = load(stored)
        return _ready(value) if name in run.awaited or is_async(function) else value
    try:
        result = function(*args, **kwargs)
        if not _awaits(result):
            return run.end(name, result)
    except BaseException:
        run.give_up(name)
        raise
    return _awaited(run, name, result)


async def _awaited(run: "_Steps | None", name: str, result: "Any") -> "Any":
    if run is None:
        return _as_json(name, await result)
    try:
        return run.end(name, await result, awaited=True)
    except BaseException:
        run.give_up(name)
        raise


async def _ready(value: "Any") -> "Any":
    return value


def _awaits(result: "Any") -> bool:
    return hasattr(result, "__await__")


def _as_json(name: str, result: "Any") -> "Any":
    return load(dump(result, f"the result of step {name!r}"))


def _meaning(args: "tuple[Any, ...]", kwargs: "dict[str, Any]") -> object:
    """Return what is equal for the same arguments; only to itself for what is not JSON."""
    try:
        return dump([args, sorted(kwargs.items())], "")
    except BadArgument:
        return object()


def checkpoint(data: "Any") -> None:
    """Store how far this job is, one JSON value in the place of the one before.

    For a loop: `for n in range(last_checkpoint() or 0, 1_000_000)`, and each thousand turns
    `checkpoint(n + 1)`.  Each call is a line in the worker's file: 11 µs, 100 bytes.
    BadArgument for what is not JSON, NotStored when the disk is full.
    """
    cell = dump(data, "the checkpoint")
    if len(cell) > LONGEST:
        raise BadArgument(f"the checkpoint is {len(cell)} bytes of JSON: {LONGEST} is the limit")
    run = _steps_here()
    if run is not None:
        with run.mutex:
            store("its checkpoint", checkpoint=bound(current_job().id, "data", cell))
            run.checkpoint = cell


def last_checkpoint() -> "Any":
    """Return what this job has stored last by `checkpoint`, None when there is nothing."""
    run = _steps_here()
    if run is None:
        return None
    with run.mutex:
        if run.checkpoint is None:
            found = read(current_job(), "checkpoint", "data")
            run.checkpoint = dump(found.get("data"), "the checkpoint")
        return load(run.checkpoint)


# --- one run


class _Steps:
    """What one run knows of its steps: results as JSON, by name."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()  # a handler may have threads
        self.awaited: set[str] = set()
        self.checkpoint: bytes | None = None
        self._done: dict[str, bytes] | None = None
        self._called: dict[str, tuple[Any, object]] = {}  # in this run

    def begin(self, name: str, function: "Any", meaning: object) -> bytes | None:
        """Return the result that is stored, None when the function is to be called now."""
        with self.mutex:
            done = self._results()
            called = self._called.get(name)
            if called is not None and not (called[0] == function and called[1] == meaning):
                raise BadArgument(
                    f"step {name!r} was given twice in one run, with another function or other"
                    f' arguments: give each a name of its own, as f"{name[:40]} {{n}}"'
                )
            if called is not None and name not in done:
                raise BadArgument(f"step {name!r} was given again while it runs")
            if name not in done and len(done) >= MOST:
                raise BadArgument(
                    f"step {name!r} is one too many: a job has at most {MOST}; in a loop use"
                    " checkpoint()"
                )
            self._called[name] = function, meaning
            return done.get(name)

    def end(self, name: str, result: "Any", *, awaited: bool = False) -> "Any":
        """Store a result, and return it as it will come back."""
        cell = dump(result, f"the result of step {name!r}")
        with self.mutex:
            done = {**self._results(), name: cell}
            names = {*self.awaited, name} if awaited else self.awaited
            pairs = b", ".join([b"%b: %b" % (dump(key, ""), done[key]) for key in done])
            more = b', "awaited": %b' % dump(sorted(names), "") if names else b""
            if len(pairs) > LONGEST:
                raise BadArgument(
                    f"with step {name!r} the results are {len(pairs)} bytes of JSON: {LONGEST} is"
                    " the limit; store a big result elsewhere, and return where it is"
                )
            cells = bound(current_job().id, "steps", b"{%b}" % pairs, more)
            store(f"step {name!r}", steps=cells)
            self._done, self.awaited = done, names
        return load(cell)

    def give_up(self, name: str) -> None:
        """Let a step that raised be called again in this run."""
        with self.mutex:
            if name not in self._results():
                self._called.pop(name, None)

    def _results(self) -> "dict[str, bytes]":
        if self._done is None:
            found = read(current_job(), "steps", "steps")
            steps, awaited = found.get("steps", {}), found.get("awaited", [])
            if not isinstance(steps, dict) or not isinstance(awaited, list):
                raise spoilt(current_job(), "steps", "no results by name")
            self.awaited = set(map(str, awaited))
            self._done = {name: dump(value, name) for name, value in steps.items()}
        return self._done


def _steps_here() -> _Steps | None:
    """Return what is known of the run that this code is in, None where no job runs."""
    attempt = run_here()
    if attempt is None:
        return None
    known: _Steps | None = attempt.memory.get(__name__)
    if known is None:  # or a thread of the handler is quicker
        known = attempt.memory.setdefault(__name__, _Steps())
    return known
