"""get_job, cancel_job and enqueue in their documented words: keys, values and types."""

import time
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import cancel_job, enqueue, get_job, process_jobs

FILE = Path("data/queue.tsv")
NOON = 1760011200
KEYS = "id type payload status created_at run_at attempts error result".split()
VALUES = [None, 0, False, "", [], {}, True, 1.5, "tabs\tand\nlines", {"at": NOON}, ["ä", None]]


def fail(payload):
    raise ValueError("no such address")


def pending():
    return get_job(enqueue("note", {"n": 1}))


def scheduled():
    return get_job(enqueue("note", {"n": 1}, run_at=time.time() + 3600.25))


def tried_once():
    job_id = enqueue("note", {"n": 1})
    process_jobs({"note": fail})
    return get_job(job_id)


def running():
    seen = []
    job_id = enqueue("note", {"n": 1})
    process_jobs({"note": lambda payload: seen.append(get_job(job_id))})
    return seen[0]


def completed():
    job_id = enqueue("note", {"n": 1})
    process_jobs({"note": lambda payload: {"done": payload["n"]}})
    return get_job(job_id)


def failed():
    job_id = enqueue("note", {"n": 1})
    process_jobs({"note": fail}, max_attempts=1)
    return get_job(job_id)


def cancelled():
    job_id = enqueue("note", {"n": 1})
    cancel_job(job_id)
    return get_job(job_id)


STATES = [pending, scheduled, tried_once, running, completed, failed, cancelled]


@pytest.mark.parametrize("state", STATES)
@freeze_time("2025-10-09 12:00:00.75")
def test_a_job_in_any_state_has_the_nine_keys_and_their_types(state):
    job = state()

    assert list(job) == KEYS
    assert {key: type(job[key]) for key in KEYS[:7]} == {
        **dict.fromkeys(["id", "type", "status"], str),
        **dict.fromkeys(["created_at", "run_at", "attempts"], int),
        "payload": dict,
    }
    assert type(job["error"]) in (str, type(None))


@pytest.mark.parametrize(
    ("state", "status", "run_at", "attempts", "error", "result"),
    [
        (pending, "pending", NOON, 0, None, None),
        (scheduled, "pending", NOON + 3601, 0, None, None),
        (tried_once, "pending", NOON + 60, 1, "no such address", None),
        (running, "processing", NOON, 1, None, None),
        (completed, "completed", NOON, 1, None, {"done": 1}),
        (failed, "failed", NOON, 1, "no such address", None),
    ],
)
def test_a_job_says_where_it_stands(state, status, run_at, attempts, error, result):
    with freeze_time("2025-10-09 12:00:00"):
        job = state()

    assert (job["type"], job["payload"], job["created_at"]) == ("note", {"n": 1}, NOON)
    assert (job["status"], job["attempts"], job["result"]) == (status, attempts, result)
    assert job["run_at"] - run_at in (0, 1) if status == "pending" else job["run_at"] == run_at
    assert (job["error"] is None) if error is None else (error in job["error"])


def test_a_cancelled_job_has_no_result_and_was_not_tried():
    job = cancelled()

    assert (job["status"], job["attempts"], job["result"]) == ("cancelled", 0, None)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_result_comes_back_as_itself(value):
    job_id = enqueue("note", {})

    process_jobs({"note": lambda payload: value})

    result = get_job(job_id)["result"]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("value", [value for value in VALUES if value is not None], ids=repr)
def test_a_value_in_a_payload_reaches_the_handler_as_itself(value):
    seen = []
    job_id = enqueue("note", {"value": value})
    process_jobs({"note": seen.append})

    assert seen == [{"value": value}]
    assert type(seen[0]["value"]) is type(value)
    assert get_job(job_id)["payload"] == {"value": value}


def test_a_job_that_succeeds_in_the_end_shows_no_error_any_more():
    with freeze_time("2025-10-09") as clock:
        job_id = enqueue("note", {})
        process_jobs({"note": fail})
        clock.tick(60)
        process_jobs({"note": lambda payload: "fine"})

    job = get_job(job_id)
    assert (job["status"], job["attempts"]) == ("completed", 2)
    assert (job["error"], job["result"]) == (None, "fine")


@pytest.mark.parametrize("job_id", ["0123456789abcdef", "", "no id", "../queue", "f" * 16])
def test_a_job_that_does_not_exist_is_none(job_id):
    before = get_job(job_id)
    enqueue("note", {})

    assert (before, get_job(job_id)) == (None, None)
    assert cancel_job(job_id) is False


def test_asking_makes_no_file():
    get_job("0123456789abcdef")
    cancel_job("0123456789abcdef")
    process_jobs({"note": fail})

    assert not FILE.exists()


@pytest.mark.parametrize("state", [pending, scheduled, tried_once])
def test_a_job_that_waits_can_be_cancelled_once(state):
    job_id = state()["id"]

    assert cancel_job(job_id) is True
    assert cancel_job(job_id) is False
    assert get_job(job_id)["status"] == "cancelled"


@pytest.mark.parametrize("state", [completed, failed, cancelled])
def test_a_job_that_is_over_cannot_be_cancelled(state):
    job = state()

    assert cancel_job(job["id"]) is False
    assert get_job(job["id"]) == job


def test_a_job_that_runs_cannot_be_cancelled():
    answers = []
    job_id = enqueue("note", {})

    process_jobs({"note": lambda payload: answers.append(cancel_job(job_id))})

    assert answers == [False]
    assert get_job(job_id)["status"] == "completed"


def test_a_cancelled_job_does_not_run():
    ran = []
    job_id = enqueue("note", {})
    cancel_job(job_id)

    process_jobs({"note": ran.append})

    assert ran == []


def test_process_jobs_returns_none():
    enqueue("note", {})

    assert process_jobs({"note": lambda payload: "result"}) is None


def test_the_parameters_have_their_documented_names():
    job_id = enqueue(job_type="note", payload={"n": 1}, run_at=None)

    process_jobs(handlers={"note": fail}, max_attempts=1)

    assert get_job(job_id=job_id)["status"] == "failed"
    assert cancel_job(job_id=job_id) is False


def test_a_run_at_of_zero_is_now_as_it_always_was():
    job_id = enqueue("note", {}, 0)

    process_jobs({"note": lambda payload: "ran"})

    job = get_job(job_id)
    assert (job["result"], job["run_at"]) == ("ran", job["created_at"])


@pytest.mark.parametrize("given", [FILE.name, "high", "emails", ""])
def test_a_queue_name_in_the_place_of_run_at_is_refused_with_a_hint(given):
    with pytest.raises((TypeError, ValueError), match="queue="):
        enqueue("note", {}, given)

    assert not FILE.exists()


def test_a_refused_call_leaves_an_existing_file_alone():
    enqueue("note", {})
    before = FILE.read_bytes()

    with pytest.raises((TypeError, ValueError), match="queue="):
        enqueue("note", {}, "high")

    assert FILE.read_bytes() == before


def test_the_environment_names_another_file_at_each_call(monkeypatch, tmp_path):
    first = enqueue("note", {})
    monkeypatch.setenv("DBBASIC_QUEUE", str(tmp_path / "other.tsv"))
    second = enqueue("note", {})

    found = [get_job(first), get_job(second)["id"]]

    assert found == [None, second]
    assert (tmp_path / "other.tsv").read_text().count(second) == 1
