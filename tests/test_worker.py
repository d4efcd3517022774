"""A worker's tick in the calling process: what it runs, in which order, and how each run ends."""

import asyncio
import contextvars
import logging
import math
import os
import random
import re
import signal
import sys
import threading
import time
from collections import ChainMap, UserDict
from datetime import timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Discard, Queue, Retry, Snooze, current_job, worker
from dbbasic_queue.due import AT, KIND, SPOT, Due
from dbbasic_queue.errors import BadArgument, JobTimeout, Killed, QueueBusy, QueueError
from dbbasic_queue.tsv import COLUMNS

NOW = 1760000000
FROZEN = "2025-10-09 08:53:20"


def at(seconds):
    """The frozen clock, so many seconds after NOW."""
    return freeze_time(iso(NOW + seconds))


def iso(unix_time):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(unix_time))


def raises(problem):
    def handler(payload):
        raise problem

    return handler


def content(queue):
    return Path(queue.path).read_bytes()


def cells_of(queue, column, *ids):
    """What stands in the file itself in a column of some jobs."""
    lines = [line.split(b"\t") for line in content(queue).split(b"\n")[:-1]]
    place = lines[0].index(column.encode())
    found = {line[0].decode(): line[place].decode() for line in lines[1:]}
    return [found[job_id] for job_id in ids]


def statuses(queue, *ids):
    return [queue.get(job_id).status for job_id in ids]


# --- trying again


def test_an_attempt_that_fails_is_followed_by_another_ever_later(queue):
    with at(0):
        job_id = queue.enqueue("bad")
    told, now = [], 0

    for wait in (60, 120, 240):
        with at(now):
            queue.process_jobs({"bad": raises(ValueError("no"))}, 4)
            job = queue.get(job_id)
        told.append((job.status, job.attempts, job.run_at - NOW - now, job.error, job.worker))
        with at(now + wait - 1):
            queue.process_jobs({"bad": raises(ValueError("too early"))}, 4)
        now += wait
    with at(now):
        queue.process_jobs({"bad": raises(ValueError("no"))}, 4)
    job = queue.get(job_id)

    assert told == [
        ("pending", 1, 60, "ValueError: no", None),
        ("pending", 2, 120, "ValueError: no", None),
        ("pending", 3, 240, "ValueError: no", None),
    ]
    assert (job.status, job.attempts, job.finished_at) == ("failed", 4, NOW + now)
    with at(now + 10**6):
        queue.process_jobs({"bad": print})
    assert queue.get(job_id).attempts == 4


def test_the_wait_is_rounded_up_and_at_most_a_day(queue):
    with freeze_time(FROZEN + ".250"):
        first, late = queue.enqueue("bad"), queue.enqueue("bad", max_attempts=100)
        with queue.edit() as e:
            e.change(e.get(late), attempts=30)
        queue.process_jobs({"bad": raises(ValueError("no"))})

    assert queue.get(first).run_at == NOW + 61
    assert queue.get(late).run_at == NOW + 86401
    assert queue.get(first).started_at == NOW + 0.25


@pytest.mark.parametrize(
    "own, settings, argument, wait",
    [
        (None, None, None, 60),
        (None, None, "linear:7:100", 7),
        (None, None, lambda attempts: 5 * attempts, 5),
        (None, "linear:8:100", "linear:7:100", 8),
        (None, lambda attempts: 6, None, 6),
        ("linear:9:100", "linear:8:100", "linear:7:100", 9),
        ("none", "linear:8:100", "linear:7:100", 0),
        (None, "none", "linear:7:100", 0),
        ("exponential:100:1000:jitter", None, None, range(50, 101)),
    ],
)
def test_the_jobs_own_backoff_wins_over_the_queues_over_the_arguments(
    queue, own, settings, argument, wait
):
    with at(0):
        job_id = queue.enqueue("bad", queue="q", backoff=own)
        settings = {"q": {"backoff": settings}} if settings else None
        queue.process_jobs({"bad": raises(ValueError("no"))}, backoff=argument, settings=settings)

    waited = queue.get(job_id).run_at - NOW
    assert waited in wait if isinstance(wait, range) else waited == wait


@pytest.mark.parametrize(
    "backoff, wait",
    [
        (lambda attempts: 1 / 0, 60),
        (lambda attempts: None, 60),
        (lambda attempts: "soon", 60),
        (lambda attempts: -5, 0),
        (lambda attempts: 0.5, 1),
        (lambda: 5, 60),
        (lambda attempts: math.nan, range(61)),
        (lambda attempts: math.inf, range(86400, 10**11)),
    ],
    ids="raises None text negative half-a-second takes-nothing nan inf".split(),
)
def test_a_backoff_function_that_goes_wrong_loses_no_job(queue, backoff, wait):
    with at(0):
        job_id, other = queue.enqueue("bad"), queue.enqueue("good")
        queue.process_jobs({"bad": raises(ValueError("no")), "good": str}, backoff=backoff)

    waited = queue.get(job_id).run_at - NOW
    assert waited in wait if isinstance(wait, range) else waited == wait
    assert statuses(queue, job_id, other) == ["pending", "completed"]


@pytest.mark.parametrize(
    "own, settings, argument, attempts",
    [
        (None, None, {}, 3),
        (None, None, {"max_attempts": 5}, 5),
        (None, 2, {"max_attempts": 5}, 2),
        (4, 2, {"max_attempts": 5}, 4),
        (1, 9, {}, 1),
    ],
)
def test_the_jobs_own_max_attempts_wins_over_the_queues_over_the_arguments(
    queue, own, settings, argument, attempts
):
    job_id = queue.enqueue("bad", queue="q", max_attempts=own, backoff="none")
    settings = {"q": {"max_attempts": settings}} if settings else None

    for tick in range(10):
        queue.process_jobs({"bad": raises(ValueError(tick))}, settings=settings, **argument)

    assert (queue.get(job_id).status, queue.get(job_id).attempts) == ("failed", attempts)


# --- the words a handler may raise


@pytest.mark.parametrize("after, wait", [(0, 0), (30, 30), (1.5, 2), (timedelta(minutes=2), 120)])
def test_a_snoozed_job_keeps_its_attempts(queue, after, wait):
    with at(0):
        job_id = queue.enqueue("later")
        with queue.edit() as e:
            e.change(e.get(job_id), attempts=2)
        queue.process_jobs({"later": raises(Snooze(after))}, 3)
    job = queue.get(job_id)

    assert (job.status, job.attempts, job.run_at, job.error) == ("pending", 2, NOW + wait, None)
    assert job.worker is job.finished_at is None
    with at(wait):
        queue.process_jobs({"later": str}, 3)
    assert (queue.get(job_id).status, queue.get(job_id).attempts) == ("completed", 3)


@pytest.mark.parametrize(
    "retry, wait, error",
    [
        (lambda: Retry(), 60, "another attempt was asked for"),
        (lambda: Retry("rate limit"), 60, "rate limit"),
        (lambda: Retry(after=5), 5, "another attempt was asked for"),
        (lambda: Retry("later", after=timedelta(hours=1)), 3600, "later"),
        (lambda: Retry(after=0), 0, "another attempt was asked for"),
    ],
)
def test_retry_counts_the_attempt_and_may_say_when(queue, retry, wait, error):
    with at(0):
        job_id = queue.enqueue("again")
        queue.process_jobs({"again": raises(retry())}, 2)
        first = queue.get(job_id)
    with at(wait):
        queue.process_jobs({"again": raises(retry())}, 2)

    assert (first.status, first.attempts, first.run_at) == ("pending", 1, NOW + wait)
    assert first.error.endswith(error)
    assert statuses(queue, job_id) == ["failed"]


@pytest.mark.parametrize(
    "discard, error",
    [
        (Discard("no such user"), "no such user"),
        (Discard(), "discarded"),
        (Discard("a\tb\n\x1b[0m"), "a\tb\n\x1b[0m"),
    ],
)
def test_a_discarded_job_has_failed_at_once_for_the_reason_given(queue, discard, error):
    job_id = queue.enqueue("bad")

    queue.process_jobs({"bad": raises(discard)}, 5)

    job = queue.get(job_id)
    assert (job.status, job.attempts, job.error) == ("failed", 1, error)


@pytest.mark.parametrize("word", [Snooze, lambda value: Retry(after=value)])
@pytest.mark.parametrize("value", [-1, "soon", math.nan, True, timedelta(seconds=-1)])
def test_a_word_with_a_duration_that_is_none_is_an_error_of_the_handler(queue, word, value):
    job_id = queue.enqueue("bad")

    def handler(payload):
        raise word(value)

    queue.process_jobs({"bad": handler}, 1)

    assert statuses(queue, job_id) == ["failed"]
    assert "is no duration" in queue.get(job_id).error


# --- how a run ends


class Odd(Exception):
    pass


class Unreadable(Exception):
    def __str__(self):
        raise RuntimeError("not even this")

    __repr__ = __str__


class Deadly(Exception):
    def __str__(self):
        raise SystemExit(3)


class HalfMade(Snooze):
    def __init__(self):
        pass


class Trap(dict):
    """What is no JSON yet: `problem` comes out of it when it is read."""

    def __init__(self, problem):
        super().__init__(a=1)
        self.problem = problem

    def items(self):
        raise self.problem


def recurse(payload):
    return recurse(payload)


def empty_its_job(payload):
    current_job().cells.clear()
    raise ValueError("and then this")


def exhaust(payload):
    raise MemoryError


PROBLEMS = {
    "ValueError: no": raises(ValueError("no")),
    "KeyError: 'name'": raises(KeyError("name")),
    "ValueError": raises(ValueError()),
    "ValueError: line\nline\ttab": raises(ValueError("line\nline\ttab")),
    "ValueError: ('a', 1)": raises(ValueError("a", 1)),
    f"{__name__}.Odd: x": raises(Odd("x")),
    f"{__name__}.Unreadable": raises(Unreadable()),
    f"{__name__}.Deadly": raises(Deadly()),
    "dbbasic_queue.errors.Discard: (its text": raises(Discard(Unreadable())),
    "AttributeError: 'HalfMade' object has no attribute 'seconds'": raises(HalfMade()),
    "KeyError: 'unread'": lambda payload: Trap(KeyError("unread")),
    "SystemExit: 4": lambda payload: Trap(SystemExit(4)),
    "IndexError: ": empty_its_job,
    "SystemExit: 3": raises(SystemExit(3)),
    "SystemExit": raises(SystemExit()),
    "SystemExit: good bye": lambda payload: sys.exit("good bye"),
    "GeneratorExit": raises(GeneratorExit()),
    "BaseException: x": raises(BaseException("x")),
    "asyncio.exceptions.CancelledError": raises(asyncio.CancelledError()),
    "StopIteration: 5": raises(StopIteration(5)),
    "MemoryError": exhaust,
    "RecursionError: maximum": recurse,
    "FileNotFoundError: [Errno 2]": lambda payload: open("/no/such/file"),
    "TypeError: ": lambda: None,
    "ZeroDivisionError: division by zero": lambda payload: 1 / 0,
}


@pytest.mark.parametrize("error, handler", PROBLEMS.items(), ids=PROBLEMS)
def test_p14_no_exception_of_a_handler_stops_the_tick(queue, error, handler):
    before, bad, behind = queue.enqueue_many([("good", 1), ("bad", 2), ("good", 3)])

    queue.process_jobs({"good": str, "bad": handler}, 1)

    assert statuses(queue, before, bad, behind) == ["completed", "failed", "completed"]
    assert queue.get(bad).error.startswith(error)
    assert queue.get(bad).attempts == 1
    assert queue.get(bad).finished_at


class Slow(Exception):
    def __str__(self):
        time.sleep(60)


class SlowToRead(dict):
    def items(self):
        time.sleep(60)


@pytest.mark.parametrize(
    "handler, error",
    [
        (raises(Slow()), f"{__name__}.Slow: (its text cannot be read)"),
        (lambda payload: SlowToRead(a=1), "timed out after 0.05 s"),
    ],
)
def test_the_time_limit_holds_for_reading_what_a_handler_made(queue, handler, error):
    bad, good = queue.enqueue_many([{"job_type": "bad", "timeout": 0.05}, ("good", 1)])

    queue.process_jobs({"bad": handler, "good": str}, 1)

    assert (queue.get(bad).status, queue.get(bad).error) == ("failed", error)
    assert statuses(queue, good) == ["completed"]


def test_p14_a_log_filter_that_raises_costs_no_job(queue, caplog):
    class Refusing(logging.Filter):
        def filter(self, record):
            raise RuntimeError("no line passes")

    refusing = Refusing()
    bad, good = queue.enqueue_many([("bad", 1), ("good", 2)])

    logging.getLogger("dbbasic_queue").addFilter(refusing)
    try:
        queue.process_jobs({"bad": raises(ValueError("x")), "good": str}, 1)
    finally:
        logging.getLogger("dbbasic_queue").removeFilter(refusing)

    assert statuses(queue, bad, good) == ["failed", "completed"]


def test_p13_a_job_that_something_beside_its_handler_cuts_off_is_charged(queue):
    def leave(event, job):
        if event == "started":
            raise SystemExit(3)

    first, behind = queue.enqueue_many([("good", 1), ("good", 2)])

    with pytest.raises(SystemExit):
        queue.process_jobs({"good": str}, 1, listeners=[leave])
    queue.process_jobs({"good": str}, 1)

    assert (queue.get(first).status, queue.get(first).error) == ("failed", "worker died")
    assert (queue.get(behind).status, queue.get(behind).attempts) == ("completed", 1)


def test_p14_a_keyboard_interrupt_is_a_stop_and_costs_nothing(queue):
    first, second, third = queue.enqueue_many([("good", 1), ("stop", 2), ("good", 3)])

    with pytest.raises(KeyboardInterrupt):
        queue.process_jobs({"good": str, "stop": raises(KeyboardInterrupt())}, 1)

    assert statuses(queue, first, second, third) == ["completed", "pending", "pending"]
    assert queue.get(second).attempts == queue.get(third).attempts == 0
    queue.process_jobs({"good": str, "stop": str})
    assert statuses(queue, second, third) == ["completed", "completed"]


def test_p35_the_whole_traceback_reaches_the_log_and_no_line_of_it_looks_like_another(
    queue, caplog
):
    def handler(payload):
        try:
            raise LookupError("the first\x1b]0;owned\x07")
        except LookupError as first:
            raise Odd("a\nERROR forged\r\tentry\x1b[31m\x9b0m\u2028") from first

    job_id = queue.enqueue("bad")
    queue.process_jobs({"bad": handler}, 1)

    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    first, *rest = record.getMessage().split("\n")
    assert first.startswith(f"job {job_id} bad attempt 1 by w-")
    assert all(line.startswith("    ") for line in rest)
    assert all(line.isprintable() for line in (first, *rest))
    text = "\n".join(rest)
    assert "Traceback (most recent call last)" in text
    assert "in handler" in text and "LookupError: the first\\x1b]0;owned\\x07" in text
    assert f"{__name__}.Odd: a" in text and "\\x1b[31m" in text


def test_the_log_tells_of_each_start_and_end_and_of_the_tick(queue, caplog):
    caplog.set_level(logging.INFO, "dbbasic_queue")
    good, bad, later = queue.enqueue_many([("good", 1), ("bad", 2), ("later", 3)])

    queue.process_jobs({"good": str, "bad": raises(Odd()), "later": raises(Snooze(9))}, 1, name="m")
    queue.process_jobs({"good": str})

    lines = [record.getMessage().split("\n")[0] for record in caplog.records]
    for job_id, job_type in ((good, "good"), (bad, "bad"), (later, "later")):
        starts = [line for line in lines if f"job {job_id} {job_type} starts" in line]
        assert len(starts) == 1 and "attempt 1" in starts[0] and " m-" in starts[0]
    assert [line for line in lines if f"job {good} good completed" in line]
    ticks = [line for line in lines if "completed, " in line and line.endswith(" s")]
    assert len(ticks) == 1 and "1 completed, 1 failed, 1 snoozed" in ticks[0]


@pytest.mark.parametrize("result", [None, 0, False, "", [], {}, "text", {"a": [1, None]}])
def test_a_result_comes_back_as_itself(queue, result):
    with freeze_time(FROZEN + ".125"):
        job_id = queue.enqueue("good")
        queue.process_jobs({"good": lambda payload: result})

    job = queue.get(job_id)
    assert (job.status, job.error, job.attempts) == ("completed", None, 1)
    assert repr(job.result) == repr(result)
    assert (job.started_at, job.finished_at) == (NOW + 0.125, NOW + 0.125)


def test_success_after_a_failure_leaves_no_error(queue):
    job_id = queue.enqueue("flaky", backoff="none")

    queue.process_jobs({"flaky": raises(ValueError("no"))})
    queue.process_jobs({"flaky": str})

    job = queue.get(job_id)
    assert (job.status, job.error, job.attempts) == ("completed", None, 2)


# --- async handlers

colour = contextvars.ContextVar("colour", default="none")


def test_an_async_handler_is_awaited(queue):
    async def handler(payload):
        await asyncio.sleep(0)
        return {"n": payload["n"], "attempts": current_job().attempts}

    job_id = queue.enqueue("good", {"n": 7})

    queue.process_jobs({"good": handler})

    assert queue.get(job_id).result == {"n": 7, "attempts": 1}


@pytest.mark.parametrize(
    "problem, status",
    [(ValueError("no"), "failed"), (Snooze(5), "pending"), (Discard("x"), "failed")],
)
def test_what_an_async_handler_raises_counts_as_usual(queue, problem, status):
    async def handler(payload):
        await asyncio.sleep(0)
        raise problem

    job_id, other = queue.enqueue("bad"), queue.enqueue("good")

    queue.process_jobs({"bad": handler, "good": str}, 1)

    assert statuses(queue, job_id, other) == [status, "completed"]


def test_an_async_handler_that_is_no_function_is_awaited_too(queue):
    class Mail:
        async def __call__(self, payload):
            return payload

    a, b = queue.enqueue("object", 1), queue.enqueue("lambda", 2)

    queue.process_jobs({"object": Mail(), "lambda": lambda payload: Mail()(payload)})

    assert (queue.get(a).result, queue.get(b).result) == (1, 2)


# --- which jobs


class Handlers(UserDict):
    pass


@pytest.mark.parametrize(
    "handlers", [Handlers(good=str), ChainMap({}, {"good": str})], ids=["UserDict", "ChainMap"]
)
def test_handlers_are_any_mapping(queue, handlers):
    job_id = queue.enqueue("good")

    queue.process_jobs(handlers)

    assert statuses(queue, job_id) == ["completed"]


@pytest.mark.parametrize("handlers", [None, [], [("good", str)], str, "good", {"good"}])
def test_handlers_that_are_no_mapping_are_refused(queue, handlers):
    queue.enqueue("good")
    before = content(queue)

    with pytest.raises(BadArgument, match="handlers="):
        queue.process_jobs(handlers)

    assert content(queue) == before


def test_a_handler_that_cannot_be_called_is_refused_before_any_job_is_charged(queue):
    bad, good = queue.enqueue("bad"), queue.enqueue("good")

    with pytest.raises(QueueError, match="is no function"):
        queue.process_jobs({"bad": "not a function", "good": str}, 1)

    assert statuses(queue, bad, good) == ["pending", "pending"]
    assert queue.get(bad).attempts == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": "3"},
        {"timeout": 0},
        {"timeout": "1"},
        {"backoff": "soon"},
        {"run_for": -1},
        {"run_for": "1"},
        {"max_jobs": -1},
        {"grace": -1},
        {"queues": "high"},
        {"name": ""},
        {"name": "a/b"},
        {"name": "../x"},
        {"name": ".hidden"},
        {"settings": {"default": {"prority": 1}}},
        {"settings": {"default": {"backoff": "soon"}}},
        {"settings": {"default": {"max_attempts": 0}}},
        {"settings": {"default": {"timeout": -1}}},
        {"settings": {"default": {"rank": "high"}}},
        {"settings": {"default": {"aging": "slow"}}},
        {"settings": {"default": 5}},
        {"settings": ["default"]},
        {"max_workers": -1},
        {"max_workers": "2"},
        {"middleware": [5]},
        {"listeners": [5]},
        {"admit": [5]},
    ],
    ids=repr,
)
def test_p33_an_option_that_makes_no_sense_is_refused_before_anything_runs(queue, options):
    queue.enqueue("good")
    before = content(queue)

    with pytest.raises(BadArgument):
        queue.process_jobs({"good": str}, **options)

    assert content(queue) == before


def test_a_type_without_a_handler_stays_pending_and_is_logged_once_a_tick(queue, caplog):
    strange = queue.enqueue_many([("strange", number) for number in range(40)])
    good = queue.enqueue("good")

    queue.process_jobs({"good": str})
    after_one_tick = [record for record in caplog.records if "strange" in record.getMessage()]
    queue.process_jobs({"good": str})
    after_two = [record for record in caplog.records if "strange" in record.getMessage()]

    assert (len(after_one_tick), len(after_two)) == (1, 2)
    assert queue.counts("type", "status") == {("strange", "pending"): 40, ("good", "completed"): 1}
    assert statuses(queue, good) == ["completed"]
    assert {queue.get(job_id).attempts for job_id in strange} == {0}
    queue.process_jobs({"strange": str})
    assert queue.counts() == {"completed": 41}


def test_p33_content_is_data_and_a_type_is_nothing_but_a_key_of_handlers(queue):
    payloads = ["__import__('os').abort()", {"py/object": "os.abort"}, "!!python/object:os.abort"]
    ran = []
    strange = [queue.enqueue(name) for name in ("os.abort", "os:abort", "print", "__class__", "..")]
    ids = queue.enqueue_many([("t", payload) for payload in payloads])

    queue.process_jobs({"t": lambda payload: ran.append(payload) or payload})

    assert ran == payloads
    assert [queue.get(job_id).result for job_id in ids] == payloads
    assert set(statuses(queue, *strange)) == {"pending"}


def order(queue, jobs, when=FROZEN, **options):
    """Enqueue jobs at NOW, and return their payloads in the order in which a tick runs them."""
    ran = []
    with freeze_time(FROZEN):
        queue.enqueue_many([{"job_type": "t", "payload": n, **job} for n, job in enumerate(jobs)])
    with freeze_time(when):
        queue.process_jobs({"t": ran.append}, **options)
    return ran


def test_jobs_run_first_in_first_out(queue):
    assert order(queue, [{}] * 50) == list(range(50))


def test_a_lower_priority_runs_first_then_an_earlier_run_at_then_the_first_in(queue):
    jobs = [
        {"priority": 5},
        {"priority": -5, "run_at": NOW + 20},
        {"priority": -5, "run_at": NOW + 10},
        {"priority": 0},
        {"priority": 0, "run_at": NOW - 100},  # the past is now
        {"priority": 0, "run_at": NOW + 30},
        {"priority": -5, "run_at": NOW + 10},
    ]

    assert order(queue, jobs, iso(NOW + 60)) == [2, 6, 1, 3, 4, 5, 0]


def test_queues_is_an_order_of_precedence_and_leaves_the_others(queue):
    jobs = [{"queue": name} for name in ("low", "default", "high", "other", "default", "high")]

    ran = order(queue, jobs, queues=["high", "default"])

    assert ran == [2, 5, 1, 4]
    assert queue.counts("queue", "status") == {
        ("high", "completed"): 2,
        ("default", "completed"): 2,
        ("low", "pending"): 1,
        ("other", "pending"): 1,
    }


def test_settings_give_a_queue_its_rank(queue):
    jobs = [{"queue": name, "priority": -9} for name in ("low", "default", "high", "low", "high")]
    settings = {"high": {"rank": -1}, "low": {"rank": 7}}

    assert order(queue, jobs, settings=settings) == [2, 4, 1, 0, 3]


@pytest.mark.parametrize("aging, expected", [(None, [1, 0]), (600, [0, 1]), (1200, [1, 0])])
def test_with_aging_a_priority_is_worth_so_many_seconds(queue, aging, expected):
    ran = []
    with at(0):
        queue.enqueue("t", 0, priority=1)
    with at(1000):
        queue.enqueue("t", 1)
        settings = {"default": {"aging": aging}} if aging else None
        queue.process_jobs({"t": ran.append}, settings=settings)

    assert ran == expected


def test_the_order_holds_whatever_is_mixed(queue):
    seeded = random.Random(5)
    jobs = [
        {
            "queue": seeded.choice(["a", "b", "c"]),
            "priority": seeded.choice([-(2**31) + 1, -1, 0, 0, 1, 2**31 - 1]),
            "run_at": NOW + seeded.choice([0, 0, 1, 5, 100]),
        }
        for _ in range(300)
    ]

    def key(n):
        return "cba".index(jobs[n]["queue"]), jobs[n]["priority"], jobs[n]["run_at"], n

    ran = order(queue, jobs, iso(NOW + 100), queues=["c", "b", "a"])

    assert ran == sorted(range(300), key=key)


def test_max_jobs_ends_a_tick_after_so_many_runs(queue):
    ids = queue.enqueue_many([("bad", 0), *[("good", n) for n in range(30)]])

    queue.process_jobs({"good": str, "bad": raises(Odd())}, 1, max_jobs=20)

    assert queue.counts() == {"failed": 1, "completed": 19, "pending": 11}
    assert {queue.get(job_id).attempts for job_id in ids[20:]} == {0}
    assert {queue.get(job_id).worker for job_id in ids[20:]} == {None}
    queue.process_jobs({"good": str}, max_jobs=0)
    assert queue.counts()["pending"] == 11


def test_what_a_handler_adds_runs_in_the_same_tick(queue):
    def handler(payload):
        if payload < 40:
            queue.enqueue("t", payload + 1)
        return payload

    queue.enqueue("t", 0)

    queue.process_jobs({"t": handler})

    assert queue.counts() == {"completed": 41}


def test_the_order_of_due_rows_is_kept_through_all_that_happens_to_them():
    chance = random.Random(5)
    due, kept, places = Due(), [], iter(range(10, 10_000_000, 10))

    def some(count):
        kinds = [
            chance.choice((3, 5, 5, 8)) << AT | chance.randrange(1 << KIND) for _ in range(count)
        ]
        return [ticket | next(places) << KIND for ticket in kinds]

    def place(ticket):
        return (ticket & SPOT) >> KIND

    for _ in range(300):
        act = chance.choice(("add", "add", "put back", "claim", "move"))
        if act == "add":
            new = some(chance.choice((1, 5, 20)))
            due.add(new)
            kept += new
        elif act == "put back" and kept:
            again = chance.choice(kept) + (1 << KIND)
            if place(again) not in map(place, kept):
                due.add([again])
                kept.append(again)
        elif act == "claim" and kept:
            taken = {t for t in sorted(kept)[: chance.randrange(1, 20)] if chance.random() < 0.9}
            taken = taken or {min(kept)}
            due.remove({place(t) for t in taken}, 20)
            kept = [t for t in kept if t not in taken]
        elif act == "move" and kept:
            starts = sorted(chance.sample(range(0, next(places), 10), 3))
            due.move([start + 5 for start in starts], [0, 1000, 2000, 3000])
            kept = [
                t + (1000 * sum(place(t) > start + 5 for start in starts) << KIND) for t in kept
            ]
            places = iter(range(next(places) + 3000, 10_000_000, 10))
        kept.sort()

        assert [key << AT | spot for key, spot in due.in_order()] == kept
        assert len(due) == len(kept)


def test_a_claim_of_large_rows_is_small(queue):
    """What a worker holds in memory is bounded in bytes, not only in jobs."""
    queue.enqueue_many([("note", "x" * 100_000) for _ in range(20)])
    held = []

    queue.process_jobs({"note": lambda payload: held.append(content(queue).count(b"\tprocessing"))})

    assert len(held) == 20
    assert max(held) == 7


def test_p28_a_job_for_now_runs_behind_later_ones_when_the_clock_has_stepped_back(queue):
    with at(0):
        queue.enqueue("note", run_at=NOW + 10)
    with at(100):
        job_id = queue.enqueue("note")

    with at(0):
        queue.process_jobs({"note": str})

    assert queue.get(job_id).status == "completed"


@pytest.mark.parametrize("column", ["", "group", "error"])
def test_of_the_times_in_a_file_those_run_that_have_come(queue, column):
    """Written by hand, of any length, with a fraction, or behind a cell that holds a colon."""
    times = [0, 9, 99, NOW - 10, NOW - 1, NOW, NOW + 1, NOW + 10, NOW * 10, 10**18, 1e9, NOW + 0.5]
    cells = {"group": "one", "error": "ok: not yet"}.get(column, "")
    with at(0):
        ids = {queue.enqueue("note", run_at=NOW + 86400): run_at for run_at in times}
    lines = content(queue)
    for id, run_at in ids.items():
        row = next(line for line in lines.split(b"\n") if line.startswith(id.encode())).split(b"\t")
        row[5] = str(run_at).encode()
        row[COLUMNS.index(column or "error")] = cells.encode()
        lines = re.sub(rb"(?m)^%b.*" % id.encode(), b"\t".join(row), lines)
    Path(queue.path).write_bytes(lines)
    ran = []

    with at(0):
        queue.process_jobs({"note": lambda payload: ran.append(current_job().id)})
        first = [ids[id] for id in ran]
    with at(1):
        queue.process_jobs({"note": lambda payload: ran.append(current_job().id)})

    assert sorted(first) == [time for time in sorted(times) if time <= NOW]
    assert {ids[id] for id in ran[len(first) :]} == {NOW + 0.5, NOW + 1}


def test_a_row_added_later_than_a_minute_is_left_to_the_next_tick(queue):
    ran = []
    with freeze_time(FROZEN) as clock:

        def handler(payload):
            ran.append(payload)
            if payload < 5:
                clock.tick(25)
                queue.enqueue("t", payload + 1)

        queue.enqueue("t", 0)
        queue.process_jobs({"t": handler})
        first = list(ran)
        queue.process_jobs({"t": handler})

    assert first == [0, 1, 2]  # the third was added 75 s after the start
    assert ran == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("problem", [Snooze(0), Retry(after=0), ValueError("backoff is none")])
def test_a_row_that_this_tick_has_put_back_is_left_to_the_next(queue, problem):
    ran = []

    def handler(payload):
        ran.append(payload)
        raise problem

    queue.enqueue_many([{"job_type": "t", "payload": n, "backoff": "none"} for n in range(3)])

    queue.process_jobs({"t": handler}, 9)
    first = list(ran)
    queue.process_jobs({"t": handler}, 9)

    assert first == [0, 1, 2]
    assert ran == [0, 1, 2, 0, 1, 2]


def test_with_run_for_neither_of_these_is_left(queue):
    ran = []

    def handler(payload):
        ran.append(payload)
        if len(ran) < 3:
            raise Snooze(0)

    queue.enqueue("t", 1)

    queue.process_jobs({"t": handler}, run_for=5, max_jobs=3)

    assert ran == [1, 1, 1]
    assert queue.counts() == {"completed": 1}


@pytest.mark.soak
def test_with_run_for_a_new_job_starts_within_a_fifth_of_a_second_at_little_cost(queue):
    started, added = [], []

    def produce():
        for _ in range(3):  # the first one makes the file
            time.sleep(0.15)
            added.append(time.monotonic())
            queue.enqueue("t")

    thread = threading.Thread(target=produce)
    thread.start()
    begun, cpu = time.monotonic(), time.process_time()
    queue.process_jobs({"t": lambda payload: started.append(time.monotonic())}, run_for=0.7)
    took, cpu = time.monotonic() - begun, time.process_time() - cpu
    thread.join()

    assert sorted(a - b for a, b in zip(started, added, strict=True))[1] < 0.2
    assert 0.6 < took < 2
    assert cpu < 0.2


@pytest.mark.soak
def test_with_run_for_a_scheduled_job_and_one_that_was_not_admitted_start_in_time(queue):
    started = {}
    begun = time.monotonic()

    def admit(job, count):
        return None if job.payload == "due" or time.monotonic() > begun + 0.3 else False

    due = math.ceil(time.time())
    queue.enqueue("t", "due", due)
    queue.enqueue("t", "not admitted at first")
    queue.process_jobs(
        {"t": lambda payload: started.update({payload: time.time()})},
        run_for=3,
        max_jobs=2,
        admit=[admit],
    )

    assert 0 <= started["due"] - due < 0.25
    assert len(started) == 2
    assert time.monotonic() - begun < 2


@pytest.mark.soak
def test_run_for_ends_a_worker_that_is_never_idle(queue):
    def again(payload):
        queue.enqueue("t")

    queue.enqueue("t")
    begun = time.monotonic()

    queue.process_jobs({"t": again}, run_for=0.3, max_jobs=2000)

    assert 0.25 < time.monotonic() - begun < 3
    assert queue.counts()["pending"] == 1
    assert queue.counts().keys() == {"pending", "completed"}


def test_a_job_may_be_called_like_a_status(queue):
    names = ["pending", "processing", "completed", "failed", "cancelled"]
    jobs = [{"job_type": name, "payload": 5, "queue": name, "group": name} for name in names]
    ids = queue.enqueue_many(jobs)
    ran = []

    queue.process_jobs(dict.fromkeys(names[:3], ran.append))

    assert ran == [5, 5, 5]
    assert statuses(queue, *ids) == ["completed"] * 3 + ["pending"] * 2


def test_long_rows_are_run_among_short_ones(queue):
    sizes = [10, 600_000, 10, 300_000, 1_000_000, 10, 270_000] * 3
    queue.enqueue_many([("t", "x" * size) for size in sizes])

    queue.process_jobs({"t": len})

    assert [job.result for job in queue.jobs("completed")] == sizes


def test_numbers_that_somebody_wrote_far_out_of_range_hurt_only_the_order(queue):
    queue.enqueue("t", "ours", priority=1)
    far = ["\t99999999999999\t1", "\t-99999999999999\t2", "\t5.5\t3"]
    with open(queue.path, "a", encoding="ascii") as file:
        for number, cells in enumerate(far):
            head = f"000000000000000{number}\tt\t{number}\tpending"
            file.write(f"{head}\t1760000000000000\t1760000000000000\t0\t\t\t{cells}")
            file.write("\t" * (len(COLUMNS) - 12) + "\n")

    queue.process_jobs({"t": str})

    assert queue.counts() == {"completed": 4}


def test_a_column_that_comes_while_a_worker_runs_mixes_nothing_up(queue):
    def handler(payload):
        if payload in (0, 10, 30):
            queue.enqueue("t", 100 + payload, columns={f"column_{payload}": str(payload)})
        if payload == 20:
            current_job().record(column_20="20")
        return payload

    ids = queue.enqueue_many([("t", n) for n in range(60)])

    queue.process_jobs({"t": handler})

    assert [(job.status, job.payload == job.result) for job in queue.jobs()] == [
        ("completed", True)
    ] * 63
    assert [job.cell("column_20") for job in queue.jobs()].count("20") == 1
    assert queue.get(ids[20]).cell("column_20") == "20"


def test_a_handler_may_change_the_working_folder(tmp_path):
    queue = Queue("q.tsv", sync="off")
    (tmp_path / "there").mkdir()
    queue.enqueue_many([("t", n) for n in range(5)])

    queue.process_jobs({"t": lambda payload: os.chdir(tmp_path / "there")})

    assert queue.counts() == {"completed": 5}
    assert os.listdir(tmp_path / "there") == []


# --- how many workers


@pytest.mark.parametrize(
    "max_workers, queues, runs",
    [
        (1, None, False),
        (2, None, True),
        (None, None, True),
        (1, ["default"], True),
    ],
)
def test_a_call_that_finds_enough_workers_on_its_queues_leaves(queue, max_workers, queues, runs):
    ran = []

    def outer(payload):
        queue.enqueue("inner")
        queue.process_jobs({"inner": ran.append}, max_workers=max_workers, queues=queues)

    queue.enqueue("outer")

    queue.process_jobs({"outer": outer})

    assert len(ran) == runs
    assert queue.counts("type", "status")["outer", "completed"] == 1


def test_a_call_that_leaves_takes_in_the_dead_first(queue, run_python):
    code = f"""
        import os
        from dbbasic_queue import Queue
        Queue({queue.path!r}).process_jobs({{"poison": lambda payload: os._exit(9)}})
    """

    def outer(payload):
        poison = queue.enqueue("poison", max_attempts=1)
        assert run_python(code).wait() == 9
        queue.process_jobs({"poison": str}, max_workers=1)
        return cells_of(queue, "status", poison)

    job_id = queue.enqueue("outer")

    queue.process_jobs({"outer": outer}, 1)

    assert queue.get(job_id).result == ["failed"]
    assert next(queue.jobs("failed")).error.startswith("worker died")


def test_the_start_of_a_job_is_kept_when_its_worker_died_after_it(queue, run_python):
    code = f"""
        import os
        from dbbasic_queue import Queue
        handlers = {{"good": str, "poison": lambda payload: os._exit(9)}}
        Queue({queue.path!r}).process_jobs(handlers, max_workers=1)
    """
    good = [queue.enqueue("good") for _ in range(3)]
    queue.enqueue("poison")
    assert run_python(code).wait() == 9
    before = [queue.get(id).started_at for id in good]

    queue.process_jobs({"another": str})

    assert None not in before
    assert [queue.get(id).started_at for id in good] == before


def test_a_tick_inside_a_handler_is_a_worker_of_its_own(queue):
    seen = []

    def outer(payload):
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)]
        inner = queue.enqueue("inner")
        queue.process_jobs({"inner": lambda payload: seen.append(current_job().id)})
        seen.extend([inner, current_job().type, queue.get(inner).status])
        assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)]

    job_id = queue.enqueue("outer")

    queue.process_jobs({"outer": outer}, 1)

    assert statuses(queue, job_id) == ["completed"]
    assert seen[0] == seen[1]
    assert seen[2:] == ["outer", "completed"]


def test_a_worker_whose_file_is_gone_goes_on_as_another(queue, caplog):
    ran = []

    def handler(payload):
        ran.append(payload)
        if payload == 5 and ran.count(5) == 1:
            for file in Path(queue.path + ".d").glob("workers/*.tsv"):
                file.unlink()

    queue.enqueue_many([("t", n) for n in range(30)])

    for _ in range(2):
        queue.process_jobs({"t": handler}, backoff="none")

    assert queue.counts() == {"completed": 30}
    assert sorted(set(ran)) == list(range(30))
    assert "is gone" in caplog.text
    assert not Path(queue.path + ".d", "workers").exists()


# --- the running job


def test_current_job_is_the_running_job(queue):
    seen = []

    def handler(payload):
        job = current_job()
        seen.append((job.id, job.type, job.attempts, job.payload, job.status, job.group))
        if payload == 2:
            raise ValueError("again")

    one = queue.enqueue("t", 1, group="g")
    two = queue.enqueue("t", 2, backoff="none")
    queue.process_jobs({"t": handler})
    queue.process_jobs({"t": handler})

    assert seen == [
        (one, "t", 1, 1, "processing", "g"),
        (two, "t", 1, 2, "processing", None),
        (two, "t", 2, 2, "processing", None),
    ]
    with pytest.raises(BadArgument):
        current_job()


@pytest.mark.parametrize("column", ["known", "new"])
@pytest.mark.parametrize(
    "end, status", [(None, "completed"), (Odd(), "failed"), (Snooze(0), "pending")]
)
def test_what_a_running_job_records_is_seen_by_get_at_once_and_stays(queue, column, end, status):
    if column == "known":
        queue.enqueue("other", columns={"progress": "0"})
    seen = []

    def handler(payload):
        job = current_job()
        job.record(progress="10")
        seen.append(queue.get(job.id).cell("progress"))
        job.record(progress="2\t0", step="b")
        seen.append(queue.get(job.id).cell("progress"))
        seen.extend(one.cell("progress") for one in queue.jobs(type="t"))
        if end:
            raise end

    job_id = queue.enqueue("t")

    queue.process_jobs({"t": handler}, 1)

    assert seen == ["10", "2\t0", "2\t0"]
    job = queue.get(job_id)
    assert (job.status, job.cell("progress"), job.cell("step")) == (status, "2\t0", "b")
    assert cells_of(queue, "step", job_id) == ["b"]


def test_what_a_running_job_recorded_stays_when_its_worker_dies(queue, run_python):
    job_id = queue.enqueue("t")
    code = f"""
        import os
        from dbbasic_queue import Queue, current_job
        def handler(payload):
            current_job().record(progress="50")
            os._exit(9)
        Queue({queue.path!r}).process_jobs({{"t": handler}})
    """

    assert run_python(code).wait() == 9
    assert queue.get(job_id).cell("progress") == "50"
    queue.process_jobs({"t": lambda payload: current_job().cell("progress")})

    assert queue.get(job_id).result == "50"


def test_a_job_that_has_ended_records_nothing_for_the_next_one(queue):
    jobs = []

    def handler(payload):
        jobs.append(current_job())
        try:
            jobs[0].record(progress=str(payload))
        except BadArgument:
            return "refused"

    one, two = queue.enqueue_many([("t", 1), ("t", 2)])

    queue.process_jobs({"t": handler})

    assert [queue.get(job_id).cell("progress") for job_id in (one, two)] == ["1", ""]
    with pytest.raises(BadArgument):
        jobs[0].record(progress="3")


@pytest.mark.parametrize(
    "column", [*COLUMNS[1:9], "worker", "after", "finished_at", "failed_at", "A"]
)
def test_a_running_job_records_into_columns_of_its_own_only(queue, column):
    def handler(payload):
        with pytest.raises(BadArgument, match=column):
            current_job().record(**{column: "1"})
        return "fine"

    job_id = queue.enqueue("t")

    queue.process_jobs({"t": handler}, 1)

    assert (queue.get(job_id).status, queue.get(job_id).result) == ("completed", "fine")


def test_a_handler_may_use_every_verb(queue):
    other = queue.enqueue("other")
    answers = []

    def handler(payload):
        new = queue.enqueue("other")
        answers.append(queue.cancel(new))
        answers.append(queue.retry(new) == [new])
        answers.append(queue.purge(ids=[new]))
        answers.append(queue.cancel(other))
        with queue.edit() as e:
            e.change(e.get(current_job().id), priority=7)

    job_id = queue.enqueue("t")

    queue.process_jobs({"t": handler})

    assert answers == [True, True, 1, True]
    assert (queue.get(job_id).status, queue.get(job_id).priority) == ("completed", 7)
    assert statuses(queue, other) == ["cancelled"]


# --- layers, listeners, admit


def test_layers_lie_around_the_run_the_first_one_outermost(queue):
    told = []

    def layer(name):
        def around(job, call_next):
            told.append(f"{name} {job.payload}")
            result = call_next(job)
            told.append(f"{name} {result}")
            return f"{result} {name}"

        return around

    job_id = queue.enqueue("t", "in")

    queue.process_jobs({"t": lambda payload: "out"}, middleware=[layer("a"), layer("b")])

    assert told == ["a in", "b in", "b out", "a out b"]
    assert queue.get(job_id).result == "out b a"


def test_a_layer_may_give_the_handler_another_payload(queue):
    def unseal(job, call_next):
        return call_next(job.replace(payload={"clear": job.payload["sealed"][::-1]}))

    job_id = queue.enqueue("t", {"sealed": "olleh"})

    queue.process_jobs({"t": lambda payload: payload["clear"]}, middleware=[unseal])

    assert queue.get(job_id).result == "hello"
    assert queue.get(job_id).payload == {"sealed": "olleh"}


def test_a_layer_may_answer_itself_or_raise(queue):
    ran = []

    def layer(job, call_next):
        if job.payload == "answer":
            return "cached"
        if job.payload == "raise":
            raise Discard("not allowed")
        try:
            return call_next(job)
        except Odd:
            return "rescued"

    def handler(payload):
        ran.append(payload)
        raise Odd

    a, b, c = queue.enqueue_many([("t", "answer"), ("t", "raise"), ("t", "run")])

    queue.process_jobs({"t": handler}, middleware=[layer])

    assert ran == ["run"]
    assert [queue.get(one).result for one in (a, b, c)] == ["cached", None, "rescued"]
    assert queue.get(b).error == "not allowed"


def test_listeners_are_told_after_the_commit(queue):
    told = []

    def listener(event, job):
        told.append((event, job.id, job.status, *cells_of(queue, "status", job.id)))

    a, b, c, d = queue.enqueue_many([(name, 1) for name in ("good", "bad", "again", "later")])
    handlers = {
        "good": str,
        "bad": raises(Discard()),
        "again": raises(Odd()),
        "later": raises(Snooze(5)),
    }

    queue.process_jobs(handlers, listeners=[listener])

    assert [one[1:] for one in told if one[0] == "started"] == [
        (job_id, "processing", "processing") for job_id in (a, b, c, d)
    ]
    assert [one for one in told if one[0] != "started"] == [
        ("completed", a, "completed", "completed"),
        ("failed", b, "failed", "failed"),
        ("retried", c, "pending", "pending"),
        ("snoozed", d, "pending", "pending"),
    ]


def test_what_a_listener_raises_is_logged_and_hurts_nobody(queue, caplog):
    told = []
    a, b = queue.enqueue_many([("good", 1), ("good", 2)])

    queue.process_jobs(
        {"good": str}, listeners=[raises_event, lambda event, job: told.append((event, job.id))]
    )

    assert statuses(queue, a, b) == ["completed", "completed"]
    assert sorted(told) == sorted(
        [("started", a), ("started", b), ("completed", a), ("completed", b)]
    )
    assert caplog.text.count("a listener raised") == 4


def raises_event(event, job):
    raise RuntimeError("\x1b[31mno network")


def run_admitted(queue, admit, types="a b c d"):
    ran = []
    queue.enqueue_many([(name, name) for name in types.split()])
    queue.process_jobs(dict.fromkeys("abcd", ran.append), admit=admit)
    return ran


def test_a_job_that_is_not_admitted_stays_where_it_is(queue):
    ran = run_admitted(queue, [lambda job, count: False if job.type in "bc" else None])

    assert ran == ["a", "d"]
    assert queue.counts("type", "status")["b", "pending"] == 1
    assert {job.attempts for job in queue.jobs(status="pending")} == {0}
    queue.process_jobs(dict.fromkeys("abcd", str))
    assert queue.counts() == {"completed": 4}


def test_every_admit_is_asked_and_each_may_refuse(queue):
    asked = []

    def ask(name, answer):
        def admit(job, count):
            asked.append((name, job.type))
            return answer.get(job.type)

        return admit

    ran = run_admitted(queue, [ask(1, {"a": False}), ask(2, {"b": False})], "a b c")

    assert ran == ["c"]
    assert {(1, "a"), (1, "b"), (2, "b"), (1, "c"), (2, "c")} <= set(asked)
    assert (2, "a") not in asked


def test_a_limited_job_closes_the_claim_and_runs_first_in_it(queue):
    ran = run_admitted(
        queue, [lambda job, count: True if job.type == "c" else None], "a a a c a a a"
    )

    # the first claim is of one job, the second would be of sixteen
    assert ran == ["a", "c", "a", "a", "a", "a", "a"]


@pytest.mark.parametrize("problem", [ValueError("no"), ZeroDivisionError(), QueueBusy("busy")])
def test_an_admit_that_raises_leaves_the_job_and_is_logged_once(queue, caplog, problem):
    def admit(job, count):
        if job.type == "b":
            raise problem

    ran = run_admitted(queue, [admit], "a b a b a b a")

    assert ran == ["a"] * 4
    assert queue.counts("type", "status") == {("a", "completed"): 4, ("b", "pending"): 3}
    assert caplog.text.count("admit raised") == 1


def test_an_admit_that_uses_the_queue_is_an_error_and_no_deadlock(queue, caplog):
    ran = run_admitted(queue, [lambda job, count: queue.cancel(job.id)], "a")

    assert ran == []
    assert "in the middle of an edit" in caplog.text
    assert queue.counts() == {"pending": 1}


def test_admit_counts_rows_as_they_stand_in_this_claim(queue):
    seen = []

    def admit(job, count):
        seen.append(
            (job.payload, count("processing"), count("processing", type="a"), count("pending"))
        )
        seen.append(
            (count(queue="high"), count(group="g"), count(), count(group="g", status="failed"))
        )

    queue.enqueue_many(
        [
            {"job_type": "a", "payload": n, "queue": "high" if n else "low", "group": "g"}
            for n in (0, 1)
        ]
    )
    queue.process_jobs({"a": str}, admit=[admit])

    assert seen == [(0, 0, 0, 2), (1, 2, 2, 0), (1, 0, 0, 1), (1, 2, 2, 0)]


def test_admit_counts_by_every_filter_while_the_claim_goes_on(queue):
    def kind(n):
        return "ab"[n % 2], "xy"[n % 3 == 0], "gh"[n % 5 == 0]

    def expected(rows, *wanted):
        return sum(all(w in (None, k) for w, k in zip(wanted, kind(m), strict=True)) for m in rows)

    wrong = []

    def admit(job, count):
        n = job.payload
        for wanted in ((None,) * 3, ("a", None, None), (None, "x", None), ("b", "y", "h")):
            taken = count("completed", *wanted) + count("processing", *wanted)
            found = taken, count("pending", *wanted), count(None, *wanted)
            if found != tuple(
                expected(rows, *wanted) for rows in (range(n), range(n, 17), range(17))
            ):
                wrong.append((n, wanted, found))

    for n in range(17):
        job_type, label, group = kind(n)
        queue.enqueue(job_type, n, queue=label, group=group)
    queue.process_jobs({"a": str, "b": str}, admit=[admit])

    assert wrong == []
    assert queue.counts() == {"completed": 17}


def test_one_at_a_time_is_an_admit_that_counts(queue):
    running, most = [], []

    def one_at_a_time(job, count):
        return count("processing", type="t") < 1

    def handler(payload):
        running.append(payload)
        most.append(len([job for job in queue.jobs("processing")]))
        running.remove(payload)

    queue.enqueue_many([("t", n) for n in range(10)])

    queue.process_jobs({"t": handler}, admit=[one_at_a_time])

    assert queue.counts() == {"completed": 10}
    assert set(most) == {1}


# --- signals


def test_p16_sigterm_gives_back_what_was_not_begun_without_an_attempt(queue, run_python):
    """The job that runs is finished first; then the process ends as SIGTERM would end it."""
    ids = queue.enqueue_many([("t", n) for n in range(10)])
    code = f"""
        import os, signal
        from dbbasic_queue import Queue
        def handler(payload):
            if payload == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return payload
        try:
            Queue({queue.path!r}).process_jobs({{"t": handler}}, 1)
        except SystemExit as end:
            assert end.code == 143
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            raise
    """

    assert run_python(code).wait() == 143

    assert cells_of(queue, "status", *ids) == ["completed"] * 4 + ["pending"] * 6
    assert cells_of(queue, "attempts", *ids) == ["1"] * 4 + ["0"] * 6
    assert cells_of(queue, "worker", *ids[4:]) == [""] * 6
    queue.process_jobs({"t": str}, 1)
    assert queue.counts() == {"completed": 10}


@pytest.fixture
def signals():
    """Give the signals back as they were."""
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGALRM
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_to_the_programs_own_handler_after_the_tick(queue, signals, number):
    told = []

    def own(number, frame):
        told.append((number, *statuses(queue, first, second)))

    signal.signal(number, own)
    first, second = queue.enqueue_many([("t", 1), ("t", 2)])

    try:
        queue.process_jobs({"t": lambda payload: os.kill(os.getpid(), number)})
    except KeyboardInterrupt:
        assert number == signal.SIGINT

    assert statuses(queue, first, second) == ["completed", "pending"]
    assert signal.getsignal(number) is own
    assert told == [(number, "completed", "pending")] or number == signal.SIGINT


def test_sigint_is_a_keyboard_interrupt_after_the_running_job(queue, signals):
    # whoever starts a program in the background may have it ignore SIGINT
    before = signal.default_int_handler
    signal.signal(signal.SIGINT, before)
    first, second = queue.enqueue_many([("t", 1), ("t", 2)])

    with pytest.raises(KeyboardInterrupt):
        queue.process_jobs({"t": lambda payload: os.kill(os.getpid(), signal.SIGINT)})

    assert statuses(queue, first, second) == ["completed", "pending"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_the_program_ignores_is_ignored(queue, signals):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    queue.enqueue_many([("t", 1), ("t", 2)])

    queue.process_jobs({"t": lambda payload: os.kill(os.getpid(), signal.SIGTERM)})

    assert queue.counts() == {"completed": 2}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_p16_a_second_signal_gives_back_the_running_job_too(queue, signals):
    told, passed = [], []
    signal.signal(signal.SIGTERM, lambda number, frame: passed.append(number))

    def handler(payload):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            told.append("once")
            os.kill(os.getpid(), signal.SIGTERM)
            told.append("twice")
        except Exception:
            told.append("swallowed")

    first, second = queue.enqueue_many([("t", 1), ("t", 2)])

    queue.process_jobs({"t": handler}, 1)

    assert told == ["once"]
    assert passed == [signal.SIGTERM]
    assert statuses(queue, first, second) == ["pending", "pending"]
    assert cells_of(queue, "attempts", first, second) == ["0", "0"]
    queue.process_jobs({"t": str}, 1)
    assert queue.counts() == {"completed": 2}


def test_p16_after_the_grace_the_running_job_goes_back(queue, signals):
    signal.signal(signal.SIGTERM, lambda number, frame: None)

    def handler(payload):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    job_id = queue.enqueue("t")
    begun = time.monotonic()

    queue.process_jobs({"t": handler}, 1, grace=0.1)

    assert 0.1 <= time.monotonic() - begun < 3
    assert statuses(queue, job_id) == ["pending"]
    assert cells_of(queue, "attempts", job_id) == ["0"]


def test_a_tick_in_another_thread_leaves_the_signals_alone(queue):
    before = [
        signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    ]
    seen = []
    job_id = queue.enqueue("t")

    def handler(payload):
        seen.extend(signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM))

    thread = threading.Thread(target=queue.process_jobs, args=[{"t": handler}])
    thread.start()
    thread.join()

    assert statuses(queue, job_id) == ["completed"]
    assert seen == before


# --- time limits


@pytest.mark.soak
@pytest.mark.parametrize(
    "own, settings, argument, limit",
    [
        (None, None, 0.1, "0.1"),
        (None, 0.1, 30, "0.1"),
        (0.1, 30, 30, "0.1"),
    ],
)
def test_a_job_that_runs_too_long_times_out_and_the_next_one_runs(
    queue, own, settings, argument, limit
):
    slow = queue.enqueue("slow", queue="q", timeout=own)
    quick = queue.enqueue("quick", queue="q", priority=1)
    settings = {"q": {"timeout": settings}} if settings else None
    begun = time.monotonic()

    queue.process_jobs(
        {"slow": lambda payload: time.sleep(9), "quick": lambda payload: time.sleep(0.02)},
        1,
        timeout=argument,
        settings=settings,
    )

    assert time.monotonic() - begun < 4
    assert statuses(queue, slow, quick) == ["failed", "completed"]
    assert queue.get(slow).error == f"timed out after {limit} s"


def test_a_time_out_is_an_attempt_like_any_other(queue):
    job_id = queue.enqueue("slow", timeout=0.05)

    def handler(payload):
        try:
            time.sleep(9)
        except Exception:
            return "swallowed"

    queue.process_jobs({"slow": handler})

    job = queue.get(job_id)
    assert (job.status, job.attempts, job.error) == ("pending", 1, "timed out after 0.05 s")
    assert job.run_at > job.created_at


def test_a_handler_may_clean_up_when_its_time_is_over(queue):
    cleaned = []

    def handler(payload):
        try:
            time.sleep(9)
        except JobTimeout:
            cleaned.append(True)
            return "half of it"

    job_id = queue.enqueue("slow", timeout=0.05)

    queue.process_jobs({"slow": handler})

    assert cleaned == [True]
    assert queue.get(job_id).result == "half of it"


def test_a_job_times_out_in_another_thread_too(queue):
    def handler(payload):
        until = time.monotonic() + 9
        while time.monotonic() < until:
            time.sleep(0.01)

    slow, quick = queue.enqueue("slow", timeout=0.05), queue.enqueue("quick")

    thread = threading.Thread(target=queue.process_jobs, args=[{"slow": handler, "quick": str}, 1])
    thread.start()
    thread.join(5)

    assert statuses(queue, slow, quick) == ["failed", "completed"]
    assert queue.get(slow).error.startswith("timed out")


@pytest.mark.soak
def test_a_time_limit_in_another_thread_leaves_a_traced_program_running(queue, run_python):
    """A debugger, or coverage."""
    queue.enqueue("quick")
    code = f"""
        import sys, threading, time
        from dbbasic_queue import Queue
        def slow(payload):
            until = time.monotonic() + 9
            while time.monotonic() < until:
                pass
        def trace(*happening):
            return None
        threading.settrace(trace)
        sys.settrace(trace)
        Queue({queue.path!r}).enqueue("slow", timeout=0.05)
        work = [{{"slow": slow, "quick": str}}, 1]
        thread = threading.Thread(target=Queue({queue.path!r}).process_jobs, args=work)
        thread.start()
        thread.join()
        print("goes on")
    """
    with run_python(code, stdout=-1) as child:
        told, _ = child.communicate(timeout=30)

    assert told == "goes on\n"
    assert queue.counts()["completed"] >= 1


@pytest.mark.soak
def test_a_quick_job_is_not_hit_by_a_time_limit(queue):
    ids = queue.enqueue_many([{"job_type": "t", "timeout": 0.3} for _ in range(60)])

    queue.process_jobs({"t": lambda payload: time.sleep(0.008)}, 1)

    assert statuses(queue, *ids) == ["completed"] * 60


@pytest.mark.soak
def test_a_handler_that_does_not_end_takes_its_process_with_it_and_is_charged(queue, run_python):
    slow, quick = queue.enqueue("slow", timeout=0.05, max_attempts=1), queue.enqueue("quick")
    code = f"""
        import time
        from dbbasic_queue import Queue, held, run
        run.CUT_OFF = held.CUT_OFF = 0.1
        def handler(payload):
            while True:
                try:
                    time.sleep(9)
                except BaseException:
                    pass
        Queue({queue.path!r}).process_jobs({{"slow": handler, "quick": str}})
    """

    child = run_python(code)

    assert child.wait(10) == 75
    queue.process_jobs({"slow": str, "quick": str})
    assert statuses(queue, slow, quick) == ["failed", "completed"]
    assert queue.get(slow).error.startswith("timed out after 0.05 s")
    assert not list(Path(queue.path + ".d").glob("workers/*"))


# --- beside a slow job


@pytest.mark.soak
def test_a_slow_job_gives_back_what_it_holds_and_folds_what_is_done(queue):
    seen = {}

    def slow(payload):
        seen["at first"] = cells_of(queue, "status", *ids)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            now = cells_of(queue, "status", *ids)
            if "processing" not in now[2:]:
                seen["after"] = time.monotonic() - begun
                break
            time.sleep(0.02)
        seen["later"], seen["attempts"] = now, cells_of(queue, "attempts", *ids)

    ids = queue.enqueue_many([("quick", 0), ("slow", 1), *[("quick", n) for n in range(5)]])
    begun = time.monotonic()

    queue.process_jobs({"quick": str, "slow": slow})

    assert seen["at first"] == ["completed"] + ["processing"] * 6
    assert seen["later"] == ["completed", "processing"] + ["pending"] * 5
    assert seen["attempts"][2:] == ["0"] * 5
    assert seen["after"] < 1.4
    assert queue.counts() == {"completed": 7}


# --- others write the file too


def by_hand(queue, change):
    """Rewrite the file as an editor does."""
    copy = Path(queue.path + "~")
    copy.write_bytes(b"\n".join(change(line) for line in content(queue).split(b"\n")))
    copy.replace(queue.path)


@pytest.mark.parametrize("how", ["pending", "cancelled", "deleted"])
def test_a_hand_edit_of_a_running_jobs_row_drops_its_outcome_with_a_log_line(queue, caplog, how):
    def change(line):
        cells = line.split(b"\t")
        if cells[0] != job_id.encode():
            return line
        return b"\t".join([*cells[:3], how.encode(), *cells[4:9]]) if how != "deleted" else b"#"

    job_id = queue.enqueue("t", "x")
    other = queue.enqueue("other")

    def handler(payload):
        if payload == "x":
            by_hand(queue, change)

    queue.process_jobs({"t": handler, "other": str}, max_jobs=1)

    assert f"job {job_id} was changed by somebody else" in caplog.text
    job = queue.get(job_id)
    assert (how == "deleted" and job is None) or (job.status, job.result) == (how, None)
    queue.process_jobs({"other": str})
    assert statuses(queue, other) == ["completed"]


def test_a_hand_edit_of_another_cell_keeps_the_outcome_and_the_edit(queue):
    def change(line):
        return line.replace(b"red", b"green")

    job_id = queue.enqueue("t", columns={"colour": "red"})

    queue.process_jobs({"t": lambda payload: by_hand(queue, change)})

    assert statuses(queue, job_id) == ["completed"]
    assert queue.get(job_id).cell("colour") == "green"


def test_rows_that_are_added_or_removed_by_hand_while_a_worker_runs_are_not_mixed_up(queue):
    ran = []
    row = b"0123456789abcdef\tt\t999\tpending\t1\t1\t0\t\t"

    def handler(payload):
        ran.append(payload)
        if payload == 1:
            Path(queue.path).write_bytes(content(queue).replace(b"\n", b"\n" + row + b"\n", 1))
        if payload == 10:
            lines = content(queue).split(b"\n")
            Path(queue.path).write_bytes(
                b"\n".join(line for line in lines if b"\t350\t" not in line)
            )

    queue.enqueue_many([("t", n) for n in range(400)])

    queue.process_jobs({"t": handler})

    assert sorted(ran) == sorted([*range(350), *range(351, 400), 999])
    assert queue.counts() == {"completed": 400}


def test_p19_a_line_that_looks_pending_but_is_no_row_is_logged_once(queue, caplog):
    queue.enqueue_many([("t", n) for n in range(40)])
    with open(queue.path, "ab") as file:
        row = b"0123456789abcdef\tt\t\x1b[31m\tpending\t1\t1\t0\t\t\tone cell\ttoo many"
        file.write(row + b"x" * 100 + b"\n")

    queue.process_jobs({"t": str})

    (record,) = [one for one in caplog.records if "cannot be read" in one.getMessage()]
    assert record.levelno == logging.WARNING
    assert "42" in record.getMessage()  # the number of the line
    assert record.getMessage().isprintable()
    assert "x" * 10 not in record.getMessage()  # it may hold what no log may have
    assert queue.counts() == {"completed": 40}


def test_a_hand_edit_in_the_middle_of_a_claim_is_not_lost_and_makes_it_start_again(queue):
    ran, asked = [], []
    row = b"0123456789abcdef\tt\t99\tpending\t1\t1\t0\t\t\n"

    def admit(job, count):
        asked.append(job.payload)
        if asked == [0, 1, 2, 3]:
            copy = Path(queue.path + "~")
            copy.write_bytes(content(queue).replace(b"\n", b"\n" + row, 1))
            copy.replace(queue.path)

    queue.enqueue_many([("t", n) for n in range(30)])

    queue.process_jobs({"t": ran.append}, admit=[admit])

    assert sorted(ran) == [*range(30), 99]
    assert queue.counts() == {"completed": 31}


def test_a_row_that_an_edit_of_equal_length_makes_due_runs_in_the_same_tick(queue):
    ran = []

    def handler(payload):
        ran.append(payload)
        if payload == 10:
            with queue.edit() as e:
                e.change(e.get(later), run_at=1_000_000_000)
            queue.enqueue("t", "more")

    later = queue.enqueue("t", "later", 4_000_000_000)
    queue.enqueue_many([("t", n) for n in range(40)])

    queue.process_jobs({"t": handler})

    assert sorted(map(str, ran)) == sorted(map(str, [*range(40), "later", "more"]))


# --- clocks


def test_p28_a_clock_that_steps_back_delays_no_job_for_now(queue):
    with at(0):
        now, later = queue.enqueue("t", "now"), queue.enqueue("t", "later", NOW + 60)

    with at(-86400):
        queue.process_jobs({"t": str})
        early = statuses(queue, now, later)
    with at(60):
        queue.process_jobs({"t": str})

    assert early == ["completed", "pending"]
    assert statuses(queue, now, later) == ["completed", "completed"]


def test_p28_a_clock_that_steps_back_keeps_an_explicit_time(queue):
    ran = []
    with at(0):
        job_id = queue.enqueue("t", max_attempts=9)
        queue.process_jobs({"t": raises(Odd())})

    for seconds in (-86400, 0, 59):
        with at(seconds):
            queue.process_jobs({"t": ran.append})
    assert ran == []
    with at(60):
        queue.process_jobs({"t": ran.append})
    assert len(ran) == 1
    assert queue.get(job_id).attempts == 2


@pytest.mark.parametrize("jump", [-(10**8), -3600, 3600, 10**8])
def test_p28_a_clock_that_jumps_during_a_run_ends_nothing(queue, jump):
    with freeze_time(FROZEN) as clock:
        job_id, other = queue.enqueue("t", timeout=30), queue.enqueue("other")
        queue.process_jobs({"t": lambda payload: str(clock.tick(jump)), "other": str}, 1)
        clock.move_to(FROZEN)
        queue.process_jobs({"other": str}, 1)

    assert statuses(queue, job_id, other) == ["completed", "completed"]


@pytest.mark.soak
def test_a_tick_goes_on_when_the_watching_thread_has_given_its_claim_back(queue, monkeypatch):
    edit = worker.Worker._edit

    def slow(self, *given, **named):
        edit(self, *given, **named)
        time.sleep(0.001)

    monkeypatch.setattr(worker.Worker, "_edit", slow)
    queue.enqueue_many(("note", {"n": n, "text": "x" * 60}) for n in range(20_000))

    queue.process_jobs({"note": lambda payload: None})

    assert queue.counts() == {"completed": 20_000}


def test_a_snooze_with_a_reason_says_it_in_the_row_while_the_job_waits(queue):
    id = queue.enqueue("mail")

    queue.process_jobs({"mail": raises(Snooze(60, "the key is not here"))})

    job = queue.get(id)
    assert (job.status, job.attempts, job.error) == ("pending", 0, "the key is not here")


def test_a_layer_that_calls_a_job_off_says_why(queue):
    id = queue.enqueue("mail")

    def call_off(job, call_next):
        raise Killed("too late for this one")

    queue.process_jobs({"mail": print}, middleware=[call_off])

    assert (queue.get(id).status, queue.get(id).error) == ("cancelled", "too late for this one")


def test_listeners_are_told_of_what_a_running_job_records(queue):
    queue.enqueue("mail")
    told = []

    queue.process_jobs(
        {"mail": lambda payload: current_job().record(mine="half")},
        listeners=[lambda event, job: told.append((event, job.status, job.cell("mine")))],
    )

    assert told[1] == ("progressed", "processing", "half")
    assert [event for event, *_ in told] == ["started", "progressed", "completed"]


def test_what_a_handler_asks_for_in_words_is_logged_without_a_traceback(queue, caplog):
    queue.enqueue("mail")

    queue.process_jobs({"mail": raises(Discard("no such page"))})

    assert "ended with no such page" in caplog.text
    assert "Traceback" not in caplog.text
