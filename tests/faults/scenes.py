"""What is there before, and what is done, while a call goes wrong.

A scene is made once and copied for each call; `judge` says what must hold afterwards.
"""

import base64
import io
import json
import os
import shutil
import time
from collections import Counter
from datetime import datetime, timezone
from importlib.util import find_spec
from typing import NamedTuple

import freezegun

from dbbasic_queue import Discard, Queue, QueueError, Snooze, byhand, current_job
from dbbasic_queue.batch import enqueue_batch
from dbbasic_queue.chain import enqueue_chain
from dbbasic_queue.crypt import enqueue_sealed, reseal, unsealing
from dbbasic_queue.limits import concurrency, rate
from dbbasic_queue.new import new_job
from dbbasic_queue.schedule import add_schedule, serving
from dbbasic_queue.steps import progress, step
from dbbasic_queue.unique import enqueue_unique

from . import calls, reader, verdict

KEYS = [base64.urlsafe_b64encode(b"a key for these tests, number %d." % n).decode() for n in (1, 2)]
MODE = 0o664  # of the queue file: not what a umask of 022 gives


class Folder:
    """One queue in a folder of its own, what is known of it, and what its handlers did."""

    def __init__(self, path):
        self.path = path
        self.file = path / "data" / "queue.tsv"
        self.opened = self.file  # the path that is given to Queue
        self.copied = path / "data" / "backup" / "queue.tsv"
        self.known = {}  # a name of ours -> id
        self.torn = False  # whether the last line is cut off before anything is done
        self.before = {}  # id -> row, as they were then
        self.archived = []  # ids, then
        self.attributes = None  # of the file, then
        self.last = None  # the Queue that was used last
        self.layers = []  # of each tick

    def queue(self, **options):
        self.last = Queue(self.opened, **{"lock_timeout": 5, **options})
        return self.last

    def look(self):
        """Keep in mind what is there."""
        self.before = self.rows(torn=True)
        self.archived = [row["id"] for row in reader.archived(self.file)]
        self.attributes = reader.attributes(self.file) if self.file.exists() else None

    def copy(self, path):
        shutil.copytree(self.path, path, symlinks=True)
        copy = Folder(path)
        copy.opened = path / self.opened.relative_to(self.path)
        copy.known, copy.torn = dict(self.known), self.torn
        copy.before, copy.archived = self.before, self.archived
        copy.attributes, copy.layers = self.attributes, self.layers
        return copy

    def note(self, name, text):
        """Append a line to a file that is not the queue's: os.write, for a kill may follow."""
        fd = os.open(self.path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, f"{text}\n".encode())
        os.close(fd)

    def noted(self, name):
        note = self.path / name
        return note.read_text().splitlines() if note.exists() else []

    def effects(self):
        """How often each job had its effect."""
        return Counter(line.split()[0] for line in self.noted("effects"))

    def rows(self, *, torn=False):
        return reader.by_id(self.file, torn=torn) if self.file.exists() else {}

    def ids(self, names):
        return {self.known[name] for name in names if name in self.known}

    def statuses(self):
        """The statuses by our names, "" where there is no row."""
        rows = self.rows()
        return {name: rows[id]["status"] if id in rows else "" for name, id in self.known.items()}

    def tick(self, **options):
        self.queue().process_jobs(self.handlers(), middleware=self.layers, **options)

    def handlers(self):
        def run(payload):
            self.note("effects", f"{current_job().id} {current_job().attempts} {os.getpid()}")
            return payload

        def record(payload):
            run(payload)
            current_job().record(progress="half")

        def fail(payload):
            run(payload)
            raise ValueError("it went wrong")

        def fail_first(payload):
            run(payload)
            if current_job().attempts == 1:
                raise ValueError("once")

        def snooze_first(payload):
            run(payload)
            if self.effects()[current_job().id] == 1:
                raise Snooze(0)

        def discard(payload):
            run(payload)
            raise Discard("no such thing")

        def die(payload):
            run(payload)
            if self.effects()[current_job().id] == 1:
                if current_job().queue == "default":
                    calls.attempt(lambda: self.tick(queues=["other"]))  # and another one dies first
                calls.die()
            return "second time"

        def in_steps(payload):
            run(payload)
            id = current_job().id
            for number in range(3):
                step(f"step {number}", self.note, "steps", f"{id} {number} begins")
                self.note("steps", f"{id} {number} is stored")
                progress(number + 1, 3)
            return payload

        def schedule(payload):
            run(payload)
            return serving({})["schedule"](payload)

        return {
            "schedule": schedule,
            "run": run,
            "record": record,
            "fail": fail,
            "fail_first": fail_first,
            "snooze_first": snooze_first,
            "discard": discard,
            "die": die,
            "in_steps": in_steps,
        }


# --- what is there before


def no_folder(folder):
    """Not even the folder of the queue."""


def nothing(folder):
    folder.file.parent.mkdir(parents=True, exist_ok=True)


def an_empty_file(folder):
    nothing(folder)
    folder.file.touch()
    folder.file.chmod(MODE)


def three_jobs(folder):
    nothing(folder)
    queue = folder.queue()
    for name in ("first", "second", "third"):
        folder.known[name] = queue.enqueue("run", {"name": name})
    folder.file.chmod(MODE)


def a_torn_line(folder):
    three_jobs(folder)
    with folder.file.open("ab") as file:
        file.write(b"0123456789abcdef\trun\t{")
    folder.torn = True


def an_open_line(folder):
    """A row with all its tabs, whose newline did not reach the disk."""
    three_jobs(folder)
    folder.known["open"] = folder.queue().enqueue("run")
    os.truncate(folder.file, folder.file.stat().st_size - 1)
    folder.torn = True


def an_unsettled_rename(folder):
    three_jobs(folder)
    side = reader.beside(folder.file)
    side.mkdir(0o775)
    side.joinpath("unsettled").touch()
    side.joinpath("unsettled").chmod(MODE)


def nine_columns(folder):
    three_jobs(folder)
    lines = folder.file.read_bytes().splitlines()
    folder.file.write_bytes(b"".join(b"\t".join(line.split(b"\t")[:9]) + b"\n" for line in lines))


def a_waiting_job(folder):
    three_jobs(folder)
    folder.known["child"] = folder.queue().enqueue("run", after=folder.known["second"])


def a_long_file(folder):
    """One that is so long that the kernel copies most of it, and that has attributes of its own."""
    three_jobs(folder)
    folder.known["long"] = folder.queue().enqueue("run", {"text": "x" * 100_000})
    folder.known["last"] = folder.queue().enqueue("run")
    try:
        os.setxattr(folder.file, "user.note", b"ours")
    except (AttributeError, OSError):
        pass  # a file system without them


def a_link(folder):
    """A queue that is reached by a symbolic link."""
    three_jobs(folder)
    folder.opened = folder.file.with_name("link.tsv")
    folder.opened.symlink_to(folder.file.name)


def finished_jobs(folder):
    three_jobs(folder)
    folder.known["bad"] = folder.queue().enqueue("fail", max_attempts=1)
    folder.known["after"] = folder.queue().enqueue("run", after=folder.known["bad"])
    folder.tick()
    folder.known["fourth"] = folder.queue().enqueue("run", run_at=time.time() + 3600)


def an_archive(folder):
    """One that lacks a column that the next jobs bring."""
    finished_jobs(folder)
    folder.queue().archive(0)
    folder.known = {"fourth": folder.known["fourth"]}
    for name in ("fifth", "sixth"):
        folder.known[name] = folder.queue().enqueue("run", columns={"colour": name})
    folder.tick()


def every_kind(folder):
    """Jobs that end in every way, and one that can never run."""
    three_jobs(folder)
    add = folder.queue().enqueue
    known = folder.known
    known["bad"] = add("fail", max_attempts=1)
    known["again"] = add("fail_first", backoff="none")
    known["snoozed"] = add("snooze_first")
    known["discarded"] = add("discard")
    known["recorded"] = add("record")
    known["child"] = add("run", after=known["first"])
    known["doomed"] = add("run", after=known["bad"])
    known["unknown"] = add("nobody-runs-this")
    known["later"] = add("run", run_at=time.time() + 3600)


def every_feature(folder):
    """A chain that has begun, a batch with what follows it, a held key, a slot that is due."""
    three_jobs(folder)
    queue, known = folder.queue(), folder.known
    chain = enqueue_chain([("run", 1), ("run", 2)], finally_=("run", 3), queue_file=queue)
    known["step"], known["next step"] = (job.id for job in chain.jobs())
    enqueue_batch([("run", 4), ("discard", 5)], then=("run", 6), catch=("run", 7), queue_file=queue)
    known["held"] = enqueue_unique("run", 8, key="key", queue_file=queue)
    with freezegun.freeze_time(datetime.fromtimestamp(time.time() - 5000, timezone.utc)):
        known["schedule"] = add_schedule("hourly", "run", 9, every=3600, queue_file=queue)
    known.update({id: id for id in folder.rows() if id not in known.values()})
    folder.file.chmod(MODE)


def sealed_jobs(folder):
    """Two that run in steps, and three that finished long ago."""
    finished_jobs(folder)
    folder.layers = [unsealing(KEYS)]
    for name in SEALED:
        folder.known[name] = enqueue_sealed(
            "in_steps", {"name": name}, keys=KEYS[:1], queue_file=folder.queue()
        )


def a_dead_worker(folder):
    """One job finished and not folded, one that its worker died in, two claimed and not begun;
    and another worker that died.
    """
    nothing(folder)
    add = folder.queue().enqueue
    for name, kind in (("folded", "run"), ("finished", "run"), ("killed", "die"), ("third", "run")):
        folder.known[name] = add(kind, {"name": name}, max_attempts=9)
    folder.known["last"] = add("run", {"name": "last"}, max_attempts=1)
    folder.known["other"] = add("die", {"name": "other"}, queue="other")
    folder.file.chmod(MODE)
    outcome = calls.attempt(lambda: folder.tick(queues=["default"]))
    assert outcome.killed
    assert len(list(reader.beside(folder.file, "workers").iterdir())) == 2
    assert folder.statuses() == {
        "folded": "completed", "finished": "processing", "killed": "processing",
        "third": "processing", "last": "processing", "other": "processing",
    }  # fmt: skip


def an_archive_and_a_dead_worker(folder):
    finished_jobs(folder)
    folder.queue().archive(0)
    folder.known = {}
    a_dead_worker(folder)


def an_old_backup(folder):
    a_dead_worker(folder)
    folder.copied.parent.mkdir()
    folder.copied.write_bytes(folder.file.read_bytes().splitlines(keepends=True)[0])


# --- what is done


def enqueue(folder):
    folder.note("told", folder.queue().enqueue("run", {"text": "Grüße"}))


def enqueue_many(folder):
    for id in folder.queue().enqueue_many([("run", {"number": n}) for n in range(5)]):
        folder.note("told", id)


def enqueue_with_a_new_column(folder):
    folder.note("told", folder.queue().enqueue("run", priority=5))


def enqueue_a_chain(folder):
    queue = folder.queue(listeners=[lambda event, job: folder.note("told", job.id)])
    enqueue_chain([("run", n) for n in range(4)], finally_=("run", 5), queue_file=queue)


def enqueue_a_key(folder):
    folder.note("told", enqueue_unique("run", "other", key="other", queue_file=folder.queue()))


def edit(folder):
    with folder.queue().edit() as e:
        e.change(e.get(folder.known["second"]), priority=5)
        e.remove(e.get(folder.known["third"]))
        id = e.add(new_job("run", {"text": "Grüße"}))
    folder.note("told", id)


def edit_by_hand(folder):
    """What the command `edit` does when the editor has ended."""
    queue, copied = folder.queue(), io.BytesIO()
    byhand.copy(queue, copied)
    before = copied.getvalue()
    header, *lines = before.splitlines(keepends=True)
    second = lines[1].split(b"\t")
    second[header.split(b"\t").index(b"priority")] = b"5"
    new = b"\trun\tnull" + b"\t" * (header.count(b"\t") - 2) + b"\n"
    typed = [header, lines[0], b"\t".join(second), *lines[3:], new]
    done = byhand.apply(queue, before, b"".join(typed))
    assert not done.refused, [(one.why, one.text) for one in done.refused]
    folder.note("told", *done.added)


def cancel(folder):
    assert folder.queue().cancel(folder.known["second"])
    folder.note("told", "cancelled")


def retry(folder):
    folder.queue().retry(folder.known["bad"])
    folder.note("told", "retried")


def purge(folder):
    folder.queue().purge(ids=[folder.known["first"], folder.known["third"]])
    folder.note("told", "purged")


def archive(folder):
    folder.queue().archive(0)
    folder.note("told", "archived")


def backup(folder):
    folder.queue().backup(folder.copied)
    folder.note("told", "copied")


def ask(folder):
    """Ask in every way; each question that is answered is noted."""
    queue = folder.queue()
    questions = [
        lambda: {id: queue.get(id).status for id in folder.known.values()},
        lambda: {job.id: job.status for job in queue.jobs()},
        lambda: {job.id: job.status for job in queue.jobs(newest=True)},
        lambda: {job.id: job.status for job in queue.jobs("processing")},
        lambda: {id: queue.get(id).status for id in folder.archived},
        lambda: {"counts": queue.counts()},
        lambda: {"workers": len(queue.workers())},
    ]
    errors = []
    for question in questions:
        try:
            folder.note("told", json.dumps(question()))
        except QueueError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def tick(folder):
    folder.tick()
    folder.note("told", "ticked")


def tick_with_upkeep(folder):
    """A tick that moves what has finished to the archive."""
    folder.tick(keep=dict.fromkeys(("completed", "failed", "cancelled"), 0))
    folder.note("told", "archived")


def change_the_key(folder):
    reseal(KEYS[::-1], queue_file=folder.queue())
    folder.note("told", "sealed anew")


def tick_with_limits(folder):
    """A tick in which a job may start only when two limits let it, and its start is noted."""
    limits = [rate(9, 60, type="discard"), concurrency(1, type="discard")]
    folder.tick(admit=limits)
    folder.note("told", "ticked")


# --- all of it


class Scene(NamedTuple):
    prepare: object
    act: object
    judge: object
    takes: tuple = ()  # the names of the jobs that it may remove
    faults: tuple = ()  # the names of those that it meets; all
    again: int = 1  # so often one after the other
    changes: tuple = ()  # columns of what it finds


KILL = ("killed before",)
SEALED = ("sealed", "sealed too")
FINISHED = ("first", "second", "third", "bad", "after", "fifth", "sixth")
SCENES = {
    "first use": Scene(no_folder, enqueue, verdict.added),
    "first use of a folder": Scene(nothing, enqueue, verdict.added),
    "first use of an empty file": Scene(an_empty_file, enqueue, verdict.added),
    "enqueue": Scene(three_jobs, enqueue, verdict.added),
    "enqueue behind a torn line": Scene(a_torn_line, enqueue, verdict.added),
    "enqueue behind an open line": Scene(an_open_line, enqueue, verdict.added),
    "enqueue after an unsettled rename": Scene(an_unsettled_rename, enqueue, verdict.added),
    "enqueue into nine columns": Scene(nine_columns, enqueue_with_a_new_column, verdict.added),
    "enqueue_many": Scene(three_jobs, enqueue_many, verdict.added),
    "enqueue a chain": Scene(three_jobs, enqueue_a_chain, verdict.added),
    "enqueue a key": Scene(three_jobs, enqueue_a_key, verdict.added),
    "enqueue a key into its column": Scene(every_feature, enqueue_a_key, verdict.added),
    "edit": Scene(a_long_file, edit, verdict.edited, ("third",)),
    "edit through a link": Scene(a_link, edit, verdict.edited, ("third",)),
    "edit by hand": Scene(a_long_file, edit_by_hand, verdict.edited, ("third",)),
    "cancel": Scene(a_waiting_job, cancel, verdict.cancelled),
    "retry": Scene(finished_jobs, retry, verdict.retried),
    "purge": Scene(finished_jobs, purge, verdict.purged, ("first", "third")),
    "archive": Scene(finished_jobs, archive, verdict.archived, FINISHED),
    "archive with a new column": Scene(an_archive, archive, verdict.archived, FINISHED),
    "tick with upkeep": Scene(
        finished_jobs, tick_with_upkeep, verdict.archived, FINISHED, faults=KILL
    ),
    "backup": Scene(an_old_backup, backup, verdict.copied),
    "tick": Scene(every_kind, tick, verdict.ticked),
    "tick with every feature": Scene(every_feature, tick_with_limits, verdict.ticked),
    "recovery": Scene(a_dead_worker, tick, verdict.ticked),
    "recovery, killed twice": Scene(a_dead_worker, tick, verdict.ticked, faults=KILL, again=2),
    "recovery, killed thrice": Scene(a_dead_worker, tick, verdict.ticked, faults=KILL, again=3),
    "questions": Scene(an_archive_and_a_dead_worker, ask, verdict.answered),
}
if find_spec("cryptography"):
    SCENES |= {
        "tick with steps and seals": Scene(sealed_jobs, tick, verdict.cared),
        "tick with steps, seals and upkeep": Scene(
            sealed_jobs, tick_with_upkeep, verdict.cared, (*FINISHED, *SEALED), faults=KILL
        ),
        "reseal": Scene(sealed_jobs, change_the_key, verdict.cared, changes=("payload",)),
    }
QUICK = [  # those that the plain run of the tests can afford
    "enqueue", "enqueue behind a torn line", "enqueue behind an open line",
    "enqueue after an unsettled rename", "enqueue_many", "retry", "tick",
]  # fmt: skip
NEXT = [
    "first use of a folder", "enqueue into nine columns", "cancel", "purge", "archive", "recovery",
]  # fmt: skip
