"""Every change that processes make in a folder, in order and with its data, written to one log.

In a forked child the functions of `os` are wrapped.  A call under the folder is made and then added
to the log, which is a file elsewhere: processes that come one after the other, and are killed in
between, share it.  Nothing here knows the package; what went past these functions shows when the
replay of the log is compared with the real folder.
"""

import fcntl
import os
import pickle
import signal
import stat
import threading

CALLS = (
    "open write pwrite copy_file_range ftruncate posix_fallocate fsync fdatasync mkdir rmdir link"
    " unlink rename"
).split()


class Recorder:
    """Wraps `os` in this process for good; the call number `kill_at` is its death instead."""

    def __init__(self, root, log, kill_at=0):
        self.root = os.path.realpath(root) + "/"
        self.real = {name: getattr(os, name) for name in CALLS if hasattr(os, name)}
        self.mutex = threading.RLock()
        self.kill_at = kill_at
        self.calls = 0
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.device = os.stat(self.root).st_dev
        self.known = {os.stat(path).st_ino for path in walk(self.root)}
        for name, real in self.real.items():
            setattr(os, name, self._wrap(name, real))

    def mark(self, what, *values):
        """Note that something is so from here on: "told" an id, …"""
        with self.mutex:
            self._note("mark", what, *values)

    def _note(self, *entry):
        self.real["write"](self.log, pickle.dumps(entry))

    def _wrap(self, name, real):
        record = getattr(self, f"_{name}")

        def call(first, *rest, **named):
            ours = self._is_ours(first)
            if not ours:
                return real(first, *rest, **named)
            with self.mutex:
                return record(first, *rest, **named)

        return call

    def _is_ours(self, what):
        if not isinstance(what, int):
            return os.fspath(what).startswith(self.root)
        try:
            st = os.fstat(what)
        except OSError:
            return False
        return st.st_dev == self.device and st.st_ino in self.known

    def _about_to(self):
        self.calls += 1
        if self.calls == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _name(self, path):
        return os.fspath(path)[len(self.root) :]

    def _changed(self, what, fd, *values):
        """Note a change of a file's content, with the time that the file now shows."""
        st = os.fstat(fd)
        self._note(what, st.st_ino, st.st_mtime_ns, *values)

    # --- one of each

    def _open(self, path, flags, mode=0o777, **named):
        there = os.path.lexists(path)
        makes = flags & os.O_CREAT and not there
        cuts = flags & os.O_TRUNC and there and os.path.getsize(path)
        if makes or cuts:
            self._about_to()
        fd = self.real["open"](path, flags, mode, **named)
        inode = os.fstat(fd).st_ino
        self.known.add(inode)
        if makes:
            self._note("create", self._name(path), inode)
        if cuts:
            self._changed("truncate", fd, 0)
        return fd

    def _write(self, fd, data):
        at = _position(fd)
        self._about_to()
        count = self.real["write"](fd, data)
        self._changed("write", fd, at, bytes(data)[:count])
        return count

    def _pwrite(self, fd, data, at):
        self._about_to()
        count = self.real["pwrite"](fd, data, at)
        self._changed("write", fd, at, bytes(data)[:count])
        return count

    def _copy_file_range(self, source, target, count, start):
        at = _position(target)
        self._about_to()
        count = self.real["copy_file_range"](source, target, count, start)
        self._changed("write", target, at, os.pread(source, count, start))
        return count

    def _ftruncate(self, fd, size):
        self._about_to()
        self.real["ftruncate"](fd, size)
        self._changed("truncate", fd, size)

    def _posix_fallocate(self, fd, at, count):
        self._about_to()
        self.real["posix_fallocate"](fd, at, count)
        self._changed("allocate", fd, at + count)

    def _fsync(self, fd):
        self._about_to()
        self.real["fsync"](fd)
        self._note("fsync", os.fstat(fd).st_ino)

    def _fdatasync(self, fd):
        self._about_to()
        self.real["fdatasync"](fd)
        self._note("fdatasync", os.fstat(fd).st_ino)

    def _mkdir(self, path, *mode):
        self._about_to()
        self.real["mkdir"](path, *mode)
        inode = os.stat(path).st_ino
        self.known.add(inode)
        self._note("mkdir", self._name(path), inode)

    def _rmdir(self, path):
        self._about_to()
        self.real["rmdir"](path)
        self._note("unlink", self._name(path))

    def _link(self, source, target):
        self._about_to()
        self.real["link"](source, target)
        self._note("link", self._name(source), self._name(target))

    def _unlink(self, path):
        self._about_to()
        self.real["unlink"](path)
        self._note("unlink", self._name(path))

    def _rename(self, source, target):
        self._about_to()
        self.real["rename"](source, target)
        self._note("rename", self._name(source), self._name(target))


def _position(fd):
    """Return where the next write of a descriptor begins."""
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        return os.fstat(fd).st_size
    return os.lseek(fd, 0, os.SEEK_CUR)


def walk(root):
    """Yield the path of a folder and of all that is in it."""
    yield root
    for folder, folders, files in os.walk(root):
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def snapshot(root):
    """Return what is in a folder now, as log entries that make it."""
    entries, names = [], {}
    for path in walk(root):
        st, name = os.lstat(path), os.path.relpath(path, root)
        if stat.S_ISDIR(st.st_mode):
            entries.append(("mkdir", name, st.st_ino))
            continue
        if st.st_ino in names:
            entries.append(("link", names[st.st_ino], name))
            continue
        names[st.st_ino] = name
        entries.append(("create", name, st.st_ino))
        with open(path, "rb") as file:
            entries.append(("write", st.st_ino, st.st_mtime_ns, 0, file.read()))
    return entries


def read(log):
    """Return the entries of a log in order."""
    entries = []
    with open(log, "rb") as file:
        while True:
            try:
                entries.append(pickle.load(file))
            except EOFError:
                return entries
