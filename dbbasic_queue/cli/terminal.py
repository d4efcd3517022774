"""A full screen on a terminal: keys in, lines out; and the terminal as it was, however this ends.

No text steers the terminal: every line passes `visible`, and what steers it is written here only.
"""

import codecs
import os
import select
import shutil
import signal
import sys
import termios
import tty
import unicodedata

from ..show import visible
from .output import Unwritten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType
    from typing import Any

    # Pieces of one line, each with how it looks: "" or what stands in ESC [ … m.
    Line = list[tuple[str, str]]

BOLD, REVERSE, DIM = "1", "7", "2"
_COLOURS = frozenset("2 31 32 33 36".split())
_ENTER = "\033[?1049h\033[?25l\033[2J"
_LEAVE = "\033[0m\033[?25h\033[?1049l"
_ESCAPE = 0.05  # seconds after which an ESC was the key, and no beginning of another
_NAMED = {
    "\033[A": "up", "\033OA": "up", "\033[B": "down", "\033OB": "down",
    "\033[5~": "page up", "\033[6~": "page down", "\033[H": "home", "\033[1~": "home",
    "\033OH": "home", "\033[F": "end", "\033[4~": "end", "\033OF": "end",
    "\r": "enter", "\n": "enter", "\177": "backspace", "\b": "backspace", "\033": "escape",
    "\014": "redraw", "\004": "q",
}  # fmt: skip


def usable() -> bool:
    """Whether there is a terminal at both ends, one whose cursor can be moved."""
    try:
        both = os.isatty(sys.stdin.fileno()) and os.isatty(sys.stdout.fileno())
    except (AttributeError, ValueError, OSError):
        return False
    return both and os.environ.get("TERM", "") not in ("", "dumb")


class Terminal:
    """`with Terminal() as screen:` shows lines, and reads keys, one at a time."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._colours = not os.environ.get("NO_COLOR")
        self._encoding = sys.stdout.encoding or "ascii"
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._typed = ""
        self._shown: list[str] = []
        self._handlers: dict[int, Any] = {}
        self._woken, self._wakes = -1, -1

    def __enter__(self) -> "Terminal":
        self._before = termios.tcgetattr(self._in)
        self._woken, self._wakes = os.pipe()
        for end in (self._woken, self._wakes):
            os.set_blocking(end, False)
        self._wakeup = signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        for number, call in (
            (signal.SIGTERM, self._end), (signal.SIGHUP, self._end),
            (signal.SIGWINCH, self._resized), (signal.SIGTSTP, self._suspend),
        ):  # fmt: skip
            self._handlers[number] = signal.signal(number, call)
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing comes between
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            self._give_back()
        finally:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._woken)
            os.close(self._wakes)
            for number, before in {**self._handlers, signal.SIGINT: interrupt}.items():
                signal.signal(number, before)

    def _begin(self) -> None:
        tty.setcbreak(self._in, termios.TCSADRAIN)
        self._write(_ENTER)
        self._shown = []

    def _give_back(self) -> None:
        try:
            self._write(_LEAVE)
        except Unwritten:
            pass  # the terminal has gone
        try:
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)
        except termios.error:
            pass

    # --- signals

    @staticmethod
    def _end(number: int, frame: "FrameType | None") -> None:
        raise SystemExit(128 + number)

    def _resized(self, number: int, frame: "FrameType | None") -> None:
        self._shown = []

    def _suspend(self, number: int, frame: "FrameType | None") -> None:
        """Ctrl-Z: give the terminal back, stop, and take it again when we go on."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        self._begin()

    # --- out

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        try:
            found = os.get_terminal_size(self._out)
        except OSError:
            found = shutil.get_terminal_size()
        return max(found.columns, 1), max(found.lines, 1)

    def draw(self, lines: "Iterable[Line]") -> None:
        """Show these lines from the top, the rest empty; what stands there already is not sent."""
        columns, rows = self.size()
        wanted = [self._rendered(line, columns) for line in lines][:rows]
        wanted += [""] * (rows - len(wanted))
        if not self._shown:
            self._shown = ["\0"] * rows
        sent = [
            f"\033[{row};1H{text}\033[0m\033[K"
            for row, (text, before) in enumerate(zip(wanted, self._shown, strict=False), start=1)
            if text != before
        ]
        self._shown = wanted
        if sent:
            self._write("".join(sent))

    def forget(self) -> None:
        """Draw everything anew, whatever stands there."""
        self._shown = []

    def _rendered(self, line: "Line", columns: int) -> str:
        text = ""
        for piece, look in line:
            fits = cut(visible(piece), columns)
            columns -= width(fits)
            plain = not look or (look in _COLOURS and not self._colours)
            text += fits if plain else f"\033[{look}m{fits}\033[0m"
        return text

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "backslashreplace")
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError as error:
            raise Unwritten from error

    # --- in

    def key(self, seconds: float) -> str:
        """Return the next key, a character or a name as "up"; "" when none comes so long."""
        if not self._typed and not self._read(seconds):
            return ""
        if self._typed == "\033" and self._read(_ESCAPE):
            pass
        typed = self._typed
        if typed.startswith(("\033[", "\033O")):
            end = next((at for at in range(2, len(typed)) if typed[at] in _LAST), len(typed) - 1)
            taken = typed[: end + 1]
        else:
            taken = typed[:1]
        self._typed = typed[len(taken) :]
        return _NAMED.get(taken, taken if taken.isprintable() else "")

    def _read(self, seconds: float) -> bool:
        """Wait for what is typed; False when there is nothing, or a signal came first."""
        ready, _, _ = select.select([self._in, self._woken], [], [], max(0.0, seconds))
        if self._woken in ready:
            os.read(self._woken, 1024)
        if self._in not in ready:
            return False
        data = os.read(self._in, 1024)
        if not data:
            raise SystemExit(0)  # the terminal has gone
        self._typed += self._decoder.decode(data)
        return bool(self._typed)


_LAST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz~")


def width(text: str) -> int:
    """Return how many columns a text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """Return as much of a text as so many columns hold, with … at the end where it is cut."""
    if width(text) <= columns:
        return text
    kept = ""
    left = columns - 1
    for char in text:
        left -= _width(char)
        if left < 0:
            break
        kept += char
    return kept + "…" if columns > 0 else ""
