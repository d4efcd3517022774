"""The bridge between a queue file and a Celery application."""

import logging
import math
import time
from contextlib import contextmanager
from typing import NamedTuple

from celery import Celery, Task
from redis.backoff import NoBackoff
from redis.retry import Retry

from ... import Queue
from ...engine import Engine, Options, as_cells, as_job, died, new
from ...errors import BadArgument, DuplicateId, QueueError
from ...here import queue_here
from .records import Record, Records, client_of, name_of
from .sender import DOWN, ENGINE, PREFIX, REDIS, Sender
from .task import Runner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ... import Job
    from ...engine.handing import Outcomes

_log = logging.getLogger("dbbasic_queue")
_MOST = 1000  # jobs that one edit claims
_AWAY = 2.0  # seconds until a Redis that did not answer is asked again


class Tick(NamedTuple):
    """What one look did: jobs handed over, sent again, ended, put back to be tried again."""

    sent: int = 0
    again: int = 0
    ended: int = 0
    back: int = 0


class Bridge:
    """Makes each handler a task of `app`, and moves jobs between a file and the engine.

    `handlers`, `max_attempts`, `timeout`, `backoff`, `middleware`, `admit` and `settings` are those
    of process_jobs; `types` and `queues` say what is handed over (None: all of them), so that one
    type or queue at a time can move.  `redis_url` is where it is noted which id runs; None takes
    the result back end of the app, else its broker.  A worker over there that says nothing for
    `lease` seconds, and half as long again, is dead; a message of which nothing was heard for
    `again` seconds is sent once more, then after twice that, and so on; finished ids are remembered
    for `keep` seconds.  At most `most` jobs are out at a time.
    """

    def __init__(
        self,
        app: Celery,
        handlers: "Mapping[str, Any]",
        *,
        queue_file: Queue | None = None,
        types: "Iterable[str] | None" = None,
        queues: "Sequence[str] | None" = None,
        max_attempts: int = 3,
        timeout: float | None = None,
        backoff: "Any" = None,
        middleware: "Sequence[Any]" = (),
        admit: "Sequence[Any]" = (),
        listeners: "Sequence[Any]" = (),
        settings: "Mapping[str, Mapping[str, Any]] | None" = None,
        redis_url: str | None = None,
        lease: float = 30,
        again: float = 600,
        keep: float = 7 * 86400,
        most: int = 10_000,
    ) -> None:
        self.app = app
        self.handlers = handlers
        self.queue_file = queue_file
        self._lease = lease
        self._again = again
        self._most = most
        self._here = {type: handlers[type] for type in handlers if types is None or type in types}
        if types is not None and (unknown := set(types) - set(self._here)):
            raise BadArgument(f"types={sorted(unknown)}: no handler for these")

        def options(handlers: "Mapping[str, Any]") -> Options:
            return Options(
                handlers=handlers, max_attempts=max_attempts, queues=queues, run_for=math.inf,
                max_jobs=None, processes=0, name=ENGINE, timeout=timeout, backoff=backoff,
                max_workers=None, grace=None, concurrency=1, memory=None, middleware=middleware,
                listeners=listeners, own_listeners=(), admit=admit, settings=settings,
            )  # fmt: skip

        self._options, self._options_here = options(handlers), options(self._here)
        url = url_of(redis_url, app)
        once = Retry(NoBackoff(), 0)  # a tick does not wait for a Redis that is away
        quick = client_of(url, socket_connect_timeout=0.5, socket_timeout=1.0, retry=once)
        self._records = Records(quick, keep)
        self._sender = Sender(app, self._records, self._options)
        slow = client_of(url, socket_connect_timeout=5, socket_timeout=30)
        beats = client_of(url, socket_connect_timeout=2, socket_timeout=2, retry=once)
        self._runner = Runner(
            Records(slow, keep), Records(beats, keep), self._options, lease, self._sender.publish
        )
        self._engine: Engine | None = None
        self._away = False  # Redis did not answer, which is logged once
        for type in handlers:
            self._make_task(type)

    def _make_task(self, type: str) -> None:
        def task(cells: "dict[str, str]", k: str, direct: bool = False) -> "Any":
            return self._runner(cells, k, direct)

        task.__name__ = task.__qualname__ = type
        task.__doc__ = getattr(self.handlers[type], "__doc__", None)
        # Where the time limit kills a worker, its message is to come again: a job without a row has
        # nobody else to say that it died.
        older = not hasattr(Task, "acks_on_timeout")
        on = "acks_on_failure_or_timeout" if older else "acks_on_timeout"
        self.app.task(
            task, name=PREFIX + type, acks_late=True, reject_on_worker_lost=True, typing=False,
            **{on: False},
        )  # fmt: skip

    @property
    def queue(self) -> Queue:
        """The queue file whose jobs are handed over."""
        return queue_here(self.queue_file)

    # --- the forwarder

    def tick(self) -> Tick:
        """Take in what has ended, hand over what is due.  With Redis away: logged, nothing done."""
        engine = self._forwarder()
        if engine.is_idle() or not engine.enter():
            return Tick()
        try:
            self._records.ping()
            self._sender.ping()
            made = self._turn(engine)
            self._away = False
            return made
        except DOWN as problem:
            if not self._away:
                text = "%s: nothing was handed over: %s"
                _log.warning(text, engine.queue.path, " ".join(str(problem).split()))
            self._away = True
            return Tick()
        finally:
            engine.leave()

    def run(self, seconds: float = 0, pause: float = 0.2) -> Tick:
        """Tick for so many seconds, at least once; return the sum."""
        until, total = time.monotonic() + seconds, Tick()
        while True:
            begun = time.monotonic()
            made = self.tick()
            now = time.monotonic()
            total = Tick(*map(sum, zip(total, made, strict=True)))
            rest = 0 if made.sent == _MOST else max(pause, 4 * (now - begun))  # a file may be long
            rest = max(rest, _AWAY) if self._away else rest
            if now + rest >= until:
                return total
            time.sleep(rest)

    def _forwarder(self) -> Engine:
        queue = self.queue
        if self._engine is None or self._engine.queue is not queue:
            self._engine = Engine(queue, ENGINE, self._options_here)
        return self._engine

    def _turn(self, engine: Engine) -> Tick:
        held = {job.id: job for job in engine.held()}
        names = {id: name_of(id, _k(job)) for id, job in held.items()}
        found = self._records.read(names.values())
        records = {id: found[name] for id, name in names.items()}
        outcomes, lost = self._look(held, records)
        room = max(0, min(_MOST, self._most - len(held) + len(outcomes)))
        claimed = engine.turn(outcomes, room)
        self._sender.send({job.id: (job, _k(job)) for job in [*lost, *claimed]})
        back = [id for id, (_, _, cells) in outcomes.items() if cells["status"] == b"pending"]
        self._records.forget(names[id] for id in back)  # their next claim has one of its own
        return Tick(len(claimed), len(lost), len(outcomes) - len(back), len(back))

    def _look(
        self, held: "Mapping[str, Job]", records: "Mapping[str, Record]"
    ) -> "tuple[Outcomes, list[Job]]":
        """Return what has become of the jobs that are out, and those that must be sent again."""
        outcomes: dict[str, tuple[str, int, dict[str, bytes]]] = {}
        lost: list[Job] = []
        for id, job in held.items():
            record, mark, number = records[id], job.cell("worker"), job.attempts + 1
            recorded = {name: cell.encode() for name, cell in record.recorded.items()}
            if record.k != _k(job) or record.state == "new":
                lost.append(job)  # Redis has lost it, or the forwarder died before it was sent
            elif record.state == "sent" and time.time() - record.sent > self._wait(record):
                lost.append(job)
            elif record.state == "running":
                if record.leased or not self._records.died(
                    name_of(id, record.k), record.k, self._lease
                ):
                    continue
                outcomes[id] = mark, number, recorded | died(job, self._options)
            elif record.state == "done":
                cells = {name: cell.encode() for name, cell in record.cells.items()}
                outcomes[id] = mark, number, cells
            elif record.state == "cancelled":
                at = b"%.3f" % time.time()
                outcomes[id] = mark, number, {"status": b"cancelled", "finished_at": at}
            elif record.state == "recalled":
                outcomes[id] = mark, number, {"status": b"pending", "worker": b""}
        return outcomes, lost

    def _wait(self, record: "Record") -> float:
        """Return the seconds until a message is sent again: ever longer, as all may be off duty."""
        return self._again * 2.0 ** max(0, min(record.times, 20) - 1)

    # --- from anywhere, without a file

    def enqueue(
        self, job_type: str, payload: "Any" = None, run_at: "Any" = None, **more: "Any"
    ) -> str:
        """Add a job straight to the engine, from any machine; return its id.  No file has it.

        The arguments are those of `enqueue`, but `after` and `group`: those need the file.
        """
        for word in ("after", "group"):
            if more.get(word) is not None:
                raise BadArgument(
                    f"{word}={more[word]!r:.80} needs the queue file: enqueue it there"
                )
        if job_type not in self.handlers:
            raise BadArgument(f"{job_type!r:.80}: the bridge has no handler for this type")
        job = new(job_type, payload, run_at, **more)
        job = as_job(as_cells(job) | {"id": more.get("id") or _new_id()})
        k = str(int(time.time() * 1e6))
        try:
            self._records.ping()
            self._sender.ping()
            if not self._records.promise({job.id: k}, {job.id: as_cells(job)}, then="new"):
                raise DuplicateId(f"id={job.id!r}: the engine has a job with this id")
            self._sender.send({job.id: (job, k)}, direct=True)
        except QueueError:
            raise
        except Exception as problem:
            raise QueueError(f"{job_type} {job.id}: not known to be sent: {problem}") from problem
        return job.id

    def get(self, id: str) -> "Job | None":
        """Return a job that was added straight to the engine, as it is now; None when unknown."""
        with _answering():
            record = self._records.read([id])[id]
        if not record.row:
            return None
        words = {"running": "processing", "cancelled": "cancelled"}
        now = {"status": words.get(record.state, "pending")}
        return as_job(record.row | now | record.recorded | record.cells)

    def cancel(self, id: str) -> bool:
        """Cancel a job wherever it waits; False when a worker has begun it, or it has ended."""
        if self.queue.cancel(id):
            return True
        with _answering():
            return self._stop(id, "cancelled")

    def recall(self, ids: "Iterable[str] | None" = None) -> int:
        """Take jobs back that no worker has begun: their rows are pending again; return how many.

        None takes all that are out.
        """
        engine = self._forwarder()
        wanted = [job.id for job in engine.held()] if ids is None else list(ids)
        with _answering():
            return sum(self._stop(id, "recalled") for id in wanted)

    def _stop(self, id: str, state: str) -> bool:
        engine = self._forwarder()
        job = self.queue.get(id)
        k = _k(job) if job is not None and job.status == "processing" else ""
        due = 0.0
        if job is None and state == "cancelled":
            record = self._records.read([id])[id]
            k, due = record.k, float(record.row.get("run_at") or 0)
        if not k or not self._records.stop(name_of(id, k, job is None), k, state, due):
            return False
        if job is not None:
            ended = {
                "cancelled": {"finished_at": b"%.3f" % time.time()},
                "recalled": {"worker": b""},
            }
            status = b"cancelled" if state == "cancelled" else b"pending"
            cells = {"status": status} | ended[state]
            engine.turn({id: (job.cell("worker"), job.attempts + 1, cells)}, 0)
        return True


@contextmanager
def _answering() -> "Iterator[None]":
    try:
        yield
    except DOWN as problem:
        raise QueueError(f"Redis does not answer: {problem}") from problem


def _k(job: "Job") -> str:
    engine, _, k = job.cell("worker").partition(".")
    return k if engine == "@" + ENGINE else ""


def _new_id() -> str:
    return Queue.new_id()


def url_of(given: str | None, app: Celery) -> str:
    for url in (given, app.conf.result_backend, app.conf.broker_url):
        if isinstance(url, str) and url.startswith(REDIS):
            return url
    raise BadArgument(
        "the bridge notes in Redis which job runs: neither redis_url nor the result back end nor "
        "the broker of this Celery application is the address of one, as redis://host:6379/0"
    )
