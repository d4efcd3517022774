"""Upkeep in a tick, by `keep=`: old finished jobs are archived or deleted, at most once an hour."""

import copy
import os
import re

from .beside import note
from .errors import BadArgument, QueueError, in_seconds
from .hint import is_tended
from .log import warn
from .run import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .queue import Listener, Queue

FINISHED = ("completed", "failed", "cancelled")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LOOK = 60  # seconds after which a worker that goes on looks whether it is time again


def upkeep(
    queue: "Queue", keep: "Mapping[str, Any]", keep_by: str, listeners: "Sequence[Listener]"
) -> "Callable[[], None]":
    """Return what does the upkeep when it is due; BadArgument when `keep` or `keep_by` is wrong."""
    ages = {status: _age(status, how_long) for status, how_long in keep.items()}
    if keep_by not in ("archive", "purge"):
        raise BadArgument(f"keep_by={keep_by!r:.80} is neither archive nor purge")
    telling = copy.copy(queue)  # the same file, and whom the worker tells
    telling.listeners = tuple(listeners)
    again = 0.0

    def tend() -> None:
        nonlocal again
        if clock() < again:
            return
        again = clock() + _LOOK
        if is_tended(queue.path) or not os.path.exists(queue.path):
            return
        try:
            note(queue.file.make_side() + "/upkeep", b"", queue.file.real)
            for status, age in ages.items():
                if keep_by == "archive":
                    telling.archive(age, status=status)
                else:
                    telling.purge(age, status=status)
        except (QueueError, OSError) as problem:  # no reason to run no jobs
            warn("%s: no upkeep: %s", queue.path, str(problem))

    return tend


def _age(status: str, how_long: "Any") -> float:
    if status not in FINISHED:
        raise BadArgument(f"keep has {status!r:.80}, which is none of {', '.join(FINISHED)}")
    if isinstance(how_long, str):
        match = re.fullmatch(r"(\d+)([smhdw])", how_long, re.ASCII)
        if not match:
            raise BadArgument(f"keep[{status!r}]={how_long!r:.80} is no duration such as 12h or 7d")
        return float(match[1]) * _SECONDS[match[2]]
    return in_seconds(how_long)
