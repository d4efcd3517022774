"""One run of one handler: its layers, its time limit, and how it can end."""

import math
import threading
import time
from contextvars import ContextVar

from .errors import BadArgument, Discard, JobTimeout, Retry, Snooze, Stopped
from .job import Job
from .lock import in_a_lock
from .log import traceback_of, warn
from .options import Options
from .tsv import dump, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .journal import Cells
    from .pool import Slot
    from .queue import Handlers, Layer

LONGEST_ERROR = 2000  # characters
CUT_OFF = 5  # seconds that a handler has to end after its JobTimeout
_current: "ContextVar[Job]" = ContextVar("dbbasic_queue_job")


def current_job() -> Job:
    """Return the job that runs here, inside its handler; BadArgument elsewhere.

    Its `attempts` counts this attempt too.
    """
    try:
        return _current.get()
    except LookupError:
        raise BadArgument("current_job() was called where no job runs") from None


class Run:
    """What runs in this thread now; the signal handler and the watching thread look here."""

    def __init__(self, handlers: "Handlers", layers: "Sequence[Layer]") -> None:
        self._handlers = handlers
        self.inside = False  # in user code: only then may an exception be thrown in
        self.thread = threading.get_ident()
        self.in_main = threading.current_thread() is threading.main_thread()
        self.deadline = math.inf  # of the running job, on the clock below
        self.cut_at = (
            math.inf
        )  # when a handler that outlives its deadline takes the process with it
        self.slot: Slot | None = None  # where a supervisor looks, in a worker process
        self._timeout = 0.0
        self._gate = threading.Lock()  # between coming out and being thrown at
        self._thrown = False
        self._call = _layered(layers, self._handler)

    def __call__(self, job: Job, timeout: float | None) -> "Any":
        """Run the job's handler inside its layers and return its result; raises what it raises."""
        token = _current.set(job)
        self._timeout = timeout or 0.0
        self.deadline = clock() + timeout if timeout else math.inf
        self.cut_at = self.deadline + CUT_OFF
        if self.slot is not None:
            self.slot.begin(job.raw("worker").rpartition(b".")[0], self.deadline, self._timeout)
        try:
            self.inside = True
            return self._call(job)
        finally:
            self._come_out()
            self.deadline = self.cut_at = math.inf
            if self.slot is not None:
                self.slot.end()
            _current.reset(token)

    def _come_out(self) -> None:
        """Be outside of user code, with no JobTimeout on its way to this thread any more."""
        while True:
            try:
                with self._gate:
                    self.inside = False
                    if self._thrown:
                        self._throw(None)
                        self._thrown = False
                return
            except JobTimeout:
                continue  # it came after the handler's end

    def timed_out(self) -> str:
        return f"timed out after {self._timeout:g} s"

    def interrupt_when_due(self) -> None:
        """Raise JobTimeout in the handler when its time is over; from another thread."""
        if not self.inside or clock() < self.deadline or in_a_lock(self.thread):
            return
        if self.in_main:
            import signal

            signal.pthread_kill(self.thread, signal.SIGALRM)  # runs `on_alarm` there
            return
        with self._gate:
            if self.inside and clock() >= self.deadline:
                self.deadline = math.inf
                self._thrown = True
                self._throw(JobTimeout)

    def _throw(self, kind: type[BaseException] | None) -> None:
        """Let an exception come up in the thread of the handler; None takes it back."""
        import ctypes

        what = ctypes.py_object() if kind is None else ctypes.py_object(kind)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), what)

    def on_alarm(self, number: int, frame: object) -> None:
        """SIGALRM: raise in the handler, if it is still the one whose time is over."""
        if self.inside and clock() >= self.deadline and not in_a_lock(self.thread):
            self.deadline = math.inf
            raise JobTimeout(self.timed_out())

    def _handler(self, job: Job) -> "Any":
        result = self._handlers[job.type](job.payload)
        if hasattr(result, "__await__"):
            return _finish(result)
        return result


def _finish(awaitable: "Any") -> "Any":
    """Return what a coroutine returns, run in a loop of its own."""
    import asyncio

    async def finish() -> "Any":
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(finish())
    awaitable.close()
    raise BadArgument(
        "an async handler was started inside a running loop; call process_jobs outside"
    )


def _layered(
    layers: "Sequence[Layer]", innermost: "Callable[[Job], Any]"
) -> "Callable[[Job], Any]":
    """Fold layers around a call, the first one outermost."""
    call = innermost
    for layer in reversed(layers):
        call = _around(layer, call)
    return call


def _around(layer: "Layer", call: "Callable[[Job], Any]") -> "Callable[[Job], Any]":
    return lambda job: layer(job, call)


def clock() -> float:
    """Return seconds of a clock that never jumps and that a test's frozen time does not stop."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


# --- how a run ends


def completed(job: Job, result: "Any") -> "Cells":
    """Return the cells of a job whose handler returned; BadArgument when the result is not JSON."""
    now = b"%.3f" % time.time()
    attempts = b"%d" % job.attempts
    cell = dump(result, "the result")
    return {
        "status": b"completed",
        "attempts": attempts,
        "error": b"",
        "result": cell,
        "finished_at": now,
    }


def ended_by(failure: BaseException, job: Job, options: Options) -> "Cells":
    """Return the cells of a job whose handler raised.  `job.attempts` counts this attempt."""
    if isinstance(failure, Snooze):
        return put_back(job, failure.seconds)
    if isinstance(failure, (KeyboardInterrupt, Stopped)):
        return put_back(job, 0)
    cells = {"attempts": b"%d" % job.attempts, "error": escape(text_of(failure)).encode()}
    if isinstance(failure, Discard) or job.attempts >= options.attempts_of(job):
        return cells | {"status": b"failed", "finished_at": b"%.3f" % time.time()}
    wait = failure.after if isinstance(failure, Retry) else None
    if wait is None:
        wait = _backoff(job, options)
    return cells | {"status": b"pending", "worker": b"", "run_at": later(wait)}


def put_back(job: Job, seconds: float) -> "Cells":
    """Return the cells of a job that goes back without an attempt."""
    return {
        "status": b"pending",
        "worker": b"",
        "attempts": b"%d" % (job.attempts - 1),
        "run_at": later(seconds),
    }


def later(seconds: float) -> bytes:
    now = time.time()
    return b"%d" % (int(now) if seconds <= 0 else math.ceil(now + min(seconds, 1e10)))


def _backoff(job: Job, options: Options) -> float:
    try:
        return max(0.0, float(options.backoff_of(job)(job.attempts)))
    except Exception as problem:  # the user's function: the job must not be lost for it
        warn("the backoff of job %s raised %s; 60 s are taken", job.id, repr(problem))
        return 60.0


def text_of(failure: BaseException) -> str:
    """Return the type and the message of an exception, as the job's error."""
    if isinstance(failure, Discard):
        return str(failure.reason)[:LONGEST_ERROR]
    if isinstance(failure, JobTimeout):
        return str(failure) or "timed out"
    kind = type(failure)
    name = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        message = str(failure)
    except BaseException:  # an exception whose own __str__ raises
        message = "(its text cannot be read)"
    return f"{name}: {message}"[:LONGEST_ERROR] if message else name


def log_failure(job: Job, failure: BaseException) -> None:
    """Log the end of an attempt that did not succeed, with the whole traceback."""
    from . import log

    text = "job %s %s attempt %d by %s ended with %s"
    values = (job.id, job.type, job.attempts, job.worker or "", text_of(failure))
    if isinstance(failure, (Snooze, KeyboardInterrupt, Stopped)):
        log.info(text, *values)
    else:
        log.error_with(text, values, traceback_of(failure))
