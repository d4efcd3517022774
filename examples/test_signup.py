"""How to test a program that enqueues: `python -m pytest test_signup.py`.

The queue is a real file in a temporary folder. Nothing is faked, and nothing sleeps: `drain` moves
the clock to jobs that are due later.
"""

from datetime import timedelta

import pytest

from dbbasic_queue import enqueue
from dbbasic_queue.testing import assert_enqueued, assert_not_enqueued, drain, temporary_queue

# --- the program: usually in modules of its own


def sign_up(email: str) -> None:
    enqueue("welcome", {"to": email})
    enqueue("remind", {"to": email}, run_at=timedelta(days=7))


def welcome(payload: dict) -> str:
    if "@" not in payload["to"]:
        raise ValueError(f"{payload['to']!r} is no address")
    return f"mailed {payload['to']}"


HANDLERS = {"welcome": welcome, "remind": lambda payload: f"reminded {payload['to']}"}

# --- the tests


@pytest.fixture(autouse=True)
def queue():
    with temporary_queue() as queue:
        yield queue


def test_who_signs_up_is_welcomed_and_reminded():
    sign_up("ana@example.com")

    assert_enqueued("welcome", payload={"to": "ana@example.com"}, times=1)
    assert_not_enqueued("goodbye")


def test_the_reminder_comes_a_week_later():
    sign_up("ana@example.com")

    welcomed, reminded = drain(HANDLERS)

    assert welcomed.result == "mailed ana@example.com"
    assert reminded.started_at - welcomed.started_at > 6.9 * 86400


def test_a_welcome_without_an_address_fails_after_three_attempts():
    sign_up("nobody")

    drain(HANDLERS)

    [job] = assert_enqueued("welcome")
    assert (job.status, job.attempts) == ("failed", 3)
    assert job.error == "ValueError: 'nobody' is no address"
