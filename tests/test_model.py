"""Random moves against a dict that says what must come of them: same answers, file always whole."""

import os
import random
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Discard, Queue, Snooze
from dbbasic_queue.tsv import COLUMNS

START = 1760000000
DAY = 86400
UNFINISHED = ("pending", "processing")
LIMIT = 3  # of attempts


def bad(payload):
    raise ValueError("no")


def discard(payload):
    raise Discard("no")


def snooze(payload):
    raise Snooze(30)


HANDLERS = {"good": lambda payload: payload, "bad": bad, "discard": discard, "snooze": snooze}


class Model:
    """What the file must say: a dict of jobs in the order they were added."""

    def __init__(self):
        self.jobs = {}
        self.archived = {}
        self.now = START

    def add(self, id, **cells):
        plain = {"priority": 0, "run_at": None, "after": None, "queue": "default"}
        job = {**plain, **cells, "status": "pending", "attempts": 0, "result": None}
        job["created_at"] = self.now
        if job["run_at"] is None or job["run_at"] <= self.now:
            job["run_at"] = self.now
        self.jobs[id] = job

    def end(self, job, status):
        job.update(status=status, finished_at=self.now)

    # --- who waits for whom

    def state(self, job):
        if not job["after"]:
            return "met"
        word, ids = job["after"]
        found = "met"
        for id in ids:
            parent = self.jobs.get(id) or self.archived.get(id)
            if parent and parent["status"] in UNFINISHED:
                found = "open"
            elif word != "any" and (
                not parent or (parent["status"] == "completed") != (word == "ok")
            ):
                return "never"
        return found

    def settle(self):
        """Cancel what can never come true, down the graph."""
        for job in self.jobs.values():  # parents stand before their children
            if job["status"] == "pending" and self.state(job) == "never":
                self.end(job, "cancelled")
                job["by"] = "graph"

    def named(self, id):
        return any(
            job["status"] in UNFINISHED and job["after"] and id in job["after"][1]
            for job in self.jobs.values()
        )

    # --- moves

    def cancel(self, id):
        job = self.jobs.get(id)
        if not job or job["status"] != "pending":
            return False
        self.end(job, "cancelled")
        job["by"] = "hand"
        self.settle()
        return True

    def retry(self, ids):
        back = [id for id in ids if id in self.jobs and self.jobs[id]["status"] == "failed"]
        for id in back:
            self.jobs[id].update(status="pending", attempts=0, run_at=self.now, result=None)
        for id, job in self.jobs.items() if back else ():
            if job["status"] == "cancelled" and job["by"] == "graph" and self.state(job) != "never":
                job["status"] = "pending"
                back.append(id)
        return back

    def old(self, age):
        return [
            id
            for id, job in self.jobs.items()
            if job["status"] not in UNFINISHED
            and job["finished_at"] < self.now - age
            and not self.named(id)
        ]

    def archive(self, age):
        gone = self.old(age)
        for id in gone:
            self.archived[id] = self.jobs.pop(id)
        if gone:
            self.settle()
        return len(gone)

    def purge(self, age):
        gone = self.old(age)
        for id in gone:
            del self.jobs[id]
        if gone:
            self.settle()
        return len(gone)

    def tick(self, queues):
        """Run what is due until nothing is; return who ran."""
        ran = []
        again = True
        while again:
            again = False
            self.settle()
            for id, job in self.jobs.items():
                if job["status"] != "pending" or id in ran or job["queue"] not in queues:
                    continue
                due = job["run_at"] <= self.now or job["run_at"] == job["created_at"]
                if due and self.state(job) == "met":
                    self.run(job)
                    ran.append(id)
                    again = True
        return ran

    def run(self, job):
        if job["type"] == "snooze":
            job["run_at"] = self.now + 30
            return
        job["attempts"] += 1
        if job["type"] == "good":
            self.end(job, "completed")
            job["result"] = job["payload"]
        elif job["type"] == "discard" or job["attempts"] == LIMIT:
            self.end(job, "failed")
        else:
            job["run_at"] = self.now + 60 * 2 ** (job["attempts"] - 1)

    def rows(self):
        names = "type payload status attempts run_at created_at priority queue result".split()
        return [(id, *[job[name] for name in names]) for id, job in self.jobs.items()]


def rows(queue):
    names = "type payload status attempts run_at created_at priority queue result".split()
    return [(job.id, *[getattr(job, name) for name in names]) for job in queue.jobs()]


def check(queue, model, remarks):
    assert rows(queue) == model.rows()
    assert [job.id for job in queue.jobs(newest=True)] == list(model.jobs)[::-1]
    data = Path(queue.path).read_bytes()
    lines = data.split(b"\n")
    assert lines.pop() == b""
    assert [line for line in lines if line.startswith(b"#")] == remarks
    assert {line.count(b"\t") for line in lines if not line.startswith(b"#")} <= {
        8,  # a row that was added by hand
        len(COLUMNS) - 1,
    }


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 20))]
)
def test_random_moves_have_the_answers_of_a_dict(tmp_path, seed):
    chance = random.Random(seed)
    path = tmp_path / "queue.tsv"
    one, two = Queue(path, sync="off"), Queue(path, sync="off")
    model, remarks, deep = Model(), [], 0

    def somebody():
        return chance.choice([*model.jobs, *model.archived, "0" * 16])

    def new(queue):
        arguments = {
            "job_type": chance.choice(["good", "good", "bad", "discard", "snooze"]),
            "payload": chance.choice([None, 0, "a\tb", {"n": chance.randrange(9)}]),
            "priority": chance.choice([0, 0, -1, 5]),
            "queue": chance.choice(["default", "default", "high"]),
            "run_at": chance.choice([None, None, model.now - 5, model.now + 40, model.now + DAY]),
        }
        parents = [id for id, job in model.jobs.items() if job["status"] == "pending"]
        after = None
        if parents and chance.random() < 0.4:
            word = chance.choice(["ok", "ok", "notok", "any"])
            after = word, chance.sample(parents, min(len(parents), chance.choice([1, 1, 2])))
            arguments["after"] = f"{word}:{','.join(after[1])}"
        return arguments, after

    def note(id, arguments, after):
        cells = {**arguments, "type": arguments["job_type"], "after": after}
        del cells["job_type"]
        model.add(id, **cells)

    with freeze_time("2025-10-09 08:53:20") as clock:
        one.enqueue("good", 0)
        model.add(next(one.jobs()).id, type="good", payload=0)
        for _ in range(150):
            queue = chance.choice([one, two])
            move = chance.choice(
                "add add add many cancel cancel retry retry_all archive purge edit remark nine"
                " hint tick tick tick tick_high clock clock back".split()
            )
            if move == "add":
                arguments, after = new(queue)
                note(queue.enqueue(**arguments), arguments, after)
            elif move == "many":
                made = [new(queue) for _ in range(chance.choice([2, 30]))]
                ids = queue.enqueue_many([arguments for arguments, _ in made])
                for id, (arguments, after) in zip(ids, made, strict=True):
                    note(id, arguments, after)
            elif move == "cancel":
                id = somebody()
                assert queue.cancel(id) == model.cancel(id)
            elif move == "retry":
                id = somebody()
                if model.jobs.get(id, {"status": ""})["status"] != "cancelled":
                    assert queue.retry(id) == model.retry([id])
            elif move == "retry_all":
                assert queue.retry() == model.retry(list(model.jobs))
            elif move == "archive":
                age = chance.choice([0, 60, DAY])
                assert queue.archive(age) == model.archive(age)
            elif move == "purge":
                age = chance.choice([60, DAY])
                assert queue.purge(age) == model.purge(age)
            elif move == "edit":
                id = somebody()
                with queue.edit() as e:
                    if e.get(id):
                        e.change(e.get(id), priority=7)
                        model.jobs[id]["priority"] = 7
            elif move == "remark":
                remarks.append(b"# remark %d \xff" % len(remarks))
                with open(path, "ab") as file:
                    file.write(remarks[-1] + b"\n")
            elif move == "nine":
                id = queue.new_id()
                row = f"{id}\tgood\t7\tpending\t{model.now}\t{model.now}\t0\t\t\n"
                with open(path, "a", encoding="ascii") as file:
                    file.write(row)
                model.add(id, type="good", payload=7)
            elif move == "hint":
                for name in ("hint", "tick"):
                    if os.path.exists(f"{path}.d/{name}"):
                        os.unlink(f"{path}.d/{name}")
            elif move in ("tick", "tick_high"):
                queues = ["high"] if move == "tick_high" else ["high", "default"]
                queue.process_jobs(HANDLERS, LIMIT, queues=queues)
                deep += len(model.tick(queues))
            else:
                step = chance.choice([1, 30, 61, 3600, DAY]) * (-1 if move == "back" else 1)
                clock.tick(step)
                model.now += step
            check(queue, model, remarks)
            id = somebody()
            known = model.jobs.get(id) or model.archived.get(id)
            found = queue.get_job(id)
            assert (found and found["status"]) == (known and known["status"])

    assert deep > 20
    assert sorted(set(os.listdir(tmp_path))) == ["queue.tsv", "queue.tsv.d", "queue.tsv.lock"]
