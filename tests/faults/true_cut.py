"""A true power cut: ext4 on a loop file is shut down without a flush while jobs come and run.

Producers and a worker are stopped, the file system goes down, they are killed, it is mounted again
and its journal replayed.  Needs root, loop devices and mkfs.ext4.
"""

import fcntl
import os
import random
import signal
import struct
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from dbbasic_queue import Queue, current_job

from . import reader
from .children import Children
from .results import Result

GOING_DOWN, NO_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
SIZE = 48 << 20
MOUNTS = {
    "as usual": "noatime",
    "nothing forgiven": "noatime,data=writeback,noauto_da_alloc",
}
FINISHING = ("completed", "failed", "cancelled")


def refused(path):
    """Return why no file system can be mounted from a file here, "" when it can."""
    try:
        with mounted(path, "as usual"):
            return ""
    except (OSError, subprocess.CalledProcessError) as problem:
        said = getattr(problem, "stderr", None) or b""
        return f"{problem} {said.decode(errors='replace')}".strip()


@contextmanager
def mounted(path, how):
    """Make an ext4 in a file and mount it; yield its folder."""
    image, folder = path / "image", path / "mounted"
    folder.mkdir(exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(SIZE)
    try:
        command("mkfs.ext4", "-q", "-F", image)
        mount(image, folder, how)
        yield folder
    finally:
        if folder.is_mount():
            command("umount", folder)
        image.unlink()


def mount(image, folder, how):
    command("mount", "-o", f"loop,{MOUNTS[how]}", image, folder)


def wait_until_free(image):
    """Wait until nobody holds what was mounted: another mount namespace may have a copy, and then
    the next mount would be of the same file system, which is shut down."""
    for _ in range(3000):
        if not subprocess.run(["losetup", "-j", image], check=True, capture_output=True).stdout:
            return
        time.sleep(0.01)
    raise AssertionError(f"{image} is in use, by another mount namespace perhaps")


def command(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def cut_power(folder):
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, GOING_DOWN, struct.pack("I", NO_FLUSH))
    finally:
        os.close(fd)


class Round:
    """One cut: two producers and a worker, whose reports go through pipes."""

    def __init__(self, path, sync, how, chance, without):
        self.path = path
        self.sync = sync
        self.how = how
        self.chance = chance
        self.without = without
        self.told = []
        self.ran = Counter()
        self.finished = set()
        self.problems = []

    def run(self):
        with mounted(self.path, self.how) as folder:
            self.file = folder / "data" / "queue.tsv"
            with Children() as children:
                living = [children.start(produce, self) for _ in range(2)]
                living.append(children.start(work, self))
                time.sleep(0.1 + 0.4 * self.chance.random())
                if self.chance.random() < 0.5:  # one that dies first, at any call
                    living[self.chance.randrange(3)].kill()
                    time.sleep(0.03 * self.chance.random())
                for child in living:
                    child.send(signal.SIGSTOP)  # no call returns to it from now on
                cut_power(folder)
                for child in living:
                    child.kill()
                for child in living:
                    self.listen(child.hear_all())
            command("umount", folder)
            wait_until_free(self.path / "image")
            mount(self.path / "image", folder, self.how)
            self.judge()

    def listen(self, lines):
        for line in lines:
            what, _, id = line.partition(" ")
            if what == "told":
                self.told.append(id)
            elif what == "finished":
                self.finished.add(id)
            elif what != "began":
                self.problems.append(line)

    def judge(self):
        rows = reader.by_id(self.file, torn=True) if self.file.exists() else {}
        self.problems += [f"{id} is lost" for id in self.told if id not in rows]
        with Children() as children:
            child = children.start(recover, self)
            self.ran.update(line.split()[1] for line in child.hear_all() if "began" in line)
            children.finish()
        rows = reader.by_id(self.file)
        self.problems += [f"{id} is lost afterwards" for id in self.told if id not in rows]
        self.problems += [
            f"{id} is {row['status']} in the end"
            for id, row in rows.items()
            if row["status"] != "completed"
        ]
        self.problems += [f"{id} ran again" for id in self.finished if self.ran[id]]
        self.problems += [f"left over: {name}" for name in reader.leftovers(self.file)]


def produce(say, cut):
    if cut.without:
        cut.without()
    queue = Queue(cut.file, sync=cut.sync)
    for number in range(1_000_000):
        if number % 10:
            say(f"told {queue.enqueue('run', {'number': number})}")
        else:
            for id in queue.enqueue_many([("run", {"text": "x" * 300})] * 5):
                say(f"told {id}")


def work(say, cut):
    """One tick after the other; what has ended when the next one begins is finished, if full."""
    ended = []

    def run(payload):
        if cut.sync == "full":
            for id in ended:
                say(f"finished {id}")
        ended.clear()
        say(f"began {current_job().id}")
        ended.append(current_job().id)
        return payload

    def listen(event, job):
        if event in FINISHING:
            say(f"finished {job.id}")

    queue = Queue(cut.file, sync=cut.sync)
    while True:
        queue.process_jobs({"run": run}, listeners=[listen])
        time.sleep(0.002)


def recover(say, cut):
    def run(payload):
        say(f"began {current_job().id}")

    queue = Queue(cut.file, sync=cut.sync)
    queue.process_jobs({"run": run})
    queue.enqueue("run", "another")
    queue.process_jobs({"run": run})


def campaign(bounded):
    """Yield a result for each way to sync and to mount; a case is an id that was told."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        why = refused(path)
        for how in MOUNTS:
            for sync in ("normal", "full"):
                name = f"true power cut, ext4 {how}, sync={sync}"
                if why:
                    yield Result(f"{name}: not possible here: {why}", 0, [])
                else:
                    yield Result(name, *rounds(path, sync, how, 3 if bounded else 25))


def rounds(path, sync, how, count, without=None):
    """Cut the power several times; return how many ids were told in all, and the problems.

    `without` takes a safeguard away from the producers.
    """
    told, problems = 0, []
    for number in range(count):
        cut = Round(path, sync, how, random.Random(f"{sync} {how} {number}"), without)
        cut.run()
        told += len(cut.told)
        problems += [f"round {number}: {problem}" for problem in cut.problems]
    return told, problems
