"""Where a queue file lies: whether a lock keeps everybody out who can see it there."""

import os
import sys

from .errors import QueueError

MOUNTS = "/proc/self/mountinfo"
NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs ceph glusterfs lustre afs beegfs gpfs ocfs2 gfs2 pvfs2 coda davfs"
    " fuse.ceph fuse.glusterfs fuse.sshfs fuse.s3fs fakeowner".split()
)
UNUSUAL = ("9p", "virtiofs", "fuse")  # flock may be local to one side: two processes are asked


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
