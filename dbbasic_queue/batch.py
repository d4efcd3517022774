"""Many jobs with a common end, and graphs of jobs: all their rows are added at once.

What is to happen afterwards are jobs too, which wait for the batch: `then` when no more than
`allow_failures` of its jobs are failed or cancelled, `catch` as soon as more are, `finally_` when
all have finished.  A batch is its rows: nothing is counted that could drift.
"""

from graphlib import CycleError, TopologicalSorter

from . import group
from .after import as_cell
from .errors import BadArgument
from .here import queue_here
from .job import new_ids
from .queue import Queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from .group import Item
    from .job import Job


class Batch(group.Group):
    """A batch as it was when it was asked for; see `Group` for its figures."""


def enqueue_batch(
    jobs: "Iterable[Item]",
    *,
    name: str | None = None,
    then: "Item | None" = None,
    catch: "Item | None" = None,
    finally_: "Item | None" = None,
    allow_failures: int = 0,
    queue_file: Queue | None = None,
) -> Batch:
    """Add jobs that belong together, and what follows their end, in one append; return the batch.

    Each is (type, payload), (type, payload, run_at) or a mapping of `enqueue`'s arguments, such as
    `task.job(…)` gives.  `name` is a text of at most 200 characters, kept with the first job.  A
    `kill -9` in the middle may leave the first of the rows.  BadArgument: nothing was added.
    """
    queue, id = queue_here(queue_file), group.label("batch")
    said = group.about(name, allow_failures)
    given = [one | {"group": id} for one in group.items(jobs, "a batch")]
    count = len(given)
    given += group.callbacks(id, allow_failures, then=then, catch=catch, finally_=finally_)
    group.describe(given, count, said)
    return Batch(id, queue, group.add(queue, given, "a batch"))


def enqueue_workflow(
    jobs: "Mapping[str, Item]",
    after: "Mapping[str, Iterable[str]]",
    *,
    name: str | None = None,
    then: "Item | None" = None,
    catch: "Item | None" = None,
    finally_: "Item | None" = None,
    allow_failures: int = 0,
    queue_file: Queue | None = None,
) -> Batch:
    """Add a graph of jobs in one append: `after={"c": ["a", "b"]}` lets c wait for a and b.

    The names are those of the mapping `jobs`, and stay in this call; `Batch.jobs` yields the jobs
    in its order.  A job whose parents do not all complete is cancelled.  BadArgument for names that
    are none, and for jobs that wait for each other.  See `enqueue_batch` for the rest.
    """
    for what, mapping in (("jobs", jobs), ("after", after)):
        if not hasattr(mapping, "keys"):
            raise BadArgument(f"{what}={mapping!r:.80} is no mapping of names")
    queue, id = queue_here(queue_file), group.label("batch")
    said = group.about(name, allow_failures)
    given = dict(zip(jobs, group.items(jobs.values(), "a workflow"), strict=True))
    parents = {key: _parents(key, after.get(key, ()), given) for key in (*after, *given)}
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        circle = " ".join(map(repr, error.args[1]))
        raise BadArgument(f"after=: these jobs wait for each other: {circle}") from None
    ids = {
        key: item.get("id") or id
        for (key, item), id in zip(given.items(), new_ids(len(given)), strict=True)
    }
    for key, item in given.items():
        wanted = [as_cell(item["after"])] if item.get("after") else []
        if parents[key]:
            wanted.append("ok:" + ",".join(ids[one] for one in parents[key]))
        given[key] = item | {"group": id, "id": ids[key], "after": " ".join(wanted) or None}
    rows = list(given.values())
    rows += group.callbacks(id, allow_failures, then=then, catch=catch, finally_=finally_)
    group.describe(rows, len(given), said)
    return Batch(id, queue, group.add(queue, rows, "a workflow"))


def _parents(key: str, names: "Iterable[str]", jobs: "Mapping[str, Any]") -> list[str]:
    found = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    for one in (key, *found):
        if one not in jobs:
            raise BadArgument(f"after={{{key!r}: {found!r}}}: no job is called {one!r}")
    return found


def get_batch(id: str, *, queue_file: Queue | None = None) -> Batch | None:
    """Return a batch as it is now, None when no job belongs to one of that id."""
    found = Batch(id, queue_here(queue_file))
    return found if found.total else None


def batches(limit: int = 50, *, queue_file: Queue | None = None) -> list[Batch]:
    """Return the batches that were made last and have rows in the file, newest first.

    Unlike `get_batch` it does not count what has been archived.
    """
    return group.newest(queue_here(queue_file), "batch", Batch, limit)


def append(id: str, jobs: "Iterable[Item]", *, queue_file: Queue | None = None) -> list[str]:
    """Add jobs to a batch that has not finished, in one edit, and return their ids.

    `then`, `catch` and `finally_` wait for them too.  UnknownJob when there is no such batch,
    BadArgument when all its jobs have finished.
    """
    return group.append(queue_here(queue_file), id, group.items(jobs, "a batch"))


def cancel_batch(id: str, *, queue_file: Queue | None = None) -> int:
    """Cancel the jobs of a batch that have not begun, and `then` and `catch`; return how many jobs.

    What runs goes on, and then `finally_` runs.  UnknownJob when there is no such batch.
    """
    return group.cancel(queue_here(queue_file), id)


def results(*, queue_file: Queue | None = None) -> "Iterator[Any]":
    """Yield the results of the completed jobs, in the order of adding, of the batch that this
    handler's job has waited for, else of its own.
    """
    found = group.members(queue_here(queue_file), group.group_here())
    return (job.result for job in found if job.status == "completed")


def failed_jobs(*, queue_file: Queue | None = None) -> "Iterator[Job]":
    """Yield the failed jobs, with their errors, of the batch or chain as in `results`."""
    found = group.members(queue_here(queue_file), group.group_here())
    return (job for job in found if job.status == "failed")
