"""Which event is told of what, to whom: once each, with the job as it is then; and two listeners
made of functions."""

import asyncio
import os
import signal
from datetime import timedelta

import pytest
from freezegun import freeze_time

from dbbasic_queue import Discard, Queue, Snooze, current_job
from dbbasic_queue.errors import BadArgument, Killed
from dbbasic_queue.events import on_failure, only

MODES = {"plain": {}, "side by side": {"concurrency": 3}, "pool": {"processes": 2}}


def teller(name):
    """A listener that any process may be told by: a line in a file for each event."""

    def listener(event, job):
        line = f"{name} {job.type}: {event} {job.status} {job.attempts}\n"
        fd = os.open("told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, line.encode())
        os.close(fd)

    return listener


def told():
    """Return what was told since the last call, by whom and type."""
    with open("told") as lines:
        found = {}
        for line in lines:
            whom, _, what = line.rstrip("\n").partition(": ")
            found.setdefault(whom, []).append(what)
    os.unlink("told")
    return found


@pytest.fixture
def queue(tmp_path):
    return Queue(tmp_path / "queue.tsv", sync="off", listeners=[teller("queue")])


def fail(payload):
    raise RuntimeError("busy")


def discard(payload):
    raise Discard("no")


def later(payload):
    raise Snooze(60)


def says(payload):
    current_job().record(mine="half")


def end(payload):
    raise Killed("not wanted any more")


async def kill(path):
    Queue(path, sync="off").kill(current_job().id)
    await asyncio.sleep(5)


HANDLERS = {
    "good": str,
    "says": says,
    "again": fail,
    "last": fail,
    "gone": discard,
    "later": later,
    "end": end,
    "kill": kill,
}
STARTED = "started processing 1"
ENDS = {
    "good": [STARTED, "completed completed 1"],
    "says": [STARTED, "progressed processing 1", "completed completed 1"],
    "again": [STARTED, "retried pending 1"],
    "last": [STARTED, "failed failed 1"],
    "gone": [STARTED, "failed failed 1"],
    "later": [STARTED, "snoozed pending 0"],
    "end": [STARTED, "cancelled cancelled 1"],
    "kill": [STARTED, "cancelled cancelled 1"],
    "child": ["cancelled cancelled 0"],  # it waits for one that fails
}


@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES)
def test_each_end_of_a_run_is_told_once_to_all_in_every_mode(queue, mode):
    for kind in HANDLERS:
        job_id = queue.enqueue(
            kind, queue.path if kind == "kill" else None, max_attempts=1 if kind == "last" else 3
        )
        if kind == "last":
            queue.enqueue("child", after=job_id)

    queue.process_jobs(HANDLERS, listeners=[teller("worker")], **MODES[mode])

    expected = {f"worker {kind}": events for kind, events in ENDS.items()}
    for kind, events in ENDS.items():
        expected[f"queue {kind}"] = ["enqueued pending 0", *events]
    assert told() == expected


def test_each_verb_is_told_to_the_queues_listeners_once(queue):
    parent, other = queue.enqueue_many([("parent", 1), ("other", 2)])
    queue.enqueue("child", after=parent)
    told()

    queue.cancel(parent)
    assert told() == {
        "queue parent": ["cancelled cancelled 0"],
        "queue child": ["cancelled cancelled 0"],
    }
    queue.retry(parent)
    assert told() == {
        "queue parent": ["retried pending 0"],
        "queue child": ["retried pending 0"],
    }
    queue.cancel(other)
    told()
    queue.retry(other, copy=True)
    assert told() == {"queue other": ["retried pending 0"]}
    with freeze_time("2040-01-01"):
        queue.archive(60)
    assert told() == {"queue other": ["archived cancelled 0"]}
    queue.cancel(parent)
    told()
    queue.purge(type="child")
    assert told() == {"queue child": ["purged cancelled 0"]}


@pytest.mark.parametrize(("most", "event"), [(1, "recovered failed 1"), (3, "recovered pending 1")])
def test_what_a_dead_worker_left_is_told_by_the_next(queue, run_python, most, event):
    queue.enqueue_many([("t", n) for n in range(3)])
    queue.enqueue_many([("u", n) for n in range(1)])
    code = f"""
        import os
        from dbbasic_queue import Queue
        ran = []

        def handler(payload):
            ran.append(payload)
            if payload == 2:
                os.kill(os.getpid(), 9)

        Queue({queue.path!r}, sync="off").process_jobs({{"t": handler}}, {most})
    """
    assert run_python(code).wait() == -signal.SIGKILL
    told()

    queue.process_jobs({}, most, listeners=[teller("worker")])

    events = told()
    assert events["worker t"] == events["queue t"]
    assert event in events["worker t"]
    assert events["worker t"].count("completed completed 1") <= 2
    assert queue.counts("status").get("completed") == 2


def test_a_snooze_that_a_dead_worker_had_recorded_is_told_as_one(queue, run_python):
    first = queue.enqueue("t", "later")
    queue.process_jobs({"t": fail}, backoff="none")
    queue.enqueue("t", "warm", priority=-1)
    queue.enqueue("t", "die", priority=1)
    code = f"""
        import os
        from dbbasic_queue import Queue, Snooze

        def handler(payload):
            if payload == "die":
                os.kill(os.getpid(), 9)
            if payload == "later":
                raise Snooze(60)

        Queue({queue.path!r}, sync="off").process_jobs({{"t": handler}})
    """
    assert run_python(code).wait() == -signal.SIGKILL
    assert queue.get(first).status == "pending"
    told()

    queue.process_jobs({})

    assert sorted(told()["queue t"]) == ["recovered pending 1", "snoozed pending 1"]
    assert queue.get(first).attempts == 1


@pytest.mark.parametrize(("by", "event"), [("archive", "archived"), ("purge", "purged")])
def test_the_upkeep_tells_the_queues_listeners_and_the_workers(queue, by, event):
    old, new = queue.enqueue_many([("good", 1), ("last", 2)])
    queue.process_jobs(HANDLERS, 1)
    told()

    with freeze_time(timedelta(hours=5), tick=True):
        queue.process_jobs(
            HANDLERS, listeners=[teller("worker")], keep={"completed": "1h"}, keep_by=by
        )

    assert told() == {
        "queue good": [f"{event} completed 1"],
        "worker good": [f"{event} completed 1"],
    }
    assert [job.id for job in queue.jobs()] == [new]
    assert (queue.get(old) is None) == (by == "purge")


# --- listeners made of functions


def test_on_failure_is_called_once_at_each_final_failure(queue):
    called = []
    again = queue.enqueue("again", max_attempts=2)
    gone = queue.enqueue("gone")
    queue.enqueue("good")
    listeners = [on_failure(lambda job: called.append((job.id, job.error)))]

    queue.process_jobs(HANDLERS, listeners=listeners, backoff="none")
    assert called == [(gone, "no")]
    queue.process_jobs(HANDLERS, listeners=listeners, backoff="none")
    assert called[1:] == [(again, "RuntimeError: busy")]
    queue.retry(gone)
    queue.process_jobs(HANDLERS, listeners=listeners)

    assert called[2:] == [(gone, "no")]


@pytest.mark.parametrize(("most", "calls"), [(1, 1), (2, 0)])
def test_on_failure_hears_of_a_worker_that_died_in_the_last_attempt(queue, run_python, most, calls):
    called = []
    queue.enqueue("die")
    code = f"""
        import os
        from dbbasic_queue import Queue
        handlers = {{"die": lambda payload: os.kill(os.getpid(), 9)}}
        Queue({queue.path!r}, sync="off").process_jobs(handlers, {most})
    """
    assert run_python(code).wait() == -signal.SIGKILL

    queue.process_jobs({}, listeners=[on_failure(called.append)])

    assert [job.status for job in called] == ["failed"] * calls


def test_only_passes_on_what_is_asked_for(queue):
    heard = []
    queue.enqueue("good", queue="a")
    queue.enqueue("good", queue="b")
    queue.enqueue("says", queue="a")

    def hear(event, job):
        heard.append((event, job.type, job.queue))

    queue.process_jobs(HANDLERS, listeners=[only(hear, "completed", type="good", queue="a")])
    assert heard == [("completed", "good", "a")]

    queue.enqueue("good", queue="b")
    queue.process_jobs(HANDLERS, listeners=[only(hear, queue="b")])
    assert heard[1:] == [("started", "good", "b"), ("completed", "good", "b")]


@pytest.mark.parametrize("word", ["faild", "recoverd", ""])
def test_a_word_that_is_no_event_is_an_error(word):
    with pytest.raises(BadArgument, match=r"none of enqueued, .*, recovered"):
        only(print, "failed", word)


@pytest.mark.parametrize("call", [on_failure, only])
def test_a_listener_of_no_function_is_an_error(call):
    with pytest.raises(BadArgument, match="is no function"):
        call(None)
