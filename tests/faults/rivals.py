"""Several meet in one queue, each at the very moment that it takes.

Nobody sleeps and hopes: who is to be met says where it is, and goes on when it is told to.
"""

import fcntl
import json
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from dbbasic_queue import Queue, QueueError, Snooze, current_job
from dbbasic_queue.errors import QueueBusy
from dbbasic_queue.new import new_job

from . import reader
from .children import Children, until
from .cuts import silence
from .sabotage import nothing

FOREIGN = "00000000000f0e1d"  # the id of the row that a foreign program adds


class Place:
    """A queue of three jobs in a folder of its own, and what was said of it."""

    def __init__(self, path, without=nothing):
        path.mkdir(parents=True)
        self.path = path.resolve()
        self.file = self.path / "queue.tsv"
        self.without = without  # takes a safeguard away, in each process that uses the queue
        self.known = [self.queue().enqueue("run", name) for name in ("first", "second", "third")]
        self.cancelled = set()
        self.problems = []

    def queue(self, **options):
        return Queue(self.file, **{"sync": "off", "lock_timeout": 5, **options})

    def go(self):
        self.path.joinpath("go").touch()

    def wait(self):
        until(self.path.joinpath("go").exists)

    def has_opened(self, child):
        """Whether a process has opened the queue and its lock, so that it waits for one of them."""
        opened = set()
        for fd in Path(f"/proc/{child.pid}/fd").iterdir():
            try:
                opened.add(os.readlink(fd))
            except FileNotFoundError:
                continue  # closed meanwhile
        return opened >= {str(self.file), f"{self.file}.lock"} or child.ended

    def take(self, verb, said):
        """Note what a verb has said; whether it was busy."""
        what, text = json.loads(said or '["ended", "without a word"]')
        if what == "busy":
            return True
        if what != "done":
            self.problems.append(f"{verb}: {what}: {text}")
        elif verb == "enqueue":
            self.known.append(text)
        elif verb == "cancel":
            self.cancelled.add(text)
        return False

    def wrong(self):
        """Return what is wrong by now, and what is when all is done."""
        try:
            self.judge(reader.by_id(self.file))
            self.queue(lock_timeout=1).process_jobs({"run": lambda payload: payload})
            rows = reader.by_id(self.file)
            self.judge(rows)
            ends = {id: row["status"] for id, row in rows.items()}
            wanted = {id: "cancelled" if id in self.cancelled else "completed" for id in ends}
            if ends != wanted:
                self.problems.append(f"in the end: {sorted(ends.items() - wanted.items())}")
        except (AssertionError, QueueError) as problem:
            self.problems.append(f"{type(problem).__name__}: {problem}")
        return list(dict.fromkeys(self.problems))

    def judge(self, rows):
        if lost := set(self.known) - rows.keys():
            self.problems.append(f"lost: {sorted(lost)}")
        if others := rows.keys() - set(self.known):
            self.problems.append(f"nobody was told of: {sorted(others)}")


# --- what is done


def do(say, place, verb, timeout):
    """In a child: one verb; it says how that went."""
    place.without()
    say(json.dumps(went(place, place.queue(lock_timeout=timeout), verb)))


def went(place, queue, verb):
    """Do one verb; return ("busy" | "done" | the error, what it says)."""
    try:
        return "done", VERBS[verb](place, queue)
    except QueueBusy:
        return "busy", ""
    except Exception as problem:
        return type(problem).__name__, str(problem)


def cancel(place, queue):
    assert queue.cancel(place.known[1])
    return place.known[1]


VERBS = {
    "enqueue": lambda place, queue: queue.enqueue("run", "of a rival"),
    "cancel": cancel,
    "tick": lambda place, queue: queue.process_jobs({"run": lambda payload: payload}),
}


# --- a program that is not ours: it takes the kernel's lock of the queue file, as `flock` does


def append(say, place, first):
    """Append a row, whose first bytes are there before it is told to go on."""
    line = f"{FOREIGN}\trun\t1\tpending\t1\t1\t0\t\t\n".encode()
    with open(place.file, "ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line[:first])
        say("has it")
        place.wait()
        file.write(line[first:])


def save(say, place):
    """Save a file with another row, and keep the old one under another name, as editors do."""
    with open(place.file, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        say("has it")
        place.wait()
        new, old = place.path / "new", place.path / "queue.tsv~"
        new.write_bytes(file.read() + f"{FOREIGN}\trun\t1\tpending\t1\t1\t0\t\t\n".encode())
        os.link(place.file, old)
        new.rename(place.file)


def a_foreign_program_appends(path, without=nothing):
    """Yield (case, problems): somebody comes before its row is there, or in the middle of it."""
    for verb in VERBS:
        for first in (0, 20):
            place = Place(path / f"{verb}-{first}", without)
            with Children() as children:
                program = children.start(append, place, first)
                program.hear()
                asks_once = children.start(do, place, verb, 0)
                busy = place.take(verb, asks_once.hear())
                place.go()
                program.wait()
                if busy:
                    place.take(verb, children.start(do, place, verb, 5).hear())
            place.known.append(FOREIGN)
            yield f"{verb} after {first} bytes of a foreign row", place.wrong()


# --- a file that is replaced while somebody waits for it


def edit(say, place):
    with place.queue().edit() as e:
        say("has it")
        place.wait()
        e.change(e.get(place.known[0]), priority=5)


def a_rename_while_somebody_waits(path, without=nothing):
    """Yield (case, problems): the file that was waited for is no longer the queue."""
    for how in (edit, save):
        for verb in VERBS:
            place = Place(path / f"{how.__name__}-{verb}", without)
            with Children() as children:
                holder = children.start(how, place)
                holder.hear()
                waiter = children.start(do, place, verb, 20)
                until(lambda waiter=waiter, place=place: place.has_opened(waiter))
                place.go()
                said = holder.hear_all()
                if holder.wait():
                    place.problems += said
                place.take(verb, waiter.hear())
            place.known += [FOREIGN] if how is save else []
            yield f"{verb} waits during the {how.__name__} of another", place.wrong()


# --- threads of one process, which share what is open


def thread_in_an_edit(say, place, verb):
    """In a child: one thread is in an edit, another one comes by the same Queue."""
    place.without()
    queue = place.queue(lock_timeout=0)
    inside, go, answers = threading.Event(), threading.Event(), []

    def add(place, queue):
        with queue.edit() as e:
            id = e.add(new_job("run", "in an edit"))
            inside.set()
            go.wait()
        return id

    def first():
        try:
            answers.append(("enqueue", ("done", add(place, queue))))
        except Exception as problem:
            answers.append(("edit", (type(problem).__name__, str(problem))))

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    answers.append((verb, went(place, queue, verb)))
    go.set()
    thread.join()
    again = [(verb, went(place, queue, verb))] if answers[0][1][0] == "busy" else []
    say(json.dumps([*answers, *again, ("enqueue", went(place, queue, "enqueue"))]))


def threads_share_a_queue(path, without=nothing):
    """Yield (case, problems): a thread comes while another one has the lock."""
    for verb in VERBS:
        place = Place(path / verb, without)
        with Children() as children:
            (said,) = children.start(thread_in_an_edit, place, verb).hear_all()
        answers = json.loads(said)
        for number, (what, answer) in enumerate(answers):
            if place.take(what, json.dumps(answer)) and number:
                place.problems.append(f"{what}: busy, and nobody has the lock")
        yield f"{verb} while another thread edits", place.wrong()


# --- a worker that claims the same job again


def fail(job):
    raise ValueError("the first time")


def snooze(job):
    raise Snooze(0)


def stay(say, place, first):
    """In a child: a worker whose job ends as `first` does, and in its second run never."""
    place.without()

    def run(payload):
        note_effect(place)
        if len(effects(place)) == 1:
            first(current_job())
        say("runs again")
        time.sleep(600)

    place.queue().process_jobs({"again": run}, run_for=600, backoff=lambda attempts: 0)


def note_effect(place):
    with open(place.path / "effects", "a") as file:
        file.write(f"{current_job().id}\n")


def effects(place):
    return place.path.joinpath("effects").read_text().split()


class Again(NamedTuple):
    """How the first run ends, how often the job may run, and whether it is retried by hand."""

    first: object
    most: int
    retried: bool
    during: int  # attempts that are shown while it runs again
    end: tuple  # its status, its attempts and its runs, after a tick that takes in the dead


AGAIN = {
    "failed for good and retried": Again(fail, 1, True, 1, ("failed", 1, 2)),
    "failed": Again(fail, 5, False, 2, ("completed", 3, 3)),
    "snoozed": Again(snooze, 5, False, 1, ("completed", 2, 3)),
}


def a_worker_claims_a_job_again(path, without=nothing):
    """Yield (case, problems): it is killed in the second run, and its first one stands in its file.

    What the first one has left there is no outcome of the second.
    """
    for name, case in AGAIN.items():
        place = Place(path / name, without)
        id = place.queue().enqueue("again", max_attempts=case.most)
        with Children() as children:
            worker = children.start(stay, place, case.first)
            if case.retried:
                until(lambda place=place, id=id: status(place, id) == "failed")
                place.queue().retry(id)
            worker.hear()
            seen = place.queue().get(id)
            worker.kill()
        if (seen.status, seen.attempts) != ("processing", case.during):
            place.problems.append(f"while it runs again: {seen.status}, {seen.attempts} attempts")
        place.queue().process_jobs({"again": lambda _, place=place: note_effect(place)})
        row = reader.by_id(place.file)[id]
        end = row["status"], int(row["attempts"]), len(effects(place))
        if end != case.end:
            place.problems.append(f"in the end, with attempts and runs: {end}, not {case.end}")
        yield f"{name}, and claimed again", place.problems


def status(place, id):
    return reader.by_id(place.file)[id]["status"]


SCENES = {
    "a foreign program appends": a_foreign_program_appends,
    "a rename while somebody waits": a_rename_while_somebody_waits,
    "threads share a queue": threads_share_a_queue,
    "a worker claims a job again": a_worker_claims_a_job_again,
}


def results(name, path, without=nothing):
    """Return the number of cases of one scene, and what was wrong."""
    with silence(), Children() as children:
        children.start(lambda say: without())
        children.finish()  # what cannot be taken away is no proof
        found = list(SCENES[name](path, without))
    return len(found), [f"{case}: {problem}" for case, problems in found for problem in problems]
