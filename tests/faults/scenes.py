"""What is done while a call goes wrong, and what must hold afterwards.

A scene is made once and copied for each call.  After the fault `judge` reads the file with a reader
that shares nothing with the package; then the queue must take and run another job, by itself.
"""

import itertools
import logging
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
        self.torn = False  # whether the last line is cut off before anything is done

    def queue(self, **options):
        return Queue(self.file, **{"lock_timeout": 5, **options})

    def copy(self, path):
        shutil.copytree(self.path, path, symlinks=True)
        copy = Folder(path)
        copy.known, copy.torn = dict(self.known), self.torn
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
    folder.torn = True


def an_open_line(folder):
    """A row with all its tabs, whose newline did not reach the disk."""
    three_jobs(folder)
    folder.known["open"] = folder.queue().enqueue("run")
    os.truncate(folder.file, folder.file.stat().st_size - 1)
    folder.torn = True


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
        folder.known[name] = add(kind, {"name": name}, max_attempts=9)
    folder.known["last"] = add("run", {"name": "last"}, max_attempts=1)
    folder.file.chmod(MODE)
    outcome = calls.attempt(folder.tick)
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
    folder.queue().archive(0)
    folder.note("told", "archived")


def tick(folder):
    folder.tick()


# --- what must hold right after the fault


def judge_added(folder, outcome):
    """Who was told an id has his job; who got an exception has none; no other job is touched."""
    told = folder.noted("told")
    torn = outcome.killed or (outcome.raised and folder.torn) or "error from" in outcome.struck
    rows = folder.rows(torn=torn)
    added = [id for id in rows if id not in folder.known.values()]
    lost = set(folder.known) - {name for name, id in folder.known.items() if id in rows}
    assert lost <= {"open"}  # which is a row again when the next one closes its line
    assert set(told) <= set(added)
    if outcome.raised and "I/O error from" not in outcome.struck:
        assert not added or "changed, but not known" in outcome.text, f"{outcome.text}: it is there"
    if "middle" not in outcome.struck:
        assert len(added) in (0, 1, 5), added


def judge_cancelled(folder, outcome):
    states = statuses(folder)
    one = "cancelled" if states["second"] == "cancelled" else "pending"
    assert states == {"first": "pending", "second": one, "third": "pending", "child": one}
    assert one == "cancelled" or not folder.noted("told")
    assert one == "pending" or not outcome.raised or "changed, but not known" in outcome.text


def judge_retried(folder, outcome):
    states = statuses(folder)
    both = states["bad"], states["after"]
    assert both in (("failed", "cancelled"), ("pending", "pending"))
    assert both == ("pending", "pending") or not folder.noted("told")


def judge_purged(folder, outcome):
    gone = {name for name, status in statuses(folder).items() if not status}
    assert gone in (set(), {"first", "third"})
    assert gone or not folder.noted("told")


def judge_archived(folder, outcome):
    """A row is in the file or in the archive, and after the next archive() once in the archive."""
    queue = folder.queue()
    assert all(queue.get(id) for id in folder.known.values())

    queue.archive(0)
    months = folder.file.with_name("queue.tsv.d").joinpath("archive").glob("*.tsv")
    archived = [row["id"] for month in months for row in reader.read(month)]

    finished = {id for name, id in folder.known.items() if name != "fourth"}
    assert sorted(archived) == sorted(finished)
    assert set(folder.rows()) == {folder.known["fourth"]}


def judge_tick(folder, outcome):
    assert set(folder.known.values()) == set(folder.rows())


def statuses(folder):
    rows = folder.rows()
    return {name: rows[id]["status"] if id in rows else "" for name, id in folder.known.items()}


# --- what must hold in the end

RUNS = {"run": 1, "fail": 1, "fail_first": 2, "snooze_first": 2, "discard": 1, "die": 2}
FAIL = ("fail", "discard")


def go_on(folder, *, kills, unrecorded=0):
    """Take another job and run all that is left: nothing that was finished runs again.

    There may be one extra run for each kill, and for each outcome that no disk took.
    """
    queue = folder.queue()
    finished = {id for id in folder.rows(torn=True) if queue.get(id).finished}
    before = folder.effects()
    another = queue.enqueue("run", {"name": "another"})
    for _ in range(3):
        folder.tick()
        rows = folder.rows()
        ends = {id: possible_ends(row, kills + unrecorded) for id, row in rows.items()}
        odd = [row.line.decode() for id, row in rows.items() if row["status"] not in ends[id]]
        if not odd:
            break

    assert not odd
    effects = folder.effects()
    assert rows[another]["status"] == "completed"
    again = {id for id in finished if effects[id] > before[id]}
    assert not again, f"finished, and run again: {again}"
    usual = Counter({id: RUNS.get(row["type"], 0) for id, row in rows.items()})
    if "after" in folder.known and folder.known["bad"] not in finished:
        usual[folder.known["bad"]] += 1  # it was retried
    extra = (Counter({id: effects[id] for id in rows}) - usual).total()
    assert extra <= kills + unrecorded, f"{extra} extra runs"
    charged = (Counter({id: int(row["attempts"]) for id, row in rows.items()}) - effects).total()
    assert charged <= kills, f"{charged} attempts are charged for which no job ran"
    assert not reader.leftovers(folder.file)
    modes = reader.modes(folder.file)
    assert modes["queue.tsv"] in (MODE, 0o640)
    assert not {name: oct(mode) for name, mode in modes.items() if mode & ~MODE}


def possible_ends(row, kills):
    if row["type"] == "nobody-runs-this" or int(row["run_at"]) > time.time() + 1000:
        return ("pending",)
    if row["status"] == "cancelled":
        return ("cancelled",) if row["after"] or not row["error"] else ()
    if row["type"] in FAIL:
        return ("failed",)
    if kills and row["max_attempts"] == "1" and row["error"].startswith("worker died"):
        return ("failed",)
    return ("completed",)


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


def problems_of(scene, mode, path, *, again=1, every=1):
    """Let each call of a scene, or `every` so many-th, go wrong in turn, `again` times over.

    Return how many went wrong, and what was wrong after which.
    """
    base = Folder(path / "base")
    base.path.mkdir()
    problems = []
    logger = logging.getLogger("dbbasic_queue")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # its workers fail and die by the dozen
    try:
        SCENES[scene][0](base)
        for turn in itertools.count():
            number = 1 + turn * every
            folder = base.copy(path / str(number))
            outcome, problem = after_the_fault(folder, scene, mode, number, again)
            if not outcome.struck:
                assert not outcome.raised, f"without a fault: {outcome}"
                return turn, problems
            if problem:
                problems.append(problem)
            shutil.rmtree(folder.path)
    finally:
        logger.setLevel(level)


def after_the_fault(folder, scene, mode, number, again):
    """Let one call go wrong; return the outcome, and what was wrong then, if anything."""
    _, act, judge = SCENES[scene]
    for _ in range(again):
        outcome = calls.attempt(lambda: act(folder), mode, number)
    if not outcome.struck:
        return outcome, ""
    kills = again if outcome.killed else 0
    try:
        assert not outcome.raised or "QueueError" in outcome.raised, "none of our errors"
        judge(folder, outcome)
        go_on(folder, kills=kills, unrecorded="I/O error from" in outcome.struck)
    except Exception as problem:
        text = str(problem).partition("\n")[0][:300]
        then = f", then {outcome.raised[0]}: {outcome.text}" if outcome.raised else ""
        return outcome, f"{outcome.struck}{then}: {type(problem).__name__}: {text}"
    return outcome, ""
