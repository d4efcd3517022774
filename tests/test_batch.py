"""Batches and workflows: added at once, counted from rows, followed by jobs, extended."""

import itertools
import random
import re
from pathlib import Path

import pytest

from dbbasic_queue import Queue, QueueError, batch, current_job, group
from dbbasic_queue.batch import (
    Batch,
    append,
    batches,
    cancel_batch,
    enqueue_batch,
    enqueue_workflow,
    get_batch,
)
from dbbasic_queue.errors import BadArgument, UnknownJob


def boom(payload):
    raise ValueError("boom")


HANDLERS = {"good": lambda payload: payload, "bad": boom, "then": len, "catch": len, "last": len}
CALLBACKS = {"then": ("then", "then"), "catch": ("catch", "catch"), "finally_": ("last", "last")}


def add(queue, *types, **options):
    return enqueue_batch(
        [(type, number) for number, type in enumerate(types)], queue_file=queue, **options
    )


def ends(queue):
    """The statuses of the callbacks by their types."""
    return {job.type: job.status for job in queue.jobs() if job.type in ("then", "catch", "last")}


def figures(found):
    return {
        name: getattr(found, name)
        for name in ("total", "processed", "failed", "progress", "finished", "ok")
    }


def test_a_batch_is_added_at_once_and_counted_from_its_rows(queue):
    made = add(queue, "good", "good", "bad", name="Zürich images")
    queue.process_jobs(HANDLERS, max_attempts=1, max_jobs=1)
    half = get_batch(made.id, queue_file=queue)
    queue.process_jobs(HANDLERS, max_attempts=1)
    whole = get_batch(made.id, queue_file=queue)

    assert (made.total, made.pending, made.name) == (3, 3, "Zürich images")
    assert figures(half) == {
        "total": 3, "processed": 1, "failed": 0, "progress": 33, "finished": False, "ok": False,
    }  # fmt: skip
    assert figures(whole) == {
        "total": 3, "processed": 3, "failed": 1, "progress": 100, "finished": True, "ok": False,
    }  # fmt: skip
    assert (whole.name, whole.pending, whole.completed) == ("Zürich images", 0, 2)
    assert [job.error for job in whole.failed_jobs()] == ["ValueError: boom"]
    assert [job.payload for job in whole.jobs()] == [0, 1, 2]


def test_then_and_finally_run_when_all_have_completed(queue):
    add(queue, "good", "good", **CALLBACKS)

    queue.process_jobs(HANDLERS)

    assert ends(queue) == {"then": "completed", "catch": "cancelled", "last": "completed"}


def test_catch_and_finally_run_when_one_has_failed(queue):
    add(queue, "good", "bad", **CALLBACKS)

    queue.process_jobs(HANDLERS, max_attempts=1)

    assert ends(queue) == {"then": "cancelled", "catch": "completed", "last": "completed"}


@pytest.mark.parametrize("failures,ok", [(1, True), (2, True), (3, False)])
def test_as_many_may_fail_as_were_allowed(queue, failures, ok):
    made = add(queue, *["bad"] * failures, "good", allow_failures=2, **CALLBACKS)

    queue.process_jobs(HANDLERS, max_attempts=1)

    assert get_batch(made.id, queue_file=queue).ok == ok
    assert get_batch(made.id, queue_file=queue).allow_failures == 2
    assert ends(queue) == {
        "then": "completed" if ok else "cancelled",
        "catch": "cancelled" if ok else "completed",
        "last": "completed",
    }


def test_what_follows_reads_the_results_and_the_errors_of_the_batch(queue):
    add(queue, "good", "bad", "good", allow_failures=1, then=("sum", None), finally_=("say", None))
    handlers = HANDLERS | {
        "sum": lambda payload: sum(batch.results()),
        "say": lambda payload: [job.error for job in batch.failed_jobs()],
    }

    queue.process_jobs(handlers, max_attempts=1)

    results = {job.type: job.result for job in queue.jobs()}
    assert (results["sum"], results["say"]) == (2, ["ValueError: boom"])


def test_what_is_asked_about_the_batch_of_a_job_without_one_is_an_error(queue):
    queue.enqueue("alone")

    queue.process_jobs({"alone": lambda payload: list(batch.results())}, max_attempts=1)

    assert "belongs to no group" in next(queue.jobs()).error
    with pytest.raises(BadArgument):
        batch.failed_jobs()


def test_a_cancelled_batch_runs_nothing_more_but_what_comes_finally(queue):
    made = add(queue, "good", "good", "good", **CALLBACKS)
    queue.process_jobs(HANDLERS, max_jobs=1)

    cancelled = cancel_batch(made.id, queue_file=queue), cancel_batch(made.id, queue_file=queue)
    queue.process_jobs(HANDLERS)

    assert cancelled == (2, 0)
    assert get_batch(made.id, queue_file=queue).cancelled == 2
    assert ends(queue) == {"then": "cancelled", "catch": "cancelled", "last": "completed"}


def test_jobs_are_added_to_a_batch_that_runs_and_its_end_waits_for_them(queue):
    made = add(queue, "grow", "good", **CALLBACKS)

    def grow(payload):
        return append(current_job().group, [("good", 7), {"job_type": "good", "priority": -1}])

    queue.process_jobs(HANDLERS | {"grow": grow})

    assert get_batch(made.id, queue_file=queue).completed == 4
    assert ends(queue)["then"] == "completed"
    then = next(job for job in queue.jobs() if job.type == "then")
    assert all(job.finished_at <= then.started_at for job in queue.jobs(type="good"))


def test_nothing_is_added_to_a_batch_that_has_finished_or_is_none(queue):
    made = add(queue, "good")
    queue.process_jobs(HANDLERS)

    with pytest.raises(BadArgument, match="has finished"):
        append(made.id, [("good", 1)], queue_file=queue)
    with pytest.raises(UnknownJob, match="batch-0"):
        append("batch-0", [("good", 1)], queue_file=queue)
    with pytest.raises(UnknownJob, match="batch-0"):
        cancel_batch("batch-0", queue_file=queue)
    assert get_batch("batch-0", queue_file=queue) is None
    assert len(list(queue.jobs())) == 1


@pytest.mark.parametrize("id", ["", "a b", "a\tb", "\ud800", "x" * 101, None, 7, ["g"]])
def test_what_is_no_label_is_no_batch(queue, id):
    queue.enqueue("alone")

    assert get_batch(id, queue_file=queue) is None
    with pytest.raises(UnknownJob):
        cancel_batch(id, queue_file=queue)
    with pytest.raises(QueueError):
        append(id, [("good", 1)], queue_file=queue)
    assert queue.counts("status") == {"pending": 1}


def test_to_ask_for_a_batch_makes_no_file(queue):
    with pytest.raises(UnknownJob):
        cancel_batch("batch-0", queue_file=queue)
    with pytest.raises(UnknownJob):
        append("batch-0", [("good", 1)], queue_file=queue)

    assert get_batch("batch-0", queue_file=queue) is None
    assert not Path(queue.path).exists()


def test_a_job_that_waited_for_another_batch_reads_its_results(queue):
    first = add(queue, "good", "good", "bad", allow_failures=1)
    look = {"job_type": "look", "after": f"ok:@{first.id}~1"}
    alone = queue.enqueue("look", after=f"any:@{first.id}")
    enqueue_batch([look, ("good", 7)], queue_file=queue)

    def read(payload):
        return [list(batch.results()), len(list(batch.failed_jobs()))]

    queue.process_jobs(HANDLERS | {"look": read}, max_attempts=1)

    assert queue.get(alone).result == [[0, 1], 1]
    assert [job.result for job in queue.jobs(type="look")] == [[[0, 1], 1]] * 2


def test_a_batch_keeps_its_name_when_its_first_job_is_deleted(queue):
    made = add(queue, "good", "bad", name="images", allow_failures=1, then=("then", "then"))
    queue.process_jobs(HANDLERS, max_attempts=1)

    queue.purge(ids=[next(made.jobs()).id])

    found = get_batch(made.id, queue_file=queue)
    assert (found.name, found.allow_failures, found.total, found.ok) == ("images", 1, 1, True)


@pytest.mark.parametrize("look", ["is_folder", "jobs"])  # at the archive, at the queue
def test_jobs_that_are_archived_while_a_batch_is_counted_are_counted_once(queue, monkeypatch, look):
    made = add(queue, "good", "good", "bad")
    queue.process_jobs(HANDLERS, max_attempts=1)
    real = getattr(group, look)
    monkeypatch.setattr(group, look, lambda *a, **k: (queue.archive(0), real(*a, **k))[1])

    found = get_batch(made.id, queue_file=queue)

    assert (found.total, found.completed, found.failed) == (3, 2, 1)


def test_of_rows_in_both_files_the_queue_s_count_and_of_two_archived_the_last(queue):
    made = add(queue, "good", "bad", "good")
    queue.process_jobs(HANDLERS, max_attempts=1)
    before = Path(queue.path).read_bytes()
    queue.archive(0)
    Path(queue.path).write_bytes(before)  # as a crash before the edit leaves it
    queue.retry([job.id for job in queue.jobs(status="failed")])
    in_both = get_batch(made.id, queue_file=queue)
    queue.process_jobs(HANDLERS | {"bad": str})
    queue.archive(0)

    assert (in_both.total, in_both.pending, in_both.failed) == (3, 1, 0)
    assert [job.status for job in made.jobs()] == ["completed"] * 3


def test_archived_jobs_of_a_batch_are_counted_too(queue):
    made = add(queue, "good", "bad", "good", name="images")
    queue.process_jobs(HANDLERS, max_attempts=1)
    queue.archive(0)

    found = get_batch(made.id, queue_file=queue)

    assert list(queue.jobs()) == []
    assert (found.name, found.total, found.completed, found.failed) == ("images", 3, 2, 1)


@pytest.mark.parametrize(
    "jobs,options,named",
    [
        ([], {}, "no jobs"),
        (["good"], {}, "'good'"),
        ([("good", 1, None, 4)], {}, "4"),
        ([("no type",)], {}, "no type"),
        ([("good", {1})], {}, "payload"),
        ([{"job_type": "good", "group": "mine"}], {}, "mine"),
        ([("good",)], {"name": ""}, "name=''"),
        ([("good",)], {"name": 7}, "name=7"),
        ([("good",)], {"name": "x" * 201}, "200"),
        ([("good",)], {"allow_failures": -1}, "allow_failures=-1"),
        ([("good",)], {"then": "then"}, "then="),
        ([("good",)], {"catch": {"job_type": "catch", "after": "0" * 16}}, "catch="),
    ],
)
def test_a_wrong_batch_is_refused_and_nothing_is_added(queue, jobs, options, named):
    with pytest.raises(BadArgument, match=re.escape(named)):
        enqueue_batch(jobs, queue_file=queue, **options)

    assert not Path(queue.path).exists()


def test_a_column_of_somebody_else_does_not_disturb(queue):
    made = add(queue, "good", name="images")
    with queue.edit() as e:
        e.change(next(e.scan()), about="{not ours")

    assert get_batch(made.id, queue_file=queue).name is None


def test_listeners_are_told_of_each_row(queue):
    told = []
    listening = Queue(queue.path, sync="off", listeners=[lambda event, job: told.append(event)])

    made = add(listening, "good", "good", then=("then", 1))
    append(made.id, [("good", 1)], queue_file=listening)
    cancel_batch(made.id, queue_file=listening)

    assert told == ["enqueued"] * 4 + ["cancelled"] * 4


# --- workflows


def test_a_workflow_runs_along_its_graph(queue):
    order = []
    handlers = {"step": lambda payload: order.append(payload)}
    jobs = {name: ("step", name) for name in "dcba"}

    made = enqueue_workflow(
        jobs, {"d": ["b", "c"], "b": ["a"], "c": "a"}, name="diamond", queue_file=queue
    )
    queue.process_jobs(handlers)

    assert order[0] == "a" and order[3] == "d" and set(order) == set("abcd")
    assert get_batch(made.id, queue_file=queue).ok
    assert [job.payload for job in made.jobs()] == list("dcba")


@pytest.mark.parametrize(
    "after,named",
    [
        ({"b": ["nobody"]}, "nobody"),
        ({"nobody": ["a"]}, "nobody"),
        ({"a": ["b"], "b": ["a"]}, "wait for each other: 'a' 'b' 'a'|'b' 'a' 'b'"),
        ({"a": ["a"]}, "wait for each other: 'a' 'a'"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(queue, after, named):
    with pytest.raises(QueueError, match=named):
        enqueue_workflow({"a": ("step",), "b": ("step",)}, after, queue_file=queue)

    assert not list(queue.jobs())


def test_a_job_of_a_workflow_may_have_an_id_of_its_own_and_wait_for_others(queue):
    own, other = queue.new_id(), queue.enqueue("bad")
    jobs = {
        "a": {"job_type": "good", "id": own},
        "b": {"job_type": "good", "after": f"any:{other}"},
        "c": {"job_type": "good", "after": other},
    }

    made = enqueue_workflow(jobs, {"b": ["a", "a"], "c": "a"}, queue_file=queue)
    queue.process_jobs(HANDLERS, max_attempts=1)

    found = list(made.jobs())
    assert (found[0].id, found[1].after) == (own, f"any:{other} ok:{own}")
    assert [job.status for job in found] == ["completed", "completed", "cancelled"]


def test_random_workflows_end_as_their_graphs_say(queue):
    chance = random.Random(6)
    wanted = {}
    for _ in range(30):
        names = [f"n{number}" for number in range(chance.randrange(1, 8))]
        fails = {name: chance.random() < 0.25 for name in names}
        after = {
            name: [one for one in names[:number] if chance.random() < 0.4]
            for number, name in enumerate(names)
        }
        jobs = {name: ("bad" if fails[name] else "good", name) for name in names}
        allowed = chance.randrange(3)
        made = enqueue_workflow(jobs, after, allow_failures=allowed, queue_file=queue, **CALLBACKS)
        ends = {}
        for name in names:
            runs = all(ends[one] == "completed" for one in after[name])
            ends[name] = ("failed" if fails[name] else "completed") if runs else "cancelled"
        ok = sum(end != "completed" for end in ends.values()) <= allowed
        wanted[made.id] = (
            *ends.values(),
            "completed" if ok else "cancelled",
            "cancelled" if ok else "completed",
            "completed",
        )

    queue.process_jobs(HANDLERS, max_attempts=1)

    by_group = itertools.groupby(queue.jobs(), lambda job: job.group)
    assert {id: tuple(job.status for job in rows) for id, rows in by_group} == wanted


def test_a_batch_of_many_makes_no_long_row(queue):
    made = add(queue, *["good"] * 3000, name="many", **CALLBACKS)

    lines = Path(queue.path).read_bytes().splitlines()
    assert max(map(len, lines)) < 250
    assert isinstance(made, Batch) and made.total == 3000


def test_a_job_of_a_workflow_keeps_the_id_it_was_given(queue):
    own = "00000000000000ab"
    jobs = {"a": {"job_type": "good", "id": own}, "b": ("good", 2)}

    found = enqueue_workflow(jobs, {"b": ["a"]}, queue_file=queue).jobs()

    assert [(job.id == own, job.after) for job in found] == [(True, None), (False, f"ok:{own}")]


def test_a_row_that_a_shell_appends_meanwhile_is_kept_and_the_batch_is_cancelled(
    queue, monkeypatch
):
    made = add(queue, "good", "good", finally_=("last", 1))
    row = b"0123456789abcdef\tnote\t{}\tpending\t1\t1\t0\t\t\n"

    def append_once(fd):
        patch.undo()
        with open(queue.path, "ab") as file:
            file.write(row)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", append_once)
        count = cancel_batch(made.id, queue_file=queue)

    assert count == 2
    assert [job.status for job in queue.jobs()] == ["cancelled", "cancelled", "pending", "pending"]


def test_to_cancel_or_to_extend_a_batch_makes_no_queue_file(queue):
    with pytest.raises(UnknownJob, match="batch-0"):
        cancel_batch("batch-0", queue_file=queue)
    with pytest.raises(UnknownJob, match="batch-0"):
        append("batch-0", [("good", 1)], queue_file=queue)

    assert not Path(queue.path).parent.exists()


def test_the_newest_batches_are_listed_with_their_figures(queue):
    old, middle, new = (
        enqueue_batch([("a", n)] * 3, name=f"number {n}", then=("b", 0), queue_file=queue)
        for n in range(3)
    )
    queue.enqueue("other", group="mine")
    queue.cancel(next(old.jobs()).id)

    found = batches(queue_file=queue)

    assert [one.id for one in found] == [new.id, middle.id, old.id]
    assert [(one.name, one.total, one.cancelled) for one in found][::2] == [
        ("number 2", 3, 0),
        ("number 0", 3, 1),
    ]
    assert [one.id for one in batches(2, queue_file=queue)] == [new.id, middle.id]
    assert batches(0, queue_file=queue) == []
