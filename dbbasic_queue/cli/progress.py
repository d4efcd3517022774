"""One line on the terminal while a command takes long: what it does, how long, how far it is.

A thread writes it in place, on stderr, and ends with the command.  Whoever prints on the terminal
meanwhile does so inside `aside()`.
"""

import os
import threading
import time
from contextlib import contextmanager, nullcontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    More = Callable[[], str | None]

BEGINS = 1.0  # seconds after which a command takes long
EVERY = 0.5
DOING = {
    "archive": "archiving",
    "backup": "copying",
    "cancel": "cancelling",
    "doctor": "examining",
    "enqueue": "adding",
    "export": "exporting",
    "health": "looking",
    "kill": "waiting for the end",
    "list": "listing",
    "purge": "purging",
    "retry": "retrying",
    "schedule": "looking",
    "show": "looking",
    "stats": "counting",
    "stop": "stopping",
    "why": "looking",
    "workers": "looking",
}
_ONE_PASS = {"export": 0, "list": 0, "stats": 0, "backup": 1}  # of what they read, or write
_STREAMS = ("export", "list")  # perhaps to a pager, which has the terminal while nothing moves
_LITTLE = 4096  # bytes: to ask how many were moved moves some too
_UNITS = ("B", "KB", "MB", "GB", "TB")
_NOTHING = nullcontext()
_current: "Progress | None" = None


class Progress:
    """`with Progress(…):` shows the line, `doing` and seconds and `more()`, while it takes long.

    Nothing is shown while `more()` is None.
    """

    def __init__(self, fd: int, doing: str, more: "More") -> None:
        self._fd = fd
        self._doing = doing
        self._more = more
        self._pid = os.getpid()
        self._begun = _now()
        self._drawn = 0  # characters
        self.over_stdout = os.isatty(1)
        self.mutex = threading.RLock()  # whoever has it writes on the terminal
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> None:
        global _current
        self._thread.start()
        _current = self

    def __exit__(self, *error: object) -> None:
        global _current
        _current = None
        self._over.set()
        self._thread.join()
        self.erase()

    @property
    def is_here(self) -> bool:
        """Whether this is the process that shows the line, and not a fork of it."""
        return self._pid == os.getpid()

    def restart(self) -> None:
        """Count the seconds from now on."""
        self._begun = _now()

    def erase(self) -> None:
        if self._drawn:
            self._write("\r" + " " * self._drawn + "\r")
            self._drawn = 0

    def _show(self) -> None:
        while not self._over.wait(EVERY):
            with self.mutex:
                more, seconds = self._more(), _now() - self._begun
                if more is not None and seconds >= BEGINS and _in_front(self._fd):
                    self._draw(f"{self._doing}, {int(seconds)} s{more}")

    def _draw(self, text: str) -> None:
        try:
            columns = os.get_terminal_size(self._fd).columns or 80
        except OSError:
            columns = 80
        text = text[: columns - 1]
        # back to the left: what somebody else prints goes over it
        self._write("\r" + text.ljust(self._drawn) + "\r")
        self._drawn = len(text)

    def _write(self, text: str) -> None:
        try:
            os.write(self._fd, text.encode())
        except OSError:  # the terminal is gone
            self._over.set()


@contextmanager
def aside(*, restart: bool = False) -> "Iterator[None]":
    """Take the line away while something else is printed there, or somebody types."""
    line = _current
    if line is None or not line.is_here:
        yield
        return
    with line.mutex:
        line.erase()
        yield
        if restart:
            line.restart()


def aside_on_stdout() -> "AbstractContextManager[None]":
    """As `aside`, for what goes to stdout, if that is the terminal too."""
    return aside() if _current is not None and _current.over_stdout else _NOTHING


def _now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _in_front(fd: int) -> bool:
    """Whether this process has the terminal; one in the background leaves it alone."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not the terminal that we were started from
        return True


# --- how far


def bytes_moved(command: str, path: str) -> "More":
    """Return what tells how much a command has read and written since now, where Linux says it."""
    begun = before = _moved()
    size = 0
    if command in _ONE_PASS:
        try:
            size = os.stat(path).st_size
        except OSError:
            pass

    def more() -> str | None:
        nonlocal before
        now = _moved()
        if command in _STREAMS and sum(now) - sum(before) < _LITTLE:
            return None
        before = now
        done = [one - other for one, other in zip(now, begun, strict=True)]
        share = 100 * done[_ONE_PASS[command]] // size if size and done else 100
        percent = f", {share} %" if share < 100 else ""
        pairs = zip(done, ("read", "written"), strict=False)
        told = [f", {_amount(count)} {what}" for count, what in pairs if count >= _LITTLE]
        return percent + "".join(told)

    return more


def _moved() -> tuple[int, ...]:
    """Return the bytes that this process has read and written, () where nobody tells."""
    try:
        fd = os.open("/proc/self/io", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(fd, 1000).split()
        finally:
            os.close(fd)
        return int(fields[1]), int(fields[3])
    except (OSError, ValueError, IndexError):
        return ()


def _amount(count: float) -> str:
    power = 0
    while count >= 1000 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.0f} {_UNITS[power]}" if count >= 10 else f"{count:.1f} {_UNITS[power]}"
