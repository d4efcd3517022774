"""`concurrency=n`: async handlers side by side in one worker."""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import threading
import time

import pytest

from dbbasic_queue import Queue, QueueError, Snooze, current_job, loop


async def nap(payload):
    await asyncio.sleep(payload)
    return current_job().id


def test_as_many_as_asked_run_side_by_side_and_each_knows_its_own_job(queue):
    ids = queue.enqueue_many([("nap", 0.1)] * 20)
    before = time.monotonic()

    queue.process_jobs({"nap": nap}, concurrency=20)

    assert time.monotonic() - before < 1  # 2 s one after the other
    assert [queue.get(id).result for id in ids] == ids


def test_no_more_than_asked_run_side_by_side(queue):
    running, most = set(), []

    async def count(payload):
        running.add(payload)
        most.append(len(running))
        await asyncio.sleep(0.001)
        running.remove(payload)

    queue.enqueue_many([("count", number) for number in range(60)])
    queue.process_jobs({"count": count}, concurrency=7)

    assert max(most) == 7
    assert queue.counts() == {"completed": 60}


def test_a_job_that_is_added_meanwhile_runs_beside_those_that_run(queue):
    order = []

    async def long(payload):
        queue.enqueue("short")
        while "short" not in order:
            await asyncio.sleep(0.01)
        order.append("long")

    async def short(payload):
        order.append("short")

    queue.enqueue("long", timeout=10)
    queue.process_jobs({"long": long, "short": short}, concurrency=2)

    assert order == ["short", "long"]


@pytest.mark.soak
def test_a_time_out_cancels_the_handler_and_no_other(queue):
    cleaned = []

    async def hang(payload):
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(current_job().id)

    victim = queue.enqueue("hang", timeout=0.1, max_attempts=1)
    other = queue.enqueue("nap", 0.3)

    queue.process_jobs({"hang": hang, "nap": nap}, concurrency=2)

    job = queue.get(victim)
    assert (job.status, job.error, cleaned) == ("failed", "timed out after 0.1 s", [victim])
    assert queue.get(other).status == "completed"


def test_each_way_to_end_is_recorded_as_without_concurrency(queue):
    async def end(payload):
        await asyncio.sleep(0)
        if payload == "snooze":
            raise Snooze(60)
        if payload == "exit":
            raise SystemExit(3)
        if payload == "cancel":
            asyncio.current_task().cancel()
            await asyncio.sleep(1)
        raise ValueError(payload)

    words = ["snooze", "exit", "cancel", "boom"]
    ids = [queue.enqueue("end", word, max_attempts=1) for word in words]
    queue.process_jobs({"end": end}, concurrency=4)

    found = [(job.status, job.attempts, job.error) for job in map(queue.get, ids)]
    assert found[0] == ("pending", 0, None)
    assert found[1] == ("failed", 1, "SystemExit: 3")
    assert found[2] == ("failed", 1, "asyncio.exceptions.CancelledError")
    assert found[3] == ("failed", 1, "ValueError: boom")


def test_a_job_that_is_stopped_before_its_first_step_goes_back(queue):
    asked = []

    class Settings(dict):
        def get(self, key, default=None):
            if key == "timeout" and asked == ["now"]:  # between the start line and the first step
                asked.append(os.kill(os.getpid(), signal.SIGTERM))
                time.sleep(0.11)
            return default

    async def job(payload):
        if payload:
            asked.append("now")
            await asyncio.sleep(10)

    queue.enqueue_many([("t", 0)] * 5 + [("t", 1)] + [("t", 2)] * 5)
    with pytest.raises(SystemExit):
        queue.process_jobs({"t": job}, concurrency=2, grace=0, settings={"default": Settings()})

    assert asked == ["now", None]
    assert queue.counts("status", "attempts") == {("completed", 1): 5, ("pending", 0): 6}


def test_what_runs_goes_on_while_somebody_else_holds_the_lock(tmp_path):
    queue = Queue(tmp_path / "queue.tsv", lock_timeout=0.01)

    async def hold(payload):
        with open(queue.path + ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.utime(queue.path)  # there may be more to claim
            await asyncio.sleep(0.05)

    ids = queue.enqueue_many([("hold", None), ("nap", 0.02), ("nap", 0.1)])
    queue.process_jobs({"hold": hold, "nap": nap}, concurrency=3)

    found = [queue.get(id) for id in ids]
    assert [(job.status, job.attempts) for job in found] == [("completed", 1)] * 3


async def stop_the_loop(payload):
    asyncio.get_running_loop().stop()


async def leave_a_callback_that_exits(payload):
    asyncio.get_running_loop().call_soon(sys.exit, 3)


async def cancel_who_runs_us(payload):
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if "work" in repr(task.get_coro()):
            task.cancel()


async def leave_a_task(payload):
    async def forever():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    asyncio.create_task(forever())  # noqa: RUF006 (nobody keeps it, on purpose)


async def leave_a_generator(payload):
    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(60)

    leave_a_generator.kept = numbers()
    await leave_a_generator.kept.asend(None)


async def leave_a_thread(payload):
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.5)


@pytest.mark.parametrize(
    "bad",
    [
        stop_the_loop,
        leave_a_callback_that_exits,
        cancel_who_runs_us,
        leave_a_task,
        leave_a_generator,
        leave_a_thread,
    ],
)
def test_p14_what_a_handler_does_to_the_event_loop_costs_no_other_job(queue, bad, monkeypatch):
    monkeypatch.setattr(loop, "CUT_OFF", 0.05)
    ids = queue.enqueue_many([("nap", 0.05), ("bad", None), ("nap", 0.05), ("nap", 0)])
    begun = time.monotonic()

    queue.process_jobs({"nap": nap, "bad": bad}, concurrency=3)

    assert [(queue.get(id).status, queue.get(id).attempts) for id in ids] == [("completed", 1)] * 4
    assert time.monotonic() - begun < 0.4


def test_a_plain_handler_runs_too_with_its_time_limit(queue):
    slow = queue.enqueue("slow", timeout=0.1, max_attempts=1)
    others = queue.enqueue_many([("nap", 0), ("plain", 7)])

    handlers = {"slow": lambda payload: time.sleep(9), "plain": lambda payload: payload, "nap": nap}
    queue.process_jobs(handlers, concurrency=3)

    assert queue.get(slow).error == "timed out after 0.1 s"
    assert [queue.get(id).result for id in others] == [others[0], 7]


def test_async_layers_wrap_async_and_plain_handlers_with_and_without_concurrency(queue):
    seen = []

    async def layer(job, call_next):
        seen.append(("before", job.type))
        result = await call_next(job)
        seen.append(("after", job.type))
        return [result]

    for concurrency in (1, 3):
        ids = queue.enqueue_many([("nap", 0), ("plain", 7)])
        handlers = {"nap": nap, "plain": lambda payload: payload}
        queue.process_jobs(handlers, concurrency=concurrency, middleware=[layer])
        assert [queue.get(id).result for id in ids] == [[ids[0]], [7]]

    assert sorted(seen).count(("after", "nap")) == 2


def test_a_plain_layer_sees_the_result_of_an_async_handler_and_is_refused_with_concurrency(queue):
    id = queue.enqueue("nap", 0)
    handlers, layers = {"nap": nap}, [lambda job, call_next: [call_next(job)]]

    with pytest.raises(QueueError, match="needs `async def` layers"):
        queue.process_jobs(handlers, concurrency=2, middleware=layers)
    queue.process_jobs(handlers, middleware=layers)

    assert queue.get(id).result == [id]


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", None, True])
def test_a_concurrency_that_is_no_number_is_refused(queue, bad):
    queue.enqueue("nap", 0)

    with pytest.raises(QueueError, match="concurrency="):
        queue.process_jobs({"nap": nap}, concurrency=bad)


def test_what_runs_side_by_side_is_seen_as_running(queue):
    seen = []

    async def look(payload):
        await asyncio.sleep(0.05)
        (worker,) = queue.workers()
        seen.append((queue.counts(), len(worker.jobs)))
        await asyncio.sleep(0.05)

    queue.enqueue_many([("look", None)] * 3)
    queue.process_jobs({"look": look}, concurrency=3)

    assert seen == [({"processing": 3}, 3)] * 3


def test_p12_a_killed_worker_costs_each_job_that_ran_beside_one_attempt(queue, run_python):
    running = queue.enqueue_many([("nap", 60)] * 3)
    child = run_python("""
        import asyncio
        from dbbasic_queue import Queue
        Queue("data/queue.tsv").process_jobs({"nap": lambda p: asyncio.sleep(p)}, concurrency=3)
    """)
    until(lambda: sum(len(one.jobs) for one in queue.workers()) == 3)

    child.kill()
    child.wait()
    queue.process_jobs({"other": nap})

    found = [queue.get(id) for id in running]
    assert [(job.status, job.attempts) for job in found] == [("pending", 1)] * 3
    assert {job.error for job in found} == {"worker died"}


def test_p16_at_a_second_sigterm_all_of_them_go_back_uncharged(queue, run_python):
    ids = queue.enqueue_many([("nap", 60)] * 5)
    child = run_python("""
        import asyncio
        from dbbasic_queue import Queue
        Queue("data/queue.tsv").process_jobs({"nap": lambda p: asyncio.sleep(p)}, concurrency=3)
    """)
    until(lambda: sum(len(one.jobs) for one in queue.workers()) == 3)

    child.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert child.poll() is None  # what runs may end
    child.send_signal(signal.SIGTERM)

    assert child.wait(timeout=10) == 143
    assert {(queue.get(id).status, queue.get(id).attempts) for id in ids} == {("pending", 0)}


@pytest.mark.soak
def test_an_async_handler_that_ignores_its_end_takes_the_process_and_only_it_is_charged(
    queue, run_python
):
    victim = queue.enqueue("ignore", timeout=0.1)
    beside = queue.enqueue("nap", 60)
    child = run_python("""
        import asyncio
        from dbbasic_queue import Queue, run
        run.CUT_OFF = 0.2
        import dbbasic_queue.held
        dbbasic_queue.held.CUT_OFF = 0.2
        async def ignore(payload):
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
        handlers = {"nap": lambda p: asyncio.sleep(p), "ignore": ignore}
        Queue("data/queue.tsv").process_jobs(handlers, concurrency=2)
    """)

    assert child.wait(timeout=10) == 75
    queue.process_jobs({"other": nap})

    assert (queue.get(victim).status, queue.get(victim).attempts) == ("pending", 1)
    assert queue.get(victim).error.startswith("timed out after 0.1 s")
    assert (queue.get(beside).status, queue.get(beside).attempts) == ("pending", 0)


def test_p27_the_workers_file_stays_short_while_jobs_run_without_a_pause(queue):
    stop = threading.Event()
    sizes = []

    async def forever(payload):
        while not stop.is_set():
            await asyncio.sleep(0.01)

    async def big(payload):
        folder = queue.path + ".d/workers"
        sizes.append(max(os.path.getsize(os.path.join(folder, one)) for one in os.listdir(folder)))
        if payload == 59:
            stop.set()
        else:
            queue.enqueue("big", payload + 1)
        return "x" * 50_000

    queue.enqueue_many([("forever", None), ("big", 0)])
    queue.process_jobs({"forever": forever, "big": big}, concurrency=2)

    assert queue.counts() == {"completed": 61}
    assert max(sizes) < 1_500_000 < 60 * 50_000
    assert not os.path.exists(queue.path + ".d/workers")


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.soak
def test_an_idle_worker_with_concurrency_takes_what_comes(queue):
    def add():
        for _ in range(3):
            queue.enqueue("nap", 0.05)
            time.sleep(0.05)

    other = threading.Thread(target=add)
    other.start()
    Queue(queue.path).process_jobs({"nap": nap}, concurrency=2, run_for=0.5)
    other.join()

    assert queue.counts() == {"completed": 3}


@pytest.mark.soak
def test_what_a_handler_keeps_from_job_to_job_works_in_later_batches(queue):
    kept = {}

    async def keep(payload):
        lock = kept.setdefault("lock", asyncio.Lock())
        kept.setdefault("loop", asyncio.get_running_loop())
        async with lock:
            await asyncio.sleep(0.001)
        assert kept["loop"] is asyncio.get_running_loop()

    def more():
        for _ in range(3):
            queue.enqueue_many([("keep", None)] * 5)
            time.sleep(0.15)

    other = threading.Thread(target=more)
    other.start()
    queue.process_jobs({"keep": keep}, concurrency=3, run_for=0.7, max_attempts=1)
    other.join()

    assert queue.counts() == {"completed": 15}
