"""The pages of figures, batches, schedules and workers, asked for as a browser does."""

import html
import io
import os
import re
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from wsgiref.util import setup_testing_defaults

import pytest

from dbbasic_queue.batch import enqueue_batch, enqueue_workflow
from dbbasic_queue.chain import enqueue_chain
from dbbasic_queue.limits import pause
from dbbasic_queue.middleware import errors_kept
from dbbasic_queue.redact import sensitive
from dbbasic_queue.schedule import add_schedule, pause_schedule
from dbbasic_queue.web import dashboard
from dbbasic_queue.web.pages.graph import timeline_of

HOSTILE = "</title><script>alert(1)</script>\"'&"


class Page:
    """One answer of a dashboard."""

    def __init__(self, queue, path, query="", **options):
        environ = {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": "GET"}
        setup_testing_defaults(environ)
        environ["HTTP_HOST"], environ["wsgi.input"] = "127.0.0.1:8000", io.BytesIO()
        answer = []
        parts = dashboard(queue, **options)(environ, lambda *said: answer.append(said))
        self.html = b"".join(parts).decode()
        self.status, self.headers = answer[0][0], dict(answer[0][1])

    @property
    def text(self):
        """What is read, without the texts of pictures."""
        plain = re.sub(r"(?s)<(head|svg|details)\b.*?</\1>", " ", self.html)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", plain)).split())

    def links(self):
        return [html.unescape(link) for link in re.findall(r'href="([^"]*)"', self.html)]


@pytest.fixture
def page(queue):
    """Return a function that asks for a page; a person may change things there."""

    def ask(path, query="", **options):
        return Page(queue, path, query, **{"auth": lambda environ: True, **options})

    return ask


def failing(payload):
    raise ValueError(payload)


# --- overview


def test_the_overview_counts_by_status_and_each_number_leads_to_its_jobs(queue, page):
    queue.enqueue_many([("later", 0, 2**31)] * 3)
    queue.enqueue("fails", "no such host", max_attempts=1)
    queue.process_jobs({"fails": failing})

    shown = page("/")

    assert shown.status == "200 OK"
    assert re.search(r"\b0 due\b.*\b1 failed\b.*\b3 scheduled\b", shown.text)
    links = [link for link in shown.links() if "jobs?" in link]
    assert {"status=failed", "status=scheduled"} <= {link.partition("?")[2] for link in links}


def test_the_overview_groups_errors_and_leads_to_a_page_that_retries_them(queue, page):
    queue.enqueue_many([{"job_type": "fails", "payload": "no host", "max_attempts": 1}] * 2)
    queue.process_jobs({"fails": failing})

    shown, read_only = page("/"), page("/", auth=None)

    assert "ValueError: no host fails 2" in shown.text
    assert "Retry all 2 of these" in shown.text
    assert "Retry all" not in read_only.text
    (link,) = [link for link in shown.links() if "action=retry" in link or "/confirm" in link]
    assert {"status=failed", "type=fails"} <= set(link.partition("?")[2].split("&"))


def test_an_overview_of_nothing_says_that_nothing_has_run(queue, page):
    Path(queue.path).parent.mkdir()
    Path(queue.path).touch()

    shown = page("/")

    assert shown.status == "200 OK"
    assert "no tick yet" in shown.text
    assert "No job is failed." in shown.text
    assert "nothing is due" in shown.text


def test_the_overview_says_that_cron_is_alive_and_since_when_it_is_not(queue, page):
    queue.enqueue("a")
    queue.process_jobs({"a": str})
    fresh = page("/").text
    now = time.time()

    os.utime(queue.path + ".d/tick", (now - 1000, now - 1000))
    silent = page("/").text

    assert "cron is alive: last tick 0s ago" in fresh
    assert "jobs run in 1," in fresh
    assert re.search(r"no tick since \d\d:\d\d \(16m\)", silent)


def test_the_overview_shows_who_runs_what_and_for_how_long(queue, page):
    seen = []
    id = queue.enqueue("a")

    queue.process_jobs({"a": lambda payload: seen.append(page("/"))}, name="w1")

    assert re.search(rf"w1\S* {id} for 0s", seen[0].text)
    assert [link for link in seen[0].links() if link.endswith(f"job?id={id}")]


def test_a_hidden_part_of_an_error_is_not_shown_and_not_looked_for(queue, page):
    columns = sensitive("key")
    queue.enqueue("fails", {"key": "s3cret-xyzzy"}, max_attempts=1, columns=columns)
    queue.process_jobs({"fails": lambda payload: failing(payload["key"])})

    shown = page("/")

    assert "s3cret" not in shown.html
    assert "ValueError: ***" in shown.text
    assert not [link for link in shown.links() if "text=" in link]


# --- batches and chains


def test_batches_and_chains_are_listed_with_how_far_they_are(queue, page):
    batch = enqueue_batch([("a", 0), ("a", 1)], name="Night", queue_file=queue)
    chain = enqueue_chain([("a", 0), ("b", 0), ("c", 0)], queue_file=queue)
    queue.process_jobs({"a": str})

    shown = page("/batches")

    assert "Night 100% ✓ completed 2 0 0 0 0" in shown.text
    assert f"{chain.id} 33% ○ pending 1 0 0 0 2 2: b" in shown.text
    assert [link for link in shown.links() if link.endswith(f"batches?id={batch.id}")]


def test_a_batch_has_a_page_with_its_jobs_its_picture_and_a_button_that_cancels(queue, page):
    flow = enqueue_workflow(
        {"get": ("get", 0), "left": ("left", 0), "right": ("right", 0)},
        {"left": ["get"], "right": ["get"]},
        name=HOSTILE[:40],
        then=("then", 0),
        queue_file=queue,
    )
    queue.process_jobs({"get": str})

    shown, read_only = (
        page("/batches", f"id={flow.id}"),
        page("/batches", f"id={flow.id}", auth=None),
    )

    assert shown.status == "200 OK"
    assert "1 of 3 finished" in shown.text
    assert "Cancel the 2 that have not begun" in shown.text
    assert "Cancel the" not in read_only.text
    assert shown.html.count('<g class="box ') == 4
    assert shown.html.count('<g class="arrow">') == 5
    assert "<script>alert" not in shown.html
    for job in flow.jobs():
        assert len([link for link in shown.links() if link.endswith(f"job?id={job.id}")]) == 2


def test_a_batch_that_has_begun_all_its_jobs_cannot_be_cancelled(queue, page):
    batch = enqueue_batch([("a", 0)], queue_file=queue)
    queue.process_jobs({"a": str})

    assert "Cancel" not in page("/batches", f"id={batch.id}").text


def test_a_batch_that_there_is_not_is_not_found(queue, page):
    queue.enqueue("a")

    assert page("/batches", "id=batch-0000000000000000").status.startswith("404")
    assert page("/batches", "id=%3Cscript%3E").status.startswith("404")


def test_a_large_batch_shows_its_first_jobs_and_leads_to_the_others(queue, page):
    batch = enqueue_batch([("a", n) for n in range(1100)], queue_file=queue)

    shown = page("/batches", f"id={batch.id}")

    assert "More than 1,000 jobs" in shown.text
    assert "The first 100." in shown.text
    assert shown.html.count("<tr>") == 101


# --- schedules


def test_schedules_say_when_they_run_next_and_are_paused_and_resumed(queue, page):
    add_schedule("tidy", "clean", every=900, queue_file=queue)
    add_schedule("off", "clean", every=60, queue_file=queue)
    pause_schedule("off", queue_file=queue)

    shown, read_only = page("/schedules"), page("/schedules", auth=None)

    assert re.search(r"off ‖ paused clean every 1m – 0 .*Run now Resume", shown.text)
    assert re.search(r"tidy ✓ on clean every 15m \d{4}-.*Run now Pause", shown.text)
    assert "Run now" not in read_only.text


def test_one_schedule_shows_its_next_runs(queue, page):
    add_schedule("tidy", "clean", every=900, max_count=3, queue_file=queue)

    shown = page("/schedules", "name=tidy")

    assert "0 of 3" in shown.text
    assert len(re.findall(r"<li>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown.html)) == 3
    assert "There is no schedule" in page("/schedules", "name=gone").text


def test_a_spoilt_schedule_says_so_and_has_no_buttons(queue, page):
    add_schedule("tidy", "clean", every=900, queue_file=queue)
    with queue.edit() as e:
        row = next(iter(e.find("type", "schedule")))
        e.change(row, payload={"schedule": "tidy", "every": "<b>often</b>"})

    shown = page("/schedules")

    assert "✕ spoilt" in shown.text
    assert "Run now" not in shown.text
    assert "<b>often" not in shown.html
    assert page("/schedules", "name=tidy").status == "200 OK"


# --- workers and metrics


def test_a_live_worker_can_be_asked_to_stop(queue, page):
    seen = []
    queue.enqueue("a")

    def look(payload):
        seen.extend([page("/workers"), page("/workers", auth=None)])

    queue.process_jobs({"a": look}, name="w1", queues=["default"])

    shown, read_only = seen
    assert re.search(rf"w1 \S+ {os.getpid()} 0s ago default a \S+ for 0s", shown.text)
    assert "Stop after its job" in shown.text
    assert "Stop after its job" not in read_only.text
    assert "No worker lives now" in page("/workers").text


def test_the_figures_by_type_and_by_queue_and_the_switch_of_a_queue(queue, page):
    queue.enqueue("good")
    queue.enqueue("bad", max_attempts=1)
    queue.enqueue("good", queue="bulk")
    queue.process_jobs({"good": str, "bad": failing}, queues=["default"])
    pause("bulk", queue_file=queue)

    shown, read_only = page("/metrics"), page("/metrics", auth=None)

    assert re.search(r"bulk ‖ paused 1 0 0 0 0 0 0s Resume", shown.text)
    assert re.search(r"default open 0 0 0 0 0 0 – Pause", shown.text)
    assert re.search(r"bad 0 1 0%", shown.text)
    assert re.search(r"good 1 0 100%", shown.text)
    assert "Resume" not in read_only.text


@pytest.mark.parametrize("path", ["/", "/batches", "/schedules", "/workers", "/metrics"])
def test_every_page_is_well_formed_and_has_no_style_or_script_in_it(queue, page, path):
    queue.enqueue("a", {"x": HOSTILE}, group="batch-" + "0" * 16)
    queue.enqueue("fails", HOSTILE, max_attempts=1)
    queue.process_jobs({"fails": failing})

    shown = page(path)

    assert shown.status == "200 OK"
    body = shown.html[shown.html.index("<main") :]
    assert " style=" not in body
    assert "<script>alert" not in shown.html
    for tag in ("section", "table", "svg", "g", "tr", "td", "dl", "figure", "details"):
        assert body.count(f"<{tag}>") + body.count(f"<{tag} ") == body.count(f"</{tag}>"), tag


# --- a job's timeline


def clock_now():
    """All that a timeline asks a view for."""
    return SimpleNamespace(now=time.time())


def stretches(queue, id):
    """What the timeline of a job says, without the times."""
    return [
        " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<time>.*?</time>", "", row)).split())
        for row in re.findall("<li.*?</li>", timeline_of(clock_now(), queue.get(id)))
    ]


def test_a_timeline_of_a_job_that_waits_runs_and_ends(queue):
    id = queue.enqueue("a")
    (waits,) = stretches(queue, id)
    seen = []

    queue.process_jobs({"a": lambda payload: seen.extend(stretches(queue, id))})

    assert re.fullmatch(r"added waited \S+ until now", waits)
    assert re.fullmatch(r"added waited \S+; attempt 1 began ran \S+ until now", "; ".join(seen))
    ended = "; ".join(stretches(queue, id))
    assert re.fullmatch(r"added waited \S+; attempt 1 began ran \S+; completed", ended)


def test_a_timeline_tells_what_lies_ahead(queue):
    id = queue.enqueue("a", run_at=time.time() + 7300)

    assert stretches(queue, id) == ["added scheduled 2h 1m", "due"]


def test_a_timeline_has_the_errors_of_the_attempts(queue, monkeypatch):
    id = queue.enqueue("a", max_attempts=3)
    for _ in range(2):
        queue.process_jobs(
            {"a": lambda payload: failing("no")}, backoff="none", middleware=[errors_kept]
        )

    between = stretches(queue, id)

    assert between[1] == "attempt 1 ValueError: no"
    assert between[2].startswith("attempt 2 began")
    assert between[3] == "put back ValueError: no"
    with queue.edit() as e:
        e.change(e.get(id), errors="{spoilt")
    assert any("cannot be read" in line for line in stretches(queue, id))


def test_a_timeline_hides_what_is_sensitive(queue):
    id = queue.enqueue("a", {"key": "s3cret-xyzzy"}, max_attempts=1, columns=sensitive("key"))
    queue.process_jobs({"a": lambda payload: failing(payload["key"])})

    assert stretches(queue, id)[-1] == "failed ValueError: ***"


def test_a_timeline_begins_when_the_job_was_added_whatever_its_id_says(queue):
    id = queue.enqueue("a", id="0" * 15 + "1")

    assert time.strftime("%Y-%m-%d %H") in timeline_of(clock_now(), queue.get(id))


def test_a_timeline_of_a_job_without_times_is_still_one(queue):
    id = queue.enqueue("a", id="0" * 15 + "1")
    queue.cancel(id)
    with queue.edit() as e:
        e.change(e.get(id), finished_at=None)

    assert stretches(queue, id)[-1] == "cancelled"


# --- the pictures of the README


@pytest.mark.parametrize("name", ["dashboard-overview.png", "dashboard-job.png"])
def test_a_picture_of_the_readme_is_one_and_is_small(name):
    content = (Path(__file__).parent.parent / "examples" / name).read_bytes()

    width, height = struct.unpack(">4xII", content[12:24])
    assert content.startswith(b"\x89PNG")
    assert width == 1280
    assert height > 900
    assert len(content) < 150_000
