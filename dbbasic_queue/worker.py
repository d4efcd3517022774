"""A worker's tick: claim what is due and run it, until nothing is left.

Fold and claim are one edit.  A job is finished when its outcome is in this worker's file: after
that no crash runs it again.  A claim grows while jobs are quick; what is claimed and not begun
within half a second is given back by a second thread, so that one slow job holds nobody.
"""

import os
import signal
import threading
import time
from collections import deque

from . import hint, log
from .claim import Stale
from .disk import Changed
from .errors import BadArgument, QueueError
from .job import Job, encode
from .journal import LostFile, WorkerFile, end_line, record_line, start_line
from .options import Options
from .queue import Queue
from .recover import live_workers
from .run import CUT_OFF, Run, clock, completed, ended_by, log_failure
from .stop import Stop
from .tsv import PENDING, check_column
from .turn import Turns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .journal import Cells
    from .pool import Slot
    from .turn import Outcomes

LARGEST_CLAIM = 20_000
EVENTS = ("completed", "failed", "retried", "snoozed", "cancelled", "recovered")
_TICK = 0.1  # seconds between two looks of the watching thread, and of an idle worker


def work(queue: Queue, options: Options) -> None:
    """Run one tick, or for `run_for` seconds; SIGTERM and SIGINT end it after the current job.

    Afterwards the signal is passed on: KeyboardInterrupt, SystemExit, or the handler that was
    there.
    """
    worker = Worker(queue, options)
    with worker.stop:
        try:
            worker.work()
        except OSError as error:
            raise QueueError(f"{queue.path}: this tick ends: {error.strerror}") from error
    worker.stop.pass_on()


class Worker:
    """One worker: its file, its claim, and a mutex between its two threads."""

    def __init__(self, queue: Queue, options: Options, slot: "Slot | None" = None) -> None:
        self._queue = queue
        self._file = queue.file
        self._options = options
        self._journal = WorkerFile(self._file, options.name, options.queues, options.handlers)
        self._run = Run(options.handlers, options.middleware)
        self._turns = Turns(queue, options, self._journal)
        self._mutex = threading.Lock()  # the claim, the outcomes, the end of the journal
        self._turning = threading.RLock()  # one edit at a time
        self._claimed: deque[Job] = deque()
        self._outcomes: Outcomes = {}
        self._running: Job | None = None
        self._recorded: Cells = {}
        self._size, self._taken, self._taken_at = 1, 0, 0.0  # of the claim
        self._done = dict.fromkeys(EVENTS, 0)
        self._ran = 0
        self._pid = os.getpid()
        self._owed: set[bytes] = set()  # ids of rows to give back, which could not be till now
        self._until = float("inf")
        self._problem: OSError | None = None
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="dbbasic_queue", daemon=True)
        self._untold: list[tuple[str, Job]] = []
        self._run.slot = slot
        self.stop = Stop(self._run, options.grace)

    # --- the tick

    def work(self) -> None:
        begun = clock()
        if self._options.run_for is not None:
            self._until = begun + self._options.run_for
        watcher = self._watcher
        try:
            if self._run.slot is None and self.others_are_enough():
                return
            if self._options.run_for is not None:
                self._turns.register()
            while True:
                try:
                    if self._turn():
                        if not watcher.ident:
                            watcher.start()
                        self._run_claimed()
                    elif not self._may_begin() or not self._wait():
                        return
                except LostFile as lost:
                    if os.getpid() != self._pid:  # a handler forked, and its child came back
                        self._outcomes.clear()
                        return
                    self._start_anew(lost)
        finally:
            self._over.set()
            if watcher.ident:
                watcher.join()
            self._leave(clock() - begun)

    def _leave(self, seconds: float) -> None:
        """Fold what is left, remove the worker's file, say what was done."""
        try:
            if self._journal.registered:
                self._edit(leaving=True)
        finally:
            self._journal.close()
            self._turns.look.close()
            self._tell()
            hint.note_tick(self._file.real, self._ran)
            what = ", ".join(f"{count} {event}" for event, count in self._done.items() if count)
            if what:
                log.info("%s: %s in %.3f s", self._queue.path, what, seconds)
        if self._problem is not None:
            text = "no further job was begun without room for its outcome"
            raise QueueError(f"{self._journal.path}: {text}: {self._problem.strerror}")

    def others_are_enough(self) -> bool:
        """Whether as many workers live as this call allows; then it only takes in the dead."""
        live, died = live_workers(self._file, self._queue.lock_timeout)
        if not self._options.are_enough(live):
            return False
        log.info("%s: enough workers live already; this one leaves", self._queue.path)
        if died:
            self._edit()
        return True

    def _turn(self) -> bool:
        """Fold, recover and claim in one edit; whether there is something to run now."""
        if self._claimed and self._may_begin():
            return True
        now = clock()
        if self._taken:
            spent = max(now - self._taken_at, 1e-6)
            grown = self._size * 16 if spent < 0.1 else LARGEST_CLAIM
            self._size = max(1, min(grown, int(self._taken / spent / 2), LARGEST_CLAIM))
        self._taken_at, self._taken = now, 0
        self._edit(claim=self._may_begin())
        return bool(self._claimed)

    def _may_begin(self) -> bool:
        """Whether this worker may begin one more job."""
        over = self.stop.asked or self._ran >= self._options.max_jobs
        return not over and clock() < self._until

    def _wait(self) -> bool:
        """Sleep until a turn may be worth it; False when the time of `run_for` is over."""
        if self._options.run_for is None:
            return False
        begun, look = clock(), self._turns.look
        while self._may_begin():
            time.sleep(min(_TICK, max(0.0, self._until - clock())))
            if look.bound <= time.time() or hint.stamp(self._file.path) != look.stamp:
                return True
            if clock() - begun >= 1:  # somebody may have died, or a limit may be free again
                self.stop.read_request(self._journal.path[:-4] + ".stop")
                if look.due or look.processing or look.ready:
                    return True
                hint.note_tick(self._file.real, 0)
                begun = clock()
        return False

    def _start_anew(self, lost: LostFile) -> None:
        """Go on under another id; rows that still name the old one are folded or given back."""
        log.warn("%s", str(lost))
        with self._mutex:
            self._claimed.clear()
            self._running = None
            self._journal.renew()

    # --- one edit

    def _edit(
        self, *, claim: bool = False, give_back: set[bytes] | None = None, leaving: bool = False
    ) -> None:
        """Make one edit (see `Turns.turn`), then tell the listeners."""
        with self._turning:
            with self._mutex:
                outcomes = dict(self._outcomes)
                if give_back is None:
                    self._claimed.clear()
                    self._owed.clear()
            room = int(min(self._size, self._options.max_jobs - self._ran)) if claim else 0
            for attempt in range(4):
                try:
                    made = self._turns.turn(outcomes, give_back, room, leaving)
                    break
                except (Stale, Changed):
                    if attempt == 3:
                        raise
            if made is None:
                return  # the outcomes wait in my file until the queue's is there again
            taken, events = made
            with self._mutex:
                for id, outcome in outcomes.items():
                    if self._outcomes.get(id) is outcome:
                        del self._outcomes[id]
                self._claimed.extend(taken)
                self._taken = len(taken) or self._taken
                if self._running is None and not self._outcomes:
                    self._journal.cut()
        for event, _ in events:
            self._done[event] += 1
        if self._options.listeners:
            self._untold += events
            if threading.current_thread() is not self._watcher:
                self._tell()

    def _tell(self) -> None:
        """Tell the listeners what has happened; never in the thread that minds the time."""
        events, self._untold = self._untold, []
        for event, job in events:
            log.tell(self._options.listeners, event, [job])

    # --- running

    def _run_claimed(self) -> None:
        """Run what is claimed, each start after the outcome before it, in one write."""
        job, ended = self._next(None), None
        while job is not None:
            ended = self._run_one(job)
            job = self._next((job, ended))

    def _next(self, ended: "tuple[Job, Cells] | None") -> Job | None:
        """Write the outcome of the last job and the start of the next; return that one, if any."""
        durable = self._queue.sync == "full"
        with self._mutex:
            job = None
            if self._claimed and self._may_begin():
                try:
                    self._journal.reserve()
                    job = self._claimed.popleft()
                except OSError as problem:
                    self._problem = problem
                    self.stop.ask()
            lines = b""
            if ended:
                lines = end_line(*ended)
                self._outcomes[ended[0].cells[0]] = ended
                if ended[1]["status"] == PENDING:
                    self._turns.again.add(ended[0].cells[0])
            if job is not None:
                lines += start_line(job, self._options.attempts_of(job))
            if lines:
                try:
                    self._journal.append(lines, durable=durable)
                except OSError as problem:
                    self._problem = problem
                    self.stop.ask()
                    if job is not None:
                        self._claimed.appendleft(job)
                        job = None
                    if ended:
                        ended[1].update(result=b"", error=b"result not stored: no space left")
                        self._journal.append(end_line(*ended), durable=durable)
            self._running = job
            self._recorded = {"started_at": b"%.3f" % time.time()}
            return job

    def _run_one(self, claimed: Job) -> "Cells":
        """Run one job and return the cells that its outcome changes."""
        job = claimed.replace(attempts=claimed.attempts + 1)
        job.set_record(lambda **cells: self._record(claimed, cells))
        self._ran += 1
        values = (job.id, job.type, job.attempts, job.worker) if log.listens() else ()
        if values:
            log.info("job %s %s starts, attempt %d, by %s", *values)
        if self._options.listeners:
            self._untold.append(("started", job))
            self._tell()
        try:
            cells = completed(job, self._run(job, self._options.timeout_of(job)))
            if values:
                log.info("job %s %s completed, attempt %d, by %s", *values)
        except BaseException as failure:
            if isinstance(failure, KeyboardInterrupt):
                self.stop.ask(signal.SIGINT)
            log_failure(job, failure)
            cells = ended_by(failure, job, self._options)
        return self._recorded | cells

    def _record(self, job: Job, cells: "dict[str, Any]") -> None:
        """Write cells of a running job at once; see `Job.record`."""
        new = {check_column(column): encode(column, value) for column, value in cells.items()}
        with self._mutex:
            if self._running is not job:
                raise BadArgument(f"job {job.id} does not run any more: nothing was recorded")
            text = record_line(job, new)
            self._journal.append(text, durable=self._queue.sync == "full")
            self._recorded |= new

    # --- beside the running job

    def _watch(self) -> None:
        """Every 0.1 s: end what runs too long; give back what one slow job holds up."""
        seen, age, last = -1, 0.0, -1.0
        while not self._over.wait(_TICK):
            try:
                self._mind_the_time()
                if self._journal.k != seen:
                    seen, age, last = self._journal.k, 0.0, -1.0
                age += _TICK
                if age >= 0.5 and age - last >= 1:
                    last = age
                    self._relieve()
            except Exception as problem:  # without this thread nothing would end a hung job
                log.error("%s: %s", self._queue.path, log.traceback_of(problem))

    def _relieve(self) -> None:
        """Give back what is claimed and not begun, and fold what has ended."""
        with self._turning:
            with self._mutex:
                self._owed |= {job.cells[0] for job in self._claimed}
                self._claimed.clear()
                if not self._owed and not self._outcomes:
                    return
            try:
                self._edit(give_back=set(self._owed))
                self._owed.clear()
            except (QueueError, OSError) as problem:
                log.warn("%s: %s", self._queue.path, str(problem))

    def _mind_the_time(self) -> None:
        self.stop.read_request(self._journal.path[:-4] + ".stop")
        self.stop.mind_the_grace()
        self._run.interrupt_when_due()
        if clock() >= self._run.cut_at:
            text = f"{self._run.timed_out()}, and did not end within {CUT_OFF} s"
            try:
                self._file.note(self._journal.path[:-4] + ".why", text.encode())
            except OSError:
                pass  # no room: the job ends all the same
            log.error("%s: %s; this process ends", self._queue.path, text)
            os._exit(75)
