"""A new job: its times, its numbers, its id; and a row read back as a Job."""

import re
import threading
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Job, current_job
from dbbasic_queue.errors import BadArgument, DuplicateId
from dbbasic_queue.new import parse_backoff

NOW = 1760000000
FROZEN = "2025-10-09 08:53:20.250"  # NOW and a quarter of a second
HOUR = timezone(timedelta(hours=1))


def due(queue, run_at):
    """When a job for `run_at`, enqueued at FROZEN, is due; None when at once."""
    with freeze_time(FROZEN):
        job = queue.get(queue.enqueue("note", None, run_at))
    assert job.created_at == NOW
    return None if job.run_at == job.created_at else job.run_at


# --- when


@pytest.mark.parametrize(
    "run_at, expected",
    [
        (None, None),
        (NOW, None),
        (NOW - 3600, None),
        (0, None),
        (-1, None),
        (NOW + 0.2, None),
        (NOW + 0.25, None),
        (NOW + 0.3, NOW + 1),
        (NOW + 1, NOW + 1),
        (NOW + 60.001, NOW + 61),
        (timedelta(0), None),
        (timedelta(seconds=-5), None),
        (timedelta(seconds=60), NOW + 61),
        (timedelta(seconds=0.75), NOW + 1),
        (timedelta(days=1, milliseconds=-250), NOW + 86400),
        (datetime(2025, 10, 9, 9, 53, 20, tzinfo=timezone.utc), NOW + 3600),
        (datetime(2025, 10, 9, 9, 53, 20, tzinfo=HOUR), None),
        (datetime(2025, 10, 9, 10, 53, 20, 1, tzinfo=HOUR), NOW + 3601),
        (datetime(1969, 1, 1, tzinfo=timezone.utc), None),
        (253402300799, 253402300799),
    ],
    ids=str,
)
def test_run_at_is_never_early_and_past_means_now(queue, run_at, expected):
    assert due(queue, run_at) == expected


@pytest.mark.parametrize(
    "run_at",
    [
        True,
        False,
        datetime(2025, 10, 9),
        date(2025, 10, 9),
        "high",
        "1760000000",
        b"1",
        NOW * 1000,
        -NOW * 1000,
        float("nan"),
        float("inf"),
        10**400,
        timedelta.max,
        Fraction(1, 2),
        [NOW],
        object(),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_run_at_that_is_no_time_is_refused_before_a_write(queue, run_at):
    with pytest.raises(BadArgument, match="run_at="):
        queue.enqueue("note", None, run_at)

    assert not Path(queue.path).exists()


def test_a_queue_name_in_the_place_of_run_at_is_told_where_it_belongs(queue):
    with pytest.raises(BadArgument, match="queue='high'"):
        queue.enqueue("note", {}, "high")


@pytest.mark.parametrize(
    "now, due",
    [(NOW - 1, False), (NOW + 3599.9, False), (NOW + 3600, True), (NOW + 3601, True)],
)
def test_p28_a_job_with_a_time_of_its_own_is_due_from_then_on(queue, now, due):
    with freeze_time(FROZEN):
        job = queue.get(queue.enqueue("note", None, NOW + 3600))

    assert job.is_due(now) is due


@pytest.mark.parametrize("now", [0, NOW - 86400, NOW, NOW + 1])
def test_p28_a_job_for_now_is_due_whatever_the_clock_does(queue, now):
    with freeze_time(FROZEN):
        job = queue.get(queue.enqueue("note"))

    assert job.is_due(now)


# --- the numbers and words of its own


@pytest.mark.parametrize(
    "words, seconds",
    [
        ("none", [0, 0, 0, 0]),
        ("linear:60:150", [60, 120, 150, 150]),
        ("linear:0.5:10", [0.5, 1, 1.5, 2]),
        ("exponential:60:86400", [60, 120, 240, 480]),
        ("exponential:1:3", [1, 2, 3, 3]),
        ("exponential:0:10", [0, 0, 0, 0]),
        ("exponential:10:inf", [10, 20, 40, 80]),
    ],
)
def test_a_backoff_in_words_gives_seconds(words, seconds):
    backoff = parse_backoff(words)

    assert [backoff(attempts) for attempts in (1, 2, 3, 4)] == seconds


def test_a_backoff_never_exceeds_its_cap_nor_overflows():
    assert parse_backoff("exponential:60:86400")(100_000) == 86400
    assert parse_backoff("linear:60:86400")(100_000) == 86400


def test_jitter_takes_a_random_half_to_the_whole():
    backoff = parse_backoff("exponential:60:86400:jitter")

    waits = {backoff(2) for _ in range(200)}

    assert len(waits) > 20
    assert 60 <= min(waits) < 70 and 110 < max(waits) <= 120


@pytest.mark.parametrize(
    "words",
    [
        "",
        "fast",
        "none:1",
        "linear",
        "linear:10",
        "linear:1:2:3",
        "linear:1:2:jitter",
        "exponential:-1:10",
        "exponential:1:-1",
        "exponential:nan:1",
        "exponential:1:nan",
        "exponential:inf:1",
        "exponential:1:2:jitter:1",
        "exponential:a:b",
        "linear:1:2\n",
        "linear:1\t:2",
        60,
        lambda attempts: 1,
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_any_other_backoff_is_refused_before_a_write(queue, words):
    with pytest.raises(BadArgument, match="backoff="):
        queue.enqueue("note", backoff=words)

    assert not Path(queue.path).exists()


@pytest.mark.parametrize(
    "argument, good",
    [
        ("priority", [0, 1, -1, 2**31 - 1, -(2**31) + 1]),
        ("max_attempts", [1, 2, 2**31 - 1, None]),
        ("timeout", [1, 0.5, 0.001, 86400, 1234567, 1234567.5, None]),
        ("backoff", ["none", "linear:1:2", "exponential:1:2:jitter", None]),
        ("queue", ["default", "high", "a.b-c_9"]),
        ("group", ["g", "G" * 100, None]),
    ],
)
def test_a_jobs_own_settings_are_read_back(queue, argument, good):
    ids = [queue.enqueue("note", **{argument: value}) for value in good]

    assert [getattr(queue.get(job_id), argument) for job_id in ids] == good


@pytest.mark.parametrize(
    "argument, bad",
    [
        ("priority", [1.5, "1", "high", 2**31, -(2**31), float("nan"), [1]]),
        ("max_attempts", [0, -1, True, 1.0, "3", 2**31]),
        ("timeout", [0, -1, True, "1", float("nan"), float("inf"), timedelta(seconds=1)]),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_a_write(queue, argument, bad):
    for value in bad:
        with pytest.raises(BadArgument, match=f"{argument}="):
            queue.enqueue("note", **{argument: value})

    assert not Path(queue.path).exists()


# --- ids


def test_an_id_is_16_hex_characters_that_begin_with_the_time(queue, run_python):
    code = f"""
        import time
        from dbbasic_queue import Queue
        print(time.time_ns(), Queue({queue.path!r}).enqueue("note"), time.time_ns())
    """

    before, job_id, after = run_python(code).stdout.read().split()

    assert re.fullmatch("[0-9a-f]{16}", job_id)
    assert int(before) // 1000 <= int(job_id[:13], 16) <= int(after) // 1000 + 1


def test_ids_rise_while_the_clock_stands_still(queue):
    with freeze_time(FROZEN):
        ids = [queue.enqueue("note") for _ in range(20)]
        ids += queue.enqueue_many([("note", None)] * 20)
        ids += [queue.new_id() for _ in range(20)]

    assert ids == sorted(set(ids))


def test_p28_ids_rise_when_the_clock_steps_back(queue):
    with freeze_time("2026-01-02"):
        first = queue.enqueue("note")

    with freeze_time("2026-01-01"):
        second = queue.enqueue("note")

    assert first < second
    assert queue.get(second).id == second


def test_a_new_process_gives_greater_ids_than_the_last_row_of_another(queue, run_python):
    ahead = f"{(int(queue.new_id()[:13], 16) + 3_600_000_000):013x}000"
    queue.enqueue("note", id=ahead)
    code = f"""
        from dbbasic_queue import Queue
        queue = Queue({queue.path!r})
        print(queue.enqueue("note"), *queue.enqueue_many([("note", 1), ("note", 2)]))
    """

    ids = run_python(code).stdout.read().split()

    assert [ahead, *ids] == sorted({ahead, *ids})
    assert [job.id for job in queue.jobs()] == [ahead, *ids]


def test_ids_from_many_threads_differ_in_their_time(queue):
    ids = []

    def make():
        ids.extend([queue.new_id()[:13] for _ in range(3000)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(ids)) == len(ids) == 24_000


@pytest.mark.parametrize(
    "job_id",
    ["", "a" * 15, "a" * 17, "A" * 16, "g" * 16, "../../etc/passwd", "0" * 15 + "\n", 5, b"a" * 16],
)
def test_p33_a_given_id_is_16_lower_case_hex_characters(queue, job_id):
    with pytest.raises(BadArgument, match="id="):
        queue.enqueue("note", id=job_id)

    assert not Path(queue.path).exists()


@freeze_time(FROZEN)
def test_a_given_id_is_at_most_a_day_ahead(queue):
    day_ahead = (NOW + 86400) * 1_000_000

    good = queue.enqueue("note", id=f"{day_ahead:013x}fff")
    with pytest.raises(BadArgument, match="a day ahead"):
        queue.enqueue("note", id=f"{day_ahead + 250_001:013x}000")

    assert [job.id for job in queue.jobs()] == [good]


@pytest.mark.parametrize("place", [0, 250, 499])
def test_an_id_that_is_in_the_file_is_refused(queue, place):
    ids = queue.enqueue_many([("note", number) for number in range(500)])
    before = Path(queue.path).read_bytes()

    with pytest.raises(DuplicateId, match=ids[place]):
        queue.enqueue("note", id=ids[place])
    with pytest.raises(DuplicateId, match=ids[place]):
        queue.enqueue_many([("note", 1), {"job_type": "note", "id": ids[place]}])

    assert Path(queue.path).read_bytes() == before


def test_an_id_that_is_in_the_file_is_refused_behind_a_bad_line_too(queue):
    job_id = queue.enqueue("note")
    with open(queue.path, "ab") as file:
        file.write(b"# a remark\n")

    with pytest.raises(DuplicateId):
        queue.enqueue("note", id=job_id)


def test_an_id_that_is_in_the_file_is_refused_behind_a_row_with_an_older_id_too(queue):
    job_id = queue.enqueue("note")
    queue.enqueue("note", id="000000000000000a")

    with pytest.raises(DuplicateId):
        queue.enqueue("note", id=job_id)


def test_the_same_id_twice_in_one_call_is_refused(queue):
    same = {"job_type": "note", "id": "0123456789abcdef"}

    with pytest.raises(DuplicateId):
        queue.enqueue_many([same, same])

    assert list(queue.jobs()) == []


def test_a_given_id_that_is_smaller_than_the_last_is_found_again(queue):
    ids = [queue.enqueue("note") for _ in range(3)]
    small = queue.enqueue("note", "small", id="000000000000000a")

    assert queue.get(small).payload == "small"
    assert [queue.get(job_id).id for job_id in ids] == ids
    assert queue.enqueue("note") > ids[-1]


def test_an_id_made_before_another_job_was_added_is_kept(queue):
    mine = queue.new_id()
    queue.enqueue("note")

    assert queue.enqueue("note", "mine", id=mine) == mine
    assert queue.get(mine).payload == "mine"


# --- cells of ones own


def test_columns_of_ones_own_come_before_finished_at(queue):
    job_id = queue.enqueue("note", columns={"unique_key": "a b", "colour": "red"})

    header = Path(queue.path).read_bytes().split(b"\n")[0].decode().split("\t")
    assert header[-3:] == ["colour", "unique_key", "finished_at"]
    assert queue.get(job_id).cell("colour") == "red"
    assert queue.get(job_id).cell("unique_key") == "a b"
    assert queue.get(job_id).cell("no_such_column") == ""


TAKEN = ["status", "id", "result", "finished_at", "worker"]
COUNTED = ["failed", "pending_since", "is_completed", "processing_node", "cancelled_by"]


@pytest.mark.parametrize(
    "name", ["", "Colour", "a b", "a\tb", "1st", "ä", "a-b", "a.b", *TAKEN, *COUNTED]
)
def test_a_column_of_ones_own_has_a_name_of_its_own(queue, name):
    with pytest.raises(BadArgument, match="column"):
        queue.enqueue("note", columns={name: "x"})

    assert not Path(queue.path).exists()


@pytest.mark.parametrize("value", [1, None, b"a", ["a"], {"a": 1}])
def test_a_cell_of_ones_own_is_text(queue, value):
    with pytest.raises(BadArgument, match="colour"):
        queue.enqueue("note", columns={"colour": value})

    assert not Path(queue.path).exists()


@pytest.mark.parametrize("last", ["finished_at\tzone", "zone"])
def test_columns_does_not_fill_the_last_column_of_the_file(queue, last):
    """The last cell of a row that is added is empty, or a torn row could look whole."""
    Path(queue.path).parent.mkdir()
    nine = "id type payload status created_at run_at attempts error result".replace(" ", "\t")
    Path(queue.path).write_text(f"{nine}\t{last}\n")

    try:
        queue.enqueue("note", columns={"zone": "north"})
    except BadArgument:
        return

    row = Path(queue.path).read_bytes().split(b"\n")[-2]
    assert row.endswith(b"\t")
    assert [job.cell("zone") for job in queue.jobs()] == ["north"]


# --- a job


def test_a_job_shows_what_its_row_says(queue):
    with freeze_time(FROZEN):
        job_id = queue.enqueue("note", {"a": 1}, NOW + 60, priority=-5, group="g")

    job = queue.get(job_id)

    assert isinstance(job, Job)
    assert repr(job) == f"<Job {job_id} note pending>"
    assert (job.type, job.payload, job.status, job.attempts) == ("note", {"a": 1}, "pending", 0)
    assert (job.created_at, job.run_at, job.priority, job.group) == (NOW, NOW + 60, -5, "g")
    assert (job.queue, job.error, job.result, job.worker, job.after) == ("default",) + (None,) * 4
    assert (job.started_at, job.finished_at, job.finished) == (None, None, False)


def test_replace_gives_a_copy_and_leaves_the_job(queue):
    job = queue.get(queue.enqueue("note", {"a": 1}))

    other = job.replace(payload={"b": [None]}, priority=3, error="x\ny", run_at=NOW + 0.5)

    assert (other.payload, other.priority, other.error) == ({"b": [None]}, 3, "x\ny")
    assert other.run_at == NOW + 1
    assert (job.payload, job.priority, job.error) == ({"a": 1}, 0, None)


def test_only_a_running_job_can_record(queue):
    job = queue.get(queue.enqueue("note"))

    with pytest.raises(BadArgument, match="not running"):
        job.record(progress="50")
    with pytest.raises(BadArgument, match="no job runs"):
        current_job()


@pytest.mark.parametrize("seconds", [1, 60, 86400.5, 10**8 - 1])
def test_seconds_from_now_are_no_unix_time(queue, seconds):
    with pytest.raises(BadArgument, match=r"near 1970; .* run_at=timedelta\(seconds="):
        queue.enqueue("run", run_at=seconds)


def test_a_time_that_is_long_past_is_now(queue):
    ids = [queue.enqueue("run", run_at=at) for at in (0, -5, 10**8)]

    assert all(queue.get(id).run_at == queue.get(id).created_at for id in ids)
