"""One attempt in another engine's worker, as a worker here would make it."""

import signal
import threading

from ..errors import BadArgument
from ..job import Job
from ..options import Options
from ..outcome import completed, ended_by
from ..recover import charged
from ..run import CUT_OFF, Attempt, Run, clock
from ..tsv import HEADER, Header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..journal import Cells
    from ..run import Record

_TICK = 0.1


def as_cells(job: Job) -> "dict[str, str]":
    """Return the cells of a job that are not empty, to be sent elsewhere."""
    return {name: job.raw(name).decode() for name in sorted(job.columns_in_use())}


def as_job(cells: "Mapping[str, str]") -> Job:
    """Return the job of such cells; BadArgument when they are those of no job."""
    header: Header = HEADER
    if not {"id", "type", "status"} <= cells.keys():
        raise BadArgument(f"{cells!r:.80} are no cells of a job")
    if more := cells.keys() - HEADER.index.keys():
        header = HEADER.with_columns(more)
    return Job([cells.get(name, "").encode() for name in header.columns], header)


def run(
    job: Job,
    options: Options,
    record: "Record | None" = None,
    beat: "Callable[[], None] | None" = None,
) -> "Cells":
    """Run one attempt here and now, and return the cells of its outcome.

    `beat` is called ten times a second beside it, and no more once the handler has had its time
    and CUT_OFF seconds to end: then whoever listens for it may take this worker for dead.
    """
    runner = Run(options.handlers, options.middleware)
    attempt = Attempt(job, options.timeout_of(job), record)

    def outcome(attempt: Attempt, result: "Any", failure: BaseException | None) -> "Cells":
        if failure is None:
            return completed(attempt.number, result)
        return ended_by(failure, attempt.job, options)

    over = threading.Event()
    beside = threading.Thread(
        target=_beside, args=(runner, attempt, over, beat), name="dbbasic_queue", daemon=True
    )
    before = signal.signal(signal.SIGALRM, runner.on_alarm) if runner.in_main else None
    try:
        beside.start()
        cells = runner(attempt, outcome)
    finally:
        over.set()
        beside.join()
        if runner.in_main:
            signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
    return attempt.recorded | cells | {"started_at": attempt.started_at}


def _beside(
    run: Run, attempt: Attempt, over: threading.Event, beat: "Callable[[], None] | None"
) -> None:
    while not over.wait(_TICK):
        run.interrupt_when_due()
        if beat is not None and clock() < attempt.deadline + CUT_OFF:
            beat()


def died(job: Job, options: Options) -> "Cells":
    """Return the cells of a job whose worker over there has died: charged, as here."""
    return charged(job, None, options.attempts_of(job)) | {"error": b"worker died"}
