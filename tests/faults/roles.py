"""Who works on a queue in the soak: producers, workers, people who change it by hand, a reader.

Each notes what it is about to do and what it was told, in a file of its own; handlers leave a line
per effect.  All that happens is judged by these notes, not by what the queue says of itself.
"""

import contextlib
import ctypes
import fcntl
import json
import logging
import math
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback

from dbbasic_queue import Queue, current_job
from dbbasic_queue.errors import NotStored, QueueBusy, QueueError

from . import reader

TIMEOUT = 1.0  # seconds that a verb waits for the lock: shorter than some stops last
NEVER_FAILS = {"max_attempts": 10**6, "max_workers": 99}  # no number of kills fails a job


class Place:
    """The folder of one soak: the queue, the notes, and what was kept of what is deleted."""

    def __init__(self, path):
        self.path = path
        self.file = path / "data" / "queue.tsv"
        self.side = path / "data" / "queue.tsv.d"
        for name in ("data", "notes", "kept", "hand"):
            path.joinpath(name).mkdir(parents=True, exist_ok=True)

    def queue(self, **options):
        return Queue(self.file, **{"lock_timeout": TIMEOUT, **options})

    def line(self, name, text):
        """Append a line by one write: a kill may follow."""
        fd = os.open(self.path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, f"{text}\n".encode())
        os.close(fd)

    def note(self, who, what, **more):
        at = time.monotonic()
        self.line(f"notes/{who}", json.dumps({"at": at, "who": who, "what": what, **more}))

    def notes(self):
        """The notes of all, by who."""
        found = {}
        for path in sorted(self.path.joinpath("notes").iterdir()):
            lines = path.read_text().split("\n")[:-1]
            found[path.name] = [json.loads(line) for line in lines]
        return found

    def effects(self):
        """Return (id, pid, time) of each effect."""
        path = self.path / "effects"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [(id, int(pid), float(at)) for id, pid, at in map(str.split, lines)]

    def handlers(self):
        def effect(payload):
            self.line("effects", f"{current_job().id} {os.getpid()} {time.monotonic():.6f}")
            time.sleep(random.random() * (payload or 0.004))
            return payload

        def fail(payload):
            effect(payload)
            raise ValueError("as it should")

        return {"effect": effect, "fail": fail}


def be(say, place, role, number, life, seed):
    """Live as one of the ROLES, in a session of its own, until killed, or the soak is."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    who = f"{role}-{number}-{life}"
    chance = random.Random(f"{seed} {who}")
    random.seed(f"{seed} {who} handlers")
    listen(place, who)
    try:
        ROLES[role](place, who, chance)
    except SystemExit:
        raise
    except BaseException:
        place.note(who, "broken", text=traceback.format_exc())


def listen(place, who):
    """Note what is logged, but for handlers that fail as they should."""

    class Listener(logging.Handler):
        def emit(self, record):
            if "ended with" not in record.msg:
                place.note(who, "logged", pid=os.getpid(), text=record.getMessage())

    logger = logging.getLogger("dbbasic_queue")
    logger.handlers = [Listener()]
    logger.propagate = False
    logger.setLevel(logging.WARNING)


# --- who adds


def produce(place, who, chance):
    """Add jobs from two threads."""
    threads = [
        threading.Thread(
            target=add_jobs, args=(place, f"{who}-{number}", random.Random(chance.random()))
        )
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def add_jobs(place, who, chance):
    queue, mine = place.queue(), []
    try:
        while True:
            jobs = [new_job(chance, mine) for _ in range(chance.choice([1, 1, 1, 1, 2, 20]))]
            if chance.random() < 0.2:
                jobs = jobs[:1]
                jobs[0]["id"] = queue.new_id()
            place.note(who, "try", count=len(jobs), id=jobs[0].get("id"))
            with answers(place, who):
                ids = queue.enqueue_many(jobs) if len(jobs) > 1 else [queue.enqueue(**jobs[0])]
                told = [
                    [id, job["job_type"], job.get("after")]
                    for id, job in zip(ids, jobs, strict=True)
                ]
                place.note(who, "told", jobs=told)
                mine = [*mine, *ids][-9:]
            time.sleep(chance.random() * 0.08)
    except BaseException:
        place.note(who, "broken", text=traceback.format_exc())


def new_job(chance, mine):
    job = {"job_type": chance.choice(["effect"] * 9 + ["fail"]), "payload": chance.random() * 0.008}
    if job["job_type"] == "fail":
        job["max_attempts"] = 1
    if mine and chance.random() < 0.1:
        job["after"] = chance.choice(mine)
    if chance.random() < 0.1:
        job["run_at"] = time.time() + 0.5
    return job


@contextlib.contextmanager
def answers(place, who):
    """Note an error that the queue may well give: busy is nothing done, the others perhaps."""
    try:
        yield
    except QueueBusy:
        place.note(who, "busy")
    except NotStored as error:
        place.note(who, "perhaps", text=str(error))
    except QueueError as error:
        if "no job has the id" not in str(error):  # a parent that was lost, or purged
            raise
        place.note(who, "busy")


# --- who works


def tick(place, who, chance):
    """One tick after the other."""
    while True:
        run(place, who)
        time.sleep(chance.random() * 0.05)


def stay(place, who, chance):
    while True:
        run(place, who, run_for=math.inf)


def pool(place, who, chance):
    """A supervisor and its workers."""
    while True:
        run(place, who, run_for=math.inf, processes=(1, 3))


def run(place, who, **options):
    try:
        place.queue().process_jobs(place.handlers(), **NEVER_FAILS, **options)
    except QueueError as error:
        place.note(who, "raised", text=str(error))


# --- who changes


def change(place, who, chance):
    """Cancel, retry, archive and purge, as people at a shell do."""

    def listener(event, job):
        place.note(who, event, id=job.id)

    queue = place.queue(listeners=[listener])
    while True:
        verb = chance.choice(["cancel"] * 4 + ["retry", "archive", "purge", "purge"])
        jobs = list(queue.jobs(newest=True, limit=60)) or [None]
        job = chance.choice(jobs)
        if job is None:
            continue
        if verb == "cancel":
            place.note(who, "try cancel", id=job.id)
            with answers(place, who):
                place.note(who, "did cancel", id=job.id, done=queue.cancel(job.id))
        elif verb == "retry":
            place.note(who, "try retry")
            with answers(place, who):
                place.note(who, "did retry", ids=queue.retry(type="fail"))
        elif verb == "purge":
            place.note(who, "try purge", id=job.id)
            with answers(place, who):
                place.note(who, "did purge", id=job.id, count=queue.purge(ids=[job.id]))
        else:
            with open(place.path / "quiet", "a") as quiet:  # while this is held, none deletes it
                fcntl.flock(quiet, fcntl.LOCK_EX)
                place.note(who, "try archive")
                with answers(place, who):
                    place.note(who, "did archive", count=queue.archive(chance.choice([1, 2])))
        time.sleep(chance.random() * 0.2)


# --- who edits the file by hand


def edit(place, who, chance):
    """Change a priority as an editor does, with the lock or without; append as a shell does."""
    number = 0
    while True:
        time.sleep(chance.random() * 0.4)
        if not place.file.exists():
            continue
        number += 1
        name = f"{who}-{number}"
        with_lock = chance.random() < 0.6
        with open(f"{place.file}.lock", "a") as lock:
            if with_lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
            if with_lock and chance.random() < 0.5:
                append(place, who, lock)
            else:
                save(place, who, name, chance, lock if with_lock else None)


def append(place, who, lock):
    """Add nine cells to the end of the file."""
    now = int(time.time())
    id = Queue.new_id()
    with open(place.file, "ab+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            return
        place.note(who, "try", count=1, id=id)
        os.write(file.fileno(), f"{id}\teffect\t0.002\tpending\t{now}\t{now}\t0\t\t\n".encode())
    locked = os.fstat(lock.fileno()).st_nlink > 0
    place.note(who, "told", jobs=[[id, "effect", None]], locked=locked)


def save(place, who, name, chance, lock):
    """Read the file, change one cell, and put a neighbour in its place; keep what was there."""
    read = place.file.read_bytes()
    lines = read.split(b"\n")
    places = [at for at, line in enumerate(lines) if line.count(b"\t") > 9]
    pending = [at for at in places if lines[at].split(b"\t")[3] == b"pending"]
    if not pending:
        return
    at = chance.choice(pending)
    cells = lines[at].split(b"\t")
    number = chance.randrange(-999, 1000)
    cells[10] = b"%d" % number
    lines[at] = b"\t".join(cells)
    place.path.joinpath("hand", f"{name}.read").write_bytes(read)
    neighbour = place.file.with_name(f"hand-{name}")
    neighbour.write_bytes(b"\n".join(lines))
    shutil.copystat(place.file, neighbour)
    if lock is None:
        time.sleep(chance.random() * 0.03)  # a person takes longer
    id = cells[0].decode()
    place.note(who, "try save", name=name, id=id, number=number)
    exchange(neighbour, place.file)
    locked = lock is not None and os.fstat(lock.fileno()).st_nlink > 0
    neighbour.rename(place.path / "hand" / f"{name}.replaced")
    place.note(who, "saved", name=name, id=id, number=number, locked=locked)


def exchange(one, other):
    """As a rename, but what was in the place of `other` is `one` afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if libc.renameat2(folder, os.fsencode(one), folder, os.fsencode(other), both):
        raise OSError(ctypes.get_errno(), "renameat2")


# --- who looks


def look(place, who, chance):
    """Whoever reads sees whole lines of one version."""
    queue = place.queue()
    while True:
        if place.file.exists():
            reader.read(place.file, torn=True)
            queue.counts()
        time.sleep(chance.random() * 0.05)


ROLES = {
    "producer": produce,
    "ticks": tick,
    "stays": stay,
    "pool": pool,
    "changes": change,
    "edits": edit,
    "looks": look,
}
