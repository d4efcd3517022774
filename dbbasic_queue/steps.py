"""Durable steps, a checkpoint and the progress of a job: what it has done already stays done.

    def order(payload):
        paid = step("charge", charge, payload["card"])     # once, also when the worker is killed
        step("mail", send_mail, payload["to"], paid["receipt"])

Each is a line in the worker's file, and reaches the row with the outcome, or when the worker died:
columns `steps`, `checkpoint`, `progress`.  A kill loses none; a power cut perhaps the last ones,
unless the queue has `sync="full"`.  The first two hold the id of their job: a copy of it
(`retry(id, copy=True)`) begins anew, a retry of the job itself goes on.  Where no job runs, as in
a test that calls the handler, `step` calls and the others do nothing.  A thread that the handler
starts knows its job when it runs in a copy of its context, as `asyncio.to_thread` does it.

The cell `steps` is written whole at each step.  With results of 20 characters, 10 steps cost 0.4
ms and 3 KB in the worker's file, 100 cost 5 ms and 0.2 MB, 1,000 (the limit) 0.4 s and 18 MB.  So
tens of steps are sensible; for the turns of a loop there is `checkpoint`.
"""

import os
import re
import threading
from typing import NamedTuple

from .errors import BadArgument, BadRow, NotStored
from .here import current_job, running
from .job import encode
from .journal import pid_of, worker_of
from .layers import is_async
from .log import warn
from .run import clock
from .tsv import dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .job import Job
    from .run import Attempt

MOST = 1000  # steps of a job
LONGEST = 1 << 18  # bytes of JSON of all its results, and of a checkpoint
PAUSE = 0.1  # seconds between two lines of progress
LONGEST_MESSAGE = 200  # characters; more is cut off
_NO_ROOM = 30.0  # seconds without progress after the disk was full


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
    run = _run_here()
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


async def _awaited(run: "_Run | None", name: str, result: "Any") -> "Any":
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
    run = _run_here()
    if run is not None:
        with run.mutex:
            _store("its checkpoint", checkpoint=_bound(current_job().id, "data", cell))
            run.checkpoint = cell


def last_checkpoint() -> "Any":
    """Return what this job has stored last by `checkpoint`, None when there is nothing."""
    run = _run_here()
    if run is None:
        return None
    with run.mutex:
        if run.checkpoint is None:
            found = _read(current_job(), "checkpoint", "data")
            run.checkpoint = dump(found.get("data"), "the checkpoint")
        return load(run.checkpoint)


# --- progress


class Progress(NamedTuple):
    """How far a job is; `total` and `percent` are None where the handler did not say them."""

    done: float
    total: float | None = None
    percent: int | None = None
    message: str = ""


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Say how far this job is: `Queue.get` and `dbbasic-queue show ID` see it at once.

    In the column `progress` as words: `50/200 25% reading`, or `50 reading` without a total.  At
    most ten lines a second are written, however often it is called: the first one, the one that
    reaches the total, and what was said last stands in the row when the job has ended (of a sealed
    job what was written last).  A full disk stops no job here.  BadArgument for what is no number.
    """
    for what, number in (("done", done), ("total", total)):
        good = isinstance(number, (int, float)) and 0 <= number < 1e300 and number is not True
        if not good and not (number is None and what == "total"):
            raise BadArgument(f"progress({what}={number!r:.80}): give a number of at least 0")
    if not isinstance(message, str):
        raise BadArgument(f"progress(message={message!r:.80}): give a text")
    run = _run_here()
    if run is not None:
        run.tell(running.get(), done, total, message)


def progress_of(job: "Job") -> Progress | None:
    """Return how far a job is, None when it has said nothing (readable) or has not started."""
    found = _WORDS.fullmatch(job.cell("progress"))
    if found is None or (job.status == "pending" and job.started_at is None):
        return None
    done, total, percent, message = found.groups()
    if not total:
        return Progress(_number(done), message=message or "")
    return Progress(_number(done), _number(total), int(percent), message or "")


_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_WORDS = re.compile(rf"{_NUMBER}(?:/{_NUMBER} (\d+)%)?(?: (.*))?", re.ASCII | re.DOTALL)


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


def _words(done: float, total: float | None, message: str) -> str:
    share = ""
    if total is not None:
        percent = min(100, int(100 * done / total)) if total else 100
        share = f"/{total:.15g} {percent}%"
    return f"{done:.15g}{share} {message[:LONGEST_MESSAGE]}".rstrip()


# --- one run


class _Run:
    """What one run knows of its steps: results as JSON, by name."""

    def __init__(self, pid: int) -> None:
        self.pid = pid  # of the worker, 0 where it is not known
        self.mutex = threading.RLock()  # a handler may have threads
        self.awaited: set[str] = set()
        self.checkpoint: bytes | None = None
        self._done: dict[str, bytes] | None = None
        self._called: dict[str, tuple[Any, object]] = {}  # in this run
        self._told_until = 0.0  # no line of progress before
        self._full = False  # the total was reached, and that was written
        self._is_plain = False  # a line of progress is stored as it was given: no layer seals it

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
            cells = _bound(current_job().id, "steps", b"{%b}" % pairs, more)
            _store(f"step {name!r}", steps=cells)
            self._done, self.awaited = done, names
        return load(cell)

    def give_up(self, name: str) -> None:
        """Let a step that raised be called again in this run."""
        with self.mutex:
            if name not in self._results():
                self._called.pop(name, None)

    def _results(self) -> "dict[str, bytes]":
        if self._done is None:
            found = _read(current_job(), "steps", "steps")
            steps, awaited = found.get("steps", {}), found.get("awaited", [])
            if not isinstance(steps, dict) or not isinstance(awaited, list):
                raise _spoilt(current_job(), "steps", "no results by name")
            self.awaited = set(map(str, awaited))
            self._done = {name: dump(value, name) for name, value in steps.items()}
        return self._done

    def tell(self, attempt: "Attempt", done: float, total: float | None, message: str) -> None:
        """Write a line of progress, if it is time again; else keep it for the outcome."""
        full = total is not None and done >= total
        with self.mutex:
            now = clock()
            if now < self._told_until and not (full and not self._full):
                if self._is_plain:
                    attempt.recorded["progress"] = encode("progress", _words(done, total, message))
                return
            text = _words(done, total, message)
            self._told_until = now + PAUSE
            try:
                current_job().record(progress=text)
            except OSError as problem:
                warn("job %s: its progress is not stored: %s", current_job().id, str(problem))
                self._told_until, full = clock() + _NO_ROOM, True
            self._full = full
            self._is_plain = attempt.recorded.get("progress") == encode("progress", text)


def _run_here() -> _Run | None:
    """Return what is known of the run that this code is in, None where no job runs."""
    attempt = running.get(None)
    if attempt is None:
        return None
    run: _Run | None = attempt.memory.get(__name__)
    if run is None:
        new = _Run(pid_of(worker_of(attempt.claimed)[0]))
        run = attempt.memory.setdefault(__name__, new)  # a thread of the handler may be quicker
    if run.pid not in (0, os.getpid()):
        raise BadArgument(
            f"job {attempt.job.id} runs in another process: a child that its handler forked stores"
            " no step, checkpoint or progress; return it to the handler"
        )
    return run


# --- the cells


def _bound(id: str, name: str, cell: bytes, more: bytes = b"") -> str:
    """Return a cell that belongs to one job."""
    return (b'{"job": "%b", "%b": %b%b}' % (id.encode(), name.encode(), cell, more)).decode()


def _store(what: str, **cells: str) -> None:
    job = current_job()
    try:
        job.record(**cells)
    except OSError as problem:
        raise NotStored(f"job {job.id}: {what} was not stored: {problem.strerror}") from problem


def _read(job: "Job", column: str, name: str) -> "dict[str, Any]":
    """Return a cell of this job, {} when there is none or it belongs to the job that this one is a
    copy of; BadRow when it was spoilt.
    """
    text = job.cell(column)
    if not text:
        return {}
    try:
        found = load(text.encode())
    except ValueError as problem:
        raise _spoilt(job, column, str(problem)) from None
    if not isinstance(found, dict) or not isinstance(found.get("job"), str) or name not in found:
        raise _spoilt(job, column, f"no JSON with job and {name}")
    return found if found["job"] == job.id else {}


def _spoilt(job: "Job", column: str, why: str) -> BadRow:
    return BadRow(
        f"job {job.id}: its column {column} cannot be read: {why}; mend the cell, or empty it: the"
        " job then begins from the first step"
    )
