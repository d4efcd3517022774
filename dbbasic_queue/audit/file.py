"""The trail's file: its lines, who may add one, and whether all are as they were written.

The hash of a line is that of all bytes from the beginning of the line before up to its own place,
so a line that a crash has torn is covered by the one after it.
"""

import os
import threading
import time
import weakref
from typing import NamedTuple

from ..beside import NoFile, make, open_regular
from ..errors import QueueError
from ..files import blocks, last_line, sync, write_all
from ..flock import try_lock, unlock
from ..here import queue_here
from ..lookup import lines_with
from ..queue import Queue
from ..tsv import escape, unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Where = Queue | str | os.PathLike[str] | None

NAME = "audit.tsv"
COLUMNS = "time event id type queue attempt status worker by error hash".split()
HEAD = "\t".join(COLUMNS).encode()
_DIGITS = 32  # of a SHA-256
_WAIT = 5.0  # seconds, at most, until the other writers are done


class Entry(NamedTuple):
    """One line of a trail: `time` in Unix seconds, `attempt` as it was then.

    `by` is user/pid/host/program of who wrote it; it begins with "complete " where the line was
    added afterwards.
    """

    time: float
    event: str
    id: str
    type: str
    queue: str
    attempt: int
    status: str
    worker: str
    by: str
    error: str


class Unreadable(QueueError):
    """A file that is to be read is no audit trail, or cannot be read."""


def audit_path(where: "Where" = None) -> str:
    """Return the trail's usual path, beside the queue."""
    return os.path.join(queue_of(where).file.side, NAME)


def queue_of(where: "Where") -> Queue:
    """Return the queue that is meant by a Queue, by its path, or by None."""
    return queue_here(where) if where is None or isinstance(where, Queue) else Queue(where)


_writers: "weakref.WeakSet[Writer]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for writer in list(_writers):
        writer.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Writer:
    """A file that is open for adding, in this process."""

    def __init__(self, path: str, queue: Queue) -> None:
        self.path = path
        self._queue = queue
        self._synced = 0.0
        self._fd = -1
        self._turn = threading.Lock()
        _writers.add(self)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def forget(self) -> None:
        """In a forked child: close what is the parent's, whose lock would stay for as long."""
        self._turn = threading.Lock()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def add(self, entries: "Iterable[Entry]") -> None:
        """Add lines, each in one write, after those of other writers."""
        with self._turn:
            self._add(entries)

    def _add(self, entries: "Iterable[Entry]") -> None:
        fd = self._locked()
        try:
            size = os.fstat(fd).st_size
            text = b""
            if not size:
                text = HEAD + b"\n"
                write_all(fd, text)
                size = len(text)
            before = last_line(fd, size)
            for entry in entries:
                if not before.endswith(b"\n"):  # torn by a crash: it stays, and is covered
                    write_all(fd, b"\n")
                    before += b"\n"
                line = _line(entry, before)
                write_all(fd, line)
                before = line
            if self._queue.sync == "full" or (
                self._queue.sync == "normal" and not 0 <= time.time() - self._synced < 1
            ):
                sync(fd)
                self._synced = time.time()
        finally:
            if not unlock(fd):
                os.close(fd)
                self._fd = -1

    def _locked(self) -> int:
        """Return the file, locked, and made where it is not there (any more)."""
        waited = 0.0
        while True:
            if self._fd < 0 or not self._is_there():
                if self._fd >= 0:
                    fd, self._fd = self._fd, -1
                    os.close(fd)
                if os.path.dirname(self.path) == self._queue.file.side:
                    self._queue.file.make_side()
                flags = os.O_RDWR | os.O_APPEND
                self._fd = make(self.path, flags, self._queue.file.real)
            if try_lock(self._fd):
                if self._is_there():
                    return self._fd
                unlock(self._fd)
                continue
            if waited > _WAIT:
                raise QueueError(f"{self.path}: somebody holds its lock")
            time.sleep(0.001)
            waited += 0.001

    def _is_there(self) -> bool:
        try:
            there, mine = os.stat(self.path), os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _line(entry: Entry, before: bytes) -> bytes:
    at, event, id, type, queue, attempt, status, worker, by, error = entry
    texts = (event, id, type, queue, str(attempt), status, worker, by, error)
    body = b"%.3f\t%b" % (at, "\t".join(map(escape, texts)).encode())
    return b"%b\t%b\n" % (body, _hash(before, body))


def _hash(before: bytes, body: bytes) -> bytes:
    from hashlib import sha256

    return sha256(before + body).hexdigest()[:_DIGITS].encode()


def _parsed(line: bytes) -> Entry | None:
    """Return what a line says, None where it is torn."""
    try:
        at, event, id, type, queue, attempt, status, worker, by, error, mark = map(
            unescape, line.decode().split("\t")
        )
        if len(mark) != _DIGITS:
            return None
        return Entry(float(at), event, id, type, queue, int(attempt), status, worker, by, error)
    except ValueError:
        return None


def _opened(path: str) -> int:
    try:
        fd = open_regular(path, os.O_RDONLY)
    except NoFile as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    if os.pread(fd, len(HEAD) + 1, 0) not in (b"", HEAD + b"\n"):
        os.close(fd)
        raise Unreadable(f"{path}: is no audit trail")
    return fd


def read(path: "str | os.PathLike[str]", id: str | None = None) -> "Iterator[Entry]":
    """Yield the lines of a trail in order, or those of one job; FileNotFoundError where there is
    none.  A torn line is left out.
    """
    fd = _opened(os.fspath(path))
    try:
        needles = () if id is None else (b"\t%b\t" % id.encode(errors="replace"),)
        for _, block in blocks(fd, len(HEAD) + 1):
            for begin, end in sorted(lines_with(block, needles)):
                entry = _parsed(block[begin:end])
                if entry is not None and id in (None, entry.id):
                    yield entry
    finally:
        os.close(fd)


def parts(path: str) -> list[str]:
    """Return a trail and what was put aside of it, as audit-2030-01.tsv, the oldest first."""
    folder, name = os.path.split(path)
    stem = name.removesuffix(".tsv") + "-"
    try:
        names = sorted(os.listdir(folder or "."))
    except FileNotFoundError:
        return []
    old = [one for one in names if one.startswith(stem) and one.endswith(".tsv")]
    return [os.path.join(folder, one) for one in (*old, *([name] if name in names else ()))]


def history(id: str, queue_file: "Where" = None, *, path: str | None = None) -> list[Entry]:
    """Return what the trail, with its parts put aside, says of one job."""
    found: list[Entry] = []
    for part in parts(path or audit_path(queue_file)):
        found += read(part, id)
    return found


def verify(path: "str | os.PathLike[str]") -> "tuple[int, str] | None":
    """Return the number of the first line that is not as it was written, and why; None where all
    are.

    Who can write the file can write all of it anew: keep its last line elsewhere, now and then.
    That lines at the end are missing is not seen here.
    """
    fd = _opened(os.fspath(path))
    try:
        before, number, torn = HEAD + b"\n", 1, 0
        for _, block in blocks(fd, len(HEAD) + 1):
            for line in block.split(b"\n")[:-1]:
                number += 1
                body, _, mark = line.rpartition(b"\t")
                if _parsed(line) is None:
                    if torn:
                        return torn, "is torn, and the line after it too"
                    torn = number
                elif mark != _hash(before, body):
                    text = "is torn, or was changed" if torn else "does not follow the one before"
                    return torn or number, text
                else:
                    torn = 0
                before = line + b"\n"
        return (torn, "is torn, and nothing follows") if torn else None
    finally:
        os.close(fd)
