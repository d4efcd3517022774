"""One task: what it is called, what it calls, and how it is enqueued."""

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .. import Queue, crypt
from ..call import as_payload, check_job, key_of, signature_of
from ..errors import BadArgument
from ..here import queue_here, running
from ..unique import enqueue_unique

if TYPE_CHECKING:
    from datetime import timedelta

    from ..new import When

P = ParamSpec("P")
R = TypeVar("R")

FAILURE = ".failure"  # the type of the job that calls `failed`: no word that `grep` counts
WAITS = "on_failure"  # the column of its id, in the row of the job that it waits for
TO_TELL = 20  # attempts of that job


class Task(Generic[P, R]):
    """A function, or a class with `handle(self)`, that can be enqueued as it is called.

    Calling the task calls the function, or makes the instance, here and now: no row.
    """

    handler: Callable[[Any], Any]  # what a worker calls with the payload

    def __init__(
        self,
        function: Callable[P, R],
        name: str,
        how: dict[str, Any],
        unique: "bool | str | Callable[P, str] | None",
        unique_for: "float | timedelta | None",
        queue_file: Queue | None,
        sealed: "bool | str | Iterable[str]" = False,
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self.name = name
        self.function = function
        self.signature = signature_of(function)
        self._how = how
        self._unique = unique
        self._unique_for = unique_for
        self._queue_file = queue_file
        self.sealed = sealed is not False
        self.keys = None if isinstance(sealed, bool) else crypt.Keys(sealed)
        if self.keys is not None and not self.keys.all:
            raise BadArgument(f"task {name}: sealed={sealed!r}: give True, or keys")
        self.tells = isinstance(function, type) and callable(getattr(function, "failed", None))
        if self.tells:
            check_job({"job_type": name + FAILURE})
        check_job({"job_type": name, **how})

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._is_handler_here(args, kwargs):
            return self.handler(args[0])  # type: ignore[no-any-return]
        return self.function(*args, **kwargs)

    def _is_handler_here(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a worker calls this task itself as the handler of its type."""
        attempt = running.get(None)
        if attempt is None or kwargs or len(args) != 1:
            return False
        return attempt.claimed.type == self.name and args[0] is attempt.payload

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Add a job that makes this call, and return its id.

        Of a unique task whose key is held, the id of the job that holds it.  Of a class with
        `failed` two jobs are added, this one and the one that waits for its failure.
        BadArgument, with nothing written, names the task and the argument that is missing, too much
        or not what JSON can store.
        """
        queue = queue_here(self._queue_file)
        job = self._job(args, kwargs)
        key = self._key_of(job["payload"], args, kwargs) if self._unique else ""
        also: list[dict[str, Any]] = []
        if self.tells:
            first, job["id"] = queue.new_id(), queue.new_id()
            also = [self.as_added({**failure_of(job, job["id"]), "id": first})]
            job["columns"] = {**job.get("columns", {}), WAITS: first}
        job = self.as_added(job)
        if self._unique:
            return enqueue_unique(
                **job, key=key, seconds=self._unique_for, also=also, queue_file=queue
            )
        return queue.enqueue_many([*also, job])[-1] if also else queue.enqueue(**job)

    def _key_of(
        self, payload: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str:
        """Return the key of a call; of a sealed task one that tells nothing of its arguments."""
        if isinstance(self._unique, str):
            return self._unique
        if callable(self._unique):
            key = self._unique(*args, **kwargs)
        else:
            key = key_of(self.name, self.signature, payload)
        return crypt.digest(f"{self.name} {key}", self.keys) if self.sealed else key

    def as_added(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return enqueue's arguments, of a sealed task sealed."""
        return crypt.seal(**job, keys=self.keys) if self.sealed else job

    def job(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """Return this call as a mapping of enqueue's arguments, which `enqueue_many` takes.

        BadArgument as from `enqueue`, and for a unique task: a mapping cannot look for its key.
        """
        if self._unique:
            raise BadArgument(f"task {self.name} is unique: only its own enqueue looks for the key")
        return self.as_added(self._job(args, kwargs))

    def _job(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        payload = as_payload(self.name, self.signature, args, kwargs)
        return {"job_type": self.name, "payload": payload, **self._how}

    def using(
        self,
        *,
        run_at: "When" = None,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        backoff: str | None = None,
        after: "str | Iterable[str] | None" = None,
        group: str | None = None,
        columns: "Mapping[str, str] | None" = None,
        queue_file: Queue | None = None,
    ) -> "Task[P, R]":
        """Return this task with other arguments of enqueue; None leaves one as it was.

        `columns` are added to those that the task has.
        """
        if after is not None and not isinstance(after, str) and hasattr(after, "__iter__"):
            after = list(after)  # read more than once
        given = {
            "run_at": run_at, "queue": queue, "priority": priority, "max_attempts": max_attempts,
            "timeout": timeout, "backoff": backoff, "after": after, "group": group,
            "columns": columns and {**self._how.get("columns", {}), **columns},
        }  # fmt: skip
        how = self._how | {name: value for name, value in given.items() if value is not None}
        check_job({"job_type": self.name, **how})
        changed = copy.copy(self)
        changed._how, changed._queue_file = how, queue_file or self._queue_file
        return changed


def failure_of(job: dict[str, Any], id: str) -> dict[str, Any]:
    """Return the job that waits for a failure, as a mapping of enqueue's arguments."""
    kept: dict[str, Any] = {
        name: job[name]
        for name in ("payload", "queue", "priority", "timeout", "columns")
        if name in job
    }
    if kept.get("columns"):  # told also when it is late
        kept["columns"] = {n: cell for n, cell in kept["columns"].items() if n != "expires_at"}
    wait = {"after": f"notok:{id}", "max_attempts": TO_TELL}
    return {"job_type": job["job_type"] + FAILURE, **kept, **wait}
