"""Chains, batches, unique keys, limits and schedules in one file, while all who use it are killed.

Each handler leaves two lines in a file that is not the queue's: it begins, it ends.  What they and
the rows say afterwards is judged by rules that share nothing with the package.
"""

import json
import logging
import os
import random
import signal
import time
from collections import Counter, defaultdict
from itertools import pairwise
from operator import itemgetter

from dbbasic_queue import Queue, QueueError, current_job
from dbbasic_queue.batch import enqueue_batch
from dbbasic_queue.chain import enqueue_chain
from dbbasic_queue.limits import concurrency, rate
from dbbasic_queue.schedule import add_schedule, serving
from dbbasic_queue.unique import enqueue_unique

from . import reader
from .children import Children

KEYS = 3
MUTEX, WINDOW, MOST = "alone", 1.0, 5  # at most 5 of type `limited` within a second
SLACK = 0.2  # seconds from a claim to its start, at most
FINISHED = ("completed", "failed", "cancelled")


class Place:
    """A folder with a queue, and what its processes leave there."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "queue.tsv"

    def queue(self):
        return Queue(self.file, sync="off", lock_timeout=20)

    def note(self, name, **what):
        line = json.dumps({"at": time.monotonic(), "pid": os.getpid(), **what})
        fd = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, f"{line}\n".encode())
        os.close(fd)

    def notes(self, name):
        path = self.folder / name
        return list(map(json.loads, path.read_text().splitlines())) if path.exists() else []

    def handlers(self):
        def run(payload):
            job = current_job()
            self.note("runs", what="begins", id=job.id, attempt=job.attempts)
            if payload == "fail":
                self.note("runs", what="ends", id=job.id)
                raise ValueError("as it was told")
            time.sleep(0.02 if job.type == MUTEX else 0.002)
            self.note("runs", what="ends", id=job.id)
            return payload

        types = "step member then catch finally once limited alone slot".split()
        return serving(dict.fromkeys(types, run))

    def work(self, say, seconds):
        logging.getLogger("dbbasic_queue").setLevel(logging.CRITICAL + 1)
        self.queue().process_jobs(
            self.handlers(),
            run_for=seconds,
            max_attempts=1000,
            backoff="none",
            max_workers=99,
            admit=[concurrency(1, type=MUTEX), rate(MOST, WINDOW, type="limited")],
        )


def jobs_of(kind, payloads):
    """One that is to fail has one attempt; the others are never given up."""
    return [
        {"job_type": kind, "payload": one, "max_attempts": 1 if one == "fail" else None}
        for one in payloads
    ]


def produce(say, place, seed):
    """Add jobs of every kind without end; each is noted once its id is known."""
    chance, queue = random.Random(seed), place.queue()
    while True:
        fails = chance.random() < 0.3
        payloads = ["fail" if fails and n == 1 else n for n in range(3)]
        kind = chance.choice("chain batch unique unique limited alone alone schedule".split())
        try:
            if kind == "chain":
                chain = enqueue_chain(
                    jobs_of("step", payloads),
                    catch=("catch",),
                    finally_=("finally",),
                    queue_file=queue,
                )
                place.note("told", kind=kind, id=chain.id, fails=fails)
            elif kind == "batch":
                batch = enqueue_batch(
                    jobs_of("member", payloads),
                    then=("then",),
                    catch=("catch",),
                    finally_=("finally",),
                    queue_file=queue,
                )
                place.note("told", kind=kind, id=batch.id, fails=fails)
            elif kind == "unique":
                key = f"key-{chance.randrange(KEYS)}"
                id = enqueue_unique("once", {"key": key}, key=key, queue_file=queue)
                place.note("told", kind=kind, id=id, key=key)
            elif kind == "schedule":
                for name in ("one", "two"):
                    add_schedule(name, "slot", every=1, queue_file=queue)
            else:
                place.note("told", kind=kind, id=queue.enqueue(kind))
        except QueueError as error:
            place.note("errors", text=str(error))
        time.sleep(chance.random() * 0.02)


def look(say, place):
    """Read the file again and again: never two pending rows of a key."""
    while True:
        if place.file.exists():
            seen = Counter()
            for row in reader.by_id(place.file, torn=True).values():
                if row["status"] == "pending" and row["type"] == "once":
                    seen[row["unique"]] += 1
            for key, count in seen.items():
                if count > 1:
                    place.note("looks", text=f"{count} pending rows of {key}")
        time.sleep(0.005)


def run(kills, folder, seed=1):
    """Return (cases, killed, violations) after so many kills of workers and producers."""
    place, chance = Place(folder), random.Random(seed)
    roles = [(produce, place, 1), (produce, place, 2)] + [(_work, place)] * 4
    killed = 0
    with Children() as children:
        children.start(look, place)
        living = [children.start(*role) for role in roles]
        while killed < kills:
            time.sleep(0.01 + chance.random() * 0.06)
            at = chance.randrange(len(living))
            if living[at].ended:
                living[at] = children.start(*roles[at])
            else:
                place.note("kills", victim=living[at].pid)
                living[at].send(signal.SIGKILL)
                killed += 1
                living[at].wait()
                living[at].close()
                function, there, *rest = roles[at]
                living[at] = children.start(function, there, *[one + killed for one in rest])
        for child in living:  # they are killed now
            place.note("kills", victim=child.pid)
    with Children() as children:
        drain = children.start(_drain, place)
        said = drain.hear_all(200)
        assert drain.wait() == 0, "\n".join(said)
    return killed, killed, list(violations(place))


def _work(say, place):
    place.work(say, 30)


def _drain(say, place):
    """Run what is left, but for the schedules, which never end."""
    until = time.monotonic() + 150
    while time.monotonic() < until:
        place.work(say, 0.5)
        rows = reader.by_id(place.file).values()
        if all(row["status"] in FINISHED or row["type"] in ("schedule", "slot") for row in rows):
            return
    raise AssertionError("jobs are left for good")


# --- what must hold then


def violations(place):
    rows = reader.by_id(place.file)
    runs = place.notes("runs")
    begun, ended = defaultdict(list), defaultdict(list)
    for one in runs:
        (begun if one["what"] == "begins" else ended)[one["id"]].append(one["at"])
    yield from [one["text"] for one in place.notes("looks")]
    yield from [one["text"] for one in place.notes("errors")]
    groups = defaultdict(list)
    for row in rows.values():
        groups[row["group"]].append(row)
    for told in place.notes("told"):
        if told["kind"] in ("chain", "batch"):
            yield from _group(told, groups[told["id"]], begun, ended)
        elif told["id"] not in rows:
            yield f"{told['kind']}: {told['id']} is lost"
    for id, row in rows.items():
        if row["type"] == "schedule":
            continue
        if row["status"] == "completed" and len(ended[id]) < 1:
            yield f"{id} completed without a run"
        if row["status"] == "completed" and len(begun[id]) > int(row["attempts"]):
            yield f"{id} ran {len(begun[id])} times, attempts {row['attempts']}"
    yield from _slots(rows.values())
    yield from _keys(row for row in rows.values() if row["type"] == "once")
    yield from _alone(place, rows, runs)
    starts = sorted(at for id, row in rows.items() if row["type"] == "limited" for at in begun[id])
    for first, last in zip(starts, starts[MOST:], strict=False):
        if last - first < WINDOW - SLACK:
            yield f"{MOST + 1} starts within {last - first:.3f} s"


def _group(told, rows, begun, ended):
    """A chain or a batch: all its rows, each in the end that follows from what failed."""
    by_type = defaultdict(list)
    for row in rows:
        by_type[row["type"]].append(row)
    members = by_type["step"] + by_type["member"]
    number = 5 if told["kind"] == "chain" else 6
    if len(rows) != number:
        yield f"{told['kind']} {told['id']}: {len(rows)} rows"
        return
    wanted = {"catch": "cancelled", "finally": "completed", "then": "completed"}
    ends = ["completed"] * 3
    if told["fails"]:
        wanted |= {"catch": "completed", "then": "cancelled"}
        ends = ["completed", "failed", "cancelled" if told["kind"] == "chain" else "completed"]
    if [row["status"] for row in members] != ends:
        yield f"{told['kind']} {told['id']}: {[row['status'] for row in members]}, not {ends}"
    for name, status in wanted.items():
        for row in by_type[name]:
            if row["status"] != status:
                yield f"{told['kind']} {told['id']}: its {name} is {row['status']}, not {status}"
    last_end = max((at for row in members for at in ended[row["id"]]), default=0)
    for row in by_type["finally"] + by_type["then"]:
        if min(begun[row["id"]], default=last_end) < last_end:
            yield f"{told['kind']} {told['id']}: its {row['type']} ran before its members had ended"
    if told["kind"] == "chain":
        for before, after in pairwise(members):
            first = min(begun[after["id"]], default=float("inf"))
            if begun[after["id"]] and first < min(ended[before["id"]], default=float("inf")):
                yield f"chain {told['id']}: a step began before the one before it had ended"


def _slots(rows):
    """No slot has two rows; of each schedule one row is left."""
    slots = Counter(
        (row["type"], row["unique"]) for row in rows if row["type"] in ("slot", "schedule")
    )
    for (kind, slot), count in slots.items():
        if count > 1:
            yield f"{count} rows of type {kind} for {slot}"
    left = Counter(
        row["unique"].partition("@")[0]
        for row in rows
        if row["type"] == "schedule" and row["status"] not in FINISHED
    )
    for name in {slot.partition("@")[0] for _, slot in slots}:
        if left[name] != 1:
            yield f"schedule {name}: {left[name]} rows are left"


def _keys(rows):
    """A key is held from a row's id, made under the lock, until the job has finished."""
    spans = sorted(
        ((row["unique"], int(row["id"][:13], 16) / 1e6, row) for row in rows), key=itemgetter(0, 1)
    )
    for (key, _, before), (other, begin, row) in pairwise(spans):
        if key == other and begin < float(before["finished_at"]) - 0.002:
            yield f"{row['id']} was added while {before['id']} held {key}"


def _alone(place, rows, runs):
    """Two jobs of the type that runs alone never run at once; a killed one ran until its kill."""
    kills = {one["victim"]: one["at"] for one in place.notes("kills")}
    spans, running = [], {}
    for one in runs:
        if rows[one["id"]]["type"] == MUTEX and one["what"] == "begins":
            running[one["pid"]] = one
        elif rows[one["id"]]["type"] == MUTEX:
            spans.append((running.pop(one["pid"])["at"], one["at"], one["id"]))
    spans += [(one["at"], kills[pid], one["id"]) for pid, one in running.items()]
    spans.sort()
    for (_, end, before), (begin, _, id) in pairwise(spans):
        if begin < end:
            yield f"{id} began {end - begin:.3f} s before {before} had ended"
