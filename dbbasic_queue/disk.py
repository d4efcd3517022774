"""The queue file on the disk: made once, appended to, replaced.  No other room writes it.

Adding is one write at the end.  Every other change writes a neighbour file, in which untouched rows
are copied as bytes, syncs it and renames it over the old one: a crash at any point leaves the old
file or the new one.
"""

import os
import time

from .beside import dress_folder, is_folder, make, unlink
from .errors import NotStored, QueueBusy, QueueError
from .files import (
    BLOCK,
    MOUNTED,
    close_quietly,
    copy_attributes,
    copy_range,
    dress,
    is_there,
    last_line,
    read_header,
    reason,
    stamp_of,
    sync,
    sync_folder,
    sync_path,
    unlink_if_there,
    write_all,
)  # fmt: skip
from .flock import try_lock
from .lock import Lock
from .tsv import HEADER, Header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .job import Job

    Piece = bytes | tuple[int, int]  # new bytes, or a stretch of the present file


class Changed(QueueBusy):
    """Somebody wrote the file without the lock during an edit; nothing was changed."""


class QueueFile:
    """One queue file.  Everything but `lock` and the paths asks that the lock is held."""

    def __init__(self, path: str) -> None:
        self._lock = Lock(path)
        self.path = path
        self.header = HEADER
        self._left = 0, 0, 0, 0  # the file as our last append left it: device, inode, size, time
        self._last = b""  # and its last line
        self._warned = False

    @property
    def real(self) -> str:
        """The path with every link resolved."""
        return self._lock.real

    @property
    def side(self) -> str:
        """The folder for all that is not the queue itself."""
        return self._lock.real + ".d"

    fd = property(lambda self: self._lock.fd)

    def refuse_nested(self) -> None:
        """Raise QueueBusy when this thread holds the lock already."""
        if self._lock.is_mine():
            raise QueueBusy(f"{self.path}: this thread is in the middle of an edit of this queue")

    def lock(self, timeout: float, *, create: bool = False, holder: object = None) -> bool:
        """Take the lock and read the header; False if there is no file and not `create`."""
        self.refuse_nested()
        return self.lock_first(timeout, create=create, holder=holder)

    def lock_first(self, timeout: float, *, create: bool = False, holder: object = None) -> bool:
        """As `lock`, for a caller who knows that this thread does not hold the lock."""
        try:
            taken = self._lock.take(timeout, self._create if create else None, holder)
            if taken:
                self._look()
            return taken
        except BaseException:
            self._lock.release()
            raise

    def unlock(self, *, lent: bool = True) -> None:
        self._lock.release(lent=lent)

    # --- the beginning

    def _create(self, real: str) -> None:
        """Make the file with its header; link() lets exactly one of many first users win."""
        folder = os.path.dirname(real)
        temporary = self._temporary(real)
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
            settled = True
            try:
                write_all(fd, HEADER.line + b"\n")
                sync(fd)
                os.link(temporary, real)
                settled = False  # and the second link says so, should we die
                sync_path(folder)
                settled = True
            except FileExistsError:
                return
            finally:
                close_quietly(fd)
                if settled:
                    os.unlink(temporary)
        except OSError as error:
            raise NotStored(f"{self.path}: cannot be made: {error.strerror}") from error

    def _temporary(self, real: str) -> str:
        folder, name = os.path.split(real)
        return os.path.join(folder, f".{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")

    def _look(self) -> None:
        """Read the header, unless nobody has written since our last append: nor is then the end."""
        seen, (device, inode, size, time) = self._lock.seen, self._left
        if not seen.st_nlink:
            raise NotStored(f"{self.path}: not changed: {MOUNTED}")
        same = seen.st_size == size and seen.st_ino == inode and seen.st_dev == device
        self._is_as_left = same and seen.st_mtime_ns <= time
        if not self._is_as_left:
            line = self.header.line + b"\n"
            if os.pread(self.fd, len(line), 0) != line:
                self.header = read_header(self.fd, self.path) or self._new_header()

    def _new_header(self) -> Header:
        """Give an empty file, or one whose header is torn, a new one."""
        try:
            os.ftruncate(self.fd, 0)
            write_all(self.fd, HEADER.line + b"\n")
            sync(self.fd)
            self._lock.seen = os.fstat(self.fd)
            return HEADER
        except OSError as error:
            os.ftruncate(self.fd, 0)
            raise NotStored(f"{self.path}: has no header yet: {error.strerror}") from error

    # --- the end

    def end(self) -> tuple[os.stat_result, bytes]:
        """Return the file's state and its last line; a torn tail is closed, or moved to torn.tsv.

        A tail with all its tabs is a whole row, since the last column of a new row is empty.  Any
        other tail was acknowledged to nobody.
        """
        seen = self._lock.seen
        if self._is_as_left:
            return seen, self._last
        size = seen.st_size
        line = last_line(self.fd, size)
        if line.endswith(b"\n"):
            return seen, line
        try:
            if line.count(b"\t") == self.header.width - 1:
                write_all(self.fd, b"\n")
                self._lock.seen = os.fstat(self.fd)
                return self._lock.seen, line + b"\n"
            path = os.path.join(self.make_side(), "torn.tsv")
            torn = make(path, os.O_WRONLY | os.O_APPEND, self.real)
            try:
                write_all(torn, line + b"\n")
                sync(torn)
            finally:
                os.close(torn)
            os.ftruncate(self.fd, size - len(line))
            self._lock.seen = os.fstat(self.fd)
        except OSError as error:
            raise NotStored(
                f"{self.path}: the torn last line cannot be mended: {error.strerror}"
            ) from error
        return self.end()

    def append(self, rows: bytes | bytearray, *, durable: bool) -> None:
        """Add whole lines.  When this raises, the file is as it was before."""
        seen, fd = self._lock.seen, self._lock.fd
        size = seen.st_size
        try:
            write_all(fd, rows)
            if durable:
                self.settle_rename()
                sync(fd)
            self._left = seen.st_dev, seen.st_ino, size + len(rows), time.time_ns()
            self._last = bytes(rows[rows.rfind(b"\n", 0, -1) + 1 :])
        except BaseException as error:
            self._cut_back(size)
            if isinstance(error, OSError):
                raise NotStored(f"{self.path}: not known to be stored: {error.strerror}") from error
            raise

    def _cut_back(self, size: int) -> None:
        """Undo an append; the lock is ours, so nobody has added since."""
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise NotStored(f"{self.path}: perhaps stored: {error.strerror}, twice") from error

    def settle_rename(self) -> bool:
        """Sync the folder for one who died before he did: after a rename, which `unsettled` tells,
        or after the first use, which a second link tells.  Whether there was such a rename.
        """
        folder, unsettled = os.path.dirname(self.real), os.path.join(self.side, "unsettled")
        renamed = is_there(unsettled) and is_folder(self.side)
        if renamed:
            sync_folder(folder)
            unlink_if_there(unsettled)
        if self._lock.seen.st_nlink > 1:
            sync_path(folder)
            self._sweep(folder)
        return renamed

    # --- all of it

    def replace(self, pieces: "Iterable[Piece]", seen: os.stat_result) -> None:
        """Put a new file made of `pieces` in the place of the one that was read as `seen`.

        Mode, owner, group and attributes stay.  Changed, with nothing done, when it is not as seen.
        """
        folder = os.path.dirname(self.real)
        if seen.st_nlink > 1:
            self.settle_rename()  # of a first use that was killed, perhaps
        if os.fstat(self.fd).st_nlink > 1:
            raise QueueError(
                f"{self.path}: has another hard link, which a rename would cut off; remove it first"
            )
        temporary, fd, renamed = self._temporary(self.real), -1, False
        try:
            self._sweep(folder)
            fd = self._lock.make(temporary)
            copy_attributes(self.fd, fd)
            self._keep_owner(fd, seen)
            self.write(pieces, fd)
            os.fsync(fd)
            if not try_lock(fd):
                raise Changed(f"{self.path}: somebody locked our neighbour; nothing was changed")
            if stamp_of(os.stat(self.path)) != stamp_of(seen):
                raise Changed(f"{self.path}: was written without the lock; nothing was changed")
            unsettled = os.path.join(self.make_side(), "unsettled")
            os.close(make(unsettled, os.O_WRONLY, self.real))
            os.rename(temporary, self.real)
            renamed = True
            fd = self._lock.replaced_by(fd)
        except BaseException as error:
            self._lock.coming = -1
            if fd not in (-1, self.fd):
                close_quietly(fd)
            if not renamed and is_there(temporary):
                os.unlink(temporary)
            if isinstance(error, PermissionError):
                text = "an edit writes a neighbour of the queue file in this folder and renames it"
                raise QueueError(f"{folder}: {error.strerror}: {text}; adding does not") from error
            if isinstance(error, OSError):
                raise NotStored(f"{self.path}: not changed: {reason(error)}") from error
            raise
        try:
            sync_folder(folder)
            unlink_if_there(unsettled)
        except OSError as error:
            raise NotStored(
                f"{self.path}: changed, but not known to be on the disk: {error.strerror}"
            ) from error

    def write(self, pieces: "Iterable[Piece]", target: int) -> None:
        """Write pieces of the present file and new bytes to another file."""
        waiting: list[bytes] = []
        size = 0
        for piece in pieces:
            if not isinstance(piece, tuple):
                waiting.append(piece)
                size += len(piece)
            elif piece[1] - piece[0] < 1 << 16:
                waiting.append(os.pread(self.fd, piece[1] - piece[0], piece[0]))
                size += piece[1] - piece[0]
            else:
                write_all(target, b"".join(waiting))
                waiting, size = [], 0
                copy_range(self.fd, target, *piece)
            if size >= BLOCK:
                write_all(target, b"".join(waiting))
                waiting, size = [], 0
        write_all(target, b"".join(waiting))

    def _keep_owner(self, fd: int, seen: os.stat_result) -> None:
        if dress(fd, seen):
            return
        if os.fstat(fd).st_gid != seen.st_gid or not seen.st_mode & 0o020:
            raise QueueError(
                f"{self.path}: belongs to user {seen.st_uid}, whom an edit by user {os.geteuid()} "
                "would lock out; run the worker as that user, or share the file by its group"
            )
        if not self._warned:
            from .log import warn

            self._warned = True
            text = "%s: belonged to user %d, from now on to %d; its group is kept"
            warn(text, self.path, seen.st_uid, os.geteuid())

    def _sweep(self, folder: str) -> None:
        """Remove what an edit left that was killed; only who holds the lock makes such files."""
        start = f".{os.path.basename(self.real)}."
        for name in os.listdir(folder):
            pid, _, chance = name[len(start) : -4].partition("-")
            ours = name.startswith(start) and name.endswith(".tmp")
            if ours and pid.isdigit() and len(chance) == 8:
                unlink(os.path.join(folder, name))

    # --- beside it

    def make_side(self, *names: str) -> str:
        """Make the side folder, and one in it, as open as the queue file is; return the path.

        The name of that one is synced in any case: who made it may have died before he did.
        """
        path = self.side
        for name in ("", *names):
            path = os.path.join(path, name) if name else path
            made = not is_folder(path)
            if made:
                os.mkdir(path, 0o700)
                dress_folder(path, os.stat(self.real))
            if made or name:
                sync_folder(os.path.dirname(path))
        return path

    def workers(self) -> list[str]:
        """Return the names in the folder of the workers, [] when there is none (any more)."""
        try:
            path = os.path.join(self.side, "workers")
            return os.listdir(path) if is_folder(self.side) and is_folder(path) else []
        except FileNotFoundError:
            return []


def unhurried(body: "Callable[[], list[Job]]") -> "list[Job]":
    """Return what an edit returns; when somebody wrote without the lock meanwhile, start again."""
    for _ in range(3):
        try:
            return body()
        except Changed:
            continue
    return body()
