"""What a queue must say: a dict of jobs, and what each verb, each run and each crash makes of it.

It shares no code with the package.  A job is a dict of its row's values; while its row says
`processing` under a dead worker, `left` is what that worker has noted of it.
"""

import copy
import json
import math
import time

from . import reader

UNFINISHED = ("pending", "processing")
LIMIT = 3  # of attempts, of a job without its own
DAY = 86400
PLAIN = {
    "status": "pending", "attempts": 0, "error": "", "result": "", "queue": "default",
    "priority": 0, "max_attempts": 0, "timeout": 0.0, "backoff": "", "after": "", "group": "",
    "finished_at": 0.0, "left": None,
}  # fmt: skip
KNOWN = {*reader.CONTRACT, *PLAIN, "worker", "started_at"}  # columns; any other is `own`
GONE = {"event": "gone"}  # nothing is known: the worker's file has been deleted
CLAIMED = {"event": "claimed"}  # and no more


def kind(error):
    """What matters of an error: its class, or how it begins."""
    return "never" if error.startswith("never ") else error.partition(":")[0].rpartition(".")[2]


def as_json(value):
    return json.dumps(value, sort_keys=True)


def whole_json(cell):
    return as_json(json.loads(cell)) if cell else ""


def from_cells(row):
    """A job as the cells of a row say."""
    return {
        "id": row["id"],
        "type": row["type"],
        "payload": whole_json(row["payload"]),
        "status": row["status"],
        "created_at": math.ceil(float(row["created_at"])),
        "run_at": math.ceil(float(row["run_at"])),
        "attempts": int(row["attempts"]),
        "error": kind(row["error"]),
        "result": whole_json(row["result"]),
        "queue": row.get("queue") or "default",
        "priority": int(row.get("priority") or 0),
        "max_attempts": int(row.get("max_attempts") or 0),
        "timeout": float(row.get("timeout") or 0),
        "backoff": row.get("backoff") or "",
        "after": row.get("after") or "",
        "group": row.get("group") or "",
        "finished_at": float(row.get("finished_at") or 0),
        "own": {name: cell for name, cell in row.items() if cell and name not in KNOWN},
        "left": None,
    }


def with_cells(job, cells):
    """A job with some cells of a worker's line taken in."""
    job = copy.deepcopy(job)
    for name, cell in cells.items():
        if name == "error":
            job[name] = kind(cell)
        elif name == "result":
            job[name] = whole_json(cell)
        elif name in ("run_at", "attempts"):
            job[name] = int(cell)
        elif name == "finished_at":
            job[name] = float(cell)
        elif name not in KNOWN and cell:
            job["own"][name] = cell
        elif name == "status":
            job[name] = cell
    return job


def what_is_left(row, path, lines):
    """What a dead worker has left of a row that says `processing`."""
    worker = row["worker"].rpartition(".")[0]
    if not reader.beside(path, "workers", f"{worker}.tsv").exists():
        return GONE
    left = dict(CLAIMED)
    cells = {}
    for event, attempt, more in lines.get((row["worker"], row["id"]), ()):
        if event == "start":
            left = {"event": "start", "attempt": attempt}
        else:
            left["event"] = {"end": "end"}.get(event, left["event"])
            cells |= more
    return left | {"cells": cells}


def conditions(after):
    """The (word, ids, group, allowed) of an `after` cell."""
    for text in after.split():
        word, _, what = text.partition(":")
        group, _, allowed = what[1:].partition("~") if what[0] == "@" else ("", "", "")
        yield word, [] if group else what.split(","), group, int(allowed or 0)


class Model:
    """The jobs in the order of the file, those in the archive, and the torn last line."""

    def __init__(self):
        self.jobs = {}
        self.archived = {}
        self.tail = b""

    def copy(self):
        return copy.deepcopy(self)

    # --- adding

    def new(self, job_type, payload=None, run_at=None, **values):
        """A job as it will be added; `after` is a cell's text, `columns` are of somebody's own."""
        now = time.time()
        job = {"id": "", "type": job_type, "payload": as_json(payload), **PLAIN}
        job["created_at"] = job["run_at"] = int(now)
        if run_at is not None and run_at > now:
            job["run_at"] = math.ceil(run_at)
        job["own"] = dict(values.pop("columns", {}))
        values.pop("id", None)
        return job | {name: value for name, value in values.items() if value is not None}

    def may_add(self, new):
        """Whether each that one of the new jobs waits for is known."""
        ids = {job["id"] for job in new}
        groups = {job["group"] for job in new if not self.is_in(job["group"], job["after"])}
        for job in new:
            for _, wanted, group, _ in conditions(job["after"]):
                if not all(id in ids or self.status(id) for id in wanted) or job["id"] in wanted:
                    return False
                if group and group not in groups and not self.members(group):
                    return False
        return True

    def add(self, new, ids):
        for job, id in zip(new, ids, strict=True):
            self.jobs[id] = {**copy.deepcopy(job), "id": id}

    def mend(self, width, header):
        """What the next writer makes of a torn line: with all its tabs it is a row."""
        tail, self.tail = self.tail, b""
        if tail.count(b"\t") == width - 1:
            row = dict(zip(header, tail.decode().split("\t"), strict=True))
            self.jobs[row["id"]] = from_cells(row)

    # --- who waits for whom

    @staticmethod
    def is_in(group, after):
        """Whether an `after` names a group: then its job is no member."""
        return any(named == group for _, _, named, _ in conditions(after))

    def members(self, group):
        return [
            job
            for job in self.jobs.values()
            if job["group"] == group and not self.is_in(group, job["after"])
        ]

    def status(self, id):
        job = self.jobs.get(id) or self.archived.get(id)
        return job and job["status"]

    def state(self, job):
        """met, open or never."""
        found = "met"
        for word, ids, group, allowed in conditions(job["after"]):
            if group:
                one = self.state_of_group(word, group, allowed)
            else:
                one = self.state_of_ids(word, [self.status(id) for id in ids])
            if one == "never":
                return one
            found = one if one == "open" else found
        return found

    def state_of_ids(self, word, statuses):
        good = {"ok": ["completed"], "notok": ["failed", "cancelled"]}.get(word)
        if good and any(status not in (*good, *UNFINISHED) for status in statuses):
            return "never"
        return "open" if any(status in UNFINISHED for status in statuses) else "met"

    def state_of_group(self, word, group, allowed):
        statuses = [job["status"] for job in self.members(group)]
        bad = sum(status in ("failed", "cancelled") for status in statuses)
        over = not any(status in UNFINISHED for status in statuses)
        if word == "any":
            return "met" if over else "open"
        if word == "ok":
            return "never" if bad > allowed or not statuses else "met" if over else "open"
        return "met" if bad > allowed else "never" if over else "open"

    def settle(self):
        """Cancel what can now never run, down the graph."""
        again = True
        while again:
            again = False
            for job in self.jobs.values():
                if job["status"] == "pending" and job["after"] and self.state(job) == "never":
                    self.end(job, "cancelled", "never")
                    again = True

    def end(self, job, status, error=None):
        job.update(status=status, finished_at=float(f"{time.time():.3f}"))
        if error is not None:
            job["error"] = error

    def kept(self, job):
        """Whether an unfinished job names it."""
        return any(
            other["status"] in UNFINISHED
            and any(
                job["id"] in ids or (group and job["group"] == group)
                for _, ids, group, _ in conditions(other["after"])
            )
            for other in self.jobs.values()
        )

    # --- verbs

    def cancel(self, id):
        job = self.jobs.get(id)
        if not job or job["status"] != "pending":
            return False
        self.end(job, "cancelled")
        self.settle()
        return True

    def to_retry(self, ids=None, type=None, queue=None):
        """The jobs that a retry is about, as they have ended."""
        if ids is None:
            jobs = [job for job in self.jobs.values() if job["status"] == "failed"]
            jobs = [job for job in jobs if type in (None, job["type"])]
            jobs = [job for job in jobs if queue in (None, job["queue"])]
        else:
            jobs = [self.jobs[id] for id in dict.fromkeys(ids) if id in self.jobs]
        jobs = [self.seen(job) if is_over(job) else job for job in jobs]
        return [job for job in jobs if job["status"] in ("failed", "cancelled")]

    def retry(self, jobs):
        back = [job["id"] for job in jobs]
        for job in jobs:
            self.jobs[job["id"]] = afresh(job)
        again = True
        while again:
            again = False
            for id, job in self.jobs.items():
                never = job["status"] == "cancelled" and job["error"] == "never" and job["after"]
                if never and self.state(job) != "never":
                    job.update(status="pending", error="", finished_at=0.0)
                    back.append(id)
                    again = True
        return back

    def copies(self, jobs):
        return [afresh(job) | {"id": "", "created_at": int(time.time())} for job in jobs]

    def old(self, older_than, *, ids=None, status=None, type=None, queue=None):
        """The jobs that a purge or an archive is about."""
        found = []
        for job in self.jobs.values() if ids is None else map(self.jobs.get, dict.fromkeys(ids)):
            if not job or job["status"] == "processing" or self.kept(job):
                continue
            if status is None and ids is None and job["status"] in UNFINISHED:
                continue
            same = status in (None, job["status"]) and type in (None, job["type"])
            young = (job["finished_at"] or job["created_at"]) >= time.time() - (older_than or 0)
            if same and queue in (None, job["queue"]) and (older_than is None or not young):
                found.append(job)
        return found

    def remove(self, jobs):
        for job in jobs:
            del self.jobs[job["id"]]
        if jobs:
            self.settle()
        return len(jobs)

    def archive(self, jobs):
        self.archived |= {job["id"]: job for job in jobs}
        return self.remove(jobs)

    # --- workers

    def seen(self, job):
        """A job as `get` tells it: with what its worker has noted."""
        left = job["left"] or {}
        job = job | {"attempts": left.get("attempt", job["attempts"]), "left": None}
        return with_cells(job, left.get("cells", {}))

    def recover(self):
        """Take in what dead workers have left."""
        for id, job in self.jobs.items():
            left = job["left"]
            if left is None:
                continue
            job = self.jobs[id] = with_cells(job, left.get("cells", {})) | {"left": None}
            if left["event"] == "end":
                continue
            job["status"] = "pending"
            if left["event"] == "claimed":
                continue
            job["attempts"] = left.get("attempt", job["attempts"] + 1)
            if job["attempts"] >= (job["max_attempts"] or LIMIT):
                self.end(job, "failed")
            job.update(error="worker died")
            if job["status"] == "pending":
                job["run_at"] = min(job["run_at"], int(time.time()))

    def may_run(self, job, types, queues):
        due = job["run_at"] <= time.time() or job["run_at"] == job["created_at"]
        mine = job["type"] in types and (queues is None or job["queue"] in queues)
        return mine and due and job["status"] == "pending" and self.state(job) == "met"

    def order(self, id, queues):
        """What decides which of those that may run is the first."""
        job, place = self.jobs[id], list(self.jobs).index(id)
        rank = queues.index(job["queue"]) if queues is not None else 0
        return rank, job["priority"], job["run_at"], place

    def run(self, id):
        """One run of a job, to its end."""
        job, now = self.jobs[id], time.time()
        if job["type"] == "snooze":
            job["run_at"] = math.ceil(now + 30)
            return
        if job["type"] == "again":
            job["run_at"] = int(now)
            return
        job["attempts"] += 1
        last = job["attempts"] >= (job["max_attempts"] or LIMIT)
        if job["type"] in ("good", "record"):
            self.end(job, "completed", "")
            job["result"] = job["payload"]
            if job["type"] == "record":
                job["own"]["noted"] = str(job["attempts"])
        elif job["type"] == "discard":
            self.end(job, "failed", "no use")
        else:
            job["error"] = "busy" if job["type"] == "busy" else "ValueError"
            if last:
                self.end(job, "failed")
            else:
                wait = 90 if job["type"] == "busy" else self.backoff(job)
                job["run_at"] = math.ceil(now + wait) if wait else int(now)
        self.settle()

    def backoff(self, job):
        word, *numbers = (job["backoff"] or f"exponential:60:{DAY}").split(":")
        base, cap = map(int, numbers) if numbers else (0, 0)
        attempts = job["attempts"]
        return min(cap, base * attempts if word == "linear" else base * 2 ** (attempts - 1))


def is_over(job):
    return job["left"] is not None and job["left"]["event"] == "end"


def afresh(job):
    """A job that is to run from its first attempt on."""
    new = {"status": "pending", "attempts": 0, "error": "", "result": "", "finished_at": 0.0}
    return copy.deepcopy(job) | new | {"run_at": int(time.time()), "left": None}
