"""Random verbs, ticks, crashes, hand edits and clock moves, as hypothesis thinks of them.

After each step the file, read by another reader, says what the model says; after a crash it says
what was there before, or what was to come.
"""

import contextlib
import copy
import logging
import random
import shutil

from freezegun import freeze_time
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from dbbasic_queue import Queue
from dbbasic_queue.new import new_job

from . import reader
from .compared import START, Compared
from .killed import handlers_of, in_a_child
from .model import DAY, LIMIT, UNFINISHED, from_cells, is_over
from .results import Result

QUEUES = (None, ["high", "default"], ["default"])
FOREIGN = "seen_by"  # a column that is not ours

number = st.integers(0, 40)  # of a job among those that are known
crash = st.sampled_from([0] * 20 + [1, 2, 3, 4] * 3 + [*range(5, 10)] * 2 + [*range(10, 24)])
how = st.sampled_from(["before", "after", "half"])
payload = st.sampled_from([None, 0, False, "", [], {}, "a\tb\n\\", {"n": 1}, "\u2028\x1b\udc80"])
when = st.sampled_from([None, None, None, None, -5, 0.5, 40, DAY])
age = st.sampled_from([0, 0, 60, DAY])
label = st.sampled_from(["default", "high"])
group = st.sampled_from(["g", "h"])
types = st.sampled_from("good good bad discard snooze again busy record kill kill nobody".split())
one_of_them = st.tuples(st.just("id"), st.lists(number, min_size=1, max_size=2))
all_of_them = st.tuples(st.just("group"), group, st.sampled_from(["", "", "~1"]))
condition = st.tuples(st.sampled_from(["ok", "ok", "notok", "any"]), one_of_them | all_of_them)
new = st.fixed_dictionaries(
    {"job_type": types, "payload": payload, "run_at": when},
    optional={
        "queue": label,
        "priority": st.sampled_from([-1, 5]),
        "max_attempts": st.integers(1, 2),
        "timeout": st.just(7.5),
        "backoff": st.sampled_from(["none", "linear:10:15", "exponential:100:150"]),
        "after": st.lists(condition, min_size=1, max_size=2),
        "group": group,
        "columns": st.just({"tenant": "ä"}),
    },
)
change = st.tuples(
    st.just("change"),
    number,
    st.sampled_from(
        [
            {"priority": 7}, {"queue": "high"}, {"group": "g"}, {"tenant": "x"},
            {"run_at": 1759999000}, {"run_at": 1760001000.5},
            {"status": "failed"}, {"status": "pending"}, {"status": "completed"},
        ]
    ),
)  # fmt: skip
edit = change | st.tuples(st.just("remove"), number) | st.tuples(st.just("add"), new)


class Stop(Exception):
    """Raised by the body of an edit that is not to happen."""


class AQueue(Compared):
    @initialize(
        begin=st.sampled_from(["missing", "touched", "nine", "foreign"]),
        many=st.lists(new, max_size=12),
    )
    def begin(self, begin, many):
        columns = list(reader.CONTRACT)
        if begin == "touched":
            self.file.touch()
        elif begin != "missing":
            columns += [FOREIGN] if begin == "foreign" else []
            self.file.write_text("\t".join(columns) + "\n")
        self.past = [self.queues[0].new_id()]
        if many:
            self.enqueue_many(many, 0, "before")

    def cleans_up(self):
        """The next job, tick and archive leave nothing behind, whatever has happened."""
        self.enqueue({"job_type": "good", "payload": None, "run_at": None}, 0, 0, "before")
        self.tick(0, None, None)
        self.move_the_clock(1, False)
        self.archive(0, 0, "before")
        self.agrees()
        assert not reader.leftovers(self.file)

    # --- verbs

    @rule(arguments=new, which=number, die_at=crash, how=how)
    def enqueue(self, arguments, which, die_at, how):
        given = self.arguments(arguments)
        if which > 37:
            given["id"] = self.some_id(which) if which > 38 else Queue.new_id()
        made = [self.model.new(**given) | {"id": given.get("id", "")}]
        self.adds(lambda queue: [queue.enqueue(**given)], made, die_at, how)

    @rule(many=st.lists(new, min_size=1, max_size=8), die_at=crash, how=how)
    def enqueue_many(self, many, die_at, how):
        given = [self.arguments(arguments) for arguments in many]
        made = [self.model.new(**arguments) for arguments in given]
        self.adds(lambda queue: queue.enqueue_many(given), made, die_at, how)

    @rule(which=number, die_at=crash, how=how)
    def cancel(self, which, die_at, how):
        id = self.some_id(which)
        self.verb(lambda queue: queue.cancel(id), lambda model: model.cancel(id), die_at, how)

    @rule(
        which=st.none() | st.lists(number, max_size=3),
        type=st.none() | types,
        label=st.none() | label,
        die_at=crash,
        how=how,
    )
    def retry(self, which, type, label, die_at, how):
        ids = which if which is None else [self.some_id(one) for one in which]

        def model_does(model):
            return sorted(model.retry(model.to_retry(ids, type, label)))

        def does(queue):
            return sorted(queue.retry(ids, type=type, queue=label))

        self.verb(does, model_does, die_at, how)

    @rule(which=st.lists(number, max_size=3), die_at=crash, how=how)
    def retry_a_copy(self, which, die_at, how):
        ids = [self.some_id(one) for one in which]
        self.mends()
        made = self.model.copies(self.model.to_retry(ids))
        self.adds(lambda queue: queue.retry(ids, copy=True), made, die_at, how)

    @rule(
        older_than=st.none() | age,
        which=st.none() | st.lists(number, max_size=3),
        status=st.sampled_from([None, None, "failed", "pending", "processing"]),
        type=st.none() | types,
        label=st.none() | label,
        die_at=crash,
        how=how,
    )
    def purge(self, older_than, which, status, type, label, die_at, how):
        options = {"status": status, "type": type, "queue": label}
        options["ids"] = which and [self.some_id(one) for one in which]
        self.verb(
            lambda queue: queue.purge(older_than, **options),
            lambda model: model.remove(model.old(older_than, **options)),
            die_at,
            how,
        )

    @rule(older_than=age, die_at=crash, how=how)
    def archive(self, older_than, die_at, how):
        def then(model):
            """What a crash may leave: rows that are in the archive, and still in the queue."""
            old = {job["id"]: job for job in model.old(older_than)}
            there = self.archived()
            if model.jobs.keys() >= old.keys():
                moved = {id: job for id, job in old.items() if there.get(id) == job}
                model.archived |= copy.deepcopy(moved)

        self.verb(
            lambda queue: queue.archive(older_than),
            lambda model: model.archive(model.old(older_than)),
            die_at,
            how,
            then,
        )

    @rule(parts=st.lists(edit, min_size=1, max_size=4), stops=number, die_at=crash, how=how)
    def edit(self, parts, stops, die_at, how):
        stops = stops > 37
        parts = [self.part(*part) for part in parts]
        added = [self.model.new(**given) for what, given, _ in parts if what == "add"]

        def does(queue):
            with contextlib.suppress(Stop), queue.edit() as e:
                for what, id, cells in parts:
                    if what == "add":
                        e.add(new_job(**id))
                    elif e.get(id) and what == "remove":
                        e.remove(e.get(id))
                    elif e.get(id):
                        e.change(e.get(id), **cells)
                if stops:
                    raise Stop

        def model_does(model, ids):
            ended = False
            for what, id, cells in parts:
                job = model.jobs.get(id) if what != "add" else None
                if job and what == "remove":
                    ended = bool(model.jobs.pop(id))
                elif job:
                    over = cells.get("status", "pending") != "pending"
                    ended = ended or (over and job["status"] in UNFINISHED)
                    own = {**job["own"], **{k: v for k, v in cells.items() if k not in job}}
                    job.update({k: v for k, v in cells.items() if k in job}, own=own)
                    job["run_at"] = -int(-job["run_at"] // 1)
                    job["left"] = None if "status" in cells else job["left"]
            model.add(added[: len(ids)], ids)
            if ended:
                model.settle()

        count = 0 if stops else len(added)
        others = [id for what, id, _ in parts if what != "add" and id in self.model.jobs]
        only = None if stops or others else added
        self.changes(does, model_does, count, die_at, how, stops=stops, only=only)

    def part(self, what, which, cells=None):
        """A part of an edit: with its job's id, or with the arguments of a new job."""
        if what == "add":
            return what, self.arguments({**which, "after": []}), None
        return what, self.some_id(which), cells

    @precondition(lambda self: self.file.exists())
    @rule(which=number)
    def back_up(self, which):
        """A backup has what the queue has, and what dead workers have finished."""
        copy = self.folder / "copy"

        self.queue(which).backup(copy)

        self.mends()
        jobs = {
            id: self.model.seen(job) if is_over(job) else job for id, job in self.model.jobs.items()
        }
        rows, tail = self.rows(copy)
        assert [row["id"] for row in rows] == list(jobs)
        assert {row["id"]: from_cells(row) for row in rows} == {
            id: job | {"left": None} for id, job in jobs.items()
        }
        assert not tail

    # --- workers

    @rule(which=number, labels=st.sampled_from(QUEUES), most=st.sampled_from([None, None, 1, 3]))
    def tick(self, which, labels, most):
        """A tick in this process: no handler for `kill`."""
        handlers = handlers_of(self.folder)
        del handlers["kill"]
        before, stamp = self.model.copy(), self.has_header() and self.stamp()

        self.queue(which).process_jobs(handlers, LIMIT, queues=labels, max_jobs=most)

        ran = self.effects()
        model = self.model
        self.mends()
        model.recover()
        model.settle()
        for at, id in enumerate(ran):
            able = self.able(model, labels, handlers)
            assert id in able and id not in ran[:at], f"{id} runs: {model.jobs.get(id)}"
            assert at or id == min(able, key=lambda id: model.order(id, labels)), "not in order"
            model.run(id)
        left = set(self.able(model, labels, handlers)) - set(ran)
        assert not left or len(ran) == most, f"not run: {left}"
        if not ran and not before.tail and before.jobs == model.jobs:
            assert stamp in (False, self.stamp()), "written, with nothing to do"
        self.crashed = self.crashed and not ran

    @rule(die_at=crash, how=how, labels=st.sampled_from(QUEUES))
    def tick_in_a_child(self, die_at, how, labels):
        """A tick that is killed, at a call or by its own job."""

        def does():
            handlers = handlers_of(self.folder)
            self.queue(0).process_jobs(handlers, LIMIT, queues=labels)

        if not self.file.exists():
            return
        killed, _ = in_a_child(does, die_at, how)
        self.crashed = self.crashed or killed
        self.takes_in(killed, labels, self.effects(), handlers_of(self.folder))

    # --- others

    @rule(seconds=st.sampled_from([1, 30, 61, 3600, DAY, 2 * DAY]), back=st.booleans())
    def move_the_clock(self, seconds, back):
        self.clock.tick((-seconds if back else seconds) + 0.001)

    @precondition(lambda self: self.model.jobs and not self.model.tail)
    @rule(at=st.integers(1, 400), which=number)
    def tear_a_line(self, at, which):
        """What a power cut leaves of an append."""
        cells = dict.fromkeys(self.header(), "") | dict(
            zip(reader.CONTRACT, self.nine(which), strict=True)
        )
        line = "\t".join(cells.values()).encode()
        self.model.tail = line[: at % len(line) + 1]
        with self.file.open("ab") as file:
            file.write(self.model.tail)

    @precondition(lambda self: self.has_header() and not self.model.tail)
    @rule(line=st.sampled_from([b"# \xff", b"", b"a\tb", b"x\tgood\t{}\tdone\t1\t1\t0\t\t", b"\0"]))
    def add_a_bad_line(self, line):
        self.bad_lines.append(line)
        self.appends(line + b"\n")

    @precondition(lambda self: self.model.jobs and not self.model.tail)
    @rule(which=number)
    def add_nine_cells(self, which):
        cells = self.nine(which)
        self.appends("\t".join(cells).encode() + b"\n")
        self.model.jobs[cells[0]] = from_cells(dict(zip(reader.CONTRACT, cells, strict=True)))

    @precondition(lambda self: self.model.jobs and not self.model.tail)
    @rule(which=number, status=st.sampled_from(["pending", "failed", ""]))
    def change_a_line(self, which, status):
        """As sed does: a neighbour, and a rename; "" deletes the line."""
        id = self.some_id(which)
        job = self.model.jobs.get(id)
        if not job:
            return
        with self.locked():
            lines = self.file.read_bytes().split(b"\n")
            at = next(n for n, line in enumerate(lines) if line.startswith(id.encode() + b"\t"))
            cells = lines[at].split(b"\t")
            cells[3] = status.encode()
            lines[at : at + 1] = [b"\t".join(cells)] if status else []
            neighbour = self.folder / "sed"
            neighbour.write_bytes(b"\n".join(lines))
            neighbour.rename(self.file)
        job.update(status=status, left=None)
        if not status:
            del self.model.jobs[id]

    @rule(name=st.sampled_from(["queue.tsv.lock", "queue.tsv.d/hint", "queue.tsv.d/tick"]))
    def delete(self, name):
        self.file.parent.joinpath(name).unlink(missing_ok=True)

    @rule()
    def delete_the_workers(self):
        shutil.rmtree(self.side / "workers", ignore_errors=True)
        for job in self.model.jobs.values():
            if job["left"]:
                job["left"] = {"event": "gone"}


# --- the campaign


def hold(examples, steps, chance=None):
    """Let hypothesis look for steps after which the model does not hold; without `chance` always
    the same ones."""
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=chance is None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
        report_multiple_bugs=False,
    )
    logger = logging.getLogger("dbbasic_queue")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # its workers fail and die by the dozen
    try:
        with freeze_time(START, ignore=["filelock"]) as AQueue.clock:
            one = type("AQueue", (AQueue,), {})
            if chance is not None:
                one = seed(chance)(one)
            run_state_machine_as_test(one, settings=options)
    finally:
        logger.setLevel(level)


def campaign(bounded):
    """Yield a Result for each seed; a full run takes fresh ones."""
    examples, steps = (50, 30) if bounded else (250, 50)
    first = 1 if bounded else random.SystemRandom().getrandbits(32)
    for chance in range(first, first + (3 if bounded else 8)):
        violations = []
        try:
            hold(examples, steps, chance)
        except Exception as problem:
            notes = "\n".join(getattr(problem, "__notes__", []))
            violations.append(f"seed {chance}: {problem!r}\n{notes}")
        name = f"model: {examples} histories of {steps} steps, seed {chance}"
        yield Result(name, examples, violations)
