"""This queue and its peers, each with the same few words, as a good engineer would use it.

A child process makes one of them and works with it.  `fill` is not measured: it adds rows in the
fastest way there is.  What an engine cannot do, it has no method for.  `TICK` is a whole script:
one look of a worker at a queue in which nothing is due.  Imports are at use where they are large:
memory is measured.
"""

import json
import os
import time
from collections import namedtuple

LATER = 30 * 86400
_handler = None


def payload(number):
    """What makes a row of this queue 150 bytes long."""
    return {"number": number, "to": "user@example.com", "text": "all well so far, up to now"}


def call(payload):
    """The handler of engines that find it by its name."""
    return _handler(payload)


def handle_with(handler):
    global _handler
    _handler = handler


class Ours:
    """Guarantees: what README.md says; with sync="off" what `kill -9` cannot take away."""

    TICK = 'from dbbasic_queue import process_jobs\nprocess_jobs({"note": print})\n'

    def __init__(self, folder, sync):
        from dbbasic_queue import Queue

        sync, _, opened = sync.partition(" ")
        self.queue = Queue(os.path.join(folder, "queue.tsv"), sync=sync)
        if opened:
            self.enqueue = lambda number: Queue(self.queue.path, sync=sync).enqueue(
                "note", payload(number)
            )

    def fill(self, count, later, finished):
        at = time.time() + LATER if later else None
        ids = self.queue.enqueue_many(("note", payload(n), at) for n in range(count))
        if finished:
            with open(self.queue.path, "rb") as file:
                rows = file.read()
            with open(self.queue.path, "wb") as file:
                file.write(rows.replace(b"\tpending\t", b"\tcompleted\t"))
        return ids

    def look(self):
        self.queue.process_jobs({"note": print})  # leaves the hint, as any tick does

    def enqueue(self, number, later=False):
        at = time.time() + LATER if later else None
        return self.queue.enqueue("note", payload(number), at)

    def enqueue_many(self, numbers):
        self.queue.enqueue_many(("note", payload(n)) for n in numbers)

    def get(self, id):
        return self.queue.get_job(id)["payload"]

    def drain(self, handler, most=None):
        self.queue.process_jobs({"note": handler}, max_jobs=most)

    def serve(self, handler):
        self.queue.process_jobs({"note": handler}, run_for=float("inf"))


class SQLite:
    """A table, a partial index, `UPDATE … RETURNING`; each outcome is a commit of its own.

    NORMAL survives `kill -9`, and a power cut without the last commits; FULL syncs each commit.
    A worker that dies leaves up to BATCH rows `processing`, and nobody knows which of them ran.
    "one by one" leaves one: it claims a job, runs it and writes its outcome, two commits for each.
    "starts" leaves one, too: in the commit of an outcome it writes which job of the batch is next.

    A writer that waits sleeps up to 0.1 s between two tries, so beside a busy one it mostly waits
    until that one is done.

    Tuned: an index on all rows costs 1.5 times the drain, pages of 4096 1.2 times; larger batches,
    a cache of 64 MB, mmap and smaller rows gain nothing.  A rare checkpoint makes drains quicker
    and enqueues slower, so each has its own.
    """

    BATCH = 100
    TABLE = """CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, type TEXT NOT NULL,
        payload TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending', created_at INTEGER NOT NULL,
        run_at INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, error TEXT, result TEXT,
        started_at REAL, finished_at REAL)"""
    INDEX = "CREATE INDEX IF NOT EXISTS due ON jobs (run_at) WHERE status = 'pending'"
    ADD = "INSERT INTO jobs (type, payload, created_at, run_at) VALUES ('note', ?, ?, ?)"
    GET = "SELECT payload, status, attempts, error, result FROM jobs WHERE id = ?"
    CLAIM = """UPDATE jobs SET status = 'processing', attempts = attempts + 1 WHERE id IN (
        SELECT id FROM jobs WHERE status = 'pending' AND run_at <= ? ORDER BY run_at, id
        LIMIT ?) RETURNING id, payload"""
    START = "UPDATE jobs SET started_at = ? WHERE id = ?"
    END = "UPDATE jobs SET status = 'completed', result = ?, finished_at = ? WHERE id = ?"
    TICK = """import sqlite3, time
db = sqlite3.connect("jobs.db", isolation_level=None)
due = "SELECT 1 FROM jobs WHERE status = 'pending' AND run_at <= ? LIMIT 1"
assert not db.execute(due, (int(time.time()),)).fetchone()
"""

    def __init__(self, folder, mode):
        from sqlite3 import connect

        self.connect = connect
        self.path = os.path.join(folder, "jobs.db")
        self.sync, _, self.way = mode.partition(" ")
        self.batch = 1 if self.way == "one by one" else self.BATCH
        if self.way != "opened":
            self.db = self._open()
        else:
            self.enqueue, self.get = self._enqueue_opened, self._get_opened

    def _connect(self):
        db = self.connect(self.path, isolation_level=None, timeout=20)
        db.execute(f"PRAGMA synchronous = {self.sync}")
        return db

    def _open(self):
        db = self._connect()
        db.execute("PRAGMA page_size = 2048")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 2000")
        db.execute(self.TABLE)
        db.execute(self.INDEX)
        return db

    def _values(self, number, later=False):
        now = int(time.time())
        return json.dumps(payload(number)), now, now + LATER if later else now

    def fill(self, count, later, finished):
        self.db = self._open()
        self.db.execute("BEGIN")
        self.db.executemany(self.ADD, (self._values(n, later) for n in range(count)))
        if finished:
            self.db.execute("UPDATE jobs SET status = 'completed', finished_at = ?", (time.time(),))
        self.db.execute("COMMIT")
        return [id for (id,) in self.db.execute("SELECT id FROM jobs")]

    def enqueue(self, number, later=False):
        return self.db.execute(self.ADD, self._values(number, later)).lastrowid

    def _enqueue_opened(self, number, later=False):
        db = self._connect()
        id = db.execute(self.ADD, self._values(number, later)).lastrowid
        db.close()
        return id

    def enqueue_many(self, numbers):
        self.db.execute("BEGIN")
        self.db.executemany(self.ADD, map(self._values, numbers))
        self.db.execute("COMMIT")

    def get(self, id):
        return json.loads(self.db.execute(self.GET, (id,)).fetchone()[0])

    def _get_opened(self, id):
        db = self._connect()
        found = json.loads(db.execute(self.GET, (id,)).fetchone()[0])
        db.close()
        return found

    def drain(self, handler):
        self.db.execute("PRAGMA wal_autocheckpoint = 20000")
        while rows := self.db.execute(self.CLAIM, (int(time.time()), self.batch)).fetchall():
            if self.way == "starts":
                self._run_with_starts(rows, handler)
                continue
            for id, text in rows:
                result = handler(json.loads(text))
                self.db.execute(self.END, (json.dumps(result), time.time(), id))

    def _run_with_starts(self, rows, handler):
        self.db.execute(self.START, (time.time(), rows[0][0]))
        for (id, text), after in zip(rows, [*rows[1:], None], strict=True):
            result = handler(json.loads(text))
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute(self.END, (json.dumps(result), time.time(), id))
            if after:
                self.db.execute(self.START, (time.time(), after[0]))
            self.db.execute("COMMIT")

    def serve(self, handler):
        while True:
            self.drain(handler)
            time.sleep(0.01)


class LiteQueue:
    """SQLite, WAL NORMAL.  A popped message stays locked when its worker dies, until somebody looks
    for old locks.  It knows no due times, no attempts and no results."""

    most_jobs = 10_000

    def __init__(self, folder, mode):
        from litequeue import LiteQueue

        self.queue = LiteQueue(os.path.join(folder, "lite.db"), timeout=20)

    def fill(self, count, later, finished):
        from litequeue import uuid7

        rows = [(json.dumps(payload(n)), uuid7(), 2 if finished else 0) for n in range(count)]
        into = "INSERT INTO Queue (data, message_id, status, in_time) VALUES (?, ?, ?, 1)"
        with self.queue.transaction():
            self.queue.conn.executemany(into, rows)
        return [id for _, id, _ in rows]

    def enqueue(self, number):
        return self.queue.put(json.dumps(payload(number))).message_id

    def get(self, id):
        return json.loads(self.queue.get(id).data)

    def drain(self, handler):
        while message := self.queue.pop():
            handler(json.loads(message.data))
            self.queue.done(message.message_id)

    def serve(self, handler):
        while True:
            self.drain(handler)
            time.sleep(0.01)


class Huey:
    """SqliteHuey, its consumer's loop without threads.  A task is deleted before it runs: `kill -9`
    loses it.  Results are stored, without fsync or, as by default, with one for each commit."""

    most_rows, most_jobs = 100_000, 10_000
    TICK = """from huey import SqliteHuey
huey = SqliteHuey("jobs", filename="huey.db", fsync=False)
assert not huey.read_schedule() and not huey.dequeue()
"""

    def __init__(self, folder, mode):
        from huey import SqliteHuey

        path, fsync = os.path.join(folder, "huey.db"), {"default": None, "no fsync": False}[mode]
        self.huey = SqliteHuey("jobs", filename=path, fsync=fsync, timeout=20, store_none=True)
        self.task = self.huey.task(name="note")(call)

    def fill(self, count, later, finished):
        at = time.time() + LATER
        rows = []
        for number in range(count):
            data = self.huey.serialize_task(self.task.s(payload(number)))
            rows.append((data, at) if later else (data,))
        with self.huey.storage.db(commit=True) as cursor:
            if later:
                into = "insert into schedule (queue, data, timestamp) values ('jobs', ?, ?)"
            else:
                into = "insert into task (queue, data, priority) values ('jobs', ?, 0)"
            cursor.executemany(into, rows)
        return []

    def enqueue(self, number):
        self.task(payload(number))

    def drain(self, handler):
        handle_with(handler)
        while task := self.huey.dequeue():
            self.huey.execute(task)

    def serve(self, handler):
        while True:
            self.drain(handler)
            time.sleep(0.01)


class PersistQueue:
    """SQLiteAckQueue, SQLite's FULL.  What a dead process had taken comes back when the queue is
    opened again, also from a process that lives: one process only.  A finished item is looked at
    again by each `get`, so a drain costs the square of its length."""

    most_jobs = 1_000

    def __init__(self, folder, mode):
        from persistqueue import SQLiteAckQueue

        self.queue = SQLiteAckQueue(folder, timeout=20)

    def fill(self, count, later, finished):
        data, now = self.queue._serializer.dumps, time.time()
        rows = ((data(payload(n)), now, 5 if finished else 0) for n in range(count))
        into = "INSERT INTO ack_queue_default (data, timestamp, status) VALUES (?, ?, ?)"
        with self.queue._putter as db:
            db.executemany(into, rows)
        return []

    def enqueue(self, number):
        self.queue.put(payload(number))

    def drain(self, handler):
        from persistqueue import Empty

        while True:
            try:
                item = self.queue.get(block=False)
            except Empty:
                return
            handler(item)
            self.queue.ack(item)


class RQ:
    """On a redis-server that writes each command to its log and syncs that once a second.
    SimpleWorker: no fork for each job, so a job that crashes takes the worker along.  A dead
    worker's job is found after a time-out and then fails."""

    most_rows, most_jobs = 10_000, 1_000
    server = True

    def __init__(self, folder, port):
        import rq
        from redis import Redis

        self.redis = Redis(port=int(port), db=1)
        self.queue = rq.Queue("jobs", connection=self.redis)

    def fill(self, count, later, finished):
        self.redis.flushdb()
        data = [self.queue.prepare_data("peers.call", (payload(n),)) for n in range(count)]
        return [job.id for job in self.queue.enqueue_many(data)] if data else []

    def enqueue(self, number):
        return self.queue.enqueue("peers.call", payload(number)).id

    def enqueue_many(self, numbers):
        rows = [self.queue.prepare_data("peers.call", (payload(n),)) for n in numbers]
        self.queue.enqueue_many(rows)

    def get(self, id):
        return self.queue.fetch_job(id).args[0]

    def drain(self, handler, burst=True):
        from rq import SimpleWorker

        handle_with(handler)
        worker = SimpleWorker([self.queue], connection=self.redis)
        worker.work(burst=burst, logging_level="ERROR")

    def serve(self, handler):
        self.drain(handler, burst=False)


class Celery:
    """On the same redis-server, JSON, results stored, a worker in one process (pool "solo").
    With acks_late a dead worker's task comes back after an hour, and may run twice."""

    most_rows, most_jobs = 10_000, 1_000
    server = True

    def __init__(self, folder, port):
        from celery import Celery

        url = f"redis://127.0.0.1:{port}/2"
        self.app = Celery("jobs", broker=url, backend=url)
        self.app.conf.update(task_acks_late=True, worker_redirect_stdouts=False)
        self.left = float("inf")

        @self.app.task(name="note")
        def note(payload):
            self.left -= 1
            if not self.left:
                from celery.worker import state

                state.should_stop = 0
            return call(payload)

        self.task = note

    def fill(self, count, later, finished):
        self.app.connection().default_channel.client.flushdb()
        return [self.enqueue(number) for number in range(count)]

    def enqueue(self, number):
        return self.task.delay(payload(number)).id

    def drain(self, handler):
        self.left = self.app.connection().default_channel.client.llen("celery")
        self.serve(handler)

    def serve(self, handler):
        handle_with(handler)
        worker = self.app.Worker(
            pool="solo", loglevel="ERROR", quiet=True, without_gossip=True, without_mingle=True,
            without_heartbeat=True,
        )  # fmt: skip
        worker.start()


class Old:
    """dbbasic-queue 1.0.0: no lock and no sync; two processes at once lose rows, a crash can lose
    them all.  Each of two moves of a job rewrites the file."""

    most_rows, most_jobs = 100_000, 100
    TICK = """import dbbasic_queue.queue as queue
queue.QUEUE_FILE = "old.tsv"
queue.process_jobs({"note": print})
"""

    def __init__(self, folder, mode):
        import dbbasic_queue.queue as queue

        queue.QUEUE_FILE = self.path = os.path.join(folder, "old.tsv")
        self.queue = queue

    def fill(self, count, later, finished):
        self.queue._ensure_queue_file()
        now, status = int(time.time()), "completed" if finished else "pending"
        times = f"{now}\t{now + LATER if later else now}"
        ids = [os.urandom(8).hex() for _ in range(count)]
        with open(self.path, "a") as file:
            for number, id in enumerate(ids):
                file.write(f"{id}\tnote\t{json.dumps(payload(number))}\t{status}\t{times}\t0\t\t\n")
        return ids

    def enqueue(self, number):
        return self.queue.enqueue("note", payload(number))

    def get(self, id):
        return self.queue.get_job(id)["payload"]

    def drain(self, handler):
        self.queue.process_jobs({"note": handler})

    def serve(self, handler):
        while True:
            self.drain(handler)
            time.sleep(0.01)


# One engine in one mode.  `needs` are the packages, `imports` is how a program begins.
Side = namedtuple("Side", "engine mode needs imports")
OURS = "from dbbasic_queue import enqueue"

SIDES = {
    "ours off": Side(Ours, "off", ("filelock",), OURS),
    "ours normal": Side(Ours, "normal", ("filelock",), OURS),
    "ours full": Side(Ours, "full", ("filelock",), OURS),
    "ours off opened": Side(Ours, "off opened", ("filelock",), OURS),
    "ours off no hint": Side(Ours, "off", ("filelock",), OURS),
    "sqlite NORMAL": Side(SQLite, "NORMAL", (), "import sqlite3"),
    "sqlite NORMAL opened": Side(SQLite, "NORMAL opened", (), "import sqlite3"),
    "sqlite NORMAL starts": Side(SQLite, "NORMAL starts", (), "import sqlite3"),
    "sqlite NORMAL one by one": Side(SQLite, "NORMAL one by one", (), "import sqlite3"),
    "sqlite FULL": Side(SQLite, "FULL", (), "import sqlite3"),
    "sqlite FULL one by one": Side(SQLite, "FULL one by one", (), "import sqlite3"),
    "litequeue": Side(LiteQueue, "", ("litequeue",), "from litequeue import LiteQueue"),
    "huey": Side(Huey, "default", ("huey",), "from huey import SqliteHuey"),
    "huey no fsync": Side(Huey, "no fsync", ("huey",), "from huey import SqliteHuey"),
    "persist-queue": Side(
        PersistQueue, "", ("persist-queue",), "from persistqueue import SQLiteAckQueue"
    ),
    "rq": Side(RQ, "", ("rq", "redis"), "from rq import Queue"),
    "celery": Side(Celery, "", ("celery", "redis", "packaging"), "from celery import Celery"),
    "1.0.0": Side(Old, "", ("dbbasic-queue",), OURS),
}
