"""Rows that an engine elsewhere has: claimed in order, left alone here, and taken back."""

import logging
import math
import time

import pytest

from dbbasic_queue import QueueError
from dbbasic_queue.doctor import examine
from dbbasic_queue.engine import Engine, Options, Wanted, as_cells, as_job, marked, remove, run
from dbbasic_queue.kinds import Kinds
from dbbasic_queue.stats import stats
from dbbasic_queue.why import why


def options(**given):
    usual = dict.fromkeys(
        "queues max_jobs name timeout backoff max_workers grace memory settings".split()
    )
    usual |= {"max_attempts": 3, "run_for": math.inf, "processes": 0, "concurrency": 1}
    usual |= dict.fromkeys(("middleware", "listeners", "own_listeners", "admit"), ())
    return Options(**usual | {"handlers": {"t": str}} | given)


@pytest.fixture
def engine(queue):
    return Engine(queue, "far", options())


def finished(job, **cells):
    made = {"status": b"completed", "attempts": b"1", "result": b'"done"'} | cells
    return {job.id: (job.worker, job.attempts + 1, made)}


def test_due_jobs_are_claimed_in_order_and_bear_the_engine_s_mark(engine, queue):
    late, soon = queue.enqueue("t", priority=5), queue.enqueue("t", priority=-5)
    queue.enqueue("t", run_at=time.time() + 99)
    queue.enqueue("other")

    claimed = engine.turn({}, 10)

    assert [job.id for job in claimed] == [soon, late]
    assert {job.worker.partition(".")[0] for job in engine.held()} == {"@far"}
    assert queue.counts() == {"processing": 2, "pending": 2}


def test_a_tick_here_leaves_them_alone_and_none_calls_them_stuck(engine, queue):
    id = queue.enqueue("t")
    [job] = engine.turn({}, 10)

    queue.process_jobs({"t": str})

    seen = queue.get(id)
    assert (seen.status, seen.worker) == ("processing", job.worker)
    assert Kinds(queue).of(seen) == "processing"
    assert stats(queue_file=queue)["stuck"] == 0
    assert [one for one in examine(queue) if id in one.text] == []
    assert [text.split(",")[0] for text in why(id, queue)][-1:] == ["handed over: to @far"]
    assert not queue.cancel(id)
    assert not queue.kill(id)


def test_outcomes_and_new_claims_are_one_edit_and_listeners_hear_of_them(queue):
    told = []
    engine = Engine(queue, "far", options(listeners=[lambda event, job: told.append(event)]))
    first, then = queue.enqueue("t"), queue.enqueue("t")
    after = queue.enqueue("t", after=first)
    [job] = engine.turn({}, 1)

    claimed = engine.turn(finished(job), 10)

    assert queue.get(first).result == "done"
    assert [job.id for job in claimed] == [then, after]
    assert told == ["completed"]


def test_an_outcome_for_an_older_claim_changes_nothing(engine, queue, caplog):
    id = queue.enqueue("t")
    [job] = engine.turn({}, 1)
    mark, older = job.worker, finished(job)
    engine.turn(finished(job, status=b"pending", worker=b"", attempts=b"0"), 0)
    [again] = engine.turn({}, 1)

    with caplog.at_level(logging.WARNING):
        engine.turn(older, 0)

    assert queue.get(id).worker == again.worker != mark
    assert "its outcome is dropped" in caplog.text


def test_one_forwarder_at_a_time(engine, queue):
    queue.enqueue("t")

    assert engine.enter()
    assert not Engine(queue, "far", options()).enter()
    engine.leave()
    assert Engine(queue, "far", options()).enter()


def test_a_run_over_there_ends_as_one_here_would(queue):
    def handler(payload):
        if payload == "late":
            while True:
                time.sleep(0.01)
        return payload

    ended = {}
    for payload in ("fine", "late", {1, 2}):
        id = queue.enqueue("t", "fine")
        job = as_job(as_cells(queue.get(id)))
        handlers = {"t": lambda _, payload=payload: handler(payload)}
        cells = run(job, options(handlers=handlers, timeout=0.2, max_attempts=1))
        ended[str(payload)] = cells["status"], cells.get("result") or cells["error"]

    assert ended["fine"] == (b"completed", b'"fine"')
    assert ended["late"] == (b"failed", b"timed out after 0.2 s")
    assert ended[str({1, 2})][0] == b"failed"
    with pytest.raises(QueueError, match="are no cells of a job"):
        as_job({"id": "x"})


def test_what_leaves_for_good_is_marked_then_removed_and_the_rest_is_counted(queue):
    gone, later = queue.enqueue("t"), queue.enqueue("t", run_at=time.time() + 99)
    parent = queue.enqueue("t")
    child = queue.enqueue("t", after=parent)
    other = queue.enqueue("other")
    wanted = Wanted({"t"}, None)

    assert wanted.count(queue) == {"t": 2}
    taken = wanted.take(queue, "@away.1", 10)
    assert [job.id for job in taken] == [gone, later]
    assert sum(wanted.left.values()) == 2
    queue.process_jobs({"t": str, "other": str})
    assert remove(queue, marked(queue, "@away.")) == 2

    assert {job.id for job in queue.jobs()} == {parent, child, other}
