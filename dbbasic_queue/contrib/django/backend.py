"""The back end: `task.enqueue()` adds a row, `get_result()` reads it."""

import os
from functools import partial

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, transaction

from ... import Queue
from ...call import check_job
from ...errors import BadArgument
from .declared import declare, task_of
from .framework import (
    BaseTaskBackend,
    InvalidTask,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    task_enqueued,
)
from .results import change, fresh, moment, result_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from django.core.checks import CheckMessage

_queues: "dict[tuple[str, str | None], Queue]" = {}  # Django makes a back end for each thread


class TSVBackend(BaseTaskBackend):  # type: ignore[misc]  # Django has no types
    """Tasks as rows of one TSV file.

    OPTIONS: `path` of the file (default: $DBBASIC_QUEUE, else data/queue.tsv in BASE_DIR), `sync`
    as for Queue, `modules` that declare tasks beside `tasks` of each application,
    `enqueue_on_commit` (True, or the alias of a database: rows are added when the transaction
    around `enqueue` commits); for the worker `max_attempts` (default 1), `timeout` and `backoff`.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    @property
    def given(self) -> str:
        """The path as somebody has given it."""
        path = self.options.get("path") or os.environ.get("DBBASIC_QUEUE")
        if not path:
            path = os.path.join(getattr(settings, "BASE_DIR", ""), "data", "queue.tsv")
        return os.fspath(path)

    @property
    def path(self) -> str:
        """The absolute path of the queue file."""
        return os.path.abspath(self.given)

    @property
    def queue(self) -> Queue:
        """The queue file, the same object in each thread."""
        key = self.path, self.options.get("sync")
        found = _queues.get(key)
        if found is None:
            if len(_queues) > 64:
                _queues.clear()  # of tests, each with a file of its own
            found = _queues[key] = Queue(key[0], sync=key[1])
        return found

    @property
    def modules(self) -> "list[str]":
        """The modules that declare tasks beside those called `tasks`."""
        return list(self.options.get("modules", ()))

    @property
    def database(self) -> str | None:
        """The database whose commit is waited for, None where rows are added at once."""
        waits = self.options.get("enqueue_on_commit", False)
        return DEFAULT_DB_ALIAS if waits is True else (waits or None)

    def validate_task(self, task: Task) -> None:
        """Refuse what Django refuses, and what cannot be a row."""
        super().validate_task(task)
        try:
            check_job({"job_type": task.module_path, "queue": task.queue_name})
        except BadArgument as problem:
            raise InvalidTask(f"Task {task.module_path!r:.200} is no job: {problem}") from None
        declare(task)

    def enqueue(self, task: Task, args: "Any", kwargs: "Any") -> TaskResult:
        """Add a row and return its result; when this returns, the job is stored.

        With `enqueue_on_commit` it is stored at the commit, and `enqueued_at` is None till then.
        """
        self.validate_task(task)
        result = fresh(task, args, kwargs, self.alias)
        row: dict[str, Any] = {
            "job_type": task.module_path,
            "payload": {"args": result.args, "kwargs": result.kwargs},
            "run_at": task.run_after and task.run_after.astimezone(),
            "queue": task.queue_name,
            "priority": -int(task.priority),  # here the lower one runs first
        }
        if self.database is None:
            self._store(result, row)
            return result
        check_job(row)  # what is wrong with it is told here, not at the commit
        row["id"] = self.queue.new_id()
        change(result, id=row["id"])
        transaction.on_commit(partial(self._store, result, row), using=self.database)
        return result

    def _store(self, result: TaskResult, row: "dict[str, Any]") -> None:
        id = self.queue.enqueue(**row)
        at = int(id[:13], 16) // 1000 / 1000
        change(result, id=id, enqueued_at=moment(at))
        task_enqueued.send_robust(type(self), task_result=result)  # it is stored, whatever they say

    def get_result(self, result_id: str) -> TaskResult:
        """Return what the row says now; TaskResultDoesNotExist for what is no task's id."""
        job = self.queue.get(result_id) if isinstance(result_id, str) else None
        if job is None:
            raise TaskResultDoesNotExist(result_id)
        task = task_of(job.type, self.modules)
        if task is None:
            text = f"{result_id}: no task {job.type!r} is declared here"
            raise TaskResultDoesNotExist(text)
        return result_of(job, task, self.alias)

    def check(self, **kwargs: "Any") -> "Iterable[CheckMessage]":
        """Say what is wrong with the settings, the folder, the file, or the crontab."""
        from .checks import check

        yield from super().check(**kwargs)
        yield from check(self)
