"""What a worker holds between its edits: rows that it has claimed, jobs that run, outcomes.

Each start and each outcome is a line in its file; one mutex keeps its two threads apart.
"""

import os
import threading
from collections import deque

from . import log
from .errors import BadArgument, Killed
from .job import Job, encode
from .journal import WorkerFile, now
from .lock import in_a_lock
from .options import Options
from .recover import ON_REQUEST, kill_requests, killed
from .run import CUT_OFF, Attempt, Run, clock
from .stop import Stop
from .tsv import PENDING, check_column

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .journal import Cells
    from .turn import Outcomes


class Held:
    """The claim, the jobs that run, and the outcomes that the queue does not have yet."""

    def __init__(
        self, journal: WorkerFile, options: Options, run: Run, stop: Stop, *, durable: bool
    ) -> None:
        self._journal = journal
        self._options = options
        self._run = run
        self._stop = stop
        self._durable = durable  # each start and outcome is synced
        self.mutex = threading.RLock()
        self.claimed: deque[Job] = deque()
        self.running: dict[bytes, Attempt] = {}
        self.outcomes: Outcomes = {}
        self.again: set[bytes] = set()  # ids of jobs that were put back
        self.began = 0
        self._held_up = 0.0  # when the handlers' thread was last in a lock, or waited for it
        self.problem: OSError | None = None  # no room: nothing more is begun

    def next(self, ended: "tuple[Attempt, Cells] | None") -> Attempt | None:
        """Write the outcome of a job and the start of the next one; return that, if any."""
        with self.mutex:
            lines = b""
            if ended:
                last, cells = ended
                lines = self._end(last, cells)
                cells["started_at"] = last.started_at  # as the line of its start says
            attempt = self._take() if self.claimed and self.may_begin() else None
            if attempt is not None:
                lines += attempt.start_line(self._options.attempts_of(attempt.claimed))
            if lines and not self._write(lines):
                if attempt is not None:
                    self.claimed.appendleft(attempt.claimed)
                    attempt = None
                if ended:
                    cells.update(result=b"", error=b"result not stored: no space left")
                    lines = last.line(b"end", now(), cells)
                    self._journal.append(lines, durable=self._durable)
            if attempt is not None:
                self.running[attempt.id] = attempt
                self.began += 1
            return attempt

    def may_begin(self) -> bool:
        """Whether this worker may begin one more job."""
        return self.began < self._options.max_jobs and not self._stop.is_over()

    def _take(self) -> Attempt | None:
        try:
            self._journal.reserve()
        except OSError as problem:
            self._problem_is(problem)
            return None
        job = self.claimed.popleft()
        return Attempt(job, self._options.timeout_of(job), self._record)

    def _end(self, attempt: Attempt, cells: "Cells") -> bytes:
        """Keep an outcome until it is folded, and return its line."""
        self.running.pop(attempt.id, None)
        self.outcomes[attempt.id] = attempt.mark, attempt.number, cells
        if cells["status"] == PENDING:
            self.again.add(attempt.id)
        return attempt.line(b"end", cells.get("finished_at") or now(), cells)

    def _write(self, lines: bytes) -> bool:
        try:
            self._journal.append(lines, durable=self._durable)
            return True
        except OSError as problem:
            self._problem_is(problem)
            return False

    def _problem_is(self, problem: OSError) -> None:
        self.problem = problem
        self._stop.ask()

    def _record(self, attempt: Attempt, **cells: "Any") -> None:
        """Write cells of a running job at once; see `Job.record`."""
        new = {check_column(column): encode(column, value) for column, value in cells.items()}
        with self.mutex:
            if self.running.get(attempt.id) is not attempt:
                id = attempt.id.decode()
                raise BadArgument(f"job {id} does not run any more: nothing was recorded")
            line = attempt.line(b"record", now(), new)
            self._journal.reserve(2 * len(line))  # its outcome has them again
            self._journal.append(line, durable=self._durable)
            attempt.recorded |= new
        if self._options.listeners:
            cells = attempt.recorded | {"attempts": b"%d" % attempt.number}
            seen = attempt.claimed.with_cells(cells)
            log.tell(self._options.listeners, "progressed", [seen])

    def mind_the_time(self) -> None:
        """End what runs too long, is to end on request, or outlives the grace; ten times a second.

        A handler that does not end then takes the process with it.
        """
        self._stop.read_request(self._journal.path[:-4] + ".stop")
        self._mind_kill_requests()
        self._stop.mind_the_grace()
        self._run.interrupt_when_due()
        if in_a_lock(self._run.thread):
            self._held_up = clock()
        for attempt in self._run.attempts:
            told = attempt.deadline if attempt.told else max(attempt.deadline, self._held_up)
            if clock() >= told + CUT_OFF:
                text = f"{attempt.ending}, and did not end within {CUT_OFF} s"
                try:
                    self._journal.leave_reason(f"{text}\n{attempt.job.id}")
                except OSError:
                    pass  # no room: the job ends all the same
                log.error("%s: %s; this process ends", self._journal.path, text)
                os._exit(75)

    def _mind_kill_requests(self) -> None:
        """End the jobs that somebody asks to end, also those that are claimed only."""
        for k, id in kill_requests(self._journal.path):
            with self.mutex:
                attempt = self.running.get(id)
                if attempt is not None and int(attempt.k) == k:
                    attempt.end(Killed(ON_REQUEST.decode()))
                    self._run.show()
                for job in [job for job in self.claimed if job.cells[0] == id]:
                    waits = Attempt(job)
                    if int(waits.k) == k:
                        self.claimed.remove(job)
                        self._write(self._end(waits, killed()))
                        log.info("job %s %s ended on request", job.id, job.type)

    def forget(self) -> None:
        """Hold nothing any more: this worker's file is lost."""
        with self.mutex:
            self.claimed.clear()
            self.running.clear()
