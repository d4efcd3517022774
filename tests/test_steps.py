"""Steps, checkpoints and progress: what a job has done stays done, whatever kills its worker."""

import asyncio
import contextvars
import gc
import os
import resource
import signal
import subprocess
import sys
import time
import weakref

import pytest

from dbbasic_queue import Discard, Queue, Snooze, current_job, journal
from dbbasic_queue.errors import BadArgument, NotStored
from dbbasic_queue.here import running
from dbbasic_queue.steps import (
    Progress,
    checkpoint,
    last_checkpoint,
    once,
    progress,
    progress_of,
    progressing,
    step,
)
from dbbasic_queue.steps.once import LONGEST, MOST


def forked(does):
    """Do it in a process of its own, and return how that ended."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            does()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def noted(name):
    """Append a name to the side file, and return it with its length."""
    with open("side", "a") as side:
        side.write(f"{name}\n")
    return name, len(name)


def side():
    with open("side") as file:
        return file.read().split()


def run(queue, handler, payload=None, **options):
    """Run one job of this handler; return its row."""
    id = queue.enqueue("t", payload)
    queue.process_jobs({"t": handler}, **options)
    return queue.get(id)


def again(queue, id, handler):
    """Run a job that has failed once more; return its row."""
    queue.retry(id)
    queue.process_jobs({"t": handler}, 1)
    return queue.get(id)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


FIVE = ["one", "two", "three", "four", "five"]


def killed_after_each(payload):
    """Five steps; the worker of attempt n is killed after step n."""
    results = []
    for number, name in enumerate(FIVE, 1):
        results.append(step(name, noted, name))
        if current_job().attempts == number:
            die()
    return results


# --- steps


@pytest.mark.soak
@pytest.mark.parametrize("sync", ["normal", "full"])
def test_a_step_never_runs_again_whichever_step_the_worker_is_killed_after(tmp_path, sync):
    queue = Queue("q.tsv", sync=sync)
    id = queue.enqueue("t", max_attempts=9)

    ends = [forked(lambda: queue.process_jobs({"t": killed_after_each})) for _ in range(6)]

    assert ends == [-signal.SIGKILL] * 5 + [0]
    assert side() == FIVE
    assert queue.get(id).result == [[name, len(name)] for name in FIVE]


@pytest.mark.soak
def test_in_a_pool_no_step_runs_again_either(queue):
    id = queue.enqueue("t", max_attempts=9)

    forked(lambda: tick_until_finished(queue, id, processes=2))

    assert side() == FIVE
    assert (queue.get(id).status, queue.get(id).attempts) == ("completed", 6)


def tick_until_finished(queue, id, **options):
    while not queue.get(id).finished:
        queue.process_jobs({"t": killed_after_each}, **options)


def test_a_snooze_between_steps_keeps_them(queue):
    def handler(payload):
        step("ask", noted, "ask")
        if step("answer", noted, "answer") and not last_checkpoint():
            checkpoint("asked")
            raise Snooze(0)
        return step("use", noted, "use")

    job = run(queue, handler)
    queue.process_jobs({"t": handler})

    assert job.status == "pending"
    assert side() == ["ask", "answer", "use"]
    assert queue.get(job.id).result == ["use", 3]


def test_a_result_is_the_same_the_first_time_and_after_a_crash(queue):
    seen = []

    def handler(payload):
        seen.append(step("give", lambda: {"pair": (1, 2), 3: "\t\n\x1b Zürich \\n"}))
        raise Discard

    job = run(queue, handler)
    again(queue, job.id, handler)

    assert seen == [{"pair": [1, 2], "3": "\t\n\x1b Zürich \\n"}] * 2


def test_a_result_that_is_changed_is_still_as_it_was_stored(queue):
    def handler(payload):
        step("list", list).append("mine")
        return step("list", list)

    assert run(queue, handler).result == []


def test_a_step_that_raises_is_called_again_also_in_the_same_run(queue):
    calls = []

    def flaky():
        calls.append("")
        if len(calls) < 3:
            raise ConnectionError(len(calls))
        return "there"

    def handler(payload):
        try:
            step("ask", flaky)
        except ConnectionError:
            return step("ask", flaky)

    job = run(queue, handler, max_attempts=1)
    assert (job.status, job.error) == ("failed", "ConnectionError: 2")
    assert again(queue, job.id, handler).status == "completed"

    assert len(calls) == 3


def test_the_same_step_twice_in_one_run_is_called_once(queue):
    def handler(payload):
        return [step("a", noted, "a"), step("a", noted, "a"), step("a", noted, name="a") is None]

    job = run(queue, handler, max_attempts=1)

    assert side() == ["a"]
    assert "step 'a' was given twice in one run, with another function or other arg" in job.error


@pytest.mark.parametrize(
    "first, second",
    [
        ((noted, "a"), (noted, "b")),
        ((noted, "a"), (str, "a")),
        ((lambda: 1,), (lambda: 1,)),
        ((str, object()), (str, object())),
    ],
)
def test_a_name_with_two_meanings_in_one_run_is_an_error_that_names_it(queue, first, second):
    def handler(payload):
        step("send", *first)
        step("send", *second)

    assert "BadArgument: step 'send' was given twice" in run(queue, handler, max_attempts=1).error


def test_an_argument_that_was_changed_meanwhile_is_another_one(queue):
    def handler(payload):
        names = ["a"]
        step("send", len, names)
        names.append("b")
        step("send", len, names)

    assert "'send' was given twice" in run(queue, handler, max_attempts=1).error


@pytest.mark.parametrize("result", [{1, 2}, float("nan"), b"x", object()])
def test_a_result_that_is_not_json_is_an_error_that_names_the_step(queue, result):
    job = run(queue, lambda payload: step("make it", lambda: result), max_attempts=1)

    assert "the result of step 'make it' is not JSON" in job.error


@pytest.mark.parametrize("name", [None, 3, "", b"a", "x" * 201])
def test_a_name_that_is_no_text_is_an_error(name):
    with pytest.raises(BadArgument, match="a step's name is a text"):
        step(name, list)


def test_what_is_no_function_is_an_error():
    with pytest.raises(BadArgument, match=r"'a', 'later'.*is no function"):
        step("a", "later")


def test_too_many_steps_and_too_long_ones_are_errors_that_say_the_remedy(queue, monkeypatch):
    monkeypatch.setattr(once, "MOST", 3)

    def many(payload):
        for n in range(4):
            step(f"n {n}", int, n)

    def long(payload):
        step("a", lambda: "x" * (LONGEST // 2))
        step("b", lambda: "x" * (LONGEST // 2))

    error = run(queue, many, max_attempts=1).error
    assert "step 'n 3' is one too many: a job has at most 3" in error
    assert "store a big result elsewhere" in run(queue, long, max_attempts=1).error
    assert MOST == 1000


def test_async_steps_give_something_to_await_each_time(queue):
    async def fetch(name):
        await asyncio.sleep(0)
        return noted(name)

    async def handler(payload):
        first = await step("direct", fetch, "direct")
        second = await step("by lambda", lambda: fetch("lambda"))
        plain = step("plain", noted, "plain")
        third = await asyncio.gather(*[step(f"side {n}", fetch, f"side{n}") for n in range(3)])
        if current_job().attempts == 1 and not last_checkpoint():
            checkpoint(True)
            raise Snooze(0)
        return [first, second, plain, *third]

    job = run(queue, handler)
    queue.process_jobs({"t": handler})

    assert sorted(side()) == ["direct", "lambda", "plain", "side0", "side1", "side2"]
    assert queue.get(job.id).result == [
        ["direct", 6], ["lambda", 6], ["plain", 5], ["side0", 5], ["side1", 5], ["side2", 5]
    ]  # fmt: skip


def test_jobs_side_by_side_keep_their_steps_apart(queue):
    async def work(n):
        await asyncio.sleep(0.001)
        return n

    async def handler(payload):
        return [await step("mine", work, payload), await step("again", work, -payload)]

    ids = queue.enqueue_many([("t", n) for n in range(1, 6)])

    queue.process_jobs({"t": handler}, concurrency=5)

    assert [queue.get(id).result for id in ids] == [[n, -n] for n in range(1, 6)]


def test_two_threads_of_a_handler_store_their_steps(queue):
    async def handler(payload):
        await asyncio.gather(*[
            asyncio.to_thread(step, f"in thread {n}", noted, f"t{n}") for n in range(20)
        ])  # fmt: skip
        raise Discard

    job = run(queue, handler)
    again(queue, job.id, handler)

    assert sorted(side()) == sorted(f"t{n}" for n in range(20))


def test_a_child_that_the_handler_forks_is_told_that_it_stores_nothing(queue):
    def in_child():
        for call in (lambda: step("a", noted, "a"), lambda: checkpoint(1), lambda: progress(1)):
            with pytest.raises(BadArgument, match="runs in another process"):
                call()

    def handler(payload):
        return forked(in_child), step("b", noted, "b")

    assert run(queue, handler).result == [0, ["b", 1]]
    assert side() == ["b"]


def test_outside_of_a_job_a_step_just_calls():
    async def soon():
        return (1,)

    assert step("a", noted, "a") == ["a", 1]
    assert step("a", noted, "b") == ["b", 1]
    assert asyncio.run(step("b", soon)) == [1]
    assert checkpoint(5) is progress(1, 2) is last_checkpoint() is None
    assert side() == ["a", "b"]


def test_a_retry_keeps_steps_and_a_copy_begins_anew(queue):
    def handler(payload):
        step("a", noted, "a")
        before = last_checkpoint()
        checkpoint("here")
        raise Discard(f"before: {before}")

    job = run(queue, handler)
    assert again(queue, job.id, handler).error == "before: here"
    [copy] = queue.retry(job.id, copy=True)
    queue.process_jobs({"t": handler})

    assert side() == ["a", "a"]
    assert queue.get(copy).error == "before: None"


@pytest.mark.parametrize(
    "cell", ["{", "[]", '{"job": 3, "steps": {}}', '{"job": "ID", "steps": []}', '{"job": "ID"}']
)
def test_a_job_whose_steps_were_spoilt_by_hand_runs_no_step(queue, cell):
    def handler(payload):
        step("a", noted, "a")
        raise Discard

    job = run(queue, handler)
    with queue.edit() as e:
        e.change(job, steps=cell.replace("ID", job.id))

    spoilt = again(queue, job.id, handler)

    assert f"BadRow: job {job.id}: its column steps cannot be read: " in spoilt.error
    assert side() == ["a"]


def test_a_layer_may_replace_the_cells_and_what_is_recorded(queue):
    seen = []

    def sealed(job, call_next):
        cell, before = job.cell("steps"), job.copy()
        if cell:
            job.alter({"steps": cell[::-1].encode()})
        job.run_with(job.payload, lambda **cells: before.record(
            **{name: text[::-1] for name, text in cells.items()}))  # fmt: skip
        try:
            return call_next(job)
        finally:
            seen.append(job.id)

    def handler(payload):
        step("a", noted, "a")
        progress(1, 10)
        progress(2, 10)
        if current_job().attempts == 1:
            raise RuntimeError
        return step("b", noted, "b")

    id = queue.enqueue("t", backoff="none")
    queue.process_jobs({"t": handler}, middleware=[sealed])
    row = queue.get(id)
    queue.process_jobs({"t": handler}, middleware=[sealed])

    assert side() == ["a", "b"]
    assert row.cell("steps").startswith("}}")
    assert row.cell("progress") == "%01 01/1"  # what was not written stays out: it is plain
    assert queue.get(id).status == "completed"


def test_a_disk_without_room_fails_a_step_and_a_checkpoint_and_not_progress(queue, monkeypatch):
    monkeypatch.setattr(journal, "_PAUSES", [0])
    monkeypatch.setattr(progressing, "PAUSE", 0)
    big = "x" * 200_000  # more than what is reserved

    def handler(payload):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(NotStored, match="step 'a' was not stored: File too large"):
                step("a", lambda: big)
            with pytest.raises(NotStored, match="its checkpoint was not stored"):
                checkpoint(big)
            for n in range(1500):
                progress(n, message="x" * 200)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return step("a", noted, "a")

    assert run(queue, handler, max_attempts=1).result == ["a", 1]


# --- checkpoints


def test_a_loop_goes_on_from_its_checkpoint_after_a_kill(queue):
    def handler(payload):
        for n in range(last_checkpoint() or 0, 100):
            if n == 57 and current_job().attempts == 1:
                die()
            if n % 10 == 9:
                noted(f"until{n}")
                checkpoint(n + 1)
        return last_checkpoint()

    id = queue.enqueue("t")

    ends = [forked(lambda: queue.process_jobs({"t": handler})) for _ in range(2)]

    assert ends == [-signal.SIGKILL, 0]
    assert side() == [f"until{n}" for n in range(9, 100, 10)]
    assert queue.get(id).result == 100


@pytest.mark.parametrize("data", [{1}, "x" * LONGEST])
def test_a_checkpoint_that_cannot_be_stored_says_so(data):
    with pytest.raises(BadArgument, match="the checkpoint is"):
        checkpoint(data)


def test_a_spoilt_checkpoint_is_an_error(queue):
    id = queue.enqueue("t", columns={"checkpoint": "57"})

    queue.process_jobs({"t": lambda payload: last_checkpoint()}, 1)

    assert "its column checkpoint cannot be read" in queue.get(id).error


# --- progress


def inode_and_bytes(queue):
    with open(queue.path, "rb") as file:
        return os.fstat(file.fileno()).st_ino, file.read()


@pytest.mark.soak
def test_progress_is_seen_at_once_and_does_not_touch_the_file(queue):
    seen = []

    def handler(payload):
        before = inode_and_bytes(queue)
        progress(50, 200, "reading rows")
        seen.append(queue.get(current_job().id))
        seen.append(inode_and_bytes(queue) == before)
        words = ("show", current_job().id), ("list",)
        for command in words:
            told = subprocess.run(
                [sys.executable, "-m", "dbbasic_queue", *command, "--file", queue.path],
                env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
                capture_output=True, text=True,
            )  # fmt: skip
            seen.append("50/200 25% reading rows" in told.stdout)

    job = run(queue, handler, max_attempts=1)

    assert seen[0].cell("progress") == "50/200 25% reading rows"
    assert progress_of(seen[0]) == Progress(50, 200, 25, "reading rows")
    assert seen[1:] == [True] * 3
    assert progress_of(job) == (50, 200, 25, "reading rows")


@pytest.mark.parametrize(
    "said, words, view",
    [
        ((3,), "3", (3, None, None, "")),
        ((3, None, "files"), "3 files", (3, None, None, "files")),
        ((0, 0), "0/0 100%", (0, 0, 100, "")),
        ((7, 5, "over"), "7/5 100% over", (7, 5, 100, "over")),
        ((0.5, 1), "0.5/1 50%", (0.5, 1, 50, "")),
        ((1e20, 1e22, "a\tb\nc"), "1e+20/1e+22 1% a\tb\nc", (1e20, 1e22, 1, "a\tb\nc")),
        ((199, 200, "x" * 500), "199/200 99% " + "x" * 200, (199, 200, 99, "x" * 200)),
    ],
)
def test_progress_is_words_that_come_back(queue, said, words, view):
    job = run(queue, lambda payload: progress(*said))

    assert job.cell("progress") == words
    assert progress_of(job) == view


@pytest.mark.parametrize("said", [(-1,), ("5",), (True,), (float("nan"),), (1, "2"), (1, 2, 3)])
def test_progress_that_is_no_number_is_an_error(said):
    with pytest.raises(BadArgument, match="progress\\("):
        progress(*said)


def test_progress_that_was_never_said_or_is_spoilt_is_none(queue):
    silent, spoilt = queue.enqueue("t"), queue.enqueue("t", columns={"progress": "half"})

    queue.process_jobs({"t": len})

    assert progress_of(queue.get(silent)) is progress_of(queue.get(spoilt)) is None


def test_a_copy_has_no_progress_until_it_says_some(queue):
    def handler(payload):
        progress(1, 2)
        raise Discard

    job = run(queue, handler)
    [copy] = queue.retry(job.id, copy=True)

    assert (progress_of(job).percent, progress_of(queue.get(copy))) == (50, None)


@pytest.mark.parametrize("total", [100_000, None])
def test_progress_said_very_often_is_written_seldom_and_the_last_one_stays(queue, total):
    told = []

    def handler(payload):
        for n in range(50_001):
            progress(n, total)
        raise Discard

    begun = time.monotonic()
    job = run(queue, handler, listeners=[lambda event, job: told.append(event)])

    assert 1 <= told.count("progressed") <= 2 + 10 * (time.monotonic() - begun)
    assert progress_of(job).done == 50_000


def test_the_total_that_is_reached_is_written_once_at_once(queue):
    seen = []

    def handler(payload):
        progress(1, 2)
        for _ in range(100):
            progress(2, 2)
        seen.append(progress_of(queue.get(current_job().id)).percent)

    told = []
    run(queue, handler, listeners=[lambda event, job: told.append(event)])

    assert seen == [100]
    assert told.count("progressed") == 2


@pytest.mark.soak
def test_nothing_is_kept_of_a_run_that_is_over(queue):
    kept = []

    def handler(payload):
        job = current_job()
        kept.append(weakref.ref(running.get()))
        step("a", lambda: job.payload)
        checkpoint(1)
        progress(1)

    run(queue, handler)
    gc.collect()

    assert kept[0]() is None


def test_what_outlives_the_job_stores_nothing_for_the_next_one(queue):
    late = []

    def handler(payload):
        if payload == 1:
            late.append(contextvars.copy_context())

    run(queue, handler, 1)
    with pytest.raises(BadArgument, match="does not run any more"):
        late[0].run(checkpoint, 1)
