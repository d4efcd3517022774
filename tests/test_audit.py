"""The audit trail: every move in it, nothing secret, and what was changed later is found."""

import collections
import json
import multiprocessing
import os
import random
import stat
import threading
import time

import pytest

from dbbasic_queue import Discard, Queue
from dbbasic_queue.audit import complete, history, read, trail, verify
from dbbasic_queue.cli import main


@pytest.fixture
def queue(tmp_path):
    path = tmp_path / "data" / "queue.tsv"
    return Queue(path, sync="off", listeners=[trail(path)])


@pytest.fixture
def path(queue):
    return queue.path + ".d/audit.tsv"


def events(path):
    return [(entry.event, entry.attempt, entry.status) for entry in read(path)]


def fail(payload):
    raise Discard("no\tsuch\nuser \x1b[31m")


def test_each_move_is_a_line_with_the_error_of_its_attempt(queue, path):
    def again(payload):
        raise RuntimeError("busy")

    job_id = queue.enqueue("t", {"password": "secret"}, queue="mail")
    queue.process_jobs({"t": again}, 2, backoff="none")
    queue.process_jobs({"t": fail}, 2)
    queue.retry(job_id)
    queue.cancel(job_id)

    lines = list(read(path))
    assert [(entry.event, entry.attempt, entry.status) for entry in lines] == [
        ("enqueued", 0, "pending"),
        ("started", 1, "processing"),
        ("retried", 1, "pending"),
        ("started", 2, "processing"),
        ("failed", 2, "failed"),
        ("retried", 0, "pending"),
        ("cancelled", 0, "cancelled"),
    ]
    assert {(entry.id, entry.type, entry.queue) for entry in lines} == {(job_id, "t", "mail")}
    assert [entry.error for entry in lines if entry.error] == [
        "RuntimeError: busy",
        "no\tsuch\nuser \x1b[31m",
    ]
    assert lines[1].worker.startswith("w-")
    assert lines[0].by.split("/")[1] == str(os.getpid())
    with open(path, "rb") as file:
        text = file.read()
    assert b"secret" not in text and b"\x1b" not in text
    assert all(line.count(b"\t") == 10 for line in text.splitlines())


def test_the_trail_is_as_open_as_the_queue(queue, path):
    Queue(queue.path).enqueue("t")
    os.chmod(queue.path, 0o640)

    queue.enqueue("t")

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_a_trail_that_was_put_aside_is_begun_anew_and_still_read(queue, path):
    job_id = queue.enqueue("t")
    os.rename(path, path.replace("audit.tsv", "audit-2030-01.tsv"))

    queue.cancel(job_id)

    assert events(path) == [("cancelled", 0, "cancelled")]
    assert verify(path) is None
    assert [entry.event for entry in history(job_id, queue)] == ["enqueued", "cancelled"]
    assert complete(queue, older_than=0) == 0


@pytest.mark.parametrize(
    ("spoil", "number"),
    [
        (lambda lines: [*lines[:3], lines[3].replace(b"enqueued", b"archived"), *lines[4:]], 4),
        (lambda lines: lines[:3] + lines[4:], 4),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
        (lambda lines: [*lines[:4], lines[4][:20] + b"\n", *lines[5:]], 5),
        (lambda lines: [*lines, lines[-1]], 7),
    ],
)
def test_the_first_line_that_is_not_as_it_was_written_is_named(queue, path, spoil, number):
    queue.enqueue_many([("t", n) for n in range(5)])
    assert verify(path) is None
    with open(path, "rb") as file:
        lines = file.readlines()

    with open(path, "wb") as file:
        file.writelines(spoil(lines))

    assert verify(path)[0] == number


def test_a_line_that_a_crash_has_torn_is_covered_by_the_next_one(queue, path):
    queue.enqueue("t")
    with open(path, "ab") as file:
        file.write(b"1893456000.000\tcancelled\t0123")

    queue.enqueue("t")

    assert len(list(read(path))) == 2
    assert verify(path) is None


def test_what_was_done_without_the_listener_is_added_afterwards_once(queue, path):
    unheard = Queue(queue.path, sync="off")
    a, b, c = queue.enqueue_many([("t", 1), ("t", 2), ("t", 3)])
    unheard.process_jobs({"t": fail}, 1)
    unheard.retry(a)
    unheard.purge(ids=[b])
    unheard.archive(0)
    new = unheard.enqueue("t")

    assert complete(queue, older_than=3600) == 1  # purged, whenever that was
    added = complete(queue, older_than=-5)

    told = {id: [entry.event for entry in history(id, queue)] for id in (a, b, c, new)}
    assert told == {
        a: ["enqueued"],
        b: ["enqueued", "purged"],
        c: ["enqueued", "started", "failed", "archived"],
        new: ["enqueued"],
    }
    assert added == 4
    assert all(entry.by.startswith("complete ") for entry in list(read(path))[3:])
    assert [entry.error for entry in history(c, queue)][2] == "no\tsuch\nuser \x1b[31m"
    assert complete(queue, older_than=-5) == 0
    assert verify(path) is None


def test_a_retry_that_nobody_told_of_is_added(queue):
    job_id = queue.enqueue("t")
    queue.process_jobs({"t": fail}, 1)
    Queue(queue.path, sync="off").retry(job_id)
    queue.process_jobs({"t": str}, 1)

    assert complete(queue, older_than=-5) == 1
    assert complete(queue, older_than=-5) == 0

    assert collections.Counter(entry.event for entry in history(job_id, queue)) == {
        "enqueued": 1, "started": 2, "failed": 1, "retried": 1, "completed": 1,
    }  # fmt: skip


def test_what_is_young_is_left_for_the_next_time(queue, path):
    Queue(queue.path, sync="off").enqueue("t")

    assert complete(queue) == 0
    assert not os.path.exists(path)


WORKER = """
    import os, random
    from dbbasic_queue import Discard, Queue
    from dbbasic_queue.audit import trail
    chance = random.Random(SEED)

    def handler(payload):
        dice = chance.random()
        if dice < 0.03:
            os.kill(os.getpid(), 9)
        if dice < 0.2:
            raise RuntimeError("busy")
        if dice < 0.3:
            raise Discard("no")

    queue = Queue(PATH, sync="off", listeners=[trail(PATH)])
    queue.process_jobs({"t": handler}, 3, run_for=30, backoff="none", max_workers=9)
"""


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6))
def test_with_workers_that_are_killed_every_move_is_in_the_trail(queue, path, run_python, seed):
    chance = random.Random(seed)
    ids = queue.enqueue_many([("t", n) for n in range(800)])

    def start():
        code = WORKER.replace("PATH", repr(queue.path))
        return run_python(code.replace("SEED", str(chance.randrange(10**6))), stderr=-3)

    workers = [start() for _ in range(4)]
    deadline = time.monotonic() + 60
    while any(not job.finished for job in queue.jobs()):
        assert time.monotonic() < deadline
        workers = [one if one.poll() is None else start() for one in workers]
        if chance.random() < 0.2:
            chance.choice(workers).kill()
        time.sleep(chance.random() / 10)
    for one in workers:
        one.kill()
        one.wait()
    queue.process_jobs({})

    complete(queue, older_than=-5)

    assert complete(queue, older_than=-5) == 0
    assert verify(path) is None
    told = collections.defaultdict(list)
    for entry in read(path):
        told[entry.id].append(entry)
    assert told.keys() == set(ids)
    for job in queue.jobs():
        of_job = told[job.id]
        words = collections.Counter(entry.event for entry in of_job)
        assert words["enqueued"] == 1 and of_job[0].event == "enqueued"
        assert {entry.attempt for entry in of_job if entry.event == "started"} == {
            *range(1, job.attempts + 1)
        }
        ends = [entry for entry in of_job if entry.status in ("completed", "failed")]
        assert [(one.status, one.attempt, one.time) for one in ends] == [
            (job.status, job.attempts, job.finished_at)
        ]
        tried = [one.attempt for one in of_job if one.event in ("retried", "recovered")]
        assert {*tried} >= {*range(1, job.attempts)}
        assert len(tried) == len(set(tried))


def add_some(path, number):
    queue = Queue(path, sync="off", listeners=[trail(path)])
    for n in range(100):
        queue.enqueue("t", {"by": number, "n": n})


def test_several_writers_make_one_chain(queue, path):
    queue.enqueue("t")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=add_some, args=(queue.path, n)) for n in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()

    assert verify(path) is None
    assert len(list(read(path))) == 401


def test_a_forked_child_does_not_share_its_parents_lock(queue, path):
    queue.enqueue("t")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=add_by, args=(queue,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()

    assert verify(path) is None
    assert len(list(read(path))) == 401


def test_threads_make_one_chain(queue, path):
    threads = [threading.Thread(target=add_by, args=(queue,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert verify(path) is None
    assert len(list(read(path))) == 400


def add_by(queue):
    for n in range(100):
        queue.enqueue("t", n)


def test_the_command_tells_a_jobs_history_with_a_trail_and_without(queue, path, capsys):
    job_id = queue.enqueue("t")
    queue.process_jobs({"t": fail}, 1)

    assert main(["--file", queue.path, "--json", "history", job_id]) == 0
    told = json.loads(capsys.readouterr().out)
    os.unlink(path)
    assert main(["--file", queue.path, "--json", "history", job_id]) == 0
    of_row = json.loads(capsys.readouterr().out)

    assert [one["event"] for one in told] == ["enqueued", "started", "failed"]
    assert [one["event"] for one in of_row] == ["enqueued", "started", "failed"]
    assert [one["status"] for one in of_row] == ["pending", "processing", "failed"]
    assert told[2]["error"] == of_row[2]["error"] == "no\tsuch\nuser \x1b[31m"
    assert main(["--file", queue.path, "history", "0" * 16]) == 1
