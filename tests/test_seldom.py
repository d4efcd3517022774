"""What seldom happens to the core: calls that fail, files that move while one waits for a lock."""

import asyncio
import contextlib
import errno
import fcntl
import io
import itertools
import os
import threading
import time
from pathlib import Path
from zlib import crc32

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, journal, mount
from dbbasic_queue.beside import note
from dbbasic_queue.errors import BadArgument, NotStored, QueueBusy, QueueError, UnknownJob
from dbbasic_queue.journal import ROOM, WorkerFile
from dbbasic_queue.tsv import HEADER, MAX_JSON

ROW = "{id}\tt\t{payload}\t{status}\t1\t1\t0\t\t"


def line(k, event, id, attempt, at, cells):
    """A line of a worker's file, as the format says."""
    named = [b"%b=%b" % (name.encode(), cell) for name, cell in cells.items()]
    body = b"\t".join([b"%d\t%b\t%b\t%d\t%.3f" % (k, event.encode(), id, attempt, at), *named])
    return b"%b\t%08x\n" % (body, crc32(body))


def by_hand(queue, id, payload="{}", status="pending"):
    """Add a row of the nine old columns, as a shell does."""
    with open(queue.path, "a", encoding="utf-8") as file:
        file.write(ROW.format(id=id, payload=payload, status=status) + "\n")


def failing(number, call=None, when=lambda *given: True):
    """Return a call that fails with an error number; where not, the real one."""

    def fail(*given, **named):
        if when(*given):
            raise OSError(number, os.strerror(number))
        return call(*given, **named)

    return fail


def ends_with(*endings):
    return lambda path, *more: os.fspath(path).endswith(endings)


def to_write(name):
    return lambda path, flags, *more: path.endswith(name) and flags & os.O_RDWR


def is_archive(path, *more):
    return "/archive/" in path


def is_folder(fd):
    return os.path.isdir(f"/proc/self/fd/{fd}")


@pytest.fixture
def lock_is_held(monkeypatch):
    """Hold the kernel's lock of a queue; let it go when somebody waits, after `meanwhile`."""

    def hold(queue, meanwhile):
        theirs = os.open(queue.path, os.O_RDWR)
        fcntl.flock(theirs, fcntl.LOCK_EX)

        def sleep(seconds):
            monkeypatch.undo()
            meanwhile()
            os.close(theirs)

        monkeypatch.setattr(time, "sleep", sleep)

    return hold


# --- while one waits for the lock


def test_p22_a_file_that_is_deleted_while_an_edit_waits_for_it_is_not_made_again(
    queue, lock_is_held
):
    id = queue.enqueue("t")
    lock_is_held(queue, lambda: os.unlink(queue.path))

    assert queue.cancel(id) is False
    assert not os.path.exists(queue.path)


def test_p1_a_file_that_is_deleted_while_enqueue_waits_for_it_is_made_anew(queue, lock_is_held):
    queue.enqueue("t")
    lock_is_held(queue, lambda: os.unlink(queue.path))

    id = queue.enqueue("t")

    assert [job.id for job in queue.jobs()] == [id]


def test_a_link_that_is_bent_while_enqueue_waits_is_followed_to_its_new_target(
    tmp_path, lock_is_held
):
    old, new, link = (tmp_path / name for name in ("old.tsv", "new.tsv", "link.tsv"))
    Queue(old).enqueue("t")
    link.symlink_to(old)

    def bend():
        old.rename(new)
        link.unlink()
        link.symlink_to(new)

    queue = Queue(link, sync="off")
    lock_is_held(queue, bend)
    id = queue.enqueue("t")

    assert Queue(new).get(id)
    assert not old.exists()
    assert os.path.exists(f"{new}.lock")


@pytest.mark.parametrize("locks", ["", None], ids=["silent", "missing"])
def test_a_busy_queue_is_an_error_also_where_nobody_tells_who_holds_it(queue, locks, monkeypatch):
    queue.enqueue("t")
    real = open

    def no_locks(path, *more, **named):
        if path != "/proc/locks":
            return real(path, *more, **named)
        if locks is None:
            raise FileNotFoundError(path)
        return io.StringIO(locks)

    with open(queue.path) as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        monkeypatch.setattr("builtins.open", no_locks)
        with pytest.raises(QueueBusy, match=r"locked for 0 s$"):
            Queue(queue.path, lock_timeout=0).enqueue("t")


@pytest.mark.parametrize("where", ["this thread", "another thread"])
def test_p8_an_edit_keeps_its_lock_while_its_process_uses_many_other_queues(where, tmp_path):
    others = [Queue(tmp_path / f"{number}.tsv", sync="off") for number in range(70)]

    def use_the_others():
        for other in others:
            other.enqueue("t")

    mine = Queue(tmp_path / "mine.tsv", sync="off", lock_timeout=0)
    id = mine.enqueue("t")

    with mine.edit() as e:
        if where == "this thread":
            use_the_others()
        else:
            thread = threading.Thread(target=use_the_others)
            thread.start()
            thread.join()
        with open(mine.path + ".lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        e.change(e.get(id), priority=1)

    assert mine.get(id).priority == 1


def test_p6_whoever_makes_the_file_second_adds_to_the_firsts(queue, monkeypatch):
    real = os.link

    def somebody_is_faster(source, target):
        monkeypatch.undo()
        Path(target).write_bytes(HEADER.line + b"\n")
        by_hand(queue, "theirs")
        real(source, target)

    monkeypatch.setattr(os, "link", somebody_is_faster)
    id = queue.enqueue("t")

    assert [job.id for job in queue.jobs()] == ["theirs", id]
    assert not [name for name in os.listdir(os.path.dirname(queue.path)) if "tmp" in name]


def test_an_edit_whose_neighbour_somebody_locks_starts_again(queue, monkeypatch):
    id = queue.enqueue("t")
    theirs = []

    def lock_it(fd):
        monkeypatch.undo()
        theirs.append(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
        fcntl.flock(theirs[0], fcntl.LOCK_EX)

    monkeypatch.setattr(os, "fsync", lock_it)
    cancelled = queue.cancel(id)
    held = os.fstat(theirs[0])
    os.close(*theirs)

    assert cancelled
    assert not os.path.samestat(held, os.stat(queue.path))
    assert queue.get(id).status == "cancelled"


def test_on_windows_the_first_lock_says_what_is_missing(queue, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(QueueError, match="not Windows"):
        patch.setattr(os, "name", "nt")
        queue.enqueue("t")


# --- the disk fails


def test_p2_a_first_use_whose_folder_cannot_be_synced_says_so_and_the_next_one_sweeps(
    queue, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(NotStored, match="cannot be made"):
        patch.setattr(os, "fsync", failing(errno.EIO))
        queue.enqueue("t")
    links = os.stat(queue.path).st_nlink
    id = Queue(queue.path, sync="full").enqueue("t")

    assert links == 2
    assert os.stat(queue.path).st_nlink == 1
    assert [job.id for job in queue.jobs()] == [id]


def test_p2_an_edit_after_a_killed_first_use_whose_folder_cannot_be_synced_changes_nothing(
    queue, monkeypatch
):
    id = queue.enqueue("t")
    os.link(queue.path, os.path.join(os.path.dirname(queue.path), ".queue.tsv.1-abcdef01.tmp"))

    with monkeypatch.context() as patch, pytest.raises(QueueError, match="not changed: Input"):
        patch.setattr(os, "fsync", failing(errno.EIO))
        queue.cancel(id)

    assert queue.get(id).status == "pending"


def test_a_file_system_that_cannot_sync_a_folder_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL, os.fsync, is_folder))
    queue = Queue(tmp_path / "queue.tsv")

    id = queue.enqueue("t")
    queue.process_jobs({"t": str})

    assert queue.get(id).status == "completed"


def test_p3_a_failed_append_that_cannot_be_cut_back_either_is_perhaps_stored(tmp_path, monkeypatch):
    queue = Queue(tmp_path / "queue.tsv")
    queue.enqueue("t")

    with monkeypatch.context() as patch, pytest.raises(NotStored, match="perhaps stored"):
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        patch.setattr(os, "ftruncate", failing(errno.EIO))
        queue.enqueue("t")


def test_p3_an_interrupt_in_the_middle_of_an_enqueue_stores_nothing(tmp_path, monkeypatch):
    queue = Queue(tmp_path / "queue.tsv")
    id = queue.enqueue("t")

    def interrupt(fd):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fdatasync", interrupt)
        queue.enqueue("t")

    assert [job.id for job in queue.jobs()] == [id]


def test_the_folder_of_a_queue_that_cannot_be_made_is_an_error_with_its_path():
    with pytest.raises(QueueError, match="/proc/nothing: cannot be made"):
        Queue("/proc/nothing/queue.tsv").enqueue("t")


def test_p22_an_archive_that_cannot_be_opened_is_an_error_and_no_missing_job(queue, monkeypatch):
    id = queue.enqueue("t")
    queue.process_jobs({"t": str})
    queue.archive(0)
    monkeypatch.setattr(
        os, "open", failing(errno.EIO, os.open, lambda path, *_: "/archive/" in path)
    )

    with pytest.raises(QueueError, match=r"archive/.*: cannot be read: Input"):
        queue.get(id)


def test_p22_an_archive_that_cannot_be_read_is_an_error_and_no_missing_job(queue, monkeypatch):
    id = queue.enqueue("t")
    queue.process_jobs({"t": str})
    queue.archive(0)
    real = os.pread

    def fail(fd, *more):
        if is_archive(os.readlink(f"/proc/self/fd/{fd}")):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, *more)

    monkeypatch.setattr(os, "pread", fail)

    with pytest.raises(QueueError, match=r"archive/.*: cannot be read: Input"):
        queue.get(id)


def test_p22_workers_that_cannot_be_listed_are_an_error(queue, monkeypatch):
    queue.enqueue("t")
    os.makedirs(queue.path + ".d/workers")
    monkeypatch.setattr(os, "listdir", failing(errno.EIO, os.listdir, ends_with("workers")))

    with pytest.raises(QueueError, match="cannot be read: Input"):
        queue.workers()


@pytest.mark.parametrize(
    "name", ["workers/w-1-abc.stop", "workers/w-1-abc.kill", "hint", "hint.tmp"]
)
def test_what_cannot_be_removed_beside_the_queue_stops_no_tick(queue, name, monkeypatch):
    ids = queue.enqueue_many([("t", 1), ("far", 2, 4e9)])
    os.makedirs(queue.path + ".d/workers")
    Path(queue.path + ".d", name).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", failing(errno.EIO, os.unlink, ends_with(name)))
        queue.process_jobs({"t": str, "far": str})
        queue.cancel(ids[1])

    assert [queue.get(id).status for id in ids] == ["completed", "cancelled"]


def test_an_error_when_a_worker_closes_its_file_costs_nothing(queue, monkeypatch):
    id = queue.enqueue("t")
    real = os.close

    def close(fd):
        written = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_RDWR
        lost = written and "/workers/" in os.readlink(f"/proc/self/fd/{fd}")
        real(fd)
        if lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", close)
    queue.process_jobs({"t": str})

    assert queue.get(id).status == "completed"


def test_a_copied_line_of_a_job_that_waits_runs_when_the_other_has_run(queue):
    first = queue.enqueue("t")
    second = queue.enqueue("t", after=first)
    with open(queue.path, "rb+") as file:
        _, *lines = file.readlines()
        file.writelines(lines)

    with freeze_time() as clock:
        for _ in range(3):
            queue.process_jobs({"t": str})
            clock.tick(60)

    assert queue.counts() == {"completed": 4}
    assert queue.get(second).status == "completed"


# --- systems that have less


@pytest.mark.parametrize(
    "call", ["listxattr", "copy_file_range", "posix_fallocate"], ids="no {}".format
)
def test_a_system_without_a_call_serves_as_well(queue, call, monkeypatch):
    monkeypatch.delattr(os, call)
    ids = queue.enqueue_many([("t", "x" * 1000)] * 100)

    queue.process_jobs({"t": str}, max_jobs=1)

    assert [queue.get(id).status for id in ids] == ["completed"] + ["pending"] * 99


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_p18_where_no_room_can_be_reserved_zeros_are_written(queue, number, monkeypatch):
    ids = queue.enqueue_many([("t", "x" * 1000)] * 100)
    sizes = []
    monkeypatch.setattr(os, "posix_fallocate", failing(number))

    def handler(payload):
        (file,) = (Path(queue.path + ".d") / "workers").glob("*.tsv")
        sizes.append(file.stat().st_size)

    queue.process_jobs({"t": handler})

    assert {queue.get(id).status for id in ids} == {"completed"}
    assert min(sizes) > ROOM // 4


def test_where_no_list_of_mounts_is_no_mount_is_refused(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(mount, "MOUNTS", str(tmp_path / "nothing"))

    assert queue.enqueue("t")


@pytest.mark.parametrize(
    "call, number, stored",
    [
        ("listxattr", errno.ENOTSUP, True),
        ("listxattr", errno.EIO, False),
        ("setxattr", errno.EPERM, True),
        ("setxattr", errno.ENOSPC, False),
    ],
)
def test_p23_attributes_that_may_not_be_copied_are_left_but_a_disk_that_fails_is_an_error(
    queue, call, number, stored, monkeypatch
):
    id = queue.enqueue("t")
    monkeypatch.setattr(os, "listxattr", lambda fd: ["user.mine"])
    monkeypatch.setattr(os, "getxattr", lambda fd, name: b"1")
    monkeypatch.setattr(os, "setxattr", lambda fd, name, value: None)
    monkeypatch.setattr(os, call, failing(number))

    with contextlib.nullcontext() if stored else pytest.raises(NotStored):
        queue.cancel(id)

    assert queue.get(id).status == ("cancelled" if stored else "pending")


def test_a_long_file_is_copied_as_the_edit_would_leave_it(queue, tmp_path):
    ids = queue.enqueue_many([("t", "x" * 1000)] * 100)

    with queue.edit() as e, open(tmp_path / "copy", "wb") as copy:
        e.change(e.get(ids[-1]), priority=5)
        e.copy_to(copy.fileno())

    assert (tmp_path / "copy").read_bytes() == Path(queue.path).read_bytes()


def test_p21_a_disk_that_is_full_while_a_long_file_is_copied_leaves_the_old_one(queue, monkeypatch):
    ids = queue.enqueue_many([("t", "x" * 1000)] * 100)
    before = Path(queue.path).read_bytes()

    with monkeypatch.context() as patch, pytest.raises(NotStored, match="No space"):
        patch.setattr(os, "copy_file_range", failing(errno.ENOSPC))
        queue.cancel(ids[-1])

    assert Path(queue.path).read_bytes() == before


def test_p25_a_file_that_is_cut_short_during_an_edit_is_not_taken_for_all_of_it(queue):
    ids = queue.enqueue_many([("t", "x" * 1000)] * 200)

    with pytest.raises(QueueError, match="was cut short"), queue.edit() as e:
        e.change(e.get(ids[-1]), priority=5)
        os.truncate(queue.path, 1000)

    assert os.path.getsize(queue.path) == 1000


# --- rows that somebody wrote by hand


def test_p19_a_payload_nested_too_deeply_is_left_and_stops_no_tick(queue):
    good = queue.enqueue("t")
    by_hand(queue, "deep", "[" * 200_000 + "]" * 200_000)

    queue.process_jobs({"t": str})

    assert queue.get(good).status == "completed"
    assert b"\ndeep\tt\t[[" in Path(queue.path).read_bytes()
    assert next(queue.jobs(status="pending")).id == "deep"


def test_p19_a_space_before_a_payload_nested_too_deeply_stops_no_tick(queue):
    good = queue.enqueue("t")
    by_hand(queue, "deep", " " + "[" * 200_000 + "]" * 200_000)

    queue.process_jobs({"t": str})

    assert queue.get(good).status == "completed"
    assert next(queue.jobs(status="pending")).id == "deep"


def test_p4_a_last_line_without_its_newline_is_no_job_yet(queue):
    queue.enqueue("t")
    with open(queue.path, "a") as file:
        file.write("660d5fcf94d08615\tt\t{}\tpending\t1\t1\t0\t\t12")

    assert queue.get("660d5fcf94d08615") is None


def test_p7_rows_longer_than_a_block_are_read_in_order(queue):
    payloads = ["a" * (MAX_JSON - 2), "b", "c"]
    queue.enqueue_many([("t", payload) for payload in payloads])
    ran = []

    queue.process_jobs({"t": ran.append})

    assert ran == payloads


def test_a_file_that_is_nothing_but_a_header_without_its_newline_has_no_job(queue):
    Path(queue.path).parent.mkdir()
    Path(queue.path).write_bytes(HEADER.line + b"\tmine")

    assert queue.get("660d5fcf94d08615") is None


@pytest.mark.parametrize("id", [5, None, "no such job"])
def test_an_edit_finds_no_job_where_no_id_is(queue, id):
    queue.enqueue("t")

    with queue.edit() as e:
        assert e.get(id) is None


def test_an_edit_of_a_job_that_is_gone_says_so(queue):
    job = queue.get(queue.enqueue("t"))
    queue.purge(ids=[job.id], status="pending")

    with queue.edit() as e, pytest.raises(UnknownJob, match=job.id):
        e.change(job, priority=1)


def test_an_edit_that_would_leave_no_row_is_refused(queue):
    id = queue.enqueue("t")

    with queue.edit() as e, pytest.raises(BadArgument, match="could not be read"):
        e.change(e.get(id), status="sleeping")

    assert queue.get(id).status == "pending"


def test_p33_bytes_are_no_cell(queue):
    id = queue.enqueue("t")

    with queue.edit() as e, pytest.raises(BadArgument, match="no bytes"):
        e.change(e.get(id), mine=b"raw")


@pytest.mark.parametrize("status", ["processing", "pending"])
def test_a_row_that_an_edit_hands_to_a_missing_worker_runs_at_the_next_tick(queue, status):
    id = queue.enqueue("t", run_at=4e9)
    queue.process_jobs({"t": str})  # leaves a hint: nothing is due

    with queue.edit() as e:
        e.change(e.get(id), status=status, worker="w-1-abc.1", run_at=1)
    queue.process_jobs({"t": str})
    queue.process_jobs({"t": str})

    assert queue.get(id).status == "completed"


def test_a_job_behind_more_new_rows_than_a_tick_reads_beforehand_is_found(queue):
    queue.enqueue("t", run_at=4e9)
    queue.process_jobs({"t": str})

    queue.enqueue_many([("t", "x" * 600_000, 4e9)] * 2)
    id = queue.enqueue("t")
    queue.process_jobs({"t": str})

    assert queue.get(id).status == "completed"


# --- workers' files


def test_what_is_no_workers_file_is_left_as_it_is_and_stops_no_tick(queue, caplog):
    id = queue.enqueue("t")
    folder = Path(queue.path + ".d/workers")
    folder.mkdir(parents=True)
    theirs = {"w-1-abc.tsv": b"hello\n", "w-2-abc.tsv": line(0, "worker", b"w-3-abc", 0, 1.0, {})}
    for name, content in theirs.items():
        (folder / name).write_bytes(content)

    queue.process_jobs({"t": str})

    assert queue.get(id).status == "completed"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == theirs
    assert caplog.text.count("is no worker's file") >= 2


def claimed_by(queue, id):
    """Let every job be claimed by a worker, and return its file."""
    with queue.edit() as e:
        for job in list(e.scan()):
            e.change(job, status="processing", worker=f"{id}.1")
    file = Path(queue.path + ".d/workers", id + ".tsv")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(line(0, "worker", id.encode(), 0, 1.0, {}))
    return file


def test_p9_a_worker_whose_file_cannot_be_opened_is_not_taken_for_dead(queue, monkeypatch):
    queue.enqueue("t")
    claimed_by(queue, "w-1-abc")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(errno.EACCES, os.open, to_write("w-1-abc.tsv")))
        queue.process_jobs({"t": str})

    assert [job.status for job in queue.jobs()] == ["processing"]


@pytest.mark.parametrize("call", ["pread", "flock"])
@pytest.mark.parametrize("good", range(3))
def test_p10_a_dead_worker_whose_file_fails_at_some_call_is_taken_in_by_a_later_tick(
    queue, call, good, monkeypatch
):
    id = queue.enqueue("t")
    claimed_by(queue, "w-0-abc")
    dead = claimed_by(queue, "w-1-abc")
    dead.with_name("w-2-abc.tsv").touch()
    where = os if call == "pread" else fcntl
    calls = itertools.count()

    def is_late_and_of_the_dead(fd, *_):
        return os.path.samestat(os.fstat(fd), dead.stat()) and next(calls) >= good

    with monkeypatch.context() as patch, contextlib.suppress(QueueError):
        real = getattr(where, call)
        patch.setattr(where, call, failing(errno.EIO, real, is_late_and_of_the_dead))
        queue.process_jobs({"t": str})
    queue.process_jobs({"t": str})

    assert queue.get(id).status == "completed"
    assert not dead.parent.exists()


def test_damage_in_a_workers_file_is_kept_aside_once(queue):
    folder = Path(queue.path + ".d/workers")
    queue.enqueue("t")
    head = line(0, "worker", b"w-1-abc", 0, 1.0, {})
    for content in (head + b"damage\n" + head, head + b"more\n" + head):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "w-1-abc.tsv").write_bytes(content)
        queue.process_jobs({"t": str})

    assert (folder.parent / "damaged-w-1-abc.tsv").read_bytes() == head + b"damage\n" + head


@pytest.fixture
def long_file(queue):
    """A worker's file with many lines, under the queue's lock."""
    queue.enqueue("t")
    with queue.edit():
        file = WorkerFile(queue.file, None, None, ["t"])
        file.register()
        while not file.is_long():
            file.append(line(1, "end", b"old", 1, 1.0, {"result": b"x" * ROOM}), durable=False)
        file.append(line(1, "start", b"new", 1, 1.0, {}), durable=False)
        yield file
        file.close()


def test_p12_a_long_workers_file_is_shortened_to_the_jobs_that_run(long_file):
    long_file.shorten({b"new"})
    long_file.append(line(1, "end", b"new", 1, 1.0, {}), durable=False)

    lines = Path(long_file.path).read_bytes().split(b"\n")
    assert [text.split(b"\t")[1:2] for text in lines[1:-1]] == [[b"start"], [b"end"]]


@pytest.mark.parametrize("call", ["rename", "open"])
def test_p12_where_no_shorter_one_can_be_made_the_long_workers_file_serves(
    long_file, call, monkeypatch
):
    before = os.path.getsize(long_file.path)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.ENOSPC))
        long_file.shorten({b"new"})
    long_file.append(line(1, "end", b"new", 1, 1.0, {}), durable=False)

    assert os.listdir(os.path.dirname(long_file.path)) == [os.path.basename(long_file.path)]
    assert Path(long_file.path).read_bytes()[before:].startswith(b"1\tend\tnew")


def test_a_worker_whose_file_is_deleted_neither_shortens_it_nor_goes_on_under_its_name(long_file):
    id, folder = long_file.id, os.path.dirname(long_file.path)
    os.unlink(long_file.path)

    long_file.shorten({b"new"})
    long_file.renew_if_lost()

    assert os.listdir(folder) == []
    assert long_file.id != id
    assert not long_file.registered


def test_a_note_that_is_written_again_holds_the_new_words_only(queue):
    queue.enqueue("t")
    path = os.path.join(queue.file.make_side(), "note")

    note(path, b"many words\n", queue.path)
    note(path, b"few\n", queue.path)

    assert Path(path).read_bytes() == b"few\n"


def test_a_live_worker_is_shown_with_its_jobs(queue):
    id = queue.enqueue("t")
    shown = []

    queue.process_jobs({"t": lambda payload: shown.extend(map(repr, queue.workers()))}, name="me")

    assert len(shown) == 1
    assert shown[0].startswith("<LiveWorker me-")
    assert id in shown[0]


# --- handlers and options


class Odd(Exception):
    @property
    def filename(self):
        raise RuntimeError("no")

    __notes__ = filename


def test_p14_an_exception_whose_cause_cannot_be_printed_is_a_failure_like_any_other(queue, caplog):
    def handler(payload):
        raise ValueError("bad luck") from Odd()

    id = queue.enqueue("t", max_attempts=1)
    queue.process_jobs({"t": handler})

    assert (queue.get(id).status, queue.get(id).error) == ("failed", "ValueError: bad luck")
    assert "ValueError" in caplog.text


def test_an_async_handler_inside_a_running_loop_fails_with_the_reason(queue):
    async def handler(payload):
        return payload

    async def main():
        queue.process_jobs({"t": handler})

    id = queue.enqueue("t", max_attempts=1)
    asyncio.run(main())

    assert "inside a running loop" in queue.get(id).error


@pytest.mark.parametrize(
    "handlers, options", [({1: str}, {}), ({"t": str}, {"max_jobs": 1, "processes": 2})]
)
def test_p33_what_makes_no_sense_together_is_refused_before_anything_runs(queue, handlers, options):
    id = queue.enqueue("t")

    with pytest.raises(BadArgument):
        queue.process_jobs(handlers, **options)

    assert queue.get(id).attempts == 0


# --- a worker, and what others do to the file meanwhile


def in_place(queue, old, new):
    """Write over a part of the file, as some editors do."""
    content = Path(queue.path).read_bytes()
    with open(queue.path, "r+b") as file:
        file.write(content.replace(old, new))


def test_p25_a_row_that_is_given_another_type_in_place_while_a_job_runs_runs_in_this_tick(queue):
    ran = []

    def handler(payload):
        ran.append(payload)
        in_place(queue, b"\tnobodys\t", b"\tmy-type\t")

    queue.enqueue("my-type", "first")
    queue.enqueue("nobodys", "second")
    queue.enqueue("another", "x" * 70_000)
    queue.process_jobs({"my-type": handler})

    assert ran == ["first", "second"]


def test_p25_a_row_that_is_spoilt_in_place_while_rows_are_added_is_left_and_the_others_run(queue):
    ran = []

    def handler(payload):
        ran.append(payload)
        if payload == "first":
            in_place(queue, b'"spoilt"\tpending', b'"spoilt"\tpExding')
            queue.enqueue("t", "last")

    third = "x" * 70_000
    queue.enqueue_many([("t", "first"), ("t", "spoilt"), ("t", third)])
    queue.process_jobs({"t": handler})

    assert ran == ["first", third, "last"]
    assert b"pExding" in Path(queue.path).read_bytes()


def test_a_job_that_a_running_one_adds_to_its_group_is_waited_for(queue):
    ran = []

    def handler(payload):
        ran.append(payload)
        if payload == "first":
            queue.enqueue("t", "added", group="g")

    queue.enqueue("t", "first", group="g")
    queue.enqueue("t", "end", after="ok:@g")
    queue.process_jobs({"t": handler})

    assert ran == ["first", "added", "end"]


def copy_all_lines(queue):
    copies = Path(queue.path).read_bytes().split(b"\n", 1)[1]
    with open(queue.path, "ab") as file:
        file.write(copies)


def test_p11_a_copied_line_of_a_waiting_job_is_found_by_a_full_look_and_runs(queue):
    queue.enqueue("t", after=queue.enqueue("t"))
    copy_all_lines(queue)

    for _ in range(3):
        queue.process_jobs({"t": str})
        Path(queue.path + ".d/hint").unlink(missing_ok=True)

    assert queue.counts() == {"completed": 4}


def test_p10_a_copied_line_of_a_dead_workers_job_is_taken_in_too(queue):
    queue.enqueue("t")
    claimed_by(queue, "w-1-abc")
    copy_all_lines(queue)

    for _ in range(3):
        queue.process_jobs({"t": str})

    assert queue.counts() == {"completed": 2}


def test_p18_a_job_is_not_begun_where_its_start_cannot_be_written(queue, monkeypatch):
    ids = queue.enqueue_many([("t", 1), ("t", 2)])
    monkeypatch.setattr(journal, "_PAUSES", (0.0, 0.0))
    ran = []

    with monkeypatch.context() as patch, pytest.raises(QueueError, match="no further job"):
        full = failing(errno.ENOSPC, os.pwrite, lambda fd, data, at: b"\tstart\t" in data)
        patch.setattr(os, "pwrite", full)
        queue.process_jobs({"t": ran.append})

    assert ran == []
    assert [(queue.get(id).status, queue.get(id).attempts) for id in ids] == [("pending", 0)] * 2


def test_p17_a_child_that_a_handler_forks_and_that_comes_back_changes_nothing(queue):
    me, children = os.getpid(), []
    ids = queue.enqueue_many([("t", 1), ("t", 2)])

    try:
        queue.process_jobs({"t": lambda payload: children.append(os.fork())})
    finally:
        if os.getpid() != me:
            os._exit(len(children))
    begun = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]

    assert begun == [1, 2]  # each child came back from the job in which it was made, and left
    assert [(queue.get(id).status, queue.get(id).attempts) for id in ids] == [("completed", 1)] * 2


@pytest.mark.soak
def test_p10_an_idle_worker_takes_in_another_that_dies_within_a_second(queue, monkeypatch):
    id = queue.enqueue("t")
    other = os.open(claimed_by(queue, "w-1-abc"), os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    clock, sleep, slept = time.clock_gettime, time.sleep, []

    def die_meanwhile(seconds):
        if not slept:
            os.close(other)
        slept.append(seconds)
        sleep(seconds / 20)

    monkeypatch.setattr(time, "clock_gettime", lambda which: 20 * clock(which))
    monkeypatch.setattr(time, "sleep", die_meanwhile)
    queue.process_jobs({"t": str}, run_for=60, max_jobs=1)

    assert queue.get(id).status == "completed"


def test_p25_a_tick_gives_up_a_file_that_is_saved_by_hand_all_the_time(queue, monkeypatch):
    id = queue.enqueue("t")

    with monkeypatch.context() as patch, pytest.raises(QueueBusy, match="without the lock"):
        patch.setattr(os, "fsync", lambda fd: in_place(queue, b"", b""))
        queue.process_jobs({"t": str})

    assert queue.get(id).status == "pending"
