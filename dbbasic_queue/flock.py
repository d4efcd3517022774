"""The kernel's lock on an open file: the one that flock(1) and filelock take.

It is asked for here as filelock asks for it.  The import of filelock takes longer than all else
that a script does to add a job, so it is left to whoever has to wait (see `lock`).
"""

import errno

try:
    import fcntl
except ImportError:  # Windows: who asks for a lock there is told
    pass

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


def try_lock(fd: int) -> bool:
    """Take the lock if it is free; OSError where the file system gives none."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _BUSY:
            raise
        return False
    return True


def unlock(fd: int) -> bool:
    """Free the lock; False when that is an error, and only closing the file will do.

    To close it is not enough where it can be helped: a child just forked may have a copy.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError:
        return False
    return True
