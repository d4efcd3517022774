"""Jobs added from web applications: the examples under real servers, with clients side by side.

FastAPI and Starlette under uvicorn, Starlette under hypercorn, Flask under gunicorn.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from dbbasic_queue import Queue

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
TOKEN = "a-token-of-the-tests"
KEY = "a-key-of-the-tests"
AT_ONCE = 50
FORKING = """\
from dbbasic_queue import enqueue
from flask_app import app
enqueue("greet", {"name": "before the fork"})
"""
MEMBERS = """\
from inside import route
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware

class Named(AuthenticationBackend):
    async def authenticate(self, connection):
        if name := connection.headers.get("X-User"):
            return AuthCredentials(), SimpleUser(name)

app = Starlette(routes=[route], middleware=[Middleware(AuthenticationMiddleware, backend=Named())])
"""


class Site:
    """An application under a server, and how its routes are asked."""

    add, id, status = "/greet", "id", "/jobs/{}"

    def __init__(self, file, *server, needs):
        self.command = (*server, f"{file.removesuffix('.py')}:app")
        self.needs = (server[0], *needs)

    def body(self, name):
        return {"name": name}


class FlaskSite(Site):
    add, id, status = "/api/jobs/dispatch", "job_id", "/api/jobs/{}/status"

    def body(self, name):
        return {"name": "greet", "data": {"name": name}}


UVICORN = "uvicorn", "--port=0"
TWO_OF_GUNICORN = "gunicorn", "--bind=127.0.0.1:0", "--workers=2"
ASGI = {"needs": ["starlette", "a2wsgi"]}
FASTAPI = Site("fastapi_app.py", *UVICORN, needs=["fastapi", "a2wsgi"])
TWO = Site("fastapi_app.py", *UVICORN, "--workers=2", needs=["fastapi", "a2wsgi"])
STARLETTE = Site("starlette_app.py", *UVICORN, **ASGI)
HYPERCORN = Site("starlette_app.py", "hypercorn", "--bind=127.0.0.1:0", **ASGI)
GUNICORN = FlaskSite("flask_app.py", *TWO_OF_GUNICORN, needs=["flask"])
PRELOAD = FlaskSite("forking.py", *TWO_OF_GUNICORN, "--preload", needs=["flask"])
ONE_LOOP = {
    "fastapi under uvicorn": FASTAPI,
    "starlette under uvicorn": STARLETTE,
    "starlette under hypercorn": HYPERCORN,
}
SITES = {
    **ONE_LOOP,
    "fastapi under two of uvicorn": TWO,
    "flask under two of gunicorn": GUNICORN,
    "flask under two of gunicorn, forked after an enqueue": PRELOAD,
}


class Server:
    """A running server, and a client of it for any number of threads."""

    def __init__(self, site, process, place):
        self.site, self.process, self.place = site, process, place

    def ask(self, method, path, body=None, kind="application/json", **headers):
        connection = http.client.HTTPConnection(self.place, timeout=10)
        sent = {"Content-Type": kind, "X-Key": KEY, **headers}
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def add(self, name):
        """Enqueue a job over HTTP, and return the id that is answered."""
        status, _, text = self.ask("POST", self.site.add, self.site.body(name))
        assert status in (200, 202), text
        return json.loads(text)[self.site.id]

    def status(self, id):
        status, _, text = self.ask("GET", self.site.status.format(id))
        assert status == 200, text
        return json.loads(text)

    def kill(self):
        """Kill the server and its processes, all at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def surroundings(**more):
    path = os.pathsep.join([str(ROOT), str(EXAMPLES), "."])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **more}


@pytest.fixture
def serve(tmp_path):
    """Start a server on a port that is free; none outlives the test."""
    running = []

    def start(site, **environment):
        if missing := [name for name in site.needs if find_spec(name) is None]:
            pytest.skip(f"needs {', '.join(missing)}")
        Path("forking.py").write_text(FORKING)
        log = open(tmp_path / "server.log", "w+")
        process = subprocess.Popen(
            [sys.executable, "-m", *site.command],
            env=surroundings(QUEUE_KEY=KEY, **environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        running.append((server := Server(site, process, ""), log))
        server.place = place_of(server, log)
        return server

    yield start
    for server, log in running:
        server.kill()
        log.close()


def place_of(server, log):
    """Wait until the server says where it is, and answers there."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends and server.process.poll() is None:
        said = re.search(r"http://(127\.0\.0\.1:\d+)", Path(log.name).read_text())
        if said:
            server.place = said[1]
            with contextlib.suppress(OSError):
                server.ask("GET", "/")
                return said[1]
        time.sleep(0.02)
    raise AssertionError(f"no server came up:\n{Path(log.name).read_text()}")


def ids_in_file(path="data/queue.tsv"):
    """How often each id stands in the file, read as any script would."""
    _, *lines = Path(path).read_text(encoding="utf-8").splitlines()
    return Counter(line.partition("\t")[0] for line in lines)


@contextlib.contextmanager
def lock_held(queue):
    """Let somebody else hold the lock, as a long edit does, until the end of the block."""
    script = "import sys; from dbbasic_queue import Queue\nwith Queue(sys.argv[1]).edit():"
    with subprocess.Popen(
        [sys.executable, "-c", f"{script} print(flush=True); sys.stdin.read()", queue.path],
        env=surroundings(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        holder.stdout.readline()
        yield
        holder.stdin.close()


# --- the examples under their servers


@pytest.mark.soak
@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_fifty_requests_at_once_each_add_a_job_and_read_its_result(serve, site):
    server = serve(site)
    names = [f"user {n}" for n in range(AT_ONCE)]

    with ThreadPoolExecutor(AT_ONCE) as users:
        ids = list(users.map(server.add, names))
    times = ids_in_file()
    subprocess.run([sys.executable, EXAMPLES / "worker.py"], env=surroundings(), check=True)
    ends = [server.status(id) for id in ids]

    assert [times[id] for id in ids] == [1] * AT_ONCE
    assert len(set(ids)) == AT_ONCE
    assert [(end["status"], end["result"]) for end in ends] == [
        ("completed", {"greeting": f"Hello, {name}!"}) for name in names
    ]


@pytest.mark.soak
@pytest.mark.parametrize("site", ONE_LOOP.values(), ids=ONE_LOOP)
def test_the_loop_goes_on_while_somebody_else_holds_the_lock(serve, site):
    server = serve(site)
    queue, waits = Queue(), []
    queue.enqueue("greet")

    with ThreadPoolExecutor(AT_ONCE) as users:
        with lock_held(queue):
            ids = [users.submit(server.add, f"user {n}") for n in range(AT_ONCE)]
            ends = time.monotonic() + 0.5
            while time.monotonic() < ends:
                asked = time.monotonic()
                assert server.ask("GET", "/")[0] == 200
                waits.append(time.monotonic() - asked)
                time.sleep(0.01)
            done = sum(id.done() for id in ids)
        stored = {id.result() for id in ids}

    assert done == 0  # they did wait
    assert max(waits[5:]) < 0.1  # the first ones share this process with fifty clients that begin
    assert stored < set(ids_in_file())


@pytest.mark.soak
@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_what_a_killed_server_has_answered_is_in_the_file(serve, site):
    server = serve(site)
    answered, enough = [], threading.Event()

    def keep_adding(user):
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                answered.append(server.add(user))
                if len(answered) >= 40:
                    enough.set()

    with ThreadPoolExecutor(8) as users:
        ends = [users.submit(keep_adding, f"user {n}") for n in range(8)]
        assert enough.wait(20)
        server.kill()
    times = ids_in_file()

    assert [end.result() for end in ends] == [None] * 8  # each was cut off, none was refused
    assert {times[id] for id in answered} == {1}
    assert len(times) <= len(answered) + 8 + 1  # + one that was added before the fork


@pytest.mark.soak
@pytest.mark.parametrize("site", [FASTAPI, STARLETTE], ids=["fastapi", "starlette"])
def test_a_client_may_wait_for_the_end_of_a_job(serve, site):
    server = serve(site)
    id = server.add("Ana")

    with ThreadPoolExecutor(1) as user:
        asked = user.submit(server.ask, "GET", f"/jobs/{id}/end")
        time.sleep(0.3)
        waited = not asked.done()
        Queue().process_jobs({"greet": lambda payload: payload["name"]})
        status, _, text = asked.result()

    assert waited
    assert (status, json.loads(text)) == (200, {"status": "completed", "result": "Ana"})
    assert [server.ask("GET", f"/jobs/{'0' * 16}{more}")[0] for more in ("", "/end")] == [404, 404]


@pytest.mark.soak
@pytest.mark.parametrize("site", [FASTAPI, STARLETTE], ids=["fastapi", "starlette"])
def test_a_lock_that_does_not_come_free_is_503(serve, site):
    server = serve(site)
    queue = Queue()
    queue.enqueue("greet")

    with lock_held(queue):
        status, headers, text = server.ask("POST", "/greet", {"name": "Ana"})

    assert (status, headers["Retry-After"]) == (503, "1")
    assert "/" not in json.loads(text)["error"]
    assert queue.counts() == {"pending": 1}


@pytest.mark.soak
@pytest.mark.parametrize("site", [FASTAPI, STARLETTE], ids=["fastapi", "starlette"])
def test_a_file_that_is_no_queue_is_seen_at_the_start(serve, site):
    Path("data").mkdir()
    Path("data/queue.tsv").write_text("this is no queue\n")

    with pytest.raises(AssertionError, match="ForeignFile"):
        serve(site)


@pytest.mark.soak
@pytest.mark.parametrize("site", [FASTAPI, TWO, STARLETTE], ids=["fastapi", "two", "starlette"])
def test_the_dashboard_is_mounted_and_its_forms_work(serve, site):
    server = serve(site, DBBASIC_QUEUE_TOKEN=TOKEN)
    id = server.add("Ana")
    login = urllib.parse.urlencode({"token": TOKEN})
    form = "application/x-www-form-urlencoded"

    outside = server.ask("GET", f"/queue/job?id={id}")
    wrong = server.ask("POST", "/queue/login", b"token=not-the-token", form)
    status, headers, _ = server.ask("POST", "/queue/login", login.encode(), form)
    cookie = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
    page = server.ask("GET", f"/queue/job?id={id}", **cookie)
    again = server.ask("GET", f"/queue/job?id={id}", **cookie, **{"If-None-Match": page[1]["ETag"]})
    style = server.ask("GET", re.search(r'href="(/queue/static/[^"]+css[^"]*)"', page[2])[1])
    proof = re.search(r'name="proof" value="([^"]+)"', page[2])[1]
    fields = urllib.parse.urlencode({"action": "cancel", "id": id, "proof": proof})
    done = server.ask("POST", "/queue/do", fields.encode(), form, **cookie)

    assert (outside[0], outside[1]["Location"]) == (303, "/queue/login")
    assert wrong[0] == 403
    assert (status, headers["Location"]) == (303, "/queue/")
    assert (page[0], id in page[2], again[0]) == (200, True, 304)
    assert (style[0], style[1]["Content-Type"].partition(";")[0]) == (200, "text/css")
    assert (done[0], Queue().get(id).status) == (303, "cancelled")


@pytest.mark.soak
@pytest.mark.parametrize("site", [FASTAPI, STARLETTE], ids=["fastapi", "starlette"])
def test_without_a_token_there_is_no_dashboard(serve, site):
    server = serve(site, DBBASIC_QUEUE_TOKEN="")

    assert server.ask("GET", "/queue/")[0] == 404


# --- the page


@pytest.fixture(scope="module")
def page():
    """The Python blocks of the page, by the file that they are, "" for none."""
    text = (EXAMPLES / "asgi.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", text)
    return {(re.match(r"# (\w+\.py)\n", block) or ["", ""])[1]: block for block in blocks}


@pytest.mark.soak
def test_the_page_waits_for_a_result(page, run_python):
    child = run_python(page[""])

    assert child.communicate(timeout=30)[0] == "completed CAT.AVI\n"


@pytest.mark.soak
def test_the_tests_of_the_page_pass_and_leave_no_file(page):
    missing = [name for name in ("fastapi", "a2wsgi", "httpx2") if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    Path("test_app.py").write_text(page["test_app.py"])

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"],
        env=surroundings(),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert not Path("data").exists()


@pytest.mark.soak
def test_the_dashboard_of_the_page_is_for_users_of_the_application(page, serve):
    Path("inside.py").write_text(page["inside.py"])
    Path("members.py").write_text(MEMBERS)
    server = serve(Site("members.py", *UVICORN, **ASGI))

    stranger = server.ask("GET", "/queue/")
    ana = server.ask("GET", "/queue/", **{"X-User": "ana"})
    other_host = server.ask("GET", "/queue/", **{"X-User": "ana"}, Host="shop.example.com")

    assert (stranger[0], ana[0], other_host[0]) == (403, 200, 200)
    assert "ana" in ana[2]


@pytest.mark.soak
def test_the_benchmark_of_the_page_has_a_line_for_each_way():
    script = ROOT / "tests/benchmarks/event_loop.py"
    quick = ["--seconds=0.2", "--rows=1000"]

    done = subprocess.run([sys.executable, script, *quick], capture_output=True, text=True)

    assert [line[:24].split() for line in done.stdout.splitlines()[2:]] == [
        [*way.split(), users]
        for users in ("1", "50")
        for way in ("nobody enqueues", "directly", "asyncio.to_thread")
    ]


# --- in any coroutine


def test_a_call_that_was_cancelled_while_it_waits_adds_its_job_all_the_same(queue):
    queue.enqueue("mail")
    begun = threading.Event()

    def add():
        begun.set()
        return queue.enqueue("mail")

    async def client_leaves():
        with queue.edit():
            call = asyncio.create_task(asyncio.to_thread(add))
            await asyncio.sleep(0)
            begun.wait(10)
            call.cancel()
            await asyncio.wait([call])
            before = queue.counts()
        return call.cancelled(), before

    cancelled, before = asyncio.run(client_leaves())  # ends when its threads have

    assert (cancelled, before) == (True, {"pending": 1})
    assert queue.counts() == {"pending": 2}
