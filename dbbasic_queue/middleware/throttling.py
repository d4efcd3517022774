"""`throttled`: so many runs in so many seconds, over all workers on the file; else a snooze.

The starts stand in `queue.tsv.d/throttled/NAME`, lines `microseconds<TAB>key`, read and written
under the kernel's lock on that file, which a killed worker gives back at once.
"""

import os
import time
from contextlib import contextmanager

from ..after import is_label
from ..beside import make, open_regular
from ..errors import BadArgument, Snooze, in_seconds
from ..files import read_all
from ..flock import try_lock, unlock
from ..here import queue_here
from ..layers import layer_of
from ..tsv import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from typing import Any

    from ..job import Job
    from ..queue import Layer

FOLDER = "throttled"
_FEW = 64  # lines that are not worth a shorter file
_WIDTH = 18  # bytes of a line without a key
_PATIENCE = 5.0  # seconds for the lock, which others hold for some microseconds


def throttled(
    n: int,
    seconds: "float | timedelta",
    key: "str | Callable[[Any], Any] | None" = None,
    *,
    name: str | None = None,
) -> "Layer":
    """Return a layer: at most `n` runs begin in any `seconds`; a job too many is snoozed until it
    may, uncharged.

    Counted for each type; `name` makes one count of all that are given that name.  `key`, a field
    of the payload or a function payload -> value, gives each value a count of its own.  Each worker
    on the file needs the layer.  `limits.rate` leaves such jobs in the queue instead, which is
    cheaper where many wait.  BadArgument names what cannot be used.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise BadArgument(f"n={n!r:.80} is no whole number of at least 1")
    window = round(in_seconds(seconds) * 1e6)
    if not 0 < window < 1e16:
        raise BadArgument(f"seconds={seconds!r:.80} is no time above 0, and below 300 years")
    if key is not None and not isinstance(key, str) and not callable(key):
        raise BadArgument(f"key={key!r:.80} is no field of the payload and no function of it")
    if name is not None and not (is_label(name) and name[0] != "."):
        raise BadArgument(f"name={name!r:.80}: a name is 1 to 100 letters, digits, _ . or -")

    @contextmanager
    def around(job: "Job") -> "Iterator[None]":
        file = f"name.{name}" if name else f"type.{job.type}"
        wait = _start(f"{file}.{window}", n, window, _key_of(job, key))
        if wait:
            raise Snooze(wait / 1e6)
        yield

    return layer_of(around)


def _key_of(job: "Job", key: "str | Callable[[Any], Any] | None") -> bytes:
    if key is None:
        return b""
    payload = job.payload
    if callable(key):
        return dump(key(payload), "the key of throttled()")
    return dump(payload.get(key) if isinstance(payload, dict) else None, "")


def _start(name: str, n: int, window: int, key: bytes) -> int:
    """Note a start; or return the microseconds until there may be one."""
    fd = _open(name)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not try_lock(fd):
            if time.monotonic() > deadline:
                raise Snooze(1)
            time.sleep(0.001)
        return _look(fd, n, window, key)
    finally:
        unlock(fd)  # a child that another thread has just forked may have a copy
        os.close(fd)


def _look(fd: int, n: int, window: int, key: bytes) -> int:
    now, size = time.time_ns() // 1000, os.fstat(fd).st_size
    if not key and size % _WIDTH == 0 and size % (_WIDTH << 10):  # now and then all of it
        last, first = _stamp(fd, size - _WIDTH), _stamp(fd, size - n * _WIDTH)
        if 0 <= first <= last <= now:
            if first + window > now:
                return first + window - now
            os.pwrite(fd, b"%d\t\n" % now, size)
            return 0
    data = read_all(fd)
    end = data.rfind(b"\n") + 1  # what follows was cut off by a kill
    lines = data[:end].split(b"\n")[:-1]
    kept, is_ahead = [], False
    for line in lines:
        stamp, tab, whose = line.partition(b"\t")
        if tab and stamp.isdigit() and len(stamp) < 18 and int(stamp) > now - window:
            is_ahead = is_ahead or int(stamp) > now
            kept.append((min(int(stamp), now), whose))
    mine = sorted(at for at, whose in kept if whose == key)
    wait = max(1, mine[-n] + window - now) if len(mine) >= n else 0
    new = [] if wait else [(now, key)]
    if is_ahead or len(lines) > max(_FEW, 2 * len(kept)):
        new, end = [*kept, *new], 0  # killed in between, lines stand there twice
    if new:  # a clock that was set back makes nobody wait longer than one window
        text = b"".join([b"%d\t%b\n" % one for one in new])
        os.pwrite(fd, text, end)
        os.ftruncate(fd, end + len(text))
    return wait


def _stamp(fd: int, at: int) -> int:
    """Return the time in a line without a key; 0 before the file, -1 where none stands."""
    stamp = os.pread(fd, _WIDTH, at)[:-2] if at >= 0 else b"0"
    return int(stamp) if stamp.isdigit() else -1


def _open(name: str) -> int:
    file = queue_here().file
    path = os.path.join(file.side, FOLDER, name)
    try:
        return open_regular(path, os.O_RDWR)
    except FileNotFoundError:
        file.make_side(FOLDER)
        return make(path, os.O_RDWR, file.real)
