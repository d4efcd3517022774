"""`progress`: how far a job is, in words that people read and `progress_of` takes apart."""

import re
import threading
from typing import NamedTuple

from ..errors import BadArgument
from ..here import current_job
from ..job import encode
from ..log import warn
from ..run import clock
from .cells import run_here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..job import Job
    from ..run import Attempt

PAUSE = 0.1  # seconds between two lines of progress
LONGEST_MESSAGE = 200  # characters; more is cut off
_NO_ROOM = 30.0  # seconds without progress after the disk was full


class Progress(NamedTuple):
    """How far a job is; `total` and `percent` are None where the handler did not say them."""

    done: float
    total: float | None = None
    percent: int | None = None
    message: str = ""


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Say how far this job is: `Queue.get` and `dbbasic-queue show ID` see it at once.

    In the column `progress` as words: `50/200 25% reading`, or `50 reading` without a total.  At
    most ten lines a second are written, however often it is called: the first one, the one that
    reaches the total, and what was said last stands in the row when the job has ended (of a sealed
    job what was written last).  A full disk stops no job here.  BadArgument for what is no number.
    """
    for what, number in (("done", done), ("total", total)):
        good = isinstance(number, (int, float)) and 0 <= number < 1e300 and number is not True
        if not good and not (number is None and what == "total"):
            raise BadArgument(f"progress({what}={number!r:.80}): give a number of at least 0")
    if not isinstance(message, str):
        raise BadArgument(f"progress(message={message!r:.80}): give a text")
    attempt = run_here()
    if attempt is not None:
        told: _Told | None = attempt.memory.get(__name__)
        if told is None:  # or a thread of the handler is quicker
            told = attempt.memory.setdefault(__name__, _Told())
        told.tell(attempt, done, total, message)


def progress_of(job: "Job") -> Progress | None:
    """Return how far a job is, None when it has said nothing (readable) or has not started."""
    found = _WORDS.fullmatch(job.cell("progress"))
    if found is None or (job.status == "pending" and job.started_at is None):
        return None
    done, total, percent, message = found.groups()
    if not total:
        return Progress(_number(done), message=message or "")
    return Progress(_number(done), _number(total), int(percent), message or "")


_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_WORDS = re.compile(rf"{_NUMBER}(?:/{_NUMBER} (\d+)%)?(?: (.*))?", re.ASCII | re.DOTALL)


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


def _words(done: float, total: float | None, message: str) -> str:
    share = ""
    if total is not None:
        percent = min(100, int(100 * done / total)) if total else 100
        share = f"/{total:.15g} {percent}%"
    return f"{done:.15g}{share} {message[:LONGEST_MESSAGE]}".rstrip()


class _Told:
    """What one run has said last."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()  # a handler may have threads
        self._told_until = 0.0  # no line of progress before
        self._full = False  # the total was reached, and that was written
        self._is_plain = False  # a line is stored as it was given: no layer seals it

    def tell(self, attempt: "Attempt", done: float, total: float | None, message: str) -> None:
        """Write a line of progress, if it is time again; else keep it for the outcome."""
        full = total is not None and done >= total
        with self.mutex:
            now = clock()
            if now < self._told_until and not (full and not self._full):
                if self._is_plain:
                    attempt.recorded["progress"] = encode("progress", _words(done, total, message))
                return
            text = _words(done, total, message)
            self._told_until = now + PAUSE
            try:
                current_job().record(progress=text)
            except OSError as problem:
                warn("job %s: its progress is not stored: %s", current_job().id, str(problem))
                self._told_until, full = clock() + _NO_ROOM, True
            self._full = full
            self._is_plain = attempt.recorded.get("progress") == encode("progress", text)
