"""Worker processes: a supervisor that runs no user code, and forked workers with their own files.

The supervisor replaces a worker that dies at once, ends one whose job outlives its time or its
memory, and starts more while jobs wait.  When the supervisor itself is killed, its workers see the
end of a pipe and stop as on SIGTERM.
"""

import contextlib
import copy
import math
import mmap
import os
import signal
import sys
import time

from .. import hint, log
from ..beside import note
from ..errors import QueueError
from ..journal import read
from ..options import Options
from ..queue import Queue
from ..recover import ON_REQUEST, kill_requests
from ..run import Run, clock
from ..stop import Stop
from ..worker import Worker
from .slot import ALL_LEAVE, LEFT, Meter, Slot, limit_memory, resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_TICK = 0.05
_STOP = (signal.SIGTERM, signal.SIGINT)
_TOO_LATE = 0.5  # seconds after its JobTimeout until a worker is ended
_AGAIN = 1.0  # seconds until a worker that could not be forked is tried again
_MOST_IN_VAIN = 20  # workers in a row that died before they ran a job
NOBODY = b"-"  # in the place of a job that is to blame


class _Child:
    """A forked worker, as its supervisor sees it."""

    __slots__ = ("extra", "kill_at", "pid", "slot")

    def __init__(self, pid: int, slot: Slot, extra: bool) -> None:
        self.pid = pid
        self.slot = slot
        self.extra = extra
        self.kill_at: dict[tuple[int, bytes], float] = {}  # by claim and job


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
        self._lifeline = (-1, -1)  # a pipe: when we die, the workers read its end
        self._busy_since = clock()
        self._in_vain = 0
        self._missing, self._tried_at = 0, -_AGAIN  # workers that could not be forked
        self._pause = 0.0
        self._told = 0
        self._leaving = False
        self._cut_at = math.inf
        self.stop = Stop(Run({}, ()), options.grace)

    def run(self) -> None:
        if Worker(self._queue, self._options).others_are_enough():
            return
        self._refuse_too_little_memory()
        if self._options.run_for is not None:
            self.stop.until = clock() + self._options.run_for
        self._lifeline = os.pipe()
        try:
            for _ in range(self._least):
                self._start()
            while self._children:
                time.sleep(_TICK)
                self._pass_signals_on()
                self._reap()
                for child in list(self._children.values()):
                    self._check(child)
                self._end_the_stubborn()
                self._start_the_missing()
                self._grow()
        finally:
            self._leaving = True
            for fd in self._lifeline:
                os.close(fd)
            while self._children:  # an error of ours: the workers stop, and are waited for
                self._reap()
                time.sleep(_TICK)
        if self._in_vain >= _MOST_IN_VAIN:
            text = f"{self._in_vain} worker processes in a row ended before they ran a job"
            raise QueueError(f"{self._queue.path}: {text}; the log says why")

    def _refuse_too_little_memory(self) -> None:
        """Raise where each worker would be ended as soon as it is there."""
        most, takes = self._options.memory, resident(os.getpid())
        if most and takes > most << 20:
            text = f"this process takes {takes >> 20} MB already, and its workers begin as copies"
            raise QueueError(f"{self._queue.path}: memory={most}: {text}")

    def _start(self, *, extra: bool = False) -> None:
        """Fork one worker; an extra one leaves when nothing is due."""
        slot = self._free.pop()
        slot.clear()
        _flush()
        options = copy.copy(self._options)
        if extra:
            options.run_for = None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)  # till the child hears them
        try:
            pid = os.fork()
            if not pid:
                _be_worker(self._queue, options, slot, self._lifeline, self.stop.until)
        except OSError as problem:
            self._free.append(slot)
            self._missing, self._tried_at = self._missing + (not extra), clock()
            text = f"{self._queue.path}: no worker process could be made: {problem.strerror}"
            if not self._children:
                raise QueueError(text) from problem
            log.warn("%s", text)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._children[pid] = _Child(pid, slot, extra)

    def _start_the_missing(self) -> None:
        """Try again to fork workers for which there was no room, once a second."""
        if self._missing and clock() > self._tried_at + _AGAIN and not self.stop.is_over():
            self._missing -= 1
            self._start()

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
            deadline, _, id, _ = child.slot.read()
            if child.extra:  # one that found nothing to run: the next one comes later
                self._pause = 0.0 if id else min(60.0, 2 * self._pause + 1)
                self._busy_since = clock() + self._pause
            if deadline == ALL_LEAVE and not self.stop.asked:
                self.stop.ask()
            if deadline in (LEFT, ALL_LEAVE):
                continue
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            self._note(child, f"worker died ({how})")
            log.warn("%s: worker process %d died (%s)", self._queue.path, pid, how)
            self._in_vain = 0 if id else self._in_vain + 1
            if not self.stop.asked and not self._leaving and self._in_vain < _MOST_IN_VAIN:
                self._start(extra=child.extra)

    def _check(self, child: _Child) -> None:
        """End a worker whose job has outlived its time, or which takes too much memory."""
        deadline, timeout, id, victim = child.slot.read()
        if deadline > 0 and clock() > deadline + _TOO_LATE:
            self._end(child, f"timed out after {timeout:g} s", victim)
        elif self._options.memory and resident(child.pid) > self._options.memory << 20:
            self._end(child, f"used more than {self._options.memory} MB of memory")
        elif id:
            self._mind_kill_requests(child, id)

    def _mind_kill_requests(self, child: _Child, id: str) -> None:
        """End a worker that does not end a job on request by itself."""
        path = os.path.join(self._queue.file.side, "workers", id + ".tsv")
        for request in kill_requests(path):
            if clock() > child.kill_at.setdefault(request, clock() + 2 * _TOO_LATE):
                child.kill_at[request] = math.inf
                k, job = request
                mine = [one.event for one in read(path) if one.k == k and one.id == job]
                if "start" in mine and "end" not in mine:
                    self._end(child, ON_REQUEST.decode(), job)

    def _end_the_stubborn(self) -> None:
        """End workers that outlive the grace or a second signal; their jobs go back uncharged."""
        if self.stop.is_cut_short():
            self._cut_at = min(self._cut_at, clock() + 2 * _TOO_LATE)
        for child in self._children.values() if clock() > self._cut_at else ():
            self._end(child, "stopped", NOBODY)

    def _end(self, child: _Child, why: str, victim: bytes = b"") -> None:
        self._note(child, why, victim)
        for end in (os.killpg, os.kill):
            try:
                end(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _note(self, child: _Child, why: str, victim: bytes = b"") -> None:
        """Leave the reason beside the worker's file, for whoever takes it in."""
        path = os.path.join(self._queue.file.side, "workers", id := child.slot.read()[2])
        if id and os.path.exists(path + ".tsv") and not os.path.exists(path + ".why"):
            with contextlib.suppress(OSError):  # no room: the worker ends all the same
                note(path + ".why", b"%b\n%b" % (why.encode(), victim), self._queue.file.real)

    def _grow(self) -> None:
        """Start one more worker while all are busy and something is due."""
        if self.stop.is_over() or not self._free or self._missing:
            return
        if clock() < self._tried_at + _AGAIN:
            return
        busy = all(child.slot.read()[0] > 0 for child in self._children.values())
        if not busy:
            self._busy_since = max(clock(), self._busy_since)
        elif clock() - self._busy_since > 0.2:
            self._busy_since = clock()
            if hint.may_be_due(self._queue.file.real):
                self._start(extra=True)


def _be_worker(
    queue: Queue, options: Options, slot: Slot, lifeline: tuple[int, int], until: float
) -> "NoReturn":
    """Be a worker, and never return to the caller's code."""
    status = 0
    try:
        os.setpgid(0, 0)
        os.close(lifeline[1])
        os.set_blocking(lifeline[0], False)
        worker = Worker(queue, options)
        if options.memory:
            worker.watcher.start()  # one that finds no memory at its start is waited for for ever
            limit_memory(options.memory << 20)
        slot.take()
        worker.run.slot, worker.run.cut_off = slot, _TOO_LATE
        worker.run.meter = Meter() if options.concurrency == 1 else None
        worker.stop.lifeline = lifeline[0]
        worker.stop.until = until
        with worker.stop:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
            worker.work()
        slot.leave(all=worker.stop.all)
    except QueueError as failure:
        log.error("%s", str(failure))
        status = 1
    except BaseException as failure:
        log.error_with("%s: worker %d ended", (queue.path, os.getpid()), log.traceback_of(failure))
        status = 1
    finally:
        try:
            _flush()
        finally:
            os._exit(status)


def _flush() -> None:
    """Write what was printed, so that no process does it twice."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # none, closed, or a pipe that nobody reads
            continue
