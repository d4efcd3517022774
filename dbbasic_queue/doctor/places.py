"""Where the queue lies: who may write it, on which mount, and how cron will find it."""

import grp
import locale
import os
import pwd
import stat
import subprocess
import sys

from ..errors import QueueError
from ..files import mount_type, refuse_network_mount
from ..queue import Queue
from .finding import NOTE, OK, PROBLEM, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

READ, WRITE, ENTER = 4, 2, 1
_ROOM = 16 << 20  # bytes that should be free beside the size of the file


class _Somebody:
    """A user, or anybody in a group: whom mode bits let in."""

    def __init__(self, name: str, uid: int, groups: set[int]) -> None:
        self.name = name
        self.uid = uid
        self.groups = groups

    def may(self, st: os.stat_result, what: int) -> bool:
        if self.uid == 0:
            return True
        shift = 6 if st.st_uid == self.uid else 3 if st.st_gid in self.groups else 0
        return st.st_mode >> shift & what == what


def _user(uid: int) -> _Somebody:
    try:
        entry = pwd.getpwuid(uid)
        return _Somebody(f"user {entry.pw_name}", uid, set(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    except KeyError:
        return _Somebody(f"user {uid}", uid, set())


def _group(gid: int) -> _Somebody:
    try:
        return _Somebody(f"group {grp.getgrgid(gid).gr_name}", -1, {gid})
    except KeyError:
        return _Somebody(f"group {gid}", -1, {gid})


def look_at_permissions(queue: Queue) -> "Iterator[Finding]":
    """Look who may add jobs, and who may change them."""
    real, folder = queue.file.real, os.path.dirname(queue.file.real)
    st, around = os.stat(real), os.stat(folder)
    owner, group = _user(st.st_uid), _group(st.st_gid)
    me = _user(os.geteuid())
    mode = f"{stat.filemode(st.st_mode)} {owner.name[5:]}:{group.name[6:]}"
    yield Finding(OK, "permissions", f"the file is {mode}, the folder {stat.filemode(around.st_mode)} "
                  f"{_user(around.st_uid).name[5:]}:{_group(around.st_gid).name[6:]}")  # fmt: skip
    if not os.access(real, os.R_OK | os.W_OK, effective_ids=True):
        yield Finding(PROBLEM, "permissions", f"{real}: {me.name}, who looks now, cannot add jobs",
                      f"run as {owner.name}, or join {group.name}")  # fmt: skip
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        yield _no_edits(folder, me, owner)
    them = [owner] if st.st_mode & 0o200 else []
    them += [group] if st.st_mode & 0o020 else []
    for one in them:
        if one.uid != me.uid and not one.may(around, WRITE | ENTER):
            yield _no_edits(folder, one, owner)
        yield from _look_beside(queue, one, st)
    if around.st_mode & stat.S_ISVTX and st.st_uid not in (around.st_uid, os.geteuid()):
        yield Finding(PROBLEM, "permissions", f"{folder}: is sticky; only {owner.name} can edit the queue there",
                      "move the queue to a folder of its own")  # fmt: skip
    if st.st_mode & 0o002:
        yield Finding(PROBLEM, "permissions", f"{real}: everybody may write it", f"chmod o-w {real}")
    elif st.st_mode & 0o004 and around.st_mode & 0o001:
        yield Finding(NOTE, "permissions", f"{real}: everybody may read the payloads", f"chmod o-r {real}")


def _no_edits(folder: str, who: _Somebody, owner: _Somebody) -> Finding:
    gives = f"chown {owner.name[5:]} {folder}" if who is owner else f"let {who.name} write in {folder}"
    return Finding(PROBLEM, "permissions", f"{folder}: {who.name} cannot write there: enqueue works, "
                   "but no worker, cancel or retry", gives)  # fmt: skip


def _look_beside(queue: Queue, who: _Somebody, like: os.stat_result) -> "Iterator[Finding]":
    side = queue.file.side
    places = {queue.file.real + ".lock": READ, side: WRITE | ENTER, side + "/workers": WRITE | ENTER}
    for path, needed in places.items():
        try:
            st = os.stat(path)
        except OSError:
            continue
        if not who.may(st, needed):
            verb = "open it" if needed == READ else "write there"
            names = f"{_user(like.st_uid).name[5:]}:{_group(like.st_gid).name[6:]}"
            yield Finding(PROBLEM, "permissions", f"{path}: {who.name} cannot {verb}",
                          f"chown -R {names} {path}; chmod -R ug+rwX {path}")  # fmt: skip


def look_at_mount(queue: Queue) -> "Iterator[Finding]":
    """Look whether locks hold on this file system, and whether an edit has room."""
    real = queue.file.real
    try:
        refuse_network_mount(real)
        yield Finding(OK, "mount", f"the file system is {mount_type(real) or 'of an unknown type'}")
    except QueueError as error:
        yield Finding(PROBLEM, "mount", str(error), "move it to a local disk, and set DBBASIC_QUEUE")
    except OSError as error:
        yield Finding(PROBLEM, "mount", f"{real}: its locks cannot be tried: {error.strerror}")
    disk, size = os.statvfs(os.path.dirname(real)), os.path.getsize(real)
    free = disk.f_bavail * disk.f_frsize
    if free < size + _ROOM:
        yield Finding(PROBLEM, "mount", f"{free:,} bytes are free; an edit writes a copy of {size:,} bytes",
                      "make room, or archive old jobs while there is some")  # fmt: skip


def look_at_cron(queue: Queue) -> "Iterator[Finding]":
    """Look at what changes when cron starts a worker: folder, variables, Python, locale."""
    variable = os.environ.get("DBBASIC_QUEUE", "")
    line = f"* * * * * cd {os.getcwd()} && DBBASIC_QUEUE={queue.path} {sys.executable or 'python3'} worker.py"
    if not variable:
        yield Finding(NOTE, "cron", f"DBBASIC_QUEUE is not set: without it every program means data/queue.tsv "
                      f"under its own working folder, and cron starts in {os.path.expanduser('~')}",
                      f"give the crontab absolute paths: {line}")  # fmt: skip
    elif not os.path.isabs(variable):
        yield Finding(PROBLEM, "cron", f"DBBASIC_QUEUE={variable} is relative: it is another file in another folder",
                      f"DBBASIC_QUEUE={os.path.abspath(variable)}")  # fmt: skip
    elif os.path.abspath(variable) != queue.path:
        yield Finding(NOTE, "cron", f"DBBASIC_QUEUE={variable} is another queue than the one looked at")
    else:
        yield Finding(OK, "cron", f"DBBASIC_QUEUE={variable}; the crontab must set it too")
    yield _bare_start()
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") != "utf8":
        yield Finding(NOTE, "cron", f"the locale's encoding is {encoding}; the file is UTF-8 all the same")


def _bare_start() -> Finding:
    """Start this Python as cron would, with next to no variables and in the home folder."""
    if not os.path.isabs(sys.executable or ""):
        return Finding(PROBLEM, "cron", f"this Python is {sys.executable!r}, no absolute path",
                       "start it by its absolute path")  # fmt: skip
    home = os.path.expanduser("~")
    bare = {"HOME": home, "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    try:
        command = [sys.executable, "-c", "import dbbasic_queue.queue, filelock"]
        started = subprocess.run(
            command, env=bare, cwd=home, capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(NOTE, "cron", f"{sys.executable} could not be tried as cron starts it: {error}")
    if started.returncode == 0:
        return Finding(OK, "cron", f"{sys.executable} finds dbbasic_queue in cron's bare environment")
    last = started.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return Finding(NOTE, "cron", f"{sys.executable} does not find dbbasic_queue in cron's bare environment: {last}",
                   "install it for this Python, or set PYTHONPATH in the crontab")  # fmt: skip
