"""What each code block of the usage guide does, done in code of our own, on a real file.

| block | what it does                       | block | what it does                    |
|-------|------------------------------------|-------|---------------------------------|
| 1     | pip install                        | 16    | a thousand jobs at once         |
| 2     | install from a clone               | 17    | folders of an application       |
| 3     | enqueue                            | 18    | a worker script that logs       |
| 4     | a worker script                    | 19    | its crontab line                |
| 5     | a crontab line                     | 20    | permissions                     |
| 6     | a handler that returns             | 21    | count with grep and tail        |
| 7     | now, and in an hour                | 22    | an admin page that counts       |
| 8     | a handler for each type            | 23    | read the worker's log           |
| 9     | a job as a dict                    | 24    | see the worker in ps            |
| 10    | ask how a job ended                | 25    | see cron in syslog              |
| 11    | cancel                             | 26    | see the file's permissions      |
| 12    | a web application that enqueues    | 27    | list what failed                |
| 13    | a worker that sends mail           | 28    | call a handler by hand          |
| 14    | a worker that encodes video        | 29    | put old jobs away               |
| 15    | a job for midnight                 | 30    | remove old jobs                 |

`covers(n)` above a test names the block; the last test counts them.
"""

import datetime
import json
import logging
import os
import re
import shutil
import smtplib
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, cancel_job, enqueue, get_job, process_jobs

from . import mailserver, test_deployment
from .guide import COUNT
from .machine import CRON, PACKAGES

FILE = Path("data/queue.tsv")
COVERED = {}
ECHO_WORKER = """
import sys
sys.path.insert(0, {packages!r})
from dbbasic_queue import process_jobs

def echo(payload):
    print("echo", payload["word"], flush=True)
    return payload["word"]

if __name__ == "__main__":
    process_jobs({{"echo": echo}})
"""
LOGGING_WORKER = """
import logging
import sys
from dbbasic_queue import process_jobs

logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")

def fragile(payload):
    return 1 / payload["divisor"]

try:
    logging.info("the tick begins")
    process_jobs({"fragile": fragile})
    logging.info("the tick is over")
except Exception:
    logging.exception("the tick broke")
    sys.exit(1)
"""


def covers(number):
    def note(test):
        COVERED.setdefault(number, []).append(test.__name__)
        return test

    return note


def rows():
    """The cells of each row in the file."""
    return [line.split("\t") for line in FILE.read_text("utf-8").splitlines()[1:]]


def as_cron(line):
    """Run a crontab line's command the way that cron does: a bare environment, sh, no folder."""
    command = line.split(maxsplit=5)[5]
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=CRON, cwd="/", capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@covers(1)
@pytest.mark.engine
def test_one_installation_brings_the_package_and_filelock(tmp_path, wheels):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--find-links", wheels]

    subprocess.run([*pip, "--target", tmp_path / "site", "dbbasic-queue"], check=True)

    program = "import dbbasic_queue, filelock; print(dbbasic_queue.__file__, filelock.__file__)"
    output = subprocess.check_output(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        text=True,
    )
    assert [Path(file).parents[1] for file in output.split()] == [tmp_path / "site"] * 2


@covers(2)
@pytest.mark.engine
def test_a_clone_works_as_it_lies_there(tmp_path, checkout):
    clone = tmp_path / "elsewhere"

    subprocess.run(["git", "clone", "-q", checkout, clone], check=True)

    program = "import dbbasic_queue as d; print(d.__file__, d.enqueue('t', {}))"
    output = subprocess.check_output([sys.executable, "-c", program], cwd=clone, text=True)
    file, job_id = output.split()
    assert Path(file).is_relative_to(clone)
    assert job_id in (clone / FILE).read_text()


@covers(3)
def test_enqueue_gives_the_id_of_a_row_that_is_on_the_disk():
    job_id = enqueue("send_email", {"to": "ada@example.org", "subject": "Grüße"})

    assert re.fullmatch("[0-9a-f]{16}", job_id)
    (row,) = rows()
    assert (row[0], row[1], row[3]) == (job_id, "send_email", "pending")
    assert json.loads(row[2]) == {"to": "ada@example.org", "subject": "Grüße"}


@covers(4)
def test_a_worker_script_runs_what_another_process_enqueued(tmp_path, run_script):
    job_id = enqueue("echo", {"word": "hello"})
    (tmp_path / "worker.py").write_text(ECHO_WORKER.format(packages=str(PACKAGES)))

    output, status = run_script("worker.py")

    assert (output, status) == ("echo hello\n", 0)
    assert get_job(job_id)["result"] == "hello"


@covers(5)
def test_a_crontab_line_finds_the_queue_in_its_folder_and_appends_to_a_log(tmp_path):
    (tmp_path / "worker.py").write_text(ECHO_WORKER.format(packages=str(PACKAGES)))
    line = f"* * * * * cd {tmp_path} && {sys.executable} worker.py >> {tmp_path}/queue.log 2>&1"

    for word in ("one", "two"):
        enqueue("echo", {"word": word})
        as_cron(line)

    assert (tmp_path / "queue.log").read_text() == "echo one\necho two\n"
    assert [row[3] for row in rows()] == ["completed", "completed"]


@covers(6)
def test_what_a_handler_returns_is_stored_as_the_result():
    job_id = enqueue("add", {"left": 2, "right": 3})

    process_jobs({"add": lambda payload: payload["left"] + payload["right"]})

    assert get_job(job_id)["result"] == 5
    assert rows()[0][8] == "5"


@covers(7)
def test_a_job_for_in_an_hour_runs_in_an_hour_and_not_before():
    ran = []
    handlers = {"note": lambda payload: ran.append(payload["what"])}

    with freeze_time("2025-10-09 12:00:00.5") as clock:
        enqueue("note", {"what": "now"})
        enqueue("note", {"what": "later"}, run_at=time.time() + 3600)
        process_jobs(handlers)
        clock.move_to("2025-10-09 13:00:00")
        process_jobs(handlers)
        before = list(ran)
        clock.move_to("2025-10-09 13:00:01")
        process_jobs(handlers)

    assert before == ["now"]
    assert ran == ["now", "later"]


@covers(8)
def test_each_type_goes_to_its_own_handler():
    first, second = enqueue("upper", {"text": "a"}), enqueue("twice", {"text": "b"})
    handlers = {"upper": lambda p: p["text"].upper(), "twice": lambda p: p["text"] * 2}

    process_jobs(handlers, max_attempts=3)

    assert [get_job(job_id)["result"] for job_id in (first, second)] == ["A", "bb"]


@covers(8)
def test_the_third_failed_attempt_is_the_last():
    attempts = []

    def fail(payload):
        attempts.append(payload)
        raise ValueError("no such address")

    with freeze_time("2025-10-09") as clock:
        job_id = enqueue("fail", {})
        for seconds in (59, 1, 119, 1, 10_000):
            process_jobs({"fail": fail}, max_attempts=3)
            clock.tick(seconds)

    job = get_job(job_id)
    assert len(attempts) == 3
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert "no such address" in job["error"]


@covers(9)
@freeze_time("2025-10-09 12:00:00")
def test_a_finished_job_is_a_dict_of_plain_values():
    job_id = enqueue("send_email", {"to": "ada@example.org"})

    process_jobs({"send_email": lambda payload: {"sent_at": int(time.time())}})

    noon = 1760011200
    assert get_job(job_id) == {
        "id": job_id,
        "type": "send_email",
        "payload": {"to": "ada@example.org"},
        "status": "completed",
        "created_at": noon,
        "run_at": noon,
        "attempts": 1,
        "error": None,
        "result": {"sent_at": noon},
    }


@covers(10)
def test_a_job_tells_its_result_or_else_its_error():
    good, bad = enqueue("divide", {"by": 4}), enqueue("divide", {"by": 0})

    process_jobs({"divide": lambda payload: 1 / payload["by"]}, max_attempts=1)

    assert (get_job(good)["status"], get_job(good)["result"]) == ("completed", 0.25)
    assert get_job(bad)["status"] == "failed"
    assert "division by zero" in get_job(bad)["error"]
    assert get_job("0123456789abcdef") is None


@covers(11)
def test_a_job_can_be_cancelled_until_it_starts():
    early, late = enqueue("note", {}), enqueue("note", {})

    cancelled = cancel_job(early)
    process_jobs({"note": lambda payload: None})

    assert cancelled is True
    assert cancel_job(early) is False
    assert cancel_job(late) is False
    assert [get_job(job_id)["status"] for job_id in (early, late)] == ["cancelled", "completed"]


@covers(12)
def test_a_web_application_enqueues_in_a_request():
    flask = pytest.importorskip("flask")
    application = flask.Flask("shop")

    @application.post("/orders")
    def order():
        return {"job": enqueue("confirm", {"mail": flask.request.json["mail"]})}

    answer = application.test_client().post("/orders", json={"mail": "ada@example.org"})

    assert get_job(answer.json["job"])["payload"] == {"mail": "ada@example.org"}


@covers(13)
@pytest.mark.engine
def test_a_worker_sends_a_mail_through_a_real_server():
    job_id = enqueue("mail", {"to": "ada@example.org", "text": "Guten Tag, Welt: äöü"})

    def send(payload):
        with smtplib.SMTP("127.0.0.1", server.port) as smtp:
            message = f"To: {payload['to']}\n\n".encode() + payload["text"].encode()
            smtp.sendmail("queue@example.org", payload["to"], message)

    with mailserver.serving() as server:
        process_jobs({"mail": send})

    (message,) = server.messages
    assert message["To"] == "ada@example.org"
    assert message.get_payload(decode=True).decode().strip() == "Guten Tag, Welt: äöü"
    assert get_job(job_id)["status"] == "completed"


@covers(14)
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_a_worker_encodes_a_video(tmp_path):
    ffmpeg = "ffmpeg -nostdin -v error".split()
    source = "-f lavfi -i testsrc=duration=1:size=64x64:rate=5 clip.avi".split()
    subprocess.run([*ffmpeg, *source], check=True)

    def encode(payload):
        subprocess.run([*ffmpeg, "-i", payload["from"], "-c:v", "libx264", "out.mp4"], check=True)
        return os.path.getsize("out.mp4")

    job_id = enqueue("encode", {"from": "clip.avi"})
    process_jobs({"encode": encode})

    assert get_job(job_id)["result"] == (tmp_path / "out.mp4").stat().st_size > 500


@covers(15)
def test_a_job_for_midnight_runs_at_midnight():
    ran = []
    handlers = {"report": lambda payload: ran.append(payload["day"])}

    with freeze_time("2025-10-09 23:59:00") as clock:
        midnight = datetime.datetime(2025, 10, 10, tzinfo=datetime.timezone.utc)
        enqueue("report", {"day": "2025-10-09"}, run_at=int(midnight.timestamp()))
        process_jobs(handlers)
        before = list(ran)
        clock.tick(60)
        process_jobs(handlers)

    assert (before, ran) == ([], ["2025-10-09"])


@covers(16)
def test_a_thousand_jobs_run_once_each_in_their_order(monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE_SYNC", "off")
    ran = []

    for number in range(1000):
        enqueue("letter", {"number": number})
    process_jobs({"letter": lambda payload: ran.append(payload["number"])})

    assert ran == list(range(1000))
    assert Counter(row[3] for row in rows()) == {"completed": 1000}


@covers(17)
def test_application_and_worker_share_the_queue_of_the_folder_they_run_in(tmp_path, run_script):
    for name in ("app.py", "workers/queue_worker.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "app.py").write_text("from dbbasic_queue import enqueue\nenqueue('echo', {})\n")
    worker = "from dbbasic_queue import process_jobs\nprocess_jobs({'echo': print})\n"
    (tmp_path / "workers/queue_worker.py").write_text(worker)

    run_script("app.py")
    output, status = run_script("workers/queue_worker.py")

    assert (output, status) == ("{}\n", 0)
    assert [row[3] for row in rows()] == ["completed"]
    assert not (tmp_path / "workers/data").exists()


@covers(18)
def test_a_worker_script_logs_its_tick_and_ends_well(tmp_path, run_script):
    enqueue("fragile", {"divisor": 2})
    (tmp_path / "worker.py").write_text(LOGGING_WORKER)

    output, status = run_script("worker.py")

    lines = output.splitlines()
    assert status == 0
    assert lines[0].endswith("INFO the tick begins")
    assert lines[-1].endswith("INFO the tick is over")


@covers(18)
def test_a_worker_script_that_meets_a_foreign_file_says_so_and_ends_with_1(tmp_path, run_script):
    FILE.parent.mkdir()
    FILE.write_text("name\tphone\nAda\t1815\n")
    (tmp_path / "worker.py").write_text(LOGGING_WORKER)

    output, status = run_script("worker.py")

    assert status == 1
    assert "ERROR the tick broke" in output
    assert str(FILE) in output
    assert FILE.read_text() == "name\tphone\nAda\t1815\n"


@covers(19)
def test_each_run_of_the_crontab_line_adds_to_the_log(tmp_path):
    (tmp_path / "workers").mkdir()
    (tmp_path / "logs").mkdir()
    script = f"import sys\nsys.path.insert(0, {str(PACKAGES)!r})\n{LOGGING_WORKER}"
    (tmp_path / "workers/queue_worker.py").write_text(script)
    command = f"{sys.executable} workers/queue_worker.py >> logs/queue.log 2>&1"

    for _ in range(2):
        enqueue("fragile", {"divisor": 1})
        as_cron(f"* * * * * cd {tmp_path} && {command}")

    assert (tmp_path / "logs/queue.log").read_text().count("the tick is over") == 2
    assert [row[3] for row in rows()] == ["completed", "completed"]


@covers(20)
def test_an_empty_file_made_beforehand_keeps_its_mode():
    FILE.parent.mkdir()
    FILE.touch()
    FILE.chmod(0o664)

    job_id = enqueue("note", {})
    process_jobs({"note": lambda payload: None})

    assert stat.S_IMODE(FILE.stat().st_mode) == 0o664
    assert get_job(job_id)["status"] == "completed"


@covers(20)
@pytest.mark.engine
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_was_given_away_keeps_its_owner():
    FILE.parent.mkdir()
    FILE.touch()
    os.chown(FILE, 33, 34)

    enqueue("note", {})
    process_jobs({"note": lambda payload: None})

    assert (FILE.stat().st_uid, FILE.stat().st_gid) == (33, 34)
    assert [row[3] for row in rows()] == ["completed"]


@covers(21)
def test_plain_tools_count_what_waits(shell):
    for number in range(12):
        enqueue("even" if number % 2 == 0 else "odd", {"number": number})

    process_jobs({"odd": lambda payload: None})

    assert int(shell("grep -c pending data/queue.tsv")) == 6
    last = shell("tail -3 data/queue.tsv | cut -f3").splitlines()
    assert [json.loads(line)["number"] for line in last] == [9, 10, 11]


@covers(22)
def test_a_page_can_count_the_fourth_cell_of_each_line():
    for divisor in (1, 2, 0):
        enqueue("divide", {"by": divisor})
    process_jobs({"divide": lambda payload: 1 / payload["by"]}, max_attempts=1)
    enqueue("divide", {"by": 3})

    counted = Counter(row[3] for row in rows())

    assert counted == {"pending": 1, "completed": 2, "failed": 1}
    assert counted == Counter(Queue().counts("status"))


@covers(23)
def test_the_log_of_a_tick_can_be_searched_by_day_and_for_errors(caplog, shell, tmp_path):
    handler = logging.FileHandler(tmp_path / "queue.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("dbbasic_queue")
    caplog.set_level("INFO", logger="dbbasic_queue")
    for divisor in (1, 0):
        enqueue("divide", {"by": divisor})

    logger.addHandler(handler)
    process_jobs({"divide": lambda payload: 1 / payload["by"]}, max_attempts=1)
    logger.removeHandler(handler)
    handler.close()

    today = time.strftime("%Y-%m-%d")
    assert int(shell(f"grep -c {today} queue.log")) >= 2
    assert "divide" in shell("grep ERROR queue.log")


@covers(24)
def test_a_running_worker_is_seen_by_its_script_name(tmp_path, start_script, shell):
    enqueue("wait", {})
    (tmp_path / "queue_worker.py").write_text(
        "from dbbasic_queue import process_jobs\n"
        "process_jobs({'wait': lambda payload: [print('begun', flush=True), input()] and None})\n"
    )

    worker = start_script("queue_worker.py", stdin=subprocess.PIPE)
    begun = worker.stdout.readline()
    seen = shell("ps -eo pid,args | grep '[q]ueue_worker'")
    worker.communicate("\n", timeout=60)

    assert begun == "begun\n"
    assert str(worker.pid) in seen.split()
    assert [row[3] for row in rows()] == ["completed"]


@covers(26)
def test_a_new_queue_file_is_for_its_owner_and_group_alone(shell):
    old = os.umask(0o022)
    try:
        enqueue("note", {})
    finally:
        os.umask(old)

    (line,) = shell("ls -l data | grep 'queue.tsv$'").splitlines()
    assert line.startswith("-rw-r----- ")


@covers(27)
def test_failed_jobs_are_listed_with_their_reason_on_one_line(shell):
    def fail(payload):
        raise ValueError(f"no\tsuch\naddress: {payload['to']}")

    jobs = [enqueue("mail", {"to": name}) for name in ("ada", "bob")]
    process_jobs({"mail": fail}, max_attempts=1)
    enqueue("mail", {"to": "eve"})

    lines = shell("grep failed data/queue.tsv").splitlines()
    assert [line.split("\t")[0] for line in lines] == jobs
    assert ["ada" in lines[0].split("\t")[7], "bob" in lines[1].split("\t")[7]] == [True, True]


@covers(28)
def test_a_handler_is_a_function_that_can_be_called_by_hand():
    def shout(payload):
        return payload["text"].upper()

    by_hand = shout({"text": "hello"})
    job_id = enqueue("shout", {"text": "hello"})
    process_jobs({"shout": shout})

    assert get_job(job_id)["result"] == by_hand == "HELLO"


@covers(29)
def test_finished_jobs_can_be_put_away_and_the_queue_goes_on():
    done = enqueue("note", {})
    process_jobs({"note": lambda payload: None})
    waiting = enqueue("note", {})
    queue = Queue()

    queue.backup("before.tsv")
    queue.purge(status="completed")
    process_jobs({"note": lambda payload: None})

    assert [job.id for job in Queue("before.tsv").jobs()] == [done, waiting]
    assert [(job.id, job.status) for job in queue.jobs()] == [(waiting, "completed")]


@covers(30)
def test_a_clean_up_takes_finished_jobs_of_last_week_only():
    with freeze_time("2025-10-01") as clock:
        for kind in ("done", "waiting"):
            enqueue(kind, {})
        process_jobs({"done": lambda payload: None})
        clock.move_to("2025-10-09")
        recent = enqueue("done", {})
        process_jobs({"done": lambda payload: None})
        removed = Queue().purge(older_than=7 * 86400)

    assert removed == 1
    assert [(row[1], row[3]) for row in rows()] == [("waiting", "pending"), ("done", "completed")]
    assert rows()[1][0] == recent


def test_every_block_of_the_guide_is_covered():
    elsewhere = {25: test_deployment.test_cron_logs_each_start_of_the_worker.__name__}

    assert COVERED.keys() | elsewhere.keys() == set(range(1, COUNT + 1))
