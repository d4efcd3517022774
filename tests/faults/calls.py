"""Let one system call of a process go wrong, or do something in its place; seen from Python.

A child is forked, does one thing and ends.  In it the functions of `os` that the package calls are
wrapped: at the N-th call the process is killed, the call raises, or a function of the test runs.
That needs no compiler and works on every system; `campaign` meets the calls below Python, all of
them, in every way.
"""

import errno
import fcntl
import json
import os
import selectors
import signal
import sys
import time
from typing import NamedTuple

PACKAGES = ("dbbasic_queue", "filelock", "os")  # calls from here; `os` for its own makedirs
WRITES = {"write", "pwrite", "copy_file_range"}
SYNCS = {"fsync", "fdatasync"}
NAMES = {"open", "mkdir", "rmdir", "link", "unlink", "rename"}
SIZES = {"ftruncate", "posix_fallocate"}
OWNERS = {"chmod", "fchmod", "chown", "fchown", "setxattr"}
READS = {"pread", "read", "listdir"}
LOCKS = {"flock", "close", "stat", "fstat"}
NEED_ROOM = {"write", "copy_file_range", "posix_fallocate", "mkdir", "link", "rename", "setxattr"}
NEW = os.O_CREAT | os.O_TRUNC
SECONDS = 60  # after which a child counts as hanging

REAL = {
    name: getattr(os, name, None) or getattr(fcntl, name, None)
    for name in WRITES | SYNCS | NAMES | SIZES | OWNERS | READS | LOCKS
}


class Mode(NamedTuple):
    """One way in which a call goes wrong."""

    name: str
    lasting: bool  # also every later call of the kind
    counts: object  # counts(name, args, room) -> whether this mode is for such a call
    strike: object  # strike(real, name, args): what happens in its place
    errno: int = 0  # that it raises
    cut: bool = False  # whether a write may be done in part


def changes(name, args, room):
    """A call that makes a difference to what is on the disk."""
    if name == "open":
        return bool(args[1] & NEW)
    return name in WRITES | SYNCS | NAMES | SIZES | OWNERS


def writes(name, args, room):
    return name in WRITES


def needs_room(name, args, room):
    """A call that a full disk refuses; where room was reserved, a write succeeds all the same."""
    if name == "open":
        return bool(args[1] & os.O_CREAT)
    if name == "pwrite":
        return args[2] + len(args[1]) > room.get(args[0], 0)
    return name in NEED_ROOM


def syncs(name, args, room):
    return name in SYNCS


def die(real=None, name="", args=()):
    os.kill(os.getpid(), signal.SIGKILL)


def finish_and_die(real, name, args):
    real(*args)
    die()


def half(real, name, args):
    """Do half of a write."""
    if name == "copy_file_range":
        source, target, count, *start = args
        return real(source, target, max(1, count // 2), *start)
    fd, data, *at = args
    return real(fd, bytes(data)[: len(data) // 2], *at)


def tear(real, name, args):
    half(real, name, args)
    die()


def no_space(real, name, args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def io_error(real, name, args):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def half_and_no_space(real, name, args):
    half(real, name, args)
    no_space(real, name, args)


no_space.errno = half_and_no_space.errno = errno.ENOSPC
io_error.errno = errno.EIO


def modes():
    """The ways in which a call can go wrong, by name."""
    every = [
        Mode("killed before", False, changes, die),
        Mode("killed in the middle of", False, writes, tear, cut=True),
        Mode("no space from", True, needs_room, no_space, errno.ENOSPC),
        Mode("sync error at", False, syncs, io_error, errno.EIO),
        Mode("sync error from", True, syncs, io_error, errno.EIO),
    ]
    return {mode.name: mode for mode in every}


class Outcome(NamedTuple):
    """How a child ended, and what had gone wrong in it."""

    struck: str  # the call that went wrong and how, "" when there were fewer calls
    killed: bool
    raised: tuple  # class names of the exception from its own to object, () for none
    text: str  # of the exception
    call: str = ""  # the name of the call that went wrong
    errno: int = 0  # that it raised
    lasting: bool = False  # as did all later ones
    cut: bool = False  # whether a write may have been done in part


def attempt(action, mode="killed before", number=0):
    """Run `action` in a forked child in which call `number` of the mode's kind goes wrong.

    Calls count from 1.  A mode is one of `modes()` by name, or a Mode.
    """
    if not isinstance(mode, Mode):
        mode = modes()[mode]
    child = Forked(action, lambda say: _arm(mode, number, say))
    struck = "".join(child.said[:1])
    call = struck.partition("(")[0].rpartition(" ")[2]
    how = mode.errno, mode.lasting, mode.cut
    return Outcome(struck, child.killed, child.raised, child.text, call, *how)


class Forked:
    """A forked child that does `action` after `arm(say)`, and ends.

    With `later` it stays where it is, until `go_on` lets it do that and end.
    """

    def __init__(self, action, arm=lambda say: None, later=None):
        self.said = []  # the lines that it says
        self.raised, self.text = (), ""  # by the action: class names, and the message
        self.killed = False
        self._rest = b""
        self._hear, say = os.pipe()
        wait, self._tell = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                os.close(self._hear)
                os.close(self._tell)
                _act(action, arm, later, say, wait)
            finally:
                os._exit(70)
        os.close(say)
        os.close(wait)
        ended = self._listen(later is not None)
        assert self.killed or ended, f"the child ended by itself: {self.said}"

    def go_on(self):
        """Let it do what it is to do later; return what that raised, "" when nothing did."""
        os.write(self._tell, b".")
        before = self.text
        assert self._listen(stays=False), f"the child ended by itself: {self.said}"
        text, self.text = self.text, before
        return text

    def _listen(self, stays):
        """Hear what it says until an action has ended, and all of it unless it stays; whether the
        action has ended.
        """
        ended = False
        until = time.monotonic() + SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._hear, selectors.EVENT_READ)
            while not (ended and stays):
                if not selector.select(max(0.0, until - time.monotonic())):
                    os.kill(self._pid, signal.SIGKILL)
                    raise AssertionError(f"the child hangs: {self.said}")
                block = os.read(self._hear, 65536)
                if not block:
                    self._bury()
                    return ended
                *lines, self._rest = (self._rest + block).split(b"\n")
                for line in lines:
                    what, _, text = line.decode().partition(" ")
                    if what == "said":
                        self.said.append(text)
                    else:
                        ended = True
                        raised, self.text = json.loads(text)
                        self.raised = self.raised or tuple(raised)
        return True

    def _bury(self):
        os.close(self._hear)
        os.close(self._tell)
        _, status = os.waitpid(self._pid, 0)
        self.killed = os.WIFSIGNALED(status)


def at(name, target, strike):
    """A mode for one kind of call on one file: `strike` is what happens in its place."""

    def counts(called, args, room):
        return called == name and target in names_of(args)

    error = getattr(strike, "errno", 0)
    return Mode(f"{strike.__name__} at", False, counts, strike, error)


def names_of(args):
    """Return the names, without their folders, of the files that a call is about."""
    fds = [f"/proc/self/fd/{arg}" for arg in args[:1] if isinstance(arg, int)]
    paths = [os.readlink(fd) for fd in fds if os.path.lexists(fd)]
    return [
        os.path.basename(path) for path in paths + [arg for arg in args if isinstance(arg, str)]
    ]


def made_by(action):
    """Run `action` in a forked child; return the calls that it made, as "name path [path]"."""
    if not os.path.isdir("/proc/self/fd"):
        import pytest

        pytest.skip("needs /proc, to tell which file a call is about")
    reader, writer = os.pipe()

    def note(name, args, room):
        if name in LOCKS:
            return False
        REAL["write"](writer, f"{name} {' '.join(names_of(args))}\n".encode())
        return False

    try:
        outcome = attempt(action, Mode("noted", False, note, die), 1)
        os.close(writer)
        assert not outcome.raised, outcome
        with os.fdopen(os.dup(reader), "rb") as lines:
            return lines.read().decode().splitlines()
    finally:
        os.close(reader)


def _act(action, arm, later, say, wait):
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    arm(lambda text: REAL["write"](say, f"said {text}\n".encode()))
    for do in (action, later):
        ended = [[], ""]
        try:
            if do is not None:
                do()
        except BaseException as error:
            ended = [[kind.__name__ for kind in type(error).__mro__], str(error) or repr(error)]
        REAL["write"](say, f"ended {json.dumps(ended)}\n".encode())
        if later is None or do is later or not REAL["read"](wait, 1):
            os._exit(0)


def _arm(mode, number, say):
    room = {}  # per descriptor: up to where room is reserved
    seen = 0

    def wrap(name, real):
        def call(*args, **named):
            nonlocal seen
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.partition(".")[0] not in PACKAGES or named:
                return real(*args, **named)
            if name == "open" and len(args) == 1:
                args = (*args, os.O_RDONLY)
            if mode.counts(name, args, room):
                seen += 1
                if seen == number:
                    say(f"{number}: {mode.name} {shown(name, args)}")
                if seen == number or (seen > number and mode.lasting):
                    return mode.strike(real, name, args)
            result = real(*args)
            if name == "posix_fallocate":
                room[args[0]] = args[1] + args[2]
            elif name == "ftruncate":
                room[args[0]] = args[1]
            elif name == "open":
                room.pop(result, None)
            return result

        return call

    for name, real in REAL.items():
        if real:
            setattr(fcntl if name == "flock" else os, name, wrap(name, real))


def shown(name, args):
    texts = (
        f"{len(arg)} bytes" if hasattr(arg, "tobytes") or isinstance(arg, bytes) else repr(arg)
        for arg in args
    )
    return f"{name}({', '.join(texts)})"
