"""When a worker is to stop: a signal, a request beside its file, or a reason of its own."""

import os
import signal
import threading

from .errors import Stopped
from .lock import in_a_lock
from .recover import small_file
from .run import Run, clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

ALL, ONE = b"all\n", b"one\n"  # the workers of that name are to stop, or this one only
FOREVER = float("inf")


class Stop:
    """Whether this worker is asked to stop; while it is entered, SIGTERM and SIGINT ask.

    The first one lets the current job finish, at most `grace` seconds (None: as long as it takes);
    the second one raises Stopped in the handler, and the job goes back uncharged.
    """

    def __init__(self, run: Run, grace: float | None) -> None:
        self._run = run
        self._grace = grace
        self._grace_until = FOREVER
        self._before: dict[int, Any] = {}
        self._by = 0
        self._signals = 0
        self.asked = 0
        self.all = False  # the whole pool is to stop
        self.until = FOREVER  # on the clock of `run`
        self.lifeline = -1  # of a worker process: a pipe that ends when its supervisor dies

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (int(signal.SIGTERM), int(signal.SIGINT)):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: not Python's
                    self._before[number] = signal.signal(number, self._on_signal)
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._run.on_alarm)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def ask(self, by: int = 0) -> None:
        """Begin no further job."""
        self.asked += 1
        self._by = self._by or by
        if self._grace is not None and self.asked == 1:
            self._grace_until = clock() + self._grace

    def is_over(self) -> bool:
        """Whether no further job may begin."""
        return self.asked > 0 or (self.until < FOREVER and clock() >= self.until)

    def is_cut_short(self) -> bool:
        """Whether also what runs is to end now."""
        return self._signals > 1 or clock() >= self._grace_until

    def read_request(self, path: str) -> None:
        """Stop when somebody has put a file at `path`, or the supervisor is gone."""
        if not self.asked:
            request = small_file(path)
            self.all = ALL in request  # several may have asked
            if request or self._is_orphan():
                self.ask()

    def _is_orphan(self) -> bool:
        try:
            return self.lifeline >= 0 and not os.read(self.lifeline, 1)
        except OSError:  # nothing to read; or a handler has closed all that it found
            return False

    def mind_the_grace(self) -> None:
        """Interrupt the handler when its grace is over; from another thread."""
        if clock() >= self._grace_until and self._run.in_main and self._run.inside:
            signal.pthread_kill(self._run.thread, signal.SIGTERM)

    def pass_on(self) -> None:
        """Let the signal that stopped us have its usual effect, now that all is put away."""
        if self._by == signal.SIGINT:
            raise KeyboardInterrupt
        before = self._before.get(self._by)
        if before is signal.SIG_DFL:
            raise SystemExit(128 + self._by)
        if callable(before):
            before(self._by, None)

    def _on_signal(self, number: int, frame: "FrameType | None") -> None:
        self._signals += 1
        self.ask(number)
        if self._run.inside and (self._signals > 1 or clock() >= self._grace_until):
            if in_a_lock(self._run.thread):
                self._grace_until = 0.0  # once more, in 0.1 s
            else:
                self._grace_until = FOREVER
                raise Stopped
