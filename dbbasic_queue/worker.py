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
from .errors import QueueError
from .held import Held
from .here import working
from .job import Job
from .journal import LostFile, WorkerFile
from .options import Options
from .outcome import completed, ended_by
from .queue import Queue
from .recover import live_workers
from .run import Attempt, Run, clock
from .stop import Stop
from .tsv import COMPLETED
from .turn import Turns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .journal import Cells
    from .loop import Loop

LARGEST_CLAIM = 20_000
EVENTS = ("completed", "failed", "retried", "snoozed", "cancelled", "recovered")
_LONG = 0.05  # seconds that a look may take under the lock, to be taken at each occasion
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
    """One worker: its file, what it holds, and two threads, of which one watches the other."""

    def __init__(self, queue: Queue, options: Options) -> None:
        self._queue = queue
        self._file = queue.file
        self._options = options
        self.run = Run(options.handlers, options.middleware)
        self.stop = Stop(self.run, options.grace)
        self.journal = WorkerFile(self._file, options.name, options.queues, options.handlers)
        durable = queue.sync == "full"
        self.held = Held(self.journal, options, self.run, self.stop, durable=durable)
        self._turns = Turns(queue, options, self.journal, self.held.again)
        self._turning = threading.RLock()  # one edit at a time
        self._size, self._taken, self._taken_at = 1, 0, 0.0  # of the claim; when it was stored
        self._owes = False  # rows that could not be given back till now
        self._looked = clock()
        self._rests_until = 0.0  # after a look that took long, and found jobs that may not start
        self._done = dict.fromkeys(EVENTS, 0)
        self._pid = os.getpid()
        self._over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, name="dbbasic_queue", daemon=True)
        self._untold: deque[tuple[str, Job]] = deque()
        self._loop: Loop | None = None
        self._claims_from = 0.0  # side by side, after a claim that did not succeed

    # --- the tick

    def work(self) -> None:
        begun, token = clock(), working.set(self._queue)
        if self._options.run_for is not None:
            self.stop.until = min(self.stop.until, begun + self._options.run_for)
        try:
            if self.run.slot is None and self.others_are_enough():
                return
            if self._options.run_for is not None:
                self._turns.register()
            while True:
                try:
                    if self.turn(self._options.concurrency):
                        if not self.watcher.ident:
                            self.watcher.start()
                        self._run_claimed()
                    elif not self.held.may_begin() or not self._wait():
                        return
                except LostFile as lost:
                    if os.getpid() != self._pid:  # a handler forked, and its child came back
                        self.held.outcomes.clear()
                        return
                    log.warn("%s", str(lost))
                    self._close_loop()
                    self.held.forget()  # rows that name the lost file are folded or given back
                    self.journal.renew()
        finally:
            self._close_loop()
            self._over.set()
            if self.watcher.ident:
                self.watcher.join()
            try:
                self._leave(clock() - begun)
            finally:
                working.reset(token)

    def _close_loop(self) -> None:
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _leave(self, seconds: float) -> None:
        """Fold what is left, remove the worker's file, say what was done.

        Where an error of ours cut a job off, the file stays: whoever comes next charges the job.
        """
        try:
            if self.journal.registered and not self.held.running:
                self._edit(leaving=True)
        finally:
            self.journal.close()
            self._turns.look.close()
            self._tell()
            hint.note_tick(self._file.real, self.held.began)
            what = ", ".join(f"{count} {event}" for event, count in self._done.items() if count)
            if what:
                log.info("%s: %s in %.3f s", self._queue.path, what, seconds)
        problem = self.held.problem
        if problem is not None:
            text = "no further job was begun without room for its outcome"
            raise QueueError(f"{self.journal.path}: {text}: {problem.strerror}")

    def others_are_enough(self) -> bool:
        """Whether as many workers live as this call allows; then it only takes in the dead."""
        live, died = live_workers(self._file, self._queue.lock_timeout)
        if not self._options.are_enough(live):
            return False
        log.info("%s: enough workers live already; this one leaves", self._queue.path)
        if died:
            self._edit()
        return True

    def turn(self, room: int) -> bool:
        """Fold, recover and claim in one edit, what there is room for; whether there is any now."""
        if self.held.claimed and self.held.may_begin():
            return True
        if self._options.tend is not None:
            self._options.tend()
        if self._taken:
            spent = max(clock() - self._taken_at, 1e-6)
            grown = self._size * 64 if spent < 0.1 else LARGEST_CLAIM
            self._size = max(1, min(grown, int(self._taken / spent / 2), LARGEST_CLAIM))
        self._taken = 0
        self._edit(max(self._size, room) if self.held.may_begin() else 0)
        if not self._taken and self._turns.look.due and self._turns.took > _LONG:
            self._rests_until = clock() + min(10 * self._turns.took, 2)
        return self._taken > 0  # also when the watching thread has given it back meanwhile

    def _wait(self) -> bool:
        """Sleep until a turn may be worth it; False when the time of `run_for` is over."""
        if self._options.run_for is None:
            return False
        self._looked = clock()
        self.stop.read_request(self.journal.path[:-4] + ".stop")  # there may be news all the time
        while self.held.may_begin():
            time.sleep(min(self.nap(), max(0.0, self.stop.until - clock())))
            if self.is_news():
                return True
        return False

    def nap(self) -> float:
        """Return the seconds until the next look whether there is news."""
        if not self.held.may_begin():
            return _TICK
        rests = max(self._rests_until, self._claims_from) - clock()
        return min(_TICK, max(0.001, self._turns.ask_at - time.time(), rests))

    def is_news(self) -> bool:
        """Whether a turn may be worth it now."""
        look = self._turns.look
        if look.bound <= time.time():
            return True
        rests, asks = clock() < self._rests_until, self._turns.ask_at <= time.time()
        if not rests and (asks or hint.stamp(self._file.path) != look.stamp):
            return True
        if clock() - self._looked >= 1:  # somebody may have died, or a limit may be free again
            self._looked = clock()
            self.stop.read_request(self.journal.path[:-4] + ".stop")
            hint.note_tick(self._file.real, 0)
            left = look.due or look.processing.keys() - self.held.running.keys() or look.ready
            return bool(left or self._turns.paused) and not rests
        return False

    # --- one edit

    def _edit(self, room: int = 0, *, leaving: bool = False) -> None:
        """Make one edit (see `Turns.turn`), then tell the listeners."""
        held = self.held
        with self._turning:
            with held.mutex:
                outcomes = dict(held.outcomes)
                held.claimed.clear()
                keep = set(held.running)
            room = int(min(room, self._options.max_jobs - held.began))
            for attempt in range(4):
                try:
                    made = self._turns.turn(outcomes, keep, room, leaving)
                    break
                except (Stale, Changed):
                    if attempt == 3:
                        raise
            if made is None:
                return  # the outcomes wait in my file until the queue's is there again
            taken, events = made
            with held.mutex:
                for id, outcome in outcomes.items():
                    if held.outcomes.get(id) is outcome:
                        del held.outcomes[id]
                held.claimed.extend(taken)
                if taken:
                    self._taken, self._taken_at = len(taken), clock()
            self._cut_journal()
        for event, _ in events:
            self._done[event] += 1
        if self._options.listeners:
            self._untold += events
            if threading.current_thread() is not self.watcher:
                self._tell()

    def _cut_journal(self) -> None:
        """Forget the lines of what is folded, once they are many."""
        held = self.held
        with held.mutex:
            if not held.running and not held.outcomes:
                self.journal.cut()
        if held.running and self.journal.is_long() and self._file.lock(self._queue.lock_timeout):
            try:
                with held.mutex:
                    self.journal.shorten({*held.running, *held.outcomes})
            finally:
                self._file.unlock()

    def _tell(self) -> None:
        """Tell the listeners what has happened; never in the thread that minds the time."""
        while self._untold:
            event, job = self._untold.popleft()
            log.tell(self._options.listeners, event, [job])

    # --- running

    def _run_claimed(self) -> None:
        """Run what is claimed, each start after the outcome before it, in one write."""
        if self._options.concurrency > 1:
            from .loop import Loop

            self._loop = self._loop or Loop(self, self._options.concurrency)
            return self._loop.run()
        attempt = self.held.next(None)
        while attempt is not None:
            attempt = self.held.next((attempt, self._run_one(attempt)))

    def _run_one(self, attempt: Attempt) -> "Cells":
        """Run one job and return the cells that its outcome changes."""
        self.tell_start(attempt)
        return self.ended(attempt, self.run(attempt, self.outcome))

    def claim_beside(self, room: int) -> bool:
        """Claim more while jobs run side by side, if it may be worth it; whether there is more."""
        if self.held.claimed or not self.held.may_begin() or clock() < self._claims_from:
            return False
        try:
            freed = self.held.outcomes and self._turns.look.due and clock() >= self._rests_until
            return bool(self._turns.left_some or freed or self.is_news()) and self.turn(room)
        except (QueueError, OSError) as problem:
            log.warn("%s: %s", self._queue.path, str(problem))
            self._claims_from = clock() + 1
            return False

    def tell_start(self, attempt: Attempt) -> None:
        if log.listens():
            _log("job %s %s starts, attempt %d, by %s", attempt.job)
        if self._options.listeners:
            self._untold.append(("started", attempt.job))
            self._tell()

    def outcome(self, attempt: Attempt, result: "Any", failure: BaseException | None) -> "Cells":
        """Return the cells of a job that has returned, or raised `failure`."""
        if failure is None:
            return completed(attempt.number, result)
        if isinstance(failure, KeyboardInterrupt):
            self.stop.ask(signal.SIGINT)
        return ended_by(failure, attempt.job, self._options)

    def ended(self, attempt: Attempt, cells: "Cells") -> "Cells":
        """Return all that a run changes, after it."""
        if cells["status"] == COMPLETED and log.listens():
            _log("job %s %s completed, attempt %d, by %s", attempt.job)
        return attempt.recorded | cells if attempt.recorded else cells

    # --- beside the running job

    def _watch(self) -> None:
        """Every 0.1 s: end what runs too long; give back what one slow job holds up."""
        seen, age, last = -1.0, 0.0, -1.0
        while not self._over.wait(_TICK):
            try:
                self.held.mind_the_time()
                if self._taken_at != seen:
                    seen, age, last = self._taken_at, 0.0, -1.0
                age += _TICK
                if age >= 0.5 and age - last >= 1:
                    last = age
                    self._relieve(seen)
            except Exception as problem:  # without this thread nothing would end a hung job
                log.error("%s: %s", self._queue.path, log.traceback_of(problem))

    def _relieve(self, taken_at: float) -> None:
        """Give back what is left of a claim and not begun, and fold what has ended."""
        with self._turning:
            if self._taken_at != taken_at:
                return  # a turn came first, and has just claimed anew
            with self.held.mutex:
                self._owes = self._owes or bool(self.held.claimed)
                if not self._owes and not self.held.outcomes:
                    return
            try:
                self._edit()
                self._owes = False
            except (QueueError, OSError) as problem:
                log.warn("%s: %s", self._queue.path, str(problem))


def _log(text: str, job: Job) -> None:
    log.info(text, job.id, job.type, job.attempts, job.worker)
