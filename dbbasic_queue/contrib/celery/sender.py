"""Sending jobs to Celery, so that none is lost between the file and the engine."""

import time

import redis
from celery import Celery
from kombu.exceptions import KombuError

from ...engine import Options, as_cells
from .records import Records, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ... import Job

PREFIX = "dbbasic_queue."  # of the names of the tasks
ENGINE = "celery"
DOWN = (redis.RedisError, KombuError, OSError)
REDIS = ("redis://", "rediss://", "unix://")


class Sender:
    """Sends messages, and notes in Redis what is sent, before and after."""

    def __init__(self, app: Celery, records: Records, options: Options) -> None:
        self._app = app
        self._records = records
        self._options = options

    def ping(self) -> None:
        """Raise at once where the broker is away: publishing would wait for it, and ask again."""
        with self._app.producer_or_acquire() as producer:
            producer.connection.ensure_connection(max_retries=1, interval_start=0, timeout=1)

    def send(self, jobs: "Mapping[str, tuple[Job, str]]", *, direct: bool = False) -> None:
        """Send jobs with their claims; what was not known to be sent may be sent again.

        `direct` ones have no row in a file: their records keep it, and they may be for later.
        """
        if not jobs:
            return
        marks = {name_of(id, k, direct): k for id, (_, k) in jobs.items()}
        rows = {id: as_cells(job) for id, (job, _) in jobs.items()} if direct else {}
        self._records.promise(marks, rows)
        with self._app.producer_or_acquire() as producer:
            for job, k in jobs.values():
                delay = job.run_at - time.time() if direct else 0
                self.publish(job, k, direct=direct, delay=delay, producer=producer)
        self._records.sent(marks)

    def publish(
        self, job: "Job", k: str, *, direct: bool = True, delay: float = 0, **more: "Any"
    ) -> None:
        """Send one message, with a `delay` in seconds."""
        limit = self._options.timeout_of(job)
        usual = self._app.conf.task_default_queue
        self._app.send_task(
            PREFIX + job.type, (as_cells(job), k, direct), task_id=job.id,
            queue=usual if job.queue == "default" else job.queue, priority=self._priority(job),
            countdown=delay if delay > 0 else None, time_limit=limit + 10 if limit else None,
            retry=False, serializer="json", ignore_result=True, **more,
        )  # fmt: skip

    def _priority(self, job: "Job") -> int:
        """Return 0 to 9: with Redis the least is first, as here, elsewhere the greatest."""
        level = max(0, min(9, 5 + job.priority))
        return level if str(self._app.conf.broker_url).startswith(REDIS) else 9 - level
