"""What a worker process tells its supervisor, and what its runs cost."""

import mmap
import os
import resource
import struct
import sys
import time

from ..run import Attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..journal import Cells

LEFT = -1.0  # in the place of a deadline: this worker has ended of its own will
ALL_LEAVE = -2.0  # or on a request that means all of them


class Slot:
    """What a worker tells its supervisor in shared memory: who it is, until when it may run."""

    _form = struct.Struct("dd128s64s")
    size = _form.size

    def __init__(self, shared: mmap.mmap, number: int) -> None:
        self._shared = shared
        self._at = number * self.size
        self._pid = 0  # of the worker: what a handler forks says nothing here
        self.clear()

    def take(self) -> None:
        """Be the worker who tells."""
        self._pid = os.getpid()

    def clear(self) -> None:
        self._form.pack_into(self._shared, self._at, 0.0, 0.0, b"", b"")

    def show(self, attempts: "Sequence[Attempt]") -> None:
        """Tell of the one whose time is over first."""
        if not attempts or os.getpid() != self._pid:
            self._begin_with(0.0)
            return
        first = min(attempts, key=lambda attempt: attempt.deadline)
        worker = first.claimed.raw("worker").rpartition(b".")[0]
        id = first.claimed.cells[0]
        victim = id if len(attempts) > 1 and len(id) <= 64 else b""
        self._form.pack_into(self._shared, self._at, first.deadline, first.timeout, worker, victim)

    def leave(self, *, all: bool) -> None:
        self._begin_with(ALL_LEAVE if all else LEFT)

    def _begin_with(self, deadline: float) -> None:
        if os.getpid() == self._pid:
            struct.pack_into("d", self._shared, self._at, deadline)

    def read(self) -> tuple[float, float, str, bytes]:
        """Return (deadline, timeout, worker's id, job's id); a deadline of 0 is no job, infinity no
        limit; the job is named where several run side by side."""
        deadline, timeout, id, victim = self._form.unpack_from(self._shared, self._at)
        return deadline, timeout, id.rstrip(b"\0").decode(), victim.rstrip(b"\0")


class Meter:
    """CPU seconds and peak memory of one run, as cells: `cpu_seconds`, `peak_mb`.

    Child processes that have ended count for the time.  Where the kernel cannot begin a peak anew
    (macOS), it is that of the process until then.
    """

    def __init__(self) -> None:
        self._own = 0.0  # CPU seconds of this process when the run began
        self._children = 0.0  # and of those that had ended by then
        self._usual = 0  # KiB that this process had when its peak began

    def begin(self) -> None:
        self._own = time.process_time()

    def cells(self) -> "Cells":
        own = time.process_time() - self._own
        others = resource.getrusage(resource.RUSAGE_CHILDREN)
        before, self._children = self._children, others.ru_utime + others.ru_stime
        spent = own + self._children - before
        peak = _peak()
        if peak > self._usual + 4096:
            self._begin_anew()
        cpu = b"%.3f" % spent if spent >= 0.001 else b""
        return {"cpu_seconds": cpu, "peak_mb": b"%d" % (peak + 1023 >> 10)}

    def _begin_anew(self) -> None:
        if os.access("/proc/self/clear_refs", os.W_OK):
            with open("/proc/self/clear_refs", "wb", buffering=0) as control:
                control.write(b"5")
        self._usual = _peak()


def _peak() -> int:
    """Return the most memory that this process has had, in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> 10 if sys.platform == "darwin" else peak


def resident(pid: int) -> int:
    """Return how many bytes of memory a process has, 0 where nobody tells."""
    return _memory(pid)[0]


def limit_memory(most: int) -> None:
    """Let this process meet MemoryError when it would have more than so many bytes."""
    has, reserved = _memory(os.getpid())
    room = max(0, most - has) + reserved  # much is reserved and not used, as threads' stacks are
    resource.setrlimit(resource.RLIMIT_DATA, (room if reserved else most, resource.RLIM_INFINITY))


def _memory(pid: int) -> tuple[int, int]:
    """Return the bytes that a process has, and those of its data as the kernel limits them."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            pages = statm.read().split()
        return int(pages[1]) * resource.getpagesize(), int(pages[5]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0, 0
