"""The testing kit: a real queue in a temporary folder, drained over moved clocks; assertions."""

import asyncio
import os
import sys
import time
from datetime import datetime, timedelta, timezone

import freezegun
import pytest

from dbbasic_queue import QueueError, Snooze, current_job, enqueue
from dbbasic_queue.batch import enqueue_batch
from dbbasic_queue.chain import enqueue_chain
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.schedule import add_schedule, pause_schedule, serving
from dbbasic_queue.testing import (
    assert_batched,
    assert_chained,
    assert_enqueued,
    assert_not_enqueued,
    drain,
    temporary_queue,
)

pytest_plugins = ["pytester"]


@pytest.fixture
def temporary():
    with temporary_queue() as queue:
        yield queue


def fail(payload):
    raise ValueError("no")


def test_a_temporary_queue_is_the_default_one_until_its_end(monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE", "before.tsv")

    with temporary_queue() as queue:
        enqueue("mail")
        inside = os.environ["DBBASIC_QUEUE"]
        types = [job.type for job in queue.jobs()]

    assert (inside, types) == (queue.path, ["mail"])
    assert os.environ["DBBASIC_QUEUE"] == "before.tsv"
    assert "DBBASIC_QUEUE_SYNC" not in os.environ
    assert not os.path.exists(os.path.dirname(queue.path))


def test_a_drain_runs_what_handlers_add_too_and_returns_jobs_as_they_finish(temporary):
    enqueue("first")

    finished = drain({"first": lambda payload: enqueue("second"), "second": lambda payload: 2})

    assert [(job.type, job.status) for job in finished] == [
        ("first", "completed"),
        ("second", "completed"),
    ]
    assert finished[1].result == 2


def test_a_drain_moves_the_clock_to_jobs_for_later_and_back(temporary):
    begun = time.time()
    enqueue("report", run_at=timedelta(days=3))
    enqueue("report", run_at=timedelta(hours=1))

    finished = drain({"report": lambda payload: time.time() - begun})

    assert [round(job.result / 3600) for job in finished] == [1, 72]
    assert time.time() - begun < 60


def test_a_drain_goes_through_all_attempts_and_snoozes(temporary):
    enqueue("charge")
    enqueue("wait")

    def wait(payload):
        if time.time() < current_job().created_at + 100:
            raise Snooze(60)
        return "done"

    finished = drain({"charge": fail, "wait": wait}, max_attempts=4)

    assert [(job.type, job.status, job.attempts) for job in finished] == [
        ("wait", "completed", 1),
        ("charge", "failed", 4),
    ]


def test_a_drain_goes_no_further_than_it_is_told(temporary):
    def again(payload):
        enqueue("again", run_at=timedelta(hours=1))

    enqueue("again")

    finished = drain({"again": again}, until=time.time() + 5 * 3600 + 60)

    assert len(finished) == 6


def test_a_drain_starts_from_a_clock_that_the_test_has_frozen(temporary):
    with freezegun.freeze_time("2030-01-31 06:00") as clock:
        enqueue("report", run_at=timedelta(hours=1))
        enqueue("report")

        finished = drain({"report": lambda payload: time.strftime("%H:%M", time.gmtime())})
        after = time.time()

        assert [job.result for job in finished] == ["06:00", "07:00"]
        assert after == clock().timestamp()


def test_a_drain_leaves_jobs_that_nobody_handles_or_that_wait_for_such(temporary):
    enqueue("later", after=enqueue("unknown"), run_at=timedelta(hours=1))

    assert drain({"later": print}) == []
    assert [job.status for job in temporary.jobs()] == ["pending", "pending"]


@pytest.mark.soak
def test_a_drain_waits_for_a_limit_by_moving_the_clock(temporary):
    begun = time.time()
    enqueue("mail")

    drain({"mail": print}, admit=[lambda job, count: time.time() > begun + 1000])

    assert next(temporary.jobs()).status == "completed"


def test_async_handlers_sleep_in_a_drain_as_they_do_elsewhere(temporary):
    async def nap(payload):
        await asyncio.sleep(0.001)
        return "awake"

    enqueue("nap", run_at=timedelta(days=1))

    assert [job.result for job in drain({"nap": nap})] == ["awake"]


def test_a_drain_over_later_jobs_says_that_it_needs_freezegun(temporary, monkeypatch):
    enqueue("report", run_at=timedelta(hours=1))
    monkeypatch.setitem(sys.modules, "freezegun", None)

    with pytest.raises(QueueError, match=r"pip install 'dbbasic-queue\[test\]'"):
        drain({"report": print})
    assert drain({"report": print}, until=0) == []


def test_what_was_enqueued_can_be_asserted_also_after_it_ran(temporary):
    enqueue("mail", {"to": "ana"}, queue="high")
    enqueue("mail", {"to": "ben"})
    drain({"mail": print})

    assert len(assert_enqueued("mail")) == 2
    assert [job.queue for job in assert_enqueued("mail", payload={"to": "ana"})] == ["high"]
    assert_enqueued("mail", queue="high", times=1, where=lambda job: job.priority == 0)
    assert_not_enqueued("mail", payload={"to": "carl"})
    assert_not_enqueued("page")


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_type": "page"},
        {"job_type": "mail", "queue": "low"},
        {"job_type": "mail", "payload": {"to": "ben"}},
        {"job_type": "mail", "times": 2},
        {"job_type": "mail", "where": lambda job: job.attempts},
    ],
)
def test_an_assertion_that_fails_says_what_was_asked_and_what_is_there(temporary, wrong):
    enqueue("mail", {"to": "ana"})

    with pytest.raises(AssertionError) as failure:
        assert_enqueued(**wrong)

    assert wrong["job_type"] in str(failure.value)
    assert "mail pending queue='default' payload={'to': 'ana'}" in str(failure.value)


def test_that_nothing_was_enqueued_can_be_asserted(temporary):
    assert_not_enqueued()
    enqueue("mail")

    with pytest.raises(AssertionError, match="there is a job"):
        assert_not_enqueued()


def test_a_chain_and_a_batch_can_be_asserted_and_drained_to_their_ends(temporary):
    enqueue_chain([("extract",), ("load",)], name="ETL", catch=("mail",))
    enqueue_batch([("page", n) for n in range(3)], then=("bind",))

    drain(dict.fromkeys(["extract", "load", "mail", "page", "bind"], str))

    assert assert_chained("extract", "load", name="ETL").ok
    assert assert_batched(*["page"] * 3).progress == 100
    assert [job.type for job in assert_enqueued("bind")] == ["bind"]


@pytest.mark.parametrize(
    "types,options",
    [(["load", "extract"], {}), (["extract"], {}), (["extract", "load"], {"name": "no"})],
)
def test_a_chain_that_is_not_there_is_an_error_that_says_which_are(temporary, types, options):
    enqueue_chain([("extract",), ("load",)], name="ETL")

    with pytest.raises(AssertionError, match="name='ETL' of extract, load"):
        assert_chained(*types, **options)
    with pytest.raises(AssertionError, match="has 0"):
        assert_batched(*types)


def test_the_fixture_gives_each_test_a_queue_of_its_own(pytester):
    pytester.makeconftest('pytest_plugins = ["dbbasic_queue.testing.plugin"]')
    pytester.makepyfile(
        """
        from dbbasic_queue import enqueue

        def test_one(queue_file):
            enqueue("mail")
            assert len(list(queue_file.jobs())) == 1

        def test_two(queue_file):
            assert list(queue_file.jobs()) == []
        """
    )

    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_a_drain_by_several_processes_returns_what_they_finished(temporary):
    temporary.cancel(enqueue("before"))
    for number in range(3):
        enqueue("good", number)
    enqueue("bad", max_attempts=1)

    finished = drain({"good": lambda payload: payload, "bad": fail}, processes=2)

    assert sorted((job.type, job.status) for job in finished) == [
        ("bad", "failed"), *[("good", "completed")] * 3,
    ]  # fmt: skip


def test_a_drain_runs_no_real_queue(tmp_path):
    enqueue("charge")

    with pytest.raises(QueueError, match=r"data/queue\.tsv: use temporary_queue"):
        drain({"charge": print})


def test_a_drain_of_a_queue_that_is_named_runs_that(queue):
    queue.enqueue("mail")

    assert len(drain({"mail": print}, queue_file=queue)) == 1


@pytest.mark.parametrize("until", [timedelta(days=2), datetime(2030, 2, 2, tzinfo=timezone.utc)])
def test_until_is_any_time_that_a_job_can_have(temporary, until):
    with freezegun.freeze_time("2030-01-31"):
        for days in (1, 5):
            enqueue("report", run_at=timedelta(days=days))

        assert len(drain({"report": print}, until=until)) == 1


@pytest.mark.parametrize("until", [7200, "tomorrow"])
def test_until_is_no_number_of_seconds(temporary, until):
    with pytest.raises(BadArgument, match="until="):
        drain({}, until=until)


def test_a_drain_goes_through_the_slots_of_a_schedule_until_it_is_told(temporary):
    handlers = serving({"report": lambda payload: None})
    add_schedule("often", "report", every=3600)

    with pytest.raises(QueueError, match="the schedule often has no end: give until="):
        drain(handlers)
    finished = drain(handlers, until=timedelta(hours=3, minutes=1))

    assert [job.type for job in finished].count("report") == 3


def test_a_paused_schedule_is_not_waited_for(temporary):
    add_schedule("often", "report", every=3600)
    pause_schedule("often")

    assert drain(serving({"report": print})) == []
