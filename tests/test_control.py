"""Asking live workers: to stop, or to end one of their jobs."""

import os
import signal
import threading
import time

import pytest

from dbbasic_queue import current_job

WORKER = """
    import ctypes, os, signal, time
    from dbbasic_queue import Queue, pool
    pool._TOO_LATE = 0.1
    def swallow(payload):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
    def in_c(payload):
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        ctypes.PyDLL(None).sleep(30)  # keeps the interpreter's lock
    handlers = {"sleep": time.sleep, "swallow": swallow, "in_c": in_c, "quick": lambda p: p}
    Queue("data/queue.tsv").process_jobs(handlers, **OPTIONS)
"""


@pytest.fixture
def start(run_python, queue):
    """Start a worker in a process of its own, and wait until a job runs there."""

    def start(running=1, **options):
        code = WORKER.replace("OPTIONS", repr(options))
        child = run_python(code, env={"PYTHONWARNINGS": "ignore"})
        until(lambda: sum(len(one.jobs) for one in queue.workers()) == running)
        return child

    return start


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.soak
@pytest.mark.parametrize("processes", [0, 1])
def test_a_running_job_is_ended_by_its_id_and_the_others_run(queue, start, processes):
    victim, other = queue.enqueue("sleep", 60), queue.enqueue("quick", 7)
    waits = queue.enqueue("quick", after=victim)
    child = start(processes=processes)

    assert queue.kill(victim)

    assert child.wait(timeout=10) == 0
    job = queue.get(victim)
    assert (job.status, job.error, job.attempts) == ("cancelled", "ended on request", 1)
    assert (queue.get(other).result, queue.get(waits).status) == (7, "cancelled")
    assert not os.path.exists(queue.path + ".d/workers")


@pytest.mark.soak
@pytest.mark.parametrize("type", ["in_c", "swallow"])
def test_a_job_that_nothing_else_ends_is_ended_with_its_process(queue, start, type):
    victim, other = queue.enqueue(type), queue.enqueue("quick", 7)
    child = start(processes=1)

    assert queue.kill(victim)

    assert child.wait(timeout=10) == 0
    job = queue.get(victim)
    assert (job.status, job.error, job.attempts) == ("cancelled", "ended on request", 1)
    assert queue.get(other).result == 7


def test_a_job_that_is_to_end_is_not_tried_again_when_its_worker_dies_first(queue, start):
    victim = queue.enqueue("sleep", 60)
    child = start()

    child.send_signal(signal.SIGSTOP)
    assert queue.kill(victim)
    child.kill()
    child.wait()
    queue.process_jobs({"quick": str})

    assert (queue.get(victim).status, queue.get(victim).error) == ("cancelled", "ended on request")


def test_only_a_job_that_a_live_worker_has_can_be_ended(queue, start):
    pending, finished = queue.enqueue("quick", run_at=4e9), queue.enqueue("quick")
    queue.process_jobs({"quick": str})
    orphan = queue.enqueue("sleep", 60)
    child = start()
    child.kill()
    child.wait()

    for id in (pending, finished, orphan, "nobody", "0" * 16):
        assert queue.kill(id) is False

    assert queue.get(pending).status == "pending"


@pytest.mark.soak
def test_a_request_to_end_an_earlier_run_does_not_end_a_later_one(queue):
    runs = []

    def handler(payload):
        runs.append(1)
        assert queue.kill(id)
        if len(runs) == 1:
            return  # finished before the request is read
        time.sleep(0.3)

    id = queue.enqueue("t")
    path = queue.path + ".d/workers"

    def again(event, job):
        if event == "completed" and len(runs) == 1:
            queue.retry(queue.enqueue("u"))

    queue.process_jobs({"t": handler, "u": str}, listeners=[again], run_for=0.5)

    assert queue.get(id).status == "completed"
    assert not os.path.exists(path)


@pytest.mark.soak
def test_a_job_that_is_claimed_and_not_begun_is_cancelled_without_an_attempt(queue):
    ids = queue.enqueue_many([("first", None)] * 40 + [("last", None)])

    def first(payload):
        if queue.get(ids[-1]).status == "processing" and not asked:
            asked.append(queue.kill(ids[-1]))
            time.sleep(0.3)

    asked = []
    queue.process_jobs({"first": first, "last": lambda payload: 1 / 0})

    job = queue.get(ids[-1])
    assert asked == [True]
    assert (job.status, job.error, job.attempts) == ("cancelled", "ended on request", 0)


def test_a_job_is_ended_however_many_were_asked_for_before(queue):
    def handler(payload):
        worker = current_job().worker.rpartition(".")[0]
        with open(f"{queue.path}.d/workers/{worker}.kill", "wb") as file:
            file.write(b"17\t0123456789abcdef\n" * 4000)
        assert queue.kill(id)
        time.sleep(20)

    id = queue.enqueue("t", max_attempts=1)
    queue.process_jobs({"t": handler})

    assert (queue.get(id).status, queue.get(id).error) == ("cancelled", "ended on request")


def test_a_job_that_is_to_end_is_not_tried_again_whatever_its_handler_makes_of_it(queue):
    def handler(payload):
        queue.kill(id)
        try:
            time.sleep(20)
        finally:
            raise ValueError("the connection was cut")

    id = queue.enqueue("t")
    queue.process_jobs({"t": handler})

    assert (queue.get(id).status, queue.get(id).error) == ("cancelled", "ended on request")


@pytest.mark.soak
def test_stop_returns_who_is_left_and_what_it_runs(queue, start):
    id = queue.enqueue("sleep", 0.4)
    child = start(run_for=60, name="mailer")

    (left,) = queue.stop(timeout=0.05)
    assert (left.name, list(left.jobs)) == ("mailer", [id])

    assert queue.stop(timeout=10) == []
    assert child.wait(timeout=10) == 0
    assert queue.get(id).status == "completed"


def test_stop_means_only_workers_of_that_name(queue, start):
    queue.enqueue("sleep", 60)
    start(run_for=60, name="mailer")

    assert queue.stop("other", timeout=5) == []
    assert [one.name for one in queue.workers()] == ["mailer"]


@pytest.mark.soak
def test_a_pool_that_is_asked_to_stop_starts_no_further_worker(queue, start):
    queue.enqueue_many([("sleep", 0.15)] * 40)
    child = start(2, processes=(2, 4), run_for=60)

    queue.stop()
    assert queue.stop(timeout=10) == []  # asked twice

    assert child.wait(timeout=10) == 0
    assert queue.counts()["pending"] >= 30


def test_a_worker_that_finds_nothing_in_a_busy_queue_stops_too(queue):
    options = {"queues": ["mine"], "run_for": 60}
    queue.enqueue("t")
    thread = threading.Thread(target=lambda: queue.process_jobs({"t": str}, **options))
    thread.start()
    until(queue.workers)

    def left():
        queue.enqueue("t")
        return not queue.workers()

    queue.stop()
    until(left)
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.soak
def test_a_handler_that_asks_its_own_worker_to_stop_is_the_last_one(queue):
    queue.enqueue_many([("t", None)] * 50)
    ran = []

    def handler(payload):
        ran.append(1)
        queue.stop()
        time.sleep(0.15)

    thread = threading.Thread(target=lambda: queue.process_jobs({"t": handler}, run_for=30))
    thread.start()
    thread.join(20)

    assert len(ran) == 1
    assert queue.counts() == {"completed": 1, "pending": 49}
