"""What the rooms above ask of the operating system, each piece in one small function."""

import errno
import os
import sys

from .errors import QueueError
from .tsv import HEADER, Header, parse_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1 << 20
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
MOUNTS = "/proc/self/mountinfo"
NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs ceph glusterfs lustre afs beegfs gpfs ocfs2 gfs2 pvfs2 coda davfs"
    " fuse.ceph fuse.glusterfs fuse.sshfs fuse.s3fs fakeowner".split()
)
UNUSUAL = ("9p", "virtiofs", "fuse")  # flock may be local to one side: two processes are asked
MOUNTED = (
    "this file alone is mounted here, and an edit puts a new file in its place;"
    " mount its folder instead"
)
_DISK_FAILS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
_NO_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


def identity(fd: int) -> tuple[int, int] | None:
    """Return what tells an open file from any other, None when the descriptor is not open."""
    try:
        st = os.fstat(fd)
    except OSError:
        return None
    return st.st_dev, st.st_ino


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


def write_all(fd: int, data: bytes) -> None:
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
    """Yield (offset, bytes) of about a MiB of whole lines; an unended last one is left out."""
    rest = b""
    while stop is None or start + len(rest) < stop:
        want = BLOCK if stop is None else min(BLOCK, stop - start - len(rest))
        block = read_at(fd, want, start + len(rest))
        if not block:
            return
        block = rest + block if rest else block
        cut = block.rfind(b"\n") + 1
        if cut:
            yield start, block[:cut] if cut < len(block) else block
            start += cut
        rest = block[cut:]


# --- where the file lies


def refuse_network_mount(path: str) -> None:
    """Raise QueueError where flock does not exclude every other process that can see the file."""
    kind = mount_type(path)
    if kind in NETWORK:
        raise QueueError(
            f"{path}: is on a network file system ({kind}), whose locks cannot be relied on; "
            "keep the queue on a local disk"
        )
    if kind.startswith(UNUSUAL) and not flock_excludes(os.path.dirname(path)):
        raise QueueError(
            f"{path}: on this {kind} mount a lock of one process does not keep out another"
        )


def mount_type(path: str) -> str:
    """Return the type of the file system that holds a path, "" where nobody tells."""
    folder = os.fsencode(path if os.path.isdir(path) else os.path.dirname(path)) + b"/"
    found = [(len(at), kind) for at, kind in reversed(_mounts()) if folder.startswith(at + b"/")]
    return max(found, key=lambda one: one[0])[1] if found else ""


def is_mount_point(path: str) -> bool:
    """Whether something is mounted at just this path."""
    return os.fsencode(path) in [at for at, _ in _mounts()]


def _mounts() -> list[tuple[bytes, str]]:
    """Return where something is mounted, and of what type, in the order of mounting."""
    try:
        with open(MOUNTS, "rb") as mounts:
            lines = mounts.read().split(b"\n")
    except OSError:
        return []
    parted = [line.partition(b" - ") for line in lines if b" - " in line]
    return [
        (
            fields.split(b" ")[4].replace(b"\\040", b" ").rstrip(b"/"),
            rest.split(b" ")[0].decode(errors="replace"),
        )
        for fields, _, rest in parted
        if fields.count(b" ") >= 4
    ]


def flock_excludes(folder: str) -> bool:
    """Ask with a second process whether flock in this folder keeps it out."""
    import subprocess

    from filelock import lock_descriptor

    name = os.path.join(folder, f".flock-{os.getpid()}-{os.urandom(4).hex()}.tmp")
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    ask = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR), 6)"  # EX | NB
    try:
        lock_descriptor(fd, blocking=False)
        asked = subprocess.run([sys.executable, "-c", ask, name], capture_output=True, check=False)
        return b"BlockingIOError" in asked.stderr
    finally:
        os.close(fd)
        os.unlink(name)
