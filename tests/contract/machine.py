"""A machine to itself: the real system under a layer that is thrown away, and its own network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dbbasic_queue

PACKAGES = Path(dbbasic_queue.__file__).parents[1]
HERE = Path(__file__).parent
# A virtual environment's Python by its own name; else the real one, since python3 is covered.
PYTHON = sys.executable if sys.prefix != sys.base_prefix else os.path.realpath(sys.executable)
LOGIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CRON = {"HOME": "/", "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}

# $1 is the machine's folder; the rest is the command, which runs in the new root.
BOOT = """
set -eu
folder=$1
shift
mount -t tmpfs tmpfs "$folder/layer"
mkdir "$folder/layer/upper" "$folder/layer/work" "$folder/layer/root"
root=$folder/layer/root
mount -t overlay overlay \
    -o "lowerdir=/,upperdir=$folder/layer/upper,workdir=$folder/layer/work" "$root"
for mount in $MOUNTS; do mount --rbind "$mount" "$root$mount"; done
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
lay() { cp -dR --preserve=mode,ownership,timestamps --remove-destination "$1/." "$2"; }
lay "$folder/files" "$root"
status=0
chroot "$root" "$@" || status=$?
lay "$folder/layer/upper" "$folder/files"
find "$folder/files" -type c -delete # what was removed stands as a device in the layer
exit "$status"
"""


class Machine:
    """Files laid over the real system's; what commands change of it comes back in `files`.

    The folders /app, /uploads, /processed, /var/log and so on are the machine's own.  Nothing
    outside `folder` is touched.
    """

    def __init__(self, folder):
        self.folder = folder
        self.files = folder / "files"
        (folder / "layer").mkdir(parents=True)
        self.files.mkdir()
        self.files.chmod(0o755)
        python3 = f'#!/bin/sh\nexec env PYTHONPATH={PACKAGES}:{HERE} {PYTHON} "$@"\n'
        self.write("/usr/bin/python3", python3).chmod(0o755)

    def path(self, name):
        return self.files / name.lstrip("/")

    def write(self, name, text):
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def read(self, name):
        return self.path(name).read_text(encoding="utf-8")

    def start(self, *command, env=None):
        """Start a command, by default with the environment of a root login; return its Popen."""
        mounts = [mount for mount in outermost_mounts() if mount not in ("/dev", "/run")]
        return subprocess.Popen(
            [
                *("unshare", "--mount", "--net", "--propagation", "private"),
                *("bash", "-c", BOOT, "boot", self.folder, *command),
            ],
            env={**CRON, "PATH": LOGIN_PATH, "MOUNTS": " ".join(mounts), **(env or {})},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command, env=None):
        """Run a command to its end; return what it printed."""
        with self.start(*command, env=env) as process:
            output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, f"status {process.returncode}\n{output}\n{errors}"
        return output

    def shell(self, script, folder="/", env=None):
        """Run lines of bash in a folder, as typed one after the other; the last one's status."""
        return self.run("bash", "-c", f"cd {folder}\n{script}", env=env)

    def python(self, program, folder="/", env=None):
        return self.run("sh", "-c", f'cd {folder} && exec python3 -c "$0"', program, env=env)

    def cron(self, line):
        """Run the command of a crontab line once, the way that cron does."""
        command = line.split(maxsplit=5)[5]
        variables = [f"{name}={value}" for name, value in CRON.items()]
        return self.run("env", "-i", "-C", "/", *variables, "/bin/sh", "-c", command)


def outermost_mounts():
    """Where other file systems hang directly in the root's, such as /proc."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = sorted({line.split()[4] for line in file} - {"/"})
    found = []
    for point in points:
        if not any(point.startswith(f"{outer}/") for outer in found):
            found.append(point)
    return found


def why_not():
    """Why no machine can be had here; "" where it can."""
    if os.geteuid() != 0:
        return "needs root"
    command = ["unshare", "--mount", "--net", "--propagation", "private", "mount", "-t", "tmpfs"]
    try:
        subprocess.run([*command, "tmpfs", "/mnt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no namespaces here: {error}"
    return ""


def new_machine(folder):
    reason = why_not()
    if reason:
        pytest.skip(f"a machine to itself: {reason}")
    return Machine(folder)
