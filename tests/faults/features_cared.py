"""Sealed jobs with steps, and a retention, while all who add and work are killed.

Each step leaves a line in a file that is not the queue's when it begins and one when it has been
stored; no payload, result, error or step may be found in any of the queue's files; and each job is
in the queue or in its archive, once.
"""

import collections
import contextlib
import os
import random
import time
from pathlib import Path

from dbbasic_queue import Queue, current_job
from dbbasic_queue.crypt import enqueue_sealed, opened, unsealing
from dbbasic_queue.steps import progress, step

from . import reader
from .cases import each, kill_by_chance, lines, note, start

KEYS = ["bm90IGEgc2VjcmV0LCBidXQgYSBrZXkgZm9yIGEgdGU="]
SECRET = "Ocelot-1815"  # in every payload, result, error and step
STEPS = 5
NEVER_FAILS = {"max_attempts": 1000, "backoff": "none", "max_workers": 99}


def run(count, folder, seed=0):
    """Run so many cases, each in a folder of its own; return a Result."""
    return each(one_case, count, folder, seed)


def one_case(place, chance, seconds=0.4):
    """Let one add and three work, kill one after the other, run what is left, and judge."""
    queue = Queue(place / "queue.tsv", sync=chance.choice(["normal", "off"]))
    wrong = []
    killed = kill_by_chance(
        lambda role: start(role, queue, place, chance.random()),
        [add, work, work, work],
        chance,
        seconds,
        0.03,
        lambda: wrong.extend(leaks(place)),
    )
    for _ in range(5):  # until nothing is left, in a process of its own each time
        os.waitpid(start(tick, queue, place, 0), 0)
    return killed, wrong + leaks(place) + list(judge(queue, place))


def add(queue, place, seed):
    """Add jobs without end, and note each id that is returned."""
    chance = random.Random(seed)
    while True:
        how = {"columns": {"keep": "1s"}} if chance.random() < 0.3 else {}
        id = enqueue_sealed("steps", {"of": SECRET}, keys=KEYS, queue_file=queue, **how)
        note(place / "told", id)
        time.sleep(chance.random() * 0.02)


def work(queue, place, seed):
    """Work as one that is started by a crontab, for whom it is always time for the upkeep."""
    while True:
        tick(queue, place, seed)
        time.sleep(0.01)


def tick(queue, place, seed):
    with contextlib.suppress(FileNotFoundError):
        os.utime(place / "queue.tsv.d" / "upkeep", (0, 0))
    queue.process_jobs(
        {"steps": lambda payload: in_steps(place, payload, random.Random())},
        middleware=[unsealing(KEYS)],
        keep={"completed": 0.2},
        **NEVER_FAILS,
    )


def in_steps(place, payload, chance):
    assert payload == {"of": SECRET}
    job = current_job()
    found = []
    for number in range(STEPS):
        found.append(step(f"step {number}", one_step, place, job.id, number))
        note(place / "steps", f"{job.id} {number} stored")
    if chance.random() < 0.1:
        raise ValueError(f"no luck with {SECRET}")
    return found


def one_step(place, id, number):
    note(place / "steps", f"{id} {number} begun")
    progress(number + 1, STEPS, SECRET)
    return [SECRET, number]


# --- what must hold


def leaks(place):
    """Return the files of the queue in which the secret can be read."""
    found = []
    tree = os.walk(place / "queue.tsv.d")
    beside = [Path(folder, name) for folder, _, names in tree for name in names]
    for path in [place / "queue.tsv", *beside]:
        with contextlib.suppress(FileNotFoundError):  # it goes while we look
            if SECRET.encode() in path.read_bytes():
                found.append(f"{path.relative_to(place)} holds the secret")
    return found


def judge(queue, place):
    stored = set()
    for line in lines(place / "steps"):
        id, number, what = line.split()
        if what == "stored":
            stored.add((id, number))
        elif (id, number) in stored:
            yield f"{id}: step {number} ran again after it was stored"
    rows = list(reader.by_id(place / "queue.tsv").values())
    archived = reader.archived(place / "queue.tsv")
    there = collections.Counter(row["id"] for row in (*rows, *archived))
    yield from (f"{id} is there {count} times" for id, count in there.items() if count > 1)
    for id in lines(place / "told"):
        if id not in there:
            yield f"{id} is lost"
    wanted = [[SECRET, number] for number in range(STEPS)]
    for row in (*rows, *archived):
        if row["status"] != "completed":
            yield f"{row['id']} is {row['status']}: {row['error']}"
        elif opened(queue.get(row["id"]), KEYS).result != wanted:
            yield f"{row['id']} has another result"
        elif (row["id"], str(STEPS - 1)) not in stored:
            yield f"{row['id']} has not run to its end"
    if not archived:
        yield "the upkeep has moved nothing"
