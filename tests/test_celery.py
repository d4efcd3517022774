"""The bridge to Celery: a real Redis, real Celery workers, real kills."""

import contextlib
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

import dbbasic_queue
from dbbasic_queue.why import why

celery = pytest.importorskip("celery", reason="needs the extra celery")
redis = pytest.importorskip("redis", reason="needs the extra celery")
from dbbasic_queue.contrib.celery import Bridge, graduate  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SERVER = shutil.which("redis-server")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(SERVER is None, reason="needs redis-server"),
]

JOBS = """
    import os, time
    from celery import Celery
    from dbbasic_queue import Discard, Queue, Snooze, current_job
    from dbbasic_queue.contrib.celery import Bridge

    def mark(payload, text=None):
        fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{text or current_job().id}\\n".encode())
        os.close(fd)

    def work(payload):
        time.sleep(payload or 0)
        mark(payload)
        return {"by": current_job().attempts}

    def flaky(payload):
        mark(payload)
        if current_job().attempts < payload:
            raise ConnectionError("not yet")
        return "at last"

    def discard(payload):
        raise Discard("never")

    def snooze(payload):
        if "seen" not in current_job().cell("note"):
            current_job().record(note="seen")
            raise Snooze(1)
        return current_job().attempts

    def begun(payload):
        mark(payload, "begun " + current_job().id)
        time.sleep(payload)
        mark(payload)

    def spin(payload):
        while True:
            time.sleep(0.01)

    def stubborn(payload):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

    handlers = {f.__name__: f for f in (work, flaky, discard, snooze, begun, spin, stubborn)}
    URL = os.environ["REDIS"]
    app = Celery("jobs", broker=URL, backend=URL)
    app.conf.worker_prefetch_multiplier = 1
    app.conf.broker_connection_retry_on_startup = True
    app.conf.worker_cancel_long_running_tasks_on_connection_loss = False
    app.conf.broker_transport_options = {"visibility_timeout": 5}
    bridge = Bridge(app, handlers, backoff="linear:1:1", lease=2, again=3)
"""


class Redis:
    """A redis-server of our own, on a free port of the loopback."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.child = None

    def start(self):
        self.child = subprocess.Popen(
            [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
             "--appendonly", "yes", "--save", ""],
            stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(redis.RedisError):
                if redis.Redis(port=self.port).ping():
                    return self
            time.sleep(0.02)
        raise TimeoutError("redis-server does not answer")

    def kill(self):
        self.child.kill()
        self.child.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    redis = Redis(tmp_path_factory.mktemp("redis") / "data").start()
    yield redis
    redis.kill()


@pytest.fixture(scope="module")
def place(tmp_path_factory, server):
    """The folder of the jobs' module and of their effects; one worker works there."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "jobs.py").write_text(textwrap.dedent(JOBS))
    child = start_worker(folder, server.url, "shared", "celery,high")
    wait_for(lambda: "ready." in (folder / "shared.log").read_text())
    yield folder
    child.kill()
    child.wait()


def environment(url):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "REDIS": url, "DBBASIC_QUEUE_SYNC": "off"}


def start_worker(folder, url, name, queues="celery", pool="solo"):
    with open(folder / f"{name}.log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "jobs", "worker", "-P", pool, "-l", "info",
             "-n", f"{name}@%h", "-Q", queues, "--without-gossip", "--without-mingle"],
            cwd=folder, env=environment(url), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def wait_for(what, seconds=30.0):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"not so after {seconds} s"
        time.sleep(0.05)
    return found


@pytest.fixture
def bridge(place, server, queue, monkeypatch):
    """A bridge of this test's own queue to the worker that all share."""
    monkeypatch.chdir(place)
    (place / "effects").unlink(missing_ok=True)
    return bridge_of(server.url, queue)


TYPES = ("work", "flaky", "discard", "snooze", "begun", "spin", "stubborn")


def bridge_of(url, queue, **more):
    app = celery.Celery("jobs", broker=url, backend=url)
    handlers = dict.fromkeys(TYPES, print)
    given = {"backoff": "linear:1:1", "lease": 2, "again": 3} | more
    return Bridge(app, handlers, queue_file=queue, **given)


def effects(folder):
    with contextlib.suppress(FileNotFoundError):
        return Counter((folder / "effects").read_text().split("\n")[:-1])
    return Counter()


def until_all_ended(bridge, seconds=30.0):
    def ended():
        bridge.tick()
        return all(job.finished for job in bridge.queue.jobs())

    wait_for(ended, seconds)


# --- the life of a job


def test_each_way_a_job_can_end_over_there_reaches_its_row(bridge, queue, place):
    done = queue.enqueue("work")
    again = queue.enqueue("flaky", 2)
    failed = queue.enqueue("flaky", 9, max_attempts=2)
    refused = queue.enqueue("discard")
    snoozed = queue.enqueue("snooze")
    late = queue.enqueue("spin", timeout=0.3, max_attempts=1)
    high = queue.enqueue("work", queue="high", priority=-3)
    then = queue.enqueue("work", after=done)

    until_all_ended(bridge)

    now = {
        id: (job.status, job.attempts, job.error or job.result)
        for id in (done, again, failed, refused, snoozed, late, high, then)
        if (job := queue.get(id))
    }
    assert now == {
        done: ("completed", 1, {"by": 1}),
        again: ("completed", 2, "at last"),
        failed: ("failed", 2, "ConnectionError: not yet"),
        refused: ("failed", 1, "never"),
        snoozed: ("completed", 1, 1),
        late: ("failed", 1, "timed out after 0.3 s"),
        high: ("completed", 1, {"by": 1}),
        then: ("completed", 1, {"by": 1}),
    }
    assert queue.get(done).finished_at >= queue.get(done).started_at > time.time() - 60
    assert effects(place)[again] == 2


def test_a_scheduled_job_stays_in_the_file_until_it_is_due(bridge, queue, place):
    soon = queue.enqueue("work", run_at=time.time() + 2)
    far = queue.enqueue("work", run_at=time.time() + 9999)

    assert bridge.tick().sent == 0
    wait_for(lambda: bridge.tick().ended)

    assert [queue.get(soon).status, queue.get(far).status] == ["completed", "pending"]
    assert queue.get(soon).started_at >= queue.get(soon).run_at


def test_cancel_works_until_a_worker_has_begun(bridge, queue, place):
    running = queue.enqueue("begun", 1.5)
    waiting = queue.enqueue("work")
    scheduled = queue.enqueue("work", run_at=time.time() + 9999)
    bridge.tick()
    wait_for(lambda: effects(place))

    answers = [bridge.cancel(id) for id in (running, waiting, scheduled, "0" * 16)]
    until_all_ended(bridge)

    assert answers == [False, True, True, False]
    ended = [queue.get(id).status for id in (running, waiting, scheduled)]
    assert ended == ["completed", "cancelled", "cancelled"]
    assert effects(place) == {f"begun {running}": 1, running: 1}


def test_jobs_that_no_worker_has_begun_can_be_taken_back(bridge, queue, place):
    running = queue.enqueue("begun", 1.5)
    waiting = [queue.enqueue("work") for _ in range(3)]
    bridge.tick()
    wait_for(lambda: effects(place))

    assert bridge.recall() == 3
    assert [queue.get(id).status for id in waiting] == ["pending"] * 3
    queue.process_jobs({"work": lambda payload: "here"})

    assert [queue.get(id).result for id in waiting] == ["here"] * 3
    until_all_ended(bridge)
    assert effects(place) == {f"begun {running}": 1, running: 1}


def test_one_type_at_a_time_moves_over(bridge, queue, place, server):
    only = bridge_of(server.url, queue, types=["flaky"])
    moved, stays = queue.enqueue("flaky", 1), queue.enqueue("work")

    wait_for(lambda: only.tick().ended)
    queue.process_jobs({"work": lambda payload: "here"})

    assert [queue.get(id).result for id in (moved, stays)] == ["at last", "here"]
    assert effects(place) == {moved: 1}


def test_a_message_that_comes_again_is_refused(bridge, queue, place, server):
    id = queue.enqueue("work")
    bridge.tick()
    [job] = [queue.get(id)]
    from dbbasic_queue.contrib.celery.sender import Sender

    again = Sender(bridge.app, None, bridge._options)
    for _ in range(5):
        again.publish(job, job.worker.partition(".")[2], direct=False)
    until_all_ended(bridge)
    last = queue.enqueue("work")
    until_all_ended(bridge)

    assert effects(place) == {id: 1, last: 1}


# --- from other machines


def test_another_machine_adds_jobs_with_the_same_words_and_no_file(place, server, tmp_path):
    there = bridge_of(server.url, None)
    before = effects(place)

    done = there.enqueue("work", None, queue="high", priority=3)
    later = there.enqueue("work", run_at=time.time() + 2)
    again = there.enqueue("flaky", 2)
    failed = there.enqueue("flaky", 9, max_attempts=2)
    never = there.enqueue("work", run_at=time.time() + 30)

    assert there.cancel(never)
    ids = (done, later, again, failed, never)
    wait_for(lambda: all(there.get(id).finished for id in ids), 20)
    found = {id: (job.status, job.attempts) for id in ids if (job := there.get(id))}
    assert found == {
        done: ("completed", 1),
        later: ("completed", 1),
        again: ("completed", 2),
        failed: ("failed", 2),
        never: ("cancelled", 0),
    }
    assert there.get(again).result == "at last"
    assert (effects(place) - before)[done] == 1
    assert there.get("0" * 16) is None
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_added_from_elsewhere_is_refused_with_its_name(place, server):
    there = bridge_of(server.url, None)
    id = there.enqueue("work")

    with pytest.raises(dbbasic_queue.QueueError, match=rf"{id}.*has a job with this id"):
        there.enqueue("work", id=id)
    with pytest.raises(dbbasic_queue.QueueError, match=r"after=.* needs the queue file"):
        there.enqueue("work", after=id)
    with pytest.raises(dbbasic_queue.QueueError, match="no handler for this type"):
        there.enqueue("unknown")


# --- what goes wrong


@pytest.fixture
def alone(server):
    """A Redis of one's own, with a bridge of handlers that run in this process."""
    url = server.url.removesuffix("/0") + "/3"
    client = redis.Redis.from_url(url)
    client.flushdb()
    ran = []

    def flaky(payload):
        ran.append(dbbasic_queue.current_job().id)
        raise ConnectionError("not yet")

    app = celery.Celery("alone", broker=url, backend=url)
    there = Bridge(app, {"flaky": flaky, "work": ran.append}, backoff="none", lease=1)
    there.client, there.ran = client, ran
    there.messages = lambda: [deliver(there, text) for text in waiting(client)]
    yield there
    client.flushdb()


def waiting(client):
    """Take the messages that wait for a worker."""
    found = []
    for key in client.keys("celery*"):  # one for each priority
        found += client.lrange(key, 0, -1)[::-1]
        client.delete(key)
    return found


def deliver(bridge, text):
    """Be a worker that has this message; return what Celery would have to do with it."""
    return lambda: bridge._runner(*decoded(text))


def decoded(text):
    import base64

    return json.loads(base64.b64decode(json.loads(text)["body"]))[0]


def refused(call):
    with pytest.raises(celery.exceptions.Ignore) as told:
        call()
    return str(told.value)


def test_a_worker_killed_before_it_sends_the_next_attempt_loses_no_job(alone, monkeypatch):
    id = alone.enqueue("flaky", max_attempts=3)
    [message] = alone.messages()
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(alone._runner, "_send", raises(KeyboardInterrupt))
        message()
    assert alone.messages() == []

    assert "old" in refused(message)
    [again] = alone.messages()
    refused(again)
    [last] = alone.messages()
    with pytest.raises(Exception, match="not yet"):
        last()

    assert alone.ran == [id] * 3
    assert (alone.get(id).status, alone.get(id).attempts) == ("failed", 3)
    assert "done" in refused(last)
    assert alone.messages() == []


def raises(kind):
    def call(*given, **more):
        raise kind

    return call


def test_a_broker_that_is_away_at_a_retry_is_waited_for(alone, monkeypatch):
    id, sends = alone.enqueue("flaky", max_attempts=2), []
    [message] = alone.messages()
    send = alone._runner._send

    def away_at_first(*given, **more):
        sends.append(id)
        if len(sends) < 2:
            raise celery.exceptions.OperationalError("away")
        send(*given, **more)

    monkeypatch.setattr(alone._runner, "_send", away_at_first)
    assert "tried again" in refused(message)

    assert len(alone.messages()) == 1
    assert len(sends) == 2


def test_an_outcome_waits_for_a_redis_that_is_full(alone, queue, monkeypatch):
    alone.queue_file = queue
    id, finish, full = queue.enqueue("work", "done"), alone._runner._records.finish, []

    def full_at_first(*given):
        full.append(id)
        if len(full) < 2:
            raise redis.exceptions.OutOfMemoryError("used memory > 'maxmemory'")
        return finish(*given)

    monkeypatch.setattr(alone._runner._records, "finish", full_at_first)
    alone.tick()
    [message] = alone.messages()
    message()
    alone.tick()

    assert (queue.get(id).status, alone.ran) == ("completed", ["done"])


@pytest.mark.soak
def test_a_job_without_a_row_whose_process_the_time_limit_kills_ends_all_the_same(server, tmp_path):
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    url = server.url.removesuffix("/0") + "/4"
    there = bridge_of(url, None)
    child = start_worker(tmp_path, url, "forks", pool="prefork")
    id = there.enqueue("stubborn", timeout=0.3, max_attempts=1)
    try:
        wait_for(lambda: there.get(id).finished, 40)
    finally:
        child.terminate()
        child.wait()

    assert (there.get(id).status, there.get(id).error) == ("failed", "worker died")


def test_workers_that_are_off_for_long_find_few_messages_for_each_job(alone, queue):
    alone.queue_file = queue
    id = queue.enqueue("work")
    alone.tick()
    name = "dbbasic-queue:{}.{}".format(id, queue.get(id).worker.partition(".")[2])
    ages = (500, 700, 700, 1300, 1300, 2500)

    again = []
    for age in ages:
        alone.client.hset(name, "sent", time.time() - age)
        again.append(alone.tick().again)

    assert again == [0, 1, 0, 1, 0, 1]


def test_a_job_cancelled_long_before_its_time_stays_cancelled(alone):
    id = alone.enqueue("work", run_at=time.time() + 40 * 86400)

    assert alone.cancel(id)

    assert alone.client.ttl(f"dbbasic-queue:{id}") > 41 * 86400


def test_questions_to_a_redis_that_is_away_are_errors_of_ours(queue, tmp_path):
    there = bridge_of(Redis(tmp_path / "away").url, queue)
    id = queue.enqueue("work")
    with queue.edit() as e:
        e.change(e.get(id), status="processing", worker="@celery.1")

    for ask in (there.get, there.cancel, lambda id: there.recall()):
        with pytest.raises(dbbasic_queue.QueueError, match="Redis does not answer"):
            ask(id)


def test_no_error_tells_the_password_of_a_redis(queue):
    told = []
    for url in ("http://:secret@h/0", "redis://:secret/x@h/0", "redis://:x@secret:y/0"):
        app = celery.Celery("jobs", broker=url)
        with pytest.raises(dbbasic_queue.QueueError) as problem:
            Bridge(app, {}, redis_url=url)
        told.append(str(problem.value))
        with pytest.raises(dbbasic_queue.QueueError) as problem:
            graduate(url, queue_file=queue)
        told.append(str(problem.value))

    assert not any("secret" in text for text in told)


def test_two_files_with_the_same_id_do_not_disturb_each_other_in_one_redis(alone, queue, tmp_path):
    other = dbbasic_queue.Queue(tmp_path / "copy.tsv", sync="off")
    url = alone.app.conf.broker_url
    id = queue.enqueue("work", "first")
    other.enqueue("work", "second", id=id)
    both = [bridge_of(url, one) for one in (queue, other)]

    sent = [there.tick().sent for there in both]
    again = [there.tick().again for there in both * 2]
    for message in alone.messages():
        message()
    ended = [there.tick().ended for there in both]

    assert (sent, again, ended) == ([1, 1], [0] * 4, [1, 1])
    assert sorted(alone.ran) == ["first", "second"]


@pytest.mark.soak
def test_a_redis_that_does_not_answer_delays_no_time_limit_over_there(tmp_path):
    silent, ended = Redis(tmp_path / "redis").start(), []

    def spin(payload):
        begun = time.monotonic()
        silent.child.send_signal(signal.SIGSTOP)
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.append(time.monotonic() - begun)
            silent.child.send_signal(signal.SIGCONT)

    app = celery.Celery("jobs", broker=silent.url, backend=silent.url)
    there = Bridge(app, {"spin": spin}, lease=2)
    id = there.enqueue("spin", timeout=1, max_attempts=1)
    record = there._records.read([id])[id]
    try:
        with pytest.raises(Exception, match="timed out after 1 s"):
            there._runner(record.row, record.k, True)
    finally:
        silent.kill()

    assert ended[0] < 4


def test_two_workers_that_find_a_third_dead_send_one_next_attempt(alone):
    id = alone.enqueue("flaky", max_attempts=3)
    [message] = alone.messages()
    k = alone._records.read([id])[id].k
    assert alone._records.begin(id, k, "dead", 1) == "go"
    alone.client.hset(f"dbbasic-queue:{id}", "lapsed", 1)
    alone.client.delete(f"dbbasic-queue:{id}:lease")

    refused(message)
    once = alone._records.read([id])[id].k
    job = dbbasic_queue.engine.as_job(decoded_row(alone, id))
    cells = {"status": "pending", "worker": "", "attempts": "1", "run_at": str(int(time.time()))}
    with pytest.raises(celery.exceptions.Ignore, match="was taken from this worker"):
        alone._runner._over(job, k, True, cells)

    assert alone._records.read([id])[id].k == once
    assert len(alone.messages()) == 1


def decoded_row(bridge, id):
    return bridge._records.read([id])[id].row


def test_a_worker_whose_redis_did_not_answer_in_time_has_begun_all_the_same(alone):
    id = alone.enqueue("work")
    k = alone._records.read([id])[id].k

    answers = [alone._records.begin(id, k, token, 1) for token in ("one", "one", "two")]

    assert answers == ["go", "go", "running"]


def test_an_id_of_which_only_the_promise_is_known_can_be_added_again(alone, monkeypatch):
    id = "0123456789abcdef"
    with monkeypatch.context() as m, pytest.raises(dbbasic_queue.QueueError, match="not known"):
        m.setattr(alone._sender, "publish", raises(OSError))
        alone.enqueue("work", id=id)
    with pytest.raises(dbbasic_queue.QueueError, match="has a job with this id"):
        alone.enqueue("work", id=id)  # perhaps it is just being sent
    alone.client.hset(f"dbbasic-queue:{id}", "sent", time.time() - 61)

    assert alone.enqueue("work", id=id) == id
    assert len(alone.messages()) == 1


def test_leases_that_ran_out_while_redis_was_away_are_no_deaths(alone, queue):
    alone.queue_file = queue
    id = queue.enqueue("work")
    alone.tick()
    k = queue.get(id).worker.partition(".")[2]
    name = f"{id}.{k}"
    alone._records.begin(name, k, "lives", 1)
    alone.client.delete(f"dbbasic-queue:{name}:lease")

    assert not any(alone.tick())
    assert alone._records.renew(name, k, "lives", 1)
    alone.client.delete(f"dbbasic-queue:{name}:lease")
    assert not any(alone.tick())
    alone.client.delete(f"dbbasic-queue:{name}:lease")
    assert alone.tick().back == 1

    assert (queue.get(id).attempts, queue.get(id).error) == (1, "worker died")


def test_what_a_worker_stores_that_was_taken_for_dead_reaches_no_row(alone, queue):
    alone.queue_file = queue
    id = queue.enqueue("work")
    alone.tick()
    k = queue.get(id).worker.partition(".")[2]
    name = f"{id}.{k}"
    alone._records.begin(name, k, "late", 1)
    alone._records.promise({name: str(int(k) + 1)})

    assert not alone._records.renew(name, k, "late", 1, {"note": "stale"})

    assert alone._records.read([name])[name].recorded == {}


def test_a_tick_without_redis_logs_it_and_leaves_the_rows_pending(queue, tmp_path, caplog):
    away, silent = Redis(tmp_path / "redis"), Redis(tmp_path / "silent")
    listener = socket.create_server(("127.0.0.1", silent.port))
    queue.enqueue_many([("work", None)] * 5)
    before = Path(queue.path).read_bytes()

    for url in (away.url, silent.url):
        there, begun = bridge_of(url, queue), time.monotonic()
        with caplog.at_level(logging.WARNING):
            assert not any(there.tick())
        assert time.monotonic() - begun < 2

    assert "nothing was handed over" in caplog.text
    assert Path(queue.path).read_bytes() == before
    with pytest.raises(dbbasic_queue.QueueError, match="not known to be sent"):
        there.enqueue("work")
    listener.close()


def test_a_broker_that_is_away_while_the_records_are_there_is_said_once_and_not_waited_for(
    queue, server, tmp_path, caplog
):
    away = Redis(tmp_path / "away")
    app = celery.Celery("jobs", broker=away.url, backend=server.url)
    there = Bridge(app, {"work": print}, queue_file=queue)
    queue.enqueue("work")
    begun = time.monotonic()

    with caplog.at_level(logging.WARNING):
        assert not any([*there.tick(), *there.tick()])
    with pytest.raises(dbbasic_queue.QueueError, match="not known to be sent"):
        there.enqueue("work")

    assert time.monotonic() - begun < 2
    assert caplog.text.count("nothing was handed over") == 1
    assert queue.counts() == {"pending": 1}


def test_a_redis_that_is_full_is_said_once(queue, tmp_path, caplog):
    full = Redis(tmp_path / "redis").start()
    there = bridge_of(full.url, queue)
    queue.enqueue("work")
    try:
        redis.Redis(port=full.port).config_set("maxmemory", "1")
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                there.tick()
        redis.Redis(port=full.port).config_set("maxmemory", "0")
        assert there.tick().again == 1
    finally:
        full.kill()

    assert caplog.text.count("nothing was handed over") == 1


def test_a_redis_that_has_lost_everything_gets_it_again(tmp_path, queue):
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "jobs.py").write_text(textwrap.dedent(JOBS))
    server = Redis(tmp_path / "redis").start()
    there = bridge_of(server.url, queue)
    ids = queue.enqueue_many([("work", None)] * 50)
    try:
        assert there.tick().sent == 50
        redis.Redis(port=server.port).flushall()
        child = start_worker(folder, server.url, "late")
        try:
            wait_for(lambda: (there.tick(), effects(folder))[1], 40)
            until_all_ended(there)
        finally:
            child.kill()
            child.wait()
    finally:
        server.kill()

    assert queue.counts() == {"completed": 50}
    assert effects(folder) == Counter(ids)


@pytest.mark.soak
def test_a_thousand_jobs_outlive_kills_of_forwarder_worker_and_redis(tmp_path, queue, capsys):
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "jobs.py").write_text(textwrap.dedent(JOBS))
    server = Redis(tmp_path / "redis").start()
    chance = random.Random(8)
    ids = queue.enqueue_many([("work", 0.005)] * 1000)
    again, never = queue.enqueue("flaky", 2), queue.enqueue("discard")
    late = queue.enqueue("work", run_at=time.time() + 3)
    gone = queue.enqueue("work", run_at=time.time() + 60)
    queue.cancel(gone)

    def forwarder():
        return subprocess.Popen(
            [sys.executable, "-m", "dbbasic_queue", "--file", queue.path, "forward", "jobs:bridge",
             "--for", "120"],
            cwd=folder, env=environment(server.url), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    running = {
        "one": start_worker(folder, server.url, "one"),
        "two": start_worker(folder, server.url, "two"),
        "forwarder": forwarder(),
    }
    kills = Counter()
    try:
        wait_for(lambda: sum(effects(folder).values()) > 50, 60)
        for what in ("forwarder", "one", "redis", "forwarder", "two", "redis"):
            time.sleep(chance.uniform(0.2, 0.9))
            kills["worker" if what in ("one", "two") else what] += 1
            if what == "redis":
                server.kill()
                time.sleep(0.3)
                server.start()
                continue
            running[what].kill()
            running[what].wait()
            running[what] = (
                forwarder() if what == "forwarder" else start_worker(folder, server.url, what)
            )
        wait_for(lambda: all(job.finished for job in queue.jobs()), 120)
    finally:
        for child in running.values():
            child.kill()
            child.wait()
        server.kill()

    found = effects(folder)
    counts = [found[id] for id in ids]
    with capsys.disabled():
        print(f"\nkilled {dict(kills)}; effects per id {min(counts)} to {max(counts)}, ", end="")
        print(f"{sum(counts)} of {len(ids)} jobs")
    assert Counter(queue.get(id).status for id in ids) == {"completed": 1000}
    assert min(counts) >= 1
    assert sum(counts) - len(ids) <= sum(kills.values())
    ended = [queue.get(id) for id in (again, never, late, gone)]
    assert [job.status for job in ended] == ["completed", "failed", "completed", "cancelled"]
    assert (found[again], found[late], found[gone]) == (2, 1, 0)


STEPS = """
    import os, sys
    import jobs
    from dbbasic_queue import Queue
    from dbbasic_queue.contrib.celery.records import Records
    from dbbasic_queue.contrib.celery.sender import Sender
    from dbbasic_queue.engine import Engine

    left = int(sys.argv[1])

    def dies(kind, name):
        call = getattr(kind, name)
        def step(*given, **more):
            for part in (None, call):
                global left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), 9)
                made = part and part(*given, **more)
            return made
        setattr(kind, name, step)

    for kind, names in ((Records, ("read", "promise", "sent")), (Sender, ("publish",)),
                        (Engine, ("enter", "held", "turn", "leave"))):
        for name in names:
            dies(kind, name)
    jobs.bridge.queue_file = Queue(sys.argv[2])
    jobs.bridge.tick()
"""


@pytest.mark.soak
def test_a_forwarder_killed_before_or_after_each_of_its_steps_loses_and_doubles_nothing(
    bridge, queue, place, server
):
    ids, step, died = [], 0, True
    while died:
        ids += queue.enqueue_many([("work", None)] * 3)
        child = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(STEPS), str(step), queue.path], cwd=place,
            env=environment(server.url), stderr=subprocess.PIPE,
        )  # fmt: skip
        died = child.returncode == -signal.SIGKILL
        assert died or child.returncode == 0, child.stderr
        step += 1

    until_all_ended(bridge)

    assert step > 15
    assert queue.counts() == {"completed": len(ids)}
    assert effects(place) == Counter(ids)


def test_the_example_runs_as_it_says(server, queue, tmp_path):
    shutil.copy(ROOT / "examples" / "celery_app.py", tmp_path)
    url = server.url.replace("/0", "/1")  # the worker of the others knows no such type
    there = {**environment(url), "REDIS_URL": url}
    id = queue.enqueue("image", {"path": "cat.png"})
    with open(tmp_path / "log", "w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--queues",
             "celery,high", "--concurrency", "2"],
            cwd=tmp_path, env=there, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    command = [sys.executable, "-m", "dbbasic_queue", "--file", queue.path, "forward"]
    go = {"cwd": tmp_path, "env": there, "capture_output": True, "text": True, "check": True}
    try:
        said = subprocess.run([*command, "celery_app:bridge", "--for", "6"], **go).stdout
        wait_for(
            lambda: subprocess.run([*command, "celery_app:bridge"], **go) and queue.get(id).finished
        )
    finally:
        child.terminate()
        child.wait()

    assert queue.get(id).result == "resized cat.png"
    assert "1 handed over" in said
    sent = subprocess.run([sys.executable, "celery_app.py"], **go).stdout
    assert sent.startswith("sent ")


# --- for good


def test_graduate_moves_a_live_queue_over_though_it_is_killed(tmp_path, queue, place, server):
    ids = queue.enqueue_many([("work", None)] * 1500)
    later = queue.enqueue("work", run_at=time.time() + 2)
    child, parent = queue.enqueue("work", after=later), later
    other = queue.enqueue("flaky", 1)
    command = [
        sys.executable, "-m", "dbbasic_queue", "--file", queue.path, "--json", "graduate",
        "--to", server.url, "--type", "work",
    ]  # fmt: skip
    go = {"env": environment(server.url), "stdout": subprocess.PIPE, "text": True}
    before = Path(queue.path).read_bytes()
    dry = subprocess.run([*command, "--dry-run"], check=True, **go).stdout
    assert Path(queue.path).read_bytes() == before

    kills = 0
    for pause in (0.55, 0.6, 0.65, 0.7, 0.75):
        running = subprocess.Popen(command, **go)
        time.sleep(pause)
        kills += running.poll() is None
        running.send_signal(signal.SIGKILL)
        running.communicate()
    report = json.loads(subprocess.run(command, check=True, **go).stdout)

    assert json.loads(dry)["moved"] == {"work": 1500}
    assert {job.id for job in queue.jobs()} == {parent, child, other}
    assert sum(report["left"].values()) == 2
    there = bridge_of(server.url, queue)
    wait_for(lambda: sum(effects(place)[id] for id in ids) >= 1500, 60)
    assert {there.get(id).status for id in ids[-20:]} == {"completed"}
    assert {effects(place)[id] for id in ids} == {1}
    assert kills


def test_graduate_called_again_leaves_a_job_alone_that_is_tried_again_over_there(
    alone, queue, monkeypatch
):
    url = alone.app.conf.broker_url
    id = queue.enqueue("flaky", max_attempts=2)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr("dbbasic_queue.contrib.celery.graduation.remove", raises(KeyboardInterrupt))
        graduate(url, queue_file=queue)
    [message] = alone.messages()
    refused(message)
    [again] = alone.messages()

    assert graduate(url, queue_file=queue).moved == {"flaky": 1}

    assert alone.messages() == []
    with pytest.raises(Exception, match="not yet"):
        again()
    assert (alone.ran, alone.get(id).status) == ([id] * 2, "failed")
    assert not list(queue.jobs())


LEAVING = """
    import os, sys
    from dbbasic_queue import Queue
    from dbbasic_queue.contrib.celery import graduation
    from dbbasic_queue.contrib.celery.records import Records
    from dbbasic_queue.contrib.celery.sender import Sender
    from dbbasic_queue.engine import Wanted

    left = int(sys.argv[1])

    def dies(kind, name):
        call = getattr(kind, name)
        def step(*given, **more):
            for part in (None, call):
                global left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), 9)
                made = part and part(*given, **more)
            return made
        setattr(kind, name, step)

    for kind, names in ((Records, ("ping", "read", "promise", "sent")), (Sender, ("publish",)),
                        (Wanted, ("take",)), (graduation, ("marked", "remove"))):
        for name in names:
            dies(kind, name)
    graduation.graduate(os.environ["REDIS"], queue_file=Queue(sys.argv[2]))
"""


@pytest.mark.soak
def test_graduate_killed_before_or_after_each_of_its_steps_loses_and_doubles_nothing(
    bridge, queue, place, server
):
    ids, step, died = [], 0, True
    while died:
        ids += queue.enqueue_many([("work", None), ("flaky", 2)])
        child = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(LEAVING), str(step), queue.path], cwd=place,
            env=environment(server.url), stderr=subprocess.PIPE,
        )  # fmt: skip
        died = child.returncode == -signal.SIGKILL
        assert died or child.returncode == 0, child.stderr
        step += 1

    wait_for(lambda: all((job := bridge.get(id)) and job.finished for id in ids))

    assert step > 15
    assert not list(queue.jobs())
    assert {bridge.get(id).status for id in ids} == {"completed"}
    assert effects(place) == {id: 1 + number % 2 for number, id in enumerate(ids)}


def test_graduate_in_two_ways_at_once_is_refused(queue, server, tmp_path):
    queue.enqueue("work")
    away = Redis(tmp_path / "redis").url
    with pytest.raises(dbbasic_queue.QueueError, match="0 jobs have gone"):
        graduate(away, queue_file=queue)
    with queue.edit() as e:
        [job] = e.scan("pending")
        e.change(job, status="processing", worker="@graduate-00000000.1")

    with pytest.raises(dbbasic_queue.QueueError, match=f"to another Redis, the first is {job.id}"):
        graduate(server.url, queue_file=queue)
    with pytest.raises(dbbasic_queue.QueueError, match="is no address of a Redis"):
        graduate("amqp://there", queue_file=queue)


def test_a_job_that_is_out_says_so(bridge, queue):
    id = queue.enqueue("spin", timeout=1, max_attempts=1)
    bridge.tick()

    queue.process_jobs({"spin": print})

    assert queue.get(id).status == "processing"
    assert any("handed over: to @celery" in text for text in why(id, queue))
    until_all_ended(bridge)
