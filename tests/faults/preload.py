"""Meet the N-th file operation of a process, below Python: see preload.c.

The library has to be loaded before libc, when a process starts: LD_PRELOAD.  So one Python is
started with it, does its imports, and forks a child for each case; only the child is armed.
"""

import ctypes
import errno
import itertools
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from . import calls

SOURCE = Path(__file__).with_name("preload.c")
HOW = ["nothing", "kill before", "kill after", "tear half", "tear last", "short", "fail"]
FOR_EVER = 1 << 62

# Which calls can end in which error: what a manual page of Linux names, and nothing else.  (A read
# needs no room; what fstat answers is in memory; a pwrite into reserved room is an `overwrite`.)
READS = frozenset(
    "open read pread opendir readdir readlink stat lstat flistxattr fgetxattr".split()
)
WRITES = frozenset(["write", "pwrite", "copy_file_range"])
SYNCS = frozenset(["fsync", "fdatasync"])
NEED_ROOM = WRITES | {"create", "posix_fallocate", "mkdir", "link", "rename", "fsetxattr"}
CHANGES = (
    NEED_ROOM | {"overwrite", "ftruncate", "unlink", "rmdir", "close"} | SYNCS
    | {"fchmod", "chmod", "fchown", "chown", "futimens", "fremovexattr"}
)  # fmt: skip
ERRORS = {
    "EIO": READS | CHANGES,
    "ENOSPC": NEED_ROOM | SYNCS,
    "EDQUOT": NEED_ROOM | SYNCS,
    "EFBIG": WRITES | {"posix_fallocate"},
    "ENOLCK": frozenset(["flock"]),
    "ENOSYS": frozenset(["flock", "copy_file_range", "posix_fallocate"]),
}
CUT = WRITES | {"overwrite"}  # what can be done in part


class Fault(NamedTuple):
    """One way in which a call goes wrong, and what becomes of those after it."""

    name: str
    how: str
    at: frozenset  # the kinds of calls that it can strike
    error: str = ""
    rest: int = 0  # how many calls after it fail as well, of the kinds that the error meets

    @property
    def kills(self):
        return self.how.startswith(("kill", "tear"))


def faults(kinds):
    """Return all faults, where `kinds` are all kinds of calls."""
    every = [
        Fault("killed before", "kill before", kinds),
        Fault("killed after", "kill after", kinds),
        Fault("killed in the middle of", "tear half", CUT),
        Fault("killed one byte before the end of", "tear last", CUT),
        Fault("a short count from", "short", CUT),
    ]
    for error, at in ERRORS.items():
        every.append(Fault(f"{error} from", "fail", at, error))
        every.append(Fault(f"{error} for ever from", "fail", at, error, FOR_EVER))
    for error in ("ENOSPC", "EDQUOT", "EFBIG", "EIO"):
        cut = CUT & ERRORS[error]
        for rest, ever in (1, ""), (FOR_EVER, " for ever"):
            every.append(
                Fault(f"a short count, then {error}{ever} from", "short", cut, error, rest)
            )
    return every


class Call(NamedTuple):
    """A call as the library wrote it down."""

    number: int
    kind: str
    paths: tuple
    struck: bool
    result: int  # negative: -errno

    def __str__(self):
        return f"{self.number}: {self.kind} {' '.join(self.paths)}"

    def is_like(self, other):
        return (self.kind, self.paths) == (other.kind, other.paths)


def build(folder):
    """Compile the library into a folder and return its path, None where that cannot be done."""
    path = Path(folder) / "preload.so"
    if not (shutil.which("gcc") and os.uname().sysname == "Linux"):
        return None
    options = "-shared -fPIC -O1 -Wall -Wextra -Wno-missing-field-initializers -Werror".split()
    subprocess.run(["gcc", *options, "-U_FORTIFY_SOURCE", "-o", path, SOURCE, "-ldl"], check=True)
    return path


class Preload:
    """The library in this process, which was started with it."""

    def __init__(self):
        self.library = ctypes.CDLL(None)
        self.library.faults_kind.restype = ctypes.c_char_p
        names = map(self.library.faults_kind, itertools.count())
        self.kinds = [name.decode() for name in iter(lambda: next(names), None)]
        self.library.faults_arm.argtypes = [
            ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int,
            ctypes.c_ulong, ctypes.c_long,
        ]  # fmt: skip

    def faults(self):
        return faults(frozenset(self.kinds))

    def attempt(self, folder, act, later, fault=None, number=0):
        """Do `act(folder)` in a child whose call `number` meets a fault.

        Return the outcome, the calls that it made, and the child, which waits to do `later`.
        """
        log = folder.path / "calls"

        def arm(say):
            fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(fd, 600, inheritable=False)  # out of the way of the queue's descriptors
            os.close(fd)
            how = HOW.index(fault.how) if fault else 0
            error = getattr(errno, fault.error) if fault and fault.error else 0
            later = ERRORS.get(fault.error, ()) if fault and fault.rest else ()
            bits = sum(1 << self.kinds.index(kind) for kind in later)
            root = os.fsencode(folder.file.parent)
            self.library.faults_arm(root, 600, number, how, error, bits, fault.rest if fault else 0)

        def armed():
            time.sleep = lambda seconds: None
            try:
                act(folder)
            finally:
                self.library.faults_disarm()

        child = calls.Forked(armed, arm, lambda: later(folder))
        made = read_log(log)
        struck = next((call for call in made if call.struck), None)
        name = f"{fault.name} {struck}" if struck else ""
        code = getattr(errno, fault.error) if struck and fault.error else 0
        lasting = bool(struck and fault.rest == FOR_EVER)
        cut = bool(struck and fault.how.startswith("tear"))
        kind = struck.kind if struck else ""
        how = kind, code, lasting, cut
        return calls.Outcome(name, child.killed, child.raised, child.text, *how), made, child


def read_log(path):
    """Return the calls of a log; what is by chance in their paths is a star."""
    made = []
    for line in path.read_text().splitlines() if path.exists() else ():
        number, kind, one, two, what, result = line.split("\t")
        paths = tuple(without_chance(path) for path in (one, two) if path != "-")
        made.append(Call(int(number), kind, paths, what == "struck", int(result)))
    return made


def without_chance(path):
    return re.sub(r"\d+-[0-9a-f]{6,8}|\b[0-9a-f]{8}\b", "*", path)
