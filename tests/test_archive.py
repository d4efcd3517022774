"""Old jobs: archived in the month of their id, purged, or copied to a backup."""

import calendar
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, QueueError, current_job
from dbbasic_queue.errors import BadArgument

DAY = 86400


def fail(payload):
    raise ValueError("not today")


HANDLERS = {"good": str, "bad": fail}


def content(queue):
    return Path(queue.path).read_bytes()


def archive_of(queue, month):
    return Path(queue.path + ".d") / "archive" / f"{month}.tsv"


def finished(queue, at, job_type="good", /, **arguments):
    """A job whose id, and whose end, are of that time."""
    with freeze_time(at) as clock:
        microseconds = calendar.timegm(clock().timetuple()) * 1_000_000
        job_id = queue.enqueue(job_type, at, id=f"{microseconds:013x}000", **arguments)
        queue.process_jobs(HANDLERS, 1)
    return job_id


# --- archive


def test_finished_jobs_move_to_the_month_of_their_id(queue):
    january = finished(queue, "2025-01-31 23:59:59")
    february = finished(queue, "2025-02-01")
    also = finished(queue, "2025-02-20", "bad")
    with freeze_time("2025-02-21"):
        fresh, waits = queue.enqueue("good"), queue.enqueue("other")
        queue.process_jobs(HANDLERS)

    with freeze_time("2025-02-21 12:00"):
        assert queue.archive(DAY) == 3
        assert queue.archive(DAY) == 0

    assert [job.id for job in queue.jobs()] == [fresh, waits]
    header = content(queue).split(b"\n")[0]
    for month, ids in {"2025-01": [january], "2025-02": [february, also]}.items():
        lines = archive_of(queue, month).read_bytes().split(b"\n")
        assert lines[0] == header and lines[-1] == b""
        assert [line.split(b"\t")[0].decode() for line in lines[1:-1]] == ids


def test_an_archived_job_is_seen_by_get_and_by_no_other_verb(queue):
    good, bad = finished(queue, "2025-01-01"), finished(queue, "2025-01-02", "bad")
    before = queue.get_job(good)
    queue.archive(DAY)
    archived = archive_of(queue, "2025-01").read_bytes()

    assert queue.get_job(good) == before
    assert queue.get(bad).error == "ValueError: not today"
    assert queue.wait(good, 0).result == "2025-01-01"
    assert list(queue.jobs()) == []
    assert queue.counts() == {}
    assert queue.retry(bad) == queue.retry() == []
    assert queue.cancel(bad) is False
    assert queue.purge(ids=[good, bad]) == queue.purge() == 0
    with queue.edit() as e:
        assert e.get(good) is None
    assert archive_of(queue, "2025-01").read_bytes() == archived


def test_the_age_counts_from_the_end_of_a_job(queue):
    with freeze_time("2025-01-01"):
        job_id = queue.enqueue("good", id="62a99ba0c6000000")
    with freeze_time("2025-01-09 12:00"):
        queue.process_jobs(HANDLERS)

    with freeze_time("2025-01-10"):
        assert queue.archive(DAY) == queue.archive(timedelta(hours=13)) == 0
        assert queue.archive(timedelta(hours=11)) == 1

    assert queue.get(job_id).status == "completed"


@pytest.mark.parametrize("older_than", [-1, "7", None, True, float("nan"), timedelta(days=-1)])
def test_an_age_that_is_none_is_refused(queue, older_than):
    finished(queue, "2025-01-01")
    before = content(queue)

    with pytest.raises(BadArgument, match="duration"):
        queue.archive(older_than)
    if older_than is not None:
        with pytest.raises(BadArgument, match="duration"):
            queue.purge(older_than)

    assert content(queue) == before


def test_archived_again_after_a_crash_in_between_a_job_is_there_once(queue):
    ids = [finished(queue, f"2025-01-0{day}") for day in (1, 2, 3)]
    before = content(queue)
    queue.archive(DAY)

    Path(queue.path).write_bytes(before)  # as if the process had died before its rename
    finished(queue, "2025-01-04")
    assert queue.archive(DAY) == 4

    lines = archive_of(queue, "2025-01").read_bytes().split(b"\n")[1:-1]
    assert [line.split(b"\t")[0].decode() for line in lines[:3]] == ids
    assert len(lines) == 4


def test_get_takes_the_last_line_with_the_id_in_the_archive(queue):
    job_id = finished(queue, "2025-01-01")
    queue.archive(DAY)
    file = archive_of(queue, "2025-01")
    line = file.read_bytes().split(b"\n")[1]

    with open(file, "ab") as end:
        end.write(line.replace(b'"2025-01-01"', b'"again"') + b"\n")

    assert queue.get(job_id).payload == "again"


def test_a_torn_line_in_the_archive_does_not_swallow_the_next_one(queue):
    first = finished(queue, "2025-01-01")
    queue.archive(DAY)
    with open(archive_of(queue, "2025-01"), "ab") as end:
        end.write(b"0123456789abcdef\tgood\t{}\tcompl")
    second = finished(queue, "2025-01-02")

    queue.archive(DAY)

    assert [queue.get(job_id).payload for job_id in (first, second)] == ["2025-01-01", "2025-01-02"]


def test_p27_what_a_killed_archive_has_left_goes_with_the_next_one(queue):
    finished(queue, "2025-01-01")
    queue.archive(DAY)
    archive_of(queue, "2025-01").with_suffix(".tsv.tmp").write_bytes(b"id\ttype\tpayl")
    finished(queue, "2025-02-01")

    queue.archive(DAY)

    archive = Path(queue.path + ".d", "archive")
    assert sorted(os.listdir(archive)) == ["2025-01.tsv", "2025-02.tsv"]


def test_cells_of_a_column_that_came_later_are_archived_too(queue):
    plain = finished(queue, "2025-01-01")
    queue.archive(DAY)
    red = finished(queue, "2025-01-02", columns={"colour": "red\tgreen"})
    assert queue.archive(DAY) == 1
    blue = finished(queue, "2025-01-03", columns={"colour": "blue", "size": "5"})
    assert queue.archive(DAY) == 1

    assert queue.get(plain).payload == "2025-01-01"
    assert queue.get(red).cell("colour") == "red\tgreen"
    assert (queue.get(blue).cell("colour"), queue.get(blue).cell("size")) == ("blue", "5")


def test_p34_the_archive_is_as_open_as_the_queue_file(queue):
    finished(queue, "2025-01-01")
    os.chmod(queue.path, 0o640)

    queue.archive(DAY)

    file = archive_of(queue, "2025-01")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o750


def test_a_queue_of_nine_columns_is_archived(tmp_path):
    file = tmp_path / "q.tsv"
    nine = "id type payload status created_at run_at attempts error result".replace(" ", "\t")
    row = "62a99ba0c6000000\tgood\t7\tcompleted\t1735689600\t1735689600\t1\t\t8"
    file.write_text(f"{nine}\n{row}\n# a remark\n")
    queue = Queue(file)

    assert queue.archive(DAY) == 1

    assert queue.get("62a99ba0c6000000").result == 8
    assert b"# a remark\n" in content(queue)
    assert list(queue.jobs()) == []


# --- whom others wait for


@pytest.mark.parametrize("verb", [lambda q: q.archive(DAY), lambda q: q.purge(DAY)])
@pytest.mark.parametrize("waiting", ["ok:ID", "any:ID", "notok:ID", "any:@g", "ok:@g~1 any:ID"])
def test_a_job_that_an_unfinished_one_waits_for_is_kept(queue, verb, waiting):
    parent = finished(queue, "2025-01-01", "bad", group="g")
    alone = finished(queue, "2025-01-02")
    # this one waits for an hour that has not come, so the parent stays named
    child = queue.enqueue("late", run_at=timedelta(hours=1), after=waiting.replace("ID", parent))
    if waiting == "ok:ID":
        with queue.edit() as e:
            e.change(e.get(parent), status="completed")

    assert verb(queue) == 1
    assert [job.id for job in queue.jobs()] == [parent, child]
    assert queue.purge(ids=[parent]) == 0
    assert queue.purge(status="failed") == queue.purge(status="completed") == 0

    queue.cancel(child)
    assert verb(queue) == 1
    assert [job.id for job in queue.jobs()] == [child]
    assert alone not in [job.id for job in queue.jobs()]


def test_a_pending_parent_is_kept_too(queue):
    parent = queue.enqueue("late")
    child = queue.enqueue("late", after=parent)

    assert queue.purge(ids=[parent]) == 0
    assert queue.purge(status="pending") == 1
    assert [job.id for job in queue.jobs()] == [parent]
    assert queue.get(child) is None


def test_a_chain_that_has_ended_goes_as_a_whole(queue):
    with freeze_time("2025-01-01"):
        first = queue.enqueue("good")
        queue.enqueue("good", after=first)
        queue.process_jobs(HANDLERS)

    assert queue.purge(DAY) == 2


# --- purge


def test_purge_takes_what_the_filter_says(queue):
    old = finished(queue, "2025-01-01", queue="high")
    bad = finished(queue, "2025-01-02", "bad", queue="high")
    fresh = queue.enqueue("good")
    queue.process_jobs(HANDLERS)
    pending = queue.enqueue("bad", queue="low")

    def left():
        return [job.id for job in queue.jobs()]

    assert queue.purge(queue="low") == queue.purge(type="nobody") == 0
    assert queue.purge(DAY, type="bad", queue="low") == 0
    assert queue.purge(DAY, status="failed", queue="high") == 1
    assert left() == [old, fresh, pending]
    assert queue.purge(DAY) == 1
    assert left() == [fresh, pending]
    assert queue.purge(type="good") == 1
    assert queue.purge(status="pending", queue="low") == 1
    assert left() == []
    with pytest.raises(BadArgument, match="'done'"):
        queue.purge(status="done")
    assert bad not in left()


def test_purge_by_ids_and_age_asks_for_both(queue):
    old = finished(queue, "2025-01-01")
    fresh = queue.enqueue("good")

    assert queue.purge(DAY, ids=[old, fresh, old]) == 1
    assert [job.id for job in queue.jobs()] == [fresh]


def test_purge_never_takes_a_running_job(queue):
    answers = []

    def handler(payload):
        me = current_job().id
        answers.extend([queue.purge(ids=[me]), queue.purge(status="processing"), queue.purge()])

    job_id = queue.enqueue("good")
    queue.process_jobs({"good": handler})

    assert answers == [0, 0, 0]
    assert queue.get(job_id).status == "completed"


# --- backup


def test_a_backup_has_what_a_handler_recorded_in_a_column_that_the_queue_has_not_yet(
    queue, tmp_path
):
    def handler(payload):
        if payload == "record":
            current_job().record(color="red")
        elif payload == "back up":  # claimed with the one before, which is not folded yet
            queue.backup(tmp_path / "copy.tsv")

    _, red, _ = queue.enqueue_many([("good", "first"), ("good", "record"), ("good", "back up")])
    queue.process_jobs({"good": handler})

    copied = Queue(tmp_path / "copy.tsv").get(red)
    assert (copied.status, copied.cell("color")) == ("completed", "red")
    assert queue.get(red).cell("color") == "red"


def test_a_backup_of_a_quiet_queue_is_the_file(queue, tmp_path):
    finished(queue, "2025-01-01")
    queue.enqueue("good")
    with open(queue.path, "ab") as file:
        file.write(b"# a remark\n")
    os.chmod(queue.path, 0o640)
    before = os.stat(queue.path)

    queue.backup(tmp_path / "copy.tsv")

    assert (tmp_path / "copy.tsv").read_bytes() == content(queue)
    assert stat.S_IMODE((tmp_path / "copy.tsv").stat().st_mode) == 0o640
    assert os.stat(queue.path).st_mtime_ns == before.st_mtime_ns
    assert sorted(os.listdir(tmp_path)) == ["copy.tsv", "data"]


def test_a_restored_backup_runs_nothing_again_that_had_finished(queue, tmp_path):
    ran = []

    def handler(payload):
        ran.append(payload)
        if payload == 3:
            queue.backup(tmp_path / "copy.tsv")

    ids = queue.enqueue_many([("good", number) for number in range(6)])
    queue.process_jobs({"good": handler})
    assert ran == [0, 1, 2, 3, 4, 5]

    restored = Queue(tmp_path / "copy.tsv")
    assert [restored.get(one).status for one in ids[:3]] == ["completed"] * 3
    restored.process_jobs({"good": ran.append})

    assert sorted(ran[6:]) == [3, 4, 5]
    assert restored.counts() == {"completed": 6}


@pytest.mark.parametrize("name", ["q.tsv", "./q.tsv", "link.tsv", "folder", "no/such/folder/q.tsv"])
def test_a_backup_lands_on_no_queue_and_no_folder(tmp_path, name):
    queue = Queue("q.tsv")
    queue.enqueue("good")
    os.symlink("q.tsv", "link.tsv")
    os.mkdir("folder")
    before, names = os.stat("q.tsv").st_ino, sorted(os.listdir())

    with pytest.raises(QueueError):
        queue.backup(name)

    assert os.stat("q.tsv").st_ino == before
    assert sorted(os.listdir()) == names
    assert os.path.islink("link.tsv")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_p34_a_backup_by_root_has_the_queues_owner_and_mode_and_follows_no_link_of_others(
    queue, tmp_path
):
    queue.enqueue("t")
    os.chown(queue.path, 33, 33)
    os.chmod(queue.path, 0o660)
    (tmp_path / "victim").write_text("precious")
    os.symlink("victim", "link.tsv")
    os.lchown("link.tsv", 33, 33)

    queue.backup("copy.tsv")
    with pytest.raises(QueueError, match="is a link of another user"):
        queue.backup("link.tsv")

    st = os.stat("copy.tsv")
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (33, 33, 0o660)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("own", [".lock", ".d/hint", ".d/archive/2030-01.tsv"])
def test_a_backup_never_replaces_a_file_of_the_queue_itself(queue, own):
    queue.enqueue("t")

    with pytest.raises(QueueError, match="the queue's own"):
        queue.backup(queue.path + own)


def test_a_backup_never_replaces_what_is_no_regular_file(queue, tmp_path):
    queue.enqueue("t")
    os.mkfifo(tmp_path / "fifo")

    for target in (tmp_path / "fifo", "/dev/null"):
        with pytest.raises(QueueError, match="is no regular file"):
            queue.backup(target)

    assert (tmp_path / "fifo").is_fifo()
