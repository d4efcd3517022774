"""Worker processes: a supervisor that runs no user code, and forked workers with their own files.

The supervisor replaces a worker that dies at once, ends one whose job outlives its time or its
memory, and starts more while jobs wait.  When the supervisor itself is killed, its workers see the
end of a pipe and stop as on SIGTERM.
"""

import copy
import mmap
import os
import resource
import signal
import struct
import sys
import time

from . import hint, log
from .options import Options
from .queue import Queue
from .run import Run, clock
from .stop import Stop
from .worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_TICK = 0.05
_TOO_LATE = 0.5  # seconds after its JobTimeout until a worker is ended
_MOST_IN_VAIN = 20  # workers in a row that died before they ran a job
LEFT = -1.0  # in the place of a deadline: this worker has ended of its own will
_PAGE = resource.getpagesize()


class Slot:
    """What a worker tells its supervisor in shared memory: who it is, until when it may run."""

    _form = struct.Struct("dd112s")
    size = _form.size

    def __init__(self, shared: mmap.mmap, number: int) -> None:
        self._shared = shared
        self._at = number * self.size
        self.clear()

    def clear(self) -> None:
        self._form.pack_into(self._shared, self._at, 0.0, 0.0, b"")

    def begin(self, id: bytes, deadline: float, timeout: float) -> None:
        self._form.pack_into(self._shared, self._at, deadline, timeout, id)

    def end(self) -> None:
        struct.pack_into("d", self._shared, self._at, 0.0)

    def leave(self) -> None:
        struct.pack_into("d", self._shared, self._at, LEFT)

    def read(self) -> tuple[float, float, str]:
        """Return (deadline, timeout, worker's id); a deadline of 0 is no job, infinity no limit."""
        deadline, timeout, id = self._form.unpack_from(self._shared, self._at)
        return deadline, timeout, id.rstrip(b"\0").decode()


class _Child:
    """A forked worker, as its supervisor sees it."""

    __slots__ = ("extra", "pid", "slot")

    def __init__(self, pid: int, slot: Slot, extra: bool) -> None:
        self.pid = pid
        self.slot = slot
        self.extra = extra


def supervise(queue: Queue, options: Options) -> None:
    """Run workers until none has anything left to do, or for `run_for` seconds."""
    supervisor = Supervisor(queue, options)
    with supervisor.stop:
        supervisor.run()
    supervisor.stop.pass_on()


class Supervisor:
    """The parent of the workers of one call."""

    def __init__(self, queue: Queue, options: Options) -> None:
        self._queue = queue
        self._options = options
        self._least, self._most = options.processes
        shared = mmap.mmap(-1, Slot.size * self._most)
        self._free = [Slot(shared, number) for number in range(self._most)]
        self._children: dict[int, _Child] = {}
        self._lifeline = os.pipe()
        self._busy_since = clock()
        self._in_vain = 0
        self._pause = 0.0
        self._told = 0
        self._leaving = False
        self.stop = Stop(Run({}, ()), None)

    def run(self) -> None:
        if Worker(self._queue, self._options).others_are_enough():
            return
        try:
            for _ in range(self._least):
                self._start()
            while self._children:
                time.sleep(_TICK)
                self._pass_signals_on()
                self._reap()
                for child in list(self._children.values()):
                    self._check(child)
                self._grow()
        finally:
            self._leaving = True
            for fd in self._lifeline:
                os.close(fd)
            while self._children:  # an error of ours: the workers stop, and are waited for
                self._reap()
                time.sleep(_TICK)

    def _start(self, *, extra: bool = False) -> None:
        """Fork one worker; an extra one leaves when nothing is due."""
        slot = self._free.pop()
        slot.clear()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        options = copy.copy(self._options)
        if extra:
            options.run_for = None
        pid = os.fork()
        if not pid:
            _be_worker(self._queue, options, slot, self._lifeline)
        self._children[pid] = _Child(pid, slot, extra)

    def _pass_signals_on(self) -> None:
        while self._told < self.stop.asked:
            self._told += 1
            for pid in self._children:
                os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        for child in list(self._children.values()):
            try:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
            except ChildProcessError:  # SIGCHLD is ignored here: the kernel keeps no status
                pid, status = child.pid, 0
            if not pid:
                continue
            del self._children[pid]
            self._free.append(child.slot)
            deadline, _, id = child.slot.read()
            if child.extra:  # one that found nothing to run: the next one comes later
                self._pause = 0.0 if id else min(60.0, 2 * self._pause + 1)
                self._busy_since = clock() + self._pause
            if deadline == LEFT:
                continue
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            self._note(child, f"worker died ({how})")
            log.warn("%s: worker process %d died (%s)", self._queue.path, pid, how)
            self._in_vain = 0 if id else self._in_vain + 1
            if not self.stop.asked and not self._leaving and self._in_vain < _MOST_IN_VAIN:
                self._start()

    def _check(self, child: _Child) -> None:
        """End a worker whose job has outlived its time, or which takes too much memory."""
        deadline, timeout, _ = child.slot.read()
        if deadline > 0 and clock() > deadline + _TOO_LATE:
            self._end(child, f"timed out after {timeout:g} s")
        elif self._options.memory and _resident(child.pid) > self._options.memory << 20:
            self._end(child, f"used more than {self._options.memory} MB of memory")

    def _end(self, child: _Child, why: str) -> None:
        self._note(child, why)
        for end in (os.killpg, os.kill):
            try:
                end(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _note(self, child: _Child, why: str) -> None:
        """Leave the reason beside the worker's file, for whoever takes it in."""
        id = child.slot.read()[2]
        path = os.path.join(self._queue.file.side, "workers", id)
        if id and os.path.exists(path + ".tsv") and not os.path.exists(path + ".why"):
            self._queue.file.note(path + ".why", why.encode())

    def _grow(self) -> None:
        """Start one more worker while all are busy and something is due."""
        if self.stop.asked or not self._free:
            return
        busy = all(child.slot.read()[0] > 0 for child in self._children.values())
        if not busy:
            self._busy_since = max(clock(), self._busy_since)
        elif clock() - self._busy_since > 0.2 and self._something_is_due():
            self._start(extra=True)

    def _something_is_due(self) -> bool:
        found = hint.read(self._queue.file.side)
        return found is None or found.bound <= time.time()


def _be_worker(queue: Queue, options: Options, slot: Slot, lifeline: tuple[int, int]) -> "NoReturn":
    """Be a worker, and never return to the caller's code."""
    status = 0
    try:
        os.setpgid(0, 0)
        os.close(lifeline[1])
        os.set_blocking(lifeline[0], False)
        if options.memory:
            resource.setrlimit(resource.RLIMIT_DATA, (options.memory << 20, resource.RLIM_INFINITY))
        worker = Worker(queue, options, slot=slot)
        worker.stop.lifeline = lifeline[0]
        with worker.stop:
            worker.work()
        slot.leave()
    except BaseException as failure:
        log.error_with("%s: worker %d ended", (queue.path, os.getpid()), log.traceback_of(failure))
        status = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)


def _resident(pid: int) -> int:
    """Return how many bytes of memory a process has, 0 where nobody tells."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
