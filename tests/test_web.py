"""The dashboard called as a WSGI application; who may do what, and what hostile input does."""

import http.client
import io
import json
import logging
import os
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode
from wsgiref.validate import validator

import pytest

from dbbasic_queue import Queue, audit, enqueue
from dbbasic_queue.batch import enqueue_batch
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.middleware import traceback_kept
from dbbasic_queue.redact import sensitive
from dbbasic_queue.tags import tags
from dbbasic_queue.web import dashboard, session
from dbbasic_queue.web.pages.job import call_of
from dbbasic_queue.web.server import listening

TOKEN = "a-token-of-the-tests"
HOSTILE = "</td></script><script>alert(1)</script>'\"&<img src=x onerror=alert(2)>"
PAGES = ("", "jobs", "batches", "schedules", "workers", "metrics")
FORM = "application/x-www-form-urlencoded"


class Browser:
    """What a browser does: it keeps cookies, sends forms, and says where they come from."""

    def __init__(self, application, mount="", host="localhost:8000"):
        self.plain, self.application = application, validator(application)
        self.mount, self.host = mount, host
        self.cookies = {}

    def ask(self, path="", method="GET", body=b"", **environ):
        path, _, query = path.removeprefix(self.mount + "/").partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": self.mount,
            "PATH_INFO": "/" + path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": self.host,
            "HTTP_COOKIE": "; ".join(f"{name}={one}" for name, one in self.cookies.items()),
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **environ,
        }
        environ = {name: one for name, one in environ.items() if one is not None}
        found = {}

        def start_response(status, headers, problem=None):
            found.update(status=int(status[:3]), headers=dict(headers), every=headers)
            return io.BytesIO().write

        parts = self.application(environ, start_response)
        text = b"".join(parts)
        getattr(parts, "close", str)()
        for name, value in found["every"]:
            if name == "Set-Cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        return SimpleNamespace(text=text.decode(), **found)

    def send(self, path, fields, **environ):
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        more = {"CONTENT_TYPE": FORM, "CONTENT_LENGTH": str(len(body)), **environ}
        more.setdefault("HTTP_ORIGIN", f"http://{self.host}")
        return self.ask(path, "POST", body, **more)

    def sign_in(self):
        assert self.ask(f"?token={TOKEN}").status == 303
        return self

    def fields(self, page, action):
        """The hidden fields of the form on a page that does this."""
        for form in re.findall(r"<form.*?</form>", page.text, re.DOTALL):
            found = {
                name: value.replace("&amp;", "&")
                for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)
            }
            if found.get("action") == action and "proof" in found:
                return found
        raise AssertionError(f"no form for {action}")

    def do(self, page, action):
        return self.send("do", self.fields(self.ask(page), action))


@pytest.fixture
def web(queue):
    queue.enqueue("first", {"n": 1})
    return Browser(dashboard(queue, token=TOKEN))


def failed_job(file, job_type="mail", payload=None, error="ValueError: no", **more):
    id = file.enqueue(job_type, payload, **more)
    with file.edit() as e:
        e.change(e.get(id), status="failed", error=error, attempts=3, finished_at=time.time())
    return id


# --- what everybody sees


@pytest.mark.parametrize("page", PAGES)
def test_each_page_answers_and_says_how_to_treat_it(web, page):
    found = web.ask(page)

    assert found.status == 200
    assert found.headers["Content-Type"] == "text/html; charset=utf-8"
    assert found.headers["Content-Length"] == str(len(found.text.encode()))
    assert '<html lang="en">' in found.text and 'id="main"' in found.text
    assert not re.search(
        r"<script(?! src=)|<style| style=| on\w+=|javascript:|https?://", found.text
    )


@pytest.mark.parametrize("path", ["", "nope", "static/live.js", "job?id=x", "login", "do"])
def test_each_answer_forbids_frames_and_everything_from_elsewhere(web, path):
    headers = web.ask(path).headers

    policy = dict(
        one.strip().split(" ", 1) for one in headers["Content-Security-Policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "style-src": "'self'",
        "script-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("mount", ["", "/admin/queue", "/ü b"])
def test_it_can_be_mounted_anywhere(queue, mount):
    queue.enqueue("first")
    web = Browser(dashboard(queue, token=TOKEN), mount.encode().decode("latin-1"))

    page = web.ask("jobs")

    quoted = {"/ü b": "/%C3%BC%20b"}.get(mount, mount)
    assert f'href="{quoted}/static/style.css"' in page.text
    links = re.findall(r'(?:href|action|src)="([^"]+)"', page.text)
    assert [one for one in links if not one.startswith((f"{quoted}/", "#"))] == []
    assert web.ask(f"?token={TOKEN}").headers["Location"] == f"{quoted}/"


def test_the_mount_point_without_its_slash_leads_to_the_one_with_it(queue):
    web = Browser(dashboard(queue), "/q")

    assert web.ask(PATH_INFO="").headers["Location"] == "/q/"


def test_head_is_get_without_the_text(web):
    found = web.ask("jobs", "HEAD")

    assert (found.status, found.text) == (200, "")
    assert int(found.headers["Content-Length"]) == len(web.ask("jobs").text.encode())


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("jobs", "POST", "GET, HEAD"),
        ("", "DELETE", "GET, HEAD"),
        ("do", "GET", "POST"),
        ("static/live.js", "PUT", "GET, HEAD"),
        ("login", "PATCH", "GET, HEAD, POST"),
    ],
)
def test_a_method_that_a_page_does_not_have_is_refused(web, path, method, allowed):
    found = web.ask(path, method)

    assert (found.status, found.headers["Allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path",
    [
        "nope",
        "overview",
        "graph",
        "job",
        "job?id=../../etc/passwd",
        "static/../app.py",
        "static/..%2fapp.py",
        "static//etc/passwd",
        "static/",
        "static/html.py",
        "pages/jobs",
        "jobs/",
        "\x00",
        "jobs\r\nX-Bad: 1",
    ],
)
def test_what_is_not_there_is_not_found(web, path):
    found = web.ask(path)

    assert found.status == 404
    assert "X-Bad" not in found.headers and "root:" not in found.text


def test_static_files_are_the_same_until_they_change(web):
    found = web.ask("static/style.css")
    again = web.ask("static/style.css", HTTP_IF_NONE_MATCH=found.headers["ETag"])

    assert found.headers["Content-Type"] == "text/css; charset=utf-8"
    assert (again.status, again.text) == (304, "")


# --- live


@pytest.mark.parametrize("page", ["", "jobs", "metrics"])
def test_a_page_says_304_until_the_queue_changes(queue, web, page):
    tag = web.ask(page).headers["ETag"]

    same = web.ask(page, HTTP_IF_NONE_MATCH=tag)
    queue.enqueue("second")
    other = web.ask(page, HTTP_IF_NONE_MATCH=tag)

    assert (same.status, same.text) == (304, "")
    assert (other.status, other.headers["ETag"] != tag) == (200, True)


def test_another_visitor_another_filter_another_page_are_another_version(web):
    tags = {web.ask(path).headers["ETag"] for path in ("", "jobs", "jobs?type=a", "job?id=none")
            if path != "job?id=none"}  # fmt: skip
    tags.add(web.sign_in().ask("jobs").headers["ETag"])

    assert len(tags) == 4


def test_what_was_done_is_told_though_the_page_is_the_same(queue, web):
    id = queue.enqueue("a")
    fields = web.sign_in().fields(web.ask(f"confirm?action=kill&id={id}"), "kill")
    web.send("do", {**fields, "action": "resume", "queue": "default"})
    cookies = dict(web.cookies)
    tag = web.ask("metrics").headers["ETag"]
    web.cookies = cookies

    found = web.ask("metrics", HTTP_IF_NONE_MATCH=tag)

    assert found.status == 200 and "Queue default is not paused." in found.text


def test_a_page_of_another_session_is_another_version(web):
    """Its forms carry another proof."""
    first = web.sign_in().ask("jobs").headers["ETag"]
    second = Browser(web.plain).sign_in().ask("jobs", HTTP_IF_NONE_MATCH=first)

    assert (second.status, second.headers["ETag"] != first) == (200, True)


# --- jobs


def test_jobs_are_found_by_tab_and_by_filter(queue):
    failed_job(queue, "mail", {"to": "Ada"}, "ConnectionError: refused")
    queue.enqueue("report", queue="slow", columns=tags("big"))
    queue.enqueue("later", run_at=time.time() + 900)
    web = Browser(dashboard(queue))

    def types(query):
        return re.findall(r'<td><a href="/jobs\?type=(\w+)"', web.ask(f"jobs?{query}").text)

    assert types("") == ["later", "report", "mail"]
    assert types("status=failed") == types("text=REFUSED") == types("text=ada") == ["mail"]
    assert types("status=scheduled") == ["later"]
    assert types("queue=slow") == types("tag=big") == types("type=report") == ["report"]
    assert types("status=failed&type=report") == []


def test_pages_of_jobs_follow_each_other_both_ways(queue):
    ids = queue.enqueue_many([("a", n) for n in range(25)])
    web = Browser(dashboard(queue))

    def shown(path):
        page = web.ask(path)
        links = dict(re.findall(r'rel="(\w+)" href="/([^"]*)"', page.text))
        found = re.findall(r'scope="row"><a href="/job\?id=(\w+)"', page.text)
        return found, {name: link.replace("&amp;", "&") for name, link in links.items()}

    first, links = shown("jobs?limit=10")
    second, more = shown(links["next"])
    third, last = shown(more["next"])
    back, _ = shown(last["prev"])

    assert (first + second + third)[::-1] == ids
    assert (back, "prev" in links, "next" in last) == (second, False, False)


@pytest.mark.parametrize(
    "query",
    [
        "status=nope",
        "before=zzz&after=yyy",
        "limit=-1",
        "limit=99999999999999",
        "limit=x",
        "before=%00",
        "text=%FF%FE",
        "type=%ED%A0%80",
        "a=1;b=2&&&=",
        "%",
    ],
)
def test_a_bad_query_is_a_page_not_a_bug(web, query, caplog):
    assert web.ask(f"jobs?{query}").status in (200, 400)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("query", "status"),
    [("x=" + "a" * 5000, 414), ("text=" + "a" * 1001, 400), ("&".join(["a=1"] * 50), 400)],
)
def test_a_query_longer_than_any_of_ours_is_refused(web, query, status):
    assert web.ask(f"jobs?{query}").status == status


def test_a_page_shows_at_most_200_jobs(queue):
    queue.enqueue_many([("a", n) for n in range(230)])

    page = Browser(dashboard(queue)).ask("jobs?limit=100000")

    assert page.text.count('scope="row"') == 200


def test_a_jobs_page_tells_all_of_it(queue):
    id = failed_job(queue, "mail", {"to": "ada", "n": [1, 2]}, "ValueError: no\n  at line 3")

    text = Browser(dashboard(queue)).ask(f"job?id={id}").text

    assert "ValueError: no\n  at line 3" in text
    assert "&quot;to&quot;: &quot;ada&quot;" in text
    assert "Timeline" in text and "As enqueue(…)" in text
    assert "<button" not in text  # who only looks is offered nothing


def test_a_jobs_page_says_why_it_has_not_run(queue):
    first = queue.enqueue("a")
    id = queue.enqueue("b", after=f"ok:{first}")

    text = Browser(dashboard(queue)).ask(f"job?id={id}").text

    assert '<ul class="why"><li>waiting' in text and first in text


def test_a_jobs_page_shows_the_traceback_that_was_kept(queue):
    id = queue.enqueue("bad", {"n": 7})
    queue.process_jobs({"bad": lambda payload: 1 / 0}, 1, middleware=[traceback_kept])

    text = Browser(dashboard(queue)).ask(f"job?id={id}").text

    assert "Traceback (most recent call last):" in text
    assert text.index("Traceback") < text.index("in &lt;lambda&gt;") < text.index("Timeline")
    assert "makes it pending again" not in text


def test_an_archived_job_has_its_page(queue):
    id = failed_job(queue, "old", {"n": 7})
    while not queue.archive(0):  # its milliseconds are rounded, perhaps upwards
        pass
    with queue.edit() as e:
        assert e.get(id) is None

    page = Browser(dashboard(queue)).ask(f"job?id={id}")

    assert page.status == 200 and "&quot;n&quot;: 7" in page.text


def test_steps_and_progress_are_shown(queue):
    from dbbasic_queue.steps import progress, step

    def handler(payload):
        step("charge", lambda: "receipt 5")
        progress(50, 200, "reading")

    id = queue.enqueue("order")
    queue.process_jobs({"order": handler})

    text = Browser(dashboard(queue)).ask(f"job?id={id}").text

    assert '<progress value="50' in text and "25%" in text and "reading" in text
    assert "charge" in text and "receipt 5" in text


def test_a_payload_of_a_megabyte_is_cut(queue):
    id = queue.enqueue("big", "x" * 1_000_000)

    page = Browser(dashboard(queue)).ask(f"job?id={id}")

    assert page.status == 200 and len(page.text) < 100_000
    assert "The first 20,000 of 1,000,002 characters." in page.text


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {"to": "ada@example.com", "n": [1, 2.5, None, True]},
        'it\'s "quoted"\n\x1b[31m\u202e',
        {"deep": [{"a" * 40: "b" * 60, "c": list(range(30))}] * 3},
        "x" * 300,
        "\ud7ff",
    ],
)
def test_what_is_copied_as_enqueue_is_python_that_adds_the_same_job(queue, monkeypatch, payload):
    monkeypatch.setenv("DBBASIC_QUEUE", queue.path)
    more = {
        "queue": "slow",
        "priority": -3,
        "max_attempts": 7,
        "timeout": 2.5,
        "backoff": "linear:5:60",
    }
    job = queue.get(queue.enqueue("mail", payload, columns=tags("one", "two"), **more))

    text = call_of(job)
    copy = queue.get(eval(text, {"enqueue": enqueue}))

    assert copy.id != job.id
    for name in ("type", "payload", "queue", "priority", "max_attempts", "timeout", "backoff"):
        assert getattr(copy, name) == getattr(job, name)
    assert copy.cell("tags") == job.cell("tags")
    assert "\x1b" not in text


# --- hostile words


def test_P35_no_control_byte_and_no_markup_of_a_job_reaches_a_page_or_the_log(queue, caplog):
    nasty = HOSTILE + "\x1b]0;x\x07\x00\x9b\u202e\u2028 end"
    ids = [failed_job(queue, "TYPE", {nasty: [nasty]}, nasty, columns={"column_of_mine": nasty})]
    failed_job(queue, "other", queue="LABEL", error="FIRST")
    path = Path(queue.path)
    text = path.read_text()  # what is not let in by enqueue may be written by hand
    for word in ("TYPE", "column_of_mine", "LABEL", "FIRST"):
        text = text.replace(word, HOSTILE)
    path.write_text(text)
    batch_id = enqueue_batch([("a", 1)], name=HOSTILE[:60], queue_file=queue).id
    web = Browser(dashboard(queue, token=TOKEN)).sign_in()
    paths = [
        *PAGES,
        f"job?id={ids[0]}",
        f"batches?id={batch_id}",
        f"confirm?action=retry&{words()}",
    ]
    paths += [f"jobs?{words(text=nasty)}", f"jobs?{words(type=HOSTILE)}"]
    paths += [f"{page}?{words(id=nasty, name=nasty)}" for page in ("job", "batches", "schedules")]

    for path in paths:
        text = web.ask(path).text

        assert (
            "<script>" not in text and "<img" not in text and "onerror=alert" not in tags_in(text)
        )
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", text)
    web.do(f"job?id={ids[0]}", "retry")
    assert not re.search("[\x00-\x1f\x7f-\x9f]", caplog.records[-1].getMessage())


def words(**given):
    return urlencode(given)


def tags_in(text):
    return " ".join(re.findall(r"<[^>]*>", re.sub(r'"[^"]*"', '""', text)))


def test_what_is_sensitive_is_hidden_on_every_page(queue):
    payload = {"user": "ada", "password": "hunter2hunter2"}
    id = failed_job(
        queue, "login", payload, "bad password hunter2hunter2", columns=sensitive("password")
    )
    web = Browser(dashboard(queue, token=TOKEN)).sign_in()

    for path in (*PAGES, f"job?id={id}", "jobs?text=ada"):
        assert "hunter2" not in web.ask(path).text
    assert "No job is like that" in web.ask("jobs?text=hunter2").text
    assert "***" in web.ask(f"job?id={id}").text


def test_a_sealed_job_stays_sealed_and_is_not_copied(queue):
    pytest.importorskip("cryptography")
    from dbbasic_queue.crypt import new_key, seal

    id = queue.enqueue(**seal("secret", {"card": "4111"}, keys=new_key()))
    web = Browser(dashboard(queue, token=TOKEN)).sign_in()

    text = web.ask(f"job?id={id}").text

    assert "Sealed" in text and "As enqueue" not in text and "Copy as a new job" not in text


def test_a_payload_that_is_no_json_is_shown_as_text(queue):
    id = queue.enqueue("x", {"n": 1})
    path = Path(queue.path)
    path.write_bytes(path.read_bytes().replace(b'{"n":1}', b"{<b>").replace(b'{"n": 1}', b"{<b>"))

    text = Browser(dashboard(queue)).ask(f"job?id={id}").text

    assert "not JSON" in text and "{&lt;b&gt;" in text and "As enqueue" not in text


# --- who may


def test_without_a_token_nothing_can_be_changed(queue):
    id = failed_job(queue)
    web = Browser(dashboard(queue))

    page = web.ask(f"job?id={id}")
    answers = [web.send("do", {"action": "retry", "id": id, "proof": proof}).status
               for proof in ("", "x", "0" * 64)]  # fmt: skip

    assert "<button" not in page.text
    assert answers == [403, 403, 403]
    assert queue.get(id).status == "failed"


def test_the_token_gives_a_cookie_and_leaves_the_address(web):
    found = web.ask(f"jobs?status=failed&token={TOKEN}")

    assert (found.status, found.headers["Location"]) == (303, "/jobs?status=failed")
    cookie = found.headers["Set-Cookie"]
    assert "; HttpOnly; SameSite=Strict" in cookie and "; Path=/;" in cookie
    assert "Secure" not in cookie and TOKEN not in cookie
    assert "Sign out" in web.ask("jobs").text


def test_over_https_the_cookie_is_for_https_only(web):
    found = web.ask(f"?token={TOKEN}", **{"wsgi.url_scheme": "https"})

    assert found.headers["Set-Cookie"].endswith("; Secure")


def test_the_token_can_be_typed_and_one_can_leave(web):
    found = web.send("login", {"token": TOKEN})
    page = web.ask("")
    left = web.send("do", web.fields(page, "sign_out"))

    assert (found.status, left.status) == (303, 303)
    assert "Sign out" in page.text and "Sign out" not in web.ask("").text


@pytest.mark.parametrize("wrong", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 20])
def test_a_wrong_token_opens_nothing(web, wrong):
    answers = [web.ask("?" + urlencode({"token": wrong})), web.send("login", {"token": wrong})]

    assert [one.status for one in answers] == [403, 403]
    assert web.cookies == {} and "Sign out" not in web.ask("").text


def test_who_guesses_is_made_to_wait_and_others_are_not(web):
    answers = [web.send("login", {"token": f"guess {n}"}).status for n in range(12)]

    right = web.send("login", {"token": TOKEN})
    other = web.send("login", {"token": TOKEN}, REMOTE_ADDR="127.0.0.2")

    assert answers == [403] * session.TRIES + [429] * 2
    assert (right.status, right.headers["Retry-After"], other.status) == (429, "60", 303)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cookie: cookie[:-1] + ("0" if cookie[-1] != "0" else "1"),
        lambda cookie: cookie.replace(".in.", ".in.9"),
        lambda cookie: "",
        lambda cookie: "a.in.9999999999.",
        lambda cookie: cookie.rpartition(".")[0] + ".ü",
        lambda cookie: '"' + cookie,
        lambda cookie: cookie + "x" * 9000,
    ],
)
def test_a_cookie_that_is_not_ours_is_none(web, spoil):
    web.sign_in()
    name = next(name for name in web.cookies)
    web.cookies[name] = spoil(web.cookies[name]).encode().decode("latin-1")

    page = web.ask("")

    assert page.status == 200 and "Sign out" not in page.text


def test_a_cookie_of_a_visitor_is_none_of_somebody_who_signed_in(queue):
    queue.enqueue("a")
    web = Browser(dashboard(queue, token=TOKEN)).sign_in()
    name = next(iter(web.cookies))
    web.cookies[name] = web.cookies[name].replace(".in.", ".out.")

    assert "Sign out" not in web.ask("").text


def test_a_cookie_ends(web, monkeypatch):
    web.sign_in()
    now = time.time()

    monkeypatch.setattr(time, "time", lambda: now + session.LASTS + 1)

    assert "Sign out" not in web.ask("").text


def test_auth_names_who_changes_and_shows_others_nothing(queue, caplog):
    id = failed_job(queue)
    application = dashboard(queue, auth=lambda environ: environ.get("REMOTE_USER"))
    web = Browser(application)

    answers = [web.ask(path).status for path in (*PAGES, f"job?id={id}", "nope")]
    form = web.fields(web.ask(f"job?id={id}", REMOTE_USER="ada"), "retry")
    stolen = web.send("do", form, REMOTE_USER="eve")
    done = web.send("do", form, REMOTE_USER="ada")

    assert answers == [403] * len(answers)
    assert (stolen.status, done.status, queue.get(id).status) == (403, 303, "pending")
    assert "dashboard: ada at 127.0.0.1: retry id=" in caplog.text


def test_with_auth_and_a_token_who_has_neither_is_shown_nothing(queue):
    web = Browser(dashboard(queue, auth=lambda environ: None, token=TOKEN))

    assert web.ask("jobs").headers["Location"] == "/login"
    assert web.ask("nope").status == 403
    assert web.sign_in().ask("jobs").status == 200


def test_who_is_in_may_only_look_where_it_is_read_only(queue):
    id = failed_job(queue)
    web = Browser(dashboard(queue, token=TOKEN, read_only=True)).sign_in()

    page = web.ask(f"job?id={id}")

    assert "Retry" not in page.text
    proof = web.fields(page, "sign_out")["proof"]
    assert web.send("do", {"action": "retry", "id": id, "proof": proof}).status == 403
    assert queue.get(id).status == "failed"


def test_a_private_one_shows_the_way_in_and_nothing_else(queue):
    id = queue.enqueue("secret_type")
    web = Browser(dashboard(queue, token=TOKEN, private=True))

    for path in (*PAGES, f"job?id={id}", "confirm?action=delete"):
        found = web.ask(path)
        assert (found.status, found.headers["Location"]) == (303, "/login")
    assert web.ask("nope").status == 403
    assert "secret_type" in web.sign_in().ask("jobs").text


@pytest.mark.parametrize(
    "given", [{"token": "short"}, {"token": "ü" * 20}, {"private": True}, {"hosts": "a.example"}]
)
def test_a_dashboard_that_would_not_be_safe_is_refused(queue, given):
    with pytest.raises(BadArgument):
        dashboard(queue, **given)


# --- attacks from other sites


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "localhost.evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "localhost/evil",
        "a" * 300,
        "[::2]:8000",
        "127.0.0.2",
    ],
)
def test_a_host_name_that_is_not_ours_is_refused(web, host):
    found = web.sign_in().ask("jobs", HTTP_HOST=host)

    assert found.status == 421 and "first" not in found.text


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "q.example", "localhost."]
)
def test_our_own_host_names_are_known(queue, host):
    web = Browser(dashboard(queue, hosts=["Q.example"]), host=host)
    queue.enqueue("a")

    assert web.ask("jobs").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_ORIGIN": "http://evil.example"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": ""},
        {"HTTP_ORIGIN": "http://localhost:8001"},
        {"HTTP_ORIGIN": "http://localhost"},
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
        {"HTTP_SEC_FETCH_SITE": "none"},
    ],
)
@pytest.mark.parametrize("path", ["do", "login"])
def test_a_form_that_another_site_sends_is_refused(queue, web, headers, path):
    id = failed_job(queue)
    fields = web.sign_in().fields(web.ask(f"job?id={id}"), "retry")

    found = web.send(path, {**fields, "token": TOKEN}, **headers)

    assert (found.status, queue.get(id).status) == (403, "failed")


@pytest.mark.parametrize("proof", [None, "", "0" * 64, "ü", "of another"])
def test_a_form_without_its_proof_is_refused(queue, web, proof):
    id = failed_job(queue)
    fields = web.sign_in().fields(web.ask(f"job?id={id}"), "retry")
    other = Browser(web.plain).sign_in()
    theirs = other.fields(other.ask(f"job?id={id}"), "retry")["proof"]
    fields["proof"] = theirs if proof == "of another" else proof

    found = web.send("do", {name: one for name, one in fields.items() if one is not None})

    assert (found.status, queue.get(id).status) == (403, "failed")


@pytest.mark.parametrize("action", ["retry", "delete", "cancel", "kill", "copy", "pause", "stop"])
def test_get_changes_nothing(queue, web, action):
    failed_job(queue)
    web.sign_in()
    before = Path(queue.path).read_bytes()

    for path in ("do", "confirm", "jobs", "job", ""):
        for more in (f"id={next(queue.jobs('failed')).id}", "status=failed", "queue=default"):
            web.ask(f"{path}?action={action}&{more}&sure=1")

    assert Path(queue.path).read_bytes() == before
    assert not os.path.exists(f"{queue.path}.d/paused")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"CONTENT_TYPE": "application/json"}, 415),
        ({"CONTENT_TYPE": "multipart/form-data; boundary=x"}, 415),
        ({"CONTENT_TYPE": "text/plain"}, 415),
        ({"CONTENT_TYPE": ""}, 415),
        ({"CONTENT_LENGTH": ""}, 411),
        ({"CONTENT_LENGTH": "x"}, 400),
        ({"CONTENT_LENGTH": "-1"}, 400),
        ({"CONTENT_LENGTH": "70000"}, 413),
        ({"CONTENT_LENGTH": "9" * 30}, 413),
        ({"CONTENT_LENGTH": "5000"}, 400),
    ],
)
def test_a_body_that_is_no_form_of_ours_is_refused_unread(web, headers, status):
    web.sign_in()
    web.application = web.plain  # the validator refuses some of them itself

    assert web.send("do", {"action": "retry"}, **headers).status == status


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "nope"},
        {},
        {"action": "retry", "id": "../../x"},
        {"action": "retry", "id": "a\r\nSet-Cookie: x=1"},
        {"action": "stop"},
        {"action": "pause", "queue": "a b\r\n"},
        {"action": "run_schedule", "name": "none"},
        {"action": "cancel_batch", "id": "none"},
        {"action": "retry", "id": "0" * 16},
        {"action": "delete", "status": "nope"},
        {"action": "delete", "until": "x", "count": "1"},
    ],
)
def test_a_form_with_bad_words_is_a_page_not_a_bug(web, fields, caplog):
    web.sign_in()
    proof = web.fields(web.ask(""), "sign_out")["proof"]

    found = web.send("do", {**fields, "proof": proof})

    assert found.status in (400, 404, 409) and "Traceback" not in found.text
    assert "Set-Cookie" not in found.headers
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


# --- changes


def test_a_failed_job_is_retried_and_the_next_page_says_so_once(queue, web):
    id = failed_job(queue)
    web.sign_in()

    done = web.do(f"job?id={id}", "retry")
    said = web.ask(done.headers["Location"])

    assert (done.status, queue.get(id).status) == (303, "pending")
    assert f"Job {id} is pending again." in said.text
    assert "pending again" not in web.ask(done.headers["Location"]).text


def test_a_text_that_was_not_said_by_us_is_not_shown(queue, web):
    failed_job(queue)
    web.cookies["dbbasic_queue_said8000"] = b"forged".hex() + "." + "0" * 64

    assert "forged" not in web.ask("").text


@pytest.mark.parametrize(("action", "before", "after"), [
    ("cancel", "pending", "cancelled"), ("delete", "failed", None),
])  # fmt: skip
def test_what_cannot_be_taken_back_asks_first(queue, web, action, before, after):
    id = failed_job(queue) if before == "failed" else queue.enqueue("a")
    page = web.sign_in().ask(f"job?id={id}")

    assert 'action="/confirm"' in page.text
    assert queue.get(id).status == before
    assert web.do(f"confirm?action={action}&id={id}", action).status == 303
    job = queue.get(id)
    assert (job.status if job else None) == after


def test_a_job_is_copied_as_a_new_one(queue, web):
    id = failed_job(queue, "mail", {"n": 5}, columns=tags("big"), queue="slow")

    where = web.sign_in().do(f"job?id={id}", "copy").headers["Location"]

    copy = queue.get(where.partition("id=")[2])
    assert (copy.id != id, copy.type, copy.payload) == (True, "mail", {"n": 5})
    assert (copy.status, copy.queue, copy.cell("tags")) == ("pending", "slow", "big")


def test_a_job_that_does_not_run_cannot_be_killed(queue, web):
    id = queue.enqueue("a")

    found = web.sign_in().do(f"confirm?action=kill&id={id}", "kill")

    assert found.status == 409 and "It does not run now." in found.text


def test_a_queue_is_paused_and_goes_on(queue, web):
    web.sign_in()

    paused = web.do("metrics", "pause")
    is_paused = os.path.exists(f"{queue.path}.d/paused")
    web.do("metrics", "resume")

    assert (paused.status, is_paused) == (303, True)
    assert not os.path.exists(f"{queue.path}.d/paused")


# --- changes of many


def test_many_are_retried_after_a_page_that_names_their_number_and_the_filter(queue, web):
    mails = [failed_job(queue, "mail") for _ in range(3)]
    other = failed_job(queue, "report")
    page = web.sign_in().ask("confirm?action=retry&status=failed&type=mail")

    done = web.send("do", web.fields(page, "retry"))

    assert "Retry 3 jobs?" in page.text and "mail" in page.text and "3 failed" in page.text
    assert {queue.get(id).status for id in mails} == {"pending"}
    assert queue.get(other).status == "failed"
    assert "3 jobs retried." in web.ask(done.headers["Location"]).text


@pytest.mark.parametrize("change", ["one more", "one less", "another"])
def test_when_the_jobs_are_others_by_then_it_asks_again_and_does_nothing(queue, web, change):
    ids = [failed_job(queue) for _ in range(3)]
    late = queue.enqueue("mail")
    ids.append(failed_job(queue))
    fields = web.sign_in().fields(web.ask("confirm?action=delete&status=failed"), "delete")
    if change in ("one more", "another"):
        with queue.edit() as e:
            e.change(e.get(late), status="failed", finished_at=time.time())
    if change in ("one less", "another"):
        queue.retry(ids[0])

    found = web.send("do", fields)

    now = {"one more": 5, "one less": 3, "another": 4}[change]
    assert found.status == 409 and f"Delete {now} jobs?" in found.text
    assert "Nothing was done" in found.text
    assert sum(queue.counts().values()) == 6
    assert web.send("do", web.fields(found, "delete")).status == 303
    assert "failed" not in queue.counts()


def test_jobs_that_came_later_are_not_touched(queue, web):
    old = [failed_job(queue) for _ in range(2)]
    fields = web.sign_in().fields(web.ask("confirm?action=delete&status=failed"), "delete")
    new = failed_job(queue)

    done = web.send("do", fields)

    assert done.status == 303
    assert [queue.get(id) for id in old] == [None, None]
    assert queue.get(new).status == "failed"


def test_many_pending_jobs_are_cancelled_and_others_left(queue, web):
    queue.enqueue_many([("a", n) for n in range(5)])
    done = failed_job(queue, "a")
    page = web.sign_in().ask("confirm?action=cancel&type=a")

    web.send("do", web.fields(page, "cancel"))

    assert "Cancel 5 jobs?" in page.text
    assert queue.counts() == {"pending": 1, "cancelled": 5, "failed": 1}
    assert queue.get(done).status == "failed"


def test_where_there_is_nothing_to_do_nothing_is_asked(web):
    page = web.sign_in().ask("confirm?action=retry&status=failed")

    assert "Nothing to retry" in page.text and "Yes" not in page.text


def test_each_change_is_a_line_in_the_log_and_in_the_trail(queue, web, caplog):
    ids = [failed_job(queue, "mail") for _ in range(2)]
    trail = audit.trail(queue)
    trail("enqueued", queue.get(ids[0]))
    fields = web.sign_in().fields(web.ask("confirm?action=retry&type=mail"), "retry")

    web.send("do", fields)

    line = next(one.getMessage() for one in caplog.records if "retry" in one.getMessage())
    assert line == (
        f"dashboard: token at 127.0.0.1: retry type=mail: 2 jobs retried. ids {ids[0]} to {ids[1]}"
    )
    found = audit.history(ids[1], queue)
    assert [one.event for one in found] == ["retried"]
    assert found[0].by.startswith("dashboard token at 127.0.0.1 ")


# --- what goes wrong


def test_where_there_is_no_queue_yet_the_page_says_so(tmp_path):
    web = Browser(dashboard(tmp_path / "none.tsv"))

    found = web.ask("jobs")

    assert found.status == 200 and "There is no queue at" in found.text
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_queue_is_named(tmp_path):
    (tmp_path / "notes.tsv").write_text("a\tb\n1\t2\n")

    found = Browser(dashboard(tmp_path / "notes.tsv")).ask("jobs")

    assert found.status == 500 and "notes.tsv" in found.text and "Traceback" not in found.text


def test_a_queue_that_is_locked_for_long_is_busy(queue):
    id = failed_job(queue)
    quick = Queue(queue.path, sync="off", lock_timeout=0.01)
    web = Browser(dashboard(quick, token=TOKEN)).sign_in()
    fields = web.fields(web.ask(f"job?id={id}"), "retry")
    inside, over = threading.Event(), threading.Event()

    def hold():
        with queue.edit():
            inside.set()
            over.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    found = web.send("do", fields)
    over.set()
    holder.join()

    assert found.status == 503 and queue.get(id).status == "failed"


def test_a_bug_is_a_page_without_a_traceback_and_a_log_that_cannot_be_forged(
    web, monkeypatch, caplog
):
    from dbbasic_queue.web.pages import jobs

    def broken(view):
        raise RuntimeError("a secret\n\x1b[2Jroot: all is well")

    monkeypatch.setattr(jobs, "page", broken)

    found = web.ask("jobs")

    assert found.status == 500
    assert "secret" not in found.text and "Traceback" not in found.text
    assert "RuntimeError: a secret" in caplog.text and "\x1b" not in caplog.text


# --- a real server


@pytest.fixture
def served(queue):
    queue.enqueue("first")
    server = listening(dashboard(queue, token=TOKEN), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_real_server_answers_over_a_socket(served):
    line = http.client.HTTPConnection("127.0.0.1", served, timeout=5)

    line.request("GET", "/jobs")
    answer = line.getresponse()
    text = answer.read().decode()

    assert answer.status == 200 and "first" in text
    assert "wsgi" not in answer.headers["Server"].lower()
    line.request("GET", "/", headers={"Host": "evil.example"})
    assert line.getresponse().status == 421


def test_where_the_port_is_taken_the_next_one_is_used(served, queue):
    other = listening(dashboard(queue), "127.0.0.1", served)

    assert served < other.server_address[1] < served + 50
    other.server_close()
    with pytest.raises(Exception, match="cannot be listened on"):
        listening(dashboard(queue), "127.0.0.1", served, search=False)


@pytest.mark.soak
def test_the_command_prints_an_address_that_lets_one_in(queue, run_python):
    queue.enqueue("first")
    code = f"""
        from dbbasic_queue.cli import main
        main(["--file", {queue.path!r}, "--json", "dashboard", "--port", "0"])
    """
    child = run_python(code)

    url = json.loads(child.stdout.readline())["url"]
    host, _, path = url.removeprefix("http://").partition("/")
    line = http.client.HTTPConnection(host, timeout=5)
    line.request("GET", "/" + path)

    answer = line.getresponse()
    assert answer.status == 303 and "HttpOnly" in answer.headers["Set-Cookie"]
