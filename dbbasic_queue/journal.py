"""A worker is a file: its kernel lock says that it lives, its lines what it started and ended.

`queue.tsv.d/workers/ID.tsv`: the first line names the worker, each further line is

    k  event  job  attempt  time  column=cell …  crc

k counts this worker's claims.  A line applies only to a row that is `processing` with exactly
`ID.k`, so one that is taken in twice, or too late, changes nothing.  A line without its newline or
with a wrong CRC at the end is where the worker was cut off.
"""

import errno
import os
import time
from zlib import crc32

from .after import LABEL
from .beside import NoFile, make, note, open_regular, unlink
from .errors import QueueError
from .files import close_own, identity, read_all, sync, sync_folder, write_all
from .flock import try_lock
from .job import Job
from .tsv import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .disk import QueueFile

    Cells = dict[str, bytes]

ROOM = (
    1 << 18
)  # reserved at a time, so that a full disk is met before a handler starts and not after
_PAUSES = (0.0, 0.01, 0.05, 0.2, 1.0)
_mine: "set[WorkerFile]" = set()


def _after_fork_in_child() -> None:
    for worker in list(_mine):
        worker.close()


os.register_at_fork(after_in_child=_after_fork_in_child)


class LostFile(QueueError):
    """Somebody removed this worker's file: others take it for dead."""


class Line:
    """One journal line that was whole."""

    __slots__ = ("attempt", "cells", "event", "id", "k", "time")

    def __init__(
        self, k: int, event: str, id: bytes, attempt: int, time: float, cells: "Cells"
    ) -> None:
        self.k = k
        self.event = event  # worker, start, record or end
        self.id = id
        self.attempt = attempt
        self.time = time
        self.cells = cells


class _Names(dict[str, bytes]):
    """How the name of a cell stands in a line, made once."""

    def __missing__(self, name: str) -> bytes:
        written = self[name] = b"\t%b=" % name.encode()
        return written


_NAMES = _Names()


def now() -> bytes:
    """Return the time as a line or a cell holds it."""
    return b"%.3f" % time.time()


def line(k: bytes, event: bytes, id: bytes, attempt: int, at: bytes, cells: "Cells") -> bytes:
    """Return a journal line with its CRC."""
    body = b"%b\t%b\t%b\t%d\t%b" % (k, event, id, attempt, at)
    return _sealed(
        body + b"".join(map(bytes.__add__, map(_NAMES.__getitem__, cells), cells.values()))
    )


def start_line(k: bytes, id: bytes, attempt: int, at: bytes, max_attempts: int) -> bytes:
    """Return the line that says a run has started, and after how many attempts its job fails."""
    return _sealed(b"%b\tstart\t%b\t%d\t%b\tmax_attempts=%d" % (k, id, attempt, at, max_attempts))


def _sealed(body: bytes) -> bytes:
    return b"%b\t%08x\n" % (body, crc32(body))


def parse(data: bytes) -> tuple[list[Line], bool]:
    """Return the good lines, and whether a bad one stands before a good one: damage, no crash."""
    lines: list[Line] = []
    bad = damaged = False
    for text in data.rstrip(b"\0").split(b"\n")[:-1]:
        body, _, crc = text.rpartition(b"\t")
        try:
            if int(crc, 16) != crc32(body):
                raise ValueError("crc")
            k, event, id, attempt, at, *cells = body.split(b"\t")
            named = {name.decode(): cell for name, _, cell in (c.partition(b"=") for c in cells)}
            lines.append(Line(int(k), event.decode(), id, int(attempt), float(at), named))
            damaged = damaged or bad
        except ValueError:
            bad = True
    return lines, damaged


class WorkerFile:
    """This worker's own file.  Made under the queue's lock, held until the worker ends."""

    def __init__(
        self,
        file: "QueueFile",
        name: str | None,
        queues: "Iterable[str] | None",
        types: "Iterable[str]",
    ):
        self._file = file
        self._name = name or ""
        self._queues = ",".join(queues) if queues is not None else ""
        self._types = ",".join(types)
        self.id = ""
        self._past: list[str] = []
        self._fd = -1
        self._own: tuple[int, int] | None = None
        self._renew()

    def _renew(self) -> None:
        self.id = f"{self._name or 'w'}-{os.getpid()}-{os.urandom(3).hex()}"
        self.k = 0
        self._end = self._room = self._head = 0

    @property
    def path(self) -> str:
        return os.path.join(self._file.side, "workers", self.id + ".tsv")

    @property
    def registered(self) -> bool:
        return self._fd >= 0

    def register(self) -> None:
        """Make and lock the file, so that it is there before any row names it."""
        if self._fd >= 0:
            return
        folder = self._file.make_side("workers")
        self._fd = make(self.path, os.O_RDWR, self._file.real)
        self._own = identity(self._fd)
        _mine.add(self)
        if not try_lock(self._fd):
            raise QueueError(f"{self.path}: a new worker file is locked by somebody else")
        cells = {"pid": b"%d" % os.getpid(), "name": self._name.encode()}
        cells["queues"] = escape(self._queues).encode()
        cells["types"] = escape(self._types).encode()
        self._write(line(b"0", b"worker", self.id.encode(), 0, now(), cells))
        self._head = self._end
        sync_folder(folder)

    def reserve(self, more: int = 0) -> None:
        """Make sure that there is room for an outcome and so many bytes; OSError when the disk is
        full.
        """
        if self._room - self._end > ROOM // 4 + more or not self._is_there():
            return
        end = self._end
        room = end if not more else max(end, self._room)  # what jobs that run need stays theirs
        try:
            try:
                os.posix_fallocate(self._fd, end, ROOM + more)
            except (AttributeError, OSError) as error:
                if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                self._write(bytes(ROOM + more))
        except OSError:
            os.ftruncate(self._fd, room)  # what it got is needed for giving the claim back
            raise
        finally:
            self._end = end
        self._room = end + ROOM + more

    def append(self, lines: bytes, *, durable: bool) -> None:
        """Add lines at the known end; LostFile, with nothing written, when it is not ours."""
        if not self._is_there():
            raise LostFile(f"{self.path}: is gone; what this worker held may run a second time")
        for pause in _PAUSES:
            if pause:
                time.sleep(pause)
            try:
                self._write(lines)
                if durable:
                    sync(self._fd)
                return
            except OSError as error:
                os.ftruncate(self._fd, self._end)
                self._room = 0
                failure = error
        raise failure

    def _write(self, data: bytes) -> None:
        at = self._end
        while data:
            written = os.pwrite(self._fd, data, at)
            at, data = at + written, data[written:]
        self._end = at

    def cut(self) -> None:
        """Forget lines that are folded on the disk, once they are many; only while no job runs."""
        if self._end > ROOM // 2 and self._is_there():
            os.ftruncate(self._fd, self._head)
            self._end, self._room = self._head, 0

    def is_long(self) -> bool:
        return self._end > 4 * ROOM

    def shorten(self, ids: "Collection[bytes]") -> None:
        """Forget all but these jobs' lines, where some always run; under the queue's lock.

        A new file takes the place of the old one, and is locked before.
        """
        if not self._is_there():
            return
        first, *lines = os.pread(self._fd, self._end, 0).split(b"\n")[:-1]
        kept = [line for line in lines if line.split(b"\t", 3)[2] in ids]
        new, old, fd = self.path[:-3] + "new", self._fd, -1
        try:
            fd = make(new, os.O_RDWR | os.O_TRUNC, self._file.real)
            try_lock(fd)
            write_all(fd, b"\n".join([first, *kept, b""]))
            sync(fd)
            os.rename(new, self.path)
        except OSError:  # no room for a shorter one: the long one serves
            if fd >= 0:
                os.close(fd)
                os.unlink(new)
            return
        self._fd, self._end, self._room = fd, os.fstat(fd).st_size, 0
        close_own(old, self._own)
        self._own = identity(fd)
        sync_folder(os.path.dirname(self.path))

    def remove(self) -> None:
        """Unlink the file, under the queue's lock, when all its outcomes are folded."""
        if self._fd >= 0:
            unlink_with_beside(self.path)
            self.close()

    def leave_reason(self, text: str) -> None:
        """Say why this worker is about to die, for whoever takes it in."""
        note(self.path[:-3] + "why", text.encode(), self._file.real)

    def close(self) -> None:
        """Give up the lock and keep the file: whoever comes next takes in what it says."""
        _mine.discard(self)
        close_own(self._fd, self._own)
        self._fd = -1

    def renew(self) -> None:
        """Go on as another worker, after the file was lost."""
        self._past.append(self.id)
        self.close()
        self._renew()

    def renew_if_lost(self) -> None:
        if self._fd >= 0 and not self._is_there():
            self.renew()

    def _is_there(self) -> bool:
        """Whether the file is still ours: neither deleted nor closed by a handler."""
        try:
            st = os.fstat(self._fd)
        except OSError:
            return False
        return st.st_nlink > 0 and (st.st_dev, st.st_ino) == self._own

    def marks(self) -> tuple[bytes, ...]:
        """Return how the `worker` cells of this worker's rows begin, under all of its ids."""
        return tuple(id.encode() + b"." for id in (self.id, *self._past))


LEFT_BESIDE = ("why", "kill", "stop", "new")


def unlink_with_beside(path: str) -> None:
    """Remove a worker's file, and the small ones that may lie beside it."""
    for ending in ("tsv", *LEFT_BESIDE):
        unlink(path[:-3] + ending)


# --- reading others' files


def read(path: str) -> list[Line]:
    """Return the lines of a worker's file, [] when there is none."""
    try:
        fd = open_regular(path, os.O_RDONLY)
    except (FileNotFoundError, NoFile):
        return []
    try:
        return parse(read_all(fd))[0]
    finally:
        os.close(fd)


def worker_of(job: Job) -> tuple[str, int]:
    """Return the worker and the claim that a row names, ("", 0) when it names none."""
    id, _, k = job.cell("worker").rpartition(".")
    if not id or id.startswith(".") or not LABEL.issuperset(id):
        return "", 0
    return (id, int(k)) if k.isdecimal() and k.isascii() and len(k) < 20 else ("", 0)


def pid_of(worker: str) -> int:
    """Return the process of a worker, as its id (NAME-PID-CHANCE) says; 0 where that says none."""
    pid = worker.split("-")[-2:-1]
    return int(pid[0]) if pid and pid[0].isdecimal() else 0


def overlay(job: Job, lines: "Iterable[Line]", k: int) -> tuple[Job, bool]:
    """Return a processing row as its worker's lines say, and whether it has ended there."""
    cells: Cells = {}
    ended = False
    for entry in lines:
        if entry.k == k and entry.id == job.cells[0]:
            if entry.event == "start":
                cells["attempts"] = b"%d" % entry.attempt
                cells["started_at"] = b"%.3f" % entry.time
            else:
                cells |= entry.cells
            ended = ended or entry.event == "end"
    return (job.with_cells(cells) if cells else job), ended


def all_lines(side: str) -> "dict[str, list[Line]]":
    """Return the lines of every worker file, by worker."""
    folder = os.path.join(side, "workers")
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        names = []
    return {name[:-4]: read(os.path.join(folder, name)) for name in names if name.endswith(".tsv")}
