"""examples/django_project.md as a real project: created, migrated, served, and worked by cron."""

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest
from test_cron import install, start_cron

from dbbasic_queue import Queue

django = pytest.importorskip("django", reason="needs the extra django")

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "examples" / "django_project.md"
BLOCK = re.compile(r"(?ms)^```python\n# (\S+\.py)(, at its end)?\n(.*?)^```$")
WAIT = 75  # seconds: the longest that cron takes to begin


class Project:
    """A project made by django-admin, with what the page says to write into it."""

    def __init__(self, folder):
        self.folder = folder
        self.queue = Queue(folder / "data" / "queue.tsv")
        self.python(["-m", "django", "startproject", "mysite", "."])
        self.manage("startapp", "shop")
        for name, at_end, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if django.VERSION < (6,):
                text = text.replace("from django.tasks import", "from django_tasks import")
            before = (folder / name).read_text() if at_end else ""
            (folder / name).write_text(f"{before}\n{text}")
        self.manage("makemigrations", "shop")
        self.manage("migrate")

    def python(self, words, status=0):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def manage(self, *words, status=0):
        return self.python(["manage.py", *words], status)

    @contextlib.contextmanager
    def served(self):
        """Run `manage.py runserver`; give a function that asks it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def ask(path, **form):
            body = urllib.parse.urlencode(form) if form else None
            headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            with contextlib.closing(connection):
                connection.request("POST" if form else "GET", path, body, headers)
                response = connection.getresponse()
                return response.status, json.loads(response.read())

        with server:
            try:
                end = time.monotonic() + 60
                while not self.answers(port):
                    assert server.poll() is None, "the server has ended"
                    assert time.monotonic() < end, "the server does not answer"
                    time.sleep(0.05)
                yield ask
            finally:
                server.terminate()

    def answers(self, port):
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DBBASIC_QUEUE", raising=False)
        patch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
        yield Project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def fresh(project):
    """The project without a queue."""
    shutil.rmtree(project.folder / "data", ignore_errors=True)
    return project


@pytest.mark.soak
def test_the_projects_own_tests_and_checks_pass(fresh):
    assert "no issues" in fresh.manage("check")

    assert "\nOK\n" in fresh.manage("test")

    assert not Path(fresh.queue.path).exists()


@pytest.mark.soak
def test_the_check_says_what_is_wrong_with_the_project(fresh):
    (fresh.folder / "data").mkdir()
    Path(fresh.queue.path).write_text("milk\n")

    text = fresh.manage("check", status=1)

    assert "dbbasic_queue.E007" in text
    assert fresh.queue.path in text


@pytest.mark.soak
def test_a_view_enqueues_at_the_commit_and_the_worker_runs_it(fresh):
    with fresh.served() as ask:
        refused = ask("/orders", email="ben@example.com", cents=-1)
        rolled_back = Path(fresh.queue.path).exists()
        status, added = ask("/orders", email="ana@example.com", cents=1250)
        before = ask(f"/tasks/{added['task']}")
        fresh.manage("process_jobs", "--processes", "2")
        after = ask(f"/tasks/{added['task']}")

    assert (refused[0], rolled_back) == (400, False)
    assert status == 202
    assert before == (200, {"status": "READY", "value": None, "errors": []})
    assert after == (200, {"status": "SUCCESSFUL", "value": {"characters": 26}, "errors": []})
    jobs = [(job.type, job.queue, job.priority, job.status) for job in fresh.queue.jobs()]
    assert jobs == [
        ("shop.tasks.write_invoice", "reports", -10, "completed"),
        ("shop.tasks.remind", "default", 0, "pending"),
    ]


def test_the_options_of_the_page_are_those_of_the_back_end():
    if django.VERSION < (6,):
        pytest.importorskip("django_tasks", reason="needs the extra django: django-tasks")
    from dbbasic_queue.contrib.django.checks import OPTIONS

    table = PAGE.read_text(encoding="utf-8").split("| option |")[1].split("\n\n")[0]
    named = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.split("\n")[2:]))

    assert sorted(named) == sorted(OPTIONS)


@pytest.fixture
def cron(fresh):
    """Cron, with the line of the page and nothing else for two minutes at most."""
    [line] = re.findall(r"(?ms)^```crontab\n(.*?)\n```$", PAGE.read_text(encoding="utf-8"))
    line = line.replace(".venv/bin/python", shlex.quote(sys.executable))
    line = line.replace("/app", shlex.quote(str(fresh.folder)))
    listed = subprocess.run(["crontab", "-l"], capture_output=True, text=True)
    daemon = None
    try:
        install(f'MAILTO=""\nLANG=C\nPYTHONPATH="{ROOT}"\n{line}\n')
        daemon = start_cron()
        yield fresh
    finally:
        if listed.returncode == 0:
            install(listed.stdout)
        else:
            subprocess.run(["crontab", "-r"], check=True)
        if daemon:
            daemon.terminate()
            daemon.communicate()


@pytest.mark.cron
@pytest.mark.skipif(
    os.environ.get("DBBASIC_QUEUE_TEST_CRON") != "1", reason="needs DBBASIC_QUEUE_TEST_CRON=1"
)
def test_what_a_view_enqueues_is_worked_by_cron(cron):
    with cron.served() as ask:
        task = ask("/orders", email="ana@example.com", cents=1250)[1]["task"]
        end = time.monotonic() + WAIT
        while ask(f"/tasks/{task}")[1]["status"] in ("READY", "RUNNING"):
            log = cron.folder / "queue.log"
            text = log.read_text() if log.exists() else "no log"
            assert time.monotonic() < end, f"not in {WAIT} s: {text}"
            time.sleep(0.2)
        answer = ask(f"/tasks/{task}")[1]

    assert answer == {"status": "SUCCESSFUL", "value": {"characters": 26}, "errors": []}
