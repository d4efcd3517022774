"""The hint: what lets a tick that has nothing to do go home without a lock, a scan or an import.

`queue.tsv.d/hint` is one line: what the file was when it was last looked at, and the earliest time
at which any of its rows may be due.  It is derived: deleting it costs one look at the file.
"""

import os
import time

from .beside import is_folder, make, note, unlink
from .errors import QueueError
from .files import stamp_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .disk import QueueFile
    from .job import Job

NEVER_DUE = 1 << 62
TRUSTED = 600  # seconds after a full look
TENDED = 3600  # seconds between two upkeeps
_LONGEST_TAIL = 1 << 20


class Hint:
    """What was seen: inode, size and mtime, when, and the rows that matter to a tick."""

    __slots__ = ("bound", "inode", "last_id", "looked_at", "mtime", "processing", "size", "waiting")

    def __init__(
        self,
        inode: int,
        size: int,
        mtime: int,
        looked_at: int,
        bound: int,
        waiting: int,
        processing: int,
        last_id: str,
    ) -> None:
        self.inode = inode
        self.size = size  # up to the end of the last whole line
        self.mtime = mtime  # ns
        self.looked_at = looked_at  # time of the last full look
        self.bound = bound  # no pending row without `after` is due before this Unix time
        self.waiting = waiting  # pending rows with `after`
        self.processing = processing
        self.last_id = last_id

    def line(self) -> bytes:
        numbers = (
            self.inode,
            self.size,
            self.mtime,
            self.looked_at,
            self.bound,
            self.waiting,
            self.processing,
        )
        return f"{' '.join(map(str, numbers))} {self.last_id or '-'} .\n".encode()


def read(side: str) -> Hint | None:
    """Return the hint beside a queue, None when there is none or it cannot be read."""
    try:
        fd = os.open(side + "/hint", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fields = os.read(fd, 4096).decode(errors="replace").split()
        if len(fields) != 9 or fields[8] != ".":
            return None
        inode, size, mtime, looked_at, bound, waiting, processing = map(int, fields[:7])
        last_id = "" if fields[7] == "-" else fields[7]
        return Hint(inode, size, mtime, looked_at, bound, waiting, processing, last_id)
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)


def idle_tick(path: str) -> bool:
    """Make a tick of a queue in which nothing is due, and note it; False when there is more to do.

    Neither this nor what it imports is more than a process needs that a crontab starts.
    """
    real = os.path.realpath(path)
    if not idle(real):
        return False
    note_tick(real, 0)
    return True


def idle(real: str) -> bool:
    """Whether a tick has nothing to do: no worker file, no processing row, nothing due."""
    side = real + ".d"
    try:
        st = os.stat(real)
        workers = os.listdir(side + "/workers") if os.path.lexists(side + "/workers") else ()
        if any(name.endswith(".tsv") for name in workers):
            return False
    except FileNotFoundError:
        return True
    except OSError:
        return False  # a look will say what is wrong
    if not st.st_size:
        return True
    hint = _current(real, st)
    return hint is not None and not hint.processing and hint.bound > time.time()


def may_be_due(real: str) -> bool:
    """Whether a pending row may be due, as far as the hint and the rows added since tell."""
    try:
        hint = _current(real, os.stat(real))
    except OSError:
        return False
    return hint is None or hint.bound <= time.time()


def _current(real: str, st: os.stat_result) -> Hint | None:
    """Return the hint, lowered by the rows added since; None when it tells nothing."""
    hint = read(real + ".d")
    if hint is None or hint.inode != st.st_ino or not 0 <= time.time() - hint.looked_at < TRUSTED:
        return None
    same = (hint.size, hint.mtime) == (st.st_size, st.st_mtime_ns)
    if not same and (st.st_size <= hint.size or not _take_tail(real, hint, st.st_size)):
        return None
    return hint


def _take_tail(real: str, hint: Hint, size: int) -> bool:
    """Lower the hint's bound by the rows added since; False when they are not plainly new."""
    if size - hint.size > _LONGEST_TAIL:
        return False
    fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_ino != hint.inode:
            return False
        tail = os.pread(fd, size - hint.size + 1, hint.size - 1)
    finally:
        os.close(fd)
    *lines, rest = tail.split(b"\n")
    if lines[:1] != [b""] or rest:
        return False
    for line in lines[1:]:
        cells = line.split(b"\t")
        if len(cells) < 9 or not cells[4].isdigit() or not cells[5].isdigit():
            return False
        id = cells[0].decode(errors="replace")
        if id <= hint.last_id or cells[3] != b"pending" or any(b":" in cell for cell in cells[9:]):
            return False  # the last: perhaps an `after`, which only a full look weighs
        hint.last_id = id
        run_at = int(cells[5])
        hint.bound = min(hint.bound, 0 if run_at == int(cells[4]) else run_at)
        if not hint.bound:
            return True  # due: what follows does not matter
    return True


def stamp(path: str) -> tuple[int, int, int] | None:
    """Return what changes whenever a file does; None when it is not there."""
    try:
        st = os.stat(path)
    except FileNotFoundError:
        return None
    return stamp_of(st)


def carry(
    file: "QueueFile",
    seen: os.stat_result,
    changed: "Iterable[Job | None]",
    added: "Iterable[Job]",
) -> None:
    """After a rename: keep a hint that held, lowered by the rows that the edit touched."""
    hint = read(file.side)
    if hint is None or (hint.inode, hint.size, hint.mtime) != stamp_of(seen):
        return forget(file)
    for job in (*changed, *added):
        if job is not None and job.status == "processing":
            hint.processing += 1
        elif job is not None and job.status == "pending" and not job.after:
            hint.bound = min(hint.bound, 0 if job.run_at == job.created_at else job.run_at)
        elif hint.waiting or (job is not None and job.after):
            hint.bound = 0  # only a full look weighs who waits for what
    hint.inode, hint.size, hint.mtime = stamp_of(os.fstat(file.fd))
    write(file, hint)


def write(file: "QueueFile", hint: Hint) -> None:
    """Store the hint by rename, unsynced, when the folder lets us; nothing depends on it."""
    try:
        path = os.path.join(file.make_side(), "hint")
        unlink(path + ".tmp")  # after a power cut perhaps a second name of the hint
        note(path + ".tmp", hint.line(), file.real)
        os.rename(path + ".tmp", path)
    except OSError:
        forget(file)


def forget(file: "QueueFile") -> None:
    for name in ("hint", "hint.tmp"):
        try:
            unlink(os.path.join(file.side, name))
        except OSError:
            continue


def is_tended(path: str) -> bool:
    """Whether the upkeep of `keep=` was done within the last hour, and not in the future."""
    try:
        return 0 <= time.time() - os.stat(os.path.realpath(path) + ".d/upkeep").st_mtime < TENDED
    except OSError:
        return False


# --- the strip of minutes


def note_tick(real: str, jobs: int) -> None:
    """Write this minute's line of `tick`: 32 bytes, the Unix time and how many jobs were run."""
    try:
        if is_folder(real + ".d"):
            _note_tick(real, int(time.time()), jobs)
    except (OSError, ValueError, QueueError):
        return  # nothing depends on it


def _note_tick(real: str, now: int, jobs: int) -> None:
    fd = make(real + ".d/tick", os.O_RDWR, real)
    try:
        at = now // 60 % 1440 * 32
        before = os.pread(fd, 32, at).split()
        if len(before) == 2 and int(before[0]) // 60 == now // 60:
            jobs += int(before[1])
        os.pwrite(fd, b"%-15d%16d\n" % (now, jobs), at)
    finally:
        os.close(fd)
