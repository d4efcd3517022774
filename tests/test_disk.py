"""The disk is full or fails, the file is somebody else's or changed by hand: it stays whole."""

import contextlib
import errno
import logging
import os
import pwd
import resource
import shutil
import stat
import subprocess
import tempfile
import time
from importlib import import_module
from pathlib import Path

import pytest
from faults import calls, reader, scenes
from faults.children import Child, Children, become, until

from dbbasic_queue import Queue, current_job, journal
from dbbasic_queue.errors import ForeignFile, NotStored, QueueError

FILE = Path("data/queue.tsv")
SIDE = Path("data/queue.tsv.d")
SOMEBODY = "www-data"
EVERYTHING = ["json", "logging", "traceback", "filelock"] + [
    f"dbbasic_queue.{name}" for name in "archive claim lookup queue recover worker".split()
]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or SOMEBODY not in (user.pw_name for user in pwd.getpwall()),
    reason=f"needs root, and a user {SOMEBODY}",
)


@pytest.fixture
def children():
    with Children() as children:
        yield children


@pytest.fixture(params=["tmpfs", pytest.param("ext4", marks=pytest.mark.faults)])
def disk(request, tmp_path):
    """A small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    point = tmp_path / "disk"
    point.mkdir()
    if request.param == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point]
    else:
        image = tmp_path / "image"
        image.write_bytes(bytes(8 << 20))
        make = ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image]
        subprocess.run(make, check=True, capture_output=True)
        mount = ["mount", "-o", "loop", image, point]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", "-l", point], check=True)


@pytest.fixture
def open_folder():
    """A folder that every user can reach; pytest's own are root's alone."""
    path = Path(tempfile.mkdtemp(prefix="dbbasic-queue-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def queue(path=FILE, **options):
    return Queue(path, **{"sync": "off", "lock_timeout": 5, **options})


def note(payload):
    return payload


def fill(path, *, leave=0):
    """Write a file until the disk is full, then make `leave` bytes of it free again."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (65536, 4096, 1):
        try:
            while True:
                os.write(fd, bytes(size))
        except OSError as problem:
            assert problem.errno == errno.ENOSPC
    os.ftruncate(fd, max(0, os.fstat(fd).st_size - leave))
    os.close(fd)


def everything(folder):
    """What is in a folder: names, contents, modes, owners."""
    found = {}
    for path in sorted(folder.rglob("*")):
        st = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (st.st_mode, st.st_uid, st.st_gid, content)
    return found


def refused(call, expected=QueueError):
    """Return the text of the error that a call must raise."""
    with pytest.raises(expected) as raised:
        call()
    return str(raised.value)


def as_somebody(function, *args):
    """Do something as another user; return what it returns, as text, or the error."""

    def act(say):
        for name in EVERYTHING:  # that user may not be able to read where it lies
            import_module(name)
        become(SOMEBODY)
        try:
            say(f"ok {function(*args)}")
        except Exception as problem:
            say(f"{type(problem).__name__}: {problem}")

    child = Child(act)
    try:
        return child.hear()
    finally:
        child.wait()
        child.close()


def ids_of(name):
    user = pwd.getpwnam(name)
    return user.pw_uid, user.pw_gid


# --- P3, P21: no room


def test_p3_p21_a_full_disk_stores_no_half_job_and_goes_on_when_there_is_room(disk):
    path = disk / "data" / "queue.tsv"
    one = queue(path, sync="normal")
    told = [one.enqueue("note") for _ in range(3)]
    fill(disk / "filler", leave=40_000)

    while True:
        before = path.read_bytes()
        try:
            told.append(one.enqueue("note", {"text": "x" * 3000}))
        except NotStored as problem:
            text = str(problem)
            break
    full = path.read_bytes()

    assert "No space left" in text
    assert str(path) in text
    assert full == before
    assert "No space left" in refused(lambda: one.cancel(told[0]), NotStored)
    assert path.read_bytes() == before
    (disk / "filler").unlink()
    assert one.cancel(told[0])
    told.append(one.enqueue("note"))
    one.process_jobs({"note": note})
    assert list(reader.by_id(path)) == told
    assert one.counts("status") == {"cancelled": 1, "completed": len(told) - 1}
    assert not reader.leftovers(path)


def test_p21_a_first_use_on_a_full_disk_leaves_nothing_and_works_later(disk):
    (disk / "data").mkdir()
    fill(disk / "filler")

    text = refused(lambda: queue(disk / "data" / "queue.tsv").enqueue("note"))

    assert "No space left" in text
    assert [path for path in disk.rglob("*") if path.name.endswith(".tmp")] == []
    (disk / "filler").unlink()
    queue(disk / "data" / "queue.tsv").enqueue("note")
    assert len(reader.read(disk / "data" / "queue.tsv")) == 1


def test_p3_p21_a_limit_on_the_size_of_files_at_each_byte_of_a_new_row(children):
    """P3, P21: RLIMIT_FSIZE lets a part of the row through, and then says EFBIG."""
    queue().enqueue("note", {"text": "first"})
    size = FILE.stat().st_size

    def enqueue_under_each_limit(say):
        for limit in range(size, size + 200):
            before = FILE.read_bytes()
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                queue().enqueue("note", {"text": "Zürich"})
            except NotStored as problem:
                assert "File too large" in str(problem)
                assert FILE.read_bytes() == before
            else:
                say(limit - size)
                return

    child = children.start(enqueue_under_each_limit)
    room = int(child.hear())

    assert child.wait() == 0
    _, second = reader.read(FILE)
    assert room == len(second.line) + 1
    assert second["payload"] == '{"text": "Zürich"}'


def test_p21_a_limit_on_the_size_of_files_during_an_edit_leaves_the_old_file(children):
    ids = queue().enqueue_many([("note", {"number": number}) for number in range(30)])
    size = FILE.stat().st_size

    def cancel_under_limits(say):
        before, tried = FILE.read_bytes(), 0
        for limit in range(1, size + 4, size // 40):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                queue().cancel(ids[15])
            except NotStored:
                assert FILE.read_bytes() == before
                assert not [name for name in os.listdir("data") if name.endswith(".tmp")]
                tried += 1
        say(tried)

    child = children.start(cancel_under_limits)

    assert int(child.hear()) >= 39
    assert child.wait() == 0
    assert queue().cancel(ids[15])
    assert list(reader.by_id(FILE)) == ids


# --- P18: no room for an outcome


def test_p18_no_job_is_begun_where_there_is_no_room_for_its_outcome(disk):
    path = disk / "data" / "queue.tsv"
    one = queue(path)
    ids = [one.enqueue("note") for _ in range(3)]
    ran = []
    fill(disk / "filler", leave=100_000)

    text = refused(lambda: one.process_jobs({"note": ran.append}))

    assert "room" in text or "No space left" in text
    assert not ran
    assert [row["status"] for row in reader.read(path)] == ["pending"] * 3
    assert [row["attempts"] for row in reader.read(path)] == ["0"] * 3
    (disk / "filler").unlink()
    one.process_jobs({"note": ran.append})
    assert len(ran) == 3
    assert {one.get(id).attempts for id in ids} == {1}
    assert not reader.leftovers(path)


@pytest.fixture
def short_pauses(monkeypatch):
    """As many tries to write an outcome as ever, but soon one after the other."""
    monkeypatch.setattr(journal, "_PAUSES", [pause / 20 for pause in journal._PAUSES])


@pytest.mark.parametrize("size", [10, 20_000, 500_000])
@pytest.mark.usefixtures("short_pauses")
def test_p18_a_disk_that_fills_up_under_a_job_does_not_make_it_run_again(size, disk):
    """P18: a result that does not fit is left out, and said so; the job is finished."""
    path = disk / "data" / "queue.tsv"
    one = queue(path)
    id, other = one.enqueue("fills"), one.enqueue("note")
    ran = []

    def fills(payload):
        ran.append(payload)
        if len(ran) == 1:
            fill(disk / "filler")
        return "x" * size

    for _ in range(3):
        try:
            one.process_jobs({"fills": fills, "note": note})
        except QueueError:
            pass
    (disk / "filler").unlink()
    for _ in range(2):
        one.process_jobs({"fills": fills, "note": note})

    job = one.get(id)
    assert len(ran) == 1
    assert (job.status, job.attempts) == ("completed", 1)
    assert (job.result, job.error) in (
        ("x" * size, None),
        (None, "result not stored: no space left"),
    )
    assert job.result or size > 10
    assert one.get(other).status == "completed"
    assert not reader.leftovers(path)


@pytest.mark.usefixtures("short_pauses")
def test_p18_somebody_who_takes_every_free_byte_at_once_does_not_make_a_job_run_again(
    disk, children
):
    """P18: what was reserved for an outcome is never let go before the outcome is written."""

    def eat(say):
        fd = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        say("eating")
        while True:
            try:
                os.write(fd, bytes(4096))
            except OSError:
                pass

    path = disk / "data" / "queue.tsv"
    one = queue(path)
    id = one.enqueue("big")
    ran = []

    def big(payload):
        ran.append(payload)
        if len(ran) == 1:
            child = children.start(eat)
            child.hear()
            while os.statvfs(disk).f_bavail:
                time.sleep(0.01)
        return "x" * 500_000

    try:
        one.process_jobs({"big": big})
    except QueueError:
        pass
    for child in children.all:
        child.kill()
    (disk / "filler").unlink()
    for _ in range(2):
        one.process_jobs({"big": big})

    assert len(ran) == 1
    assert one.get(id).status == "completed"


@pytest.mark.parametrize("size", [20_000, 200_000])
@pytest.mark.usefixtures("short_pauses")
def test_p18_what_a_job_records_does_not_take_the_room_of_its_outcome(size, disk):
    """P18: a record that does not fit is an error there; the outcome has its room still."""
    one = queue(disk / "data" / "queue.tsv")
    id = one.enqueue("notes")
    ran = []

    def notes(payload):
        ran.append(payload)
        fill(disk / "filler")
        with pytest.raises(OSError, match="space"):
            for n in range(100):
                current_job().record(note=str(n) * size)
        fill(disk / "more")
        return "done"

    try:
        one.process_jobs({"notes": notes})
    except QueueError:
        pass
    (disk / "filler").unlink()
    (disk / "more").unlink(missing_ok=True)
    for _ in range(2):
        one.process_jobs({"notes": notes})

    assert ran == [None]
    assert (one.get(id).status, one.get(id).result) == ("completed", "done")


# --- P22: what cannot be read


VERBS = {
    "enqueue": lambda one, id: one.enqueue("note"),
    "enqueue_many": lambda one, id: one.enqueue_many([("note", 1)]),
    "cancel": lambda one, id: one.cancel(id),
    "retry": lambda one, id: one.retry(id),
    "purge": lambda one, id: one.purge(),
    "archive": lambda one, id: one.archive(0),
    "get": lambda one, id: one.get(id),
    "get_job": lambda one, id: one.get_job(id),
    "jobs": lambda one, id: list(one.jobs()),
    "newest": lambda one, id: list(one.jobs(newest=True)),
    "counts": lambda one, id: one.counts("status"),
    "process_jobs": lambda one, id: one.process_jobs({"note": note}),
    "run_for": lambda one, id: one.process_jobs({"note": note}, run_for=0.01),
}


@needs_root
@pytest.mark.parametrize("denied", ["the file", "the folder", "the folder above"])
@pytest.mark.parametrize("verb", VERBS)
def test_p22_a_queue_that_may_not_be_read_is_an_error_never_an_empty_queue(
    verb, denied, open_folder
):
    path = open_folder / "above" / "data" / "queue.tsv"
    id = queue(path).enqueue("note")
    for entry in (path, path.parent, path.parents[1]):
        os.chown(entry, *ids_of(SOMEBODY))
    before = everything(open_folder)
    where = {"the file": path, "the folder": path.parent, "the folder above": path.parents[1]}
    mode = where[denied].stat().st_mode
    where[denied].chmod(0)

    answer = as_somebody(VERBS[verb], Queue(path, lock_timeout=1), id)
    where[denied].chmod(mode)

    assert answer.startswith(("QueueError: ", "NotStored: ")), answer
    assert str(path) in answer
    assert everything(open_folder) == before


@pytest.mark.parametrize("verb", VERBS)
def test_p22_an_io_error_of_a_read_is_an_error_never_an_empty_queue(verb, monkeypatch):
    id = queue().enqueue("note")
    before = FILE.read_bytes()
    real = os.pread

    def fail(fd, size, offset):
        if os.path.samestat(os.fstat(fd), FILE.stat()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, size, offset)

    with monkeypatch.context() as patch, pytest.raises(QueueError) as problem:
        patch.setattr(os, "pread", fail)
        VERBS[verb](queue(), id)

    assert f"{FILE.resolve()}: " in str(problem.value)
    assert "Input/output error" in str(problem.value)
    assert FILE.read_bytes() == before


def test_p22_a_worker_never_makes_a_missing_file_again():
    one = queue()
    one.enqueue("note")
    one.process_jobs({"note": note})
    FILE.unlink()

    one.process_jobs({"note": note})
    one.process_jobs({"note": note}, run_for=0.2)

    assert not FILE.exists()
    assert one.counts("status") == {}
    assert one.get_job("0123456789abcdef") is None


def test_p22_a_worker_whose_file_is_deleted_while_it_runs_does_not_make_it_again():
    one = queue()
    for _ in range(3):
        one.enqueue("delete")

    try:
        one.process_jobs({"delete": lambda payload: FILE.unlink(missing_ok=True)})
    except QueueError:
        pass

    assert not FILE.exists()


def test_p22_a_missing_folder_is_made_by_enqueue_and_by_nobody_else():
    one = queue()

    one.process_jobs({"note": note})
    one.cancel("0123456789abcdef")
    one.purge()

    assert not FILE.parent.exists()


# --- P23: what an edit keeps


def edits(one, id):
    """Make each kind of edit."""
    extra = one.enqueue("note")
    one.process_jobs({"note": note})
    one.archive(0)
    one.enqueue("note", columns={"colour": "red"})
    one.purge(status="pending", type="note")
    assert extra
    assert one.get(id).status == "completed"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660, 0o664, 0o666, 0o604])
def test_p23_an_edit_keeps_the_mode(mode):
    id = queue().enqueue("note")
    FILE.chmod(mode)

    edits(queue(), id)

    assert stat.S_IMODE(FILE.stat().st_mode) == mode


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_p23_an_edit_by_root_keeps_owner_and_group_and_all_beside_it_has_them(mode):
    id = queue().enqueue("note")
    FILE.chmod(mode)
    os.chown(FILE, *ids_of(SOMEBODY))

    edits(queue(), id)

    assert (FILE.stat().st_uid, FILE.stat().st_gid) == ids_of(SOMEBODY)
    assert stat.S_IMODE(FILE.stat().st_mode) == mode
    for path in (SIDE, *SIDE.rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == ids_of(SOMEBODY), path


def test_p23_an_edit_keeps_attributes():
    id = queue().enqueue("note")
    try:
        os.setxattr(FILE, "user.origin", b"shop")
    except OSError as problem:
        pytest.skip(f"no user attributes here: {problem}")

    edits(queue(), id)

    assert os.getxattr(FILE, "user.origin") == b"shop"


def acl(path):
    command = ["getfacl", "-cpE", path]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not shutil.which("setfacl"), reason="needs setfacl")
def test_p23_an_edit_keeps_the_access_list():
    id = queue().enqueue("note")
    done = subprocess.run(["setfacl", "-m", "u:nobody:r,g:daemon:rw", FILE], check=False)
    if done.returncode:
        pytest.skip("no access lists here")
    before = acl(FILE)

    edits(queue(), id)

    assert "user:nobody:r--" in before
    assert acl(FILE) == before


@pytest.mark.skipif(not shutil.which("setfacl"), reason="needs setfacl")
def test_p23_p34_an_edit_opens_the_file_to_nobody_by_its_folders_default_list():
    id = queue().enqueue("note")
    FILE.chmod(0o660)
    if subprocess.run(["setfacl", "-d", "-m", "u:nobody:rwx", FILE.parent], check=False).returncode:
        pytest.skip("no access lists here")
    before = acl(FILE)

    edits(queue(), id)

    assert "nobody" not in before
    assert acl(FILE) == before


def test_p23_an_edit_keeps_a_link_a_link_and_works_beside_what_it_points_to(tmp_path):
    real = tmp_path / "real" / "jobs.tsv"
    real.parent.mkdir()
    FILE.parent.mkdir()
    FILE.symlink_to(real)
    id = queue().enqueue("note")

    edits(queue(), id)

    assert FILE.is_symlink()
    assert os.listdir("data") == ["queue.tsv"]
    assert sorted(os.listdir(real.parent)) == ["jobs.tsv", "jobs.tsv.d", "jobs.tsv.lock"]


def test_p23_an_edit_refuses_a_hard_link_and_an_append_does_not(tmp_path):
    id = queue().enqueue("note")
    os.link(FILE, tmp_path / "other.tsv")

    queue().enqueue("note")
    before = FILE.read_bytes()
    texts = [
        refused(lambda: queue().cancel(id)),
        refused(lambda: queue().process_jobs({"note": note})),
    ]

    assert all("hard link" in text and str(FILE.resolve()) in text for text in texts)
    assert FILE.read_bytes() == before
    assert os.path.samefile(FILE, tmp_path / "other.tsv")
    assert not reader.leftovers(FILE)


@pytest.fixture
def mounted(tmp_path):
    """The queue's file, mounted alone in another folder, as into a container; returned by path."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file")
    queue().enqueue("note", 1)
    other = tmp_path / "other" / "queue.tsv"
    other.parent.mkdir()
    other.touch()
    mount = ["mount", "--bind", FILE, other]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file can be mounted here: {done.stderr.strip()}")
    yield other
    subprocess.run(["umount", "-l", other], check=True)


def test_p23_an_edit_of_a_file_that_is_mounted_alone_names_the_remedy(mounted):
    (job,) = queue(mounted).jobs()
    before = FILE.read_bytes()

    texts = [
        refused(lambda: queue(mounted).cancel(job.id), NotStored),
        refused(lambda: queue(mounted).process_jobs({"note": note}), NotStored),
    ]

    assert all(text.startswith(f"{mounted}: ") and "mount its folder" in text for text in texts)
    assert FILE.read_bytes() == before
    assert not reader.leftovers(mounted)
    queue().process_jobs({"note": note})
    assert queue().get(job.id).status == "completed"


def test_p1_nothing_is_added_to_a_mounted_file_that_was_replaced_elsewhere(mounted):
    queue(mounted).enqueue("note", 2)
    queue().process_jobs({"note": note})

    text = refused(lambda: queue(mounted).enqueue("note", 3), NotStored)

    assert text.startswith(f"{mounted}: ") and "mount its folder" in text
    assert [job.payload for job in queue().jobs(status="completed")] == [1, 2]
    assert b"\t3\t" not in mounted.read_bytes()


def test_p23_an_edit_keeps_columns_that_are_not_ours_and_lines_that_are_no_rows():
    FILE.parent.mkdir()
    header = b"id\ttype\tpayload\tstatus\tcreated_at\trun_at\tattempts\terror\tresult\tzone\tx y\n"
    bad = b"this line\tis no row\r\x00\xff\n"
    row = b"0001\tnote\t{}\tpending\t1\t1\t0\t\t\tZ\xc3\xbcrich\t\\q \n"
    FILE.write_bytes(header + bad + row + bad)
    id = queue().enqueue("note", priority=3)

    queue().cancel(id)
    queue().process_jobs({"note": note})

    lines = FILE.read_bytes().split(b"\n")
    columns = lines[0].split(b"\t")
    assert columns[:9] == header.split(b"\t")[:9]
    assert [lines[1] + b"\n", lines[3] + b"\n"] == [bad, bad]
    cells = dict(zip(columns, lines[2].split(b"\t"), strict=True))
    assert (cells[b"zone"], cells[b"x y"]) == (b"Z\xc3\xbcrich", b"\\q ")
    assert cells[b"status"] == b"completed"


# --- P23: two users


@needs_root
def test_p23_a_user_who_may_only_write_the_file_enqueues_and_is_told_why_he_cannot_cancel(
    open_folder,
):
    """The usage guide's recipe: root makes folder and file, the web server gets the file."""
    path = open_folder / "data" / "queue.tsv"
    path.parent.mkdir()
    path.touch()
    path.chmod(0o664)
    shutil.chown(path, SOMEBODY)

    told = as_somebody(lambda: Queue(path).enqueue("note", {"from": "the web"}))
    id = told.removeprefix("ok ")
    refusal = as_somebody(lambda: Queue(path).cancel(id))
    again = as_somebody(lambda: Queue(path).enqueue("note"))
    with Queue(path).edit():
        busy = as_somebody(lambda: Queue(path, lock_timeout=0.1).enqueue("note"))

    assert set(reader.by_id(path)) == {id, again.removeprefix("ok ")}
    assert refusal.startswith("QueueError: ")
    assert str(path.parent) in refusal
    assert busy.startswith("QueueBusy: ")
    Queue(path).process_jobs({"note": note})
    assert Queue(path).get(id).result == {"from": "the web"}
    assert path.stat().st_uid == ids_of(SOMEBODY)[0]
    assert as_somebody(lambda: Queue(path).enqueue("note")).startswith("ok ")
    assert as_somebody(lambda: Queue(path).get(id).status) == "ok completed"


@needs_root
def test_a_file_in_a_folder_that_is_not_ours_to_write_is_not_kept_open(open_folder):
    """There is no lock file there, by which a process with many queues counts what is open."""
    path = open_folder / "data" / "queue.tsv"
    Queue(path).enqueue("note")
    path.with_name("queue.tsv.lock").unlink()
    path.chmod(0o666)

    def enqueue():
        one = queue(path)
        one.enqueue("note")
        fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return one.path in [os.readlink(fd) for fd in fds if os.path.lexists(fd)]

    assert as_somebody(enqueue) == "ok False"


@needs_root
def test_p23_a_tick_by_a_user_who_may_only_write_the_file_says_so_and_runs_nothing(open_folder):
    path = open_folder / "data" / "queue.tsv"
    Queue(path).enqueue("note")
    path.chmod(0o664)
    shutil.chown(path, SOMEBODY)

    answer = as_somebody(lambda: Queue(path).process_jobs({"note": lambda payload: 1 / 0}))

    assert answer.startswith("QueueError: ")
    assert str(path.parent) in answer
    assert [row["status"] for row in reader.read(path)] == ["pending"]


@needs_root
def test_p23_an_edit_refuses_a_file_whose_owner_it_would_lock_out(open_folder):
    path = open_folder / "data" / "queue.tsv"
    id = Queue(path).enqueue("note")
    path.chmod(0o646)
    path.parent.chmod(0o777)
    before = everything(path.parent)

    answer = as_somebody(lambda: Queue(path).cancel(id))

    assert answer.startswith("QueueError: ")
    assert "user" in answer
    after = everything(path.parent)
    assert {name: after[name] for name in before} == before
    assert path.stat().st_uid == 0


@needs_root
def test_p23_users_who_share_a_file_by_its_group_both_edit_it(open_folder):
    path = open_folder / "data" / "queue.tsv"
    ids = [Queue(path).enqueue("note") for _ in range(4)]
    group = ids_of(SOMEBODY)[1]
    path.parent.chmod(0o2775)
    os.chown(path.parent, 0, group)
    path.chmod(0o660)
    for entry in (path, path.with_name("queue.tsv.lock")):
        os.chown(entry, 0, group)
        entry.chmod(0o660)

    answers = [as_somebody(lambda: Queue(path).cancel(ids[0])), str(Queue(path).cancel(ids[1]))]
    answers.append(as_somebody(lambda: Queue(path).process_jobs({"note": note})))
    answers.append(as_somebody(lambda: Queue(path).enqueue("note")))
    Queue(path).process_jobs({"note": note})

    assert [answer[:7] for answer in answers[:3]] == ["ok True", "True", "ok None"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert path.stat().st_gid == group
    assert Queue(path).counts("status") == {"cancelled": 2, "completed": 3}


@needs_root
def test_p34_the_folders_beside_a_shared_queue_are_its_groups_whatever_group_their_maker_has(
    open_folder, children
):
    path, group, nobody = open_folder / "data" / "queue.tsv", 4711, 65534
    ids = [Queue(path).enqueue("note") for _ in range(2)]
    for entry in (path.parent, path, path.with_name("queue.tsv.lock")):
        os.chown(entry, 0, group)
        entry.chmod(0o770 if entry.is_dir() else 0o660)

    def work(say):
        os.setgroups([group])
        os.setgid(nobody)
        os.setuid(nobody)
        Queue(path).process_jobs({"note": look}, max_jobs=1)
        Queue(path).archive(0)

    def look(payload):
        return [folder.stat().st_mode for folder in (side, side / "workers")]

    side = path.with_name("queue.tsv.d")
    child = children.start(work)
    assert child.wait() == 0, child.hear_all()

    assert Queue(path).get(ids[0]).result == [stat.S_IFDIR | 0o770] * 2
    for folder in (side, side / "archive"):
        assert (folder.stat().st_gid, stat.S_IMODE(folder.stat().st_mode)) == (group, 0o770)


@needs_root
def test_p23_a_sticky_folder_gives_a_clear_error_and_leaves_nothing(open_folder):
    path = open_folder / "data" / "queue.tsv"
    id = Queue(path).enqueue("note")
    group = ids_of(SOMEBODY)[1]
    path.parent.chmod(0o1777)
    path.chmod(0o660)
    os.chown(path, 0, group)
    before = path.read_bytes()

    answer = as_somebody(lambda: Queue(path).cancel(id))

    assert answer.startswith("QueueError: ")
    assert str(path.parent) in answer
    assert path.read_bytes() == before
    assert not [name for name in os.listdir(path.parent) if name.endswith(".tmp")]


# --- P25: a change by hand, in the middle of an edit


def hand(kind):
    """Change the file as a person would who knows nothing of locks."""

    def sed():
        text = FILE.read_bytes().replace(b'"number": 1}', b'"number": 1000}')
        Path("data/sedXYZ").write_bytes(text)
        os.rename("data/sedXYZ", FILE)

    def save_in_place():
        FILE.write_bytes(FILE.read_bytes().replace(b'"number": 1}', b'"number": 1000}'))

    def append():
        with FILE.open("ab") as file:
            file.write(b"00000000000000aa\tnote\t{}\tpending\t1\t1\t0\t\t\n")

    return {"sed -i": sed, "save in place": save_in_place, "append": append}[kind]


def changed_by_hand(kind):
    text = FILE.read_bytes()
    return b"00000000000000aa" in text if kind == "append" else b'"number": 1000}' in text


@pytest.mark.parametrize("kind", ["sed -i", "save in place", "append"])
@pytest.mark.parametrize("when", ["while it is written", "just before its rename"])
def test_p25_a_row_saved_by_hand_during_an_edit_is_not_lost(kind, when):
    """P25: and the edit starts again."""
    ids = queue().enqueue_many([("note", {"number": number}) for number in range(5)])
    name = "write" if when == "while it is written" else "fsync"

    def by_hand(real, called, args):
        hand(kind)()
        return real(*args)

    first = calls.Mode("by hand at", False, lambda called, args, room: called == name, by_hand)
    outcome = calls.attempt(lambda: queue().cancel(ids[3]), first, 1)

    assert outcome.struck
    assert not outcome.raised, outcome.text
    assert changed_by_hand(kind)
    assert reader.by_id(FILE)[ids[3]]["status"] == "cancelled"
    assert not reader.leftovers(FILE)


@pytest.mark.parametrize("kind", ["sed -i", "save in place", "append"])
def test_p25_a_row_saved_by_hand_during_a_tick_is_not_lost(kind, tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.nothing(folder)
    folder.queue().enqueue_many([("run", {"number": number}) for number in range(5)])

    def by_hand(real, called, args):
        hand(kind)()
        return real(*args)

    for number in (1, 2, 3):
        syncs = calls.Mode("by hand at", False, lambda name, args, room: name == "fsync", by_hand)
        outcome = calls.attempt(folder.tick, syncs, number)
        assert not outcome.raised, outcome.text
    for _ in range(2):
        folder.queue().process_jobs({**folder.handlers(), "note": note})

    assert changed_by_hand(kind)
    assert {row["status"] for row in reader.read(FILE)} == {"completed"}
    assert set(folder.effects().values()) == {1}


def test_p25_a_file_that_is_saved_by_hand_all_the_time_is_given_up_with_a_clear_error():
    ids = queue().enqueue_many([("note", {"number": number}) for number in range(5)])

    def by_hand(real, called, args):
        hand("append")()
        return real(*args)

    always = calls.Mode("by hand from", True, lambda name, args, room: name == "fsync", by_hand)
    outcome = calls.attempt(lambda: queue().cancel(ids[3]), always, 1)

    assert "QueueBusy" in outcome.raised
    assert "without the lock" in outcome.text
    assert queue().get(ids[3]).status == "pending"
    assert changed_by_hand("append")
    assert not reader.leftovers(FILE)


# --- P27: nothing grows


def test_p27_ticks_leave_no_more_files_than_the_first_one():
    one = queue()
    one.enqueue("note")
    one.process_jobs({"note": note})
    first = sorted(everything(Path("data")))

    for number in range(30):
        one.enqueue("note", {"number": number})
        one.process_jobs({"note": note})
    one.process_jobs({"note": note})

    assert sorted(everything(Path("data"))) == first
    assert sum(path.stat().st_size for path in SIDE.iterdir()) < 1440 * 32 + 200


def test_p27_a_long_running_worker_cuts_its_file_back(children):
    """P27: four times 600 KB of outcomes go through it."""
    children.start(lambda say: queue().process_jobs({"note": note}, run_for=60))
    one, sizes = queue(), []

    for number in range(1, 5):
        one.enqueue_many([("note", {"text": "x" * 2000}) for _ in range(300)])
        until(lambda number=number: one.counts("status") == {"completed": number * 300})
        sizes += [path.stat().st_size for path in SIDE.joinpath("workers").glob("*.tsv")]

    print(f"the worker's file: {sizes}")
    assert 0 < max(sizes) < 1_500_000


# --- P32: a foreign file

NINE = "id\ttype\tpayload\tstatus\tcreated_at\trun_at\tattempts\terror\tresult"
FOREIGN = {
    "text": b"Dear Sir,\n\nplease find enclosed\n",
    "text without newline": b"Dear Sir",
    "another order": NINE.replace("id\ttype", "type\tid").encode() + b"\n",
    "eight columns": NINE.removesuffix("\tresult").encode() + b"\n1\tx\n",
    "commas": NINE.replace("\t", ",").encode() + b"\n",
    "capitals": NINE.upper().encode() + b"\n",
    "carriage returns": NINE.encode() + b"\r\n",
    "a mark of order": b"\xef\xbb\xbf" + NINE.encode() + b"\n",
    "UTF-16": (NINE + "\n").encode("utf-16"),
    "zeros": bytes(5000),
    "a binary": b"\x7fELF\x02\x01\x01\x00" + bytes(range(256)) * 20,
    "no header": b"0123456789abcdef\tnote\t{}\tpending\t1\t1\t0\t\t\n",
    "a column twice": NINE.encode() + b"\tzone\tzone\n",
    "a newline": b"\n",
    "JSON": b'[{"id": 1}]\n',
}


@pytest.mark.parametrize("content", FOREIGN)
def test_p32_a_foreign_file_is_never_touched(content):
    FILE.parent.mkdir()
    FILE.write_bytes(FOREIGN[content])
    before = FILE.stat()

    for name, verb in VERBS.items():
        text = refused(lambda verb=verb: verb(queue(), "0123456789abcdef"), ForeignFile)
        assert str(FILE.resolve()) in text, name

    after = FILE.stat()
    assert FILE.read_bytes() == FOREIGN[content]
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert not reader.leftovers(FILE)
    assert not SIDE.exists()


def test_p32_a_folder_in_the_place_of_the_file_is_refused():
    FILE.mkdir(parents=True)

    for verb in VERBS.values():
        assert str(FILE.resolve()) in refused(lambda v=verb: v(queue(), "0123456789abcdef"))

    assert os.listdir(FILE) == []


@pytest.mark.parametrize("header", [NINE, NINE + "\tzone", NINE + "\tstarted_at\tx.y\tqueue"])
def test_p32_the_nine_columns_and_then_any_are_a_queue(header):
    FILE.parent.mkdir()
    FILE.write_text(header + "\n")

    id = queue().enqueue("note", {"text": "here"})
    queue().process_jobs({"note": note})

    assert reader.by_id(FILE)[id]["status"] == "completed"
    assert set(header.split("\t")) <= set(reader.by_id(FILE)[id])


def test_p32_a_touched_file_is_an_empty_queue():
    FILE.parent.mkdir()
    FILE.touch()

    assert queue().counts("status") == {}
    assert queue().get("0123456789abcdef") is None
    queue().process_jobs({"note": note})
    assert FILE.read_bytes() == b""
    assert len(reader.read(FILE) if queue().enqueue("note") else []) == 1


# --- descriptors that a handler has closed


@pytest.mark.parametrize("closed", [(2, 3), (0, 4096)], ids=["stderr", "all"])
def test_what_is_printed_after_a_handler_has_closed_descriptors_reaches_no_file(closed, children):
    def work(say):
        def close_them(payload):
            os.closerange(*closed)
            queue().enqueue("nobody")  # to warn of, while the lock is held

        def print_something(payload):
            for fd in range(3):
                with contextlib.suppress(OSError):
                    os.write(fd, b"printed")

        logging.basicConfig(stream=os.fdopen(2, "w", closefd=False), force=True)
        queue().process_jobs({"close": close_them, "print": print_something})

    queue().enqueue_many([("close", 1), *[("print", number) for number in range(5)]])
    child = children.start(work)
    assert child.wait() == 0, child.hear_all()

    assert [row["status"] for row in reader.read(FILE)] == [*["completed"] * 6, "pending"]
    assert FILE.with_name("queue.tsv.lock").read_bytes() == b""


# --- P34: who may read it


def test_p34_a_new_queue_is_for_owner_and_group_within_the_umask(children):
    def enqueue(say, umask):
        os.umask(umask)
        queue(Path(f"{umask:o}/queue.tsv")).enqueue("note")

    for umask in (0o022, 0o027, 0o077, 0o002, 0o000):
        assert children.start(enqueue, umask).wait() == 0

        modes = reader.modes(Path(f"{umask:o}/queue.tsv"))
        assert modes == dict.fromkeys(["queue.tsv", "queue.tsv.lock"], 0o660 & ~umask)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_p34_what_lies_beside_the_queue_has_its_mode(mode, umask, children):
    def work(say):
        os.umask(umask)
        one = queue()
        one.enqueue("note")
        FILE.chmod(mode)
        with FILE.open("ab") as file:
            file.write(b"torn")
        one.process_jobs({"note": look})
        one.archive(0)
        one.enqueue("note", run_at=time.time() + 3600)
        one.process_jobs({"note": note})

    def look(payload):
        modes = reader.modes(FILE)
        [worker] = [
            name for name in modes if name not in ("queue.tsv.lock", *reader.KEPT, FILE.name)
        ]
        assert modes[worker] == mode, f"{worker}: {modes[worker]:o}"

    child = children.start(work)
    assert child.wait() == 0, child.hear_all()

    modes = reader.modes(FILE)
    assert {"torn.tsv", "hint", "tick"} < set(modes)
    del modes["queue.tsv.lock"]  # as the umask had it, before the chmod
    assert set(modes.values()) == {mode}, modes
    assert reader.by_id(FILE)
    folders = [stat.S_IMODE(path.stat().st_mode) for path in (SIDE, SIDE / "archive")]
    assert folders == [mode | 0o100 | (mode & 0o044) >> 2] * 2


def test_what_is_known_of_the_end_holds_only_until_somebody_else_writes_as_many_bytes(tmp_path):
    queue = Queue(tmp_path / "queue.tsv", sync="off")
    first, last = queue.enqueue("a"), queue.enqueue("b")
    text = tmp_path.joinpath("queue.tsv").read_bytes()
    torn = text[: text.rindex(b"\n", 0, -1) + 1] + b"x" * (
        len(text) - text.rindex(b"\n", 0, -1) - 1
    )
    with open(tmp_path / "queue.tsv", "r+b") as file:
        file.write(torn)
    os.utime(tmp_path / "queue.tsv")

    third = queue.enqueue("c")

    assert len(torn) == len(text)
    assert [job.id for job in queue.jobs()] == [first, third]
    assert last.encode() not in tmp_path.joinpath("queue.tsv").read_bytes()
    assert b"xxxx" in tmp_path.joinpath("queue.tsv.d/torn.tsv").read_bytes()


def test_a_header_that_somebody_writes_in_place_is_read_again(tmp_path):
    queue = Queue(tmp_path / "queue.tsv", sync="off")
    queue.enqueue("a")
    path = tmp_path / "queue.tsv"
    lines = path.read_bytes().split(b"\n")
    wider = [lines[0].replace(b"\tfinished_at", b"\tcolor\tfinished_at"), lines[1] + b"\t", b""]
    path.write_bytes(b"\n".join(wider))

    queue.enqueue("b")

    assert [job.type for job in queue.jobs()] == ["a", "b"]
    assert path.read_bytes().split(b"\n")[2].count(b"\t") == wider[0].count(b"\t")
