"""Chains, batches and workflows under fire: who adds, works, appends and cancels is killed.

What was acknowledged is judged by a model: each callback has one row and one end, a step begins
after the one before has ended, results are those of the jobs before.
"""

import json
import math
import os
import random
import time
from collections import defaultdict

from dbbasic_queue import Queue, QueueError, current_job
from dbbasic_queue.batch import (
    append,
    cancel_batch,
    enqueue_batch,
    enqueue_workflow,
    get_batch,
    results,
)
from dbbasic_queue.chain import enqueue_chain, get_chain, previous_results

from . import cases, reader
from .cases import each, kill_by_chance, start

FINISHED = ("completed", "failed", "cancelled")
CALLBACKS = {"then": ("then",), "catch": ("catch",), "finally_": ("finally",)}
NEVER_FAILS = {"max_attempts": 1000, "backoff": "none", "max_workers": 99}


def run(count, folder, seed=0):
    """Run so many cases, each in a folder of its own; return a Result."""
    return each(one_case, count, folder, seed)


def one_case(place, chance, seconds=0.35):
    """Let two add and two work, kill one after the other, run what is left, and judge."""
    queue = Queue(place / "queue.tsv", sync="off")
    killed = kill_by_chance(
        lambda role: start(role, place, random.Random(chance.random())),
        [add, add, work, work],
        chance,
        seconds,
        0.04,
    )
    for _ in range(5):  # until nothing is left, in a process of its own each time
        os.waitpid(start(drain, place, chance), 0)
    return killed, list(judge(queue, place))


def note(place, name, *what):
    cases.note(place / name, json.dumps(what))


def noted(place, name):
    return list(map(json.loads, cases.lines(place / name)))


def add(place, chance):
    """Add a chain, a batch or a diamond again and again; one of its jobs fails, perhaps."""
    queue = Queue(place / "queue.tsv", sync="off")
    while True:
        kind, bad = (
            chance.choice(["chain", "batch", "diamond"]),
            chance.choice([None, None, 0, 1, 3]),
        )
        types = ["bad" if number == bad else "good" for number in range(4)]
        jobs = [
            {"job_type": one, "payload": number, "max_attempts": 1 if one == "bad" else None}
            for number, one in enumerate(types)
        ]
        if kind == "chain":
            made = enqueue_chain(jobs, name="a chain", queue_file=queue, **CALLBACKS)
        elif kind == "batch":
            made = enqueue_batch(jobs, allow_failures=1, queue_file=queue, **CALLBACKS)
        else:
            named = dict(zip("abcd", jobs, strict=True))
            after = {"b": ["a"], "c": ["a"], "d": ["b", "c"]}
            made = enqueue_workflow(named, after, queue_file=queue, **CALLBACKS)
        note(place, "told", kind, made.id, bad)
        if kind == "batch" and chance.random() < 0.3:
            try:
                for id in append(made.id, [("good", 9)], queue_file=queue):
                    note(place, "appended", made.id, id)
            except QueueError:
                pass  # it has finished
        elif chance.random() < 0.2:
            note(place, "cancelled", made.id)  # or killed before it was
            cancel_batch(made.id, queue_file=queue)
        time.sleep(chance.random() * 0.02)


def handlers(place):
    def good(payload):
        before = previous_results() if current_job().after else []
        note(place, "runs", current_job().id, time.monotonic(), "begins", before)
        time.sleep(0.001)
        note(place, "runs", current_job().id, time.monotonic(), "ends", payload)
        return {"number": payload}

    def bad(payload):
        note(place, "runs", current_job().id, time.monotonic(), "begins", None)
        raise ValueError("as told")

    def then(payload):
        note(place, "runs", current_job().id, time.monotonic(), "begins", None)
        return [one["number"] for one in results()]

    return {"good": good, "bad": bad, "then": then, "catch": then, "finally": then}


def work(place, chance):
    queue = Queue(place / "queue.tsv", sync="off")
    queue.process_jobs(handlers(place), run_for=math.inf, **NEVER_FAILS)


def drain(place, chance):
    Queue(place / "queue.tsv", sync="off").process_jobs(handlers(place), **NEVER_FAILS)


# --- what must hold then


def judge(queue, place):
    groups = defaultdict(list)
    for row in reader.read(place / "queue.tsv"):
        groups[row["group"]].append(row)
        if row["status"] not in FINISHED:
            yield f"{row['type']} {row['id']} is {row['status']} for good"
    begun, ended = defaultdict(list), defaultdict(list)
    for id, at, what, said in noted(place, "runs"):
        (begun if what == "begins" else ended)[id].append((at, said))
    cancelled = {group for (group,) in noted(place, "cancelled")}
    appended = defaultdict(list)
    for group, id in noted(place, "appended"):
        appended[group].append(id)
    for group, rows in groups.items():  # also those whose adding was cut off
        types = [row["type"] for row in rows if f"@{group}" in row["after"]]
        if len(types) > len(set(types)):
            yield f"{group}: its callbacks are {types}"
    for kind, group, bad in noted(place, "told"):
        rows = groups[group]
        where = f"{kind} {group}, {bad} goes wrong"
        callbacks = {row["type"]: row["status"] for row in rows if f"@{group}" in row["after"]}
        members = [row for row in rows if f"@{group}" not in row["after"]]
        more = [row for row in members if row["payload"] == "9"]
        if sorted(row["type"] for row in rows if row not in members) != [
            "catch",
            "finally",
            "then",
        ]:
            yield f"{where}: its callbacks are {sorted(callbacks)}"
            continue
        if set(appended[group]) - {row["id"] for row in more}:
            yield f"{where}: an appended job is lost"
        ends = [row["status"] for row in members if row not in more]
        also = {"cancelled"} if group in cancelled else set()
        wanted = [{end, *also} for end in expected(kind, bad)]
        if len(ends) != 4 or not all(map(set.__contains__, wanted, ends)):
            yield f"{where}: {ends}"
        wrong = sum(end != "completed" for end in ends)
        ok = wrong <= (kind == "batch")
        runs = {"then": ok, "catch": not ok, "finally": True}
        for name, yes in runs.items():
            right = {"completed" if yes else "cancelled", *(also if name != "finally" else ())}
            if callbacks[name] not in right:
                yield f"{where}: {name} is {callbacks[name]}"
        found = (get_chain if kind == "chain" else get_batch)(group, queue_file=queue)
        if not (found.finished and found.progress == 100 and found.ok == ok):
            yield f"{where}: {found}, {found.progress} %, {found.ok}"
        last = max((at for row in members for at, _ in ended[row["id"]]), default=0)
        for row in rows:
            if row not in members and row["type"] != "catch":
                if min((at for at, _ in begun[row["id"]]), default=last) < last:
                    yield f"{where}: {row['type']} began before the members had ended"
                if row["type"] == "then" and row["status"] == "completed":
                    yield from results_of(where, row, members)
        if kind == "chain":
            yield from in_order(where, members, begun, ended)


def expected(kind, bad):
    """Return how the four jobs have to end."""
    waits = {"chain": [[], [0], [1], [2]], "batch": [[]] * 4, "diamond": [[], [0], [0], [1, 2]]}
    ends = []
    for number, before in enumerate(waits[kind]):
        runs = all(ends[one] == "completed" for one in before)
        ends.append(("failed" if number == bad else "completed") if runs else "cancelled")
    return ends


def results_of(where, row, members):
    numbers = [int(one["payload"]) for one in members if one["status"] == "completed"]
    if sorted(json.loads(row["result"])) != sorted(numbers):
        yield f"{where}: then has read {row['result']} of {numbers}"


def in_order(where, members, begun, ended):
    """Each step began after the one before had ended, and was given its result."""
    for number, row in enumerate(members[1:], start=1):
        for at, said in begun[row["id"]]:
            if said is not None and said != [{"number": number - 1}]:
                yield f"{where}: step {number} was given {said}"
            if at < min((end for end, _ in ended[members[number - 1]["id"]]), default=math.inf):
                yield f"{where}: step {number} began too early"
