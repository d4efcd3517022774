"""For tests of programs that use the queue: a real queue in a temporary folder, drained at once.

with temporary_queue() as queue:
    sign_up("ana@example.com")                  # calls enqueue() somewhere
    assert_enqueued("send_email", payload={"to": "ana@example.com"})
    drain({"send_email": send_email})           # later jobs and retries too: the clock is moved
"""

import os
import tempfile
import time
from contextlib import ExitStack, contextmanager

from dbbasic_queue import Job, Queue, QueueError

from ..errors import BadArgument
from ..here import queue_here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta
    from typing import Any, TypeVar

    from ..batch import Batch
    from ..chain import Chain

    G = TypeVar("G", Batch, Chain)

_ANY: "Any" = object()
_SHOWN = 20  # rows of a failed assertion's text
_NEVER = 250_000_000_000  # the year 9892: paused schedules stand behind it
_temporary: list[str] = []  # the queue files of now
_LONGEST_STEP = 86_400  # seconds that the clock is moved while limits let nothing start


@contextmanager
def temporary_queue(sync: str = "off") -> "Iterator[Queue]":
    """Give a new, empty queue file in a temporary folder, which is the default queue meanwhile.

    So `enqueue()` anywhere in this process, or in its children, adds to it.  The folder is removed
    at the end, and $DBBASIC_QUEUE and $DBBASIC_QUEUE_SYNC are as they were.
    """
    names = ("DBBASIC_QUEUE", "DBBASIC_QUEUE_SYNC")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="queue-") as folder:
        path = os.path.join(folder, "queue.tsv")
        os.environ.update(zip(names, (path, sync), strict=True))
        _temporary.append(path)
        try:
            yield Queue(path)
        finally:
            _temporary.remove(path)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def drain(
    handlers: "Mapping[str, Callable[[Any], Any]]",
    *,
    until: "float | datetime | timedelta | None" = None,
    queue_file: Queue | None = None,
    listeners: "Sequence[Callable[[str, Job], object]]" = (),
    **options: "Any",
) -> list[Job]:
    """Run ticks until nothing is left to run, and return the jobs that finished, in that order.

    For jobs that are due later, and for retries, the clock is moved (by freezegun) to the time at
    which the first of them is due, and is what it was at the end.  `until`, a Unix time, an aware
    datetime or a timedelta from now, is as far as it goes; schedules without an end need it.
    `options` are those of `process_jobs`.  Handlers' exceptions stand in the jobs: see `Job.error`.
    Without `queue_file` it drains the temporary queue, and no other: QueueError where there is
    none, where `until` is missing, or freezegun; RuntimeError after 10,000 ticks.
    """
    queue = queue_here(queue_file)
    if queue_file is None and queue.path not in _temporary:
        raise QueueError(
            f"drain would run the jobs of {queue.path}: use temporary_queue(), the fixture"
            " queue_file, or say queue_file="
        )
    latest = _unix_time(until)
    if latest is None:
        _refuse_endless(queue, handlers)
    finished: list[Job] = []
    had_finished = {job.id for job in queue.jobs() if job.finished}

    def note(event: str, job: Job) -> None:
        if event in ("completed", "failed", "cancelled"):
            finished.append(job)

    step = 1.0
    with ExitStack() as clock:
        for _ in range(10_000):
            before = _stamp(queue)
            queue.process_jobs(handlers, listeners=[*listeners, note], **options)
            if _stamp(queue) != before:
                step = 1.0
                continue
            at = _next_time(queue, handlers)
            if at is None and options.get("admit") and step <= _LONGEST_STEP:
                at, step = time.time() + step, step * 2  # a limit may let one start then
            if at is None or (latest is not None and at > latest):
                return finished or _finished_since(queue, had_finished)
            clock.pop_all().close()
            clock.enter_context(_clock_at(at))
    raise RuntimeError(f"{queue.path}: after 10,000 ticks jobs are left; give until=")


def _unix_time(until: "Any") -> float | None:
    if until is None or until == 0:
        return until  # type: ignore[no-any-return]
    if hasattr(until, "total_seconds"):
        return time.time() + float(until.total_seconds())
    at = until.timestamp() if hasattr(until, "timestamp") else until
    if not isinstance(at, (int, float)) or at < 10**8:
        raise BadArgument(
            f"until={until!r:.80} is no Unix time, aware datetime or timedelta from now"
        )
    return float(at)


def _refuse_endless(queue: Queue, handlers: "Mapping[str, Any]") -> None:
    if "schedule" in handlers:
        from ..schedule import schedules

        for one in schedules(queue_file=queue):
            if one.max_count is None and one.next_run is not None:
                raise QueueError(f"the schedule {one.name} has no end: give until=")


def _finished_since(queue: Queue, before: "set[str]") -> list[Job]:
    """Return what the processes of a pool have finished: their listeners are not ours."""
    found = [job for job in queue.jobs() if job.finished and job.id not in before]
    return sorted(found, key=lambda job: job.finished_at or 0)


def _stamp(queue: Queue) -> tuple[int, int, int]:
    try:
        st = os.stat(queue.path)
    except FileNotFoundError:
        return (0, 0, 0)
    return (st.st_ino, st.st_size, st.st_mtime_ns)


def _next_time(queue: Queue, handlers: "Mapping[str, Any]") -> float | None:
    """Return when the next job is due that these handlers run; None when none is, or ever will."""
    now = time.time()
    ours = [job.run_at for job in queue.jobs(status="pending") if job.type in handlers]
    return min((run_at for run_at in ours if now < run_at < _NEVER), default=None)


@contextmanager
def _clock_at(at: float) -> "Iterator[None]":
    """Move the clock to a Unix time, from where it goes on."""
    try:
        import freezegun
    except ImportError:
        raise QueueError(
            "there are jobs for later, and moving the clock takes freezegun: pip install"
            " 'dbbasic-queue[test]'; until=0 leaves them"
        ) from None
    from datetime import datetime, timezone

    freezegun.configure(extend_ignore_list=["filelock"])  # its time-outs go on
    moved = datetime.fromtimestamp(at, timezone.utc)
    with freezegun.freeze_time(moved, tick=True, real_asyncio=True):
        yield


def assert_enqueued(
    job_type: "Any",
    *,
    payload: "Any" = _ANY,
    queue: str | None = None,
    times: int | None = None,
    where: "Callable[[Job], object] | None" = None,
    queue_file: Queue | None = None,
) -> list[Job]:
    """Check that jobs of this type were enqueued, whatever became of them, and return them.

    `job_type` is a text or a task.  `payload` is compared as JSON, `queue` is the label; `where` is
    asked about each job.  `times=None`: at least one.  AssertionError says what the file has.
    """
    file = queue_here(queue_file)
    found = _matching(file, job_type, payload, queue, where)
    if (len(found) != times) if times is not None else not found:
        often = "no job" if not found else f"{len(found)} instead of {times} jobs"
        raise AssertionError(f"{often} with {_asked(job_type, payload, queue)}; {_content(file)}")
    return found


def assert_not_enqueued(
    job_type: "Any" = None,
    *,
    payload: "Any" = _ANY,
    queue: str | None = None,
    where: "Callable[[Job], object] | None" = None,
    queue_file: Queue | None = None,
) -> None:
    """Check that no job of this type was enqueued; of None, that no job was."""
    file = queue_here(queue_file)
    found = _matching(file, job_type, payload, queue, where)
    if found:
        asked = _asked(job_type, payload, queue) or "none at all was expected"
        raise AssertionError(f"there is a job, {asked}; {_content(file)}")


def assert_chained(
    *types: "Any", name: str | None = None, queue_file: Queue | None = None
) -> "Chain":
    """Check that a chain whose steps are of these types, in this order, was enqueued; return it.

    A type is a text or a task; `name` is the chain's.  AssertionError says which chains there are.
    """
    from ..chain import get_chain

    return _group("chain", get_chain, types, name, queue_here(queue_file))


def assert_batched(
    *types: "Any", name: str | None = None, queue_file: Queue | None = None
) -> "Batch":
    """Check that a batch or workflow whose jobs are of these types was enqueued; return it.

    One for each job, in the order of adding: `assert_batched(*["thumbnail"] * 10)`.
    """
    from ..batch import get_batch

    return _group("batch", get_batch, types, name, queue_here(queue_file))


def _group(
    kind: str,
    get: "Callable[..., G | None]",
    types: "Sequence[Any]",
    name: str | None,
    file: Queue,
) -> "G":
    """Return the first chain or batch of these types and that name."""
    wanted = [_name(one) for one in types]
    seen: list[str] = []
    ids = dict.fromkeys(job.group for job in file.jobs() if (job.group or "").startswith(kind))
    for id in ids:
        found = get(id, queue_file=file)
        if found is None:
            continue
        has = [job.type for job in found.jobs()]
        if has == wanted and name in (None, found.name):
            return found
        seen.append(f"name={found.name!r} of {', '.join(has[:_SHOWN])}")
    asked = f"{kind} of {', '.join(map(str, wanted))}" + (f" with name={name!r}" if name else "")
    raise AssertionError("\n  ".join([f"no {asked}; {file.path} has {len(seen)}", *seen[:_SHOWN]]))


def _matching(
    file: Queue,
    job_type: "Any",
    payload: "Any",
    queue: str | None,
    where: "Callable[[Job], object] | None",
) -> list[Job]:
    return [
        job
        for job in file.jobs(type=_name(job_type), queue=queue)
        if (payload is _ANY or job.payload == payload) and (where is None or where(job))
    ]


def _name(job_type: "Any") -> str | None:
    """Return a type's text, of a task its name."""
    return job_type if job_type is None or isinstance(job_type, str) else job_type.name


def _asked(job_type: "Any", payload: "Any", queue: str | None) -> str:
    asked = {"type": _name(job_type), "queue": queue, "payload": payload}
    return " ".join(f"{key}={value!r}" for key, value in asked.items() if value not in (None, _ANY))


def _content(file: Queue) -> str:
    """Return what the file has, for the text of an assertion."""
    lines = [
        f"{job.type} {job.status} queue={job.queue!r} payload={job.payload!r:.200}"
        for job in file.jobs(limit=_SHOWN + 1)
    ]
    more = ["…"] if len(lines) > _SHOWN else []
    return "\n  ".join([f"{file.path} has {'these' if lines else 'none'}", *lines[:_SHOWN], *more])
