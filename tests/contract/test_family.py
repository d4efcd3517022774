"""dbbasic-email and dbbasic-cli, which are built on this package, keep working with it."""

import inspect
import re
import signal
import subprocess
import sys
from importlib import metadata

import pytest

from dbbasic_queue import enqueue, get_job, process_jobs

from . import mailserver


@pytest.fixture
def mail():
    return pytest.importorskip("dbbasic_email")


@pytest.fixture
def commands():
    return pytest.importorskip("dbbasic_queue.cli").COMMANDS


@pytest.fixture
def discovered():
    """What dbbasic-cli finds among the installed packages."""
    pytest.importorskip("dbbasic_cli")
    try:
        metadata.distribution("dbbasic-queue")
    except metadata.PackageNotFoundError:
        pytest.skip("dbbasic-queue is on the path only; dbbasic-cli asks for what is installed")
    pytest.importorskip("pkg_resources", reason="dbbasic-cli asks pkg_resources (setuptools<81)")
    from dbbasic_cli.cli import discover_commands

    return discover_commands()


def test_an_email_becomes_a_job(mail):
    job_id = mail.send_email("ada@example.org", "Hello", "Grüße", from_addr="shop@example.org")

    job = get_job(job_id)
    assert (job["type"], job["status"]) == ("send_email", "pending")
    assert job["payload"] == {
        "to": "ada@example.org",
        "from": "shop@example.org",
        "subject": "Hello",
        "body": "Grüße",
    }


@pytest.mark.engine
def test_its_handlers_send_what_waits_at_each_call(mail, monkeypatch):
    with mailserver.serving() as server:
        monkeypatch.setattr(mail, "SMTP_HOST", "127.0.0.1")
        monkeypatch.setattr(mail, "SMTP_PORT", server.port)
        first = mail.send_email("ada@example.org", "One", "Grüße")
        process_jobs(mail.QUEUE_HANDLERS, max_attempts=3)
        second = mail.send_email("bob@example.org", "Two", "Hello")
        process_jobs(mail.QUEUE_HANDLERS, max_attempts=3)
        process_jobs(mail.QUEUE_HANDLERS, max_attempts=3)

    assert [(m["To"], m["Subject"]) for m in server.messages] == [
        ("ada@example.org", "One"),
        ("bob@example.org", "Two"),
    ]
    assert server.messages[0].get_content().strip() == "Grüße"
    assert [get_job(job_id)["result"]["to"] for job_id in (first, second)] == [
        "ada@example.org",
        "bob@example.org",
    ]


@pytest.mark.engine
def test_a_mail_without_a_server_is_tried_again_later(mail, monkeypatch):
    with mailserver.serving() as server:
        monkeypatch.setattr(mail, "SMTP_HOST", "127.0.0.1")
        monkeypatch.setattr(mail, "SMTP_PORT", server.port)
    job_id = mail.send_email("ada@example.org", "One", "Hello")

    process_jobs(mail.QUEUE_HANDLERS, max_attempts=3)

    job = get_job(job_id)
    assert (job["status"], job["attempts"]) == ("pending", 1)
    assert "refused" in job["error"]


@pytest.mark.engine
def test_its_worker_command_ticks_each_second_and_ends_at_ctrl_c(mail, start_script, tmp_path):
    program = "from dbbasic_email.cli import worker_command\nworker_command([])\n"
    (tmp_path / "worker.py").write_text(program)

    with mailserver.serving() as server:
        settings = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(server.port)}
        worker = start_script("-u", "worker.py", stderr=subprocess.STDOUT, env=settings)
        jobs = []
        for number in range(2):
            jobs.append(mail.send_email("ada@example.org", str(number), "Hello"))
            assert server.arrived.acquire(timeout=30)
        worker.send_signal(signal.SIGINT)
        output = worker.communicate(timeout=60)[0]

    assert worker.returncode == 0
    assert "Worker stopped" in output
    assert [get_job(job_id)["status"] for job_id in jobs] == ["completed"] * 2


def test_the_commands_are_functions_of_a_list_with_a_line_of_help(commands):
    assert {"queue:worker", "queue:stats"} <= set(commands)
    for name, command in commands.items():
        assert name.startswith("queue:")
        assert command.__doc__.strip().splitlines()[0]
        inspect.signature(command).bind([])


@pytest.mark.filterwarnings("ignore")
def test_the_command_line_of_the_family_finds_them(discovered, commands):
    assert commands.items() <= discovered.items()


def test_stats_prints_the_counts(capsys, commands):
    for name in ("note", "note", "bad"):
        enqueue(name, {})
    process_jobs({"bad": lambda payload: 1 / 0}, max_attempts=1)

    commands["queue:stats"]([])

    printed = capsys.readouterr().out
    assert re.search(r"^pending +2\b", printed, re.M)
    assert re.search(r"^failed +1\b", printed, re.M)


def test_worker_runs_the_handlers_of_a_module(tmp_path, monkeypatch, commands):
    source = "HANDLERS = {'shout': lambda payload: payload['text'].upper()}\n"
    (tmp_path / "shop_handlers.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    job_id = enqueue("shout", {"text": "hello"})

    commands["queue:worker"](["shop_handlers:HANDLERS"])

    sys.modules.pop("shop_handlers", None)
    assert get_job(job_id)["result"] == "HELLO"
