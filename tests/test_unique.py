"""At most one job of a key: who holds it, until when, and what a second call does."""

import os
import signal
import time
from datetime import timedelta

import pytest

from dbbasic_queue import Discard, Queue, Snooze
from dbbasic_queue.errors import BadArgument, QueueBusy
from dbbasic_queue.unique import enqueue_unique


@pytest.fixture
def add(queue):
    def add(key="ana", payload=None, job_type="report", **more):
        return enqueue_unique(job_type, payload, key=key, queue_file=queue, **more)

    return add


def fails(error):
    def handler(payload):
        raise error

    return handler


# Who holds a key


def test_a_second_call_gets_the_id_of_the_first_and_writes_nothing(add, queue):
    first = add(payload=1)
    before = read(queue)

    assert add(payload=2) == first
    assert read(queue) == before
    assert [job.payload for job in queue.jobs()] == [1]
    assert queue.get(first).cell("unique") == "ana"


def read(queue):
    with open(queue.path, "rb") as file:
        return os.fstat(file.fileno()).st_ino, file.read()


def test_other_keys_and_other_types_are_added(add, queue):
    ids = {add("ana"), add("anabel"), add("an"), add("ana", job_type="mail"), add("a\tb"), add("é")}

    assert len(ids) == 6
    assert add("a\tb") in ids
    assert {job.cell("unique") for job in queue.jobs()} >= {"a\tb", "é"}


def test_a_key_may_look_like_any_other_cell(add, queue):
    plain = queue.enqueue("report", "ana")

    first = add("report")

    assert plain != first == add("report")
    assert add(0) == add("0") != first


def test_a_key_is_held_however_old_the_job_is(add, queue):
    first = add()
    with queue.edit() as e:
        e.change(e.get(first), created_at=1, run_at=1)

    assert add() == first


def test_a_key_is_held_while_its_job_runs_and_free_when_it_has_run(add, queue):
    during = []

    first = add()
    queue.process_jobs({"report": lambda payload: during.append(add())})

    assert during == [first]
    assert add() != first


def test_a_job_that_is_to_be_tried_again_holds_its_key(add, queue):
    first = add()
    queue.process_jobs({"report": fails(ValueError("not yet"))})

    assert add() == first
    assert queue.get(first).attempts == 1


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
@pytest.mark.parametrize("seconds", [None, 3600])
def test_a_job_that_did_not_complete_frees_its_key_at_once(add, queue, ending, seconds):
    first = add()
    if ending == "failed":
        queue.process_jobs({"report": fails(Discard("no"))})
    else:
        queue.cancel(first)

    second = add(seconds=seconds)

    assert second != first
    assert [job.status for job in queue.jobs()] == [ending, "pending"]


def test_with_seconds_a_completed_job_serves_as_a_cache_until_it_is_that_old(add, queue):
    first = add()
    queue.process_jobs({"report": lambda payload: "the result"})

    held = [add(seconds=60), add(seconds=timedelta(minutes=1))]
    with queue.edit() as e:
        e.change(e.get(first), created_at=int(time.time()) - 60)

    assert held == [first, first]
    assert queue.get(first).result == "the result"
    assert add(seconds=60) != first


def test_the_youngest_completed_job_is_the_one_that_serves(add, queue):
    ids = []
    for _ in range(2):
        ids.append(add())
        queue.process_jobs({"report": str})

    assert add(seconds=60) == ids[1]


def test_an_unfinished_job_comes_before_a_completed_one(add, queue):
    add()
    queue.process_jobs({"report": str})
    second = add()

    assert add(seconds=60) == second


def test_a_job_whose_end_only_its_workers_file_knows_has_freed_its_key(add, queue):
    found = []

    def look(payload):
        with open(queue.path) as file:
            in_the_file = [line.split("\t")[3] for line in file][1:]
        found.append((in_the_file, queue.get(first).status, add("first")))

    queue.enqueue("warm")  # a first claim is of one job, the next one of several
    first = add("first")
    queue.enqueue("look")
    queue.process_jobs({"warm": str, "report": str, "look": look}, max_jobs=3)

    [(in_the_file, status, second)] = found
    assert (in_the_file, status) == (["completed", "processing", "processing"], "completed")
    assert second != first
    assert queue.get(second).status == "pending"


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_an_outcome_that_frees_a_key_is_on_the_disk_before_the_new_job(tmp_path, monkeypatch):
    queue, synced = Queue(tmp_path / "queue.tsv"), []

    def look(payload):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", lambda fd: synced.append(name_of(fd)))
            enqueue_unique("report", key="a", queue_file=queue)

    def name_of(fd):
        return os.path.basename(os.path.dirname(os.readlink(f"/proc/self/fd/{fd}")))

    queue.enqueue("warm")
    enqueue_unique("report", key="a", queue_file=queue)
    queue.enqueue("look")
    queue.process_jobs({"warm": str, "report": str, "look": look}, max_jobs=3)

    assert synced == ["workers", tmp_path.name]


def test_the_function_gets_the_payload(add):
    first = add(lambda payload: f"user-{payload['user']}", {"user": 7, "n": 1})

    assert add(lambda payload: f"user-{payload['user']}", {"user": 7, "n": 2}) == first
    assert add(lambda payload: f"user-{payload['user']}", {"user": 8}) != first


def test_the_function_is_called_outside_the_lock(add, queue):
    assert add(lambda payload: queue.enqueue("other")) != add("x")

    with pytest.raises(QueueBusy), queue.edit():
        add()


# replace


def test_with_replace_a_pending_job_is_put_off_and_keeps_its_id(add, queue):
    later = int(time.time()) + 100
    first = add(payload=1, queue="slow", timeout=3)
    last = queue.enqueue("other")

    same = add(payload=2, run_at=later, replace=True, priority=-1, max_attempts=5, backoff="none")

    job = queue.get(first)
    assert same == first
    assert (job.payload, job.run_at, job.queue, job.priority) == (2, later, "default", -1)
    assert (job.max_attempts, job.timeout, job.backoff) == (5, None, "none")
    assert [one.id for one in queue.jobs()] == [first, last]


def test_with_replace_the_new_payload_has_all_its_attempts(add, queue):
    first = add(payload=1)
    queue.process_jobs({"report": fails(ValueError("no"))})

    add(payload=2, replace=True)

    job = queue.get(first)
    assert (job.payload, job.attempts, job.error) == (2, 0, None)
    queue.process_jobs({"report": lambda payload: payload})
    assert queue.get(first).result == 2


def test_with_replace_a_running_job_stays_as_it_is(add, queue):
    first = add(payload=1)

    queue.process_jobs({"report": lambda payload: add(payload=2, replace=True)})

    assert (queue.get(first).payload, queue.get(first).result) == (1, first)


def test_with_replace_a_completed_job_stays_as_it_is(add, queue):
    first = add(payload=1)
    queue.process_jobs({"report": str})

    assert add(payload=2, seconds=60, replace=True) == first
    assert (queue.get(first).payload, queue.get(first).status) == (1, "completed")


def test_the_same_again_with_replace_writes_nothing(add, queue):
    add(payload=1, run_at=2_000_000_000)
    before = read(queue)

    add(payload=1, run_at=2_000_000_000, replace=True)

    assert read(queue) == before


def test_a_job_that_was_put_forward_is_run_by_the_next_tick(add, queue):
    first = add(run_at=timedelta(hours=1))
    queue.process_jobs({"report": str})

    add(replace=True)
    queue.process_jobs({"report": str})

    assert queue.get(first).status == "completed"


# The rest of enqueue


def test_all_arguments_of_enqueue_reach_the_row(add, queue):
    parent, id = queue.enqueue("other"), queue.new_id()

    add(payload={"n": 1}, run_at=2_000_000_000, queue="q", priority=3, max_attempts=4, timeout=5,
        backoff="none", after=parent, group="g", id=id, columns={"mine": "x"})  # fmt: skip

    job = queue.get(id)
    assert (job.payload, job.run_at, job.queue, job.priority) == ({"n": 1}, 2_000_000_000, "q", 3)
    assert (job.max_attempts, job.timeout, job.backoff, job.group) == (4, 5.0, "none", "g")
    assert (job.after, job.cell("mine"), job.cell("unique")) == (f"ok:{parent}", "x", "ana")


def test_what_is_to_come_along_comes_only_with_a_job_that_is_added(add, queue):
    id = queue.new_id()
    along = [{"job_type": "told", "after": f"notok:{id}"}]

    first = add(id=id, also=along)
    second = add(id=queue.new_id(), also=along)

    assert second == first == id
    assert [job.type for job in queue.jobs()] == ["told", "report"]


def test_listeners_are_told_only_of_what_is_added(tmp_path):
    told = []
    queue = Queue(tmp_path / "q.tsv", listeners=[lambda *what: told.append(what)])

    id = enqueue_unique("report", key="a", queue_file=queue)
    enqueue_unique("report", 2, key="a", queue_file=queue)
    enqueue_unique("report", 3, key="a", queue_file=queue, replace=True)

    assert [(event, job.id) for event, job in told] == [("enqueued", id)]


def test_it_is_the_queue_of_the_worker_or_else_the_default_one(tmp_path):
    queue = Queue(tmp_path / "another.tsv")
    queue.enqueue("outer")
    queue.process_jobs({"outer": lambda payload: enqueue_unique("inner", key="a")})
    here = enqueue_unique("report", key="a")

    assert [job.type for job in queue.jobs()] == ["outer", "inner"]
    assert [job.id for job in Queue("data/queue.tsv").jobs()] == [here]


@pytest.mark.parametrize("key", ["", "x" * 201, None, True, 1.5, b"ana", ["a"], lambda payload: ""])
def test_a_key_that_is_none_is_refused_by_name_and_nothing_is_written(add, queue, key):
    with pytest.raises(BadArgument, match=r"^key="):
        add(key)

    assert not os.path.exists(queue.path)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"seconds": -1}, "-1"),
        ({"seconds": "x"}, "'x'"),
        ({"columns": {"unique": "b"}}, "unique"),
        ({"priority": "high"}, "priority='high'"),
        ({"payload": {1}}, "payload of 'report'"),
        ({"also": [{"job_type": "a b"}]}, "'a b'"),
        ({"after": "0123456789abcdef"}, "0123456789abcdef"),
    ],
)
def test_other_bad_values_are_refused_too_and_no_job_is_added(add, queue, more, named):
    with pytest.raises(BadArgument, match=named):
        add(**more)

    assert list(queue.jobs()) == []


def test_a_file_of_the_nine_old_columns_becomes_wider_at_the_first_key(add, queue):
    os.makedirs(os.path.dirname(queue.path))
    old = "id type payload status created_at run_at attempts error result".split()
    with open(queue.path, "w") as file:
        file.write("\t".join(old) + "\n0000000000000abc\treport\t{}\tpending\t1\t1\t0\t\t\n")

    first = add()

    assert [job.id for job in queue.jobs()] == ["0000000000000abc", first]
    assert add() == first


def test_a_snoozed_job_holds_its_key(add, queue):
    first = add()

    queue.process_jobs({"report": fails(Snooze(30))})

    assert add() == first


def test_a_worker_that_dies_in_the_job_does_not_free_its_key(add, queue):
    first = add(max_attempts=2)
    for status in ("processing", "failed"):
        child = os.fork()
        if not child:
            queue.process_jobs({"report": lambda payload: os.kill(os.getpid(), signal.SIGKILL)})
            os._exit(1)
        os.waitpid(child, 0)
        if status == "processing":
            assert add() == first
        else:
            queue.process_jobs({})

    assert queue.get(first).status == "failed"
    assert add() != first
