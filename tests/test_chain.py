"""Chains: one job after the other, with the result of the one before; to the end, or a failure."""

import re

import pytest

from dbbasic_queue import batch, current_job
from dbbasic_queue.chain import (
    append,
    cancel_chain,
    chains,
    enqueue_chain,
    get_chain,
    previous_result,
    previous_results,
)
from dbbasic_queue.errors import BadArgument, UnknownJob


def boom(payload):
    raise ValueError("boom")


def double(payload):
    return 2 * (payload if payload is not None else previous_result())


HANDLERS = {"double": double, "bad": boom, "say": lambda payload: payload}
CALLBACKS = {"then": ("say", "then"), "catch": ("say", "catch"), "finally_": ("say", "last")}


def chain(queue, *steps, **options):
    return enqueue_chain([(type, None) for type in steps], queue_file=queue, **options)


def ends(queue):
    return {job.payload: job.status for job in queue.jobs(type="say")}


def test_each_step_runs_after_the_one_before_and_reads_its_result(queue):
    made = enqueue_chain([("double", 1), ("double",), ("double",)], queue_file=queue)

    queue.process_jobs(HANDLERS)

    assert [job.result for job in made.jobs()] == [2, 4, 8]
    assert get_chain(made.id, queue_file=queue).ok


def test_a_chain_tells_its_step_and_its_progress(queue):
    made = enqueue_chain(
        [("say", 1), ("double", 2), ("say", 3)], name="ETL Pipeline", queue_file=queue
    )
    begun = get_chain(made.id, queue_file=queue)
    queue.process_jobs(HANDLERS, max_jobs=1)
    then = get_chain(made.id, queue_file=queue)
    queue.process_jobs(HANDLERS)
    at_last = get_chain(made.id, queue_file=queue)

    told = [(one.current_step, one.current_type, one.progress) for one in (begun, then, at_last)]
    assert told == [(1, "say", 0), (2, "double", 33), (3, "say", 100)]
    assert at_last.name == "ETL Pipeline"
    assert (made.current_step, made.total) == (1, 3)


def test_a_failure_ends_the_chain_and_catch_reads_what_failed(queue):
    def catch(payload):
        return [(job.type, job.error) for job in batch.failed_jobs()]

    enqueue_chain([("say", 1), ("bad", 2), ("say", 3)], catch=("catch", None), queue_file=queue)
    queue.process_jobs(HANDLERS | {"catch": catch}, max_attempts=1)

    jobs = list(queue.jobs())
    assert [job.status for job in jobs] == ["completed", "failed", "cancelled", "completed"]
    assert jobs[3].result == [["bad", "ValueError: boom"]]
    assert "never ok" in jobs[2].error


@pytest.mark.parametrize(
    "step,then,catch", [("double", "completed", "cancelled"), ("bad", "cancelled", "completed")]
)
def test_what_follows_a_chain_is_as_it_ended(queue, step, then, catch):
    enqueue_chain([("double", 1), (step,)], queue_file=queue, **CALLBACKS)

    queue.process_jobs(HANDLERS, max_attempts=1)

    assert ends(queue) == {"then": then, "catch": catch, "last": "completed"}


def test_a_chain_that_was_mended_goes_on_where_it_failed(queue):
    made = enqueue_chain([("bad", 1), ("double",)], queue_file=queue)
    queue.process_jobs(HANDLERS, max_attempts=1)

    queue.retry(next(made.jobs()).id)
    queue.process_jobs(HANDLERS | {"bad": lambda payload: 5})

    assert [job.result for job in made.jobs()] == [5, 10]


def test_steps_are_added_to_a_chain_that_runs(queue):
    def grow(payload):
        return append(current_job().group, [("double",), ("double",)]) and 3

    made = enqueue_chain([("grow", None), ("double",)], queue_file=queue, **CALLBACKS)
    queue.process_jobs(HANDLERS | {"grow": grow})

    assert [job.result for job in made.jobs()] == [3, 6, 12, 24]
    assert ends(queue)["then"] == "completed"


def test_nothing_is_added_to_a_chain_that_has_finished_or_is_none(queue):
    made = chain(queue, "bad", "double")
    queue.process_jobs(HANDLERS, max_attempts=1)

    with pytest.raises(BadArgument, match="has finished"):
        append(made.id, [("double",)], queue_file=queue)
    with pytest.raises(UnknownJob, match="chain-0"):
        append("chain-0", [("double",)], queue_file=queue)
    assert get_chain("chain-0", queue_file=queue) is None


def test_a_cancelled_chain_runs_only_what_comes_finally(queue):
    made = enqueue_chain([("double", 1), ("double",)], queue_file=queue, **CALLBACKS)

    cancelled = cancel_chain(made.id, queue_file=queue)
    queue.process_jobs(HANDLERS)

    assert cancelled == 2
    assert ends(queue) == {"then": "cancelled", "catch": "cancelled", "last": "completed"}


def test_a_step_may_wait_for_other_jobs_too_and_have_an_id_of_its_own(queue):
    first = queue.enqueue("say", 3)
    own = queue.new_id()
    made = enqueue_chain(
        [
            {"job_type": "double", "after": first, "id": own},
            {"job_type": "sum", "after": [first]},
        ],
        queue_file=queue,
    )

    queue.process_jobs(HANDLERS | {"sum": lambda payload: sum(previous_results())})

    assert [job.result for job in made.jobs()] == [6, 9]
    assert next(made.jobs()).id == own


def test_the_result_before_is_the_step_s_also_where_it_waits_for_other_jobs(queue):
    other = queue.enqueue("say", "other")
    made = enqueue_chain(
        [("say", 1), {"job_type": "double", "after": other}, {"job_type": "grow", "after": other}],
        queue_file=queue,
    )

    def grow(payload):
        append(current_job().group, [{"job_type": "double", "after": other}])
        return previous_result()

    queue.process_jobs(HANDLERS | {"grow": grow})

    assert [job.result for job in made.jobs()] == [1, 2, 2, 4]


def test_the_result_before_is_asked_for_where_there_is_one(queue):
    queue.enqueue("double")
    gone = queue.enqueue("say", after=f"any:{queue.enqueue('say')}")

    queue.process_jobs(HANDLERS, max_attempts=1)

    first = next(queue.jobs())
    assert "has waited for no other job" in first.error
    assert queue.get(gone).status == "completed"
    with pytest.raises(BadArgument):
        previous_result()


def test_a_result_that_is_gone_is_named(queue):
    before = queue.enqueue("say", 1)
    queue.enqueue("look", after=f"any:{before}")

    def look(payload):
        with queue.edit() as e:
            e.remove(e.get(before))
        return previous_result()

    queue.process_jobs(HANDLERS | {"look": look}, max_attempts=1)

    assert re.search(f"no job has the id {before}", list(queue.jobs())[-1].error)


def test_what_follows_a_chain_reads_the_result_of_its_last_step(queue):
    enqueue_chain([("double", 1), ("double",)], then=("double",), queue_file=queue)

    queue.process_jobs(HANDLERS)

    assert [job.result for job in queue.jobs()] == [2, 4, 8]


def test_a_broken_chain_stands_at_the_step_that_failed(queue):
    made = enqueue_chain([("say", 1), ("bad",), ("say",), ("say",)], queue_file=queue)

    queue.process_jobs(HANDLERS, max_attempts=1)

    found = get_chain(made.id, queue_file=queue)
    assert (found.current_step, found.current_type, found.ok) == (2, "bad", False)


def test_a_queue_file_is_a_queue(tmp_path):
    with pytest.raises(BadArgument, match=r"give Queue\(path\)"):
        enqueue_chain([("say", 1)], queue_file=str(tmp_path / "queue.tsv"))


def test_the_newest_chains_are_listed_with_the_step_that_they_are_at(queue):
    first = enqueue_chain([("a", 0), ("b", 0), ("c", 0)], queue_file=queue)
    second = enqueue_chain([("x", 0), ("y", 0)], queue_file=queue)
    queue.process_jobs({"a": str})

    found = chains(queue_file=queue)

    assert [one.id for one in found] == [second.id, first.id]
    assert [(one.current_step, one.current_type, one.total) for one in found] == [
        (1, "x", 2),
        (2, "b", 3),
    ]
    assert [one.id for one in chains(1, queue_file=queue)] == [second.id]
