"""The lock of one queue file: two kernel locks held at once.

The neighbour `queue.tsv.lock` can be taken by a shell too; the inode of the queue file itself is
locked as well, so that a deleted lock file breaks nothing.  Both are flock: the kernel frees them
when a process dies.  Whoever waited looks the path up again, since the file may have been replaced
meanwhile.  Both files stay open between calls, the queue's own only while it is small.
"""

import os
import stat
import threading
import time
import weakref

from .beside import is_marked, mark, no_stream, open_lock_file, open_to_append
from .errors import ForeignFile, QueueBusy, QueueError
from .files import close_own, close_quietly, holder_of, identity, inode_of, make_folder, resolve
from .flock import try_lock, unlock
from .mount import refuse_network_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KEPT = 64  # queues whose files are held open between calls
_SMALL = 8 << 20  # bytes of a file that may stay on the disk when it was replaced: it is open here
_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()
_open: "weakref.WeakKeyDictionary[Lock, None]" = weakref.WeakKeyDictionary()  # the oldest first
_turns: "weakref.WeakValueDictionary[str, _Turn]" = weakref.WeakValueDictionary()
_guard = threading.RLock()  # of `_turns`, and of what no other thread may fork in the middle of
_inside: set[int] = set()  # the threads that hold a lock, or are taking or freeing it


def _after_fork_in_child() -> None:
    for lock in _locks:
        lock.close()  # never unlock here: the kernel's locks are the parent's
        lock._turn = None  # a thread that is not in the child may hold its mutex
    _open.clear()
    _turns.clear()
    _inside.clear()
    _guard.release()


os.register_at_fork(
    before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork_in_child
)


def in_a_lock(thread: int) -> bool:
    """Whether a thread is where an exception thrown in from outside could leave a lock held."""
    return thread in _inside


class Undisturbed:
    """`with Undisturbed():` no exception is thrown in from outside; one comes afterwards.

    Only for what is done within a second or two, and takes no queue's lock.
    """

    def __enter__(self) -> None:
        _inside.add(threading.get_ident())

    def __exit__(self, *error: object) -> None:
        _inside.discard(threading.get_ident())


class _Turn:
    """Whose turn it is among the threads of this process, whatever name they have for the file."""

    def __init__(self, real: str) -> None:
        self.real = real
        self.mutex = threading.RLock()
        self.owner = 0  # the thread that has it


class Lock:
    """Who may write one queue file.  While it is taken, `fd` is the file, open for appending."""

    def __init__(self, path: str) -> None:
        self.path = path  # as given, absolute; `real` has every link resolved
        self.fd = self._neighbour = -1
        self._file: tuple[int, int] | None = None  # its device and inode
        self.coming = -1  # the file that is to take the place of `fd`
        self.seen: os.stat_result  # of the file, when the lock was taken
        self._own: tuple[int, int] | None = None  # of the neighbour
        self._kept, self._mark = -1, -1  # the file while the lock is not taken, and its mark
        self._pid = 0  # the process that has opened what is open
        self._turn: _Turn | None = None
        self._holder: weakref.ref[Any] | None = None  # who is to release it
        self._mount_is_fine = False
        self._waited = 0.0
        self.real = resolve(path)
        _locks.add(self)

    def close(self) -> None:
        """Close what is open, without unlocking: in a forked child, or when nobody holds it."""
        neighbour, kept, *files = self._neighbour, self._kept, self.fd, self.coming
        self._neighbour = self._kept = self.fd = self.coming = -1
        close_own(neighbour, self._own)
        close_own(kept, self._file)
        for fd in files:
            if fd >= 0:
                close_quietly(fd)

    __del__ = close

    def close_if_idle(self) -> bool:
        """Close what is open, unless it is in use."""
        turn = _turns.get(self.real)
        if turn is None or not turn.mutex.acquire(blocking=False):
            return False
        try:
            if not turn.owner or self.fd < 0:  # this thread may hold it by another Lock
                self.close()
            return self._neighbour < 0
        finally:
            turn.mutex.release()

    def is_mine(self) -> bool:
        """Whether this thread holds the lock, by whatever name."""
        turn = self._turn or _turns.get(self.real)
        return turn is not None and turn.owner == threading.get_ident()

    def take(
        self, timeout: float, create: "Callable[[str], None] | None" = None, holder: object = None
    ) -> bool:
        """Take the lock and open the file; without one call `create`, or return False, unlocked.

        QueueBusy after `timeout` seconds.  The caller sees to it that this thread does not hold it.
        A `holder` that is gone without a release was cut short by a signal handler: it is released.
        """
        me, taken = threading.get_ident(), False
        turn = self._turn
        if turn is None or turn.real != self.real:
            with _guard:
                turn = self._turn = _turns.setdefault(self.real, _Turn(self.real))
        self._waited = 0.0
        try:
            _inside.add(me)
            if not turn.mutex.acquire(blocking=False):
                began = time.clock_gettime(time.CLOCK_MONOTONIC)
                if not turn.mutex.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
                    raise QueueBusy(f"{self.path}: another thread here held it for {timeout} s")
                self._waited = time.clock_gettime(time.CLOCK_MONOTONIC) - began
            turn.owner = me
            if holder is not None:
                self._holder = weakref.ref(holder, self._abandoned)
            taken = self._take(timeout, create)
            return taken
        finally:
            if turn.owner == me:
                if not taken:
                    self.release()
            else:  # no turn came, or a signal handler raised as it did
                try:
                    turn.mutex.release()
                except RuntimeError:
                    pass  # it is not ours
                finally:
                    _inside.discard(me)

    def release(self, *, lent: bool = True) -> None:
        """Let the next one in; without effect when this thread does not hold the lock.

        `lent`: the caller's code has run meanwhile, and may have closed what is ours.  Otherwise
        the file is kept open for the next call.
        """
        turn, me = self._turn, threading.get_ident()
        if turn is None or turn.owner != me:
            return
        self._holder = None
        try:
            if lent or not self._keep():
                self.replaced_by(-1)
            mine = self._neighbour >= 0 and (not lent or identity(self._neighbour) == self._own)
            if mine and not unlock(self._neighbour):
                self.close()
        except BaseException:  # out of a signal handler
            self.close()
            raise
        finally:
            turn.owner = 0
            try:
                turn.mutex.release()
            finally:
                _inside.discard(me)

    def _keep(self) -> bool:
        """Unlock the file and keep it open; False where it is not to stay open."""
        if self._neighbour < 0 or self.seen.st_size > _SMALL or not unlock(self.fd):
            return False
        self._mark = mark(self.fd)
        if self._mark >= 0:
            self.fd, self._kept = -1, self.fd
        return self.fd < 0

    def make(self, path: str) -> int:
        """Make the file that is to take the place of the present one: no child keeps it open."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with _guard:
            self.coming = no_stream(os.open(path, flags, 0o600))
        return self.coming

    def _abandoned(self, holder: "weakref.ref[Any]") -> None:
        if holder is self._holder:
            self.release()

    def replaced_by(self, fd: int) -> int:
        """Go on with a file that was just renamed into place, and locked before; return -1."""
        old = self.fd
        try:
            # first: its number may be another file's once it is closed
            self.fd, self.coming = fd, -1
            if old >= 0:
                unlock(old)
        finally:
            try:
                if old >= 0:
                    os.close(old)  # which frees it too, should a signal handler raise before
            except OSError:
                pass  # it is closed all the same, and all that had to be stored is synced by now
        return -1

    def _take(self, timeout: float, create: "Callable[[str], None] | None") -> bool:
        if os.name == "nt":
            text = "the queue needs flock and rename as Linux and macOS have them, not Windows"
            raise QueueError(text)
        if self._pid != os.getpid():  # forked by code in C, perhaps: no hook of Python sees that
            self.close()
            self._pid = os.getpid()
        if self._kept >= 0 and is_marked(self._kept, self._mark):
            self.fd = self._kept
        self._kept = -1
        while True:
            if self._neighbour < 0 and not self._look_first(make=create is not None):
                return False
            if self._take_neighbour(timeout):
                if self.fd < 0 and not self._open():
                    if create is None:
                        return False
                    self._still_there()  # it may be the link that is gone: then it means itself
                    create(self.real)
                    continue
                self._wait_for(self.fd, timeout)
                if self._still_there():
                    return True
            self.replaced_by(-1)

    def _look_first(self, *, make: bool) -> bool:
        """Open the file first: beside a foreign one nothing is left.  False: there is none."""
        if not self._open():
            if not make:
                return False
            make_folder(os.path.dirname(self.real))
        if not self._mount_is_fine:
            refuse_network_mount(self.real)
            self._mount_is_fine = True
        return True

    def _open(self) -> bool:
        """Open the file; False when there is none."""
        with _guard:
            self.fd = open_to_append(self.path)
        if self.fd < 0:
            return False
        st = os.fstat(self.fd)
        if not stat.S_ISREG(st.st_mode):
            raise ForeignFile(f"{self.path}: is not a regular file")
        self._file = st.st_dev, st.st_ino
        return True

    def _still_there(self) -> bool:
        """Whether the locked file is still what the path means: not replaced, no other link."""
        try:
            self.seen = now = os.stat(self.path, follow_symlinks=self.path != self.real)
            same = (now.st_dev, now.st_ino) == self._file
        except FileNotFoundError:
            same = False
        if same and (self.path == self.real or inode_of(self.real) == now.st_ino):
            return True
        if (real := resolve(self.path)) != self.real:  # another target has another neighbour
            self.real, self._mount_is_fine = real, False
            neighbour, self._neighbour = self._neighbour, -1
            close_own(neighbour, self._own)
        return False

    def _take_neighbour(self, timeout: float) -> bool:
        """Lock the neighbour, where there can be one; False when that was deleted, or closed."""
        if self._neighbour < 0:
            with _guard:
                self._neighbour = open_lock_file(self.real, self.fd, self.path)
                self._own = identity(self._neighbour)
            if self._neighbour < 0:
                return True  # a folder that is not ours to write: the inode's lock alone serves
            _make_room(self)
        before = self._waited
        if self._has_neighbour():
            self._wait_for(self._neighbour, timeout)
            if self._waited == before or self._has_neighbour():
                return True
        close_own(self._neighbour, self._own)
        self._neighbour = -1
        return False

    def _has_neighbour(self) -> bool:
        """Whether our neighbour is there: neither deleted by hand, nor closed by a handler."""
        try:
            st = os.fstat(self._neighbour)
        except OSError:
            return False
        return st.st_nlink > 0 and (st.st_dev, st.st_ino) == self._own

    def _wait_for(self, fd: int, timeout: float) -> None:
        """Wait for the kernel's lock, counting sleeps: a test may have frozen the clock."""
        pause, take = 0.0002, try_lock
        while True:
            try:
                if take(fd):
                    return
            except OSError as error:
                text = f"{self.path}: this file system gives no lock: {error.strerror}"
                raise QueueError(text) from error
            if self._waited >= timeout:
                raise QueueBusy(f"{self.path}: locked for {timeout} s{holder_of(fd)}")
            nap = pause * (0.5 + (time.perf_counter_ns() >> 8 & 255) / 256)
            time.sleep(nap)
            self._waited += nap
            pause, take = min(pause * 2, 0.005), _try_again


def _make_room(newest: Lock) -> None:
    """Close the lock files of queues that this process has not used for long."""
    _open.pop(newest, None)
    _open[newest] = None
    for lock in list(_open)[: max(0, len(_open) - _KEPT)]:
        if lock.close_if_idle():
            _open.pop(lock, None)


def _try_again(fd: int) -> bool:
    """Take the lock if it is free now, by filelock."""
    with _guard:  # a child that is forked during the import could never import it
        from filelock import lock_descriptor
    return lock_descriptor(fd, blocking=False)
