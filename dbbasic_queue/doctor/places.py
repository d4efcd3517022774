"""Where the queue lies: who may write it, on which mount, and how cron will find it."""

import grp
import locale
import os
import pwd
import stat
import subprocess
import sys

from ..errors import QueueError
from ..mount import is_mount_point, mount_type, refuse_network_mount
from ..queue import Queue
from .finding import Finding, note, ok, problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

READ, CHANGE = 4, 3  # bits of a mode; to change a folder takes writing and entering
_ROOM = 16 << 20  # bytes that should be free beside a copy of the file


class _Somebody:
    """A user, or anybody in a group: whom mode bits let in."""

    def __init__(self, kind: str, name: str, uid: int, groups: set[int]) -> None:
        self.name = name
        self.text = f"{kind} {name}"
        self.uid = uid
        self.groups = groups

    def may(self, st: os.stat_result, bits: int) -> bool:
        if self.uid == 0:
            return True
        shift = 6 if st.st_uid == self.uid else 3 if st.st_gid in self.groups else 0
        return st.st_mode >> shift & bits == bits


def _user(uid: int) -> _Somebody:
    try:
        name, gid = pwd.getpwuid(uid).pw_name, pwd.getpwuid(uid).pw_gid
        return _Somebody("user", name, uid, set(os.getgrouplist(name, gid)))
    except KeyError:
        return _Somebody("user", str(uid), uid, set())


def _group(gid: int) -> _Somebody:
    try:
        return _Somebody("group", grp.getgrgid(gid).gr_name, -1, {gid})
    except KeyError:
        return _Somebody("group", str(gid), -1, {gid})


def _names(st: os.stat_result) -> str:
    return f"{_user(st.st_uid).name}:{_group(st.st_gid).name}"


def look_at_permissions(queue: Queue) -> "Iterator[Finding]":
    """Look who may add jobs, and who may change them."""
    real, folder = queue.file.real, os.path.dirname(queue.file.real)
    st, around = os.stat(real), os.stat(folder)
    owner, group, me = _user(st.st_uid), _group(st.st_gid), _user(os.geteuid())
    modes = [f"{stat.filemode(one.st_mode)} {_names(one)}" for one in (st, around)]
    yield ok("permissions", f"the file is {modes[0]}, its folder {modes[1]}")
    if not os.access(real, os.R_OK | os.W_OK, effective_ids=True):
        text = f"{real}: {me.text}, who looks now, cannot add jobs"
        yield problem("permissions", text, f"run as {owner.text}, or as one of {group.text}")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        yield _no_edits(folder, me, owner)
    others = [owner] if st.st_mode & 0o200 and owner.uid != me.uid else []
    others += [group] if st.st_mode & 0o020 else []
    for one in others:
        if not one.may(around, CHANGE):
            yield _no_edits(folder, one, owner)
        yield from _look_beside(queue, one, st)
    if around.st_mode & stat.S_ISVTX and st.st_uid not in (around.st_uid, os.geteuid()):
        text = f"{folder}: is sticky, so that only {owner.text} can edit the queue"
        yield problem("permissions", text, "move the queue to a folder of its own")
    if st.st_mode & 0o002:
        yield problem("permissions", f"{real}: everybody may write it", f"chmod o-w {real}")
    elif st.st_mode & 0o004 and around.st_mode & 0o001:
        yield note("permissions", f"{real}: everybody may read the payloads", f"chmod o-r {real}")


def _no_edits(folder: str, who: _Somebody, owner: _Somebody) -> Finding:
    text = (
        f"{folder}: {who.text} cannot write there: only enqueue works, no worker, cancel or retry"
    )
    if who is owner:
        return problem("permissions", text, f"chown {owner.name} {folder}")
    return problem("permissions", text, f"chgrp {who.name} {folder}; chmod g+w {folder}")


def _look_beside(queue: Queue, who: _Somebody, like: os.stat_result) -> "Iterator[Finding]":
    side = queue.file.side
    for path, bits in (
        (queue.file.real + ".lock", READ),
        (side, CHANGE),
        (side + "/workers", CHANGE),
    ):
        try:
            closed = not who.may(os.stat(path), bits)
        except OSError:
            continue
        if closed:
            text = f"{path}: {who.text} cannot {'open it' if bits == READ else 'write there'}"
            remedy = f"chown -R {_names(like)} {path}; chmod -R u+rwX,g=u {path}"
            yield problem("permissions", text, remedy)


def look_at_mount(queue: Queue) -> "Iterator[Finding]":
    """Look whether locks hold on this file system, and whether an edit has room."""
    real = queue.file.real
    try:
        refuse_network_mount(real)
        yield ok("mount", f"the file system is {mount_type(real) or 'of an unknown type'}")
    except QueueError as error:
        yield problem("mount", str(error), "move it to a local disk, and set DBBASIC_QUEUE")
    except OSError as error:
        yield problem("mount", f"{real}: its lock cannot be tried: {error.strerror}", "")
    if is_mount_point(real):
        text = f"{real} is mounted alone: no edit can put a new file in its place"
        yield problem("mount", text, "mount its folder instead")
    disk, size = os.statvfs(os.path.dirname(real)), os.path.getsize(real)
    free = disk.f_bavail * disk.f_frsize
    if free < size + _ROOM:
        text = f"{free:,} bytes are free, and an edit writes a copy of {size:,} bytes"
        yield problem("mount", text, "make room, or archive old jobs while there is some")


def look_at_cron(queue: Queue) -> "Iterator[Finding]":
    """Look at what is different when cron starts a worker: folder, variables, Python, locale."""
    variable = os.environ.get("DBBASIC_QUEUE", "")
    if not variable:
        home, python = _home(), sys.executable or "python3"
        yield note(
            "cron",
            "DBBASIC_QUEUE is not set: each program then means data/queue.tsv under its own"
            f" working folder, and cron starts in {home}",
            f"* * * * * cd {os.getcwd()} && DBBASIC_QUEUE={queue.path} {python} worker.py",
        )
    elif not os.path.isabs(variable):
        text = f"DBBASIC_QUEUE={variable} is relative, so another file in another folder"
        yield problem("cron", text, f"DBBASIC_QUEUE={os.path.abspath(variable)}")
    elif os.path.abspath(variable) != queue.path:
        yield note("cron", f"DBBASIC_QUEUE={variable} is another queue than this one")
    else:
        yield ok("cron", f"DBBASIC_QUEUE={variable}; the crontab must set it too")
    yield _bare_start()
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") != "utf8":
        yield note("cron", f"the locale's encoding is {encoding}; the file is UTF-8 all the same")


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a user without a name, as in a container
        return "/"


def _bare_start() -> Finding:
    """Start this Python as cron does, with next to no variables and in the home folder."""
    python, home = sys.executable or "", _home()
    if not os.path.isabs(python):
        return problem("cron", f"this Python is {python!r}", "start it by its absolute path")
    try:
        started = subprocess.run(
            [python, "-c", "import dbbasic_queue.queue, filelock"],
            env={"HOME": home, "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"},
            cwd=home,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return note("cron", f"{python} could not be tried as cron starts it: {error}")
    if started.returncode == 0:
        return ok("cron", f"{python} finds dbbasic_queue in cron's bare environment")
    last = started.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return note(
        "cron",
        f"{python} does not find dbbasic_queue in cron's bare environment: {last}",
        "install it for this Python, or set PYTHONPATH in the crontab",
    )
