"""Take in what dead workers left: fold what they finished, charge what they had started, give back
the rest.

A worker is dead when the kernel has freed the lock on its file; nothing is guessed from a time.
"""

import os
import time

from .beside import NoFile, open_regular, unlink
from .files import close_quietly, read_all
from .flock import try_lock
from .job import Job
from .journal import (
    LEFT_BESIDE,
    all_lines,
    parse,
    unlink_with_beside,
    worker_of,
)
from .log import warn
from .tsv import PENDING, escape, unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .disk import QueueFile
    from .edit import Edit
    from .journal import Cells, Line


MOST_DEAD = 100  # taken in by one edit: each holds a descriptor
ON_REQUEST = b"ended on request"
_SMALL = 1 << 16


class Dead:
    """The file of a worker that died, locked by us while we take it in."""

    __slots__ = ("fd", "id", "killed", "lines", "path", "victim", "why")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.id = os.path.basename(path)[:-4]
        self.lines: list[Line] = []
        self.why = "worker died"
        self.victim = b""  # the job that was to blame, where its killer knows
        self.killed: set[tuple[int, bytes]] = set()  # claim and job of each that was to end

    def read(self) -> bool:
        """Read what the worker has left behind; False when this is no worker's file at all."""
        data = read_all(self.fd)
        self.lines, damaged = parse(data)
        head = self.lines[0] if self.lines else None
        named = head is not None and head.event == "worker" and head.id.decode() != self.id
        lost = data.startswith(b"\0")  # a power cut took the beginning
        if b"\n" in data and (named or not (head or lost)):
            return False
        why, _, victim = small_file(self.path[:-4] + ".why").partition(b"\n")
        self.why = why.decode(errors="replace").strip() or self.why
        self.victim = victim.strip()
        self.killed = kill_requests(self.path)
        if damaged:
            kept = os.path.join(os.path.dirname(self.path), "..", f"damaged-{self.id}.tsv")
            warn("%s: has damaged lines before good ones; kept as %s", self.path, kept)
            if not os.path.lexists(kept):
                os.link(self.path, kept)
        return True

    def bury(self) -> None:
        """Remove the file, once what it said is in the queue and on the disk."""
        unlink_with_beside(self.path)
        self.close()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close_quietly(fd)


def small_file(path: str) -> bytes:
    """Return a file that may be missing; the last whole lines of one that is not small."""
    try:
        fd = open_regular(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        left_out = max(0, os.fstat(fd).st_size - _SMALL)
        text = os.pread(fd, _SMALL, left_out)
        return text.partition(b"\n")[2] if left_out else text
    finally:
        os.close(fd)


def kill_requests(path: str) -> set[tuple[int, bytes]]:
    """Return the claim number and the id of each job that a worker is asked to end."""
    lines = small_file(path[:-4] + ".kill").split(b"\n")[:-1]
    asked = [line.partition(b"\t") for line in lines]
    return {(int(k), id) for k, _, id in asked if k.isdigit() and len(k) < 20}


def killed(why: bytes = ON_REQUEST) -> "Cells":
    """Return the cells of a job that was made to end."""
    now = b"%.3f" % time.time()
    return {"status": b"cancelled", "error": why, "finished_at": now}


def find_dead(file: "QueueFile", mine: str = "") -> "tuple[list[Dead], set[str]]":
    """Return the workers whose lock is free, and the ids of those that live; under the queue's
    lock.

    Close each of the dead.
    """
    folder = os.path.join(file.side, "workers")
    alive = {mine} if mine else set()
    dead: list[Dead] = []
    names = file.workers()
    for name in names:
        id, ending = name[:-4], name[-4:]
        if ending != ".tsv" or id == mine:
            continue
        path = os.path.join(folder, name)
        try:
            fd = open_regular(path, os.O_RDWR)
        except (FileNotFoundError, NoFile):
            continue
        except OSError:
            alive.add(id)  # not ours to judge
            continue
        dead.append(Dead(path, fd))
        try:
            free = len(dead) <= MOST_DEAD and try_lock(fd)
        except BaseException:
            for one in dead:
                one.close()  # else they would seem to live for as long as this process does
            raise
        if not free:
            dead.pop().close()
            alive.add(id)
    for name in names:
        id, dot, ending = name.rpartition(".")
        if dot and ending in LEFT_BESIDE and id + ".tsv" not in names:
            try:
                unlink(os.path.join(folder, name))  # of a worker that is long gone
            except OSError:
                continue
    return dead, alive


def remove_if_empty(file: "QueueFile") -> None:
    """Remove the folder of the workers when nobody is left in it."""
    try:
        os.rmdir(os.path.join(file.side, "workers"))
    except OSError:
        return


def live_workers(file: "QueueFile", timeout: float) -> "tuple[list[LiveWorker], bool]":
    """Return the workers that live, and whether some died that nobody has taken in."""
    if not file.workers() or not file.lock(timeout):
        return [], False
    try:
        dead, alive = find_dead(file)
        for one in dead:
            one.close()
        lines = all_lines(file.side)
    finally:
        file.unlock()
    return [LiveWorker(id, lines.get(id, [])) for id in sorted(alive)], bool(dead)


def read_dead(file: "QueueFile", mine: str) -> "tuple[list[Dead], set[str]]":
    """As `find_dead`, with what each of the dead has left behind."""
    found, alive = find_dead(file, mine)
    dead = []
    try:
        for one in found:
            if one.read():
                dead.append(one)
            else:
                warn("%s: is no worker's file, and is left as it is", one.path)
                one.close()
    except BaseException:
        for one in found:
            one.close()
        raise
    return dead, alive


def recover(
    edit: "Edit", rows: "Iterable[Job]", dead: list[Dead], alive: set[str], max_attempts: int
) -> "Iterator[tuple[Job, str]]":
    """Take in each of the processing `rows` whose worker is not alive; yield the job as it now is,
    and how it went.

    Where its outcome was recorded, as `event_of` says.  "recovered": it was started and not
    finished, which costs the attempt; "cancelled": and somebody had asked to end it.  "returned":
    it was claimed only, or ran beside the one that was to blame.
    """
    files = {one.id: one for one in dead}
    for job in list(rows):
        worker, k = worker_of(job)
        if worker in alive or job.is_elsewhere:
            continue
        one = files.get(worker)
        lines = (
            [entry for entry in one.lines if entry.k == k and entry.id == job.cells[0]]
            if one
            else []
        )
        cells: Cells = {}
        for entry in lines:
            if entry.event == "record":
                cells |= entry.cells
        ends = [entry for entry in lines if entry.event == "end"]
        starts = [entry for entry in lines if entry.event == "start"]
        if ends:
            if starts:
                cells["started_at"] = b"%.3f" % starts[-1].time
            job = edit.set(job, cells | ends[-1].cells)
            yield job, event_of(job, ends[-1].attempt)
        elif one and (k, job.cells[0]) in one.killed:
            attempts = starts[-1].attempt if starts else job.attempts
            yield edit.set(job, cells | killed() | {"attempts": b"%d" % attempts}), "cancelled"
        elif one and one.victim not in (b"", job.cells[0]):
            yield edit.set(job, cells | {"status": b"pending", "worker": b""}), "returned"
        elif starts or one is None:
            cells |= charged(job, starts[-1] if starts else None, max_attempts)
            cells["error"] = escape(one.why if one else "worker died").encode()
            yield edit.set(job, cells), "recovered"
        else:
            yield edit.change(job, status="pending", worker=""), "returned"


def event_of(job: Job, attempt: int) -> str:
    """Return what to call the end of an attempt, by its number."""
    if job.cells[3] != PENDING:
        return job.status
    return "retried" if job.attempts >= attempt else "snoozed"


def charged(job: Job, start: "Line | None", max_attempts: int) -> "Cells":
    """Return the cells of a job whose worker died in it: failed at its last, else due."""
    now = time.time()
    attempt = start.attempt if start else job.attempts + 1
    limit = int(start.cells.get("max_attempts", b"0")) if start else 0
    cells = {"attempts": b"%d" % attempt}
    if start:
        cells["started_at"] = b"%.3f" % start.time
    if attempt >= (limit or job.max_attempts or max_attempts):
        return cells | {"status": b"failed", "finished_at": b"%.3f" % now}
    return cells | {
        "status": b"pending",
        "worker": b"",
        "run_at": b"%d" % min(job.run_at, int(now)),
    }


# --- who lives


class LiveWorker:
    """A live worker, as its file tells."""

    __slots__ = ("id", "jobs", "name", "pid", "queues", "started_at", "types")

    def __init__(self, id: str, lines: "list[Line]") -> None:
        cells = lines[0].cells if lines and lines[0].event == "worker" else {}
        self.id = id
        self.pid = int(cells.get("pid", b"0"))  # in the worker's own pid namespace
        self.name = cells.get("name", b"").decode() or None
        self.queues = _listed(cells.get("queues", b""))
        self.types = _listed(cells.get("types", b""))
        self.started_at = lines[0].time if lines else 0.0
        running = {}
        for entry in lines:
            if entry.event == "start":
                running[entry.id.decode()] = entry.time
            elif entry.event == "end":
                running.pop(entry.id.decode(), None)
        self.jobs = running  # the ids of the jobs that run, with the time of their start

    def __repr__(self) -> str:
        return f"<LiveWorker {self.id} {list(self.jobs)}>"


def _listed(cell: bytes) -> list[str]:
    return unescape(cell.decode()).split(",") if cell else []
