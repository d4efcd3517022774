"""`limited`: a time limit and a memory limit for the runs inside."""

import resource
import sys
import threading
from contextlib import contextmanager

from ..errors import BadArgument
from ..here import running
from ..layers import layer_of
from ..new import check_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..job import Job
    from ..queue import Layer

_mutex = threading.RLock()
_given: dict[object, int] = {}  # bytes, by run
_base = 0  # bytes that the process had before the first of them
_usual = (0, 0)  # its limit then


def limited(seconds: float | None = None, memory: int | None = None) -> "Layer":
    """Return a layer that limits the time and the memory of each run inside.

    `seconds`: as the job's `timeout`, which holds too where it is shorter.  `memory`: megabytes
    beyond what the process has at the start; an allocation above fails with MemoryError, which
    fails the attempt and leaves the worker alive.  It is a limit of the process, RLIMIT_DATA: jobs
    side by side share the sum of theirs, and a program that a handler starts has it too.  Linux
    only.  BadArgument names what cannot be used.
    """
    if seconds is not None:
        check_timeout(seconds)
    if memory is not None:
        if (
            isinstance(memory, bool)
            or not isinstance(memory, (int, float))
            or not 1 <= memory < 1e9
        ):
            raise BadArgument(f"memory={memory!r:.80} is no number of megabytes")
        if sys.platform != "linux":
            raise BadArgument(f"memory={memory!r}: only Linux has such a limit")

    @contextmanager
    def around(job: "Job") -> "Iterator[None]":
        attempt = running.get(None)
        before = attempt.shorten(seconds) if attempt is not None and seconds else None
        mine = object()
        try:
            if memory is not None:
                _add(mine, int(memory * (1 << 20)))
            yield
        finally:
            if memory is not None:
                _take(mine)
            if attempt is not None and before is not None:
                attempt.lengthen(before)

    return layer_of(around)


def _add(mine: object, size: int) -> None:
    global _base, _usual
    with _mutex:
        if not _given:
            _usual = resource.getrlimit(resource.RLIMIT_DATA)
            _base = _data()
        _given[mine] = size
        _set()


def _take(mine: object) -> None:
    with _mutex:
        if _given.pop(mine, None) is not None:
            _set()


def _set() -> None:
    soft, hard = _usual
    if _given:
        wanted = _base + sum(_given.values())
        soft = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data() -> int:
    """Return how many bytes the kernel counts against RLIMIT_DATA now."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[5]) * resource.getpagesize()
