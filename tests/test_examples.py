"""Every file in examples/ is run as it is, in a fresh folder, against real peers.

The peers are a small SMTP server, an HTTP gateway, ffmpeg, bash and Perl with flock.
Each test starts in a folder of its own (see conftest.py), so `data/queue.tsv` is its own too.
"""

import contextlib
import email
import http.server
import json
import os
import re
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from dbbasic_queue import Queue, enqueue, get_job, process_jobs

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
appenders = pytest.mark.parametrize(
    "appender",
    [
        pytest.param(
            "append_from_bash.sh",
            marks=pytest.mark.skipif(not shutil.which("flock"), reason="needs flock(1)"),
        ),
        pytest.param(
            "append_from_perl.pl",
            marks=pytest.mark.skipif(not shutil.which("perl"), reason="needs Perl"),
        ),
    ],
)


def command(name, *arguments):
    python = [sys.executable] if name.endswith(".py") else []
    return [*python, str(EXAMPLES / name), *arguments]


def surroundings(**more):
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    if not sys.pycache_prefix:
        kept["PYTHONDONTWRITEBYTECODE"] = "1"
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def run(name, *arguments, status=0, **environment):
    """Run an example to its end, and return what it printed and what it logged."""
    done = subprocess.run(
        command(name, *arguments),
        env=surroundings(**environment),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout, done.stderr


def rows(path="data/queue.tsv"):
    """Read a queue as any script would: a dict for each line, by the words of the header."""
    header, *lines = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    names = header.split("\t")
    return [dict(zip(names, line.split("\t"))) for line in lines]  # noqa: B905 (nine cells)


def the_job():
    """Return the queue's only job."""
    [job] = Queue().jobs()
    return job


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# The whole folder


def test_every_example_has_a_test_here_or_next_door():
    names = (
        "test_examples.py",
        "test_celery.py",
        "test_deploy_examples.py",
        "test_django_project.py",
        "test_docs.py",
        "test_flask.py",
        "test_how_far.py",
        "test_metrics.py",
        "test_other_tools.py",
        "test_transcript.py",
        "test_web_pages.py",
        "test_wsgi_asgi.py",
    )
    tests = [Path(__file__).with_name(name) for name in names]
    source = "".join(path.read_text(encoding="utf-8") for path in tests)
    files = [path.name for path in EXAMPLES.iterdir() if path.is_file()]

    assert [
        name for name in files if not re.search(rf'"(?:examples/)?{re.escape(name)}"', source)
    ] == []


def test_the_folders_readme_has_a_line_for_every_example_and_no_other():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[(.+)\]\(\1\) \| .+ \|$", readme, re.MULTILINE)

    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}

    assert len(named) == len(set(named))
    assert set(named) == files


# quickstart, worker, crontab


def test_the_quickstart_shows_the_file_before_and_after_a_tick(tmp_path):
    printed, logged = run("quickstart.py", TMPDIR=str(tmp_path))

    before, after, _ = re.split("One tick later|Now try", printed)
    assert logged == ""
    assert before.count(" pending ") == 3
    assert [after.count(f" {word} ") for word in ("completed", "failed", "pending")] == [1, 1, 1]
    [queue] = tmp_path.glob("queue-*/data/queue.tsv")
    assert [row["status"] for row in rows(queue)] == ["completed", "failed", "pending"]


@pytest.mark.soak
def test_the_lines_that_the_quickstart_recommends_work(tmp_path):
    printed, _ = run("quickstart.py", TMPDIR=str(tmp_path))
    tries = re.findall(r"^  ((?:cd|cat|grep|tail) .+)$", printed, re.MULTILINE)
    [line] = re.findall(r"^  \* \* \* \* \* (.+)$", printed, re.MULTILINE)
    [folder] = tmp_path.glob("queue-*")
    queue = Queue(folder / "data" / "queue.tsv")
    added = queue.enqueue("greet", {"name": "Cleo"})

    shell = subprocess.run(
        ["sh", "-ec", "\n".join([*tries, line])],
        env=surroundings(),
        cwd="/",
        capture_output=True,
        text=True,
    )

    assert shell.returncode == 0, shell.stderr
    assert "\n2\n" in shell.stdout  # grep -c pending
    assert "division by zero" in shell.stdout  # grep failed
    assert "Queue worker finished" in (folder / "logs" / "queue.log").read_text()
    assert queue.get(added).result == {"greeting": "Hello, Cleo!"}


def test_the_worker_runs_the_handlers_beside_it_and_logs_start_and_end():
    Path("reports").mkdir()
    Path("reports/a.txt").write_text("twelve bytes")
    report = enqueue("generate_report", {"folder": "reports", "output": "report.txt"})
    disk = enqueue("check_disk", {"path": ".", "limit": 100})
    full = enqueue("check_disk", {"path": ".", "limit": -1})

    _, logged = run("worker.py")

    assert re.search(r"^\d{4}-\d\d-\d\d [\d:,]+ - INFO - Starting queue worker$", logged, re.M)
    assert logged.rstrip().endswith(" - INFO - Queue worker finished")
    assert Path("report.txt").read_text() == "          12 a.txt\n"
    assert get_job(report)["result"]["files"] == 1
    assert 0 <= get_job(disk)["result"]["used_percent"] <= 100
    assert get_job(full)["status"] == "pending"
    assert "the limit is -1 %" in get_job(full)["error"]


def test_the_worker_ends_with_status_1_when_the_queue_cannot_be_read():
    Path("data").mkdir()
    Path("data/queue.tsv").write_text("this is no queue\n")

    _, logged = run("worker.py", status=1)

    assert " - ERROR - Worker error: " in logged
    assert "Queue worker finished" not in logged
    assert Path("data/queue.tsv").read_text() == "this is no queue\n"


def test_the_handlers_of_the_worker_are_plain_functions(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    handlers = __import__(Path("handlers.py").stem)

    assert set(handlers.HANDLERS) == {"greet", "check_disk", "generate_report"}
    with pytest.raises(RuntimeError, match="% full"):
        handlers.check_disk({"path": "/", "limit": -1})


def test_the_crontab_line_runs_in_the_bare_surroundings_of_cron(tmp_path):
    for name in ("worker.py", "handlers.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    Path("logs").mkdir()
    job_id = enqueue("check_disk", {"path": "/", "limit": 100})
    line = (EXAMPLES / "crontab.example").read_text().splitlines()[-1]
    line = line.replace("/app/.venv/bin/python", sys.executable).replace("/app", str(tmp_path))

    subprocess.run(
        ["/bin/sh", "-c", line.removeprefix("* * * * * ")],
        check=True,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LANG": "C", "PYTHONPATH": str(ROOT)},
    )

    assert line.startswith("* * * * * cd ")
    assert get_job(job_id)["status"] == "completed"
    assert "Queue worker finished" in Path("logs/queue.log").read_text()


# Mail


class Mailbox(socketserver.StreamRequestHandler):
    """Speak SMTP: keep each mail in `server.mails`; nobody called nobody lives here."""

    def handle(self):
        self.say("220 ready")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.say("354 go on")
                self.server.mails.append(email.message_from_bytes(self.read_mail()))
            if verb == b"RCPT" and b"nobody" in line:
                self.say("550 no such user")
            else:
                self.say("221 bye" if verb == b"QUIT" else "250 fine")
            if verb == b"QUIT":
                return

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def read_mail(self):
        return b"".join(iter(self.rfile.readline, b".\r\n"))


@pytest.fixture
def smtp():
    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox)) as server:
        server.mails = []
        server.environment = {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(server.server_address[1]),
        }
        yield server


@pytest.mark.soak
def test_a_mail_goes_out_with_the_jobs_id(smtp):
    run("mail.py", "ana@example.com", **smtp.environment)

    [mail] = smtp.mails
    job = the_job()
    assert (mail["To"], mail["Subject"]) == ("ana@example.com", "Welcome!")
    assert mail["Message-ID"] == f"<{job.id}@example.com>"
    assert mail.get_payload().strip() == "Thanks for signing up."
    assert job.status == "completed"
    assert job.result["sent_at"] == pytest.approx(time.time(), abs=60)


def test_an_address_that_is_refused_for_good_is_not_tried_again(smtp):
    run("mail.py", "nobody@example.com", "ana@example.com", **smtp.environment)

    refused, sent = Queue().jobs()
    assert (refused.status, refused.attempts) == ("failed", 1)
    assert refused.error == "nobody@example.com: 550 no such user"
    assert sent.status == "completed"


def test_a_mail_server_that_is_down_is_tried_again_in_a_minute():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        port = str(closed.getsockname()[1])
        run("mail.py", "ana@example.com", SMTP_HOST="127.0.0.1", SMTP_PORT=port)

    job = the_job()
    assert (job.status, job.attempts) == ("pending", 1)
    assert "refused" in job.error
    assert 50 < job.run_at - time.time() <= 61


# ffmpeg


@pytest.mark.soak
@needs_ffmpeg
def test_a_video_is_converted_by_ffmpeg(tmp_path):
    run("video.py")

    assert Path("test.mp4").read_bytes()[4:8] == b"ftyp"
    assert the_job().result["output_path"] == str(tmp_path / "test.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "test.avi", "test.mp4"}


@pytest.mark.soak
@needs_ffmpeg
def test_a_video_that_ffmpeg_cannot_read_is_tried_again_and_leaves_nothing(tmp_path):
    Path("broken.avi").write_text("no video")

    _, logged = run("video.py", "broken.avi")

    assert "Invalid data" in logged
    assert the_job().status == "pending"
    assert "ffmpeg" in the_job().error
    assert {path.name for path in tmp_path.iterdir()} == {"data", "broken.avi"}


def png_size(path):
    return struct.unpack(">II", Path(path).read_bytes()[16:24])


@pytest.mark.soak
@needs_ffmpeg
def test_a_picture_is_resized_by_ffmpeg(tmp_path):
    run("image_resize.py")

    assert png_size("picture-160.png") == (160, 120)
    assert png_size("picture-80.png") == (80, 60)
    assert len(list(tmp_path.iterdir())) == 4  # data, the picture and two small ones


def test_a_picture_is_resized_by_pillow_where_there_is_no_ffmpeg():
    pytest.importorskip("PIL", reason="needs Pillow")

    run("image_resize.py", PATH="")

    assert png_size("picture-160.png") == (160, 120)


# Later, and many


def test_a_scheduled_report_waits_for_midnight():
    printed, _ = run("scheduled.py")

    report, later, cancelled, due = rows()
    clock = time.localtime(int(report["run_at"]))
    assert (clock.tm_hour, clock.tm_min, clock.tm_sec) == (0, 0, 0)
    assert 0 < int(report["run_at"]) - int(report["created_at"]) <= 25 * 3600
    assert int(later["run_at"]) - int(later["created_at"]) in (3600, 3601)
    statuses = [job["status"] for job in (report, later, cancelled, due)]
    assert statuses == ["pending", "pending", "cancelled", "completed"]
    assert len(printed.splitlines()) == 4


@pytest.mark.soak
def test_a_schedule_is_declared_once_and_its_job_can_be_run_at_once():
    pytest.importorskip("cronsim")
    run("schedule.py")

    printed, _ = run("schedule.py")

    lines = printed.splitlines()
    assert lines[0].split(maxsplit=3)[3] == "2030-01-31 18:00 CET"
    assert [line.split()[0] for line in lines] == ["closing", "nightly", "stock", "2030-01-31"]
    assert lines[3].split() == ["2030-01-31", "2030-02-28", "2030-03-31"]
    found = rows()
    assert [job["type"] for job in found] == ["schedule"] * 3 + ["report"] * 2
    assert [job["status"] for job in found] == ["pending"] * 3 + ["completed"] * 2


def test_a_thousand_jobs_are_added_in_order_and_all_run():
    printed, _ = run("bulk.py")

    assert printed.startswith("1000 jobs added")
    assert "{'completed': 1000}" in printed
    assert [job.result["sent_to"] for job in Queue().jobs()] == list(range(1, 1001))


@pytest.mark.soak
def test_limits_hold_back_what_may_not_start_yet():
    printed, _ = run("limits.py")

    seconds = [float(at) for at in re.findall(r"([\d.]+) s  {'call'", printed)]
    assert len(seconds) == 8
    assert seconds[5] - seconds[0] >= 0.1
    assert printed.count("{'user': 'ada'}") == printed.count("{'user': 'bob'}") == 1
    assert "left: 1 text to ada\n" in printed
    assert printed.index("left:") < printed.index("{'index': 'shop'}")
    assert "3 jobs of queue default are unfinished: full" in printed


def test_a_job_whose_worker_is_killed_goes_on_from_its_step_and_from_its_checkpoint():
    printed, _ = run("steps.py")

    assert printed.splitlines() == [
        "attempt 1",
        "  the card is charged",
        "  the goods are reserved",
        "the worker is dead",
        "attempt 2",
        "  mail to ada@example.com: receipt R-1234",
        "rows from 0 on",
        "ConnectionError: the source went away at"
        " Progress(done=2500, total=5000, percent=50, message='reading rows')",
        "rows from 2000 on",
        "now 5000/5000 100%",
    ]


def test_layers_stand_around_each_run():
    printed, logged = run("middleware.py")

    assert printed.count("hello, mail\ngoodbye, mail\n") == 6
    assert printed.splitlines()[12:] == [
        "expired: it was to start by 1",
        "not authorized: it needs payroll",
        "newsletter ada pending [(1, 'ConnectionError: the server is down')]",
        "newsletter ben completed ",
        "newsletter eva pending ",
    ]
    assert len(re.findall(r"^shop: job \w+ mail starts, attempt [12]$", logged, re.M)) == 6


# Told of jobs


def test_a_failure_is_told_by_a_listener_and_by_a_job_that_waits_for_it():
    printed, _ = run("alerts.py")

    assert printed.count("alert: charge") == 2
    assert "failed: the card of ada was declined to the people on duty\n" in printed
    assert printed.count(" is unpaid to the people on duty\n") == 1
    assert Queue().counts("type", "status") == {("charge", "failed"): 2, ("alert", "completed"): 3}


def test_why_prints_what_holds_each_job():
    printed, _ = run("why.py")

    told = [line.partition(": ")[2].split(" ")[0] for line in printed.splitlines()]
    assert told == ["completed", "paused:", "waiting:", "not"]


@pytest.mark.soak
def test_a_job_is_watched_from_another_process_and_its_history_is_kept():
    printed, _ = run("watch.py")

    events = [line.split()[0] for line in printed.splitlines()]
    assert events[:2] == ["enqueued", "started"]
    assert "result: cat.mp4\n" in printed
    assert printed.count("progressed by") == 2
    assert printed.endswith("the trail is whole\n")


# Jobs that know each other


def test_a_chain_runs_to_its_end_and_another_one_to_its_failure():
    printed, _ = run("chain.py")

    assert "ETL of orders: step 3 of 3, 100 %, ok" in printed
    assert "   load failed ConnectionError: no such warehouse" in printed
    assert [job.result for job in Queue().jobs(type="report", status="completed")] == [
        "load: ConnectionError: no such warehouse"
    ]


def test_a_batch_grows_while_it_runs_and_a_release_waits_for_its_parts():
    printed, _ = run("batch.py")

    assert "pictures of Ana: 40 %, 6 pending" in printed
    assert "pictures of Ana: 100 %, 10 completed, 1 failed" in printed
    assert printed.endswith("runs checkout\nruns test\nruns build\nruns release\nreleased\n")
    assert next(Queue().jobs(type="gallery")).result == "10 pictures, without ['broken.png']"


# Tests of a program


@pytest.mark.soak
def test_the_tests_of_a_program_that_enqueues_pass():
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]

    done = subprocess.run(
        [*words, str(EXAMPLES / "test_signup.py")],
        env=surroundings(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )

    assert "3 passed" in done.stdout, done.stdout + done.stderr


# Tasks and unique keys


def test_tasks_are_called_enqueued_checked_and_told_of():
    printed, _ = run("tasks.py")

    refused, *greeted = printed.splitlines()[1:6]
    assert printed.startswith("Hello, Ana!\n")
    assert refused == (
        "refused: task greet: its argument greeting is not JSON: Object of type set is not JSON"
        " serializable"
    )
    assert greeted == ["Hello, Cleo!", "Good morning, Ben!", "Hello, Eva!", "Hello, Finn!"]
    assert printed.splitlines()[6:] == [
        "order A-1002 was not paid: the card was declined",
        "{'day': '2026-11-22', 'orders': 17}",
        "1 cancelled",
        "7 completed",
        "1 failed",
        "1 pending",
    ]


def test_what_many_ask_for_is_done_once():
    printed, _ = run("unique.py")

    assert printed.splitlines() == [
        "document 7 is indexed",
        "document 8 is indexed",
        "the orders are counted",
        "True {'orders': 17}",
        "{'draft': 'Hello'}",
        "{'completed': 3, 'pending': 1}",
    ]


@pytest.mark.soak
def test_commands_are_added_run_and_waited_for(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    done = subprocess.run(
        ["sh", str(EXAMPLES / "commands.sh")],
        env=surroundings(PATH=f"{tmp_path}/bin:{os.environ['PATH']}"),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )

    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["a  file with   spaces", "the build ended with 3"],
    )
    assert [job.status for job in Queue().jobs()] == ["completed", "failed", "cancelled"]


def test_a_tenant_has_a_file_of_its_own_and_no_name_leads_elsewhere():
    printed, _ = run("tenants.py")

    assert printed.splitlines() == [
        "tenant='../shop-b': a name is 1 to 63 of a-z, 0-9 and -",
        "mail to owner@shop-a.example",
        "report of 2025-01",
        "shop-a {'completed': 2}",
        "shop-b {'pending': 2}",
    ]
    folder = Path("data/tenants/shop-a")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "queue.tsv").stat().st_mode & 0o777 == 0o660


# Keys


def test_sealed_jobs_are_read_and_signed_ones_are_run_by_who_has_the_key():
    pytest.importorskip("cryptography")
    printed, logged = run("sealed.py")

    lines = printed.splitlines()
    assert lines[3] == (
        "in the file: sealed, key; with the key: {'pages': 3, 'patient': 'Ana Lima'}"
    )
    assert lines[4:6] == [
        "signed: completed",
        "not signed: failed, it has no signature, and here only signed jobs run",
    ]
    assert lines[6] == "the error: ValueError: tulip-4711 is too short"
    assert lines[7] == "in plain in the file: ['A-1002']"
    assert lines[8] == "resealed 2, left 0: {'pages': 3, 'patient': 'Ana Lima'}"
    assert lines[9] == "{'to': 'ana@example.com', 'token': '***'}"
    assert "tulip" not in logged


# Payment


class Gateway(http.server.BaseHTTPRequestHandler):
    """Charge each Idempotency-Key once; answer first what `server.troubles` holds."""

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        self.server.keys.append(key)
        if self.server.troubles:
            self.answer(*self.server.troubles.pop(0))
            return
        charge = self.server.charges.setdefault(key, {"charge": f"ch_{order['order']}"})
        self.server.charged.set()
        self.server.may_answer.wait(10)
        with contextlib.suppress(ConnectionError):  # the client of one test is dead
            self.answer(200, json.dumps(charge))

    def answer(self, code, text, headers=()):
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *ignored):
        pass


@pytest.fixture
def gateway():
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)) as server:
        server.keys, server.troubles, server.charges = [], [], {}
        server.charged, server.may_answer = threading.Event(), threading.Event()
        server.may_answer.set()
        server.environment = {"PAYMENT_GATEWAY": f"http://127.0.0.1:{server.server_address[1]}"}
        yield server


def test_a_payment_is_charged_under_the_jobs_id(gateway):
    run("payment.py", "A-1001", "4200", "tok_visa", **gateway.environment)

    job = the_job()
    assert gateway.charges == {job.id: {"charge": "ch_A-1001"}}
    assert (job.status, job.result) == ("completed", {"charge": "ch_A-1001"})


@pytest.mark.soak
def test_a_payment_whose_worker_dies_after_the_charge_is_charged_once(gateway):
    gateway.may_answer.clear()
    worker = subprocess.Popen(
        command("payment.py", "A-1001", "4200", "tok_visa"),
        env=surroundings(**gateway.environment),
    )
    assert gateway.charged.wait(20)
    worker.kill()
    worker.wait()
    gateway.may_answer.set()

    run("payment.py", **gateway.environment)

    job = the_job()
    assert (job.status, job.attempts, job.result) == ("completed", 2, {"charge": "ch_A-1001"})
    assert gateway.keys == [job.id, job.id]
    assert len(gateway.charges) == 1


def test_a_declined_card_fails_at_once(gateway):
    gateway.troubles = [(402, "the card has expired")]

    run("payment.py", "A-1001", "4200", "tok_old", **gateway.environment)

    job = the_job()
    assert (job.status, job.attempts, job.error) == ("failed", 1, "the card has expired")
    assert gateway.charges == {}


@pytest.mark.parametrize("seconds", [0, 1800])
def test_a_busy_gateway_is_asked_again_when_it_says(gateway, seconds):
    gateway.troubles = [(503, "busy", [("Retry-After", seconds)])]

    run("payment.py", "A-1001", "4200", "tok_visa", **gateway.environment)

    job = the_job()
    assert (job.status, job.attempts) == ("pending", 1)
    assert job.run_at - time.time() == pytest.approx(seconds, abs=10)


@pytest.mark.soak
def test_a_busy_gateway_is_asked_with_the_same_key(gateway):
    gateway.troubles = [(503, "busy", [("Retry-After", 0)])]

    run("payment.py", "A-1001", "4200", "tok_visa", **gateway.environment)
    run("payment.py", **gateway.environment)

    job = the_job()
    assert (job.status, job.attempts) == ("completed", 2)
    assert gateway.keys == [job.id, job.id]


# Backup


def test_a_backup_holds_the_data_and_a_queue_that_runs_nothing_again():
    run("backup.py")

    [archive] = Path("backups").glob("examples-*.tar.gz")
    [copy] = Path("backups").glob("queue-*.tsv")
    with tarfile.open(archive) as packed:
        assert "examples/quickstart.py" in packed.getnames()
    ran = []
    Queue(copy).process_jobs({"backup_data": ran.append})
    assert [row["status"] for row in rows(copy)] == ["completed"]
    assert ran == []


# From other languages


@appenders
def test_a_line_from_another_language_makes_the_queue_and_runs(appender):
    printed, _ = run(appender, "greet", '{"name": "Zoë"}')

    ran = []
    process_jobs({"greet": ran.append})
    assert re.fullmatch(r"[0-9a-f]{16}\n", printed)
    assert ran == [{"name": "Zoë"}]
    assert get_job(printed.strip())["status"] == "completed"
    assert get_job(printed.strip())["created_at"] == pytest.approx(time.time(), abs=60)


@appenders
def test_a_line_of_nine_cells_is_a_job_in_the_wider_file(appender):
    first = enqueue("greet", 1, priority=5)
    second = run(appender, "greet", "2")[0].strip()
    third = enqueue("greet", 3)

    ran = []
    process_jobs({"greet": ran.append})
    assert first < second < third
    assert ran == [2, 3, 1]
    assert Queue().counts("status") == {"completed": 3}


@appenders
def test_a_line_from_another_language_is_private_to_the_group(appender):
    run(appender, "greet")

    assert Path("data/queue.tsv").stat().st_mode & 0o007 == 0


@appenders
@pytest.mark.parametrize(
    "arguments",
    [
        ("greet", '"a\tb"'),
        ("greet", '"a\nb"'),
        ("greet", '"a\rb"'),
        ("greet", '"a\x1bb"'),
        ("gr eet", "1"),
        ("", "1"),
        ("gr\teet", "1"),
        ("greet\n", "1"),
    ],
)
def test_what_would_break_the_line_is_refused_in_other_languages_too(appender, arguments):
    enqueue("greet", 1)
    before = Path("data/queue.tsv").read_bytes()

    done = subprocess.run(command(appender, *arguments), capture_output=True, text=True)

    assert done.returncode != 0
    assert (done.stdout, bool(done.stderr)) == ("", True)
    assert Path("data/queue.tsv").read_bytes() == before


@appenders
@pytest.mark.parametrize("content", ["no queue\n", "id\ttype\n", "id\ttype\tpayload"])
def test_other_languages_leave_a_foreign_file_alone(appender, content):
    Path("data").mkdir()
    Path("data/queue.tsv").write_text(content)

    done = subprocess.run(command(appender, "greet"), capture_output=True, text=True)

    assert done.returncode != 0
    assert "is not a queue" in done.stderr
    assert Path("data/queue.tsv").read_text() == content


@appenders
def test_other_languages_never_glue_a_job_to_a_torn_line(appender):
    enqueue("greet", 1)
    with open("data/queue.tsv", "a") as torn:
        torn.write("660d5a9362998c69\tgre")
    before = Path("data/queue.tsv").read_bytes()

    done = subprocess.run(command(appender, "greet", "2"), capture_output=True, text=True)

    assert done.returncode != 0
    assert "torn line" in done.stderr
    assert Path("data/queue.tsv").read_bytes() == before


@appenders
def test_other_languages_take_back_what_the_disk_has_no_room_for(appender):
    enqueue("greet", 1)
    before = Path("data/queue.tsv").read_bytes()
    limited = 'trap "" XFSZ; ulimit -f 1; exec "$@"'

    done = subprocess.run(
        ["bash", "-c", limited, "bash", *command(appender, "greet", f'"{"x" * 3000}"')],
        capture_output=True,
        text=True,
    )

    assert done.returncode != 0
    assert "could not be written" in done.stderr
    assert Path("data/queue.tsv").read_bytes() == before


@appenders
def test_other_languages_lock_the_real_file_behind_a_link(appender, tmp_path):
    Queue("elsewhere/queue.tsv").enqueue("greet", 1)
    Path("data").mkdir()
    Path("data/queue.tsv").symlink_to(tmp_path / "elsewhere" / "queue.tsv")

    run(appender, "greet", "2")

    assert [path.name for path in Path("data").iterdir()] == ["queue.tsv"]
    assert [row["payload"] for row in rows("elsewhere/queue.tsv")] == ["1", "2"]


@appenders
def test_a_line_whose_payload_is_no_json_harms_nobody(appender):
    run(appender, "greet", "{no json")
    run(appender, "greet", "2")

    ran = []
    process_jobs({"greet": ran.append})
    assert ran == [2]
    assert rows()[0]["payload"] == "{no json"


@pytest.mark.soak
@appenders
def test_other_languages_wait_for_the_lock(appender):
    fcntl = pytest.importorskip("fcntl")
    enqueue("greet", 1)
    before = Path("data/queue.tsv").read_bytes()

    with open("data/queue.tsv.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = subprocess.Popen(command(appender, "greet", "2"), stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
        assert Path("data/queue.tsv").read_bytes() == before

    assert other.communicate(timeout=20)[0]
    assert [row["payload"] for row in rows()] == ["1", "2"]


@pytest.mark.soak
@pytest.mark.skipif(not shutil.which("flock"), reason="needs flock(1)")
def test_three_languages_at_once_lose_nothing():
    loop = 'for n in $(seq 8); do "$0" greet "\\"$1 $n\\"" || exit; done'
    writers = [
        subprocess.Popen(["bash", "-c", loop, EXAMPLES / script, name], stdout=subprocess.PIPE)
        for script, name in (
            ("append_from_bash.sh", "ana"),
            ("append_from_bash.sh", "ben"),
            ("append_from_perl.pl", "cleo"),
        )
    ]
    ran = []
    ids = []
    for n in range(1, 9):
        ids.append(enqueue("greet", f"here {n}"))
        if n % 2 == 0:
            process_jobs({"greet": ran.append})  # its edits replace the file meanwhile
    for writer in writers:
        ids += writer.communicate(timeout=60)[0].decode().split()
        assert writer.returncode == 0
    process_jobs({"greet": ran.append})

    assert sorted(ran) == sorted(
        f"{name} {n}" for name in ("ana", "ben", "cleo", "here") for n in range(1, 9)
    )
    assert sorted(row["id"] for row in rows()) == sorted(ids)
    assert len(set(ids)) == 32


# Traces


@pytest.mark.soak
def test_a_run_is_a_span_in_the_trace_of_who_added_the_job():
    pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")

    printed, _ = run("opentelemetry_tracing.py")

    spans = {span["name"]: span for span in documents(printed)}
    request = spans["POST /orders"]["context"]
    for type, ended in (("charge", "UNSET"), ("refuse", "ERROR")):
        added, ran = spans[f"enqueue {type}"], spans[f"process {type}"]
        assert ran["context"]["trace_id"] == request["trace_id"]
        assert ran["parent_id"] == added["context"]["span_id"]
        assert added["parent_id"] == request["span_id"]
        assert [link["context"]["span_id"] for link in ran["links"]] == [ran["parent_id"]]
        assert ran["status"]["status_code"] == ended
        assert (
            ran["attributes"]["messaging.message.id"] == added["attributes"]["messaging.message.id"]
        )
    assert spans["ask the bank"]["parent_id"] == spans["process charge"]["context"]["span_id"]
    assert spans["process refuse"]["events"][0]["name"] == "exception"
    charged = next(row for row in rows() if row["type"] == "charge")
    assert charged["traceparent"].split("-")[1] == request["trace_id"].removeprefix("0x")


def documents(text):
    """The JSON documents that stand one after the other in a text."""
    at, found = 0, []
    while text[at:].strip():
        value, at = json.JSONDecoder().raw_decode(
            text, at + len(text[at:]) - len(text[at:].lstrip())
        )
        found.append(value)
    return found
