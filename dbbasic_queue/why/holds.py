"""The limits that may hold a job: what workers have said they ask, weighed against what is known.

A rate's file in `queue.tsv.d/limits` tells when the next job may start; how many run, the rows.
"""

import math
import os
from typing import NamedTuple

from ..beside import NoFile, open_regular
from ..files import read_all
from ..job import Job
from ..show import span
from ..tsv import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..queue import Queue

_LONGEST = 100  # characters of a key that stand in the file as they are


class Hold(NamedTuple):
    """A limit, as a text; `is_sure`: it lets the job not start now."""

    text: str
    is_sure: bool


def holds(queue: "Queue", job: Job, texts: list[str], now: float) -> list[Hold]:
    """Return those of the limits that may hold a job; one that certainly does not is left out."""
    return [hold for text in texts for hold in _weighed(queue, job, text, now)]


def _weighed(queue: "Queue", job: Job, text: str, now: float) -> "Iterator[Hold]":
    limit = _parsed(text)
    if limit is None:
        yield Hold(f"it asks {text} before each start", is_sure=False)
        return
    if not limit.has(job):
        return
    try:
        key = limit.key_of(job)
    except ValueError:
        yield Hold(f"limited, perhaps, by {limit.shown}", is_sure=False)
        return
    if limit.name == "concurrency":
        run = sum(limit.has(one) and _same(limit, one, key) for one in queue.jobs("processing"))
        if run >= limit.n:
            yield Hold(f"limited: {limit.shown}, and {run} such run now", is_sure=True)
        return
    at = limit.free_at(_starts(queue, limit.file, key), now)
    if at > now:
        left = span(at - now + 0.999)
        yield Hold(f"limited: {limit.shown}; the next may start in {left}", is_sure=True)


def _same(limit: "_Limit", job: Job, key: bytes) -> bool:
    try:
        return limit.key_of(job) == key
    except ValueError:
        return False


class _Limit:
    """A rate or a concurrency, read from the text that it shows."""

    def __init__(self, name: str, given: "list[Any]", named: "dict[str, Any]", shown: str) -> None:
        self.name = name
        self.shown = shown
        self.n = int(given[0])
        self.window = float(given[1]) if name == "rate" else 1.0
        if self.n < 1 or not 0 < self.window < math.inf:
            raise ValueError("no limit is like that")
        self.how = str(named.get("how", "sliding"))
        self.file = f"{named.get('name')}.{self.how}.{self.window}"
        self.types, self.queues = _several(named.get("type")), _several(named.get("queue"))
        self.key = named.get("key")

    def has(self, job: Job) -> bool:
        return (not self.types or job.type in self.types) and (
            not self.queues or job.queue in self.queues
        )

    def key_of(self, job: Job) -> bytes:
        """Return by which value a job is limited; ValueError where only the worker can tell."""
        if self.key is None:
            return b""
        if not isinstance(self.key, str):
            raise ValueError("a function")
        payload = job.payload
        if isinstance(payload, dict) and self.key not in payload:
            inner = payload.get("kwargs")
            payload = inner if isinstance(inner, dict) else payload
        text = dump(payload.get(self.key) if isinstance(payload, dict) else None, "the key")
        if len(text) > _LONGEST:
            raise ValueError("too long")
        return text

    def free_at(self, starts: list[float], now: float) -> float:
        """Return when one more may start."""
        starts = sorted(min(at, now) for at in starts if at > now - self.window)
        if self.how == "spacing":
            return starts[-1] + self.window / self.n if starts else now
        if self.how == "sliding":
            return starts[-self.n] + self.window if len(starts) >= self.n else now
        begin = now // self.window * self.window
        return begin + self.window if sum(at >= begin for at in starts) >= self.n else now


def _several(given: "Any") -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _parsed(text: str) -> _Limit | None:
    """Read a text such as rate(2, 60, type='mail', name='…'); None for a function of the caller."""
    import ast

    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            return None
        name = call.func.id
        given = [ast.literal_eval(one) for one in call.args]
        named: dict[str, Any] = {}
        for one in call.keywords:
            literal = isinstance(one.value, (ast.Constant, ast.List))
            named[one.arg or ""] = ast.literal_eval(one.value) if literal else one.value
        words = [ast.unparse(one) for one in (*call.args, *call.keywords)]
        shown = f"{name}({', '.join(word for word in words if not word.startswith('name='))})"
        return _Limit(name, given, named, shown) if name in ("rate", "concurrency") else None
    except (SyntaxError, ValueError, TypeError, IndexError, OverflowError, RecursionError):
        return None


def _starts(queue: "Queue", name: str, key: bytes) -> list[float]:
    if "/" in name:
        return []
    try:
        fd = open_regular(os.path.join(queue.file.side, "limits", name), os.O_RDONLY)
    except (OSError, NoFile, ValueError):
        return []
    try:
        lines = [line.partition(b"\t") for line in read_all(fd).split(b"\n")[:-1]]
    finally:
        os.close(fd)
    return [float(at) for at, _, of in lines if of == key and at.replace(b".", b"", 1).isdigit()]
