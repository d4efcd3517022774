"""The verbs: which moves are allowed from which status, and every question about the jobs."""

import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

import dbbasic_queue
from dbbasic_queue import Queue, QueueError, cancel_job, current_job, enqueue, get_job, process_jobs
from dbbasic_queue.errors import BadArgument, ForeignFile, UnknownJob

NINE = "id type payload status created_at run_at attempts error result".replace(" ", "\t").encode()


def fail(payload):
    raise ValueError("not today")


HANDLERS = {"good": str, "bad": fail}


def content(queue):
    return Path(queue.path).read_bytes()


def ids_of(jobs):
    return [job.id for job in jobs]


# --- moves


def moved(queue, status, verb):
    """Bring a job into a status, do `verb(queue, id)`, and return what it gave and the status."""
    job_id = queue.enqueue("bad" if status == "failed" else "good", {"n": 1})
    if status == "processing":
        seen = []

        def handler(payload):
            seen.append(verb(queue, job_id))
            seen.append(queue.get(job_id))

        queue.process_jobs({"good": handler})
        answer, job = seen
        return answer, job and job.status
    if status == "cancelled":
        queue.cancel(job_id)
    if status in ("completed", "failed"):
        queue.process_jobs(HANDLERS, 1)
    assert queue.get(job_id).status == status
    answer = verb(queue, job_id)
    job = queue.get(job_id)
    return answer, job and job.status


def cancel(queue, job_id):
    return queue.cancel(job_id)


def retry(queue, job_id):
    return queue.retry(job_id) == [job_id]


def retry_all(queue, job_id):
    return queue.retry() == [job_id]


def purge(queue, job_id):
    return queue.purge() == 1


def purge_ids(queue, job_id):
    return queue.purge(ids=[job_id]) == 1


def purge_status(queue, job_id):
    return queue.purge(status=queue.get(job_id).status) == 1


def archive(queue, job_id):
    with freeze_time(timedelta(seconds=1)):
        return queue.archive(0) == 1 and not any(job.id == job_id for job in queue.jobs())


MOVES = [
    # verb, from status: it is done, and what the job then is (None: gone)
    (cancel, {"pending": "cancelled"}),
    (retry, {"failed": "pending", "cancelled": "pending"}),
    (retry_all, {"failed": "pending"}),
    (purge, {"completed": None, "failed": None, "cancelled": None}),
    (purge_ids, {"pending": None, "completed": None, "failed": None, "cancelled": None}),
    (purge_status, {"pending": None, "completed": None, "failed": None, "cancelled": None}),
    (archive, {one: one for one in ("completed", "failed", "cancelled")}),
]


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed", "cancelled"])
@pytest.mark.parametrize("verb, allowed", MOVES, ids=[verb.__name__ for verb, _ in MOVES])
def test_a_move_is_allowed_from_some_statuses_and_refused_from_the_others(
    queue, verb, allowed, status
):
    answer, after = moved(queue, status, verb)

    assert (answer, after) == (status in allowed, allowed.get(status, status))


@pytest.mark.parametrize("job_id", ["0" * 16, "", "nonsense", "a\tb", "../../etc", "\n", "ä"])
def test_p33_an_id_that_nobody_has_is_no_error(queue, job_id):
    queue.enqueue("good")
    before = content(queue)

    assert queue.cancel(job_id) is False
    assert queue.retry(job_id) == []
    assert queue.purge(ids=[job_id]) == 0
    assert queue.get(job_id) is queue.get_job(job_id) is None
    assert content(queue) == before


def test_without_a_file_every_verb_but_enqueue_finds_nothing_and_makes_nothing(queue):
    assert queue.cancel("0" * 16) is False
    assert queue.retry() == []
    assert queue.purge() == queue.archive(0) == 0
    assert queue.get("0" * 16) is queue.get_job("0" * 16) is None
    assert list(queue.jobs()) == list(queue.jobs(newest=True)) == []
    assert queue.counts("status") == {}
    assert queue.workers() == queue.stop() == []
    assert queue.process_jobs(HANDLERS) is None
    with pytest.raises(QueueError):
        queue.backup("copy.tsv")

    assert not Path(queue.path).parent.exists()


def test_a_cancelled_job_never_runs(queue):
    job_id, ran = queue.enqueue("good"), []

    queue.cancel(job_id)
    queue.process_jobs({"good": ran.append})

    assert ran == []
    assert queue.get(job_id).finished_at is not None


# --- enqueue_many


def test_many_jobs_are_added_in_order_by_one_append(queue):
    before = queue.enqueue("good")

    ids = queue.enqueue_many(("good", number) for number in range(50))

    assert ids == sorted(set(ids))
    assert ids_of(queue.jobs()) == [before, *ids]
    assert [queue.get(job_id).payload for job_id in ids] == list(range(50))


@freeze_time("2026-01-01")
def test_many_jobs_may_be_given_in_four_forms(queue):
    a, b, c, d = queue.enqueue_many(
        [
            ("good",),
            ["good", {"n": 1}],
            ("good", None, timedelta(hours=1)),
            {"job_type": "bad", "payload": [], "run_at": 4e9, "queue": "high", "priority": 2},
        ]
    )

    assert queue.get(a).payload is None
    assert queue.get(b).payload == {"n": 1}
    assert queue.get(c).run_at == queue.get(c).created_at + 3600
    job = queue.get(d)
    assert (job.type, job.payload, job.run_at) == ("bad", [], 4_000_000_000)
    assert (job.queue, job.priority) == ("high", 2)


def test_many_jobs_are_added_all_or_none(queue):
    queue.enqueue("good")
    before = content(queue)

    with pytest.raises(BadArgument, match=r"job 2 .* not JSON"):
        queue.enqueue_many([("good", 1), ("good", 2), ("good", float("nan")), ("good", 3)])

    assert content(queue) == before


@pytest.mark.parametrize(
    "bad",
    [
        ("a b",),
        (),
        ("good", 1, 2, 3),
        5,
        None,
        {"type": "good"},
        {"payload": 1},
        ("good", 1, "high"),
    ],
    ids=repr,
)
def test_a_bad_one_of_many_is_named_by_its_number(queue, bad):
    with pytest.raises(BadArgument, match="job 1 "):
        queue.enqueue_many([("good", 1), bad])

    assert not Path(queue.path).exists()


def test_no_jobs_are_no_append(queue):
    assert queue.enqueue_many([]) == []
    assert not Path(queue.path).exists()


ODD = {
    "an id of its own": {"id": "0123456789abcdef"},
    "a column of its own": {"columns": {"colour": "red"}},
}


@pytest.mark.parametrize("odd", ODD)
def test_many_jobs_of_which_one_is_no_plain_row_are_stored_in_their_order(odd, queue):
    odd = {"job_type": "odd", "payload": 1, **ODD[odd]}

    ids = queue.enqueue_many([("t", 0), odd, ("t", [2, "ä\t"], 4e9)])

    jobs = list(queue.jobs())
    assert [job.id for job in jobs] == ids
    assert [(job.type, job.payload) for job in jobs] == [("t", 0), ("odd", 1), ("t", [2, "ä\t"])]
    assert jobs[2].run_at == 4_000_000_000


def test_many_jobs_are_added_to_a_file_with_other_columns(queue):
    first = queue.enqueue("t", columns={"colour": "red"})

    ids = queue.enqueue_many([("t", 0), ("t", 1)])

    assert [job.id for job in queue.jobs()] == [first, *ids]
    assert [job.cell("colour") for job in queue.jobs()] == ["red", "", ""]


def test_many_jobs_get_ids_above_those_of_a_clock_that_was_ahead(queue):
    with freeze_time(timedelta(hours=1)):
        first = queue.enqueue("t")

    ids = queue.enqueue_many([("t", 0), ("t", 1)])

    assert [first, *ids] == sorted({first, *ids})


def test_listeners_are_told_of_many_jobs_in_order(tmp_path):
    told = []
    queue = Queue(
        tmp_path / "q.tsv", listeners=[lambda event, job: told.append((job.id, job.payload))]
    )

    ids = queue.enqueue_many([("t", 0), ("t", 1)])

    assert told == [(ids[0], 0), (ids[1], 1)]


# --- retry


def test_retry_starts_a_job_afresh(queue):
    with freeze_time("2026-01-01"):
        job_id = queue.enqueue("bad", {"n": 1}, priority=3)
        queue.process_jobs(HANDLERS, 1)
    assert queue.get(job_id).attempts == 1

    with freeze_time("2026-01-02"):
        assert queue.retry(job_id) == [job_id]
        job = queue.get(job_id)
        queue.process_jobs({"bad": str})

    assert (job.status, job.attempts, job.error, job.result) == ("pending", 0, None, None)
    assert (job.worker, job.started_at, job.finished_at) == (None, None, None)
    assert (job.payload, job.priority) == ({"n": 1}, 3)
    assert queue.get(job_id).status == "completed"
    assert queue.get(job_id).attempts == 1


def test_retry_without_an_id_takes_the_failed_ones_of_the_filter(queue):
    a = queue.enqueue("bad", queue="high")
    b = queue.enqueue("bad", queue="low")
    c = queue.enqueue("other", queue="low")
    cancelled = queue.enqueue("bad", queue="low")
    queue.cancel(cancelled)
    queue.process_jobs({"bad": fail, "other": fail}, 1)

    assert queue.retry(type="bad", queue="low") == [b]
    assert queue.retry(queue="low") == [c]
    assert queue.retry(type="nobody") == []
    assert queue.retry() == [a]
    assert queue.get(cancelled).status == "cancelled"


def test_retry_as_a_copy_leaves_the_old_job(queue):
    old = queue.enqueue("bad", {"n": 1}, priority=3, max_attempts=1, columns={"colour": "red"})
    queue.process_jobs(HANDLERS)

    (new,) = queue.retry(old, copy=True)

    assert new > old
    job = queue.get(new)
    assert (job.status, job.payload, job.priority, job.attempts) == ("pending", {"n": 1}, 3, 0)
    assert (job.max_attempts, job.cell("colour"), job.error) == (1, "red", None)
    assert (job.worker, job.started_at, job.finished_at) == (None, None, None)
    assert queue.get(old).status == "failed"
    assert ids_of(queue.jobs()) == [old, new]
    queue.process_jobs({"bad": str})
    assert queue.get(new).status == "completed"


def test_retry_as_a_copy_in_a_file_of_nine_columns(tmp_path):
    file = tmp_path / "q.tsv"
    file.write_bytes(NINE + b"\n0123456789abcdef\tgood\t7\tfailed\t1\t1\t1\tno\t\n")
    queue = Queue(file)

    (new,) = queue.retry("0123456789abcdef", copy=True)

    assert (queue.get(new).payload, queue.get(new).status) == (7, "pending")


# --- questions


def test_jobs_are_filtered_in_the_order_they_were_added(queue):
    a = queue.enqueue("good", queue="high")
    b = queue.enqueue("bad", queue="high")
    c = queue.enqueue("good")
    d = queue.enqueue("good", queue="high", run_at=timedelta(hours=1))
    queue.process_jobs(HANDLERS, 1, queues=["high"])

    assert ids_of(queue.jobs()) == [a, b, c, d]
    assert ids_of(queue.jobs(newest=True)) == [d, c, b, a]
    assert ids_of(queue.jobs(status="pending")) == [c, d]
    assert ids_of(queue.jobs(type="good", queue="high")) == [a, d]
    assert ids_of(queue.jobs("failed")) == [b]
    assert ids_of(queue.jobs(queue="default")) == [c]
    assert ids_of(queue.jobs(limit=2)) == [a, b]
    assert ids_of(queue.jobs(type="good", newest=True, limit=2)) == [d, c]
    assert ids_of(queue.jobs(limit=0)) == []
    assert ids_of(queue.jobs(limit=9)) == [a, b, c, d]
    with pytest.raises(BadArgument, match="'done'"):
        list(queue.jobs(status="done"))


def test_jobs_of_a_worker_are_found_by_its_name_or_id(queue):
    seen = {}
    queue.enqueue("good")

    def handler(payload):
        me = current_job().worker.rpartition(".")[0]
        for worker in ("mail", me, "mai", "other", "mail.1"):
            seen[worker == me or worker] = len(list(queue.jobs(worker=worker)))

    queue.process_jobs({"good": handler}, name="mail")

    assert seen == {"mail": 1, True: 1, "mai": 0, "other": 0, "mail.1": 0}


def test_counts_are_by_one_column_or_several(queue):
    queue.enqueue_many([("good", 1), ("bad", 2), {"job_type": "good", "queue": "high"}])
    queue.process_jobs(HANDLERS, 1, queues=["default"])

    assert queue.counts() == {"completed": 1, "failed": 1, "pending": 1}
    assert queue.counts("status") == queue.counts()
    assert queue.counts("type") == {"good": 2, "bad": 1}
    assert queue.counts("queue", "status") == {
        ("default", "completed"): 1,
        ("default", "failed"): 1,
        ("high", "pending"): 1,
    }
    for name in ("nobody", "as_dict", "cells", "__class__"):
        with pytest.raises(BadArgument, match=name):
            queue.counts("status", name)


def reads(monkeypatch):
    """Count the bytes that are read from files."""
    read, real = [0], os.pread

    def pread(fd, size, offset):
        found = real(fd, size, offset)
        read[0] += len(found)
        return found

    monkeypatch.setattr(os, "pread", pread)
    return read


@pytest.mark.parametrize("newest", [False, True])
def test_jobs_is_lazy(queue, monkeypatch, newest):
    queue.enqueue_many([("good", "x" * 1000)] * 8000)
    size = os.stat(queue.path).st_size
    read = reads(monkeypatch)

    jobs = queue.jobs(newest=newest)
    assert read[0] == 0
    next(jobs)
    first = read[0]
    jobs.close()

    assert size > 8_000_000 and first < 1_200_000


def test_a_job_is_looked_up_by_its_id_in_a_few_reads(queue, monkeypatch):
    ids = queue.enqueue_many([("good", "x" * 300)] * 5000)
    read = reads(monkeypatch)

    for job_id in (ids[0], ids[1234], ids[-1]):
        read[0] = 0
        assert queue.get(job_id).id == job_id
        assert read[0] < 100_000


@pytest.mark.soak
@pytest.mark.parametrize("longest", [50, 5_000, 200_000])
def test_the_newest_first_are_the_same_rows_backwards(queue, longest):
    sizes = [longest * step % (longest + 7) for step in range(1, 60)]
    ids = queue.enqueue_many([("good", "x" * size) for size in sizes])

    assert ids_of(queue.jobs(newest=True)) == ids[::-1]
    assert [queue.get(job_id).id for job_id in ids] == ids
    with open(queue.path, "ab") as file:
        file.write(b"0123456789abcdef\tgood\t{}\tpending\t1\t1\t0\t\t")
    assert ids_of(queue.jobs(newest=True)) == ids[::-1]
    assert ids_of(queue.jobs()) == ids


def test_rows_out_of_the_order_of_their_ids_are_found_too(queue):
    ids = queue.enqueue_many([("good", "x" * 200)] * 2000)
    lines = content(queue).split(b"\n")
    mixed = [lines[0], *lines[-2:0:-1], b""]

    Path(queue.path).write_bytes(b"\n".join(mixed))

    assert [queue.get(job_id).id for job_id in ids[::100]] == ids[::100]
    assert queue.cancel(ids[777])
    assert queue.get(ids[777]).status == "cancelled"


def test_p24_a_job_that_has_just_finished_is_never_shown_as_running(queue):
    first, second, third = queue.enqueue_many([("good", 1), ("bad", 2), ("look", 3)])
    # one claim takes the next two as well
    queue.enqueue_many([("good", 0)] * 3)
    seen = {}

    def look(payload):
        seen["rows"] = [line.split(b"\t")[3] for line in content(queue).split(b"\n")[1:4]]
        seen["get"] = [queue.get(one).status for one in (first, second, third)]
        seen["jobs"] = [job.status for job in queue.jobs()][:3]
        seen["newest"] = [job.status for job in queue.jobs(newest=True)][::-1][:3]
        seen["counts"] = queue.counts("type", "status")
        seen["result"] = queue.get_job(first)["result"]
        seen["error"] = queue.get_job(second)["error"]

    queue.process_jobs({**HANDLERS, "look": look}, 1)

    assert seen["get"] == seen["jobs"] == seen["newest"] == ["completed", "failed", "processing"]
    assert (seen["result"], seen["error"]) == ("1", "ValueError: not today")
    assert seen["counts"]["bad", "failed"] == 1
    assert b"processing" in seen["rows"][1]  # the file itself lags, and only the file


# --- wait, workers, stop


def test_wait_returns_the_finished_job(queue):
    done = queue.enqueue("good", 1)
    queue.process_jobs(HANDLERS)

    assert queue.wait(done).result == "1"
    assert queue.wait(done, 0).status == "completed"


def test_wait_gives_up_after_its_timeout(queue):
    job_id = queue.enqueue("good")

    with pytest.raises(TimeoutError, match=f"{job_id} is pending"):
        queue.wait(job_id, 0.02)
    with pytest.raises(TimeoutError):
        queue.wait(job_id, 0)


@pytest.mark.parametrize("job_id", ["0" * 16, "nonsense"])
def test_wait_for_an_id_that_nobody_has_is_an_error_at_once(queue, job_id):
    queue.enqueue("good")

    with pytest.raises(UnknownJob, match=job_id):
        queue.wait(job_id)


def test_wait_sees_what_another_thread_runs(queue):
    job_id = queue.enqueue("good", 7)
    thread = threading.Thread(target=queue.process_jobs, args=[HANDLERS])

    thread.start()
    job = queue.wait(job_id, 10)
    thread.join()

    assert (job.status, job.result) == ("completed", "7")


def test_workers_are_those_that_live_and_what_they_run(queue):
    job_id, seen = queue.enqueue("good", queue="high"), []

    queue.process_jobs(
        {"good": lambda payload: seen.extend(queue.workers()), "b:c": str},
        name="mail",
        queues=["high", "low"],
    )

    (worker,) = seen
    assert worker.id.startswith("mail-")
    assert (worker.name, worker.pid) == ("mail", os.getpid())
    assert (worker.queues, worker.types) == (["high", "low"], ["good", "b:c"])
    assert list(worker.jobs) == [job_id]
    assert abs(worker.started_at - time.time()) < 60
    assert queue.workers() == []


def test_stop_asks_a_busy_worker_to_stop_as_sigterm_does(queue):
    """A worker whose jobs are quick, and which never runs out of them, hears it too."""
    begun, asked = time.monotonic(), []

    def again(payload):
        queue.enqueue("again")
        if not asked:
            asked.extend(queue.stop("no such name"))
            asked.extend(queue.stop("mail"))
        time.sleep(0.002)

    queue.enqueue("again")

    queue.process_jobs({"again": again}, name="mail", run_for=5, max_jobs=1500)

    assert [worker.name for worker in asked] == ["mail"]
    assert time.monotonic() - begun < 2.5
    assert queue.counts("status").keys() == {"completed", "pending"}
    assert queue.workers() == []
    assert not list(Path(queue.path + ".d").glob("workers/*"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts them in /proc")
def test_no_verb_leaves_a_descriptor_open(queue, tmp_path):
    def every_verb():
        ids = queue.enqueue_many([("good", 1), ("bad", 2), ("good", 3), ("other", 4)])
        queue.cancel(ids[2])
        queue.process_jobs(HANDLERS, 1)
        queue.process_jobs(HANDLERS, run_for=0.01)
        queue.retry(ids[1], copy=True)
        queue.backup(tmp_path / "copy.tsv")
        with freeze_time(timedelta(days=1)):
            queue.archive(60)
        queue.get(ids[0]), queue.get(ids[3]), queue.get("0" * 16)
        next(queue.jobs()), next(queue.jobs(newest=True)), list(queue.jobs()), queue.counts()
        queue.workers(), queue.stop(), queue.purge()
        with pytest.raises(TimeoutError):
            queue.wait(ids[3], 0)

    every_verb()
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(3):
        every_verb()

    assert len(os.listdir("/proc/self/fd")) <= before  # what other tests left may go meanwhile


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts them in /proc")
@pytest.mark.parametrize("kept", [1, 200], ids=["and forgotten", "and kept"])
def test_a_queue_made_for_each_call_does_not_use_up_the_descriptors(kept, tmp_path):
    queues = []

    for _ in range(200):
        queues = [*queues, Queue(tmp_path / "q.tsv", sync="off")][-kept:]
        queues[-1].enqueue("note")

    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    names = [os.readlink(fd) for fd in fds if os.path.lexists(fd)]
    assert names.count(str(tmp_path / "q.tsv.lock")) <= min(kept, 64)


# --- listeners


def test_listeners_are_told_of_every_move_after_it(tmp_path):
    told = []

    def listener(event, job):
        told.append((event, job.id, queue.get(job.id) and queue.get(job.id).status))

    queue = Queue(tmp_path / "q.tsv", sync="off", listeners=[listener])
    a = queue.enqueue("bad")
    b, c = queue.enqueue_many([("good", 1), ("good", 2)])
    queue.process_jobs({"bad": fail}, 1)
    queue.retry(a)
    queue.cancel(a)
    queue.cancel(a)
    queue.cancel(b)
    queue.purge(ids=[b])
    with freeze_time(timedelta(days=1)):
        queue.archive(60)

    assert told == [
        ("enqueued", a, "pending"),
        ("enqueued", b, "pending"),
        ("enqueued", c, "pending"),
        ("started", a, "processing"),
        ("failed", a, "failed"),
        ("retried", a, "pending"),
        ("cancelled", a, "cancelled"),
        ("cancelled", b, "cancelled"),
        ("purged", b, None),
        ("archived", a, "cancelled"),
    ]


def test_a_listener_that_raises_hurts_nobody_and_is_logged(tmp_path, caplog):
    told = []

    def bad(event, job):
        raise RuntimeError("no network\x1b[31m")

    queue = Queue(tmp_path / "q.tsv", listeners=[bad, lambda event, job: told.append(event)])
    job_id = queue.enqueue("good")
    queue.process_jobs(HANDLERS)

    assert queue.get(job_id).status == "completed"
    assert told == ["enqueued", "started", "completed"]
    assert caplog.text.count("no network") == 3
    assert "\x1b" not in caplog.text


def test_a_listener_may_use_the_queue(tmp_path):
    def follow(event, job):
        if event == "completed" and job.payload == 1:
            queue.enqueue("good", 2)

    queue = Queue(tmp_path / "q.tsv", listeners=[follow])
    queue.enqueue("good", 1)

    for _ in range(2):
        queue.process_jobs(HANDLERS)

    assert queue.counts() == {"completed": 2}


# --- which queue


def test_the_module_functions_act_on_the_queue_of_the_working_folder(tmp_path, monkeypatch):
    here = enqueue("good", "here")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    there = enqueue("good", "there")

    assert get_job(here) is None
    assert get_job(there)["payload"] == "there"
    assert cancel_job(here) is False
    monkeypatch.chdir(tmp_path)
    assert get_job(there) is None
    assert cancel_job(here) is True
    process_jobs(HANDLERS)
    monkeypatch.chdir(tmp_path / "there")
    assert get_job(there)["status"] == "pending"
    assert (tmp_path / "data/queue.tsv").exists()
    assert (tmp_path / "there/data/queue.tsv").exists()


def test_the_module_functions_follow_the_environment_at_each_call(tmp_path, monkeypatch):
    for name in ("a.tsv", str(tmp_path / "sub" / "b.tsv"), "a.tsv"):
        monkeypatch.setenv("DBBASIC_QUEUE", name)
        enqueue("good", name)

    assert len(list(Queue("a.tsv").jobs())) == 2
    assert [job.payload for job in Queue(tmp_path / "sub" / "b.tsv").jobs()] == [
        str(tmp_path / "sub" / "b.tsv")
    ]
    assert len(list(Queue().jobs())) == 2
    monkeypatch.delenv("DBBASIC_QUEUE")
    assert Queue().path == str(tmp_path / "data" / "queue.tsv")


def test_a_relative_path_is_bound_to_the_folder_in_which_the_queue_was_made(tmp_path, monkeypatch):
    queue = Queue("q.tsv")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")

    job_id = queue.enqueue("good")

    assert queue.path == str(tmp_path / "q.tsv")
    assert Queue(tmp_path / "q.tsv").get(job_id).type == "good"


@pytest.mark.parametrize("sync", ["on", "FULL", "yes", "0"])
def test_sync_is_one_of_three_words(tmp_path, monkeypatch, sync):
    with pytest.raises(BadArgument, match=sync):
        Queue(sync=sync)
    monkeypatch.setenv("DBBASIC_QUEUE_SYNC", sync)
    with pytest.raises(BadArgument, match=sync):
        Queue()
    with pytest.raises(BadArgument, match=sync):
        enqueue("good")

    assert Queue(sync="full").sync == "full"
    assert list(tmp_path.iterdir()) == []


def test_sync_is_the_argument_else_the_environment_else_normal(monkeypatch):
    assert Queue().sync == "normal"
    monkeypatch.setenv("DBBASIC_QUEUE_SYNC", "off")
    assert (Queue().sync, Queue(sync="full").sync) == ("off", "full")


@pytest.mark.parametrize("sync", ["off", "normal", "full"])
def test_each_way_of_syncing_runs_a_job(tmp_path, sync):
    queue = Queue(tmp_path / "q.tsv", sync=sync)
    good, bad = queue.enqueue("good"), queue.enqueue("bad")

    queue.process_jobs(HANDLERS, 1)

    assert (queue.get(good).status, queue.get(bad).status) == ("completed", "failed")


def test_two_queue_objects_of_one_file_see_the_same(tmp_path):
    os.symlink(tmp_path / "q.tsv", tmp_path / "link.tsv")
    one, two, link = (Queue(tmp_path / name) for name in ("q.tsv", "q.tsv", "link.tsv"))

    ids = [queue.enqueue("good") for queue in (one, two, link, two, one)]

    assert ids_of(one.jobs()) == ids_of(two.jobs()) == ids_of(link.jobs()) == ids
    assert two.cancel(ids[0]) and link.cancel(ids[1])
    one.process_jobs(HANDLERS)
    assert two.counts() == link.counts() == {"cancelled": 2, "completed": 3}
    assert (tmp_path / "link.tsv").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link.tsv", "q.tsv", "q.tsv.d", "q.tsv.lock"]


def test_the_package_shows_what_it_exports_and_nothing_else():
    assert dir(dbbasic_queue) == sorted(
        "enqueue process_jobs get_job cancel_job Queue Job current_job Snooze Retry Discard"
        " QueueError".split()
    )
    with pytest.raises(AttributeError, match="no attribute 'dequeue'"):
        dbbasic_queue.dequeue  # noqa: B018


# --- other files


FOREIGN = {
    "a CSV file": NINE.replace(b"\t", b",") + b"\n1,2,3\n",
    "a column too few": NINE.rpartition(b"\t")[0] + b"\n",
    "two columns changed about": NINE.replace(b"id\ttype", b"type\tid") + b"\n",
    "another name": NINE.replace(b"payload", b"data") + b"\n",
    "capitals": NINE.upper() + b"\n",
    "a column before": b"n\t" + NINE + b"\n",
    "a column between": NINE.replace(b"\terror", b"\tnote\terror") + b"\n",
    "a byte order mark": b"\xef\xbb\xbf" + NINE + b"\n",
    "Windows lines": NINE + b"\r\n",
    "a column twice": NINE + b"\tzone\tzone\n",
    "an empty first line": b"\n" + NINE + b"\n",
    "no header": b"0123456789abcdef\tgood\t{}\tpending\t1\t1\t0\t\t\n",
    "a text": b"Lieber Leser,\nhier ist keine Zeile.\n",
    "no end of line": b"a text that goes on and on",
    "Latin-1": b"caf\xe9\n",
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe\n",
    "NULs": bytes(5000),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_p32_a_foreign_file_is_refused_by_every_verb_and_stays_as_it_is(tmp_path, data):
    file = tmp_path / "q.tsv"
    file.write_bytes(data)
    queue = Queue(file)

    for verb in (
        lambda: queue.enqueue("good"),
        lambda: queue.enqueue_many([("good", 1)]),
        lambda: queue.cancel("0" * 16),
        lambda: queue.retry(),
        lambda: queue.purge(),
        lambda: queue.archive(0),
        lambda: queue.get("0" * 16),
        lambda: list(queue.jobs()),
        lambda: list(queue.jobs(newest=True)),
        lambda: queue.counts(),
        lambda: queue.process_jobs(HANDLERS),
        lambda: queue.process_jobs(HANDLERS, run_for=0.1),
        lambda: queue.backup(tmp_path / "copy.tsv"),
        lambda: queue.edit().__enter__(),
    ):
        with pytest.raises(ForeignFile, match=r"q\.tsv:1: "):
            verb()

    assert file.read_bytes() == data
    assert not (tmp_path / "copy.tsv").exists()


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "q.tsv").mkdir()

    with pytest.raises(QueueError, match="folder"):
        Queue(tmp_path / "q.tsv").enqueue("good")


@pytest.mark.parametrize(
    "data", [b"", NINE[:20], NINE + b"\tque"], ids=["touched", "torn", "torn late"]
)
def test_a_file_that_was_only_touched_or_torn_in_its_header_is_a_queue(tmp_path, data):
    file = tmp_path / "q.tsv"
    file.write_bytes(data)
    queue = Queue(file)

    assert list(queue.jobs()) == list(queue.jobs(newest=True)) == []
    assert queue.counts() == {}
    assert queue.get("0" * 16) is None
    assert queue.cancel("0" * 16) is False
    queue.process_jobs(HANDLERS)
    job_id = queue.enqueue("good")
    queue.process_jobs(HANDLERS)

    assert queue.get(job_id).status == "completed"
    assert file.read_bytes().startswith(NINE + b"\tqueue\t")


def test_a_row_of_nine_cells_in_a_wider_file_is_a_job(queue):
    queue.enqueue("other", queue="high", priority=1)
    with open(queue.path, "ab") as file:
        file.write(b"0123456789abcdef\tgood\t7\tpending\t1760000000\t1760000000\t0\t\t\n")
    queue.enqueue("other")

    job = queue.get("0123456789abcdef")
    assert (job.type, job.payload, job.queue, job.group) == ("good", 7, "default", None)
    queue.process_jobs(HANDLERS)

    assert queue.get("0123456789abcdef").result == "7"
    widths = {line.count(b"\t") for line in content(queue).split(b"\n")[:-1]}
    assert len(widths) == 1


def test_a_file_of_nine_columns_is_used_as_it_is_and_widened_at_the_first_edit(tmp_path):
    file = tmp_path / "q.tsv"
    old = b"0123456789abcdef\tgood\t7\tpending\t1760000000\t1760000000\t0\t\t\n"
    file.write_bytes(NINE + b"\n" + old)
    queue = Queue(file)

    plain = queue.enqueue("good", 8)
    assert file.read_bytes().startswith(NINE + b"\n" + old)
    late = queue.enqueue("good", 9, priority=3)
    header = file.read_bytes().split(b"\n")[0]
    queue.process_jobs(HANDLERS)

    assert header.startswith(NINE + b"\tqueue\tpriority\t") and header.endswith(b"\tfinished_at")
    assert ids_of(queue.jobs(status="completed")) == ["0123456789abcdef", plain, late]
    assert queue.get(late).priority == 3


@pytest.mark.parametrize("extra", [b"zone\t", b"finished_at\tzone\t"], ids=["nine", "wide"])
def test_p32_columns_that_we_do_not_know_survive_every_edit_byte_for_byte(tmp_path, extra):
    file = tmp_path / "q.tsv"
    strange = b'\\q "x" \\u12 \xc3\xa4\\'
    row = b"0123456789abcde0\tgood\t7\tpending\t1760000000\t1760000000\t0\t\t"
    blank = b"\t" * extra.count(b"\t", 0, -1)
    file.write_bytes(
        NINE + b"\t" + extra + b"x y\n"
        + row + b"\t" + blank + strange + b"\tx\n"
        + row.replace(b"cde0", b"cde1") + b"\t" + blank + strange + b"\tx\n"
    )  # fmt: skip
    queue = Queue(file)

    queue.enqueue("good", priority=1, columns={"colour": "red"})
    queue.cancel("0123456789abcde1")
    queue.process_jobs(HANDLERS)

    lines = [line.split(b"\t") for line in file.read_bytes().split(b"\n")[:-1]]
    zone, last = lines[0].index(b"zone"), lines[0].index(b"x y")
    assert [line[zone] for line in lines[1:]] == [strange, strange, b""]
    assert [line[last] for line in lines[1:]] == [b"x", b"x", b""]
    assert lines[0][-1] == b"finished_at"
    assert queue.counts() == {"cancelled": 1, "completed": 2}


def test_a_hard_link_is_refused_by_an_edit_and_not_cut_off(queue, tmp_path):
    job_id = queue.enqueue("good")
    os.link(queue.path, tmp_path / "other-name.tsv")

    with pytest.raises(QueueError, match="hard link"):
        queue.cancel(job_id)

    assert queue.get(job_id).status == "pending"
    assert os.path.samefile(queue.path, tmp_path / "other-name.tsv")


@pytest.mark.parametrize("columns", ["colour", ({"a": "b"}, {"c": "d"})])
def test_columns_that_are_no_mapping_are_refused(queue, columns):
    with pytest.raises(BadArgument, match="is no mapping"):
        queue.enqueue("t", columns=columns)
