"""Unique keys under fire: who adds, who works and who waits for the lock is killed at any moment.

A key is held from its row's id, which is made under the lock, until the job's `finished_at`: these
stretches never touch, whatever was killed.  That is exact, and says more than any look in between;
a reader looks all the time as well.
"""

import math
import random
import time
from collections import defaultdict
from itertools import pairwise

from dbbasic_queue import Queue
from dbbasic_queue.unique import enqueue_unique

from .cases import each, kill_by_chance, lines, note, start

KEYS = ("ana", "ben", "cleo", "dan", "0", "1")
ROUNDING = 0.001  # seconds; a finished_at is written with three digits


def run(cases, folder, seed=0):
    """Run so many cases, each in a folder of its own; return a Result."""
    return each(one_case, cases, folder, seed)


def one_case(place, chance, seconds=0.3):
    """Let three add and two work, kill one after the other, look, and judge what is left."""
    sync = chance.choice(["normal", "off"])
    queue = Queue(place / "queue.tsv", sync=sync)
    roles = [add, add, add, work, work]
    wrong = []
    killed = kill_by_chance(
        lambda role: start(role, Queue(queue.path, sync=sync), place, chance.random()),
        roles,
        chance,
        seconds,
        0.03,
        lambda: wrong.extend(look(queue)),
    )
    return killed, wrong + look(queue) + judge(queue, place)


def add(queue, place, seed):
    """Add keys for ever, and note each id that is returned."""
    chance = random.Random(seed)
    while True:
        key = chance.choice(KEYS)
        more = {"replace": True} if chance.random() < 0.2 else {}
        if chance.random() < 0.1:
            more = {"seconds": 0.5}
        id = enqueue_unique("one", chance.random(), key=key, queue_file=queue, **more)
        note(place / "told", f"{id} {key}")
        if chance.random() < 0.1:
            queue.cancel(id)  # so that all see it free at once


def work(queue, place, seed):
    chance = random.Random(seed)

    def one(payload):
        time.sleep(chance.random() * 0.002)
        if chance.random() < 0.2:
            raise ValueError("again")

    queue.process_jobs(
        {"one": one}, run_for=math.inf, max_attempts=10**6, backoff="none", max_workers=99
    )


def made_at(job):
    return int(job.id[:13], 16) / 1e6


def look(queue):
    """Return what a reader sees of two unfinished jobs of one key.

    It has read the workers' files before the queue: the first of two may have ended meanwhile.
    """
    seen = defaultdict(list)
    for job in queue.jobs():
        if not job.finished:
            seen[job.cell("unique")].append(job)
    wrong = []
    for key, jobs in seen.items():
        for first, second in pairwise(jobs):
            now = queue.get(first.id)
            if not now.finished or now.finished_at > made_at(second) + ROUNDING:
                wrong.append(f"{key}: {first} and {second} at once, the first is {now}")
    return wrong


def judge(queue, place):
    """Return what is wrong in the end: nothing lost, nothing doubled, and no key leaked."""
    held = {key: enqueue_unique("one", key=key, queue_file=queue) for key in KEYS}
    wrong = [f"{key} is held by {queue.get(id)}" for key, id in held.items()
             if queue.get(id).finished]  # fmt: skip
    queue.process_jobs({"one": str}, max_attempts=10**6, max_workers=99)
    for key in KEYS:
        id = enqueue_unique("one", key=key, queue_file=queue)
        if id in held.values():
            wrong.append(f"{key} is not free after its job: {queue.get(id)}")
    queue.process_jobs({"one": str}, max_attempts=10**6, max_workers=99)
    jobs = list(queue.jobs())
    by_id = {job.id: job for job in jobs}
    if len(by_id) < len(jobs):
        wrong.append("two rows have one id")
    wrong += [f"{job} in the end" for job in jobs if job.status not in ("completed", "cancelled")]
    for line in lines(place / "told"):
        id, key = line.split()
        if id not in by_id or by_id[id].cell("unique") != key:
            wrong.append(f"{id} was returned for {key}, and is not there")
    for key in KEYS:
        mine = sorted((job for job in jobs if job.cell("unique") == key), key=made_at)
        for first, second in pairwise(mine):
            if first.finished_at > made_at(second) + ROUNDING:
                late = first.finished_at - made_at(second)
                wrong.append(f"{key}: {first.id} ended {late:.6f} s after {second.id} was added")
    return wrong
