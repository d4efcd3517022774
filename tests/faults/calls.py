"""Let one system call of a process go wrong: the first, the second, and so on until none is left.

A child is forked, does one thing and ends.  In it the functions of `os` that the package calls are
wrapped: at the N-th call the process is killed, or the call raises, once or from then on.
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

import pytest

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


def changes(name, args, room):
    """A call that makes a difference to what is on the disk."""
    if name == "open":
        return bool(args[1] & NEW)
    return name in WRITES | SYNCS | NAMES | SIZES | OWNERS


def writes(name, args, room):
    return name in WRITES


def writes_into_new_room(name, args, room):
    return name in WRITES and needs_room(name, args, room)


def needs_room(name, args, room):
    """A call that a full disk refuses; where room was reserved, a write succeeds all the same."""
    if name == "open":
        return bool(args[1] & os.O_CREAT)
    if name == "pwrite":
        return args[2] + len(args[1]) > room.get(args[0], 0)
    return name in NEED_ROOM


def touches_the_disk(name, args, room):
    return name in WRITES | SYNCS | NAMES | SIZES | READS


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


class ShortThenFull:
    """A disk that becomes full in the middle of a write: a short count, then ENOSPC."""

    def __init__(self):
        self.begun = False

    def __call__(self, real, name, args):
        if self.begun:
            no_space(real, name, args)
        self.begun = True
        return half(real, name, args)


def modes():
    """The ways in which a call can go wrong, by name."""
    every = [
        Mode("killed before", False, changes, die),
        Mode("killed after", False, changes, finish_and_die),
        Mode("killed in the middle of", False, writes, tear),
        Mode("no space at", False, needs_room, no_space),
        Mode("no space from", True, needs_room, no_space),
        Mode("no space within", True, writes_into_new_room, ShortThenFull()),
        Mode("I/O error at", False, touches_the_disk, io_error),
        Mode("I/O error from", True, touches_the_disk, io_error),
        Mode("sync error at", False, syncs, io_error),
        Mode("sync error from", True, syncs, io_error),
    ]
    return {mode.name: mode for mode in every}


class Outcome(NamedTuple):
    """How a child ended."""

    struck: str  # the call that went wrong, "" when there were fewer calls
    killed: bool
    raised: tuple  # class names of the exception from its own to object, () for none
    text: str  # of the exception


def attempt(action, mode="killed before", number=0):
    """Run `action` in a forked child in which call `number` of the mode's kind goes wrong.

    Calls count from 1.  A mode is one of `modes()` by name, or a Mode.
    """
    if not isinstance(mode, Mode):
        mode = modes()[mode]
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reader)
            _act(action, mode, number, writer)
        finally:
            os._exit(70)
    os.close(writer)
    try:
        lines = _read_to_the_end(reader, pid).decode().splitlines()
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    struck = next((line[7:] for line in lines if line.startswith("struck ")), "")
    ended = next((json.loads(line[6:]) for line in lines if line.startswith("ended ")), None)
    assert killed or ended, f"{struck}: the child ended with status {status}"
    raised, text = ended or ((), "")
    return Outcome(struck, killed, tuple(raised), text)


def made_by(action):
    """Run `action` in a forked child; return the calls that it made, as "name path [path]"."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc, to tell which file a call is about")
    reader, writer = os.pipe()

    def note(name, args, room):
        if name in LOCKS:
            return False
        paths = [f"/proc/self/fd/{arg}" for arg in args[:1] if isinstance(arg, int)]
        names = [os.readlink(path) for path in paths]
        names += [arg for arg in args if isinstance(arg, str)]
        REAL["write"](writer, f"{name} {' '.join(map(os.path.basename, names))}\n".encode())
        return False

    try:
        outcome = attempt(action, Mode("noted", False, note, die), 1)
        os.close(writer)
        assert not outcome.raised, outcome
        with os.fdopen(os.dup(reader), "rb") as lines:
            return lines.read().decode().splitlines()
    finally:
        os.close(reader)


def _act(action, mode, number, writer):
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    _arm(mode, number, writer)
    ended = [[], ""]
    try:
        action()
    except BaseException as error:
        ended = [[kind.__name__ for kind in type(error).__mro__], str(error)]
    REAL["write"](writer, f"ended {json.dumps(ended)}\n".encode())
    os._exit(0)


def _arm(mode, number, writer):
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
                    text = f"struck {number}: {mode.name} {shown(name, args)}\n"
                    REAL["write"](writer, text.encode())
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


def _read_to_the_end(fd, pid):
    data = b""
    until = time.monotonic() + SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while selector.select(max(0.0, until - time.monotonic())):
            block = os.read(fd, 4096)
            if not block:
                return data
            data += block
    os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"the child hangs: {data.decode()}")
