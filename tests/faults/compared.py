"""A queue and what it must say, compared after each step: what random steps are built from.

The file is read by another reader.  After a kill it says what was there before, or what was to
come.
"""

import contextlib
import fcntl
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from hypothesis.stateful import RuleBasedStateMachine, invariant

from dbbasic_queue import Queue
from dbbasic_queue.errors import BadArgument, DuplicateId
from dbbasic_queue.job import new_ids

from . import reader
from .killed import MEMORY, in_a_child
from .model import DAY, Model, from_cells, is_over, what_is_left

START = "2025-10-09 08:53:20"


class Compared(RuleBasedStateMachine):
    """One queue file, and what it must say."""

    clock = None  # freezegun's, which all examples move

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.file = self.folder / "data" / "queue.tsv"
        self.file.parent.mkdir()
        self.side = reader.beside(self.file)
        self.queues = [Queue(self.file, sync="off"), Queue(self.file)]
        self.model = Model()
        self.bad_lines = []
        self.crashed = False
        self.by_hand = 0
        self.past = []  # ids that are known, were known or never will be
        self.clock.move_to(START)

    def teardown(self):
        try:
            if sys.exc_info()[0] is None:
                self.cleans_up()
        finally:
            shutil.rmtree(self.folder)

    # --- how it is done

    def queue(self, which):
        return self.queues[which % 2]

    def some_id(self, which):
        known = [*self.model.jobs, *self.past]
        return known[which % len(known)]

    def nine(self, which):
        """The cells of a row that somebody adds by hand, some with an old id."""
        now = int(time.time())
        self.by_hand += 1
        id = Queue.new_id() if which % 2 else f"{self.by_hand:016x}"
        at = f"{now - 5}.5" if which % 3 else str(now)
        return [id, "good", "7", "pending", str(now), at, "0", "", ""]

    def arguments(self, arguments):
        """The arguments of enqueue: jobs by their ids, times from now."""
        given = dict(arguments)
        if given["run_at"] is not None:
            given["run_at"] += time.time()
        parts = []
        for word, (what, *more) in given.pop("after", []):
            if what == "id":
                named = ",".join(self.some_id(which) for which in more[0])
            else:
                named = f"@{more[0]}{more[1] if word != 'any' else ''}"
            parts.append(f"{word}:{named}")
        with_after = given | {"after": " ".join(parts)}
        refused = not self.model.may_add([self.model.new(**with_after)])
        return given if refused and given["payload"] is not None else with_after

    def verb(self, does, model_does, die_at, how, then=None):
        self.changes(does, lambda model, ids: model_does(model), 0, die_at, how, then=then)

    def adds(self, does, made, die_at, how):
        """A verb that adds jobs, or refuses to."""
        ids = [job["id"] for job in made if job["id"]]
        wrong = None
        ahead = any(int(id[:13], 16) > (time.time() + DAY) * 1e6 for id in ids)
        if not ahead:
            self.mends()
        if ahead:
            wrong = BadArgument
        elif not set(ids).isdisjoint(self.model.jobs):
            wrong = DuplicateId
        elif not self.model.may_add(made):
            wrong = BadArgument
        if wrong is None:
            return self.changes(
                does, lambda model, ids: model.add(made, ids), len(made), die_at, how, part=made
            )
        try:
            does(self.queue(die_at))
        except wrong as error:
            assert type(error) is wrong, error
        else:
            raise AssertionError(f"{made} was taken")

    def changes(
        self, does, model_does, count, die_at, how, *, part=None, then=None, stops=False, only=None
    ):
        """Let a verb be done that adds `count` jobs, and the model with it.

        When it is killed, nothing has happened, or all of it; where jobs are added and nothing else
        is done (`only`; `part`, when they are the answer), perhaps the first of them were.
        """
        before, mended = self.model, self.model.copy()
        self.mends(mended)
        wanted, told = mended.copy(), None
        killed = False
        if die_at:
            killed, told = in_a_child(lambda: does(self.queue(die_at)), die_at, how)
        else:
            told = does(self.queue(how == "after"))
        rows, tail = self.rows()
        found = [row["id"] for row in rows]
        new = [id for id in found if id not in mended.jobs]
        whole = len(new) == count
        if whole and not stops:
            result = model_does(wanted, new)
        states = [wanted] if not killed else [before, mended, *[wanted] * whole]
        if killed and (part or only) and 0 < len(new) < count:
            some = mended.copy()
            some.add((part or only)[: len(new)], new)
            states.append(some)
        if not killed and not stops:
            wanted_answer = result if part is None else new
            assert told == wanted_answer, f"{told}, not {wanted_answer}"
        for state in states:
            if found == list(state.jobs) and self.differences(rows, state) == []:
                self.model = state
                break
        else:
            raise AssertionError("\n".join(self.differences(rows, states[-1])))
        self.model.tail = tail
        if killed:
            self.crashed = True
            if then:
                then(self.model)
        self.past += new[:3]

    def takes_in(self, killed, labels, ran, handlers):
        """Judge what a tick has left that was killed, and take it for true."""
        rows, self.model.tail = self.rows()
        lines = reader.lines(self.file)
        found = {row["id"]: from_cells(row) for row in rows}
        for row in rows:
            if row["status"] == "processing":
                found[row["id"]]["left"] = what_is_left(row, self.file, lines)
        if killed and not ran and found == self.model.jobs:
            return
        before = self.model
        self.mends(before)
        if killed and not ran and found == before.jobs:
            return
        first = before.copy()
        first.recover()
        first.settle()
        last = first.copy()
        begun = set()
        for at, id in enumerate(ran):
            assert id in self.able(last, labels, handlers) and id not in ran[:at], f"{id} runs"
            job = found[id]
            if id == ran[-1] and job["left"] and job["left"]["event"] == "start":
                begun = {id}
            else:
                last.run(id)
        able = self.able(last, labels, handlers)
        assert list(found) == list(last.jobs)
        for id, job in found.items():
            left = job["left"]
            if left is None or is_over(job):
                legal = [last.jobs[id]] if id in ran else [last.jobs[id], first.jobs[id]]
                job = last.seen(job)
                assert id not in begun and job in legal, f"{job} is none of {legal}"
            else:
                assert id in able, f"{job} may not run"
                assert id not in ran or id in begun, f"{job} has run to its end"
                if left["event"] == "start" and id not in ran:
                    begun.add(id)  # killed before its effect
        assert killed or not begun
        assert len(begun) <= 1, f"{begun} have begun"
        self.model.jobs = found
        if not killed:
            left = set(self.able(self.model, labels, handlers)) - set(ran)
            assert not left, f"not run: {left}"

    @staticmethod
    def able(model, labels, handlers):
        return [id for id, job in model.jobs.items() if model.may_run(job, handlers, labels)]

    def mends(self, model=None):
        """The next writer mends a torn line."""
        if self.has_header():
            header = self.header()
            (model or self.model).mend(len(header), header)

    def has_header(self):
        """Whether there is a file in use, whose header was not torn by a kill."""
        return self.file.exists() and b"\n" in self.file.read_bytes()

    def stamp(self):
        return self.file.exists() and self.file.stat().st_mtime_ns

    def header(self):
        return self.file.read_bytes().split(b"\n")[0].decode().split("\t")

    def appends(self, line):
        with self.locked(), self.file.open("ab") as file:
            file.write(line)

    @contextlib.contextmanager
    def locked(self):
        with open(f"{self.file}.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def effects(self):
        """The ids of the jobs that have run since the last call, in order."""
        path = self.folder / "effects"
        ids = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return ids

    # --- what must hold after each step

    def rows(self, file=None):
        """The rows as another reader sees them, and the torn last line."""
        if not self.has_header():
            return [], b""
        *lines, tail = (file or self.file).read_bytes().split(b"\n")
        bad = list(self.bad_lines)
        for line in lines[1:]:
            if bad and line == bad[0]:
                bad.pop(0)
        assert not bad, f"bad lines have gone: {bad}"
        lines = [line for line in lines if line not in self.bad_lines]
        readable = self.folder / "read"
        readable.write_bytes(b"\n".join([*lines, b""]))
        rows = reader.read(readable)
        readable.unlink()
        return rows, tail

    def differences(self, rows, model):
        found = []
        for row in rows:
            here, there = from_cells(row), dict(model.jobs.get(row["id"], {}), left=None)
            found += [
                f"{row['id']}: {name} is {here[name]!r}, not {there.get(name)!r}"
                for name in here
                if here[name] != there.get(name)
            ]
        missing = [id for id in model.jobs if id not in {row["id"] for row in rows}]
        return found + [f"{id} is missing" for id in missing]

    def archived(self):
        """The last line of each job in the archive."""
        found = {}
        for month in sorted(self.side.glob("archive/*.tsv")):
            header, *lines = month.read_bytes().split(b"\n")[:-1]
            names = header.decode().split("\t")
            for line in lines:
                row = dict(zip(names, line.decode().split("\t"), strict=True))
                found[row["id"]] = from_cells(row)
        return found

    @invariant()
    def agrees(self):
        new_ids(
            1000
        )  # the clock stands: a child's ids are never those that this process makes later
        rows, tail = self.rows()
        assert [row["id"] for row in rows] == list(self.model.jobs)
        assert not self.differences(rows, self.model)
        assert tail == self.model.tail
        archived = self.archived()
        assert {id: archived.get(id) for id in self.model.archived} == self.model.archived
        queue = self.queues[0]
        seen = [self.model.seen(job) for job in self.model.jobs.values()]
        assert [as_model(job) for job in queue.jobs()] == seen
        assert [job.id for job in queue.jobs(newest=True)] == list(self.model.jobs)[::-1]
        statuses = [job["status"] for job in seen]
        assert queue.counts() == {status: statuses.count(status) for status in statuses}
        for job in (*seen, *self.model.archived.values()):
            if job["id"] in self.model.jobs:
                job = self.model.seen(self.model.jobs[job["id"]])
            assert as_model(queue.get(job["id"])) == job
            documented = queue.get_job(job["id"])
            assert list(documented) == reader.CONTRACT
            assert documented["status"] == job["status"]
        for id in self.past:
            known = id in self.model.jobs or id in archived
            assert known or queue.get_job(id) is None
        left = [name for name in reader.leftovers(self.file) if "archive/" not in name]
        assert self.crashed or not left, f"{left} is left"


def as_model(job):
    """A Job of the package in the words of the model."""
    cells = {name: job.cell(name) for name in job.header.columns}
    cells |= {"payload": json.dumps(job.payload), "error": job.error or ""}
    if cells["result"]:
        cells["result"] = json.dumps(job.result)
    for name in ("created_at", "run_at", "attempts", "queue", "status", "type", "id"):
        cells[name] = str(getattr(job, name))
    for name in ("priority", "max_attempts", "timeout", "backoff", "after", "group", "finished_at"):
        cells[name] = getattr(job, name) or ""
    return from_cells(cells)
