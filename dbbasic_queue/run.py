"""One run of one handler: its layers, its time limit, and how it is made to end."""

import threading
import time
from functools import partial
from math import inf

from .errors import JobTimeout, Killed, Stopped
from .here import running
from .job import Job
from .journal import line, now, start_line
from .layers import inside, result_of
from .lock import in_a_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from .journal import Cells
    from .pool.slot import Meter, Slot
    from .queue import Handlers, Layer

    T = TypeVar("T")
    Outcome = Callable[["Attempt", Any, BaseException | None], Cells]
    Record = Callable[..., None]
    Limit = tuple[float, float, BaseException, BaseException]

CUT_OFF = 5  # seconds that a handler has to end after it was told to


class _Nothing(BaseException):
    """What takes the place of an exception that is not to come up any more."""


class Attempt:
    """One job that runs: its lines, until when it may, and why it is to end."""

    deadline = inf  # on the clock below, once it runs
    ending: BaseException = JobTimeout("timed out")
    told = False  # the handler was made to raise that
    cut_off: float = CUT_OFF
    show: "Callable[[], None] | None" = None  # tells the supervisor, where there is one
    _job: Job | None = None

    def __init__(
        self, claimed: Job, timeout: float | None = None, record: "Record | None" = None
    ) -> None:
        self.claimed = claimed  # as its row says
        self.id = claimed.cells[0]
        self.mark = claimed.raw("worker")
        self.k = self.mark.rpartition(b".")[2]
        self.number = claimed.attempts + 1
        self.payload = claimed.payload
        claimed.forget_payload()  # what is done to it there stays there; and memory is dear
        self.started_at = now()
        self.recorded: Cells = {}
        self.memory: dict[str, Any] = {}  # what features keep, by their module; it goes with this
        self.timeout = timeout or 0.0
        if timeout:
            self.ending = JobTimeout(f"timed out after {timeout:g} s")
        self._record = record

    @property
    def job(self) -> Job:
        """The job as its handler sees it, made when somebody asks."""
        if self._job is None:
            self._job = self.claimed.with_cells({"attempts": b"%d" % self.number})
            self._job.run_with(self.payload, self._record and partial(self._record, self))
        return self._job

    def start_line(self, max_attempts: int) -> bytes:
        """Return the line of the worker's file that says this run has started."""
        return start_line(self.k, self.id, self.number, self.started_at, max_attempts)

    def line(self, event: bytes, at: bytes, cells: "Cells") -> bytes:
        """Return a further line about it."""
        return line(self.k, event, self.id, self.number, at, cells)

    def begin(self) -> None:
        """Start its time."""
        if self.timeout:
            self.deadline = min(self.deadline, clock() + self.timeout)

    def shorten(self, seconds: float) -> "Limit | None":
        """Let its time be over in so many seconds, if that is sooner; return what was before."""
        if self.told or clock() + seconds >= self.deadline:
            return None
        ours = JobTimeout(f"timed out after {seconds:g} s")
        before = (self.timeout, self.deadline, self.ending, ours)
        self.timeout, self.ending, self.deadline = seconds, ours, clock() + seconds
        if self.show is not None:
            self.show()
        return before

    def lengthen(self, before: "Limit") -> None:
        """Take `shorten` back, unless something else is to end it by now."""
        if not self.told and self.ending is before[3]:
            self.timeout, self.deadline, self.ending = before[:3]
            if self.show is not None:
                self.show()

    def end(self, why: BaseException) -> None:
        """Let its time be over now, for a reason of its own."""
        if not self.told:
            self.ending = why
            self.deadline = min(self.deadline, clock())

    def meaning(self, failure: BaseException) -> BaseException:
        """Return what the handler was told, when that is what came out of it.

        What is to end on request is not tried again, whatever its handler made of it.
        """
        as_told = type(failure).__name__ in (type(self.ending).__name__, "CancelledError")
        return (
            self.ending if self.told and (as_told or isinstance(self.ending, Killed)) else failure
        )

    def tell(self) -> None:
        """Its handler is told now, and has CUT_OFF seconds from now on."""
        self.told = True
        self.deadline = clock()

    def restore(self) -> None:
        """Take back what the handler may have done to its job."""
        self._job, self.payload = None, self.claimed.payload

    def is_over(self) -> bool:
        """Whether the handler is to be told now."""
        return not self.told and clock() >= self.deadline


class Run:
    """What runs in this worker now; signal handlers and the watching thread look here."""

    def __init__(self, handlers: "Handlers", layers: "Sequence[Layer]") -> None:
        self.attempts: tuple[Attempt, ...] = ()  # several only where `async def` ones run
        self.inside: Attempt | None = None  # in its code, so an exception may be thrown in
        self.thread = threading.get_ident()
        self.in_main = threading.current_thread() is threading.main_thread()
        self.slot: Slot | None = None  # where a supervisor looks, in a worker process
        self.meter: Meter | None = None
        self.cut_off: float = CUT_OFF  # less where a supervisor is stricter
        self._gate = threading.Lock()  # between coming out and being thrown at
        self._thrown = False
        self._call = _call(handlers, layers)

    def __call__(self, attempt: Attempt, outcome: "Outcome") -> "Cells":
        """Run a job's handler inside its layers and return its outcome.

        `outcome(attempt, result, failure)` calls what the handler made, so it has the same time.
        """
        self.begin(attempt)
        try:
            return self.enter(attempt, self._until_outcome, attempt, outcome)
        except BaseException as failure:
            return self._failed(attempt, outcome, failure)
        finally:
            self.end(attempt)

    def _until_outcome(self, attempt: Attempt, outcome: "Outcome") -> "Cells":
        return outcome(attempt, result_of(self._call(attempt)), None)

    async def side_by_side(self, attempt: Attempt, outcome: "Outcome") -> "Cells":
        """As a call, in a task of its own: it waits where the handler does."""
        self.begin(attempt)
        try:
            running.set(attempt)
            result = self.enter(attempt, self._call, attempt)
            result = await result if hasattr(result, "__await__") else result
            return self.enter(attempt, outcome, attempt, result, None)
        except BaseException as failure:
            return self._failed(attempt, outcome, failure)
        finally:
            self.end(attempt)

    def _failed(self, attempt: Attempt, outcome: "Outcome", failure: BaseException) -> "Cells":
        """Return the outcome of what a handler raised; of what that raises, when it is read."""
        for _ in range(3):
            try:
                return self.enter(attempt, outcome, attempt, None, attempt.meaning(failure))
            except BaseException as worse:
                failure = worse
                attempt.restore()
        raise failure

    def begin(self, attempt: Attempt) -> None:
        attempt.begin()
        attempt.cut_off = self.cut_off
        self.attempts = (*self.attempts, attempt)
        if self.slot is not None:
            attempt.show = self.show
            self.show()
        if self.meter is not None:
            self.meter.begin()

    def end(self, attempt: Attempt) -> None:
        if self.meter is not None:
            attempt.recorded |= self.meter.cells()
        self.attempts = tuple([one for one in self.attempts if one is not attempt])
        if self.slot is not None:
            self.show()

    def show(self) -> None:
        """Tell the supervisor, where there is one, which job's time is over first."""
        shown = None
        while self.slot is not None and shown is not self.attempts:  # two threads come here
            shown = self.attempts
            self.slot.show(shown)

    def enter(self, attempt: Attempt, call: "Callable[..., T]", *given: "Any") -> "T":
        """Call the user's code, into which the end of its time may be thrown."""
        token = running.set(attempt)
        try:
            self.inside = attempt
            return call(*given)
        finally:
            self._come_out()
            running.reset(token)

    def _come_out(self) -> None:
        """Be outside of user code, with nothing on its way to this thread any more."""
        while True:
            try:
                self.inside = None  # from here on no signal throws
                if not self.in_main:
                    self._take_back()
                return
            except (JobTimeout, Killed, Stopped, _Nothing):
                continue  # it came after the handler's end

    def _take_back(self) -> None:
        """Let nothing come up any more that another thread has thrown at this one."""
        with self._gate:
            thrown, self._thrown = self._thrown, False
        if thrown:
            self._throw(_Nothing)  # in the place of one that is still on its way
            for _ in range(10_000):
                pass  # it comes up here

    def interrupt_when_due(self) -> None:
        """Make the handler raise when its time is over; from another thread."""
        attempt = self.inside
        if attempt is None or not attempt.is_over() or in_a_lock(self.thread):
            return
        if self.in_main:
            import signal

            signal.pthread_kill(self.thread, signal.SIGALRM)  # runs `on_alarm` there
            return
        with self._gate:
            if self.inside is attempt:
                attempt.tell()
                self._thrown = True
                self._throw(type(attempt.ending))

    def _throw(self, kind: type[BaseException]) -> None:
        """Let an exception come up in the thread of the handler.

        It is never taken back by NULL: after that CPython 3.11 goes round in circles in each thread
        that is traced.
        """
        import ctypes

        what = ctypes.py_object(kind)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), what)

    def on_alarm(self, number: int, frame: object) -> None:
        """SIGALRM: raise in the handler, if it is still the one whose time is over."""
        attempt = self.inside
        if attempt is not None and attempt.is_over() and not in_a_lock(self.thread):
            attempt.tell()
            raise attempt.ending


def _call(handlers: "Handlers", layers: "Sequence[Layer]") -> "Callable[[Attempt], Any]":
    """Return what runs a handler inside its layers."""
    if not layers:
        return lambda attempt: handlers[attempt.claimed.type](attempt.payload)
    call = inside(layers, lambda job: handlers[job.type](job.payload))
    return lambda attempt: call(attempt.job)


# Seconds of a clock that never jumps and that a test's frozen time does not stop.
clock = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
