"""`logged` and `timed`: what others are told of each run.  What they raise harms no job."""

import logging
from contextlib import contextmanager

from ..errors import Discard, JobTimeout, Killed, Retry, Snooze, Stopped
from ..layers import layer_of
from ..log import warn
from ..outcome import text_of
from ..run import clock
from ..tsv import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..job import Job
    from ..queue import Layer

_ASKED_FOR = (Snooze, Retry, Discard, Killed, Stopped, KeyboardInterrupt)


def logged(logger: logging.Logger | None = None, level: int = logging.INFO) -> "Layer":
    """Return a layer that logs the start and the end of each run: how long it took, what came out.

    At `logger` (None: the one named `dbbasic_queue.jobs`) and `level`; what fails, at ERROR with
    its traceback.
    """
    to = logger or logging.getLogger("dbbasic_queue.jobs")

    def say(at: int, text: str, job: "Job", *values: object, failure: bool = False) -> None:
        try:
            to.log(at, "job %s %s " + text, job.id, job.type, *values, exc_info=failure)
        except Exception as problem:  # a filter of the program's own
            warn("the log line of job %s raised %s", job.id, repr(problem))

    @contextmanager
    def around(job: "Job") -> "Iterator[None]":
        say(level, "starts, attempt %d", job, job.attempts)
        begun = clock()
        try:
            yield
        except BaseException as failure:
            text = visible(text_of(failure)[0]) or type(failure).__name__
            fails = isinstance(failure, (Exception, JobTimeout))
            fails = fails and not isinstance(failure, _ASKED_FOR)
            end = "%s in %.3f s: %s"
            how = "raised" if fails else type(failure).__name__
            say(
                logging.ERROR if fails else level, end, job, how, clock() - begun, text,
                failure=fails,
            )  # fmt: skip
            raise
        say(level, "completed in %.3f s", job, clock() - begun)

    return layer_of(around)


def timed(call: "Callable[[Job, float, BaseException | None], object]") -> "Layer":
    """Return a layer that calls `call(job, seconds, failure)` after each run.

    `failure` is what came out of it, None when it returned; a Snooze is one too.  In the row stand
    `started_at` and `finished_at`, so for a look at them later no layer is needed.
    """

    def tell(job: "Job", seconds: float, failure: BaseException | None) -> None:
        try:
            call(job, seconds, failure)
        except Exception as problem:
            warn("the time of job %s: %r raised %s", job.id, repr(call), repr(problem))

    @contextmanager
    def around(job: "Job") -> "Iterator[None]":
        begun = clock()
        try:
            yield
        except BaseException as failure:
            tell(job, clock() - begun, failure)
            raise
        tell(job, clock() - begun, None)

    return layer_of(around)
