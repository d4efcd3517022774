"""What is done while a call goes wrong, and what must hold afterwards.

A scene is made once and copied for each call.  After the fault `judge` reads the file with a reader
that shares nothing with the package; then the queue must take and run another job, by itself.
"""

import os
import shutil
import time
from collections import Counter

from dbbasic_queue import Discard, Queue, Snooze, current_job

from . import calls, reader

MODE = 0o664  # of the queue file: not what a umask of 022 gives


class Folder:
    """One queue in a folder of its own, what is known of it, and what its handlers did."""

    def __init__(self, path):
        self.path = path
        self.file = path / "data" / "queue.tsv"
        self.known = {}  # a name of ours -> id

    def queue(self, **options):
        return Queue(self.file, **{"lock_timeout": 5, **options})

    def copy(self, path):
        shutil.copytree(self.path, path, symlinks=True)
        copy = Folder(path)
        copy.known = dict(self.known)
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

    def tick(self, **options):
        self.queue().process_jobs(self.handlers(), **options)

    def handlers(self):
        def run(payload):
            self.note("effects", f"{current_job().id} {current_job().attempts} {os.getpid()}")
            return payload

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
                calls.die()
            return "second time"

        return {
            "run": run,
            "fail": fail,
            "fail_first": fail_first,
            "snooze_first": snooze_first,
            "discard": discard,
            "die": die,
        }


# --- what is there before


def nothing(folder):
    folder.file.parent.mkdir(parents=True)


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


def an_open_line(folder):
    """A row with all its tabs, whose newline did not reach the disk."""
    three_jobs(folder)
    folder.known["open"] = folder.queue().enqueue("run")
    os.truncate(folder.file, folder.file.stat().st_size - 1)


def an_unsettled_rename(folder):
    three_jobs(folder)
    side = folder.file.with_name("queue.tsv.d")
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


def finished_jobs(folder):
    three_jobs(folder)
    folder.known["bad"] = folder.queue().enqueue("fail", max_attempts=1)
    folder.known["after"] = folder.queue().enqueue("run", after=folder.known["bad"])
    folder.tick()
    folder.known["fourth"] = folder.queue().enqueue("run", run_at=time.time() + 3600)


def every_kind(folder):
    """Jobs that end in every way, and one that can never run."""
    three_jobs(folder)
    add = folder.queue().enqueue
    known = folder.known
    known["bad"] = add("fail", max_attempts=1)
    known["again"] = add("fail_first", backoff="none")
    known["snoozed"] = add("snooze_first")
    known["discarded"] = add("discard")
    known["child"] = add("run", after=known["first"])
    known["doomed"] = add("run", after=known["bad"])
    known["unknown"] = add("nobody-runs-this")
    known["later"] = add("run", run_at=time.time() + 3600)


def a_dead_worker(folder):
    """One job finished and not folded, one that its worker died in, two claimed and not begun."""
    nothing(folder)
    add = folder.queue().enqueue
    for name, kind in (("folded", "run"), ("finished", "run"), ("killed", "die"), ("third", "run")):
        folder.known[name] = add(kind, {"name": name})
    folder.known["last"] = add("run", {"name": "last"}, max_attempts=1)
    folder.file.chmod(MODE)
    outcome = calls.attempt(folder.tick, calls.modes()[0], 10**9)
    assert outcome.killed
    rows = folder.rows()
    states = {name: rows[folder.known[name]]["status"] for name in folder.known}
    assert states == {
        "folded": "completed", "finished": "processing", "killed": "processing",
        "third": "processing", "last": "processing",
    }  # fmt: skip


# --- what is done


def enqueue(folder):
    folder.note("told", folder.queue().enqueue("run", {"text": "Grüße"}))


def enqueue_many(folder):
    for id in folder.queue().enqueue_many([("run", {"number": n}) for n in range(5)]):
        folder.note("told", id)


def enqueue_with_a_new_column(folder):
    folder.note("told", folder.queue().enqueue("run", priority=5))


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
    folder.queue().archive(-10)
    folder.note("told", "archived")


def tick(folder):
    folder.tick()


# --- what must hold


def judge_added(folder, outcome):
    """Who was told an id has his job; who got an exception has none; nobody else lost one."""
    told = folder.noted("told")
    rows = folder.rows(torn=outcome.killed or "from" in outcome.struck)
    added = [id for id in rows if id not in folder.known.values()]
    assert set(folder.known.values()) <= {*rows, *_the_open_row(folder, rows)}
    assert set(told) <= set(added)
    if outcome.raised:
        assert "QueueError" in outcome.raised, outcome
        if "I/O error from" not in outcome.struck and "sync error" not in outcome.struck:
            assert not added, f"it raised {outcome.text}, and the job is there"
    if "middle" not in outcome.struck:
        assert len(added) in (0, 1, 5), added
    return Counter(dict.fromkeys(rows, 1))


def _the_open_row(folder, rows):
    return [folder.known["open"]] if "open" in folder.known and folder.known["open"] not in rows else []


def judge_cancelled(folder, outcome):
    rows = folder.rows()
    states = {name: rows[id]["status"] for name, id in folder.known.items()}
    one = "cancelled" if states["second"] == "cancelled" else "pending"
    assert states == {"first": "pending", "second": one, "third": "pending", "child": one}
    if folder.noted("told"):
        assert one == "cancelled"
    if outcome.raised:
        assert "QueueError" in outcome.raised, outcome
        assert one == "pending" or "changed, but not known" in outcome.text
    return Counter({row["id"]: row["status"] == "pending" for row in rows.values()})


def judge_retried(folder, outcome):
    rows = folder.rows()
    states = {name: rows[id]["status"] for name, id in folder.known.items()}
    both = states["bad"], states["after"]
    assert both in (("failed", "cancelled"), ("pending", "pending")), both
    if folder.noted("told"):
        assert both == ("pending", "pending")
    if outcome.raised:
        assert "QueueError" in outcome.raised, outcome
    return None


def judge_purged(folder, outcome):
    rows = folder.rows()
    gone = {name for name, id in folder.known.items() if id not in rows}
    assert gone in (set(), {"first", "third"})
    if folder.noted("told"):
        assert gone
    if outcome.raised:
        assert "QueueError" in outcome.raised, outcome
    return None


def judge_archived(folder, outcome):
    """A row is in the file or in the archive, and after the next archive() once in the archive."""
    if outcome.raised:
        assert "QueueError" in outcome.raised, outcome
    queue = folder.queue()
    queue.archive(-10)
    rows = folder.rows()
    lines = []
    for month in folder.file.with_name("queue.tsv.d").joinpath("archive").glob("*.tsv"):
        lines += [row["id"] for row in reader.read(month)]
    finished = {folder.known[name] for name in ("first", "second", "third", "bad", "after")}
    assert sorted(lines) == sorted(finished)
    assert not finished & set(rows)
    assert queue.get(folder.known["bad"]).status == "failed"
    return None


def judge_tick(folder, outcome):
    """What is finished was finished for good; what is not is there."""
    rows = folder.rows()
    assert set(folder.known.values()) == set(rows)
    if outcome.raised:
        assert "QueueError" in outcome.raised, outcome
    finished = [id for id in rows if folder.queue().get(id).finished]
    return Counter({id: folder.effects()[id] for id in finished})


# --- all of it

SCENES = {
    "first use": (nothing, enqueue, judge_added),
    "enqueue": (three_jobs, enqueue, judge_added),
    "enqueue behind a torn line": (a_torn_line, enqueue, judge_added),
    "enqueue behind an open line": (an_open_line, enqueue, judge_added),
    "enqueue after an unsettled rename": (an_unsettled_rename, enqueue, judge_added),
    "enqueue into nine columns": (nine_columns, enqueue_with_a_new_column, judge_added),
    "enqueue_many": (three_jobs, enqueue_many, judge_added),
    "cancel": (a_waiting_job, cancel, judge_cancelled),
    "retry": (finished_jobs, retry, judge_retried),
    "purge": (finished_jobs, purge, judge_purged),
    "archive": (finished_jobs, archive, judge_archived),
    "tick": (every_kind, tick, judge_tick),
    "recovery": (a_dead_worker, tick, judge_tick),
}
