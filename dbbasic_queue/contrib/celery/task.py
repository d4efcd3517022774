"""A Celery worker's side: one task for each type; an id that runs, or has run, is refused."""

import os
import time
import uuid

import redis
from celery.exceptions import Ignore, Reject

from ...engine import as_cells, as_job, died, run
from ...errors import QueueError
from .records import name_of
from .sender import DOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ... import Job
    from ...engine import Options
    from .records import Records

_PATIENCE = 3600  # seconds that a finished job waits for a Redis that is away


class JobFailed(Exception):
    """A job has failed for good: the state of its Celery task."""


class Runner:
    """Runs jobs in a Celery worker, and tells Redis."""

    def __init__(
        self,
        records: "Records",
        beats: "Records",
        options: "Options",
        lease: float,
        send: "Callable[..., None]",
    ) -> None:
        self._records = records
        self._beats = beats  # never waits for long: who beats minds the time limit, too
        self._options = options
        self._lease = lease
        self._send = send

    def __call__(self, cells: "dict[str, str]", k: str, direct: bool) -> "Any":
        """Run one message: the cells of a job, its claim, and whether no file has a row for it."""
        job = as_job(cells)
        token = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        name = name_of(job.id, k, direct)
        answer = _patiently(lambda: self._records.begin(name, k, token, self._lease))
        if answer == "unknown" and direct:  # Redis lost it, but not the message
            _patiently(lambda: self._records.promise({job.id: k}, {job.id: cells}))
            answer = _patiently(lambda: self._records.begin(name, k, token, self._lease))
        if direct and answer == "old":
            self._send_promised(job.id)
        if direct and answer == "running":
            if _patiently(lambda: self._records.died(job.id, k, self._lease)):
                return self._over(job, k, direct, _texts(died(job, self._options)))
            _patiently(lambda: self._send(job, k, delay=self._lease))  # may be dead by then
        if answer != "go":
            raise Ignore(f"job {job.id} is refused: {answer}")
        return self._over(job, k, direct, self._run(job, name, k, token))

    def _run(self, job: "Job", name: str, k: str, token: str) -> "dict[str, str]":
        beaten = time.monotonic()
        recorded: dict[str, str] = {}

        def beat() -> None:
            nonlocal beaten
            if time.monotonic() - beaten < self._lease / 4:
                return
            beaten = time.monotonic()
            try:
                self._beats.renew(name, k, token, self._lease)
            except redis.RedisError:
                pass  # it comes back, or the lease ends

        def record(attempt: "Any", **cells: "Any") -> None:
            new = attempt.claimed.replace(**cells)
            attempt.recorded.update({name: new.raw(name) for name in cells})
            recorded.update({name: new.raw(name).decode() for name in cells})
            try:
                mine = self._records.renew(name, k, token, self._lease, recorded)
            except redis.RedisError as problem:
                raise QueueError(f"job {job.id}: Redis did not store this: {problem}") from problem
            if not mine:
                raise QueueError(f"job {job.id}: this worker was taken for dead")

        return _texts(run(job, self._options, record, beat))

    def _over(self, job: "Job", k: str, direct: bool, cells: "dict[str, str]") -> "Any":
        """Keep the outcome, and say in Celery's words what it was."""
        ended = as_job(as_cells(job) | cells)
        if direct and ended.status == "pending":
            again = str(max(int(k) + 1, int(time.time() * 1e6)))
            row = {ended.id: as_cells(ended)}
            if not _patiently(lambda: self._records.promise({ended.id: again}, row, then=k)):
                raise Ignore(f"job {job.id} was taken from this worker")
            self._send_promised(job.id)
            raise Ignore(f"job {job.id} is tried again")
        name = name_of(job.id, k, direct)
        _patiently(lambda: self._records.finish(name, k, job.attempts + 1, cells))
        if ended.status == "completed":
            return ended.result
        if ended.status == "failed":
            raise JobFailed(ended.error or "")
        raise Ignore(f"job {job.id} is {ended.status}")

    def _send_promised(self, id: str) -> None:
        """Send the next attempt of a job that no file has, unless that is known to be done.

        Its last message is kept until then, so whoever dies in here has that delivered again.
        """
        record = _patiently(lambda: self._records.read([id])[id])
        if record.state == "new" and record.row:
            job = as_job(record.row)
            _patiently(lambda: self._send(job, record.k, delay=job.run_at - time.time()))
            _patiently(lambda: self._records.sent({id: record.k}))


def _texts(cells: "Mapping[str, bytes]") -> "dict[str, str]":
    return {name: cell.decode() for name, cell in cells.items()}


def _patiently(call: "Callable[[], Any]") -> "Any":
    """Call Redis until it answers: what has run must be known to have run."""
    until, pause = time.monotonic() + _PATIENCE, 0.1
    while True:
        try:
            return call()
        except DOWN as problem:
            if time.monotonic() > until:
                raise Reject(str(problem), requeue=True) from problem
            time.sleep(pause)
            pause = min(2.0, pause * 2)
