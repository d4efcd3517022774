"""Where answers go: tables and pages for people, one JSON document for programs.

Every text passes `visible` here, so that no payload, error or file name can steer a terminal.
"""

import os
import shutil
import sys
from contextlib import nullcontext
from itertools import chain, islice

from ..show import as_json, visible
from .progress import Progress, aside, aside_on_stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from .progress import More

PROGRAM = "dbbasic-queue"
PIPE_WIDTH = 200  # characters of a line of a table, where there is no terminal to ask
_MEASURED = 200  # rows that the widths of a table are taken from
_WIDEST = 40
_COLOURS = {
    "processing": "33",
    "completed": "32",
    "failed": "31",
    "cancelled": "2",
    "ok": "32",
    "note": "36",
    "problem": "31",
    "unknown": "33",
}


class Unwritten(Exception):
    """Stdout did not take the answer; the cause is the OSError."""


class Output:
    """One command's answer.  `json`: only a JSON document goes to stdout, and no path to stderr."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        terminal = self.terminal = sys.stdout is not None and sys.stdout.isatty()
        encoding = getattr(sys.stdout, "encoding", None) or ""
        self._mark = "█" if encoding.lower().replace("-", "").startswith("utf") else "#"
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.colours = terminal and not plain
        self.width = shutil.get_terminal_size().columns if terminal else PIPE_WIDTH
        at_a_terminal = sys.stderr is not None and sys.stderr.isatty()
        self.shows_progress = at_a_terminal and not json and os.environ.get("TERM") != "dumb"

    def progress(self, doing: str, more: "More") -> "AbstractContextManager[None]":
        """Return the context in which a line on the terminal says how far this is."""
        shown = self.shows_progress and bool(doing)
        return Progress(sys.stderr.fileno(), doing, more) if shown else nullcontext()

    # --- for people

    def line(self, text: str = "") -> None:
        """Print one line."""
        emit(visible(text))

    def lines(self, name: str, text: str, width: int) -> None:
        """Print a name and its text; further lines of the text stand below the first."""
        first, *more = text.split("\n")
        emit(f"{self._coloured(visible(name), '1')}{' ' * (width - len(name))}  {visible(first)}")
        for one in more:
            emit(" " * width + "  " + visible(one))

    def place(self, path: str) -> None:
        """Say which queue is meant, on stderr, where it does not get into anybody's columns."""
        if not self.json:
            try:
                os.stat(path)
                there = ""
            except FileNotFoundError:
                there = " (there is no such file yet)"
            except OSError as error:
                there = f" ({error.strerror})"
            tell(f"queue {path}{there}", name="")

    def table(self, head: "Sequence[str]", rows: "Iterable[Sequence[str]]") -> int:
        """Print rows under their head as they come, and return how many there were."""
        every = iter(rows)
        first = [[visible(cell) for cell in row] for row in islice(every, _MEASURED)]
        if not first:
            return 0
        widths = [min(max(map(len, column)), _WIDEST) for column in zip(head, *first, strict=True)]
        emit(self._coloured(self._joined(head, widths), "1"))
        count = 0
        for row in chain(first, ([visible(cell) for cell in row] for row in every)):
            text = self._joined(row, widths)
            for word in row[:2] if self.colours else ():
                if word in _COLOURS:
                    text = text.replace(word, self._coloured(word, _COLOURS[word]), 1)
            emit(text)
            count += 1
        return count

    def bar(self, number: int, most: int, longest: int) -> str:
        """Return a bar with two spaces behind it, "" where no terminal is."""
        if not self.terminal or not most:
            return ""
        room = max(min(longest, self.width - 50), 5)
        full = max(round(room * number / most), 1 if number else 0)
        return self._mark * full + " " * (room - full) + "  "

    def _joined(self, row: "Sequence[str]", widths: "Sequence[int]") -> str:
        *front, last = row
        text = "".join(f"{cell:<{width}}  " for cell, width in zip(front, widths, strict=False))
        room = max(self.width - len(text), 10)
        return (text + (last if len(last) <= room else last[: room - 1] + "…")).rstrip()

    def _coloured(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    # --- for programs

    def document(self, value: "Any") -> None:
        """Print a value as one line of JSON."""
        emit(as_json(value))

    def documents(self, values: "Iterable[Any]") -> int:
        """Print an array, a line for each element as it comes; return how many there were."""
        count = 0
        for value in values:
            emit((",\n" if count else "[") + as_json(value), end="")
            count += 1
        emit("]" if count else "[]")
        return count


def emit(text: str, end: str = "\n") -> None:
    """Print a text that is safe already."""
    try:
        with aside_on_stdout():
            print(text, end=end)
    except OSError as error:
        raise Unwritten from error


def emit_bytes(data: bytes) -> None:
    """Print bytes as they are, whatever the locale: the file is UTF-8, and so is what it gives."""
    try:
        with aside_on_stdout():
            if sys.stdout is not None:
                sys.stdout.buffer.write(data)
    except OSError as error:
        raise Unwritten from error


def tell(text: str, name: str = PROGRAM) -> None:
    """Print one line on stderr, where there is one."""
    flush(sys.stdout)
    if sys.stderr is None:
        return
    try:
        with aside():
            print(visible(f"{name}: {text}" if name else text), file=sys.stderr, flush=True)
    except OSError:  # closed, or a pipe that nobody reads
        return


def ask(question: str) -> bool:
    """Ask on the terminal; only a plain yes is one."""
    flush(sys.stdout)
    with aside(restart=True):
        print(f"{visible(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def flush(stream: "Any") -> None:
    """Write what is still in a stream's buffer."""
    try:
        if stream is not None:
            stream.flush()
    except OSError as error:
        raise Unwritten from error


def numbered(count: int, noun: str = "job") -> str:
    """Return a count with its noun: 1 job, 2 jobs."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
