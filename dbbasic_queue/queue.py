"""The queue: the verbs that move a job, and the questions.  A move is an edit, adding an append.

Readers take no lock.  Where a row says `processing`, its worker's file is asked whether the job has
ended since.
"""

import os
import time

from . import hint, lookup
from .add import add, add_many, as_job, as_row
from .after import revive
from .disk import QueueFile, unhurried
from .edit import Edit
from .errors import BadArgument, QueueError, UnknownJob, in_seconds
from .files import usual_path
from .job import Job, new_id
from .log import tell
from .new import new_job, new_jobs
from .tsv import STATUSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta
    from typing import Any

    from .admit import Counts
    from .new import Backoff, When
    from .recover import LiveWorker

    Handlers = Mapping[str, Callable[[Any], Any]]
    Listener = Callable[[str, Job], object]
    Layer = Callable[[Job, Callable[[Job], Any]], Any]
    Admit = Callable[[Job, Counts], bool | None]

_queues: "dict[tuple[str, str, str], Queue]" = {}


def default_queue() -> "Queue":
    """Return the queue of $DBBASIC_QUEUE, else data/queue.tsv here, looked up at each call."""
    path = usual_path()
    sync = os.environ.get("DBBASIC_QUEUE_SYNC", "")
    key = (path, "" if path.startswith("/") else os.getcwd(), sync)
    found = _queues.get(key)
    if found is None:
        if len(_queues) > 64:
            _queues.clear()
        found = _queues[key] = Queue(path)
    return found


class Queue:
    """One queue file.  `path` is made at the first enqueue; a relative one is bound to the working
    folder now.

    `sync` is "normal" (an id is returned when its row is on the disk), "full" (each start and
    outcome too) or "off" (safe against kill -9, not against a power cut); None takes
    $DBBASIC_QUEUE_SYNC, else normal.  No verb waits longer than `lock_timeout` seconds for the
    lock: then QueueBusy.  `listeners` are called `listener(event, job)` after enqueued, cancelled,
    retried, archived and purged.
    """

    def __init__(
        self,
        path: "str | os.PathLike[str] | None" = None,
        *,
        sync: str | None = None,
        lock_timeout: float = 20,
        listeners: "Sequence[Listener]" = (),
    ) -> None:
        self.path = os.path.abspath(usual_path() if path is None else os.fspath(path))
        self.sync = sync or os.environ.get("DBBASIC_QUEUE_SYNC") or "normal"
        if self.sync not in ("normal", "full", "off"):
            raise BadArgument(f"sync={self.sync!r} is none of normal, full, off")
        self.lock_timeout = in_seconds(lock_timeout)
        self.listeners = tuple(listeners)
        self.file = QueueFile(self.path)

    # --- moves

    def enqueue(
        self,
        job_type: str,
        payload: "Any" = None,
        run_at: "When" = None,
        *,
        queue: str = "default",
        priority: int = 0,
        max_attempts: int | None = None,
        timeout: float | None = None,
        backoff: str | None = None,
        after: "str | Iterable[str] | None" = None,
        group: str | None = None,
        id: str | None = None,
        columns: "Mapping[str, str]" = {},  # noqa: B006 (never changed)
    ) -> str:
        """Add a job and return its id; when this returns, the job is stored.

        `payload` is any JSON value up to 1 MiB.  `run_at`: not before this Unix time, aware
        datetime, or timedelta from now; None is now.  Lower `priority` runs first.  `after`: ids or
        conditions that must hold before.  BadArgument, QueueBusy, NotStored: then nothing was
        stored.
        """
        job = new_job(
            job_type, payload, run_at, queue=queue, priority=priority, max_attempts=max_attempts,
            timeout=timeout, backoff=backoff, after=after, group=group, id=id, columns=columns,
        )  # fmt: skip
        added = add(self.file, job, self.lock_timeout, durable=self.sync != "off")
        if not added:
            return self._add([job])[0]
        tell(self.listeners, "enqueued", [job])
        return added

    def enqueue_many(self, jobs: "Iterable[tuple[Any, ...] | dict[str, Any]]") -> list[str]:
        """Add many jobs in one append, all or none; return their ids in order.

        Each is (type, payload), (type, payload, run_at), or a mapping of enqueue's arguments.  A
        `kill -9` in the middle may leave the first of them.
        """
        made = [as_row(job) if not self.listeners else job for job in new_jobs(jobs)]
        ids = add_many(self.file, made, self.lock_timeout, durable=self.sync != "off")
        if made and not ids:
            ids = self._add([as_job(one) for one in made])
        return ids

    def _add(self, jobs: list[Job]) -> list[str]:
        with self._edit(create=True) as e:
            ids = e.add_all(jobs)
        tell(self.listeners, "enqueued", jobs)
        return ids

    def cancel(self, job_id: str) -> bool:
        """Cancel a pending job, and what can now never run; False when it is not pending."""

        def body() -> list[Job]:
            with self._edit() as e:
                job = e.get(job_id)
                if job is None or job.status != "pending":
                    return []
                e.cancelled.append(e.change(job, status="cancelled", finished_at=time.time()))
            return e.cancelled

        cancelled = unhurried(body)
        tell(self.listeners, "cancelled", cancelled)
        return bool(cancelled)

    def retry(
        self,
        id: "str | Iterable[str] | None" = None,
        *,
        type: str | None = None,
        queue: str | None = None,
        copy: bool = False,
    ) -> list[str]:
        """Make failed or cancelled jobs pending again, with no attempts; return the ids.

        `id` is one id or several; without it every failed job of the filter.  What was cancelled
        only because of them comes back too.  `copy=True` adds new jobs like them instead.
        """
        ids = None if id is None else dict.fromkeys([id] if isinstance(id, str) else id)

        def body() -> list[Job]:
            with self._edit() as e:
                rows = e.scan("failed", type, queue) if ids is None else map(e.get, ids)
                ended = [lookup.as_ended(self.file, job) for job in rows if job]
                found = [job for job in ended if job.status in ("failed", "cancelled")]
                if not copy:
                    return [e.put(job, job.again()) for job in found] + revive(e)
                e.add_all(made := [job.anew() for job in found])
                return made

        made = unhurried(body)
        tell(self.listeners, "retried", made)
        return [job.id for job in made]

    def purge(
        self,
        older_than: "float | timedelta | None" = None,
        *,
        status: str | None = None,
        type: str | None = None,
        queue: str | None = None,
        ids: "Iterable[str] | None" = None,
    ) -> int:
        """Delete jobs for good, and return how many.

        Finished ones, unless `status` or `ids` say which; `older_than` counts seconds since they
        finished.  Never one that is processing, nor one that an unfinished job waits for.
        """
        from .archive import purge

        of = older_than, status, type, queue, None if ids is None else list(ids)
        gone = unhurried(lambda: purge(self._edit(), self.file, *of))
        tell(self.listeners, "purged", gone)
        return len(gone)

    def archive(self, older_than: "float | timedelta", *, status: str | None = None) -> int:
        """Move jobs that finished `older_than` seconds ago to the archive; return how many."""
        from .archive import archive

        gone = unhurried(lambda: archive(self._edit(), self.file, older_than, status))
        tell(self.listeners, "archived", gone)
        return len(gone)

    def edit(self) -> Edit:
        """Return the context of one edit: `with queue.edit() as e: e.change(job, priority=5)`.

        The lock is held inside, so be quick; if the body raises, nothing happens.
        """
        return self._edit(create=True)

    def _edit(self, *, create: bool = False) -> Edit:
        return Edit(self.file, self.lock_timeout, durable=self.sync != "off", create=create)

    # --- questions

    def get(self, id: str) -> Job | None:
        """Return the job as it is now, from the file or else its archive; None when unknown."""
        return lookup.get(self.file, id)

    def get_job(self, job_id: str) -> "dict[str, Any] | None":
        """Return the nine documented keys of a job, or None."""
        job = self.get(job_id)
        return None if job is None else job.as_dict()

    def jobs(
        self,
        status: str | None = None,
        type: str | None = None,
        queue: str | None = None,
        worker: str | None = None,
        newest: bool = False,
        limit: int | None = None,
    ) -> "Iterator[Job]":
        """Yield jobs in the order they were added (`newest`: the last one first), without loading
        the file.

        `worker` is a worker's id, or its name.
        """
        if status is not None and status not in STATUSES:
            raise BadArgument(f"status={status!r} is none of {', '.join(STATUSES)}")
        return lookup.select(self.file, status, type, queue, worker, newest, limit)

    def counts(self, *columns: str) -> "dict[Any, int]":
        """Count by columns: counts("status") -> {"pending": 3}, two give {("a", "b"): 3}."""
        return lookup.counts(self.file, columns or ("status",))

    def wait(self, id: str, timeout: float | None = None) -> Job:
        """Return the job when it has finished.

        TimeoutError after `timeout` seconds (None: never), UnknownJob when no job has this id.
        """
        waited, pause = 0.0, 0.002
        while not (job := self.get(id)) or not job.finished:
            if job is None:
                raise UnknownJob(f"{self.path}: no job has the id {id!r:.80}")
            if timeout is not None and waited >= timeout:
                raise TimeoutError(f"{self.path}: job {id} is {job.status} after {timeout} s")
            time.sleep(pause)
            waited += pause
            pause = min(pause * 1.5, 0.1)
        return job

    def workers(self) -> "list[LiveWorker]":
        """Return the workers that live now, with what they run."""
        from .recover import live_workers

        try:
            return live_workers(self.file, self.lock_timeout)[0]
        except OSError as error:
            raise QueueError(f"{self.path}.d: cannot be read: {error.strerror}") from error

    def stop(self, name: str | None = None, timeout: float = 0) -> "list[LiveWorker]":
        """Ask live workers (of this `name`, or all) to stop as on SIGTERM.

        Return those that are left after `timeout` seconds, with what they run.
        """
        from .control import stop

        return stop(self, name, timeout)

    def kill(self, id: str) -> bool:
        """Ask the live worker that has a job to end it; False when none has.

        The job becomes cancelled, with the error "ended on request".
        """
        from .control import kill

        return kill(self, id)

    def backup(self, path: "str | os.PathLike[str]") -> None:
        """Copy the queue to `path`, with what workers have finished: restored, none re-runs."""
        from .archive import backup

        backup(self._edit(), self.file, os.path.abspath(os.fspath(path)))

    # --- the worker's door

    def process_jobs(
        self,
        handlers: "Handlers",
        max_attempts: int = 3,
        *,
        queues: "Sequence[str] | None" = None,
        run_for: float | None = None,
        max_jobs: int | None = None,
        processes: int | tuple[int, int] = 0,
        name: str | None = None,
        timeout: float | None = None,
        backoff: "str | Backoff | None" = None,
        max_workers: int | None = None,
        grace: float | None = None,
        concurrency: int = 1,
        memory: int | None = None,
        middleware: "Sequence[Layer]" = (),
        listeners: "Sequence[Listener]" = (),
        admit: "Sequence[Admit]" = (),
        settings: "Mapping[str, Mapping[str, Any]] | None" = None,
        keep: "Mapping[str, Any] | None" = None,
        keep_by: str = "archive",
    ) -> None:
        """Run the jobs that are due: one tick.  The module-level function says the arguments."""
        if not hasattr(handlers, "keys") or not hasattr(handlers, "__getitem__"):
            raise BadArgument(f"handlers={handlers!r:.80} is no mapping of types to functions")
        tend = None
        if keep is not None or keep_by != "archive":
            from .upkeep import upkeep

            tend = upkeep(self, keep or {}, keep_by, (*self.listeners, *listeners))
        if run_for is None and hint.idle_tick(self.path):
            return tend() if tend else None
        from .options import Options

        options = Options(
            handlers=handlers, max_attempts=max_attempts, queues=queues, run_for=run_for,
            max_jobs=max_jobs, processes=processes, name=name, timeout=timeout, backoff=backoff,
            max_workers=max_workers, grace=grace, concurrency=concurrency, memory=memory,
            middleware=middleware, listeners=listeners, own_listeners=self.listeners, admit=admit,
            settings=settings, tend=tend,
        )  # fmt: skip
        if options.processes[1]:
            from .pool import supervise

            return supervise(self, options)
        from .worker import work

        work(self, options)

    new_id = staticmethod(new_id)
