"""`traceback_kept`: where a failed attempt was when it failed, in the column `traceback`."""

import os
import traceback
from contextlib import contextmanager

from ..errors import Discard, Retry, Snooze
from ..layers import layer_of
from ..log import traceback_of, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..job import Job

LONGEST = 4000  # characters: the last ones, where it failed
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@layer_of
@contextmanager
def traceback_kept(job: "Job") -> "Iterator[None]":
    """A layer: what a handler raises leaves its traceback with the job, at most 4,000 characters.

    Not what it asks for in words (Snooze, Retry, Discard).  Give it before `redact.redacting`: what
    that hides is then hidden here too.
    """
    try:
        yield
    except (Snooze, Retry, Discard):
        raise
    except Exception as failure:
        try:
            text = f"{job.id} attempt {job.attempts}\n{_text(failure)[-LONGEST:]}"
            job.record(traceback=text)
        except OSError as problem:
            warn("job %s: its traceback is not stored: %s", job.id, str(problem))
        raise


def kept_traceback(job: "Job") -> str | None:
    """Return the traceback of a job's last attempt, None where none was kept."""
    whose, _, text = job.cell("traceback").partition("\n")
    return text if whose == f"{job.id} attempt {job.attempts}" else None


def _text(failure: Exception) -> str:
    """Return the traceback from the handler on: the calls that led to it are ours."""
    trace = failure.__traceback__
    while trace and trace.tb_next and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    try:
        return "".join(traceback.format_exception(type(failure), failure, trace)).rstrip("\n")
    except BaseException:  # its own text, or that of one before it, cannot be made
        return traceback_of(failure, readable=False)
