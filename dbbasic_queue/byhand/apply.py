"""What was typed, put into one edit: each row only if it is still what the copy had."""

import time

from .. import after
from ..disk import unhurried
from ..edit import Edit
from ..errors import BadArgument
from ..job import Job, encode
from ..log import tell
from ..queue import Queue
from ..tsv import FINISHED
from .compare import Refused, compare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .compare import Change, Typed


class Applied:
    """What became of it: ids, in the order of the lines, and what was refused.

    `cancelled` are the jobs that can never run now, since they waited for one of these.
    """

    def __init__(self) -> None:
        self.changed: list[str] = []
        self.deleted: list[str] = []
        self.added: list[str] = []
        self.cancelled: list[str] = []
        self.refused: list[Refused] = []


def apply(queue: Queue, before: bytes, after: bytes) -> Applied:
    """Apply what differs between a copy and what became of it, in one edit; say how it went.

    BadArgument when the header was changed, and the errors of any edit: then nothing was applied.
    """
    typed = compare(before, after, queue.path)
    done = Applied()
    done.refused = typed.refused
    if not typed.changed and not typed.deleted and not typed.new:
        return done
    made: list[_Moves] = []

    def body() -> list[Job]:
        with Edit(
            queue.file, queue.lock_timeout, durable=queue.sync != "off", create=False
        ) as edit:
            made[:] = [_Moves(edit, typed)]
            made[0].make()
        return edit.cancelled

    cancelled = unhurried(body)
    (moves,) = made
    done.changed = list(moves.changed)
    done.added = [job.id for job in moves.added]
    done.deleted = [job.id for job in moves.deleted]
    done.cancelled = [job.id for job in cancelled]
    done.refused = sorted(typed.refused + moves.refused, key=lambda one: one.line or 0)
    tell(queue.listeners, "enqueued", moves.added)
    tell(queue.listeners, "cancelled", [*moves.now("cancelled"), *cancelled])
    tell(queue.listeners, "retried", [*moves.now("pending"), *moves.revived])
    tell(queue.listeners, "purged", moves.deleted)
    return done


class _Moves:
    """The moves of one edit."""

    def __init__(self, edit: Edit, typed: "Typed") -> None:
        self._edit = edit
        self._typed = typed
        self.changed: dict[str, tuple[Job, Job, Change]] = {}  # by id: before, now
        self._added: dict[str, tuple[int, bytes, Job]] = {}
        self.deleted: list[Job] = []
        self.revived: list[Job] = []
        self.refused: list[Refused] = []

    @property
    def added(self) -> list[Job]:
        return [job for _, _, job in self._added.values()]

    def now(self, status: str) -> list[Job]:
        """Return the changed jobs that have this status, and had another one."""
        pairs = [(old.status, new) for old, new, _ in self.changed.values()]
        return [new for before, new in pairs if new.status == status != before]

    def make(self) -> None:
        gone = "" if self._edit.exists else "the queue file is gone"
        if not gone and set(self._typed.header.columns) - set(self._edit.header.columns):
            gone = "the queue has other columns now"
        if gone:
            asked = [*self._typed.changed, *self._typed.deleted]
            self.refused += [change.refused(gone) for change in asked]
            self.refused += [Refused(b"", line, text, gone) for line, text, _ in self._typed.new]
            return
        for change in self._typed.changed:
            self._change(change)
        for line, text, new in self._typed.new:
            self._add(line, text, new.copy())
        self._refuse_circles()
        self._delete([job for one in self._typed.deleted if (job := self._row(one))])
        moved = [old for old, now, _ in self.changed.values() if old.status != now.status]
        if any(old.finished for old in moved):
            self.revived = after.revive(self._edit)
        self._edit.ended = self._edit.ended or bool(moved)

    def _row(self, change: "Change") -> Job | None:
        """Return the row if it is still what the copy had; else refuse, and return None."""
        job = self._edit.get(change.before[0].decode())
        if job is None:
            self.refused.append(change.refused("is gone: deleted or archived meanwhile"))
            return None
        had = dict(zip(self._typed.header.columns, change.before, strict=True))
        if job.cells == [had.get(name, b"") for name in job.header.columns]:
            return job
        runs = job.status == "processing"
        why = f"runs now, by {job.worker}" if runs else "was changed meanwhile"
        refused = change.refused(why)
        wanted = had | change.cells
        for name in job.header.columns:
            theirs, yours = job.raw(name), wanted.get(name, b"")
            if theirs != yours:
                refused.cells.append((name, theirs.decode(), yours.decode()))
        if not refused.cells:  # somebody did just this
            return job
        self.refused.append(refused)
        return None

    def _change(self, change: "Change") -> None:
        job = self._row(change)
        if job is None:
            return
        cells = change.cells | _end_of(job, change.cells)
        try:
            if cells.get("after"):
                after.refuse_unknown(self._edit, [job.with_cells(cells)])
        except BadArgument as error:
            self.refused.append(change.refused(str(error)))
        else:
            self.changed[job.id] = job, self._edit.set(job, cells), change

    def _add(self, line: int, text: bytes, job: Job) -> None:
        try:
            self._added[self._edit.add(job)] = line, text, job
        except BadArgument as error:
            self.refused.append(Refused(b"", line, text, str(error)))

    def _delete(self, rows: list[Job]) -> None:
        """Delete rows, but for those that an unfinished one waits for which stays."""
        leaving = {job.id: job for job in rows}
        members: dict[str, list[str]] = {}
        for job in rows:
            members.setdefault(f"@{job.group}", []).append(job.id)
        names = self._waiting() if rows else {}
        awaited = [name for id in names.keys() - leaving.keys() for name in names[id]]
        while awaited:
            name = awaited.pop()
            for id in members.pop(name, ()) if name.startswith("@") else (name,):
                if leaving.pop(id, None):
                    why = "not deleted: an unfinished job waits for it"
                    self.refused.append(Refused(id.encode(), None, b"", why))
                    awaited += names.get(id, ())
        for job in leaving.values():
            self._edit.remove(job)
        self.deleted = list(leaving.values())

    # --- who waits for whom

    def _waiting(self) -> "dict[str, list[str]]":
        """Return the ids, and groups as @GROUP, that each unfinished row waits for."""
        rows = self._edit.rows(after.WAITING)
        return {job.id: after.named(job.after) for job in rows if job.after and not job.finished}

    def _refuse_circles(self) -> None:
        """Take back what would make jobs wait for each other for ever."""
        typed = [change.cells.keys() for _, _, change in self.changed.values()]
        linked = any({"after", "group", "status"} & cells for cells in typed)
        if not linked and not any(job.group for job in self.added):
            return
        others: set[str] = set()  # one of each circle that was there before
        while circle := _circle(self._graph(others)):
            why = f"these jobs would wait for each other: {' '.join(circle)}"
            for id in circle:
                if id in self.changed:
                    before, now, change = self.changed.pop(id)
                    self._edit.put(now, before)
                    self.refused.append(change.refused(why))
                    break
                if id in self._added:
                    line, text, job = self._added.pop(id)
                    self._edit.remove(job)
                    self.refused.append(Refused(b"", line, text, why))
                    break
            else:
                others.add(circle[0])

    def _graph(self, others: set[str]) -> "dict[str, list[str]]":
        """Return who waits for whom; a group for its members that wait themselves."""
        names = self._waiting()
        for id in list(names):
            job = self._edit.get(id)
            if job and job.group and f"@{job.group}" not in names[id]:
                names.setdefault(f"@{job.group}", []).append(id)
        return {id: names[id] for id in names.keys() - others}


def _circle(names: "dict[str, list[str]]") -> list[str]:
    from graphlib import CycleError, TopologicalSorter

    try:
        TopologicalSorter(names).prepare()
        return []
    except CycleError as error:
        return list(dict.fromkeys(error.args[1]))


def _end_of(job: Job, cells: dict[str, bytes]) -> dict[str, bytes]:
    """Return the `finished_at` that goes with a new status, unless it was typed too."""
    status = cells.get("status")
    if status is None or "finished_at" in cells:
        return {}
    if status not in FINISHED:
        return {"finished_at": b""}
    if job.finished:
        return {}
    return {"finished_at": encode("finished_at", time.time())}
