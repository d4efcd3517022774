"""Which of the due rows may start: paused queues, and what an `admit` function notes of a claim."""

import os
import time

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


@pytest.mark.soak
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


def test_a_job_is_asked_for_before_its_payload_is_read_and_noted_after(queue, caplog):
    queue.enqueue("one")
    with open(queue.path, "r+b") as file:
        text = file.read().replace(b"\tnull\t", b"\t{nu}\t")
        file.seek(0)
        file.write(text)
    asked, noted = [], []

    def admit(job, counts):
        asked.append(job.type)
        counts.if_claimed(lambda: noted.append(job.type))

    queue.process_jobs({"one": print}, admit=[admit])

    assert (asked, noted, statuses(queue)) == (["one"], [], ["pending"])
    assert "payload" in caplog.text


def asks(queue, admit):
    """Run a tick of types a and b; return of which jobs, as type and queue, `admit` was asked."""
    asked = []

    def asking(job, counts):
        asked.append(f"{job.type} {job.queue}")
        return admit(job, counts)

    queue.process_jobs({"a": str, "b": str}, admit=[asking], max_jobs=100)
    return asked


def test_a_kind_that_is_left_is_asked_for_once_and_others_behind_it_are_found(queue):
    queue.enqueue_many([("a", n) for n in range(50)])
    queue.enqueue("a", queue="slow")
    queue.enqueue("b")
    queue.enqueue("a", priority=-1)

    def admit(job, counts):
        return counts.leave_kind() if job.type == "a" and job.queue == "default" else None

    asked = asks(queue, admit)

    edits = [["a default", "a slow"], ["a default", "b default"], ["a default"]]
    assert asked == [kind for edit in edits for kind in edit]
    assert queue.counts("type", "queue", "status") == {
        ("a", "default", "pending"): 51,
        ("a", "slow", "completed"): 1,
        ("b", "default", "completed"): 1,
    }


@pytest.mark.parametrize("verdict", [None, True])
def test_who_lets_a_job_start_leaves_no_kind(queue, verdict):
    queue.enqueue_many([("a", n) for n in range(5)])

    def admit(job, counts):
        counts.leave_kind()
        return verdict

    asks(queue, admit)

    assert statuses(queue) == ["completed"] * 5


def test_what_is_left_in_one_edit_is_asked_for_in_the_next(queue):
    queue.enqueue_many([("a", n) for n in range(3)])
    edits = []

    def admit(job, counts):
        if job.type == "a" and not edits:
            edits.append(counts.memory)
            return counts.leave_kind()
        assert counts.memory is not edits[0]
        return None

    asks(queue, admit)
    asks(queue, admit)

    assert statuses(queue) == ["completed"] * 3


def test_jobs_that_waited_for_others_are_left_too(queue):
    first = queue.enqueue("b")
    for _ in range(3):
        queue.enqueue("a", after=first)

    asks(queue, lambda job, counts: counts.leave_kind() if job.type == "a" else None)

    assert statuses(queue) == ["completed", "pending", "pending", "pending"]


def test_what_runs_is_known_without_a_scan(queue):
    queue.enqueue("a")
    queue.enqueue("b")
    seen = []

    def admit(job, counts):
        running = [one.type for one in counts.processing()]
        seen.append((job.type, running, counts(status="processing")))

    queue.process_jobs({"a": str, "b": str}, admit=[admit], concurrency=1)

    assert seen[0] == ("a", [], 0)
    assert all(len(running) == count for _, running, count in seen)


@pytest.mark.soak
def test_a_worker_that_waits_asks_again_when_it_was_told_to(queue):
    queue.enqueue("a")
    begun = time.time()
    asked = []

    def admit(job, counts):
        asked.append(time.time() - begun)
        if asked[-1] >= 0.15:
            return True
        counts.ask_again(begun + 0.15)
        return False

    queue.process_jobs({"a": str}, admit=[admit], run_for=10, max_jobs=1)

    assert len(asked) == 2
    assert asked[1] < 0.5


def test_a_time_that_is_over_makes_no_worker_spin(queue):
    queue.enqueue("a")
    asked = []

    def admit(job, counts):
        asked.append(job.id)
        counts.ask_again(0)
        return False

    queue.process_jobs({"a": str}, admit=[admit], run_for=0.05)

    assert 1 <= len(asked) <= 60


@pytest.mark.soak
def test_a_look_that_takes_long_and_finds_nothing_to_start_is_not_taken_all_the_time(queue):
    """Else workers that wait would hold up the one that works."""
    queue.enqueue("a")
    asked = []

    def admit(job, counts):
        asked.append(job.id)
        counts.ask_again(time.time())
        time.sleep(0.06)
        return False

    queue.process_jobs({"a": str}, admit=[admit], run_for=0.25)

    assert len(asked) == 1


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
