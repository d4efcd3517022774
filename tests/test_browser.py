"""The dashboard in a real browser: Debian's Chromium without a screen, 100,000 rows, a live worker.

Everything is done on the page, as a person would; only its truth is looked up in the queue.
"""

import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dbbasic_queue import Queue
from dbbasic_queue.batch import enqueue_workflow
from dbbasic_queue.tags import tags

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --window-size=1280,1000"
).split()
ROWS = 100_000
MAILS, REPORTS = 250, 150  # failed ones
HOSTILE = "</script></td><img src=x onerror=alert(1)><script>alert(2)</script>'\"&"
TOKEN = "a-token-of-the-tests"
PAGES = ("", "jobs", "batches", "schedules", "workers", "metrics")
SLACK = 3  # this machine may be that much slower than the one on which the limits were set

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (os.path.exists(CHROMIUM) and os.path.exists(DRIVER)),
        reason=f"needs {CHROMIUM} and {DRIVER}: apt install chromium chromium-driver",
    ),
]

WORKER = """
import os, sys, time
from dbbasic_queue import process_jobs
from dbbasic_queue.steps import progress

def slow(payload):
    for n in range(1, 6000):
        progress(n, 6000, "frame")
        if os.path.exists(payload["until"]):
            return "over"
        time.sleep(0.1)

def mail(payload):
    return "sent"

process_jobs({"slow": slow, "mail": mail}, run_for=900, name="live", processes=2)
"""


# --- a queue of many rows, a worker, the dashboard


def fill(queue, now):
    """Put 100,000 jobs into a queue: most of them have finished in the last day."""
    types = ("mail", "report", "import")
    queue.enqueue_many(
        {"job_type": types[n % 3], "payload": {"n": n, "to": f"user{n}@example.com"}}
        for n in range(ROWS)
    )
    lines = Path(queue.path).read_bytes().split(b"\n")
    at = {name: place for place, name in enumerate(lines[0].decode().split("\t"))}
    failed = dict.fromkeys(range(0, 3 * MAILS, 3), b"ConnectionError: the server said no")
    failed |= dict.fromkeys(range(1, 3 * REPORTS, 3), b"ZeroDivisionError: division by zero")
    for n, line in enumerate(lines[1:-1]):
        cells = line.split(b"\t")
        if n >= 0.7 * ROWS and n not in failed:
            cells[at["run_at"]] = b"%d" % (now + 600 + n % 86000)
        else:
            finished = now - (n * 7919 % 86000)
            cells[at["status"]] = b"failed" if n in failed else b"completed"
            cells[at["error"]] = failed.get(n, b"")
            cells[at["attempts"]] = b"3" if n in failed else b"1"
            for name, before in (("created_at", 9), ("run_at", 9)):
                cells[at[name]] = b"%d" % (finished - before)
            cells[at["started_at"]] = b"%.3f" % (finished - 1.5)
            cells[at["finished_at"]] = b"%.3f" % finished
        lines[n + 1] = b"\t".join(cells)
    Path(queue.path).write_bytes(b"\n".join(lines))


class World:
    """What the tests look at: the queue, the address of its dashboard, a browser."""

    def __init__(self, queue, url, browser, folder):
        self.queue, self.url, self.browser, self.folder = queue, url, browser, folder

    def open(self, page="", **query):
        words = "&".join(f"{name}={value}" for name, value in query.items())
        self.browser.get(f"{self.url}{page}{'?' + words if words else ''}")
        return self.browser

    def text(self):
        return self.find("body").text

    def find(self, css):
        return self.browser.find_element("css selector", css)

    def all(self, css):
        return self.browser.find_elements("css selector", css)

    def until(self, look, seconds=20):
        """Wait until a look at the page gives something true, and return it."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Exception):
                if found := look():
                    return found
            assert time.monotonic() < end, f"not within {seconds} s:\n{self.text()[:3000]}"
            time.sleep(0.05)

    def complaints(self):
        """What the browser's console says since the last look."""
        return [one["message"] for one in self.browser.get_log("browser")]


@contextlib.contextmanager
def browser(folder, *flags):
    """Start a Chromium with a profile of its own; it looks up no driver in the network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        found.set_page_load_timeout(30)
        yield found
    finally:
        found.quit()


@contextlib.contextmanager
def python(*words, **more):
    """Run a child Python that imports this checkout, for as long as the body takes."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more.pop("env", {})}
    child = subprocess.Popen([sys.executable, *words], env=env, stdin=subprocess.DEVNULL, **more)
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        child.kill()
        child.wait()


@contextlib.contextmanager
def dashboard(queue, *flags):
    """Run the dashboard of a queue, as the shell does; give its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("-m", "dbbasic_queue", "dashboard", "--port", str(port), *flags)
    with python(*words, env={"DBBASIC_QUEUE": queue.path}) as child:
        end = time.monotonic() + 20
        while True:
            assert child.poll() is None, "the dashboard has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < end, "the dashboard does not answer"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A queue of 100,000 rows, a worker that lives, a dashboard, and a browser that is let in."""
    folder = tmp_path_factory.mktemp("browser")
    queue = Queue(folder / "data" / "queue.tsv", sync="off")
    fill(queue, time.time())
    with (
        python("-c", WORKER, env={"DBBASIC_QUEUE": queue.path}),
        dashboard(queue, "--token", TOKEN) as url,
        browser(folder / "profile") as shown,
    ):
        shown.get(f"{url}?token={TOKEN}")
        yield World(queue, url, shown, folder)


def job_of(world, job_type, status):
    return next(world.queue.jobs(type=job_type, status=status, limit=1))


# --- what a person does


def test_the_overview_shows_the_queue_and_links_to_the_jobs(world):
    world.open()

    numbers = {one.text.split()[1]: one.text.split()[0] for one in world.all(".counts li")}
    assert numbers["failed"] == str(MAILS + REPORTS)
    assert numbers["scheduled"] == f"{int(0.3 * ROWS):,}"
    assert "cron is alive" in world.text() or "live worker" in world.text()
    assert "ConnectionError: the server said no" in world.text()

    world.find(".counts li.failed a").click()

    assert "status=failed" in world.browser.current_url
    assert "ConnectionError" in world.text() or "ZeroDivisionError" in world.text()


def test_a_filter_leaves_the_jobs_that_match(world):
    world.open("jobs")
    box = world.find("form [name=type]")
    box.clear()
    box.send_keys("report")
    text = world.find("form [name=text]")
    text.send_keys("division by ZERO")
    text.send_keys("\n")

    world.until(lambda: "type=report" in world.browser.current_url)

    rows = world.all("main tbody tr")
    assert rows
    assert all("report" in row.text and "ZeroDivisionError" in row.text for row in rows)


def test_all_failed_jobs_of_a_type_are_retried_and_no_others(world):
    mails = {job.id for job in world.queue.jobs(type="mail", status="failed")}
    world.open("jobs", status="failed", type="mail")

    world.browser.find_element("partial link text", "Retry all").click()
    assert f"{MAILS}" in world.find("main").text
    assert world.queue.counts("type", "status")["mail", "failed"] == MAILS
    world.find("main form button").click()

    world.until(lambda: ("mail", "failed") not in world.queue.counts("type", "status"))
    assert world.queue.counts("type", "status")["report", "failed"] == REPORTS
    world.until(lambda: all(world.queue.get(id).status == "completed" for id in mails))


def test_a_pending_job_is_cancelled_on_its_page(world):
    job = job_of(world, "import", "pending")
    world.open("job", id=job.id)

    press(world, "Cancel")

    world.until(lambda: world.queue.get(job.id).status == "cancelled")
    world.until(lambda: "cancelled" in world.find("main").text)


def press(world, words):
    """Press a button, and that of the page which asks whether one is sure."""

    def click_first():
        [first, *_] = [one for one in world.all("main button") if one.text.startswith(words)]
        first.click()
        return True

    def click_sure():
        assert f"{words} job" in world.find("h1").text
        world.find("main button.sure").click()
        return True

    world.until(click_first)  # a look in the middle of a poll finds what is gone by then
    world.until(click_sure)


def test_a_running_job_is_seen_to_move_and_to_end_without_a_reload(world):
    until = world.folder / "until"
    id = world.queue.enqueue("slow", {"until": str(until)})
    world.until(lambda: world.queue.get(id).cell("progress"))
    world.open("job", id=id)
    world.browser.execute_script("window.mark = 'the same page'")

    def shown():
        return int(re.search(r"(\d+) of 6000", world.text())[1])

    first = world.until(shown)
    world.until(lambda: shown() > first)
    until.touch()
    world.until(lambda: "completed" in world.find("main h1, main .state, main").text)

    assert world.browser.execute_script("return window.mark") == "the same page"


def test_what_is_hostile_stays_text_and_no_script_runs(world):
    columns = {**tags("red"), "note": HOSTILE}
    ids = [
        world.queue.enqueue("later", {HOSTILE: HOSTILE}, 2**31, columns=columns),
        world.queue.enqueue("later", [HOSTILE] * 3, 2**31, group="batch-" + "0" * 16),
    ]
    with world.queue.edit() as e:
        e.change(e.get(ids[0]), status="failed", error=HOSTILE, finished_at=time.time())
    world.complaints()

    for page in (
        "",
        "jobs?text=onerror&tag=red",
        f"job?id={ids[0]}",
        f"job?id={ids[1]}",
        "batches",
    ):
        world.browser.get(world.url + page)
        if ids[0] in page:
            assert "<img src=x onerror=alert(1)>" in world.text()
        assert world.all("main img, main script") == []
    time.sleep(0.3)

    assert world.complaints() == []


def test_the_policy_of_the_page_stops_a_script_that_got_in(world):
    world.open()
    world.complaints()

    world.browser.execute_script(
        "const one = document.createElement('script'); one.textContent = 'window.bad = 1';"
        "document.body.append(one);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.bad = 2\">');"
    )
    time.sleep(0.3)

    assert world.browser.execute_script("return window.bad") is None
    assert any("Content Security Policy" in one for one in world.complaints())


def test_all_can_be_done_with_the_keyboard_alone(world):
    world.open("jobs")
    seen = []

    def tab_to(found):
        for _ in range(150):
            keys(world, "\ue004")
            one = world.browser.switch_to.active_element
            seen.append(one.tag_name)
            if found(one):
                return one
        raise AssertionError(f"not reached: {seen}")

    tab_to(lambda one: one.get_attribute("name") == "type")
    keys(world, "report")
    keys(world, "\ue007")
    world.until(lambda: "type=report" in world.browser.current_url)
    link = tab_to(lambda one: "job?id=" in (one.get_attribute("href") or ""))
    assert world.browser.execute_script(FOCUS_IS_SEEN, link)
    keys(world, "\ue007")

    world.until(lambda: "/job?id=" in world.browser.current_url)


FOCUS_IS_SEEN = """
    const style = getComputedStyle(arguments[0]);
    return style.outlineStyle != "none" && parseFloat(style.outlineWidth) > 0
        || style.boxShadow != "none";
"""


def keys(world, text):
    from selenium.webdriver import ActionChains

    ActionChains(world.browser).send_keys(text).perform()


# --- what it looks like


CONTRAST = """
    function parts(text) { return (text.match(/[\\d.]+/g) || []).map(Number) }
    function light(rgb) {
        const part = rgb.slice(0, 3).map(one => (one /= 255) <= .03928 ? one / 12.92
            : Math.pow((one + .055) / 1.055, 2.4));
        return .2126 * part[0] + .7152 * part[1] + .0722 * part[2];
    }
    function behind(one) {
        for (; one; one = one.parentElement) {
            const rgb = parts(getComputedStyle(one).backgroundColor);
            if (rgb.length == 3 || rgb[3] > .99) return rgb;
        }
        return [255, 255, 255];
    }
    const found = [];
    for (const one of document.querySelectorAll("body *")) {
        const own = [...one.childNodes].some(node => node.nodeType == 3 && node.data.trim());
        const box = one.getBoundingClientRect(), style = getComputedStyle(one);
        if (!own || box.width < 2 || box.height < 2 || style.visibility == "hidden"
            || one.closest("title, desc, svg title") || one.disabled) continue;
        const svg = one.ownerSVGElement;
        const shape = svg && one.closest("g.box") && one.closest("g.box").querySelector("rect");
        const front = parts(svg ? style.fill : style.color);
        const back = shape ? parts(getComputedStyle(shape).fill) : behind(svg || one);
        const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
        const ratio = (high + .05) / (low + .05);
        if (ratio < 4.5) found.push([one.tagName + "." + (one.getAttribute("class") || ""),
            one.textContent.trim().slice(0, 40), Math.round(ratio * 100) / 100]);
    }
    return found;
"""
UNNAMED = """
    return [...document.querySelectorAll("input:not([type=hidden]), select, textarea, button, a")]
        .filter(one => one.getBoundingClientRect().width)
        .filter(one => !(one.labels && one.labels.length) && !one.getAttribute("aria-label")
            && !one.getAttribute("aria-labelledby") && !one.textContent.trim() && !one.value)
        .map(one => one.outerHTML.slice(0, 200));
"""


def look(world, scheme="light", wide=1280, high=1000):
    seen = [{"name": "prefers-color-scheme", "value": scheme}]
    world.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": seen})
    size = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": wide < 500}
    world.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture
def all_pages(world):
    """Every page with something on it, one of each kind."""
    failed, pending = job_of(world, "report", "failed"), job_of(world, "import", "pending")
    flow = enqueue_workflow(
        {"first": ("later", 0, 2**31), "then": ("later", 1, 2**31)},
        {"then": ["first"]},
        queue_file=world.queue,
    )
    step = next(flow.jobs()).id
    yield [
        *PAGES,
        "jobs?status=failed",
        *(f"job?id={id}" for id in (failed.id, pending.id, step)),
        f"batches?id={flow.id}",
    ]
    look(world)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_schemes(world, all_pages, scheme):
    look(world, scheme)
    dim = {}

    for page in all_pages:
        world.open(page)
        if found := world.browser.execute_script(CONTRAST):
            dim[page] = found

    assert dim == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(world, all_pages, scheme):
    look(world, scheme, 390, 844)
    wide = {}

    for page in all_pages:
        world.open(page)
        width = world.browser.execute_script("return document.documentElement.scrollWidth")
        if width > 390:
            wide[page] = width

    assert wide == {}
    dark = world.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (scheme == "dark")


def test_a_screen_reader_finds_its_way(world, all_pages):
    for page in all_pages:
        world.open(page)

        assert world.browser.execute_script(UNNAMED) == [], page
        assert len(world.all("main")) == len(world.all("h1")) == 1, page
        assert world.all("nav"), page
        assert world.find("html").get_attribute("lang") == "en"
        assert world.all("table:not(:has(th[scope=col]))") == [], page
        assert world.all("svg[role=img]:not(:has(> title))") == [], page


# --- without JavaScript, without cron, and how fast


def signed_in(url):
    """Return an opener that has given the token; it knows nothing of JavaScript."""
    cookies = urllib.request.HTTPCookieProcessor()
    found = urllib.request.build_opener(cookies)
    found.open(f"{url}?token={TOKEN}").close()
    return found


def fetch(opener, url, **headers):
    """One plain GET: (status, headers, text, seconds)."""
    request = urllib.request.Request(url, headers=headers)
    begin = time.perf_counter()
    try:
        with opener.open(request) as answer:
            text = answer.read().decode()
            return answer.status, answer.headers, text, time.perf_counter() - begin
    except urllib.error.HTTPError as error:
        return error.code, error.headers, "", time.perf_counter() - begin


def test_without_javascript_every_page_is_whole(world, tmp_path):
    with browser(tmp_path / "profile", "--blink-settings=scriptEnabled=false") as plain:
        plain.get(f"{world.url}?token={TOKEN}")
        for page in PAGES:
            plain.get(world.url + page)
            assert plain.find_element("css selector", "h1").text
        plain.get(f"{world.url}jobs?status=failed&type=report")
        plain.find_element("css selector", "form [name=text]").send_keys("no such text\n")
        assert plain.find_element("css selector", "main").text.endswith("No job is like that.")

    status, _, text, _ = fetch(signed_in(world.url), f"{world.url}jobs?status=failed&type=report")
    assert status == 200
    assert "ZeroDivisionError" in text


def test_where_cron_has_stopped_the_dashboard_says_so(world, tmp_path):
    queue = Queue(tmp_path / "queue.tsv", sync="off")
    queue.enqueue("a")
    queue.process_jobs({"a": str})
    with dashboard(queue, "--token", TOKEN) as url:
        world.browser.get(f"{url}?token={TOKEN}")
        world.until(lambda: "cron is alive" in world.text())

        then = time.time() - 600
        os.utime(queue.path + ".d/tick", (then, then))

        world.until(lambda: "no tick since" in world.text())


def test_a_page_takes_less_than_200_ms_and_a_poll_less_than_5(world, tmp_path):
    queue = Queue(tmp_path / "queue.tsv", sync="off")
    fill(queue, time.time())  # the same rows, and no worker that changes them meanwhile
    some = next(queue.jobs(status="failed", limit=1)).id
    slow = {}
    with dashboard(queue, "--token", TOKEN) as url:
        opener = signed_in(url)
        for page in (*PAGES, "jobs?status=failed", "jobs?text=user9999", f"job?id={some}"):
            times, polls = [], []
            for _ in range(9):
                status, headers, _, seconds = fetch(opener, url + page)
                times.append(seconds)
                assert status == 200
            for _ in range(30):
                tag = {"If-None-Match": headers["ETag"]}
                status, headers, text, seconds = fetch(opener, url + page, **tag)
                if status == 304:
                    polls.append(seconds)
                assert (status, text) == (304, "") or status == 200
            took, poll = statistics.median(times), statistics.median(polls)
            print(f"{page or 'overview'}: {took * 1000:.1f} ms, a poll {poll * 1000:.2f} ms")
            if took > 0.2 * SLACK or poll > 0.005 * SLACK:
                slow[page] = took, poll

    assert slow == {}
