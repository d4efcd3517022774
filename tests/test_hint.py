"""What an idle tick trusts: the hint is never wrong, whoever writes the file."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Snooze, current_job, hint

FROZEN = "2025-10-09 08:53:20"
NOW = 1760000000
HANDLERS = {"good": str, "bad": lambda payload: 1 / 0}


def idle(queue):
    """Whether a tick would go home at once."""
    return hint.idle(os.path.realpath(queue.path))


def tick(queue, **options):
    queue.process_jobs(HANDLERS, 1, **options)


def content(queue):
    return Path(queue.path).read_bytes()


def stamp(queue):
    st = os.stat(queue.path)
    return st.st_ino, st.st_size, st.st_mtime_ns


def by_hand(queue, old, new):
    """Replace bytes in place and keep the inode, as some editors do."""
    data = content(queue)
    assert old in data
    with open(queue.path, "r+b") as file:
        file.write(data.replace(old, new))
        file.truncate()


def append(queue, data):
    with open(queue.path, "ab") as file:
        file.write(data)


def calm(queue):
    """A queue with one finished job, one for tomorrow and a tick behind it."""
    queue.enqueue("good")
    later = queue.enqueue("good", "later", timedelta(days=1))
    tick(queue)
    assert idle(queue)
    return later


# --- idle


def test_after_a_drain_there_is_nothing_to_do(queue):
    queue.enqueue_many([("good", n) for n in range(40)])
    assert not idle(queue)

    tick(queue)

    assert idle(queue)


def test_no_file_and_a_touched_file_are_nothing_to_do(queue):
    assert idle(queue)
    Path(queue.path).parent.mkdir()
    Path(queue.path).touch()

    assert idle(queue)


def test_p15_a_tick_with_nothing_to_do_writes_nothing_to_the_queue(queue):
    calm(queue)
    before = stamp(queue)

    for _ in range(3):
        tick(queue)
    tick(queue, run_for=0.01)
    os.unlink(queue.path + ".d/hint")
    tick(queue)

    assert stamp(queue) == before


def test_after_a_tick_only_what_has_content_is_left(queue):
    queue.enqueue("good")
    queue.enqueue("bad")

    tick(queue)

    folder = Path(queue.path).parent
    assert sorted(os.listdir(folder)) == ["queue.tsv", "queue.tsv.d", "queue.tsv.lock"]
    side = [path for path in (folder / "queue.tsv.d").rglob("*") if path.is_file()]
    assert {path.name for path in side} <= {"hint", "tick", "types"}
    assert all(path.stat().st_size for path in side)
    assert not (folder / "queue.tsv.d" / "workers").exists()


def test_an_idle_tick_takes_no_lock_and_imports_next_to_nothing(queue):
    calm(queue)
    code = f"""if 1:
        import os, sys
        os.environ["DBBASIC_QUEUE"] = {queue.path!r}
        before = set(sys.modules)
        from dbbasic_queue import process_jobs
        process_jobs({{"good": print}})
        print(*sorted(set(sys.modules) - before))
    """
    root = str(Path(hint.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": root}
    with open(queue.path + ".lock") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever asked for it would wait
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=20
        )

    assert done.stderr == ""
    heavy = {"json", "re", "logging", "dataclasses", "typing", "datetime", "pathlib", "filelock"}
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "dbbasic_queue" in loaded
    # what the interpreter had loaded before counts for nothing
    assert loaded & heavy == set()


def test_an_idle_tick_leaves_its_line_in_the_strip_of_minutes(queue):
    with freeze_time(FROZEN) as clock:
        queue.enqueue_many([("good", 1), ("good", 2)])
        tick(queue)
        tick(queue)
        strip = Path(queue.path + ".d/tick").read_bytes()
        clock.tick(60)
        queue.enqueue("good")
        tick(queue)
        clock.tick(86400)
        tick(queue)
        after = Path(queue.path + ".d/tick").read_bytes()

    place = NOW // 60 % 1440 * 32
    assert strip[place:].split() == [b"%d" % NOW, b"2"]
    assert after[place : place + 32].split() == [b"%d" % NOW, b"2"]
    assert after[place + 32 :].split() == [b"%d" % (NOW + 86460), b"0"]
    assert all(len(line) == 31 for line in after[place:].split(b"\n")[:-1])


# --- not idle any more

RUN_NOW = {
    "a job": lambda queue, later: queue.enqueue("good"),
    "many": lambda queue, later: queue.enqueue_many([("good", 1), ("good", 2)]),
    "one of a label": lambda queue, later: queue.enqueue("good", queue="high", priority=5),
    "one with a new column": lambda queue, later: queue.enqueue("good", columns={"colour": "red"}),
    "one with an id of its own": lambda queue, later: queue.enqueue("good", id="0" * 16),
    "one behind a scheduled one": lambda queue, later: (
        queue.enqueue("good", None, timedelta(days=2)),
        queue.enqueue("good"),
    ),
    "one behind a cancelled one": lambda queue, later: (
        queue.cancel(later),
        queue.enqueue("good"),
    ),
    "a row of nine cells by hand": lambda queue, later: append(
        queue, b"ffffffffffffffff\tgood\tnull\tpending\t1\t1\t0\t\t\n"
    ),
    "a row with an old id by hand": lambda queue, later: append(
        queue, b"0000000000000001\tgood\tnull\tpending\t1\t1\t0\t\t\n"
    ),
    "a row of the old package": lambda queue, later: append(
        queue, b"ffffffffffffffff\tgood\tnull\tpending\t1760000000.25\t1760000000.75\t0\t\t\n"
    ),
    "a row with one fraction": lambda queue, later: append(
        queue, b"ffffffffffffffff\tgood\tnull\tpending\t1760000000\t1760000000.75\t0\t\t\n"
    ),
    "an edit that makes one due": lambda queue, later: change(queue, later, run_at=NOW),
    "a finished one made pending": lambda queue, later: change(
        queue, next(queue.jobs()).id, status="pending"
    ),
    "a retried one": lambda queue, later: (queue.cancel(later), queue.retry(later)),
    "a copied one": lambda queue, later: (queue.cancel(later), queue.retry(later, copy=True)),
    "a hand edit of the time": lambda queue, later: by_hand(
        queue, b"\t%d\t0\t" % queue.get(later).run_at, b"\t%d\t0\t" % NOW
    ),
    "a hand edit of a status": lambda queue, later: by_hand(queue, b"completed", b"pending"),
    "a hand edit of the same length": lambda queue, later: by_hand(
        queue, b"\t%d\t0\t" % queue.get(later).run_at, b"\t1111111111\t0\t"
    ),
    "a file put in its place": lambda queue, later: (
        Path(queue.path + "~").write_bytes(content(queue).replace(b"completed", b"pending")),
        os.replace(queue.path + "~", queue.path),
    ),
    "a hint that somebody deleted": lambda queue, later: (
        queue.enqueue("good"),
        os.unlink(queue.path + ".d/hint"),
    ),
    "a hint that somebody spoilt": lambda queue, later: (
        queue.enqueue("good"),
        Path(queue.path + ".d/hint").write_bytes(b"\xff\0 nonsense"),
    ),
    "a job that now waits no more": lambda queue, later: (
        queue.enqueue("good", after=f"any:{later}"),
        tick(queue),
        queue.cancel(later),
    ),
    "a job added behind a finished parent": lambda queue, later: queue.enqueue(
        "good", after=next(queue.jobs()).id
    ),
}


def change(queue, job_id, **cells):
    with queue.edit() as e:
        e.change(e.get(job_id), **cells)


@pytest.mark.parametrize("act", RUN_NOW.values(), ids=RUN_NOW)
def test_the_next_tick_runs_what_has_become_due(queue, act):
    ran = []
    later = calm(queue)

    act(queue, later)
    assert not idle(queue)
    queue.process_jobs({"good": ran.append})

    assert ran
    assert idle(queue)


STILL_IDLE = {
    "a scheduled job": lambda queue, later: queue.enqueue("good", None, timedelta(days=2)),
    "many": lambda queue, later: queue.enqueue_many([("good", 1, timedelta(hours=1))] * 50),
    "a cancel": lambda queue, later: queue.cancel(later),
    "a purge": lambda queue, later: queue.purge(),
    "an edit of something else": lambda queue, later: change(queue, later, priority=3),
    "a later time": lambda queue, later: change(queue, later, run_at=NOW * 2),
    "a remark by hand": lambda queue, later: append(queue, b"# a remark\n"),
    "a line torn off": lambda queue, later: append(queue, b"0123456789abcdef\tgood\t{}\tpend"),
}


@pytest.mark.parametrize("act", STILL_IDLE.values(), ids=STILL_IDLE)
def test_what_makes_nothing_due_leaves_the_tick_idle(queue, act):
    later = calm(queue)

    act(queue, later)
    tick(queue)

    assert idle(queue)


@pytest.mark.parametrize("act", list(STILL_IDLE)[:6])
def test_the_hint_is_carried_over_without_a_look_at_the_whole_file(queue, act):
    later = calm(queue)

    STILL_IDLE[act](queue, later)

    assert idle(queue)


@freeze_time(FROZEN)
def test_a_scheduled_job_is_not_missed(queue):
    ran = []
    queue.enqueue("good", 1)
    queue.enqueue("good", 2, NOW + 30)
    tick(queue)
    queue.enqueue("good", 3, NOW + 20)
    tick(queue)
    queue.enqueue("good", 4, NOW + 25)

    for seconds in (10, 19, 20, 25, 29, 30, 31):
        with freeze_time(f"2025-10-09 08:53:{20 + seconds}"):
            queue.process_jobs({"good": lambda payload, at=seconds: ran.append((at, payload))})

    assert ran == [(20, 3), (25, 4), (30, 2)]


def test_a_job_that_is_tried_again_is_not_missed(queue):
    with freeze_time(FROZEN):
        job_id = queue.enqueue("bad")
        queue.process_jobs(HANDLERS, 2)
        assert idle(queue)

    with freeze_time("2025-10-09 08:54:19"):
        assert idle(queue)
    with freeze_time("2025-10-09 08:54:20"):
        assert not idle(queue)
        queue.process_jobs(HANDLERS, 2)

    assert queue.get(job_id).status == "failed"


def test_a_job_that_was_snoozed_by_nothing_is_run_by_the_next_tick(queue):
    ran = []

    def handler(payload):
        ran.append(current_job().id)
        if len(ran) == 1:
            raise Snooze(0)

    queue.enqueue("good")

    queue.process_jobs({"good": handler})
    assert not idle(queue)
    queue.process_jobs({"good": handler})

    assert len(ran) == 2


@pytest.mark.parametrize(
    "left", [{"queues": ["other"]}, {"max_jobs": 0}, {"admit": [lambda job, count: False]}], ids=str
)
def test_a_due_job_that_one_worker_leaves_is_due_for_the_next(queue, left):
    job_id = queue.enqueue("good")

    tick(queue, **left)

    assert not idle(queue)
    tick(queue)
    assert queue.get(job_id).status == "completed"


def test_a_full_look_is_taken_again_after_ten_minutes(queue):
    with freeze_time(FROZEN) as clock:
        queue.enqueue("good", None, NOW + 86400)
        tick(queue)
        clock.tick(599)
        before = idle(queue)
        clock.tick(1)
        after = idle(queue)
        tick(queue)
        again = idle(queue)

    assert (before, after, again) == (True, False, True)


def test_p28_a_clock_that_stepped_back_before_the_look_makes_it_look_again(queue):
    with freeze_time(FROZEN):
        queue.enqueue("good", None, NOW + 86400)
        tick(queue)

    with freeze_time("2025-10-09 08:00"):
        assert not idle(queue)


def test_a_file_of_a_dead_worker_makes_the_tick_look(queue, run_python):
    calm(queue)
    queue.enqueue("good")
    code = f"""
        import os
        from dbbasic_queue import Queue
        Queue({queue.path!r}).process_jobs({{"good": lambda payload: os._exit(9)}})
    """
    assert run_python(code).wait() == 9

    assert not idle(queue)
    queue.process_jobs({"good": str})

    assert queue.counts()["completed"] == 2
    assert idle(queue)


def test_a_claim_that_follows_our_own_rename_looks_at_the_file_no_more(queue, monkeypatch):
    queue.enqueue_many([("good", n) for n in range(300)])
    first_row = content(queue).index(b"\n") + 1
    looks, real = [], os.pread

    def pread(fd, count, offset):
        if offset == first_row:
            looks.append(count)
        return real(fd, count, offset)

    monkeypatch.setattr(os, "pread", pread)
    tick(queue, max_jobs=40, admit=[lambda job, count: True])  # one job a claim

    assert queue.counts() == {"completed": 40, "pending": 260}
    assert 1 <= len(looks) <= 3  # the look of the tick, and that of counts
