"""What is done while the log of a power cut is written, with marks of what users were told.

An act runs in a child of its own.  Its marks are promises from there on, or say that something has
begun and may or may not be seen.
"""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from dbbasic_queue import Discard, Queue, current_job

from . import reader

FINISHING = ("completed", "failed", "cancelled")
TEXT = "Grüße " * 200  # a row that lies in several sectors


class Place:
    """One queue that is recorded: where it is, how it is synced, and what is known of it."""

    def __init__(self, root, sync, file="data/queue.tsv"):
        self.root = Path(root)
        self.file = self.root / file
        self.backup = self.root / "backups" / "queue.tsv"
        self.sync = sync
        self.known = {}  # a name of ours -> id
        self.recorder = None
        self.over = []  # ids of the jobs whose handler has ended in this process

    def queue(self):
        return Queue(self.file, sync=self.sync, lock_timeout=5)

    def mark(self, what, *values):
        if self.recorder:
            self.recorder.mark(what, *values)

    def told(self, *ids):
        for id in ids:
            self.mark("told", id)

    def finished(self, *ids):
        for id in ids:
            self.mark("finished", id)

    def tick(self):
        def listen(event, job):
            if event in FINISHING:
                self.finished(job.id)

        self.queue().process_jobs(self.handlers(), listeners=[listen])
        self.finished(*self.over)

    def handlers(self):
        """Return handlers that mark when they begin and when they have ended."""

        def marked(does):
            def handler(payload):
                id = current_job().id
                if self.sync == "full":
                    self.finished(*self.over)  # else this one could not have begun
                self.mark("began", id)
                try:
                    return does(payload)
                finally:
                    self.over += [] if goes_back() else [id]

            return handler

        return {name: marked(does) for name, does in {**HANDLERS, "slow": self.slow}.items()}

    def slow(self, payload):
        """Outlast the side thread's fold: what ended before is then finished, sync full or not."""
        until = time.monotonic() + 2
        unsettled = self.file.with_name(self.file.name + ".d") / "unsettled"
        ended = set(self.over)
        while ended & self.unfinished() or unsettled.exists():
            if time.monotonic() > until:
                raise TimeoutError("what has ended is not folded within 2 s")
            time.sleep(0.01)
        self.finished(*self.over)

    def unfinished(self):
        rows = reader.by_id(self.file)
        return {id for id, row in rows.items() if row["status"] not in FINISHING}


# --- the handlers, of the recording and of the recovery


def run(payload):
    return payload


def fail(payload):
    raise ValueError("it went wrong")


def fail_first(payload):
    if current_job().attempts == 1:
        raise ValueError("once")


def discard(payload):
    raise Discard("no such thing")


def die_first(payload):
    if current_job().attempts == 1:
        os.kill(os.getpid(), signal.SIGKILL)


HANDLERS = {
    "run": run,
    "fail": fail,
    "fail_first": fail_first,
    "discard": discard,
    "die_first": die_first,
}


def goes_back():
    """Whether the running job will be put back."""
    job = current_job()
    return job.type == "fail_first" and job.attempts == 1


# --- what is there before


def nothing(place):
    place.root.mkdir(exist_ok=True)


def a_folder(place):
    place.file.parent.mkdir(parents=True)


def an_empty_file(place):
    a_folder(place)
    place.file.touch()


def three_jobs(place):
    a_folder(place)
    for name in ("first", "second", "third"):
        place.known[name] = place.queue().enqueue("run", {"name": name})


def a_torn_line(place):
    three_jobs(place)
    with place.file.open("ab") as file:
        file.write(b"0123456789abcdef\trun\t{")


def an_open_line(place):
    """A row of which only the newline is missing: not acknowledged, and whole all the same."""
    three_jobs(place)
    place.queue().enqueue("run")
    os.truncate(place.file, place.file.stat().st_size - 1)


def an_old_file_without_a_side(place):
    """Jobs that the old package has finished, and nothing beside the file."""
    nine_columns(place)
    place.file.write_bytes(place.file.read_bytes().replace(b"pending", b"completed"))


def nine_columns(place):
    three_jobs(place)
    lines = place.file.read_bytes().splitlines()
    place.file.write_bytes(b"".join(b"\t".join(line.split(b"\t")[:9]) + b"\n" for line in lines))


def a_waiting_job(place):
    three_jobs(place)
    place.known["child"] = place.queue().enqueue("run", after=place.known["second"])


def several_kinds(place):
    three_jobs(place)
    add, known = place.queue().enqueue, place.known
    known["bad"] = add("fail", max_attempts=1)
    known["again"] = add("fail_first", backoff="none")
    known["discarded"] = add("discard")
    known["child"] = add("run", after=known["first"])
    known["doomed"] = add("run", after=known["bad"])


def quick_ones_and_a_slow_one(place):
    a_folder(place)
    for name in ("first", "second"):
        place.known[name] = place.queue().enqueue("run", {"name": name})
    place.known["slow"] = place.queue().enqueue("slow")
    place.known["third"] = place.queue().enqueue("run", {"name": "third"})


def many_with_long_results(place):
    """A worker's file of several pages between two syncs."""
    a_folder(place)
    jobs = [("run", {"number": number, "text": "x" * 500}) for number in range(24)]
    ids = place.queue().enqueue_many(jobs)
    place.known |= {f"job {number}": id for number, id in enumerate(ids)}


def one_that_kills(place):
    a_folder(place)
    add, known = place.queue().enqueue, place.known
    known["first"] = add("run")
    known["second"] = add("run")
    known["killer"] = add("die_first")
    known["third"] = add("run")


def finished_jobs(place):
    three_jobs(place)
    place.known["bad"] = place.queue().enqueue("fail", max_attempts=1)
    place.known["after"] = place.queue().enqueue("run", after=place.known["bad"])
    place.queue().process_jobs(HANDLERS)
    place.known["fourth"] = place.queue().enqueue("run")


def an_old_archive(place):
    """Finished jobs, and the archive of this month with the nine columns and a job in it."""
    finished_jobs(place)
    place.queue().archive(0)
    month = next(place.file.with_name("queue.tsv.d").joinpath("archive").iterdir())
    lines = month.read_bytes().splitlines()
    month.write_bytes(b"".join(b"\t".join(line.split(b"\t")[:9]) + b"\n" for line in lines))
    place.known["fifth"] = place.queue().enqueue("run")
    place.queue().process_jobs(HANDLERS)


def a_folder_for_backups(place):
    three_jobs(place)
    place.backup.parent.mkdir()


def an_old_backup(place):
    a_folder_for_backups(place)
    place.queue().backup(place.backup)
    place.known["fourth"] = place.queue().enqueue("run")


# --- what is done


def enqueue(place):
    place.told(place.queue().enqueue("run", {"text": "Grüße"}))


def enqueue_three(place):
    queue = place.queue()
    for number in range(3):
        place.told(queue.enqueue("run", {"number": number}))


def enqueue_long(place):
    place.told(place.queue().enqueue("run", {"text": TEXT}))


def enqueue_many(place):
    jobs = [("run", {"number": number, "text": "x" * 40 * number}) for number in range(8)]
    place.told(*place.queue().enqueue_many(jobs))


def enqueue_with_a_new_column(place):
    place.told(place.queue().enqueue("run", priority=5))


def cancel(place):
    ids = [place.known["second"]] + [
        place.known[name] for name in ("child",) if name in place.known
    ]
    for id in ids:
        place.mark("cancelling", id)
    assert place.queue().cancel(place.known["second"])
    for id in ids:
        place.mark("cancelled", id)


def retry(place):
    for name in ("bad", "after"):
        place.mark("retrying", place.known[name])
    place.queue().retry(place.known["bad"])


def purge(place):
    ids = [place.known["first"], place.known["third"]]
    for id in ids:
        place.mark("purging", id)
    place.queue().purge(ids=ids)
    for id in ids:
        place.mark("purged", id)


def archive(place):
    place.mark("archiving")
    place.queue().archive(0)


def backup(place):
    place.queue().backup(place.backup)
    place.mark("backed up")


def tick(place):
    place.tick()


# --- all of it


class Scene(NamedTuple):
    before: object
    acts: tuple
    kills: bool = False  # at each call of the first act; then come the others
    file: str = "data/queue.tsv"
    syncs: tuple = ("normal",)


BOTH = ("normal", "full")
SCENES = {
    "first use": Scene(nothing, (enqueue, enqueue), syncs=BOTH),
    "first use, deep": Scene(nothing, (enqueue, enqueue), file="a/b/c/queue.tsv"),
    "first use of an empty file": Scene(an_empty_file, (enqueue, enqueue)),
    "enqueue": Scene(three_jobs, (enqueue_three,), syncs=BOTH),
    "enqueue, long": Scene(three_jobs, (enqueue_long, enqueue)),
    "enqueue behind a torn line": Scene(a_torn_line, (enqueue,)),
    "enqueue behind an open line": Scene(an_open_line, (enqueue,)),
    "enqueue_many": Scene(three_jobs, (enqueue_many,), syncs=BOTH),
    "enqueue into nine columns": Scene(nine_columns, (enqueue_with_a_new_column,), syncs=BOTH),
    "cancel": Scene(a_waiting_job, (cancel,), syncs=BOTH),
    "retry": Scene(finished_jobs, (retry,)),
    "purge": Scene(finished_jobs, (purge,)),
    "archive": Scene(finished_jobs, (archive,), syncs=BOTH),
    "archive into an old one": Scene(an_old_archive, (archive,)),
    "backup": Scene(a_folder_for_backups, (backup,)),
    "backup over an old one": Scene(an_old_backup, (backup,)),
    "tick": Scene(several_kinds, (tick,), syncs=BOTH),
    "tick with a slow job": Scene(quick_ones_and_a_slow_one, (tick,), syncs=BOTH),
    "tick with long results": Scene(many_with_long_results, (tick,)),
    "ticks and enqueues": Scene(three_jobs, (tick, enqueue, tick, enqueue), syncs=BOTH),
    "a worker dies": Scene(one_that_kills, (tick, tick), syncs=BOTH),
    "first use killed, enqueue": Scene(nothing, (enqueue, enqueue), kills=True),
    "enqueue killed, enqueue": Scene(three_jobs, (enqueue_long, enqueue), kills=True),
    "torn line killed, enqueue": Scene(a_torn_line, (enqueue, enqueue), kills=True),
    "open line killed, enqueue": Scene(an_open_line, (enqueue, enqueue), kills=True),
    "widening killed, enqueue": Scene(
        nine_columns, (enqueue_with_a_new_column, enqueue), kills=True
    ),
    "cancel killed, enqueue": Scene(three_jobs, (cancel, enqueue), kills=True, syncs=BOTH),
    "cancel killed, tick": Scene(three_jobs, (cancel, tick), kills=True, syncs=BOTH),
    "archive killed, enqueue": Scene(finished_jobs, (archive, enqueue), kills=True),
    "archive killed, archive": Scene(finished_jobs, (archive, archive), kills=True),
    "archive of an old file killed, archive": Scene(
        an_old_file_without_a_side, (archive, archive), kills=True
    ),
    "backup killed, backup": Scene(an_old_backup, (backup, backup), kills=True),
    "tick killed, enqueue": Scene(three_jobs, (tick, enqueue), kills=True, syncs=BOTH),
    "tick killed, tick": Scene(three_jobs, (tick, tick), kills=True, syncs=BOTH),
}
