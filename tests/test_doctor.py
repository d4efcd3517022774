"""What `doctor` finds, what it advises, and what --mend does."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dbbasic_queue import Queue, cli, doctor, mount
from dbbasic_queue.doctor import places, workers
from dbbasic_queue.doctor.finding import ok
from dbbasic_queue.tsv import COLUMNS, CONTRACT

UNSAFE = {*range(9), *range(11, 32), 127}
ROW = "{id}\tmail\t{{}}\tpending\t1760000000\t4000000000\t0\t\t"
ID = "6474846d8f229a3f"
ANOTHER = "6474847126a6107c"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Wait for no lock, start no Python, and leave nothing to say of cron."""
    monkeypatch.setattr(workers, "PATIENCE", 0.05)
    monkeypatch.setattr(places, "_bare_start", lambda: ok("cron", "as cron starts it"))
    monkeypatch.setenv("DBBASIC_QUEUE", str(tmp_path / "data" / "queue.tsv"))


@pytest.fixture
def file(queue):
    """The path of a queue with one job."""
    queue.enqueue("mail", {"to": "ada"})
    os.chmod(queue.path, 0o640)
    return Path(queue.path)


@pytest.fixture
def look(queue):
    """Return what is found, as 'level: text', without what is well."""

    def examine(*levels):
        found = doctor.examine(queue)
        levels = levels or ("problem", "unknown", "note")
        return [f"{one.level}: {one.text}" for one in found if one.level in levels]

    return examine


def add(file, *lines):
    with open(file, "ab") as end:
        end.write(b"".join(one if isinstance(one, bytes) else f"{one}\n".encode() for one in lines))


def wide(**cells):
    """A line of all columns."""
    row = dict.fromkeys(COLUMNS, "")
    row |= {"id": ID, "type": "mail", "payload": "{}", "status": "pending"}
    row |= {"created_at": "1760000000", "run_at": "4000000000", "attempts": "0", **cells}
    return "\t".join(row.values())


def test_a_healthy_queue_has_nothing_to_say(queue, file, look, capsys):
    queue.process_jobs({"mail": lambda payload: None})

    assert look() == []
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("\nhealthy\n")


def test_looking_changes_no_byte(queue, file):
    add(file, "bad", wide(status="odd"), b"torn")
    before = file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino

    doctor.examine(queue)

    assert (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) == before


# --- the file


def test_a_missing_file(queue, look, capsys):
    assert look("problem") == [f"problem: {queue.path}: there is no such file"]
    assert cli.main(["doctor"]) == 1
    assert "set DBBASIC_QUEUE" in capsys.readouterr().out


def test_a_link_to_nowhere(queue, look, tmp_path):
    (tmp_path / "data").mkdir()
    os.symlink("nowhere.tsv", queue.path)

    assert look("problem")[0].endswith("there is no such file, but a link to nowhere.tsv")


def test_a_folder(queue, look):
    os.makedirs(queue.path)

    assert look("problem") == [f"problem: {queue.path}: is a folder"]


@pytest.mark.parametrize("content", [b"", b"id\ttype\tpay"])
def test_an_empty_file_and_a_torn_header_are_legal(queue, look, content):
    os.makedirs(os.path.dirname(queue.path))
    Path(queue.path).write_bytes(content)
    os.chmod(queue.path, 0o640)

    assert look("problem", "unknown") == []
    assert Path(queue.path).read_bytes() == content


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\tb\n", "column 1 is 'a'"),
        (b"\xef\xbb\xbf" + "\t".join(CONTRACT).encode() + b"\n", "byte order mark"),
        ("\t".join(CONTRACT).encode("utf-16") + b"\n", "is UTF-16"),
        ("\t".join(CONTRACT).encode() + b"\r\n", "'result\\r'"),
        ("\t".join(COLUMNS).encode() + b"\r\n", "end in \\r\\n"),
        (b"\xff" * 5000, "not UTF-8"),
    ],
)
def test_a_file_that_is_no_queue_is_told_and_not_mended(queue, look, content, says):
    os.makedirs(os.path.dirname(queue.path))
    Path(queue.path).write_bytes(content)

    assert says in look("problem")[0].replace("\\\\", "\\")
    assert doctor.mend(queue) == []
    assert Path(queue.path).read_bytes() == content


def test_a_hard_link(file, look):
    os.link(file, file.with_name("copy.tsv"))

    assert "has 2 hard links" in look("problem")[0]


def test_columns_of_others_and_columns_to_come(queue, look):
    os.makedirs(os.path.dirname(queue.path))
    Path(queue.path).write_text("\t".join((*CONTRACT, "tenant")) + "\n")
    os.chmod(queue.path, 0o640)

    found = look("note")

    assert "note: columns of others, kept as they are: tenant" in found
    assert any(one.endswith("add: " + ", ".join(COLUMNS[len(CONTRACT) :])) for one in found)


# --- its lines


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "it is empty"),
        ("just some text", "it has 1 cells, not 19 or 9: just some text"),
        (ROW.format(id=ID) + "\t\t", "it has 11 cells"),
        (ROW.format(id=ID).replace("pending", "done"), "its status is 'done'"),
        (ROW.format(id=ID).replace("1760000000", "soon"), "its created_at is 'soon'"),
        (ROW.format(id=ID).replace("\t0\t", "\t\t"), "its attempts is ''"),
        (ROW.format(id=ID).replace("\t0\t", "\tnan\t"), "its attempts is 'nan'"),
        (ROW.format(id=""), "it has no id"),
        (ROW.format(id=ID).replace("mail", ""), "it has no type"),
        (wide(priority="high"), "its priority is 'high'"),
        (wide(finished_at="\r"), "its finished_at is '"),
        ("\t".join(CONTRACT), "a second header"),
        (wide(payload="\udcff"), "it is not UTF-8 at byte 23"),
        ("x" * 200, "x" * 80),
    ],
)
def test_p19_a_bad_line_is_told_with_its_number_and_a_remedy(queue, file, line, says):
    add(file, line.encode(errors="surrogateescape") + b"\n", wide())

    (found,) = [one for one in doctor.examine(queue) if one.level == "problem" and one.line]

    assert found.line == 3
    assert found.text.startswith("line 3 is no job, ")
    assert says in found.text
    assert "x" * 81 not in found.text
    assert "--mend" in found.remedy


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (wide(payload="{"), "the payload is not JSON"),
        (wide(payload="{", status="completed"), "the payload is not JSON"),
        (wide(result="{"), "the result is not JSON"),
        (ROW.format(id=ID) + "\r", "the line ends in \\r\\n"),
        (wide(after="ok:nobody"), "the job never runs"),
        (wide(backoff="often"), "60 s are taken"),
    ],
)
def test_a_cell_that_cannot_be_used_is_told(file, look, line, says):
    add(file, line)

    (found,) = look("problem")

    assert f"line 3, job {ID}: " in found
    assert says in found


def test_an_id_that_stands_twice_is_told(file, look):
    add(file, wide(id=ANOTHER), wide(), wide(id=ANOTHER))

    (found,) = look("problem")

    assert f"the id {ANOTHER} stands in lines 3, 5" in found


def test_a_last_line_without_newline_is_told(file, look):
    add(file, b"6474847126a6107c\tma")

    (found,) = look("problem")

    assert "line 3 has no newline: 6474847126a6107c\\tma" in found


def test_p35_nothing_found_holds_a_control_character(queue, file, capsys):
    add(file, b"\x1b[31m\x07\x9b\xe2\x80\xa8\n", wide(id="a\x1b", payload="{\x7f"))

    assert cli.main(["doctor"]) == 1

    out = capsys.readouterr().out
    assert out.endswith("\nproblems: 2\n")
    assert not UNSAFE.intersection(map(ord, out))
    assert "\x9b" not in out
    assert "\u2028" not in out


# --- locks and workers


def test_a_held_lock_names_its_holder(file, look, capfd):
    holder = subprocess.Popen(["flock", f"{file}.lock", "sh", "-c", "echo held; exec sleep 60"],
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    with holder:
        holder.stdout.readline()
        found = look("problem")
        holder.kill()

    assert len(found) == 1
    assert "locked for" in found[0]
    if sys.platform == "linux":
        assert f"process {holder.pid} (" in found[0]


def test_a_lock_that_is_a_link(file, look):
    os.unlink(f"{file}.lock")
    os.symlink("elsewhere", f"{file}.lock")

    assert "queue.tsv.lock: is no regular file" in look("problem")[0]


@pytest.fixture
def dead(queue, file, run_python):
    """A worker that was killed in its first job; its id."""
    child = run_python(f"""
        import time
        from dbbasic_queue import Queue
        queue = Queue({str(file)!r})
        def die(payload):
            print(flush=True)
            time.sleep(60)
        queue.process_jobs({{"mail": die}}, name="doomed")
    """)
    child.stdout.readline()
    child.kill()
    child.wait()
    (name,) = [one for one in os.listdir(f"{file}.d/workers") if one.endswith(".tsv")]
    return name.removesuffix(".tsv")


def test_a_dead_worker_is_told_with_what_it_had_begun(queue, dead, look):
    (job,) = queue.jobs(status="processing")

    assert look("problem") == [f"problem: worker {dead} died: it had begun {job.id}, held {job.id}"]


def test_mend_takes_in_the_dead(queue, dead, look):
    (job,) = queue.jobs(status="processing")

    done = doctor.mend(queue)

    assert done == [f"job {job.id}, whose worker died, is pending now (recovered)"]
    assert queue.get(job.id).error == "worker died"
    assert look() == []


def test_a_live_worker_is_well(queue, file, run_python):
    child = run_python(f"""
        import time
        from dbbasic_queue import Queue
        Queue({str(file)!r}).process_jobs({{"mail": lambda p: [print(flush=True), time.sleep(60)]}})
    """)
    child.stdout.readline()

    found = [one for one in doctor.examine(queue) if one.about == "worker"]

    assert [one.level for one in found] == ["ok"]
    assert f"process {child.pid}, lives since" in found[0].text


def test_a_job_whose_worker_has_no_file_is_told(queue, file, look):
    with queue.edit() as e:
        (job,) = e.scan()
        e.change(job, status="processing", worker="gone-1-abc.1")

    assert look("problem") == [
        f"problem: {job.id} processing by worker gone-1-abc, which has no file"
    ]
    doctor.mend(queue)
    assert queue.get(job.id).status == "pending"


def test_a_damaged_worker_file_and_strays_are_told(queue, dead, look):
    folder = Path(f"{queue.path}.d/workers")
    content = (folder / f"{dead}.tsv").read_bytes()
    head, rest = content.split(b"\n", 1)
    (folder / f"{dead}.tsv").write_bytes(head + b"\ngarbage\n" + rest)
    (folder / "else").touch()

    found = look("problem", "note")

    assert "its file has damaged lines before good ones" in found[0]
    assert found[1].endswith("workers/else: left over")


def test_due_jobs_without_a_tick_are_told(queue, file, look):
    add(file, wide(run_at="1760000000"))

    (found,) = look("problem")

    assert found.startswith("problem: jobs due: 2, the oldest for ")
    assert found.endswith(", and no tick has run yet")
    queue.process_jobs({})
    assert look("problem") == []


# --- places


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")
@pytest.mark.parametrize(
    ("owners", "modes", "says"),
    [
        ({"data/queue.tsv": (65534, 65534)}, {}, "cannot write there: only enqueue works"),
        ({"data/queue.tsv": (65534, 65534)}, {"data": 0o1777}, "is sticky"),
        ({"data/queue.tsv": (0, 65534)}, {"data/queue.tsv": 0o660}, "cannot write there"),
        ({"data": (65534, 65534), "data/queue.tsv": (65534, 65534)}, {"data/queue.tsv.d": 0o700},
         "queue.tsv.d: user"),
        ({"data": (65534, 65534), "data/queue.tsv": (65534, 65534)},
         {"data/queue.tsv.lock": 0o600}, "queue.tsv.lock: user"),
        ({}, {"data/queue.tsv": 0o666}, "everybody may write it"),
        ({}, {"data/queue.tsv": 0o644}, "everybody may read the payloads"),
    ],
)  # fmt: skip
def test_permissions_that_stop_somebody_are_told(queue, file, look, tmp_path, owners, modes, says):
    queue.process_jobs({})
    for name, mode in {"data": 0o755, **modes}.items():
        os.chmod(tmp_path / name, mode)
    for name, owner in owners.items():
        os.chown(tmp_path / name, *owner)

    found = look("problem", "note")

    assert any(says in one for one in found)


def test_who_may_not_read_cannot_tell(monkeypatch, capsys):
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        queue = Queue(f"{folder}/queue.tsv")
        queue.enqueue("mail")
        doctor.examine(queue)  # with all its imports
        os.chmod(folder, 0o755)
        os.chmod(queue.path, 0)
        if before == 0:
            os.seteuid(65534)
        try:
            found = doctor.examine(queue)
            status = cli.main(["doctor", "--file", queue.path])
        finally:
            os.seteuid(before)

    assert [one.text for one in found if one.level == "unknown"] == [
        f"{queue.path}: cannot be read: Permission denied"
    ]
    assert status == 2
    assert capsys.readouterr().out.endswith("\ncannot tell\n")


def test_a_network_mount_is_told(queue, file, look, monkeypatch, tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 / {file.parent} rw - nfs4 host:/x rw\n")
    monkeypatch.setattr(mount, "MOUNTS", str(mounts))
    queue = Queue(queue.path)

    (found,) = [one for one in doctor.examine(queue) if one.about == "mount"]

    assert found.level == "problem"
    assert "nfs4" in found.text


def test_a_disk_without_room_for_a_copy_is_told(file, look, monkeypatch):
    true = os.statvfs

    class Small:
        f_bavail, f_frsize = 3, 4096

    monkeypatch.setattr(
        os, "statvfs", lambda path: Small if path == str(file.parent) else true(path)
    )

    assert "12,288 bytes are free" in look("problem")[0]


@pytest.mark.parametrize(
    ("variable", "level", "says"),
    [
        (None, "note", "DBBASIC_QUEUE is not set"),
        ("data/queue.tsv", "problem", "is relative"),
        ("/elsewhere/queue.tsv", "note", "is another queue than this one"),
    ],
)
def test_what_cron_would_not_find_is_told(file, look, monkeypatch, variable, level, says):
    monkeypatch.delenv("DBBASIC_QUEUE")
    if variable:
        monkeypatch.setenv("DBBASIC_QUEUE", variable)

    (found,) = look()

    assert found.startswith(f"{level}: ")
    assert says in found


def test_the_line_for_the_crontab_has_absolute_paths_only(queue, file, monkeypatch):
    monkeypatch.delenv("DBBASIC_QUEUE")

    (found,) = [one for one in doctor.examine(queue) if one.about == "cron" and one.remedy]

    assert f"DBBASIC_QUEUE={file} {sys.executable} worker.py" in found.remedy


def test_python_is_started_as_cron_does(queue, file, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", "/nowhere")

    found = doctor.places._bare_start()

    assert found.level in ("ok", "note")
    assert sys.executable in found.text
    assert "bare environment" in found.text


# --- what crashes left, and mending


def test_leftovers_are_told_and_removed(queue, file, look):
    side = Path(f"{file}.d")
    side.mkdir(exist_ok=True)
    (file.parent / ".queue.tsv.12-ab.tmp").write_text("half an edit")
    (side / "unsettled").touch()
    (side / "torn.tsv").write_text("a\nb\n")

    found = look()

    assert [one.rpartition(": ")[2] for one in found] == [
        "of an edit that is under way, or was killed",
        "a rename was not synced",
        "2 lines, cut off by crashes",
    ]
    done = doctor.mend(queue)
    assert len(done) == 2
    assert [one.rpartition(": ")[2] for one in look()] == ["2 lines, cut off by crashes"]


def test_mend_moves_bad_lines_out_byte_for_byte(queue, file, capsys):
    good = file.read_bytes()
    bad = [b"\xff\x1b not a row", wide(status="odd").encode(), b"a\tb"]
    add(file, bad[0] + b"\n", wide(), b"\n", bad[1] + b"\n", bad[2] + b"\n", wide(id=ANOTHER))
    mode = file.stat().st_mode

    assert cli.main(["doctor", "--mend"]) == 0

    assert file.read_bytes() == good + f"{wide()}\n{wide(id=ANOTHER)}\n".encode()
    assert file.stat().st_mode == mode
    assert Path(f"{file}.d/bad.tsv").read_bytes() == b"".join(line + b"\n" for line in bad)
    out = capsys.readouterr().out
    assert [f"line {number} " in out for number in (2, 3, 4, 5, 6, 7, 8)] == [
        False, True, False, True, True, True, False
    ]  # fmt: skip
    assert "3 lines, moved out by --mend" in out


def test_mend_done_again_does_nothing(queue, file):
    add(file, "bad")
    doctor.mend(queue)
    before = file.stat().st_ino, file.stat().st_mtime_ns

    assert doctor.mend(queue) == []

    assert (file.stat().st_ino, file.stat().st_mtime_ns) == before
    assert Path(f"{file}.d/bad.tsv").read_bytes() == b"bad\n"


def test_a_mend_that_cannot_replace_the_file_leaves_it_whole(queue, file, monkeypatch, capsys):
    add(file, "bad", wide())
    before = file.read_bytes()

    def refuse(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", refuse)

    assert cli.main(["doctor", "--mend"]) == 2

    assert file.read_bytes() == before
    assert "No space left" in capsys.readouterr().err
    assert not [one for one in os.listdir(file.parent) if one.endswith(".tmp")]


@pytest.mark.soak
def test_what_is_enqueued_while_it_mends_waits_for_the_lock(queue, file, run_python, monkeypatch):
    add(file, "bad")
    replace = type(queue.file).replace
    child = run_python(f"""
        import sys
        from dbbasic_queue import Queue
        sys.stdin.readline()
        print(Queue({str(file)!r}).enqueue("note"))
    """, stdin=subprocess.PIPE)  # fmt: skip

    def slowly(self, *given):
        child.stdin.write("\n")
        child.stdin.flush()
        time.sleep(0.2)
        replace(self, *given)

    monkeypatch.setattr(type(queue.file), "replace", slowly)
    doctor.mend(queue)

    assert queue.get(child.stdout.readline().strip()).type == "note"


def test_mend_waits_for_no_lock_for_ever(queue, file, capsys):
    with open(f"{file}.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        add(file, "bad")
        queue = Queue(file, lock_timeout=0.1)
        with pytest.raises(Exception, match="locked for"):
            doctor.mend(queue)

    assert file.read_bytes().endswith(b"bad\n")


def test_json_has_all_that_is_found(file, capsys):
    add(file, "bad")

    assert cli.main(["doctor", "--json"]) == 1
    doc = json.loads(capsys.readouterr().out)
    assert cli.main(["doctor", "--json", "--mend"]) == 0
    mended = json.loads(capsys.readouterr().out)

    (found,) = [one for one in doc["findings"] if one["level"] == "problem"]
    assert (doc["file"], doc["healthy"], doc["mended"]) == (str(file), False, [])
    assert (found["about"], found["line"]) == ("line", 3)
    assert (mended["healthy"], len(mended["mended"])) == (True, 1)


def test_a_killed_doctor_holds_nobody(queue, file, run_python):
    child = run_python(f"""
        import os, time
        from dbbasic_queue import Queue, doctor
        from dbbasic_queue.doctor import mending
        mending.hint.forget = lambda file: [print(flush=True), time.sleep(60)]
        doctor.mend(Queue({str(file)!r}))
    """)
    add(file, "bad")
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()

    assert queue.enqueue("note")
    assert doctor.mend(queue) == []


def test_a_file_that_is_mounted_alone_is_a_problem_and_its_folder_is_the_remedy(
    queue, tmp_path, monkeypatch
):
    queue.enqueue("t")
    mounts = tmp_path / "mountinfo"
    real = os.path.realpath(queue.path)
    mounts.write_text(
        f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:1 /x {real} rw - ext4 /dev/sda rw\n"
    )
    monkeypatch.setattr(mount, "MOUNTS", str(mounts))

    (found,) = [one for one in places.look_at_mount(queue) if one.level == "problem"]

    assert "is mounted alone" in found.text
    assert found.remedy == "mount its folder instead"
