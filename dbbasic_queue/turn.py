"""A worker's edits: fold its outcomes, take in the dead, claim, all in one rewrite."""

import math
import time
from heapq import merge
from operator import itemgetter

from . import hint, log
from .admit import Admit, paused
from .after import settle
from .claim import Look
from .due import AT
from .edit import Edit
from .files import blocks
from .job import Job
from .journal import WorkerFile
from .options import Options
from .queue import Queue
from .recover import Dead, event_of, read_dead, recover, remove_if_empty
from .run import clock
from .seen import FRESH, note, said_by
from .tsv import PENDING, PROCESSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from .journal import Cells

    # By job id: the claim that its row names, the number of the attempt, the row's new cells.
    Outcomes = dict[bytes, tuple[bytes, int, Cells]]

# A claim holds a part of the file, so that a rewrite is worth its cost; in bounds, as memory is.
SHARE = 28
LEAST_HELD, MOST_HELD = 5 << 17, 1 << 26  # bytes of rows
_LATER = 60  # rows added so many seconds after the start are left to the next tick


class Turns:
    """The edits of one worker, and what it knows of the file between them.  One at a time."""

    def __init__(
        self, queue: Queue, options: Options, journal: WorkerFile, again: set[bytes]
    ) -> None:
        self._queue = queue
        self._file = queue.file
        self._options = options
        self._journal = journal
        self._unhandled: set[str] = set()
        self._reported = False
        self._raised: list[object] = []  # `admit` functions of which that was logged
        self._begun = int(time.time())
        self._says, self._said_at = said_by(options), -math.inf
        self._again = again  # ids of jobs put back by this worker: left to the next tick
        self.took = 0.0  # seconds of the last edit under the lock
        self.left_some = False  # the last claim had no room for all that is due
        self.ask_at = math.inf  # when an `admit` function may let another job start
        self.paused: frozenset[str] = frozenset()  # labels of queues from which nobody claims
        self.look = self._new_look()

    def turn(
        self, outcomes: "Outcomes", keep: "Collection[bytes]", room: int, leaving: bool
    ) -> tuple[list[Job], list[tuple[str, Job]]] | None:
        """Make one edit; return the rows that are claimed now, at most `room`, and what to tell.

        None when there is no file (at the moment): nothing was done.

        `keep` are the ids of jobs that run: all else that is marked as mine goes back.  When it
        raises, the next turn looks at the whole file, whatever has become of it.
        """
        dead: list[Dead] = []
        events: list[tuple[str, Job]] = []
        died: list[tuple[Job, str]] = []
        self.left_some = False
        if room:
            self.ask_at = math.inf
        try:
            with Edit(self._file, self._queue.lock_timeout, create=False) as e:
                if not e.exists:
                    return None
                now, begun = time.time(), clock()
                self._journal.renew_if_lost()
                before, self.paused = self.paused, paused(self._file)
                changed = self.paused != before or self.look.bound <= now
                if changed or not self.look.holds(e, self._file.fd):
                    self.look.close()
                    self.look = self._new_look()
                look = self.look
                look.take(e, self._file.fd, now)
                self._report_bad_line()
                self._fold(e, outcomes, events)
                mine = self._journal.marks()
                others, look.twins = look.twins, []
                for job in list(look.processing.values()):
                    if not job.raw("worker").startswith(mine):
                        others.append(job)
                    elif job.cells[0] not in keep:
                        self._follow(e.set(job, {"status": PENDING, "worker": b""}))
                held = {job.cells[0]: job.raw("worker").decode() for job in others}
                dead, alive = read_dead(self._file, self._journal.id)
                for job, how in recover(e, others, dead, alive, self._options.max_attempts):
                    self._follow(job)
                    if how == "recovered":
                        died.append((job, held[job.cells[0]]))
                    if how != "returned":
                        events.append((how, job))
                met = self._settle(e, events)
                taken = self._claim(e, met, room, now) if room else []
                look.ready = 0
                for job in met:
                    if job.cells[0] in look.waiting and job.is_due(now):
                        look.ready += 1
                    elif job.cells[0] in look.waiting:
                        look.bound = min(look.bound, job.run_at)
                if taken:
                    self._journal.register()
                e.commit()
                self._file.settle_rename()
                self._keep_look(e)
                if now - self._said_at > FRESH:
                    self._said_at = now
                    note(self._file, self._says)
                for one in dead:
                    one.bury()
                if leaving or not (keep or taken or not room or self._options.run_for):
                    self._journal.remove()
                remove_if_empty(self._file)
                self.took = clock() - begun
                for job, worker in died:
                    text = "job %s %s attempt %d by %s: %s; now %s"
                    values = (job.id, job.type, job.attempts, worker, job.error or "", job.status)
                    log.warn(text, *values)
                return taken, events
        except BaseException:
            self.look.close()  # it followed changes that were not made
            raise
        finally:
            for one in dead:
                one.close()

    def register(self) -> None:
        """Make this worker's file before there is anything to claim, for who looks for workers."""
        if self._file.lock(self._queue.lock_timeout):
            try:
                self._journal.register()
            finally:
                self._file.unlock()

    def _settle(self, e: Edit, events: list[tuple[str, Job]]) -> list[Job]:
        """Weigh who waits for what has changed, down the graph; return who waits no more."""
        look = self.look
        for job in e.touched():
            look.weigh_children(job)
        met: list[Job] = []
        while rows := look.weighed():
            seen = len(e.cancelled)
            met += settle(e, rows)
            for job in e.cancelled[seen:]:
                look.waiting.pop(job.cells[0], None)
                look.weigh_children(job)
                events.append(("cancelled", job))
        look.to_weigh.update(job.cells[0] for job in met)  # until they are claimed
        e.ended = False
        return met

    def _report_bad_line(self) -> None:
        """Log once where a line is no row, and nothing of it: it may hold what no log may have.

        `doctor` lists them all.
        """
        if self.look.bad and not self._reported:
            self._reported = True
            before = blocks(self._file.fd, 0, self.look.bad_at)
            number = 1 + sum(block.count(b"\n") for _, block in before)
            text = "%s:%d: cannot be read as a row and is left as it is; `doctor` tells why"
            log.warn(text, self._queue.path, number)

    def _new_look(self) -> Look:
        aging = {
            queue: float(one["aging"])
            for queue, one in self._options.settings.items()
            if one.get("aging")
        }
        return Look(self.rank, aging)

    def rank(self, type: str, queue: str) -> int | None:
        """Return the rank of a due row's queue, None when this worker does not run it."""
        rank = None if queue in self.paused else self._options.rank(queue)
        if rank is not None and type not in self._options.handlers:
            if type not in self._unhandled:
                self._unhandled.add(type)
                log.warn(
                    "%s: no handler for type %s; its jobs stay as they are", self._queue.path, type
                )
            return None
        return rank

    def _fold(self, e: Edit, outcomes: "Outcomes", events: list[tuple[str, Job]]) -> None:
        for id, (mark, attempt, cells) in outcomes.items():
            mine = self.look.processing.get(id)
            if mine is None or mine.raw("worker") != mark:
                log.warn(
                    "job %s was changed by somebody else while it ran; its outcome is dropped",
                    id.decode(),
                )
                continue
            job = mine
            if mine.alter(cells):
                e.touch(mine)
            else:
                job = e.set(mine, cells)
            if job.cells[3] == PENDING:
                self._follow(job)
            else:
                del self.look.processing[id]
            events.append((event_of(job, attempt), job))

    def _follow(self, job: Job) -> None:
        """Note in the look what became of a processing row."""
        look = self.look
        mine = look.processing.get(job.cells[0])
        if mine is not None and mine.at == job.at:
            del look.processing[job.cells[0]]
        if job.cells[3] != PENDING:
            return
        if job.raw("after"):
            look.wait(job)
        elif job.is_due(time.time()):
            look.add(job)
        else:
            look.bound = min(look.bound, job.run_at)

    def _claim(self, e: Edit, met: list[Job], room: int, now: float) -> list[Job]:
        """Mark the next rows as mine, in order; they are run once the edit is on the disk."""
        look, gone, seen = self.look, set(), 0
        left: set[int] = set()  # kinds of rows
        taken: list[Job] = []
        mark = b"%b.%d" % (self._journal.id.encode(), self._journal.k + 1)
        cells = {"status": PROCESSING, "worker": mark}
        worker = e.header.index.get("worker")
        only_now, latest = self._options.run_for is None, self._begun + _LATER
        waited = [
            (ticket >> AT, job.at, job.copy())  # listeners have still to be told of it as it is
            for job in met
            if job.is_due(now) and (ticket := look.ticket(job)) is not None
        ]
        waited.sort(key=itemgetter(0, 1))
        processing = look.processing
        admit = None
        if self._options.admit:
            admit = Admit(e, processing, self._options.admit, self._raised)
        most = max(LEAST_HELD, min(e.size // SHARE, MOST_HELD))
        claimable = look.claimable(e, self._file.fd, now, left)
        for _, place, job in merge(waited, claimable) if waited else claimable:
            if len(taken) >= room or most <= 0:
                self.left_some = True
                break
            seen += 1
            id = job.cells[0]
            if id in processing:
                continue  # a copied line: one at a time
            if only_now and (id in self._again or latest < job.created_at <= now):
                continue  # left to the next tick
            verdict = admit(job) if admit else False
            if verdict is None:
                if admit and admit.counts.all_such:
                    look.leave_kind(job, left)
                continue
            if not job.payload_is_json():
                text = "%s: the payload of job %s cannot be read; the row is left as it is"
                log.warn(text, self._queue.path, job.id)
                continue
            if admit and not admit.note(job):
                continue
            if worker is None or job.header is not e.header:
                job = e.set(job, cells)
            else:
                job.cells[3], job.cells[worker] = PROCESSING, mark
                e.touch(job)
            if admit:
                admit.counts.claimed(job)
            if waited:
                look.waiting.pop(id, None)
            processing[id] = job
            gone.add(place)
            most -= job.size
            if verdict:
                taken.insert(0, job)
                self.left_some = True
                break
            taken.append(job)
        if admit:
            self.ask_at = admit.counts.ask_at
        if taken:
            look.due.remove(gone, seen + look.passed)
            self._journal.k += 1
        return taken

    def _keep_look(self, e: Edit) -> None:
        """Follow the rows to where the edit put them, and leave the hint for the next tick."""
        look, fd = self.look, self._file.fd
        look.keep(e, self._file.real, fd)
        hint.write(self._file, look.hint(fd, e.last_id))
