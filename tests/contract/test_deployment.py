"""The guide's production set-up as a whole: real cron for a minute, on a machine of its own."""

import re
import time

import pytest

from . import guide
from .machine import new_machine

pytestmark = pytest.mark.cron

# An application of our own, whose worker the system's crontab starts.
SHOP = {
    "/etc/cron.d/shop": "* * * * * root cd /shop && python3 worker.py >> /var/log/shop.log 2>&1\n",
    "/shop/worker.py": (
        "from dbbasic_queue import process_jobs\n"
        "process_jobs({'greet': lambda payload: print('hello', payload['name'])})\n"
    ),
    "/shop/enqueue.py": "from dbbasic_queue import enqueue\nenqueue('greet', {'name': 'Ada'})\n",
}
HANDLERS = """
def email_handler(payload):
    return payload["to"]

video_handler = report_handler = email_handler
"""
# Stands in for what every Debian has running: somebody who writes what cron says into syslog.
UNTIL_COMPLETED = """
import socket, subprocess, sys, threading, time
from pathlib import Path

def note(messages):
    with open("/var/log/syslog", "a", buffering=1) as syslog:
        while True:
            print(messages.recv(8192).decode().partition(">")[2].strip(), file=syslog)

messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
messages.bind("/dev/log")
threading.Thread(target=note, args=(messages,), daemon=True).start()
cron = subprocess.Popen(["cron", "-f"])
end = time.monotonic() + 100
while time.monotonic() < end:
    if all("\\tcompleted\\t" in Path(queue).read_text() for queue in sys.argv[1:]):
        break
    time.sleep(0.2)
cron.terminate()
cron.wait()
"""


@pytest.fixture(scope="module")
def after_a_minute(tmp_path_factory):
    """A machine on which cron has run the shop's worker and, with the document, the guide's."""
    machine = new_machine(tmp_path_factory.mktemp("deployment") / "machine")
    machine.write("/until_completed.py", UNTIL_COMPLETED)
    for name, text in SHOP.items():
        machine.write(name, text).chmod(0o644)
    steps = [
        "rm -rf /var/spool/cron/crontabs/* /etc/crontab /var/log/syslog",
        "find /etc/cron.d -type f ! -name shop -delete",
        "(cd /shop && python3 enqueue.py)",
    ]
    queues = ["/shop/data/queue.tsv"]
    if guide.DOCUMENT.is_file():
        steps += deploy_the_guides_application(machine)
        queues.append("/app/data/queue.tsv")
    machine.shell("\n".join(["set -e", *steps, f"python3 /until_completed.py {' '.join(queues)}"]))
    return machine


def deploy_the_guides_application(machine):
    """Put the printed files in their places; return the shell lines for the rest."""
    machine.write("/app/app.py", guide.block(12))
    machine.write("/app/workers/queue_worker.py", guide.block(18))
    machine.write("/app/workers/handlers.py", HANDLERS)
    sign_up = "import app; app.app.test_client().post('/signup', json={'email': 'ada@example.org'})"
    command, line = [
        line for line in guide.block(19).splitlines() if line and not line.startswith("#")
    ]
    # Types the line into what `crontab -e` opens; crontab sees a change by its whole seconds.
    editor = f"#!/bin/sh\necho '{line}' >> \"$1\" && touch -d '1 minute' \"$1\"\n"
    machine.write("/editor", editor).chmod(0o755)
    return [
        guide.block(20),
        f"EDITOR=/editor {command}",
        f'(cd /app && python3 -c "{sign_up}")',
    ]


def test_cron_logs_each_start_of_the_worker(after_a_minute):
    syslog = after_a_minute.read("/var/log/syslog")

    (line,) = {line for line in syslog.splitlines() if "CMD (cd /shop" in line}
    assert re.fullmatch(r".*CRON\[\d+\]: \(root\) CMD \(cd /shop && python3 worker\.py .*\)", line)


def test_crons_run_of_the_worker_completes_the_job(after_a_minute):
    _, row = after_a_minute.read("/shop/data/queue.tsv").splitlines()

    assert row.split("\t")[3] == "completed"
    assert after_a_minute.read("/var/log/shop.log") == "hello Ada\n"


@guide.needs_document
def test_block_17_is_what_lies_on_the_disk(after_a_minute):
    tree = re.findall(r"[├└]── (\S+)", guide.block(17))

    found = {path.name for path in after_a_minute.path("/app").rglob("*")}

    assert len(tree) == 7
    assert {name.rstrip("/") for name in tree} <= found


@guide.needs_document
def test_block_19_runs_every_minute_and_logs(after_a_minute):
    _, row = after_a_minute.read("/app/data/queue.tsv").splitlines()

    log = after_a_minute.read("/app/logs/queue.log")

    assert row.split("\t")[3] == "completed"
    assert row.split("\t")[8] == '"ada@example.org"'
    assert "INFO - Queue worker finished" in log


@guide.needs_document
def test_block_20_still_holds_after_the_worker_of_root(after_a_minute):
    file = after_a_minute.path("/app/data/queue.tsv")

    assert (file.owner(), file.group(), oct(file.stat().st_mode)) == (
        *("www-data", "www-data"),
        "0o100664",
    )


@guide.needs_document
def test_block_23_counts_todays_lines_of_the_log(after_a_minute):
    count = guide.block(23).splitlines()[-1]

    lines = after_a_minute.shell(count)

    assert int(lines) == after_a_minute.read("/app/logs/queue.log").count(time.strftime("%Y-%m-%d"))
    assert int(lines) >= 2


@guide.needs_document
def test_block_25_shows_when_cron_started_it(after_a_minute):
    shown = after_a_minute.shell(guide.block(25))

    assert "CMD (cd /app && python3 workers/queue_worker.py >> /app/logs/queue.log 2>&1)" in shown
