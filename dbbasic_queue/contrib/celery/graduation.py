"""Moving the pending jobs of a file to Celery for good.

Each row is marked first, then sent, then removed.  Who is killed in between and comes again finds
the marks, and in Redis what was sent; a job that was sent twice is refused the second time.
"""

import hashlib
import time
from collections import Counter
from typing import NamedTuple

from celery import Celery

from ...engine import Options, Wanted, marked, remove
from ...errors import BadArgument, QueueError
from ...here import queue_here
from .records import Records, client_of
from .sender import DOWN, REDIS, Sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ... import Job, Queue

_AT_ONCE = 20_000  # rows of one edit
_EXPIRES = 7 * 86400  # seconds that a finished id is remembered


class Report(NamedTuple):
    """How many jobs of each type went, and how many stay for which reason."""

    moved: dict[str, int]
    left: dict[str, int]


def graduate(
    to: str,
    *,
    types: "Iterable[str] | None" = None,
    queues: "Iterable[str] | None" = None,
    dry_run: bool = False,
    app: Celery | None = None,
    queue_file: "Queue | None" = None,
) -> Report:
    """Move the pending jobs, due or not, to the Redis of this URL, where the tasks of a `Bridge`
    run them; return what went and what stays.  It may be killed, and called again.

    `app` is a Celery application with settings of its own.  QueueError when Redis does not answer:
    what has not gone by then goes at the next call.
    """
    queue = queue_here(queue_file)
    if not to.startswith(REDIS):
        raise BadArgument("to= is no address of a Redis, as redis://host:6379/0")
    start = f"@graduate-{hashlib.sha256(to.encode()).hexdigest()[:8]}."
    out = marked(queue, "@graduate-")
    if others := [job for job in out if not job.cell("worker").startswith(start)]:
        raise BadArgument(
            f"{queue.path}: {len(others)} jobs are on their way to another Redis, the first is "
            f"{others[0].id}; finish that with the same --to"
        )
    wanted = Wanted(None if types is None else set(types), None if queues is None else set(queues))
    if dry_run:
        moved = Counter(job.type for job in out) + Counter(wanted.count(queue))
        return Report(dict(moved), wanted.left)
    app = app or Celery("dbbasic_queue", broker=to, backend=to)
    client = client_of(to, socket_connect_timeout=2, socket_timeout=10)
    records = Records(client, _EXPIRES)
    sender = Sender(app, records, _options())
    moved = Counter[str]()
    try:
        records.ping()
        while True:
            jobs = marked(queue, start)
            if not jobs:
                if not wanted.take(queue, f"{start}{int(time.time() * 1e6)}", _AT_ONCE):
                    return Report(dict(moved), wanted.left)
                jobs = marked(queue, start)
            _send(jobs, sender, records)
            remove(queue, jobs)
            moved.update(job.type for job in jobs)
    except DOWN as problem:
        count = sum(moved.values())
        text = f"{count} jobs have gone, the rest goes when this is called again: {problem}"
        raise QueueError(f"{queue.path}: {text}") from problem


def _send(jobs: "list[Job]", sender: Sender, records: Records) -> None:
    """Send what Redis does not know as sent yet, as it stood before it was marked."""
    known = records.read(job.id for job in jobs)
    unsent: dict[str, tuple[Job, str]] = {}
    for job in jobs:
        k = job.cell("worker").rpartition(".")[2]
        record = known[job.id]
        further = record.k.isdigit() and int(record.k) > int(k)  # tried again over there since
        if not further and (record.k != k or record.state == "new"):
            unsent[job.id] = job.replace(status="pending", worker=""), k
    sender.send(unsent, direct=True)


def _options() -> Options:
    return Options(
        handlers={}, max_attempts=3, queues=None, run_for=None, max_jobs=None, processes=0,
        name=None, timeout=None, backoff=None, max_workers=None, grace=None, concurrency=1,
        memory=None, middleware=(), listeners=(), own_listeners=(), admit=(), settings=None,
    )  # fmt: skip
