"""The twelve routes of the Horton document, asked by a real client of a running server."""

import http.client
import json
import subprocess
import threading
import time
import urllib.parse
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbbasic_queue import Queue
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.redact import sensitive
from dbbasic_queue.tsv import COLUMNS

pytest.importorskip("flask", reason="needs the extra `web`: flask")

from flask import Flask, abort, session
from werkzeug.serving import make_server

from dbbasic_queue.contrib import flask as door
from dbbasic_queue.contrib.flask.mounted import mount, who

ROOT = Path(__file__).resolve().parent.parent
JSON = {"Content-Type": "application/json"}
ID = "0" * 16


class Answer:
    def __init__(self, response):
        self.status, self.headers = response.status, response.headers
        self.text = response.read().decode()
        self.json = json.loads(self.text) if "json" in self.headers["Content-Type"] else None


@contextmanager
def running(app):
    """A client of this application, behind a server of its own."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def ask(method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        sent = {**(JSON if body is not None else {})}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, sent)
        answer = Answer(connection.getresponse())
        connection.close()
        return answer

    try:
        yield ask
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def ask(queue):
    app = Flask("shop")
    door.init_app(app, queue)
    with running(app) as ask:
        yield ask


@pytest.fixture
def jobs(queue):
    """An id for each place in a job's life; real ticks have brought them there."""
    done, broken = queue.enqueue("mail", {"to": "ana"}), queue.enqueue("fails", max_attempts=1)
    queue.process_jobs({"mail": lambda payload: payload, "fails": lambda payload: 1 // 0})
    return {"done": done, "failed": broken, "pending": queue.enqueue("mail", {"to": "ben"})}


def boom(payload):
    raise ValueError("boom")


# --- the table of the document: method, path, body; status; keys

MAIL = {"name": "mail", "data": {"to": "ana"}}
DISPATCHED = {"success", "job_id", "message"}
ROUTES = [
    ("POST", "/api/jobs/dispatch", {**MAIL, "queue": "high", "priority": 0}, DISPATCHED),
    ("POST", "/api/jobs/schedule", {**MAIL, "delay": 60}, {"success", "job_id", "scheduled_at"}),
    ("GET", "/api/jobs/{done}/status", None, {*COLUMNS, "name"}),
    ("POST", "/api/jobs/{failed}/retry", None, {"success", "job_id"}),
    ("POST", "/api/jobs/{pending}/cancel", None, {"success", "job_id"}),
    ("GET", "/api/jobs/pending?queue=default", None, {"pending_jobs", "count"}),
    ("GET", "/api/jobs/failed?limit=50", None, {"failed_jobs", "count"}),
    ("GET", "/api/jobs/stats", None, None),
    ("POST", "/api/jobs/clear-completed", {"older_than": 0}, {"success", "cleared_count"}),
    ("POST", "/api/jobs/flush", {"queue": "default"}, {"success", "flushed_count"}),
    ("POST", "/api/workers/start", {"queue": "high", "worker_id": "w1"}, None),
    ("POST", "/api/workers/stop", None, {"success", "message"}),
]


def test_the_application_has_these_twelve_routes_and_no_other():
    app = Flask("shop")
    door.init_app(app)

    rules = {
        (method, str(rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods & {"GET", "POST", "PUT", "DELETE", "PATCH"}
    } - {("GET", "/static/<path:filename>")}

    asked = {(method, path.partition("?")[0]) for method, path, *_ in ROUTES}
    assert {(method, rule.replace("<", "{").replace(">", "}")) for method, rule in rules} == {
        (method, path.format(done="{job_id}", failed="{job_id}", pending="{job_id}"))
        for method, path in asked
    }


@pytest.mark.parametrize(("method", "path", "body", "keys"), ROUTES[:10] + ROUTES[11:])
def test_a_route_answers_with_the_keys_of_the_document(ask, jobs, method, path, body, keys):
    answer = ask(method, path.format(**jobs), body)

    assert answer.status == 200
    assert keys is None or set(answer.json) == keys
    assert answer.json.get("success", True) is True
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(("method", "path", "body", "keys"), ROUTES)
def test_a_route_without_init_app_answers_500(method, path, body, keys):
    app = Flask("shop")
    app.register_blueprint(door.blueprint, url_prefix="/api")

    answer = app.test_client().open(
        path.format(done=ID, failed=ID, pending=ID), method=method, json=body
    )

    assert answer.status_code == 500
    assert answer.json == {"error": "dbbasic-queue not initialized: call init_app(app)"}


def test_the_queue_of_an_application_is_known_after_init_app(queue):
    app, other = Flask("shop"), Flask("other")
    door.init_app(app, queue)

    with app.app_context():
        assert door.get_queue() is queue
    with other.app_context():
        assert door.get_queue() is None


# --- each does what it says


def test_a_dispatched_job_is_run_by_a_tick_and_its_status_tells(ask, queue):
    id = ask("POST", "/api/jobs/dispatch", MAIL).json["job_id"]
    before = ask("GET", f"/api/jobs/{id}/status").json
    queue.process_jobs({"mail": lambda payload: {"sent": payload["to"]}})
    after = ask("GET", f"/api/jobs/{id}/status").json

    assert (before["status"], before["name"], before["queue"]) == ("pending", "mail", "normal")
    assert (after["status"], after["result"]) == ("completed", {"sent": "ana"})
    assert {**after, **queue.get_job(id)} == after


def test_dispatch_takes_every_field_of_the_document(ask, queue):
    fields = {"name": "mail", "data": [1, "ü"], "queue": "low", "priority": 10}

    job = queue.get(ask("POST", "/api/jobs/dispatch", fields).json["job_id"])

    assert (job.type, job.payload, job.queue, job.priority) == ("mail", [1, "ü"], "low", 10)


def test_the_default_queue_of_the_routes_can_be_ours(queue):
    app = Flask("shop")
    door.init_app(app, queue, default_label="default")

    with running(app) as ask:
        id = ask("POST", "/api/jobs/dispatch", MAIL).json["job_id"]

    assert queue.get(id).queue == "default"


def test_a_scheduled_job_is_due_when_the_answer_says(ask, queue):
    begun = time.time()

    later = ask("POST", "/api/jobs/schedule", {**MAIL, "delay": 60.5}).json
    now = ask("POST", "/api/jobs/schedule", MAIL).json

    assert begun + 60 <= later["scheduled_at"] <= time.time() + 62
    assert queue.get(later["job_id"]).run_at == later["scheduled_at"]
    assert queue.get(now["job_id"]).is_due(time.time())


def test_only_a_failed_or_cancelled_job_is_retried(ask, queue, jobs):
    said = {one: ask("POST", f"/api/jobs/{id}/retry").json for one, id in jobs.items()}

    assert {one: answer["success"] for one, answer in said.items()} == {
        "done": False, "failed": True, "pending": False,
    }  # fmt: skip
    assert said["failed"]["job_id"] == jobs["failed"]
    assert queue.get(jobs["failed"]).status == "pending"


def test_only_a_pending_job_is_cancelled(ask, queue, jobs):
    said = {one: ask("POST", f"/api/jobs/{id}/cancel").json for one, id in jobs.items()}

    assert [answer["success"] for answer in said.values()] == [False, False, True]
    assert queue.get(jobs["pending"]).status == "cancelled"


def test_an_unknown_id_is_404_to_look_at_and_no_success_to_change(ask, jobs):
    looked = ask("GET", f"/api/jobs/{ID}/status")
    changed = [ask("POST", f"/api/jobs/{ID}/{verb}") for verb in ("retry", "cancel")]
    odd = ask("GET", "/api/jobs/..%2f..%2fetc/status"), ask("GET", "/api/jobs/%ff%00/status")

    assert (looked.status, looked.json) == (404, {"error": "Job not found"})
    assert [one.json for one in changed] == [{"success": False, "job_id": ID}] * 2
    assert [one.status for one in odd] == [404, 404]


def test_the_lists_give_whole_jobs_and_how_many(ask, queue, jobs):
    high = queue.enqueue("mail", queue="high")

    pending = ask("GET", "/api/jobs/pending").json
    of_high = ask("GET", "/api/jobs/pending?queue=high").json
    failed = ask("GET", "/api/jobs/failed").json

    assert [job["id"] for job in pending["pending_jobs"]] == [jobs["pending"], high]
    assert (pending["count"], of_high["count"]) == (2, 1)
    assert of_high["pending_jobs"][0]["id"] == high
    assert failed["failed_jobs"][0]["error"].startswith("ZeroDivisionError")
    assert failed["count"] == 1


def test_the_failed_jobs_are_the_newest_fifty_unless_limit_says_else(ask, queue):
    ids = queue.enqueue_many([("fails", None)] * 60)
    queue.process_jobs({"fails": boom}, max_attempts=1)

    usual = ask("GET", "/api/jobs/failed").json
    two = ask("GET", "/api/jobs/failed?limit=2").json

    assert (usual["count"], len(usual["failed_jobs"])) == (50, 50)
    assert [job["id"] for job in two["failed_jobs"]] == [ids[-1], ids[-2]]


def test_the_figures_have_the_words_of_the_document(ask, queue, jobs):
    queue.enqueue("mail", queue="high")

    found = ask("GET", "/api/jobs/stats").json

    assert (found["processed_jobs"], found["failed_jobs"], found["active_workers"]) == (2, 1, 0)
    assert found["queue_sizes"] == {"high": 1, "normal": 0, "low": 0, "default": 1}
    assert found["uptime"] == 0
    assert found["due"] == 2


def test_what_is_cleared_has_completed_that_long_ago(ask, queue, jobs):
    young = ask("POST", "/api/jobs/clear-completed", {}).json
    every = ask("POST", "/api/jobs/clear-completed", {"older_than": 0}).json

    assert (young["cleared_count"], every["cleared_count"]) == (0, 1)
    assert {job.id for job in queue.jobs()} == {jobs["failed"], jobs["pending"]}


def test_what_is_flushed_is_pending_in_that_queue_or_anywhere(ask, queue, jobs):
    queue.enqueue("mail", queue="low")

    low = ask("POST", "/api/jobs/flush", {"queue": "low"}).json
    every = ask("POST", "/api/jobs/flush", {}).json

    assert (low["flushed_count"], every["flushed_count"]) == (1, 1)
    assert queue.counts("status") == {"completed": 1, "failed": 1}


# --- workers


def test_no_worker_is_started_unless_the_application_says_which(ask):
    answer = ask("POST", "/api/workers/start", {})

    assert answer.status == 501
    assert "cron starts workers" in answer.json["error"]


def test_a_worker_is_a_process_that_runs_what_is_due(tmp_path, monkeypatch):
    queue = Queue(tmp_path / "other" / "place.tsv", sync="off")
    (tmp_path / "shop_jobs.py").write_text("HANDLERS = {'mail': lambda payload: payload}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app = Flask("shop")
    door.init_app(app, queue, worker="shop_jobs:HANDLERS")
    high, low = queue.enqueue("mail", queue="high"), queue.enqueue("mail", queue="low")

    with running(app) as ask:
        answer = ask("POST", "/api/workers/start", {"queue": "high", "worker_id": "w1"})
        job = queue.wait(high, timeout=20)

    assert (answer.status, answer.json) == (
        200, {"success": True, "worker_id": "w1", "queue": "high"},
    )  # fmt: skip
    assert job.status == "completed"
    assert job.worker.startswith("w1-")
    assert queue.get(low).status == "pending"


@pytest.mark.soak
def test_a_live_worker_stops_in_good_order(ask, queue, run_python):
    queue.enqueue("mail")
    worker = run_python(
        f"""
        from dbbasic_queue import Queue
        Queue({queue.path!r}).process_jobs({{"mail": str}}, run_for=60)
        """
    )
    while not queue.workers():
        assert worker.poll() is None
        time.sleep(0.01)

    answer = ask("POST", "/api/workers/stop")

    assert answer.json == {"success": True, "message": "Workers stopped gracefully"}
    assert queue.workers() == []
    worker.wait(timeout=10)


def test_a_worker_with_a_running_job_is_told_of(ask, queue, run_python, monkeypatch):
    monkeypatch.setattr(door, "_STOP_WAIT", 0)
    id = queue.enqueue("long")
    run_python(
        f"""
        import time
        from dbbasic_queue import Queue
        Queue({queue.path!r}).process_jobs({{"long": lambda payload: time.sleep(60)}})
        """
    )
    while not queue.get(id).started_at:
        time.sleep(0.01)

    answer = ask("POST", "/api/workers/stop")

    assert answer.json["message"].startswith("1 of the workers will stop when")


# --- bad input: 400, and the field is named

BAD = [
    ("dispatch", b"", "empty"),
    ("dispatch", b"{", "no JSON"),
    ("dispatch", b"\xff\xfe\x00", "no JSON"),
    ("dispatch", b"[" * 200_000, "nested too deeply"),
    ("dispatch", [], "JSON object"),
    ("dispatch", {}, "name:"),
    ("dispatch", {"name": 7}, "name:"),
    ("dispatch", {"name": "a b"}, "name='a b'"),
    ("dispatch", {"name": "a\tb\nc"}, "name="),
    ("dispatch", {"name": "x" * 101}, "name="),
    ("dispatch", {"name": "mail", "queue": 5}, "queue=5"),
    ("dispatch", {"name": "mail", "queue": "a b"}, "queue='a b'"),
    ("dispatch", {"name": "mail", "priority": "high"}, "priority='high'"),
    ("dispatch", {"name": "mail", "priority": 1.5}, "priority=1.5"),
    ("dispatch", {"name": "mail", "priority": True}, "priority=True"),
    ("dispatch", {"name": "mail", "priority": 1 << 40}, "priority="),
    ("dispatch", b'{"name": "mail", "priority": ' + b"9" * 5000 + b"}", "no JSON"),
    ("dispatch", b'{"name": "mail", "data": NaN}', "data:"),
    ("dispatch", {"name": "mail", "data": "x" * (2 << 20)}, "data:"),
    ("dispatch", {"name": "mail", "queu": "high"}, "'queu'"),
    ("dispatch", {"name": "mail", "delay": 5}, "'delay'"),
    ("schedule", {"name": "mail", "delay": -1}, "delay=-1"),
    ("schedule", {"name": "mail", "delay": "soon"}, "delay='soon'"),
    ("schedule", {"name": "mail", "delay": True}, "delay=True"),
    ("schedule", b'{"name": "mail", "delay": NaN}', "delay=nan"),
    ("schedule", b'{"name": "mail", "delay": Infinity}', "delay=inf"),
    ("schedule", b'{"name": "mail", "delay": 1e300}', "delay=1e+300"),
    ("clear-completed", {"older_than": -1}, "older_than=-1"),
    ("clear-completed", {"older_than": "1h"}, "older_than='1h'"),
    ("clear-completed", b"null", "JSON object"),
    ("flush", {"queue": "no such\tlabel"}, "queue="),
    ("flush", {"queu": "low"}, "'queu'"),
    ("../workers/start", {"queue": "a,b"}, "queue='a,b'"),
    ("../workers/start", {"worker_id": "--file=x y"}, "worker_id="),
    ("../workers/start", {"worker_id": "a/../b"}, "worker_id="),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    queue = Queue(tmp_path_factory.mktemp("flask") / "queue.tsv", sync="off")
    queue.enqueue("mail", queue="low")
    app = Flask("shop")
    door.init_app(app, queue)
    with running(app) as ask:
        ask.queue = queue
        yield ask


@pytest.mark.parametrize(("route", "body", "text"), BAD, ids=range(len(BAD)))
def test_bad_input_is_400_names_the_field_and_changes_nothing(shared, route, body, text):
    answer = shared("POST", f"/api/jobs/{route}".replace("jobs/../", ""), body)

    assert answer.status == 400
    assert list(answer.json) == ["error"]
    assert text in answer.json["error"]
    assert shared.queue.counts() == {"pending": 1}


@pytest.mark.parametrize("limit", ["-1", "x", "1e3", "", "9" * 40])
def test_a_limit_that_is_no_number_is_400(shared, limit):
    answer = shared("GET", f"/api/jobs/failed?limit={limit}")

    assert (answer.status, "limit=" in answer.json["error"]) == (400, True)


def test_a_body_over_the_limit_is_not_read(shared):
    headers = {"Content_Length": str(100 << 20)}

    assert shared("POST", "/api/jobs/dispatch", b"{}", **headers).status == 413


def test_a_busy_queue_is_503_with_no_path_in_it(queue):
    app = Flask("shop")
    quick = Queue(queue.path, lock_timeout=0.01)
    queue.enqueue("mail")
    door.init_app(app, quick)

    with running(app) as ask, queue.edit():
        answer = ask("POST", "/api/jobs/dispatch", MAIL)

    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json["error"]
    assert "/" not in answer.json["error"].replace("the queue", "")


def test_a_file_that_is_no_queue_is_500_in_json(tmp_path):
    (tmp_path / "queue.tsv").write_text("name\tage\nana\t7\n")
    app = Flask("shop")
    door.init_app(app, Queue(tmp_path / "queue.tsv"))

    with running(app) as ask:
        answers = [ask("POST", "/api/jobs/dispatch", MAIL), ask("GET", "/api/jobs/pending")]

    assert [answer.status for answer in answers] == [500, 500]
    assert all("error" in answer.json for answer in answers)
    assert str(tmp_path) not in answers[0].text + answers[1].text


def test_what_is_sensitive_stays_hidden(ask, queue):
    id = queue.enqueue("mail", {"password": "hunter22"}, columns=sensitive("password"))

    texts = [ask("GET", f"/api/jobs/{path}").text for path in (f"{id}/status", "pending")]

    assert [("hunter22" in text, "***" in text) for text in texts] == [(False, True)] * 2


# --- who may


def test_without_auth_only_this_machine_is_answered():
    app = Flask("shop")
    door.init_app(app)
    client = app.test_client()

    def status(address="127.0.0.1", host="localhost", **headers):
        place = {"REMOTE_ADDR": address}
        return client.get(
            "/api/jobs/pending", environ_base=place, headers={"Host": host, **headers}
        ).status_code

    assert status() == status(host="127.0.0.1:5000") == status("::1", "[::1]:80") == 200
    assert status("192.0.2.7") == status("") == status("unix:") == 403
    assert status(host="shop.example.com") == status(host="localhost.example.com") == 403
    assert status(**{"X-Forwarded-For": "192.0.2.7"}) == status(Forwarded="for=x") == 403


def test_auth_is_asked_before_each_route_and_may_say_401(queue):
    def auth(request):
        if "Authorization" not in request.headers:
            abort(401)
        return request.headers["Authorization"] == "Bearer right"

    app = Flask("shop")
    door.init_app(app, queue, auth=auth)
    client = app.test_client()

    for method, path, body, _ in ROUTES:
        url = path.format(done=ID, failed=ID, pending=ID)
        none = client.open(url, method=method, json=body, headers={"Host": "shop.example.com"})
        wrong = client.open(url, method=method, json=body, headers={"Authorization": "x"})
        assert (none.status_code, wrong.status_code) == (401, 403)
        assert none.json["error"]
        assert wrong.json == {"error": "not allowed"}
    right = {"Authorization": "Bearer right", "Host": "shop.example.com"}
    assert client.post("/api/jobs/dispatch", json=MAIL, headers=right).status_code == 200
    assert queue.counts() == {"pending": 1}


def test_an_auth_that_raises_lets_nobody_in(queue):
    app = Flask("shop")
    door.init_app(app, queue, auth=lambda request: 1 // 0)

    answer = app.test_client().post("/api/jobs/dispatch", json=MAIL)

    assert answer.status_code == 500
    assert queue.counts() == {}


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_form_of_another_site_changes_nothing(shared, kind):
    body = b'{"name": "mail"}'

    answers = [
        shared("POST", f"/api/{path}", body, Content_Type=kind, Origin="http://evil.example")
        for path in ("jobs/dispatch", "jobs/flush", "workers/stop")
    ]

    assert [answer.status for answer in answers] == [400] * 3
    assert shared.queue.counts() == {"pending": 1}


def test_a_request_without_a_body_is_not_taken_from_a_page_of_another_site(shared):
    path = "/api/workers/stop"
    own = shared("GET", "/api/jobs/pending", Host="localhost:1").status

    evil = shared("POST", path, Origin="http://evil.example")
    null = shared("POST", path, Origin="null")
    site = shared("POST", path, Sec_Fetch_Site="cross-site")
    ours = shared("POST", path, Host="localhost:1", Origin="http://localhost:1")

    assert (evil.status, null.status, site.status) == (400, 400, 400)
    assert (own, ours.status) == (200, 200)


@pytest.mark.parametrize(
    "wrong", [{"auth": "secret"}, {"default_label": "a b"}, {"queue_file": "queue.tsv"}]
)
def test_what_init_app_cannot_use_is_said_at_once(wrong):
    with pytest.raises(BadArgument, match=next(iter(wrong))):
        door.init_app(Flask("shop"), **wrong)


def test_init_app_twice_is_an_error(queue):
    app = Flask("shop")
    door.init_app(app, queue)

    with pytest.raises(BadArgument, match="already"):
        door.init_app(app, queue)


def test_the_routes_stand_where_they_are_wanted(queue):
    app = Flask("shop")
    door.init_app(app, queue, url_prefix="/queue/v1")

    assert app.test_client().get("/queue/v1/jobs/pending").json == {"pending_jobs": [], "count": 0}


@pytest.mark.soak
def test_the_example_answers_whoever_has_the_key(run_python):
    source = (ROOT / "examples/flask_app.py").read_text(encoding="utf-8")
    child = run_python(
        f"import sys\nsys.argv = ['x', '0']\n{source}",
        env={"QUEUE_KEY": "secret"},
        stderr=subprocess.DEVNULL,
    )
    place = urllib.parse.urlsplit(child.stdout.readline().strip()).netloc

    def status(path, **headers):
        connection = http.client.HTTPConnection(place, timeout=20)
        connection.request("POST", path, json.dumps(MAIL), {**JSON, **headers})
        return connection.getresponse().status

    assert status("/api/jobs/dispatch") == 403
    assert status("/api/jobs/dispatch", **{"X-Key": "wrong"}) == 403
    assert status("/api/jobs/dispatch", **{"X-Key": "secret"}) == 200
    assert Queue().counts() == {"pending": 1}


# --- what is mounted


def page(environ, start_response):
    """A small WSGI application, which says where it thinks it is."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode()]


def test_what_is_mounted_knows_its_place_and_leaves_the_rest_alone(queue):
    app = Flask("shop")
    door.init_app(app, queue)
    mount(app, "/queue", page, None)
    client = app.test_client()

    assert client.get("/queue/jobs").text == "/queue /jobs"
    assert client.get("/queue").text == "/queue "
    assert client.get("/queues").status_code == 404
    assert client.get("/api/jobs/pending").status_code == 200


def test_who_was_let_in_is_told_to_what_is_mounted():
    def name(environ, start_response):
        start_response("200 OK", [])
        return [str(who(environ)).encode()]

    app = Flask("shop")
    mount(app, "/queue", name, lambda request: request.args.get("as"))
    mount(app, "/all", name, lambda request: 1)
    client = app.test_client()

    assert client.get("/queue/?as=ana").text == "ana"
    assert client.get("/all/", headers={"dbbasic_queue.who": "ana"}).text == "True"


def test_what_is_mounted_is_behind_the_same_question(queue):
    def auth(request):
        if request.args.get("login"):
            return True
        return session.get("user") == "ana" or abort(401)

    app = Flask("shop")
    app.secret_key = "test"
    mount(app, "/queue", page, auth)
    mount(app, "/local", page, None)
    mount(app, "/torn", page, lambda request: 1 // 0)
    client = app.test_client()

    assert client.get("/queue/").status_code == 401
    with client.session_transaction() as stored:
        stored["user"] = "ana"
    assert client.get("/queue/").status_code == 200
    assert client.get("/local/").status_code == 200
    assert client.get("/local/", headers={"Host": "shop.example.com"}).status_code == 403
    with pytest.raises(ZeroDivisionError):
        client.get("/torn/")


@pytest.mark.parametrize("path", ["", "/", "queue", "/queue/", None, 5])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(BadArgument, match="dashboard="):
        mount(Flask("shop"), path, page, None)


@pytest.fixture
def pages():
    if not (ROOT / "dbbasic_queue/web/pages/job.py").exists():
        pytest.skip("needs the dashboard")


def test_the_dashboard_is_shown_to_whom_auth_lets_in_who_may_change(pages, queue, jobs):
    app = Flask("shop")
    door.init_app(app, queue, auth=lambda request: request.args.get("as"), dashboard="/queue")
    path = f"/queue/job?id={jobs['failed']}"

    with running(app) as ask:
        nobody = ask("GET", path, Host="shop.example.com")
        ana = ask("GET", f"{path}&as=ana", Host="shop.example.com")

    assert (nobody.status, jobs["failed"] in nobody.text) == (403, False)
    assert (ana.status, jobs["failed"] in ana.text) == (200, True)
    assert 'method="post"' in ana.text.lower()


def test_the_dashboard_without_auth_is_for_this_machine_and_only_shows(pages, queue, jobs):
    app = Flask("shop")
    door.init_app(app, queue, dashboard="/queue")
    path = f"/queue/job?id={jobs['failed']}"

    with running(app) as ask:
        here = ask("GET", path)
        there = ask("GET", path, Host="shop.example.com")

    assert (here.status, jobs["failed"] in here.text) == (200, True)
    assert 'method="post"' not in here.text.lower()
    assert there.status == 403
