"""The files beside the queue: made as open as it is, and opened only where they are files of ours.

Others may write in that folder too.  A link, a pipe or a folder that stands at one of our names is
never followed, waited for or written to.
"""

import errno
import itertools
import os
import stat

from .errors import ForeignFile, QueueError
from .files import DENIED, dress, give, read_header, sync, write_all

_marks = itertools.count((1 << 30) + int.from_bytes(os.urandom(3), "big"))
_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR)


class NoFile(OSError):
    """A link, a folder, a pipe or a device stands where a file of ours should be."""


def open_regular(name: str, flags: int, *, names: int = 1 << 30) -> int:
    """Open a file; NoFile, and no waiting, when it is none, a link, or has more names than that."""
    try:
        fd = no_stream(os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise NoFile(error.errno, "is no regular file", name) from error
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode) or st.st_nlink > names:
        os.close(fd)
        what = "has another hard link" if stat.S_ISREG(st.st_mode) else "is no regular file"
        raise NoFile(errno.EINVAL, what, name)
    return fd


def open_lock_file(real: str, queue: int, path: str) -> int:
    """Open the lock file of a queue, -1 where the folder is not ours to write.

    `queue` is the queue file where it is open: beside a file of others nothing is left.
    """
    name = real + ".lock"
    for mode in (os.O_RDWR, os.O_RDONLY):
        try:
            return open_regular(name, mode)
        except FileNotFoundError:
            if queue >= 0:
                if not stat.S_ISREG(os.fstat(queue).st_mode):
                    raise ForeignFile(f"{path}: is not a regular file") from None
                read_header(queue, path)
            try:
                return make(name, os.O_RDWR, real)
            except OSError as error:
                if error.errno in DENIED:
                    return -1
                raise QueueError(f"{name}: cannot be made: {error.strerror}") from error
        except OSError as error:
            if error.errno not in DENIED:
                raise QueueError(f"{name}: cannot be opened: {error.strerror}") from error
    return -1


def open_to_append(path: str) -> int:
    """Open a queue file, or what a link to it means, to add to it; -1 when there is none."""
    try:
        return no_stream(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))
    except FileNotFoundError:
        return -1
    except OSError as error:
        if os.path.isdir(path):
            raise ForeignFile(f"{path}: is a folder, not a queue") from None
        raise QueueError(f"{path}: cannot be opened: {error.strerror}") from error


def mark(fd: int) -> int:
    """Let a descriptor that is not in use stand where no other does; -1 where that cannot be.

    So it is known again.  Device and inode do not tell it from one that others opened on the file.
    """
    try:
        return os.lseek(fd, next(_marks), os.SEEK_SET)
    except OSError:
        return -1


def is_marked(fd: int, at: int) -> bool:
    """Whether a descriptor is the one that we marked, and was not closed and given out again."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR) == at
    except OSError:
        return False


def open_queue(path: str) -> int:
    """Open a queue file, or what a link to it means, to read it; ForeignFile when it is no file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ForeignFile(f"{path}: is not a regular file")
    return fd


def make(name: str, flags: int, like: str) -> int:
    """Open `name` for writing; a new file is as open as the file `like`, never wider.

    NoFile where a link stands there, also a hard link: to write there would write elsewhere.
    """
    for _ in range(100):
        try:
            fd = open_regular(name, flags & ~os.O_TRUNC, names=1)
            if flags & os.O_TRUNC:
                os.ftruncate(fd, 0)
            return fd
        except FileNotFoundError:
            pass
        try:
            new = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = no_stream(os.open(name, flags | new, 0o600))
            break
        except FileExistsError:
            continue
    else:
        raise FileNotFoundError(errno.ENOENT, "appears and goes all the time", name)
    try:
        _dress_like(fd, like)
        return fd
    except BaseException:
        os.close(fd)
        os.unlink(name)
        raise


def note(path: str, data: bytes, like: str, *, durable: bool = False) -> None:
    """Write a small file that is made once, without the lock: a request, a reason."""
    fd = make(path, os.O_WRONLY | os.O_TRUNC, like)
    try:
        try:
            write_all(fd, data)
            if durable:
                sync(fd)
        finally:
            os.close(fd)
    except OSError:
        os.unlink(path)
        raise


def replace(path: str, data: bytes, like: str, *, durable: bool = True) -> None:
    """Put a small file in the place of an old one, whole or not at all; under the queue's lock."""
    new = path + ".new"
    try:
        fd = make(new, os.O_WRONLY | os.O_TRUNC, like)
        try:
            write_all(fd, data)
            if durable:
                sync(fd)
        finally:
            os.close(fd)
        os.rename(new, path)
    except OSError:
        unlink(new)
        raise


def _dress_like(fd: int, like: str) -> None:
    try:
        st = os.stat(like)
    except FileNotFoundError:
        umask = os.umask(0o077)
        os.umask(umask)
        os.fchmod(fd, 0o660 & ~umask)
    else:
        dress(fd, st)


def dress_folder(path: str, like: os.stat_result) -> None:
    """Make a new folder as open as the file that it belongs to."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except PermissionError:  # a umask that forbids everything
        os.chmod(path, 0o700)
        fd = os.open(path, flags)
    try:
        mine = give(fd, like)
        mode = (like if mine.st_gid == like.st_gid else mine).st_mode & 0o666
        os.fchmod(fd, 0o700 | mode | (mode & 0o444) >> 2)
    finally:
        os.close(fd)


def is_folder(path: str) -> bool:
    """Whether a folder is there; QueueError when a link or a file stands in its place."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(mode):
        raise QueueError(f"{path}: is no folder; what stands there was not touched")
    return True


def unlink(path: str) -> None:
    """Remove a file that may be missing; a folder that somebody has put there stays."""
    try:
        os.unlink(path)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        return


def no_stream(fd: int) -> int:
    """Return a descriptor above the three standard ones.

    Where a handler has closed those, its next print would go into our file.
    """
    if fd > 2:
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
