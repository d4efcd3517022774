"""Layers that come with the queue: each plain, async, side by side, in a pool and around a task."""

import asyncio
import ctypes
import fcntl
import logging
import os
import pstats
import resource
import signal
import sys
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
from freezegun import freeze_time

from dbbasic_queue import Discard, Retry, Snooze, current_job, pool
from dbbasic_queue.errors import BadArgument, BadRow, JobTimeout, Killed
from dbbasic_queue.middleware import (
    authorized,
    errors_kept,
    errors_of,
    kept_traceback,
    layer_of,
    limited,
    logged,
    needs,
    permitted,
    profiled,
    retrying,
    throttled,
    timed,
    traceback_kept,
)
from dbbasic_queue.tasks import Tasks

START = "2030-01-01 00:00:00"
WAYS = ["plain", "async", "side by side", "pool", "task", "async task"]


def forked(does):
    pid = os.fork()
    if not pid:
        status = 1
        try:
            does()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(queue, layers, does, way="plain", count=1, columns=None, **options):
    """Run jobs of a handler that calls `does(n)`, in one of the ways; return their rows."""

    async def handler_async(payload):
        await asyncio.sleep(0)
        return does(payload)

    handler = handler_async if way in ("async", "side by side") else does
    handlers, middleware = {"t": handler}, layers
    if "task" in way:

        async def soon(n):
            return await handler_async(n)

        def now(n):
            return does(n)

        handlers, middleware = Tasks(), ()
        task = handlers.task(name="t", middleware=layers)(soon if "async" in way else now)
        made = [{**task.job(n), "columns": columns or {}} for n in range(count)]
    else:
        made = [{"job_type": "t", "payload": n, "columns": columns or {}} for n in range(count)]
    ids = queue.enqueue_many(made)
    options |= {"side by side": {"concurrency": 5}, "pool": {"processes": 2}}.get(way, {})
    queue.process_jobs(handlers, middleware=middleware, **options)
    return [queue.get(id) for id in ids]


def every_layer(folder):
    return [
        logged(),
        timed(lambda job, seconds, failure: None),
        throttled(1000, 60),
        retrying({ConnectionError: 60}),
        authorized("a"),
        limited(seconds=60, memory=500),
        profiled(folder),
        errors_kept,
    ]


# --- all of them


@pytest.mark.parametrize("way", WAYS)
def test_all_layers_together_let_a_result_and_an_error_through(queue, way, tmp_path):
    def does(n):
        if n == 3:
            raise ZeroDivisionError(n)
        return [n]

    jobs = run(queue, every_layer(tmp_path / "prof"), does, way, count=5, max_attempts=1)

    assert [job.result for job in jobs] == [[0], [1], [2], None, [4]]
    assert [job.error for job in jobs if job.status == "failed"] == ["ZeroDivisionError: 3"]
    assert len(os.listdir(tmp_path / "prof")) == 5


@pytest.mark.parametrize("failure", [Snooze(5), Retry(after=7), Discard("no"), Killed("enough")])
@pytest.mark.parametrize("way", ["plain", "side by side"])
def test_what_a_handler_asks_for_passes_all_layers(queue, way, failure, tmp_path):
    def does(n):
        raise failure

    [job] = run(queue, every_layer(tmp_path), does, way)

    expected = {Snooze: "pending", Retry: "pending", Discard: "failed", Killed: "cancelled"}
    assert job.status == expected[type(failure)]


def test_the_first_layer_is_the_outermost(queue):
    said = []

    def named(name):
        @contextmanager
        def around(job):
            said.append(f"{name} {job.type}")
            try:
                yield
            finally:
                said.append(f"end of {name}")

        return layer_of(around)

    for concurrency in (1, 5):
        run(queue, [named("a"), named("b")], said.append, concurrency=concurrency)

    assert said == ["a t", "b t", 0, "end of b", "end of a"] * 2


@pytest.mark.parametrize("concurrency", [1, 5])
def test_a_layer_that_raises_fails_the_attempt_and_the_handler_does_not_run(queue, concurrency):
    @contextmanager
    def around(job):
        raise LookupError(job.id)
        yield

    ran = []
    [job] = run(queue, [layer_of(around)], ran.append, max_attempts=1, concurrency=concurrency)

    assert (job.status, job.error, ran) == ("failed", f"LookupError: {job.id}", [])


# --- logged, timed


@pytest.mark.parametrize("way", [way for way in WAYS if way != "pool"])
def test_logged_says_the_start_and_the_end(queue, way, caplog):
    log = logging.getLogger("mine")

    def does(n):
        if n == 1:
            raise ValueError("bad\nline")
        if n == 2:
            raise Snooze(5)

    with caplog.at_level(logging.INFO, "mine"):
        jobs = run(queue, [logged(log)], does, way, count=3, max_attempts=1)

    told = [(r.levelname, r.getMessage(), bool(r.exc_info)) for r in caplog.records
            if r.name == "mine"]  # fmt: skip
    starts = [f"job {job.id} t starts, attempt 1" for job in jobs]
    assert sorted(text for _, text, _ in told if "starts" in text) == starts
    ends = sorted((one for one in told if "starts" not in one[1]), key=lambda one: one[1])
    assert [(level, trace) for level, _, trace in ends] == [
        ("INFO", False), ("ERROR", True), ("INFO", False)
    ]  # fmt: skip
    assert f"job {jobs[0].id} t completed in 0." in ends[0][1]
    assert " raised in 0." in ends[1][1] and r"ValueError: bad\nline" in ends[1][1]
    assert " Snooze in 0." in ends[2][1]


def test_a_log_and_a_timer_that_raise_harm_no_job(queue):
    class Angry(logging.Filter):
        def filter(self, record):
            raise RuntimeError

    log = logging.getLogger("angry")
    log.setLevel(logging.INFO)
    log.addFilter(Angry())

    [job] = run(queue, [logged(log), timed(lambda *given: 1 / 0)], str)

    assert job.result == "0"


@pytest.mark.parametrize("way", [way for way in WAYS if way != "pool"])
def test_timed_is_called_with_the_job_the_seconds_and_the_failure(queue, way):
    told = []

    def does(n):
        time.sleep(0.01)
        if n:
            raise ValueError(n)

    jobs = run(queue, [timed(lambda *given: told.append(given))], does, way, count=2)

    told.sort(key=lambda one: one[0].id)
    assert [job.id for job, _, _ in told] == [job.id for job in jobs]
    assert all(0.01 <= seconds < 5 for _, seconds, _ in told)
    assert [type(failure) for _, _, failure in told] == [type(None), ValueError]


# --- throttled


@pytest.mark.parametrize("way", WAYS)
def test_at_most_n_runs_begin_in_the_window_and_the_others_are_snoozed(queue, way):
    jobs = run(queue, [throttled(2, 60)], str, way, count=5)

    waits = [job for job in jobs if job.status == "pending"]
    assert len(jobs) - len(waits) == 2
    assert all(job.attempts == 0 and 55 < job.run_at - time.time() <= 61 for job in waits)


def test_a_window_slides_and_counts_each_type_name_and_key_for_itself(queue):
    def begun(layer, *jobs):
        ids = queue.enqueue_many(jobs)
        queue.process_jobs(dict.fromkeys("ab", str), middleware=[layer])
        done = [queue.get(id).status == "completed" for id in ids]
        queue.purge(status="pending")
        return done

    with freeze_time(START) as clock:
        one = throttled(1, timedelta(seconds=10))
        assert begun(one, ("a",), ("a",), ("b",)) == [True, False, True]
        shared = throttled(2, 10, name="shared")
        assert begun(shared, ("a",), ("b",), ("b",)) == [True, True, False]
        keyed = throttled(1, 10, "user", name="keyed")
        assert begun(keyed, ("a", {"user": 1}), ("a", {"user": 2}), ("b", {"user": 1}), ("b", 5),
                     ("b", {})) == [True, True, False, True, False]  # fmt: skip
        assert begun(throttled(1, 10, len, name="f"), ("a", "x"), ("a", "y"), ("a", "zz")) == [
            True, False, True
        ]  # fmt: skip
        clock.tick(9.99)
        assert begun(one, ("a",)) == [False]
        clock.tick(0.02)
        assert begun(one, ("a",), ("a",)) == [True, False]
        clock.move_to("2029-01-01")
        assert begun(one, ("a",)) == [False]
        clock.tick(10.1)
        assert begun(one, ("a",)) == [True]


def test_the_count_holds_over_workers_and_a_killed_one_leaks_nothing(queue):
    layer = [throttled(30, 60)]
    queue.enqueue_many([("t", n) for n in range(100)])

    def die(n):
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(lambda: queue.process_jobs({"t": die}, middleware=layer)) == -signal.SIGKILL
    pids = [os.fork() for _ in range(3)]
    if 0 in pids:
        try:
            queue.process_jobs({"t": str}, middleware=layer, max_workers=9)
        finally:
            os._exit(0)
    for pid in pids:
        os.waitpid(pid, 0)

    assert queue.counts()["completed"] == 29


def test_the_file_of_starts_becomes_short_again_and_a_torn_line_is_left_out(queue):
    path = os.path.join(queue.file.side, "throttled", "type.t.1000")

    def lines():
        with open(path, "rb") as file:
            return file.read().split(b"\n")

    run(queue, [throttled(5, 0.001)], str)
    with open(path, "ab") as file:
        file.write(b"1893456000000000\t\n" * 1022 + b"1893456")
    with freeze_time("2030-01-02") as clock:
        for left in (2, 3):
            clock.tick(1)
            run(queue, [throttled(5, 0.001)], str)
            assert len(lines()) == left
        with open(path, "ab") as file:
            file.write(b"1893456")
        clock.tick(1)
        run(queue, [throttled(5, 0.001)], str)
        assert [len(line) for line in lines()] == [17, 17, 17, 0]
        with open(path, "ab") as file:
            file.write(b"1893456000000000\t\n" * 1021)
        for left in (2, 3):
            clock.tick(1)
            run(queue, [throttled(5, 0.001)], str)
            assert len(lines()) == left

    assert {(len(line), line[:-1].isdigit()) for line in lines()[:-1]} == {(17, True)}


def test_a_throttle_that_somebody_holds_is_waited_for_and_then_the_job_is_snoozed(
    queue, monkeypatch
):
    monkeypatch.setattr("dbbasic_queue.middleware.throttling._PATIENCE", 0.02)
    run(queue, [throttled(5, 60)], str)

    with open(os.path.join(queue.file.side, "throttled", "type.t.60000000")) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        [job] = run(queue, [throttled(5, 60)], str)

    assert (job.status, job.attempts) == ("pending", 0)


@pytest.mark.parametrize(
    "given, named",
    [
        ((0, 1), "n=0"), ((True, 1), "n=True"), ((1, 0), "seconds=0"), ((1, -1), "-1"),
        ((1, 1, 5), "key=5"), ((1, 1, None, "a/b"), "name='a/b'"),
    ],
)  # fmt: skip
def test_a_throttle_that_cannot_be_is_an_error_that_names_it(given, named):
    with pytest.raises(BadArgument, match=named):
        throttled(*given[:3], **({"name": given[3]} if given[3:] else {}))


# --- retrying


class Limited(ConnectionError):
    pass


RULES = {
    OSError: 10,
    ConnectionError: "exponential:5:600",
    Limited: timedelta(minutes=1),
    ValueError: Discard,
    LookupError: lambda attempts: 5 * attempts + 100,
    KeyError: (200, 1),
    ArithmeticError: lambda attempts: "soon",
}


def usual_error(queue, failure):
    """The error of a job that has raised this, without a layer."""

    def does(n):
        raise failure

    [job] = run(queue, [], does, max_attempts=1)
    return job.error


@pytest.mark.parametrize("way", ["plain", "side by side", "async task"])
@pytest.mark.parametrize(
    "failure, wait",
    [
        (OSError(2, "x"), 10),
        (OSError(), 10),
        (ConnectionResetError("x"), 5),
        (Limited("x"), 60),
        (IndexError("x"), 105),
        (RuntimeError("x"), 1000),
        (ZeroDivisionError("x"), 1000),
        (UnicodeError("x"), None),
        (KeyError("x"), None),
    ],
)
def test_the_rule_of_the_most_derived_type_says_when_it_is_tried_again(queue, way, failure, wait):
    def does(n):
        raise failure

    begun = time.time()
    [job] = run(queue, [retrying(RULES)], does, way, backoff="linear:1000:1000")

    assert job.error == usual_error(queue, failure)
    if wait is None:
        assert (job.status, job.attempts) == ("failed", 1)
    else:
        assert wait <= job.run_at - begun + 1 <= wait + 5


def test_a_rule_for_fewer_attempts_ends_the_job_after_them(queue):
    def does(n):
        raise KeyError(n)

    with freeze_time(START) as clock:
        [job] = run(queue, [retrying({KeyError: ("none", 2)})], does, max_attempts=9)
        clock.tick(1)
        queue.process_jobs({"t": does}, 9, middleware=[retrying({KeyError: ("none", 2)})])

    assert (queue.get(job.id).status, queue.get(job.id).attempts) == ("failed", 2)


@pytest.mark.parametrize(
    "rules",
    [None, {"a": 1}, {Snooze: 1}, {KeyboardInterrupt: 1}, {OSError: "soon"}, {OSError: -1},
     {OSError: None}, {OSError: (1, 0)}, {OSError: (1, 2, 3)}, {OSError: ValueError}],
)  # fmt: skip
def test_what_is_no_rule_is_an_error(rules):
    with pytest.raises(BadArgument):
        retrying(rules)


# --- permissions


@pytest.mark.parametrize("way", WAYS)
def test_a_job_that_needs_more_than_its_worker_has_fails_at_once(queue, way):
    ran = []

    [job] = run(queue, [authorized("mail")], ran.append, way, columns=needs("mail", "a", "b"))
    [fine] = run(queue, [authorized("mail", "a", "b", "c")], str, way, columns=needs("a", "b"))

    assert (job.status, job.error, ran) == ("failed", "not authorized: it needs a, b", [])
    assert fine.status == "completed"


def test_a_check_of_ones_own_is_asked_too(queue):
    def is_small(job):
        return job.payload < 1

    small, big = run(queue, [authorized(check=is_small)], str, count=2)

    assert (small.status, big.status) == ("completed", "failed")
    assert big.error == "not authorized: refused by is_small"


def test_a_job_that_needs_more_is_left_for_a_worker_that_may(queue):
    more, less = queue.enqueue("t", columns=needs("a", "b")), queue.enqueue("t", columns=needs("a"))

    queue.process_jobs({"t": str}, admit=[permitted("a")])
    before = queue.get(more).status, queue.get(less).status
    queue.process_jobs({"t": str}, admit=[permitted("a", "b")])

    assert before == ("pending", "completed")
    assert queue.get(more).status == "completed"
    assert permitted("a")(queue.get(less), None) is None  # it limits nothing there


def test_permitted_as_a_layer_fails_the_job_and_names_the_layer_that_is_meant(queue):
    job_id = queue.enqueue("t")

    queue.process_jobs({"t": str}, 1, middleware=[permitted("a")])

    assert queue.get(job_id).status == "failed"
    assert "the layer is authorized" in queue.get(job_id).error


@pytest.mark.parametrize("call", [needs, authorized, permitted])
@pytest.mark.parametrize("word", ["", "two words", "a:b", None])
def test_what_is_no_permission_is_an_error(call, word):
    with pytest.raises(BadArgument, match="is no permission"):
        call("a", word)
    with pytest.raises(BadArgument, match="check=1"):
        authorized(check=1)


# --- limited


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_takes_too_long_is_ended_and_fails(queue, way):
    async def sleep(n):
        await asyncio.sleep(30)

    if way == "side by side":
        id = queue.enqueue("t")
        queue.process_jobs({"t": sleep}, 1, middleware=[limited(0.05)], concurrency=5)
        job = queue.get(id)
    else:
        [job] = run(queue, [limited(0.05)], lambda n: time.sleep(30), way, max_attempts=1)

    assert (job.status, job.error) == ("failed", "timed out after 0.05 s")


@pytest.mark.soak
def test_in_a_pool_a_run_that_hears_nothing_is_killed_when_its_limit_is_over(queue, monkeypatch):
    monkeypatch.setattr(pool, "_TOO_LATE", 0.05)

    def deaf(n):
        ctypes.PyDLL(None).usleep(900_000)  # keeps the interpreter's lock

    [job] = run(queue, [limited(0.05)], deaf, "pool", max_attempts=1)

    assert (job.status, job.error) == ("failed", "timed out after 0.05 s")


def test_a_time_out_passes_the_layers_around_it(queue):
    told = []
    layers = [timed(lambda *given: told.append(given[2])), retrying({Exception: 5}), errors_kept,
              limited(0.05)]  # fmt: skip

    [job] = run(queue, layers, lambda n: time.sleep(30), backoff="linear:100:100")

    assert job.error == "timed out after 0.05 s"
    assert job.run_at - time.time() > 90
    assert isinstance(told[0], JobTimeout)


@pytest.mark.soak
@pytest.mark.parametrize("own, error", [(0.05, "timed out after 0.05 s"), (None, None)])
def test_the_jobs_own_timeout_holds_too_and_a_limit_ends_with_its_run(queue, own, error):
    @contextmanager
    def slow_after(job):
        yield
        time.sleep(0.15 if own is None else 0)

    id = queue.enqueue("t", timeout=own)

    queue.process_jobs(
        {"t": lambda p: time.sleep(5 if own else 0)}, 1,
        middleware=[layer_of(slow_after), limited(0.02 if own is None else 60)],
    )  # fmt: skip

    assert queue.get(id).error == error


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_takes_too_much_memory_fails_and_the_worker_lives(queue, way):
    before = resource.getrlimit(resource.RLIMIT_DATA)

    def does(n):
        if n == 0:
            return len(bytearray(300 << 20))
        return len(bytearray(5 << 20))

    jobs = run(queue, [limited(memory=20)], does, way, count=3, max_attempts=1)

    assert [job.error for job in jobs] == ["MemoryError", None, None]
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_side_by_side_the_limits_of_memory_go_with_their_runs(queue):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    seen = []

    async def does(n):
        seen.append(resource.getrlimit(resource.RLIMIT_DATA)[0])
        await asyncio.sleep(0.01 * (5 - n))

    for n in range(5):
        queue.enqueue("t", n)
    queue.process_jobs({"t": does}, middleware=[limited(memory=20)], concurrency=5)

    assert seen == [seen[0] + (20 << 20) * n for n in range(5)]
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize("given", [(0,), ("1",), (None, 0), (None, "1"), (None, True)])
def test_a_limit_that_cannot_be_is_an_error(given):
    with pytest.raises(BadArgument):
        limited(*given)


# --- profiled


@pytest.mark.parametrize("way", WAYS)
def test_a_profile_of_each_run_can_be_read(queue, way, tmp_path):
    def counted_here(n):
        return sum(range(n))

    jobs = run(queue, [profiled("prof")], lambda n: counted_here(n), way, count=3)

    for job in jobs:
        stats = pstats.Stats(str(tmp_path / "prof" / f"{job.id}-1.prof")).stats
        assert [calls[0] for where, calls in stats.items() if where[2] == "counted_here"] == [1]
    assert sys.getprofile() is None


def test_side_by_side_a_profile_has_its_own_jobs_calls_only(queue):
    def mine(n):
        return n

    def others(n):
        return n

    async def does(n):
        for _ in range(3):
            (others if n else mine)(n)
            await asyncio.sleep(0.001)

    ids = queue.enqueue_many([("t", 0), ("t", 1), ("t", 2)])

    queue.process_jobs({"t": does}, middleware=[profiled("prof")], concurrency=3)

    found = [
        {where[2]: calls[1] for where, calls in pstats.Stats(f"prof/{id}-1.prof").stats.items()}
        for id in ids
    ]
    assert [(one.get("mine"), one.get("others")) for one in found] == [
        (3, None), (None, 3), (None, 3)
    ]  # fmt: skip


def test_a_profile_that_cannot_be_written_harms_no_job(queue, tmp_path, caplog):
    (tmp_path / "file").touch()

    [job] = run(queue, [profiled(tmp_path / "file")], str)

    assert job.status == "completed"
    assert "not written" in caplog.text


def test_the_profile_of_a_run_that_raised_is_kept_under_each_attempt(queue, tmp_path):
    [job] = run(queue, [profiled("prof")], lambda n: 1 / 0, backoff="none", max_attempts=2)
    queue.process_jobs({"t": lambda n: 1 / 0}, 2, middleware=[profiled("prof")])

    assert sorted(os.listdir("prof")) == [f"{job.id}-1.prof", f"{job.id}-2.prof"]


# --- traceback_kept


def inner(payload):
    raise ValueError(f"no {payload}\nat all")


@pytest.mark.parametrize("concurrency", [1, 2])
def test_the_traceback_of_what_was_raised_stays_with_the_job(queue, concurrency):
    async def side_by_side(payload):
        inner(payload)

    id = queue.enqueue("bad", "way")
    handler = side_by_side if concurrency > 1 else lambda payload: inner(payload)

    queue.process_jobs({"bad": handler}, 1, middleware=[traceback_kept], concurrency=concurrency)

    text = kept_traceback(queue.get(id))
    assert text.startswith("Traceback (most recent call last):\n  File")
    assert text.endswith("ValueError: no way\nat all")
    assert "in inner" in text and "dbbasic_queue/run.py" not in text
    assert queue.get(id).error == "ValueError: no way\nat all"


def test_what_is_asked_for_in_words_leaves_no_traceback(queue):
    def ask(how):
        raise {"snooze": Snooze(9), "retry": Retry(after=9), "discard": Discard("gone")}[how]

    ids = queue.enqueue_many([("ask", "snooze"), ("ask", "retry"), ("ask", "discard")])
    queue.process_jobs({"ask": ask}, middleware=[traceback_kept])

    assert [kept_traceback(queue.get(id)) for id in ids] == [None] * 3


def test_a_traceback_is_of_the_last_attempt_of_this_very_job(queue):
    id = queue.enqueue("bad", "way", max_attempts=1)
    queue.process_jobs({"bad": inner}, middleware=[traceback_kept])
    (copy,) = queue.retry(id, copy=True)
    queue.retry(id)
    queue.process_jobs({"bad": inner}, 1)

    assert queue.get(copy).attempts == 1
    assert kept_traceback(queue.get(copy)) is None


def test_a_long_traceback_keeps_its_end_and_one_without_text_is_told_too(queue):
    class Wordless(Exception):
        def __str__(self):
            raise RuntimeError

    def long(payload):
        raise ValueError("x" * 9000 + "end")

    def wordless(payload):
        raise Wordless

    ids = queue.enqueue_many([("long",), ("wordless",)])
    layers = {"long": long, "wordless": wordless}
    queue.process_jobs(layers, 1, middleware=[traceback_kept])

    long_one, other = (kept_traceback(queue.get(id)) for id in ids)
    assert len(long_one) == 4000 and long_one.endswith("xend")
    assert "raise Wordless" in other


# --- errors_kept


@pytest.mark.parametrize("concurrency", [1, 5])
def test_the_error_of_every_attempt_is_kept_also_a_killed_workers(queue, concurrency):
    def does(n):
        number = current_job().attempts
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(number)

    async def handler(n):
        does(n)

    id = queue.enqueue("t", max_attempts=4, backoff="none")

    def tick():
        queue.process_jobs({"t": handler}, middleware=[errors_kept], concurrency=concurrency)

    ends = [forked(tick) for _ in range(4)]

    job = queue.get(id)
    assert ends.count(-signal.SIGKILL) == 1
    assert (job.status, job.error) == ("failed", "ValueError: 4")
    assert [n for n, _ in errors_of(job)] == [1, 2, 3]
    assert errors_of(job)[0][1] == "ValueError: 1"
    assert "worker died" in errors_of(job)[1][1]
    [copy] = queue.retry(id, copy=True)
    assert errors_of(queue.get(copy)) == []


def test_a_snooze_does_not_keep_an_error_twice(queue):
    def does(n):
        if current_job().attempts == 1:
            raise ValueError
        if len(errors) < 3:
            errors.append(errors_of(current_job()))
            raise Snooze(0)

    errors = []
    id = queue.enqueue("t", backoff="none")
    for _ in range(5):
        queue.process_jobs({"t": does}, middleware=[errors_kept])

    assert errors_of(queue.get(id)) == [(1, "ValueError")]


def test_a_spoilt_list_of_errors_is_an_error_to_the_reader_and_begun_anew_by_the_layer(queue):
    id = queue.enqueue("t", backoff="none", columns={"errors": "{no"})

    with pytest.raises(BadRow, match=f"job {id}: its column errors"):
        errors_of(queue.get(id))
    for _ in range(2):
        queue.process_jobs({"t": lambda n: 1 / 0}, 2, middleware=[errors_kept])

    assert errors_of(queue.get(id)) == [(1, "ZeroDivisionError: division by zero")]


@pytest.mark.parametrize(
    "layer", [limited, logged, retrying, profiled, lambda job: job, lambda a, b, c: a]
)
def test_a_layer_that_was_not_called_is_refused_before_anything_runs(queue, layer):
    queue.enqueue("mail")

    with pytest.raises(BadArgument, match=r"does not take \(job, call_next\)"):
        queue.process_jobs({"mail": print}, middleware=[layer])

    assert queue.counts() == {"pending": 1}


def test_layers_of_all_shapes_are_taken(queue):
    class Layer:
        def __call__(self, job, call_next):
            return call_next(job)

        def method(self, job, call_next, more=1):
            return call_next(job)

    def given(*both):
        return both[1](both[0])

    id = queue.enqueue("mail")
    layers = [Layer(), Layer().method, given, lambda job, call_next, more=1: call_next(job)]

    queue.process_jobs({"mail": lambda payload: 7}, middleware=layers)

    assert queue.get(id).result == 7
