"""Telling others: log lines without control characters, at no cost unheard; and listeners."""

import sys

from .tsv import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .job import Job
    from .queue import Listener

_found: "Any" = None


def _logger() -> "Any":
    global _found
    if _found is None:
        import logging

        _found = logging.getLogger("dbbasic_queue")
    return _found


def _log(level: int, text: str, values: "tuple[Any, ...]", *block: str) -> None:
    safe = (visible(value) if isinstance(value, str) else value for value in values)
    try:
        _logger().log(level, text + "\n    %s" * len(block), *safe, *block)
    except Exception:  # a filter of the program's own: no line is worth a job
        return


def listens() -> bool:
    """Whether anybody wants lines at INFO."""
    return "logging" in sys.modules and bool((_found or _logger()).isEnabledFor(20))


def info(text: str, *values: "Any") -> None:
    """Log at INFO; without effect, and without an import, where nobody listens."""
    if listens():
        _log(20, text, values)


def warn(text: str, *values: "Any") -> None:
    _log(30, text, values)


def error(text: str, *values: "Any") -> None:
    _log(40, text, values)


def error_with(text: str, values: "tuple[Any, ...]", block: str) -> None:
    """Log an error and, on further lines, a text of `traceback_of`."""
    _log(40, text, values, block)


def traceback_of(failure: BaseException, readable: bool = True) -> str:
    """Return the whole traceback, each line escaped and indented, so none can be forged.

    Without the exception's own text, where that cannot be read.
    """
    import traceback

    text = "".join(traceback.format_tb(failure.__traceback__)) + type(failure).__name__
    try:
        text = "".join(traceback.format_exception(failure)) if readable else text
    except BaseException:  # the __str__ of one that it was raised from
        pass
    return "\n    ".join(visible(line) for line in text.rstrip("\n").split("\n"))


def tell(listeners: "Sequence[Listener]", event: str, jobs: "Iterable[Job]") -> None:
    """Call each listener for each job; what one raises is logged and hurts nobody."""
    for job in jobs if listeners else ():
        for listener in listeners:
            try:
                listener(event, job)
            except Exception as problem:  # told after the commit: nothing to undo
                error("a listener raised %s at %s of job %s", repr(problem), event, job.id)
