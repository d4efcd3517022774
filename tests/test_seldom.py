"""What seldom happens to the core: calls that fail, files that move while one waits for a lock."""

import asyncio
import contextlib
import errno
import fcntl
import io
import os
import threading
import time
from pathlib import Path

import pytest

from dbbasic_queue import Queue, files
from dbbasic_queue.errors import BadArgument, NotStored, QueueBusy, QueueError, UnknownJob
from dbbasic_queue.journal import ROOM, WorkerFile, line
from dbbasic_queue.tsv import HEADER, MAX_JSON

ROW = "{id}\tt\t{payload}\t{status}\t1\t1\t0\t\t"


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
    def use_the_others():
        for number in range(70):
            Queue(tmp_path / f"{number}.tsv", sync="off").enqueue("t")

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
    os.close(*theirs)

    assert cancelled
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
    monkeypatch.setattr(os, "open", failing(errno.EIO, os.open, lambda path, *_: "/archive/" in path))

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


# --- systems that have less


@pytest.mark.parametrize(
    "call", ["listxattr", "copy_file_range", "posix_fallocate"], ids="no {}".format
)
def test_a_system_without_a_call_serves_as_well(queue, call, monkeypatch):
    monkeypatch.delattr(os, call)
    ids = queue.enqueue_many([("t", "x" * 1000)] * 100)

    queue.process_jobs({"t": str}, max_jobs=1)

    assert [queue.get(id).status for id in ids] == ["completed"] + ["pending"] * 99


def test_where_no_list_of_mounts_is_no_mount_is_refused(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOUNTS", str(tmp_path / "nothing"))

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


def test_p4_a_last_line_without_its_newline_is_no_job_yet(queue):
    queue.enqueue("t")
    by_hand(queue, "660d5fcf94d08615")
    os.truncate(queue.path, os.path.getsize(queue.path) - 1)

    assert queue.get("660d5fcf94d08615") is None


def test_p7_rows_longer_than_a_block_are_read_in_order(queue):
    payloads = ["a" * (MAX_JSON - 2), "b", "c"]
    queue.enqueue_many([("t", payload) for payload in payloads])
    ran = []

    queue.process_jobs({"t": ran.append})

    assert ran == payloads


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


def test_p9_a_worker_whose_file_cannot_be_opened_is_not_taken_for_dead(queue, monkeypatch):
    queue.enqueue("t")
    with queue.edit() as e:
        e.change(next(e.scan()), status="processing", worker="w-1-abc.1")
    folder = Path(queue.path + ".d/workers")
    folder.mkdir(parents=True)
    (folder / "w-1-abc.tsv").write_bytes(line(0, "worker", b"w-1-abc", 0, 1.0, {}))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(errno.EACCES, os.open, to_write("w-1-abc.tsv")))
        queue.process_jobs({"t": str})

    assert [job.status for job in queue.jobs()] == ["processing"]


@pytest.mark.parametrize("call", ["pread", "flock"])
def test_p10_a_dead_worker_whose_file_cannot_be_read_is_taken_in_by_a_later_tick(
    queue, call, monkeypatch
):
    id = queue.enqueue("t")
    with queue.edit() as e:
        e.change(next(e.scan()), status="processing", worker="w-1-abc.1")
    folder = Path(queue.path + ".d/workers")
    folder.mkdir(parents=True)
    dead = folder / "w-1-abc.tsv"
    dead.write_bytes(line(0, "worker", b"w-1-abc", 0, 1.0, {}))
    where = os if call == "pread" else fcntl

    def of_the_dead(fd, *_):
        return os.path.samestat(os.fstat(fd), dead.stat())

    with monkeypatch.context() as patch, pytest.raises((QueueError, OSError)):
        patch.setattr(where, call, failing(errno.EIO, getattr(where, call), of_the_dead))
        queue.process_jobs({"t": str})
    queue.process_jobs({"t": str})

    assert queue.get(id).status == "completed"
    assert not dead.exists()


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
def journal(queue):
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


def test_p12_a_long_workers_file_is_shortened_to_the_jobs_that_run(journal):
    journal.shorten({b"new"})
    journal.append(line(1, "end", b"new", 1, 1.0, {}), durable=False)

    lines = Path(journal.path).read_bytes().split(b"\n")
    assert [text.split(b"\t")[1:2] for text in lines[1:-1]] == [[b"start"], [b"end"]]


@pytest.mark.parametrize("call", ["rename", "open"])
def test_p12_where_no_shorter_one_can_be_made_the_long_workers_file_serves(
    journal, call, monkeypatch
):
    before = os.path.getsize(journal.path)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.ENOSPC))
        journal.shorten({b"new"})
    journal.append(line(1, "end", b"new", 1, 1.0, {}), durable=False)

    assert os.listdir(os.path.dirname(journal.path)) == [os.path.basename(journal.path)]
    assert Path(journal.path).read_bytes()[before:].startswith(b"1\tend\tnew")


def test_a_worker_whose_file_is_deleted_neither_shortens_it_nor_goes_on_under_its_name(journal):
    id, folder = journal.id, os.path.dirname(journal.path)
    os.unlink(journal.path)

    journal.shorten({b"new"})
    journal.renew_if_lost()

    assert os.listdir(folder) == []
    assert journal.id != id
    assert not journal.registered


def test_a_note_that_is_written_again_holds_the_new_words_only(queue):
    queue.enqueue("t")
    path = os.path.join(queue.file.make_side(), "note")

    queue.file.note(path, b"many words\n")
    queue.file.note(path, b"few\n")

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
