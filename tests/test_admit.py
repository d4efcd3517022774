"""Which of the due rows may start: paused queues, and what an `admit` function notes of a claim."""

import os

import pytest

from dbbasic_queue import QueueError, current_job
from dbbasic_queue.here import queue_here


@pytest.fixture
def paused(queue):
    """Write the file of paused labels."""
    queue.enqueue("first")
    path = queue.file.side + "/paused"
    os.makedirs(queue.file.side, exist_ok=True)

    def write(*labels):
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(label + "\n" for label in labels)

    return write


def statuses(queue):
    return [job.status for job in queue.jobs()]


def test_no_job_of_a_paused_queue_is_claimed_until_it_is_resumed(queue, paused):
    queue.enqueue("mail", queue="slow")
    handlers = {"first": print, "mail": print}

    paused("slow", "other")
    queue.process_jobs(handlers)
    before = statuses(queue)
    paused()
    queue.process_jobs(handlers)

    assert (before, statuses(queue)) == (["completed", "pending"], ["completed", "completed"])


def test_a_pause_is_seen_by_a_worker_between_two_of_its_claims(queue, paused):
    queue.enqueue("mail", queue="slow", after=queue.enqueue("second"))

    queue.process_jobs({"first": print, "second": lambda payload: paused("slow"), "mail": print})

    assert statuses(queue) == ["completed", "completed", "pending"]


def test_a_worker_that_waits_sees_that_a_queue_is_resumed(queue, paused, run_python):
    paused("default")
    worker = run_python(
        f"from dbbasic_queue import Queue; Queue({queue.path!r}).process_jobs("
        "{'first': print}, run_for=20, max_jobs=1, name='one')"
    )
    while not queue.workers():
        assert worker.poll() is None

    paused()

    assert queue.wait(next(queue.jobs()).id, 10).status == "completed"


def test_pauses_that_cannot_be_read_are_not_taken_for_none(queue, paused):
    os.symlink(queue.path, queue.file.side + "/paused")

    with pytest.raises(QueueError, match="paused"):
        queue.process_jobs({"first": print})

    assert statuses(queue) == ["pending"]


def test_what_an_admit_function_notes_is_done_only_for_jobs_that_all_let_start(queue):
    noted = []

    def notes(job, counts):
        counts.if_claimed(lambda: noted.append(job.type))

    for type in ("one", "two"):
        queue.enqueue(type)
    handlers = {"one": print, "two": print}
    queue.process_jobs(handlers, admit=[notes, lambda job, counts: job.type != "one"])

    assert (noted, statuses(queue)) == (["two"], ["pending", "completed"])


def test_a_note_that_fails_leaves_the_job(queue, caplog):
    queue.enqueue("one")

    def notes(job, counts):
        counts.if_claimed(lambda: 1 / 0)

    queue.process_jobs({"one": print}, admit=[notes])

    assert statuses(queue) == ["pending"]
    assert "ZeroDivisionError" in caplog.text


def test_a_handler_is_told_in_which_queue_it_runs(queue):
    queue.enqueue("where")

    queue.process_jobs({"where": lambda payload: [queue_here().path, current_job().type]})

    assert next(queue.jobs()).result == [queue.path, "where"]
    assert queue_here().path == os.path.abspath("data/queue.tsv")
    assert queue_here(queue) is queue


def test_a_pools_handler_is_told_in_which_queue_it_runs(queue):
    queue.enqueue("where")

    queue.process_jobs({"where": lambda payload: queue_here().path}, processes=1)

    assert next(queue.jobs()).result == queue.path
