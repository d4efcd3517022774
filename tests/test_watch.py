"""`watch`: what happens to jobs, seen from another process; no final state is missed."""

import asyncio
import collections
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Discard, Queue, Snooze, current_job
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.events import awatch, watch
from dbbasic_queue.events.tails import Journal
from dbbasic_queue.events.watcher import Watcher
from dbbasic_queue.journal import line

FINAL = ("completed", "failed", "cancelled")


@pytest.fixture
def watcher(queue):
    queue.enqueue("first")
    found = Watcher(queue)
    yield found
    found.close()


def told(watcher):
    """What a look tells, however little time has gone by since the last one."""
    watcher._compare_from = 0.0
    return [(change.event, change.job.id) for change in watcher.look()]


def open_files():
    gc.collect()
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(link) for link in links if os.path.islink(link))


def fail(payload):
    raise Discard("no such user")


HANDLERS = {"first": str, "good": str, "bad": fail}


def test_a_watch_begins_with_what_comes_next(queue, watcher):
    [first] = queue.jobs()

    queue.cancel(first.id)

    assert told(watcher) == [("cancelled", first.id)]
    assert told(watcher) == []


def test_a_job_that_came_and_ended_between_two_looks_is_told(queue, watcher):
    [first] = queue.jobs()
    good, bad = queue.enqueue_many([("good", 1), ("bad", 2)])

    queue.process_jobs(HANDLERS, 1)

    assert told(watcher) == [
        ("completed", first.id),
        ("enqueued", good),
        ("completed", good),
        ("enqueued", bad),
        ("failed", bad),
    ]


def test_a_job_that_failed_again_between_two_looks_is_told_again(queue, watcher):
    bad = queue.enqueue("bad")
    queue.process_jobs(HANDLERS, 1)
    told(watcher)

    queue.retry(bad)
    queue.process_jobs(HANDLERS, 1)

    assert told(watcher) == [("failed", bad)]


def test_a_retried_job_is_told(queue, watcher):
    [first] = queue.jobs()
    queue.cancel(first.id)
    told(watcher)

    queue.retry(first.id)

    assert told(watcher) == [("retried", first.id)]


def test_what_was_archived_at_once_is_told_with_its_end(queue, watcher):
    [first] = queue.jobs()
    good = queue.enqueue("good")
    queue.process_jobs(HANDLERS)

    with freeze_time("2040-01-01"):
        queue.archive(0)

    assert told(watcher) == [
        ("completed", first.id),
        ("archived", first.id),
        ("enqueued", good),
        ("completed", good),
        ("archived", good),
    ]
    assert told(watcher) == []


def test_an_archive_that_is_given_more_columns_is_told_once(queue, watcher):
    queue.enqueue_many([("good", n) for n in range(400)])
    with queue.edit() as e:
        for job in list(e.scan()):
            e.change(job, status="cancelled", finished_at=1.0)
    with freeze_time("2040-01-01"):
        queue.archive(0)
    told(watcher)
    more = queue.enqueue("good", columns={"mine": "x"})
    queue.cancel(more)

    with freeze_time("2040-01-01"):
        queue.archive(0)

    assert told(watcher) == [("enqueued", more), ("cancelled", more), ("archived", more)]


def test_what_was_deleted_is_told_as_purged(queue, watcher):
    [first] = queue.jobs()
    queue.cancel(first.id)
    told(watcher)

    queue.purge()

    assert told(watcher) == [("purged", first.id)]


def test_a_running_job_is_told_from_its_workers_file(queue, watcher):
    [first] = queue.jobs()
    seen = []

    def handler(payload):
        seen.append(told(watcher))
        current_job().record(mine="half")
        seen.append(told(watcher))

    def after(payload):
        seen.append(told(watcher))

    last = queue.enqueue("good")
    queue.process_jobs({"first": handler, "good": after}, admit=[lambda job, count: None])
    queue.process_jobs({"first": handler, "good": after})

    assert seen == [
        [("enqueued", last), ("started", first.id)],
        [("progressed", first.id)],
        [("completed", first.id), ("started", last)],
    ]
    assert told(watcher) == [("completed", last)]


def test_an_outcome_is_told_while_the_file_is_too_long_to_be_compared_now(queue, watcher):
    [first] = queue.jobs()
    seen = []

    def handler(payload):
        watcher._compare_from = float("inf")
        seen.extend((change.event, change.job.id) for change in watcher.look())

    new = queue.enqueue("good")
    queue.process_jobs({"first": handler, "good": handler})

    assert seen == [
        ("started", first.id),
        ("completed", first.id),
        ("enqueued", new),
        ("started", new),
    ]
    assert told(watcher) == [("completed", new)]


def test_a_job_that_is_put_back_or_tried_again_is_told(queue, watcher):
    def later(payload):
        raise Snooze(60)

    def again(payload):
        told(watcher)
        raise RuntimeError("busy")

    later_id, again_id = queue.enqueue_many([("later", 1), ("again", 2)])
    queue.process_jobs({"later": later, "again": again})

    assert told(watcher) == [("retried", again_id)]
    assert queue.get(later_id).status == "pending"


def test_the_death_of_a_worker_in_the_last_attempt_is_told_as_a_failure(queue, run_python):
    job_id = queue.enqueue("die")
    watcher = Watcher(queue)
    code = f"""
        import os
        from dbbasic_queue import Queue
        Queue({queue.path!r}).process_jobs({{"die": lambda payload: os.kill(os.getpid(), 9)}}, 1)
    """
    assert run_python(code).wait() == -signal.SIGKILL
    assert told(watcher) == [("started", job_id)]

    queue.process_jobs({"die": str})

    assert told(watcher) == [("failed", job_id)]
    watcher.close()


# --- the file


def test_a_file_that_goes_and_comes_back_is_compared_with_what_it_was(queue, watcher):
    [first] = queue.jobs()
    os.rename(queue.path, queue.path + ".away")
    assert told(watcher) == []
    os.rename(queue.path + ".away", queue.path)
    assert told(watcher) == []

    queue.cancel(first.id)

    assert told(watcher) == [("cancelled", first.id)]


def test_a_backup_that_is_put_back_is_told_as_what_it_changes(queue, watcher):
    [first] = queue.jobs()
    queue.backup(queue.path + ".backup")
    queue.cancel(first.id)
    new = queue.enqueue("good")
    told(watcher)

    os.rename(queue.path + ".backup", queue.path)

    assert sorted(told(watcher)) == sorted([("retried", first.id), ("purged", new)])


def test_a_file_that_is_emptied_is_compared_when_it_has_rows_again(queue, watcher):
    [first] = queue.jobs()
    os.rename(queue.path, queue.path + ".away")
    with open(queue.path, "wb"):
        pass
    assert told(watcher) == []

    new = queue.enqueue("good")

    assert sorted(told(watcher)) == sorted([("purged", first.id), ("enqueued", new)])


def test_a_file_that_is_written_in_place_is_told_by_its_times(queue, watcher):
    first = queue.enqueue("good")
    told(watcher)
    twin = Queue(queue.path + ".twin")
    shutil.copy(queue.path, twin.path)
    twin.cancel(first)

    shutil.copyfile(twin.path, queue.path)

    assert told(watcher) == [("cancelled", first)]
    assert told(watcher) == []


def test_torn_and_bad_lines_are_no_changes(queue, watcher):
    with open(queue.path, "ab") as file:
        file.write(b"nonsense\n\n\xff\t\xff\n0123456789abcdef\tgood\tnull\tpen")

    assert told(watcher) == []

    new = queue.enqueue("good")
    assert told(watcher) == [("enqueued", new)]


def test_a_file_of_nine_columns_is_followed_when_it_is_widened(tmp_path):
    queue = Queue(tmp_path / "old.tsv")
    head = "id type payload status created_at run_at attempts error result".replace(" ", "\t")
    rows = "".join(f"{n:016x}\tgood\tnull\tpending\t1\t1\t0\t\t\n" for n in range(1, 2000))
    (tmp_path / "old.tsv").write_text(f"{head}\n{rows}")
    watcher = Watcher(queue)

    queue.cancel(f"{7:016x}")

    assert told(watcher) == [("cancelled", f"{7:016x}")]
    watcher.close()


def test_a_watch_of_no_file_waits_for_it(queue):
    watcher = Watcher(queue)
    assert told(watcher) == []

    job_id = queue.enqueue("good")

    assert told(watcher) == [("enqueued", job_id)]
    watcher.close()


@pytest.mark.soak
def test_deleted_rows_among_many_are_told_and_no_other(queue):
    ids = queue.enqueue_many([("good", n) for n in range(9000)])
    chosen = {*ids[100:200], *ids[3000:8000:2], ids[0], ids[-1]}
    watcher = Watcher(queue)

    queue.purge(ids=chosen, status="pending")
    new = queue.enqueue("good")

    assert sorted(told(watcher)) == sorted(
        [("enqueued", new), *(("purged", job_id) for job_id in chosen)]
    )
    watcher.close()


def test_changes_are_those_of_a_random_edit(queue):
    chance = random.Random(5)
    ids = queue.enqueue_many([("good", "x" * chance.randrange(300)) for n in range(800)])
    watcher = Watcher(queue)
    for _ in range(6):
        before = {job.id: job.status for job in queue.jobs()}
        with queue.edit() as e:
            for job_id in chance.sample(ids, 40):
                job = e.get(job_id)
                if job and chance.random() < 0.3:
                    e.remove(job)
                elif job and job.status == "pending":
                    e.change(job, status="cancelled", error="y" * chance.randrange(500))
        after = {job.id: job.status for job in queue.jobs()}

        assert sorted(told(watcher)) == sorted(
            [("purged", id) for id in before.keys() - after]
            + [("cancelled", id) for id in after if after[id] != before[id]]
        )
    watcher.close()


def test_a_job_in_both_files_is_told_as_archived_when_it_is_gone_from_the_queue(queue, watcher):
    [first] = queue.jobs()
    queue.cancel(first.id)
    shutil.copy(queue.path, queue.path + ".before")
    with freeze_time("2040-01-01"):
        queue.archive(0)
    os.rename(queue.path, queue.path + ".after")
    os.rename(queue.path + ".before", queue.path)
    assert told(watcher) == [("cancelled", first.id)]

    os.rename(queue.path + ".after", queue.path)

    assert told(watcher) == [("archived", first.id)]


def test_a_workers_file_that_is_cut_back_is_read_on(tmp_path):
    path = tmp_path / "w-1-abc.tsv"
    head = line(b"0", b"worker", b"w", 0, b"1.000", {})
    lines = [line(b"1", b"start", b"%d" % n, 1, b"2.000", {}) for n in range(5)]
    journal = Journal(str(path))

    path.write_bytes(head + b"".join(lines[:2]) + bytes(1000))
    first = journal.news()
    path.write_bytes(head + b"".join(lines[:3]) + bytes(900))
    second = journal.news()
    path.write_bytes(head + b"".join(lines[3:]) + lines[4][:9])
    third = journal.news()

    told = [[entry.id for entry in news] for news in (first, second, third)]
    assert told == [[b"w", b"0", b"1"], [b"2"], [b"w", b"3", b"4"]]
    assert journal.news() == []


# --- the iterator


def test_an_unknown_event_is_refused(queue):
    with pytest.raises(BadArgument, match="'ended'"):
        watch("ended", queue_file=queue)


def test_since_begins_with_what_has_happened(queue):
    begun = time.time() - 5
    good = queue.enqueue("good")
    queue.process_jobs(HANDLERS)

    found = list(watch(since=begun, timeout=0, queue_file=queue))

    assert [(event, job.id) for event, job in found] == [("enqueued", good), ("completed", good)]
    assert list(watch(since=time.time() + 9, timeout=0, queue_file=queue)) == []


@pytest.mark.soak
def test_a_watch_tells_only_what_is_wanted_and_ends(queue):
    queue.enqueue("other", queue="b")
    found = watch("enqueued", type="good", queue="b", until=lambda: True, queue_file=queue)
    queue.enqueue("good")
    wanted = queue.enqueue("good", queue="b")
    queue.cancel(wanted)

    assert [(event, job.id) for event, job in found] == [("enqueued", wanted)]


@pytest.mark.soak
def test_a_closed_watch_leaves_nothing_open(queue):
    queue.enqueue("good")
    with freeze_time("2040-01-01"):
        queue.cancel(queue.enqueue("good"))
    queue.enqueue("good")
    before = open_files()

    with watch(queue_file=queue) as found:
        queue.enqueue("good")
        assert next(found).event == "enqueued"
    unused = watch(queue_file=queue)
    del unused

    assert open_files() == before
    assert list(found) == []


def test_an_idle_look_is_one_stat(queue, watcher, monkeypatch):
    told(watcher)
    calls = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda *given, **more: calls.append(given) or real(*given))
    monkeypatch.setattr(os, "open", None)

    assert told(watcher) == []
    assert calls == [(queue.path,)]


@pytest.mark.soak
def test_an_async_watch_tells_the_same(queue):
    queue.enqueue("first")

    async def first_two():
        found = []
        async for event, job in awatch("completed", "enqueued", timeout=20, queue_file=queue):
            found.append((event, job.type))
            if len(found) == 3:
                return found

    async def both():
        task = asyncio.create_task(first_two())
        await asyncio.sleep(0.15)
        queue.enqueue("good")
        await asyncio.to_thread(queue.process_jobs, HANDLERS)
        return await task

    assert sorted(asyncio.run(both())) == [
        ("completed", "first"),
        ("completed", "good"),
        ("enqueued", "good"),
    ]


# --- from another process


WATCHER = """
    import os, select, sys
    from dbbasic_queue import Queue
    from dbbasic_queue.events import watch

    def over():
        return select.select([0], [], [], 0)[0]

    for event, job in watch(queue_file=Queue(PATH), until=over):
        print(event, job.id, job.status, job.finished_at, sep="\\t", flush=True)
"""
WORKER = """
    import os, random, time
    from dbbasic_queue import Discard, Queue, Snooze
    chance = random.Random(SEED)

    def handler(payload):
        dice = chance.random()
        if dice < 0.02:
            os.kill(os.getpid(), 9)
        if dice < 0.1:
            raise RuntimeError("busy")
        if dice < 0.15:
            raise Discard("no")
        if dice < 0.17:
            raise Snooze(0)
        if dice < 0.3:
            time.sleep(dice / 30)

    queue = Queue(PATH, sync="off")
    queue.process_jobs({"t": handler}, 3, run_for=20, backoff="none", max_workers=9)
"""
PRODUCER = """
    import random, time
    from dbbasic_queue import Queue
    chance = random.Random(SEED)
    queue = Queue(PATH, sync="off")
    for _ in range(60):
        queue.enqueue_many([("t", "x" * chance.randrange(200)) for _ in range(chance.randrange(9))])
        time.sleep(chance.random() / 40)
"""


def final_states(queue):
    """Return each job's end as the file and the archive have it."""
    found = {job.id: (job.status, job.finished_at) for job in queue.jobs() if job.finished}
    folder = os.path.join(queue.path + ".d", "archive")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        with open(os.path.join(folder, name)) as lines:
            head = next(lines).rstrip("\n").split("\t")
            for line in lines:
                cells = dict(zip(head, line.rstrip("\n").split("\t"), strict=True))
                ended = cells["status"], float(cells["finished_at"])
                found.setdefault(cells["id"], ended)
    return found


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_every_final_state_is_told_once(queue, run_python, seed):
    chance = random.Random(seed)
    first = queue.enqueue("t")
    with open("told", "wb") as told_to:
        watching = run_python(
            WATCHER.replace("PATH", repr(queue.path)), stdin=subprocess.PIPE, stdout=told_to
        )
    time.sleep(0.3)
    queue.enqueue("t")
    children = []

    def start(code):
        number = str(chance.randrange(10**6))
        code = code.replace("PATH", repr(queue.path)).replace("SEED", number)
        children.append(run_python(code, stderr=subprocess.DEVNULL))
        return children[-1]

    producers = [start(PRODUCER), start(PRODUCER)]
    workers = [start(WORKER), start(WORKER)]
    purged, deadline = set(), time.monotonic() + 60
    while any(job.poll() is None for job in producers) or open_jobs(queue):
        assert time.monotonic() < deadline
        workers = [one if one.poll() is None else start(WORKER) for one in workers]
        dice = chance.random()
        if dice < 0.1:
            chance.choice(workers).kill()
        elif dice < 0.3:
            queue.retry()
        elif dice < 0.4:
            queue.archive(chance.choice([0, 0.2]))
        elif dice < 0.45:
            before = final_states(queue)
            queue.purge(0.5, status="completed")
            purged |= before.keys() - final_states(queue).keys()
        elif dice < 0.5:
            for job in list(queue.jobs("pending"))[:2]:
                queue.cancel(job.id)
        time.sleep(chance.random() / 20)
    for one in workers:
        one.kill()
        one.wait()
    queue.process_jobs({})
    time.sleep(0.5)
    watching.stdin.close()
    assert watching.wait(20) == 0

    told = [line.split("\t") for line in Path("told").read_text().splitlines()]
    ends = [(id, status, float(at)) for event, id, status, at in told if event in FINAL]
    expected = final_states(queue)
    assert [end for end, count in collections.Counter(ends).items() if count > 1] == []
    last = {id: (status, at) for id, status, at in ends}
    assert {id: end for id, end in expected.items() if last.get(id) != end} == {}
    assert {*last} - {*expected} <= purged
    enqueued = [id for event, id, *_ in told if event == "enqueued"]
    assert len(enqueued) == len(set(enqueued))
    assert {*expected} - {*enqueued} <= {first}


def open_jobs(queue):
    return any(not job.finished for job in queue.jobs())


# --- the command


def cli(run_python, path, words, **popen):
    code = f"import sys; from dbbasic_queue.cli import main; sys.exit(main({words!r}.split()))"
    return run_python(code, env={"DBBASIC_QUEUE": path}, **popen)


@pytest.mark.soak
def test_the_command_prints_each_change_at_once_until_it_is_idle(queue, run_python):
    queue.enqueue("good")
    child = cli(run_python, queue.path, "watch --since 1h --until-idle")
    assert " enqueued " in child.stdout.readline()

    queue.process_jobs(HANDLERS)

    assert " completed " in child.stdout.readlines()[-1]
    assert child.wait() == 0


@pytest.mark.soak
def test_the_command_ends_with_its_reader_and_at_ctrl_c(queue, run_python):
    queue.enqueue("good")
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    child = cli(run_python, queue.path, "watch --since 1h --json", **heed)
    assert json.loads(child.stdout.readline())["event"] == "enqueued"

    child.send_signal(signal.SIGINT)
    assert child.wait() == 130

    child = cli(run_python, queue.path, "watch --since 1h")
    child.stdout.readline()
    child.stdout.close()
    queue.enqueue("good")
    assert child.wait() == 0


@pytest.mark.parametrize("since", ["1 day", "60", True])
def test_since_is_a_unix_time(queue, since):
    with pytest.raises(BadArgument, match=r"time\.time\(\) - 3600"):
        watch(since=since, queue_file=queue)
