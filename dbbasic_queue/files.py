"""What the rooms above ask of the operating system, each piece in one small function."""

import errno
import os
import sys

from .errors import QueueError
from .tsv import HEADER, Header, parse_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1 << 18  # of a file at a time: it stays in the cache of the processor
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
MOUNTED = (
    "this file alone is mounted here, and an edit puts a new file in its place;"
    " mount its folder instead"
)
_DISK_FAILS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
_NO_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


def usual_path() -> str:
    """Return the path of the default queue: $DBBASIC_QUEUE, else data/queue.tsv here."""
    return os.environ.get("DBBASIC_QUEUE") or "data/queue.tsv"


def identity(fd: int) -> tuple[int, int] | None:
    """Return what tells an open file from any other, None when the descriptor is not open."""
    try:
        st = os.fstat(fd)
    except OSError:
        return None
    return st.st_dev, st.st_ino


def inode_of(path: str) -> int:
    """Return the number of what stands at a path, a link itself; -1 when nothing does."""
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return -1


def stamp_of(st: os.stat_result) -> tuple[int, int, int]:
    """Return what changes whenever a file does."""
    return st.st_ino, st.st_size, st.st_mtime_ns


def close_own(fd: int, own: tuple[int, int] | None) -> None:
    """Close a descriptor, unless a handler has closed it and its number is another file's now."""
    if fd >= 0 and own is not None and identity(fd) == own:
        close_quietly(fd)


def close_quietly(fd: int) -> None:
    """Close a file that is read, or synced: an error says nothing, it is closed all the same."""
    try:
        os.close(fd)
    except OSError:
        return


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write all of `data`, or raise: after a short write the next one tells the reason."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def sync(fd: int) -> None:
    """Return when the data of `fd` is on the disk, as far as the drive tells the truth."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def sync_folder(path: str) -> None:
    """Return when the names in a folder are on the disk."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync a folder
            raise
    finally:
        os.close(fd)


def sync_path(path: str) -> None:
    """Sync a folder and all above it on its file system: any of them may have been made just now,
    and by somebody who died before he synced it.
    """
    device = os.stat(path).st_dev
    while os.stat(path).st_dev == device:
        try:
            sync_folder(path)
        except PermissionError:
            pass  # not ours to read, and so not made by us
        if path == os.path.dirname(path):
            return
        path = os.path.dirname(path)


def unlink_if_there(path: str) -> None:
    """Remove a file that somebody else may have removed already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def copy_range(source: int, target: int, start: int, stop: int) -> None:
    """Append the bytes start..stop of one file to another, inside the kernel where it can."""
    while start < stop and hasattr(os, "copy_file_range"):
        try:
            copied = os.copy_file_range(source, target, stop - start, start)
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise
            break
        if not copied:
            break
        start += copied
    while start < stop:
        block = os.pread(source, min(BLOCK, stop - start), start)
        if not block:
            raise QueueError("the queue file was cut short while it was read; nothing was changed")
        write_all(target, block)
        start += len(block)


def dress(fd: int, like: os.stat_result) -> bool:
    """Give a new file mode, owner and group of another, never wider; True when all took."""
    mine = give(fd, like)
    mode = like.st_mode & 0o7777
    os.fchmod(fd, mode if mine.st_gid == like.st_gid else mode & ~0o070)
    return (mine.st_uid, mine.st_gid) == (like.st_uid, like.st_gid)


def give(fd: int, like: os.stat_result) -> os.stat_result:
    """Give a new file owner and group of another, as far as we may; return what it is then."""
    mine = os.fstat(fd)
    if (mine.st_uid, mine.st_gid) == (like.st_uid, like.st_gid):
        return mine
    for owner in (like.st_uid, -1):
        try:
            os.fchown(fd, owner, like.st_gid)
            break
        except PermissionError:
            continue
    return os.fstat(fd)


def resolve(path: str) -> str:
    """Return a path without its links; QueueError when the disk fails: nothing is guessed."""
    try:
        return os.path.realpath(path, strict=True)
    except OSError as error:
        if error.errno == errno.EIO:
            raise QueueError(f"{path}: cannot be looked up: {error.strerror}") from error
    return os.path.realpath(path)  # of what is not there yet


def is_there(path: str) -> bool:
    """Whether there is such a file; OSError, unlike os.path.exists, where the disk fails."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def make_folder(path: str) -> None:
    """Make the folder of a queue where it is missing; whoever makes the file syncs it."""
    if not os.path.isdir(path):
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise QueueError(f"{path}: cannot be made: {error.strerror}") from error


def reason(error: OSError) -> str:
    """Return why a file could not be replaced, in words that help."""
    return MOUNTED if error.errno == errno.EBUSY else str(error.strerror)


def copy_attributes(source: int, target: int) -> None:
    """Copy access lists, labels and user attributes, as far as we may, and drop inherited ones."""
    if not hasattr(os, "listxattr"):
        return
    try:
        names = os.listxattr(source)
        inherited = set(os.listxattr(target)).difference(names)
    except OSError as error:
        if error.errno in _DISK_FAILS:
            raise
        return
    for name in inherited:
        if name.startswith("system.posix_acl"):
            os.removexattr(target, name)
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno in _DISK_FAILS:
                raise


def holder_of(fd: int) -> str:
    """Name the process that holds a lock, where the kernel tells."""
    inode = str(os.fstat(fd).st_ino)
    try:
        with open("/proc/locks") as lines:
            for line in lines:
                fields = line.split()
                if "FLOCK" in fields and fields[-3].rpartition(":")[2] == inode:
                    pid = fields[-4]
                    with open(f"/proc/{pid}/comm") as comm:
                        return f" by process {pid} ({comm.read().strip()})"
    except (OSError, IndexError):
        return ""
    return ""


# --- reading


def read_header(fd: int, path: str) -> Header | None:
    """Return the file's header, None when there is none yet: empty, or torn when written."""
    start = read_at(fd, 4096, 0)
    while b"\n" not in start:
        more = read_at(fd, BLOCK, len(start))
        if not more:
            break
        start += more
    line = start.partition(b"\n")[0]
    if len(start) <= len(HEADER.line) + 1 and HEADER.line.startswith(start.rstrip(b"\0")):
        return None  # torn, or zeros: what a power cut may leave of a header in the making
    return parse_header(line, path)


def read_at(fd: int, size: int, at: int) -> bytes:
    """Read from an offset; QueueError with the path when the disk fails."""
    try:
        return os.pread(fd, size, at)
    except OSError as error:
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            path = "the queue file"
        raise QueueError(f"{path}: cannot be read: {error.strerror}") from error


def read_all(fd: int) -> bytes:
    """Return all bytes of a file."""
    parts, at = [], 0
    while block := os.pread(fd, 1 << 20, at):
        parts.append(block)
        at += len(block)
    return b"".join(parts)


def last_line(fd: int, size: int) -> bytes:
    """Return the last line of a file with its newline, if it has one."""
    reach = 1024
    while True:
        start = max(0, size - reach)
        block = read_at(fd, size - start, start)
        cut = block.rfind(b"\n", 0, -1)
        if cut >= 0 or not start:
            return block[cut + 1 :]
        reach *= 16


def blocks(fd: int, start: int, stop: int | None = None) -> "Iterator[tuple[int, bytes]]":
    """Yield (offset, bytes) of about a BLOCK of whole lines; an unended last one is left out."""
    want, had = BLOCK, 0
    while stop is None or start < stop:
        block = read_at(fd, want if stop is None else min(want, stop - start), start)
        cut = block.rfind(b"\n") + 1
        if cut:
            yield start, block[:cut]
            start, want, had = start + cut, BLOCK, 0
        elif len(block) > had:  # a line that is longer
            want, had = want * 4, len(block)
        else:
            return
