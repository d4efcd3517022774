"""What is measured: one row for each row of the design's table of goals, and some more.

A row says on which queues (`seed`), with which work, how many rows there are, who takes part, and
what counts as good.  The first side is ours.
"""

from collections.abc import Callable
from typing import NamedTuple

LOCAL = ("litequeue", "huey no fsync", "rq", "celery", "1.0.0")
SYNCED = ("sqlite FULL", "huey", "persist-queue")
ONE = ": two commits a job; as with ours, a kill leaves one job in doubt for each worker"
BATCH = ": 100 claimed in one commit; a kill leaves up to 100 of which nobody knows which ran"
STARTS = ": 100 claimed in one commit, each start noted with the outcome before; a kill leaves one"


class Check(NamedTuple):
    """A goal.  `ask(found)` gives a number, None when it was not measured; `good` of that number
    says whether it is met.  Times alone are context: they do not decide."""

    text: str
    ask: Callable
    good: Callable
    decides: bool = True


def faster(times, than, why="", decides=True):
    """At least so many times as quick as a peer, with the most rows that both were given."""

    def ask(found):
        size = found.common(than)
        theirs, mine = found.value(than, size=size), found.value(found.ours, size=size)
        return theirs / mine if theirs and mine else None

    text = f"{times:.3g} × as quick as {than}{why}"
    return Check(text, ask, lambda ratio: ratio >= times, decides)


def within(times, of):
    """At most so many times what another side takes."""

    def ask(found):
        size = found.common(of)
        theirs, mine = found.value(of, size=size), found.value(found.ours, size=size)
        return mine / theirs if theirs and mine else None

    return Check(f"at most {times:g} × {of}", ask, lambda ratio: ratio <= times)


def less_own_start(times, than):
    """At most so much of what a peer takes, once what Python itself takes to start is left out."""

    def ask(found):
        own, theirs = found.value("limit"), found.value(than)
        return found.less("limit") / (theirs - own) if own and theirs else None

    text = f"without Python's own start at most {times:g} × {than}"
    return Check(text, ask, lambda ratio: ratio <= times)


def at_most(most, what, metric="value", side=None, decides=True):
    """A figure of ours that is not to be exceeded."""

    def ask(found):
        return found.value(side or found.ours, metric)

    return Check(what, ask, lambda value: value <= most, decides)


def flat(factor):
    """The same with many rows as with few."""

    def ask(found):
        few, many = found.value(found.ours, size=found.sizes[0]), found.value(found.ours)
        return many / few if few and many and len(found.sizes) > 1 else None

    text = f"with the most rows at most {factor:g} × what it is with the fewest"
    return Check(text, ask, lambda ratio: ratio <= factor)


def metric_within(times, metric, of, text):
    """One figure of a run of ours beside another one of the same run."""

    def ask(found):
        mine, other = found.value(found.ours, metric), found.value(found.ours, of)
        return mine / other if mine and other else None

    return Check(text, ask, lambda ratio: ratio <= times)


class Row(NamedTuple):
    id: str
    workload: str
    unit: str
    sizes: tuple
    quick: tuple
    sides: tuple
    work: tuple  # (a function of workloads.py or measure.py, its arguments for a size)
    seed: Callable | None = None  # the arguments of `fill` for a size
    fresh: bool = False  # a new queue for each run: the work uses it up
    limit: tuple | None = None  # (text, workload, arguments for a size): what the machine can do
    second: str = ""  # a further figure that the table shows
    most: str = "most_rows"  # what bounds the sizes of an engine
    fair: tuple = ()  # the peers that keep what ours keeps: the others may be quicker for less
    checks: tuple = ()


def with_rows(**more):
    return lambda size: {"rows": size, **more}


def with_calls(calls, **more):
    return lambda size: {"calls": calls, **more}


LONG = (10, 1_000, 10_000, 100_000, 1_000_000)
APPEND = "open, flock, open, write, close"
COPY = "copy_file_range of the file, and fsync"

ROWS = (
    Row(
        "enqueue-off", 'enqueue one by one, sync="off"', "µs", (0, *LONG), (1_000,),
        ("ours off", "ours off opened", "sqlite NORMAL", "sqlite NORMAL opened", *LOCAL),
        ("enqueue", with_calls(1_000)), with_rows(), second="p99",
        limit=(APPEND, "append", with_calls(1_000)),
        fair=("sqlite NORMAL", "litequeue", "huey no fsync", "rq", "celery"),
        checks=(
            faster(1.5, "sqlite NORMAL"), faster(10, "sqlite NORMAL opened"), faster(20, "rq"),
            within(2, "limit"), flat(1.25), at_most(15, "about 15 µs", decides=False),
        ),
    ),
    Row(
        "enqueue", "enqueue one by one, default", "µs", (0, *LONG), (0,),
        ("ours normal", "ours full", *SYNCED), ("enqueue", with_calls(300)), with_rows(),
        second="p99",
        limit=(APPEND + ", with fdatasync", "append", with_calls(300, sync=True)), fair=SYNCED,
        checks=(within(1.15, "limit"), faster(1, "sqlite FULL"), faster(1.5, "huey")),
    ),
    Row(
        "bulk", "enqueue_many, each job", "µs", (100_000,), (2_000,),
        ("ours off", "sqlite NORMAL", "rq"), ("bulk", lambda size: {"jobs": size}),
        lambda size: {"rows": 0}, fresh=True,
        limit=("JSON alone", "dumps", with_calls(100_000)), fair=("sqlite NORMAL", "rq"),
        checks=(faster(3, "sqlite NORMAL"), at_most(3.33, "300,000 a second", decides=False)),
    ),
    Row(
        "drain", "drain no-op jobs, each job", "µs", (1_000, 10_000, 100_000), (100,),
        (
            "ours off", "ours normal", "sqlite NORMAL one by one", "sqlite NORMAL starts",
            "sqlite NORMAL", *LOCAL,
        ),
        ("drain", lambda size: {"jobs": size}), with_rows(), fresh=True, second="cpu",
        limit=("JSON in and out, and a write", "record", with_calls(100_000)), most="most_jobs",
        fair=("sqlite NORMAL one by one", "sqlite NORMAL starts", "celery"),
        checks=(
            faster(5, "sqlite NORMAL one by one", ONE),
            at_most(15, "15 µs of processor time", "cpu"),
            faster(5, "sqlite NORMAL starts", STARTS, decides=False),
            faster(5, "sqlite NORMAL", BATCH, decides=False),
            at_most(16.7, "60,000 a second", decides=False),
        ),
    ),
    Row(
        "drain-full", 'drain, each outcome on the disk, sync="full"', "µs", (1_000,), (20,),
        ("ours full", "sqlite FULL one by one", *SYNCED), ("drain", lambda size: {"jobs": size}),
        with_rows(), fresh=True, second="cpu", most="most_jobs",
        limit=("append and fdatasync", "fdatasync", with_calls(300)),
        fair=("sqlite FULL one by one",),
        checks=(
            faster(2, "sqlite FULL one by one", ONE),
            faster(2, "sqlite FULL", BATCH, decides=False),
        ),
    ),
    Row(
        "drain-long", "drain, ours alone, at most 50,000 of the jobs, each", "µs", LONG, (10, 100),
        ("ours off",), ("drain", lambda size: {"jobs": min(size, 50_000), "most": 50_000}),
        with_rows(), fresh=True, second="cpu",
    ),
    Row(
        "idle-tick", "a tick of a new process, nothing due", "ms", (0, *LONG), (1_000,),
        ("ours off", "ours off no hint", "sqlite NORMAL", "huey no fsync", "1.0.0"),
        ("tick", with_calls(7)), with_rows(later=True), second="peak",
        limit=("Python's own start", "bare", with_calls(7)),
        fair=("sqlite NORMAL", "huey no fsync"),
        checks=(
            less_own_start(0.6, "sqlite NORMAL"), faster(1 / 0.6, "sqlite NORMAL", decides=False),
            Check("Python's start and 3 ms", lambda found: found.less("limit"), lambda ms: ms <= 3),
            at_most(300, "0.3 s without the hint", side="ours off no hint"), flat(1.25),
        ),
    ),
    Row(
        "get-job", "get_job by id", "µs", LONG, (1_000,),
        ("ours off", "sqlite NORMAL opened", "sqlite NORMAL", "litequeue", "rq", "1.0.0"),
        ("get", with_calls(500)), with_rows(later=True), second="p99",
        limit=("open, 27 preads, close", "reads", lambda size: {"rows": size, "calls": 500}),
        fair=("sqlite NORMAL opened",),
        checks=(faster(3, "sqlite NORMAL opened"), at_most(60, "60 µs"), flat(4)),
    ),
    Row(
        "memory-idle", "memory of an idle tick", "MB", (), (), ("idle-tick", "peak"), (),
        fair=("sqlite NORMAL", "huey no fsync"),
        checks=(at_most(15, "15 MB"), within(1, "sqlite NORMAL")),
    ),
    Row(
        "memory-drain", "memory of a drain", "MB", (), (), ("drain", "peak"), (),
        fair=("sqlite NORMAL one by one", "sqlite NORMAL starts", "celery"),
        checks=(at_most(40, "40 MB"), within(1, "sqlite NORMAL")),
    ),
    Row(
        "together", "2 producers and 2 workers, each job", "µs", (20_000,), (100,),
        ("ours off", "sqlite NORMAL one by one", "sqlite NORMAL", *LOCAL),
        ("together", lambda size: {"jobs": size}), fresh=True, most="most_jobs",
        fair=("sqlite NORMAL one by one", "celery"),
        checks=(
            faster(2, "sqlite NORMAL one by one", ONE),
            faster(2, "sqlite NORMAL", BATCH, decides=False), at_most(0, "none lost", "lost"),
            at_most(0, "none doubled", "doubled"), at_most(83, "12,000 a second", decides=False),
        ),
    ),
    Row(
        "beside", "enqueue while a worker drains 20,000 jobs", "µs", (100_000,), (1_000,),
        ("ours off", "sqlite NORMAL"), ("beside", lambda size: {"jobs": min(size, 20_000)}),
        lambda size: {"rows": size, "later": True, "due": min(size, 20_000)}, fresh=True,
        limit=(APPEND, "append", with_calls(1_000)), second="p99", fair=("sqlite NORMAL",),
        checks=(
            metric_within(1.25, "value", "alone", "p50 at most 1.25 × alone"),
            metric_within(1, "p99", "edit", "p99 at most one edit"),
        ),
    ),
    Row(
        "claim", "a tick that runs one job, behind finished ones", "µs", LONG, (1_000,),
        ("ours off", "sqlite NORMAL", "litequeue", "1.0.0"), ("drain", lambda size: {"jobs": 1}),
        with_rows(finished=True, due=1), fresh=True,
        limit=(COPY, "copy", lambda size: {"rows": size, "calls": 3}), fair=("sqlite NORMAL",),
    ),
    Row(
        "first", "a new process that adds one job", "ms", (0,), (0,),
        ("ours off", "sqlite NORMAL", *LOCAL), ("first", with_calls(7)), with_rows(),
        limit=("Python's own start", "bare", with_calls(7)), second="peak",
        fair=("sqlite NORMAL", "litequeue", "huey no fsync", "rq", "celery"),
    ),
    Row(
        "import", "a new process that imports the package", "ms", (0,), (0,),
        ("ours off", "sqlite NORMAL", *LOCAL, "persist-queue"), ("imported", with_calls(7)),
        limit=("Python's own start", "bare", with_calls(7)), second="peak",
        fair=("sqlite NORMAL", "litequeue", "huey no fsync", "persist-queue", "rq", "celery"),
    ),
)  # fmt: skip
