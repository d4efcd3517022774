"""Upkeep in a tick, by `keep=`: what is old leaves the file, seldom, and never at a job's cost."""

import itertools
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, process_jobs, upkeep
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.new import new_job

DAY = 86400
NOW = datetime(2025, 6, 15, 12, tzinfo=timezone.utc)


def fail(payload):
    raise ValueError("not today")


HANDLERS = {"good": str, "bad": fail}


@pytest.fixture
def clock():
    with freeze_time(NOW) as moved:
        yield moved


OTHERS = itertools.count()  # so that no two ids are the same


def add(queue, age, status="completed", finished=None, **cells):
    """A finished job that was added, and has ended, so long ago."""
    at = int(time.time() - age)
    job = new_job("good", None, id=f"{at * 1_000_000 + next(OTHERS):013x}000")
    done = at if finished is None else time.time() - finished
    cells = {"created_at": at, "run_at": at, "finished_at": done} | cells
    with queue.edit() as e:
        return e.add(job.replace(status=status, **cells))


def tend(queue, keep, **arguments):
    queue.process_jobs(HANDLERS, keep=keep, **arguments)


def left(queue):
    return [job.id for job in queue.jobs()]


def inode(queue):
    return os.stat(queue.path).st_ino


def stamp(queue):
    return Path(queue.path + ".d/upkeep")


def months(queue):
    return sorted(path.name for path in Path(queue.path + ".d/archive").glob("*"))


def test_each_status_stays_for_its_own_time_and_one_that_is_not_named_for_ever(queue, clock):
    completed, failed = add(queue, 8 * DAY), add(queue, 8 * DAY, "failed")
    old_failed, cancelled = add(queue, 31 * DAY, "failed"), add(queue, 900 * DAY, "cancelled")
    young = add(queue, 6 * DAY)

    tend(queue, {"completed": "7d", "failed": timedelta(days=30)})

    assert sorted(left(queue)) == sorted([failed, cancelled, young])
    assert {queue.get(id).status for id in (completed, old_failed)} == {"completed", "failed"}


def test_all_that_is_old_goes_in_one_edit(queue, clock):
    add(queue, 8 * DAY), add(queue, 8 * DAY, "failed"), add(queue, 8 * DAY, "cancelled")
    edits = []
    queue.file.replace = lambda *of: edits.append(type(queue.file).replace(queue.file, *of))

    tend(queue, dict.fromkeys(("completed", "failed", "cancelled"), "1d"))

    assert (len(edits), left(queue)) == (1, [])


def test_jobs_are_deleted_where_that_is_said_and_listeners_are_told(queue, clock):
    told = []
    ids = [add(queue, 2 * DAY), add(queue, 3 * DAY)]

    tend(
        queue,
        {"completed": DAY},
        keep_by="purge",
        listeners=[lambda event, job: told.append((event, job.id))],
    )

    assert told == [("purged", id) for id in ids]
    assert [queue.get(id) for id in ids] == [None, None]


def test_where_nothing_is_old_no_lock_is_taken_and_nothing_written(queue, clock):
    add(queue, 2 * DAY), add(queue, 3 * DAY, "failed")
    queue.process_jobs(HANDLERS)  # leaves a hint
    before = inode(queue)
    queue.file.lock = queue.file.lock_first = None  # would be called

    tend(queue, {"completed": "3d", "cancelled": 1})

    assert inode(queue) == before
    assert stamp(queue).exists()


def test_the_look_ends_at_the_first_row_that_is_too_young(queue, clock):
    add(queue, 2 * DAY)
    add(queue, 60)
    fd = os.open(queue.path, os.O_RDONLY)
    header = queue.file.header
    old = upkeep._Old({"completed": DAY}, time.time())
    behind = add(queue, 3 * DAY)  # where no such row is: somebody moved lines

    found = list(old.jobs(fd, header, len(header.line) + 1, os.fstat(fd).st_size))

    os.close(fd)
    assert behind not in [job.id for job in found]
    assert len(found) == 1


def test_a_row_of_a_clock_that_was_wrong_hides_no_old_ones_behind_it(queue, clock):
    future = add(queue, 0, created_at=int(time.time()) + 9 * 365 * DAY)
    old = add(queue, 8 * DAY)

    tend(queue, {"completed": "7d"})

    assert left(queue) == [future]
    assert queue.get(old)


def test_upkeep_is_done_once_an_hour_over_all_workers(queue, clock):
    young = add(queue, 0)
    tend(queue, {"completed": 60})
    clock.tick(3500)
    Queue(queue.path).process_jobs(HANDLERS, keep={"completed": 60})

    assert left(queue) == [young]

    clock.tick(101)
    Queue(queue.path).process_jobs(HANDLERS, keep={"completed": 60})

    assert left(queue) == []


def test_a_stamp_that_is_to_come_stops_nothing(queue, clock):
    add(queue, 8 * DAY)
    tend(queue, {})
    later = time.time() + 9 * 365 * DAY
    os.utime(stamp(queue), (later, later))

    tend(queue, {"completed": "7d"})

    assert left(queue) == []
    assert stamp(queue).stat().st_mtime == time.time()


def test_a_worker_that_goes_on_tends_too(queue, clock):
    add(queue, 8 * DAY)
    queue.enqueue("good")

    tend(queue, {"completed": "7d"}, run_for=0.2, max_jobs=1)

    assert queue.counts() == {"completed": 1}


def test_what_a_job_says_of_itself_wins(queue, clock):
    add(queue, 7200, keep="1h"), add(queue, 7200, "failed", keep="1.5h")
    stays = [
        add(queue, 99 * DAY, keep="for_ever"),
        add(queue, 99 * DAY, keep="100d"),
        add(queue, 99 * DAY, "cancelled"),
        add(queue, 99 * DAY, keep="a while"),  # rather kept than lost
        add(queue, 7200),
    ]

    tend(queue, {"completed": "7d"}, keep_by="purge")

    assert left(queue) == stays


def test_with_nothing_named_jobs_have_what_they_say_of_themselves(queue, clock):
    queue.enqueue("good", columns={"keep": "1h"})
    stays = queue.enqueue("good")
    tend(queue, {})
    clock.tick(3601)

    tend(queue, {}, keep_by="purge")

    assert left(queue) == [stays]


def test_a_job_that_an_unfinished_one_waits_for_stays(queue, clock):
    parent, member = add(queue, 8 * DAY), add(queue, 8 * DAY, group="g")
    free = add(queue, 8 * DAY)
    child = queue.enqueue("later", after=f"ok:{parent} ok:@g")

    tend(queue, {"completed": "7d"}, keep_by="purge")

    assert left(queue) == [parent, member, child]
    assert queue.get(free) is None


def test_more_than_one_edit_may_hold_goes_in_the_next(queue, clock, monkeypatch):
    monkeypatch.setattr(upkeep, "MOST", 2)
    for age in range(9, 4, -1):
        add(queue, age * DAY)

    counts = []
    for _ in range(4):
        tend(queue, {"completed": 1})
        counts.append(len(left(queue)))

    assert counts == [3, 1, 0, 0]
    assert stamp(queue).stat().st_mtime == time.time()


def test_an_archive_goes_when_all_of_it_is_old(queue, clock):
    for age in (150, 75, 44, 20):  # January, and of one job each April, May, and the last month
        add(queue, age * DAY)
    queue.archive(0)
    before = months(queue)

    tend(queue, {"archive": "50d"})

    assert before == ["2025-01.tsv", "2025-04.tsv", "2025-05.tsv"]
    assert months(queue) == ["2025-04.tsv", "2025-05.tsv"] or months(queue) == ["2025-05.tsv"]


def test_an_archive_with_one_younger_end_or_a_line_that_cannot_be_read_stays(queue, clock):
    add(queue, 150 * DAY), add(queue, 149 * DAY, finished=3 * DAY), add(queue, 100 * DAY)
    queue.archive(0)
    march = Path(queue.path + ".d/archive/2025-03.tsv")
    march.write_bytes(march.read_bytes() + b"what is this\n")

    tend(queue, {"archive": "50d"})

    assert months(queue) == ["2025-01.tsv", "2025-03.tsv"]


def test_an_archive_that_holds_what_a_job_waits_for_stays(queue, clock):
    parent = add(queue, 150 * DAY)
    queue.archive(0)
    child = queue.enqueue("good", after=parent, run_at=timedelta(days=1))

    tend(queue, {"archive": "50d"})
    clock.tick(2 * DAY)
    queue.process_jobs(HANDLERS)

    assert queue.get(child).status == "completed"


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ({"done": "7d"}, "'done'"),
        ({"completed": "7 days"}, r"keep\['completed'\]='7 days'"),
        ({"failed": -1}, r"keep\['failed'\]"),
        ({"failed": True}, r"keep\['failed'\]"),
        ({"archive": None}, r"keep\['archive'\]"),
        ({"cancelled": float("nan")}, r"keep\['cancelled'\]"),
        (["completed"], "no mapping"),
        ({3: "7d"}, "keep has 3"),
    ],
)
def test_a_bad_value_is_refused_before_anything_runs(queue, keep, said):
    queue.enqueue("good")

    with pytest.raises(BadArgument, match=said):
        tend(queue, keep)

    assert queue.counts() == {"pending": 1}


def test_a_bad_way_is_refused(queue):
    with pytest.raises(BadArgument, match="keep_by='burn'"):
        tend(queue, {"completed": 1}, keep_by="burn")


def test_an_upkeep_that_cannot_be_done_stops_no_job(queue, clock, caplog):
    add(queue, 8 * DAY)
    Path(queue.path + ".d").mkdir(exist_ok=True)
    Path(queue.path + ".d/archive").write_text("no folder")
    id = queue.enqueue("good")

    tend(queue, {"completed": "7d"})

    assert queue.get(id).status == "completed"
    assert "no upkeep" in caplog.text
    assert len(left(queue)) == 2


def test_a_link_in_the_place_of_the_stamp_is_not_followed(queue, clock, tmp_path):
    add(queue, 8 * DAY)
    other = tmp_path / "precious"
    other.write_text("mine")
    os.utime(other, (1, 1))
    Path(queue.path + ".d").mkdir(exist_ok=True)
    stamp(queue).symlink_to(other)

    tend(queue, {"completed": "7d"})

    assert (other.read_text(), other.stat().st_mtime) == ("mine", 1)


def test_output_of_jobs_that_are_nowhere_goes(queue, clock):
    here, archived = add(queue, DAY), add(queue, 2 * DAY)
    queue.archive(1.5 * DAY)
    folder = Path(queue.path + ".d/output")
    folder.mkdir()
    gone, young = "0123456789abcdef", "0123456789abcdee"
    for name in (here, archived, gone, young, "note"):
        (folder / f"{name}.log").write_text("…")
        os.utime(folder / f"{name}.log", (1, 1))
    os.utime(folder / f"{young}.log")
    clock.move_to(datetime.now().astimezone())
    os.utime(folder / f"{young}.log", (time.time(), time.time()))

    tend(queue, {})

    names = {path.stem for path in folder.iterdir()}
    assert names == {here, archived, young, "note"}


def test_the_default_queue_is_tended_by_a_tick_that_has_nothing_else_to_do(clock):
    queue = Queue(sync="off")
    old = add(queue, 8 * DAY)
    process_jobs(HANDLERS)  # leaves a hint

    process_jobs(HANDLERS, keep={"completed": "7d"}, keep_by="purge")

    assert queue.get(old) is None


@pytest.mark.soak
def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path, run_python):
    queue = Queue(tmp_path / "queue.tsv", sync="off")
    with freeze_time(NOW), queue.edit() as e:
        e.add_all([
            new_job("good", n).replace(status="completed", finished_at=1) for n in range(3000)
        ])  # fmt: skip
    ids = left(queue)
    code = """
        from dbbasic_queue import Queue, upkeep
        upkeep.MOST = 500
        upkeep.TENDED = -1
        print(flush=True)
        for _ in range(20):
            Queue("queue.tsv").process_jobs({}, keep={"completed": 1})
    """
    for pause in range(40):
        child = run_python(code)
        child.stdout.readline()
        time.sleep(pause / 400)
        child.kill()
        child.wait()
        assert sum(queue.get(id) is not None for id in ids[::97]) == len(ids[::97])

    tend(queue, {"completed": 1})
    archived = [
        line.split(b"\t")[0].decode()
        for path in Path(queue.path + ".d/archive").glob("*.tsv")
        for line in path.read_bytes().split(b"\n")[1:-1]
    ]
    assert len(archived) == len(set(archived))
    assert set(archived) | set(left(queue)) == set(ids)


def test_a_duration_in_words_has_a_unit_and_keep_by_is_checked_without_keep(queue):
    with pytest.raises(BadArgument, match="'7' has no unit"):
        queue.process_jobs({}, keep={"completed": "7"})
    with pytest.raises(BadArgument, match="keep_by='delete'"):
        queue.process_jobs({}, keep_by="delete")
