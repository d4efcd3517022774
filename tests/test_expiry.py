"""Expiry: a job that is started too late becomes cancelled and does not run."""

import asyncio
from datetime import datetime, timedelta, timezone

import pytest
from freezegun import freeze_time

from dbbasic_queue.errors import BadArgument
from dbbasic_queue.expiry import expires, expiring
from dbbasic_queue.tags import tags, tags_of
from dbbasic_queue.tasks import Tasks

START = 1893456000  # 2030-01-01 00:00 UTC


def moment(seconds=0.0):
    return datetime.fromtimestamp(START + seconds, timezone.utc)


@pytest.mark.parametrize(
    "when", [60, 60.0, 59.1, timedelta(minutes=1), moment(60), moment(59.5).astimezone()]
)
def test_a_moment_is_stored_as_whole_seconds_rounded_up(when):
    with freeze_time(moment()):
        assert expires(when) == {"expires_at": str(START + 60)}


@pytest.mark.parametrize(
    "when", [-1, True, "60", None, float("nan"), timedelta(-1), datetime(2030, 1, 1), 1.9e9,
             datetime(1969, 1, 1, tzinfo=timezone.utc)]
)  # fmt: skip
def test_what_is_no_such_moment_is_an_error(when):
    with pytest.raises(BadArgument, match=r"duration|expires\("):
        expires(when)


@pytest.mark.parametrize("concurrency", [1, 5])
@pytest.mark.parametrize(
    "later, status", [(0, "completed"), (60, "completed"), (60.1, "cancelled"), (1e6, "cancelled")]
)
def test_a_job_runs_until_its_moment_and_not_later(queue, later, status, concurrency):
    ran = []

    async def handler(payload):
        ran.append(payload)

    with freeze_time(moment()):
        id = queue.enqueue("t", columns=expires(60))
        plain = queue.enqueue("t")
    with freeze_time(moment(later)):
        queue.process_jobs({"t": handler}, middleware=[expiring], concurrency=concurrency)

    job = queue.get(id)
    assert job.status == status
    assert len(ran) == (2 if status == "completed" else 1)
    assert queue.get(plain).status == "completed"
    if status == "cancelled":
        assert job.error.startswith(f"expired: it was to start by {START + 60}, and came ")


def test_a_retry_of_an_expired_job_expires_until_its_cell_is_changed(queue):
    id = queue.enqueue("t", columns={"expires_at": "1"})

    for _ in range(2):
        queue.process_jobs({"t": len}, middleware=[expiring])
        assert queue.get(id).status == "cancelled"
        assert queue.retry(id) == [id]
    with queue.edit() as e:
        e.change(e.get(id), expires_at="")
    queue.process_jobs({"t": str}, middleware=[expiring])

    assert queue.get(id).status == "completed"


@pytest.mark.parametrize("cell", ["soon", "-1", "1.5", "9" * 13, "٣"])
def test_a_cell_that_says_no_time_says_so_and_does_not_run(queue, cell):
    ran = []
    id = queue.enqueue("t", columns={"expires_at": cell})

    queue.process_jobs({"t": ran.append}, 1, middleware=[expiring])

    assert not ran
    assert f"job {id}: its column expires_at is '{cell}', no Unix time" in queue.get(id).error


def test_in_a_pool_it_expires_too(queue):
    id = queue.enqueue("t", columns={"expires_at": "1"})

    queue.process_jobs({"t": str}, middleware=[expiring], processes=1)

    assert queue.get(id).status == "cancelled"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_task_expires_by_its_own_layer_and_has_tags_too(queue, is_async):
    tasks = Tasks()
    ran = []

    async def soon(n):
        await asyncio.sleep(0)
        ran.append(n)

    def now(n):
        ran.append(n)

    task = tasks.task(name="t", middleware=[expiring], columns=tags("a", "b"), queue_file=queue)(
        soon if is_async else now
    )
    late = task.using(columns={"expires_at": "1"}).enqueue(1)
    good = task.using(columns=expires(60)).enqueue(2)

    queue.process_jobs(tasks)

    assert ran == [2]
    assert [queue.get(id).status for id in (late, good)] == ["cancelled", "completed"]
    assert tags_of(queue.get(late)) == ("a", "b")


def test_a_task_that_failed_is_told_so_also_after_its_moment(queue):
    tasks = Tasks()
    told = []

    @tasks.task(columns=expires(60), max_attempts=1, queue_file=queue)
    class Pay:
        def handle(self):
            raise ValueError

        def failed(self, error):
            told.append(error)

    with freeze_time(moment()) as clock:
        Pay.using(columns=expires(60)).enqueue()
        queue.process_jobs(tasks, max_jobs=1, middleware=[expiring])
        clock.tick(100)
        queue.process_jobs(tasks, middleware=[expiring])

    assert told == ["ValueError"]
