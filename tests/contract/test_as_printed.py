"""The usage guide's Python and shell blocks, taken out of the document and run as they stand there.

`guide.PATCHES` is all that is changed in them.  A block that builds on the pages before it is run
among the names, files and folders that those pages have set; a shell block that names `/app` or
`/var/log` runs as root on a `machine` of its own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import cancel_job, enqueue, get_job, process_jobs

from . import guide

pytestmark = guide.needs_document

FILE = Path("data/queue.tsv")
engine = pytest.mark.engine


def load(name, *numbers):
    """Import the printed blocks as one file, as a web server would."""
    Path(name).write_text("\n\n".join(map(guide.block, numbers)), encoding="utf-8")
    module = types.ModuleType(Path(name).stem)
    exec(compile(Path(name).read_text(encoding="utf-8"), name, "exec"), vars(module))
    return module


def rows():
    return [line.split("\t") for line in FILE.read_text("utf-8").splitlines()[1:]]


def fail(payload):
    raise ValueError("no such address")


def test_the_document_has_thirty_blocks_and_six_patches_are_enough():
    assert list(guide.printed()) == list(range(1, guide.COUNT + 1))
    assert len(guide.PATCHES) == 6
    for number, patch in guide.PATCHES.items():
        assert guide.printed()[number].text.count(patch.old) == 1


def test_every_block_is_run_by_a_test_here_or_in_the_deployment():
    files = [Path(__file__), Path(__file__).with_name("test_deployment.py")]
    text = "".join(file.read_text(encoding="utf-8") for file in files)

    calls = re.findall(r"\b(?:run|block|load)\(([^)]*)\)", text)
    numbers = {int(number) for call in calls for number in re.findall(r"\b\d+\b", call)}

    assert numbers >= set(range(1, guide.COUNT + 1))


@engine
def test_block_1_installs_from_the_index(fresh_python, wheels):
    environment = {
        "PATH": f"{fresh_python}/bin:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
    }

    subprocess.run(["bash", "-ec", guide.block(1)], env=environment, check=True)

    program = "import dbbasic_queue, filelock; print(dbbasic_queue.__file__)"
    output = subprocess.check_output([fresh_python / "bin/python", "-c", program], text=True)
    assert Path(output).is_relative_to(fresh_python)


@engine
def test_block_2_installs_from_source(fresh_python, wheels, checkout, tmp_path):
    environment = {
        "PATH": f"{fresh_python}/bin:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{checkout}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/dbbasic/dbbasic-queue",
    }

    subprocess.run(["bash", "-ec", guide.block(2)], env=environment, check=True)

    program = "import dbbasic_queue, filelock; print(dbbasic_queue.__file__)"
    output = subprocess.check_output([fresh_python / "bin/python", "-c", program], text=True)
    assert Path(output).is_relative_to(tmp_path / "dbbasic-queue")


def test_block_3_queues_a_job(capsys):
    names = guide.run(3)

    assert re.fullmatch("[0-9a-f]{16}", names["job_id"])
    assert capsys.readouterr().out == f"Job queued with ID: {names['job_id']}\n"
    assert get_job(names["job_id"])["payload"]["subject"] == "Welcome!"


def test_block_4_is_a_worker_that_runs_it(tmp_path, run_script):
    job_id = guide.run(3)["job_id"]
    (tmp_path / "worker.py").write_text(guide.block(4))

    output, status = run_script("worker.py")

    assert (output, status) == ("", 0)
    assert get_job(job_id)["status"] == "completed"
    assert abs(get_job(job_id)["result"]["sent_at"] - time.time()) < 60


@engine
def test_block_5_runs_under_cron(machine):
    machine.write("/app/worker.py", guide.block(4))
    machine.write("/app/enqueue.py", guide.block(3))
    machine.path("/var/log").mkdir(parents=True)
    machine.write("/crontab", guide.block(5))
    line = guide.block(5).splitlines()[-1]

    accepted = machine.run("crontab", "-n", "/crontab")
    machine.shell("python3 enqueue.py", folder="/app")
    machine.cron(line)

    assert "errors" not in accepted
    assert machine.read("/var/log/queue.log") == ""
    assert "\tcompleted\t" in machine.read("/app/data/queue.tsv")


def test_block_6_is_a_handler_whose_return_value_is_stored():
    names = guide.run(6, do_something=lambda parameter: {"did": parameter})
    job_id = enqueue("mine", {"param": 7})

    process_jobs({"mine": names["my_handler"]})

    assert get_job(job_id)["result"] == {"did": 7}


def test_block_7_queues_one_job_for_now_and_one_for_in_an_hour():
    with freeze_time("2025-10-09 12:00:00.25") as clock:
        guide.run(7, enqueue=enqueue)
        process_jobs({"process_video": str, "cleanup": str})
        before = [row[3] for row in rows()]
        clock.tick(3600.75)
        process_jobs({"process_video": str, "cleanup": str})

    assert [row[1] for row in rows()] == ["process_video", "cleanup"]
    assert before == ["completed", "pending"]
    assert [row[3] for row in rows()] == ["completed", "completed"]


def test_block_8_runs_a_handler_for_each_type():
    done = []
    mail = enqueue("send_email", {"to": "ada@example.org", "subject": "Hello"})
    video = enqueue("process_video", {"video_id": 42})

    guide.run(
        8,
        process_jobs=process_jobs,
        send_email=lambda to, subject: done.append((to, subject)),
        process_video=done.append,
    )

    assert done == [("ada@example.org", "Hello"), 42]
    assert get_job(mail)["result"] == {"sent": True}
    assert get_job(video)["result"] == {"processed": True}


def test_block_9_is_what_get_job_returns():
    documented = guide.block(9)
    structure = eval(documented)

    with freeze_time("2023-10-09 21:20:00") as clock:
        job_id = enqueue("send_email", structure["payload"])
        clock.tick(5)
        process_jobs({"send_email": lambda payload: {"sent_at": int(time.time())}})

    assert get_job(job_id) == {**structure, "id": job_id}
    assert list(get_job(job_id)) == list(structure)


@pytest.mark.parametrize("status", ["completed", "failed", "pending"])
def test_block_10_prints_how_a_job_went(capsys, status):
    job_id = enqueue("note", {})
    handlers = {"completed": {"note": lambda payload: 42}, "failed": {"note": fail}, "pending": {}}

    process_jobs(handlers[status], max_attempts=1)
    guide.run(10, get_job=get_job, job_id=job_id)

    first, *second = capsys.readouterr().out.splitlines()
    assert first == f"Status: {status}"
    if status == "pending":
        assert second == []
    else:
        word = {"completed": "Result: 42", "failed": "no such address"}[status]
        assert word in second[0]


def test_block_11_cancels_what_has_not_started(capsys):
    job_id = enqueue("note", {})

    for _ in range(2):
        guide.run(11, cancel_job=cancel_job, job_id=job_id)

    assert capsys.readouterr().out.splitlines() == [
        "Job cancelled",
        "Cannot cancel (not found or already started)",
    ]
    assert get_job(job_id)["status"] == "cancelled"


def test_block_12_is_a_web_application():
    pytest.importorskip("flask")
    app = load("app.py", 12).app

    answer = app.test_client().post("/signup", json={"email": "ada@example.org"})

    assert answer.json == {"message": "Signup successful"}
    (row,) = rows()
    assert (row[1], row[3]) == ("send_email", "pending")
    assert json.loads(row[2])["to"] == "ada@example.org"


@engine
def test_block_13_sends_the_mail_to_the_server_on_this_host(machine):
    machine.write("/app/worker.py", guide.block(13))
    machine.write("/app/enqueue.py", guide.block(3))
    program = """if True:
        import subprocess
        import mailserver

        mailserver.loopback_up()
        subprocess.run(["python3", "enqueue.py"], check=True)
        with mailserver.serving(25) as server:
            subprocess.run(["python3", "worker.py"], check=True)
        for message in server.messages:
            print(message["From"], message["To"], message["Subject"], message.get_content())
    """

    output = machine.python(program, folder="/app")

    assert output.splitlines()[1].split() == [
        *("noreply@example.com", "user@example.com", "Welcome!"),
        *("Thanks", "for", "signing", "up."),
    ]
    assert "\tcompleted\t" in machine.read("/app/data/queue.tsv")


@engine
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_block_14_encodes_a_video(machine):
    machine.write("/app/block.py", guide.block(14))
    for folder in ("/uploads", "/processed"):
        machine.path(folder).mkdir()
    make = "ffmpeg -nostdin -v error -f lavfi -i testsrc=duration=1:size=64x64:rate=5"
    program = """if True:
        from dbbasic_queue import enqueue, get_job, process_jobs

        names = {"enqueue": enqueue}
        exec(open("block.py").read(), names)
        process_jobs({"process_video": names["process_video_handler"]})
        job = get_job(names["job_id"])
        print(job["status"], job["result"]["output_path"])
    """

    machine.shell(f"{make} -f lavfi -i sine=duration=1 /uploads/video123.mp4")
    output = machine.python(program, folder="/app")

    assert output == "completed /processed/video123.mp4\n"
    assert b"ftyp" in machine.path("/processed/video123.mp4").read_bytes()[:12]


def test_block_15_queues_a_report_for_midnight():
    handlers = {"generate_daily_report": lambda payload: payload["date"]}

    with freeze_time("2025-10-09 23:59:59") as clock:
        job_id = guide.run(15, enqueue=enqueue)["job_id"]
        process_jobs(handlers)
        before = get_job(job_id)
        clock.tick(1)
        process_jobs(handlers)

    assert (before["status"], before["run_at"] % 86400) == ("pending", 0)
    assert get_job(job_id)["result"] == "2025-10-09"


def test_block_16_queues_a_thousand_jobs(monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE_SYNC", "off")
    ran = []

    guide.run(16, enqueue=enqueue)
    process_jobs({"send_newsletter": lambda payload: ran.append(payload["user_id"])})

    assert ran == list(range(1, 1001))


def test_block_18_is_a_worker_with_a_log(tmp_path, run_script):
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers/queue_worker.py").write_text(guide.block(18))
    (tmp_path / "workers/handlers.py").write_text(
        "email_handler = video_handler = report_handler = str\n"
    )
    jobs = [enqueue(name, {}) for name in ("send_email", "process_video", "generate_report")]

    output, status = run_script("workers/queue_worker.py")

    lines = output.splitlines()
    assert status == 0
    assert lines[0].endswith(" - INFO - Starting queue worker")
    assert lines[-1].endswith(" - INFO - Queue worker finished")
    assert [get_job(job_id)["result"] for job_id in jobs] == ["{}"] * 3


def test_block_18_reports_a_foreign_file_and_ends_with_1(tmp_path, run_script):
    (tmp_path / "queue_worker.py").write_text(guide.block(18))
    (tmp_path / "handlers.py").write_text("email_handler = video_handler = report_handler = str\n")
    FILE.parent.mkdir()
    FILE.write_text("name\tphone\nAda\t1815\n")

    output, status = run_script("queue_worker.py")

    assert status == 1
    assert " - ERROR - Worker error: " in output


@engine
def test_block_20_makes_file_and_folders_that_the_web_server_may_write(machine):
    listing = machine.shell(guide.block(20) + "stat -c '%U:%G %a %n' /app/* /app/data/*")

    assert listing.splitlines() == [
        "root:root 755 /app/data",
        "www-data:www-data 775 /app/logs",
        "www-data:www-data 664 /app/data/queue.tsv",
    ]


def test_block_21_shows_the_numbers(shell):
    bad = enqueue("bad", {})
    process_jobs({"bad": fail}, max_attempts=1)
    waiting = [enqueue("note", {"number": number}) for number in range(11)]

    lines = shell(guide.block(21)).splitlines()

    assert int(lines[0]) == 11
    assert [line.split("\t")[0] for line in lines[1:]] == [bad, *waiting[1:]]


def test_block_22_counts_for_the_admin():
    pytest.importorskip("flask")
    client = load("app.py", 12, 22).app.test_client()
    nothing = {"pending": 0, "processing": 0, "completed": 0, "failed": 0}

    empty = client.get("/admin/queue").json
    for name in ("good", "bad", "bad", "off"):
        enqueue(name, {})
    process_jobs({"good": str, "bad": fail}, max_attempts=1)

    assert empty == nothing
    assert client.get("/admin/queue").json == {**nothing, "pending": 1, "completed": 1, "failed": 2}


@engine
def test_block_23_follows_and_searches_the_log(machine):
    today = time.strftime("%Y-%m-%d")
    log = [f"{today} - INFO - Starting", f"{today} - ERROR - Bad", "2001-01-01 - INFO - Old"]
    machine.write("/app/logs/queue.log", "\n".join(log) + "\n")

    with machine.start("bash", "-c", guide.block(23)) as process:
        followed = [process.stdout.readline().rstrip("\n") for _ in log]
        os.kill(follower(process.pid), signal.SIGTERM)  # as Ctrl-C would
        searched = process.communicate(timeout=60)[0].splitlines()

    assert followed == log
    assert searched == [log[1], "2"]


def follower(ancestor):
    """The `tail -f` among the descendants of a process."""
    for child in Path(f"/proc/{ancestor}/task/{ancestor}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text() == "tail\n":
            return int(child)
        found = follower(child)
        if found:
            return found


def test_block_24_finds_the_running_worker(tmp_path, start_script, shell):
    (tmp_path / "queue_worker.py").write_text("print('up', flush=True)\ninput()\n")
    worker = start_script("queue_worker.py", stdin=subprocess.PIPE)

    worker.stdout.readline()
    found = shell(guide.block(24))
    worker.communicate("\n", timeout=60)

    assert str(worker.pid) in [line.split()[1] for line in found.splitlines()]


def test_block_26_shows_the_permissions(shell):
    enqueue("note", {})
    FILE.chmod(0o664)
    process_jobs({"note": str})

    listed = shell(guide.block(26)).split()

    assert (listed[0], listed[-1]) == ("-rw-rw-r--", str(FILE))


def test_block_27_lists_the_failed_jobs(shell):
    bad = [enqueue("bad", {}), enqueue("bad", {})]
    enqueue("note", {})
    process_jobs({"bad": fail, "note": str}, max_attempts=1)

    listed = shell(guide.block(27)).splitlines()

    assert [line.split("\t")[0] for line in listed] == bad
    assert all("no such address" in line for line in listed)


def test_block_28_calls_a_handler_by_hand(monkeypatch):
    sent = []
    handlers = types.ModuleType("handlers")
    handlers.send_email_handler = sent.append
    monkeypatch.setitem(sys.modules, "handlers", handlers)

    guide.run(28)

    assert sent == [{"to": "test@example.com"}]


def test_block_29_archives_and_the_queue_goes_on(shell):
    done, bad = enqueue("note", {}), enqueue("bad", {})
    process_jobs({"note": str, "bad": fail}, max_attempts=1)
    waiting = enqueue("note", {"n": 1})

    shell(guide.block(29))
    after = enqueue("note", {"n": 2})
    process_jobs({"note": str})

    backup = Path("data/queue.tsv.bak").read_text().splitlines()
    assert [line.split("\t")[0] for line in backup[1:]] == [done, bad, waiting]
    assert [(row[0], row[3]) for row in rows()] == [(waiting, "completed"), (after, "completed")]
    assert get_job(done) is None


def test_block_30_removes_what_finished_last_week_and_the_queue_goes_on():
    with freeze_time("2025-10-01") as clock:
        kept = enqueue("waiting", {})
        enqueue("note", {})
        process_jobs({"note": str})
        clock.move_to("2025-10-09")
        recent = enqueue("note", {})
        process_jobs({"note": str})
        guide.run(30)["cleanup_old_jobs"]()
        after = enqueue("note", {})
        process_jobs({"note": str, "waiting": str})

    assert [row[0] for row in rows()] == [kept, recent, after]
    assert {row[3] for row in rows()} == {"completed"}
