"""Jobs one after the other: all rows are added at once, and each waits for the one before."""

from . import group
from .after import as_cell, is_callback
from .here import queue_here
from .job import new_ids
from .queue import Queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from .group import Item
    from .job import Job


class Chain(group.Group):
    """A chain as it was when it was asked for; see `Group` for its figures.

    `current_step` is the number, from 1, of the first step that has not completed, so of the one
    that failed, or of the last step; `current_type` is that step's type.
    """

    current_step = 0
    current_type = ""
    _reached = False  # the step that has not completed

    def _count(self, found: "Iterable[Job]") -> None:
        super()._count(self._follow(found))

    def _follow(self, found: "Iterable[Job]") -> "Iterator[Job]":
        for job in found:
            if not self._reached and not is_callback(job):
                self.current_step += 1
                self.current_type = job.type
                self._reached = job.status != "completed"
            yield job


def enqueue_chain(
    jobs: "Iterable[Item]",
    *,
    name: str | None = None,
    then: "Item | None" = None,
    catch: "Item | None" = None,
    finally_: "Item | None" = None,
    queue_file: Queue | None = None,
) -> Chain:
    """Add jobs that run one after the other, in one append; return the chain.

    A step that fails or is cancelled ends the chain: the steps behind it are cancelled.  `then`
    runs when all have completed, `catch` when one has not, `finally_` at the end in any case.
    Each is (type, payload), (type, payload, run_at) or a mapping of `enqueue`'s arguments.  A `kill
    -9` in the middle may leave the first of the rows.  BadArgument: nothing was added.
    """
    queue, id = queue_here(queue_file), group.label("chain")
    said = group.about(name)
    steps = group.items(jobs, "a chain")
    given, last = [], ""
    for step, own_id in zip(steps, new_ids(len(steps)), strict=True):
        own = as_cell(step["after"]) if step.get("after") else ""
        wanted = " ".join(filter(None, [own, last and f"ok:{last}"]))
        last = step.get("id") or own_id
        given.append(step | {"group": id, "id": last, "after": wanted or None})
    given += group.callbacks(id, 0, then=then, catch=catch, finally_=finally_)
    group.describe(given, len(steps), said)
    return Chain(id, queue, group.add(queue, given, "a chain"))


def get_chain(id: str, *, queue_file: Queue | None = None) -> Chain | None:
    """Return a chain as it is now, None when no job belongs to one of that id."""
    found = Chain(id, queue_here(queue_file))
    return found if found.total else None


def chains(limit: int = 50, *, queue_file: Queue | None = None) -> list[Chain]:
    """Return the chains that were made last and have rows in the file, newest first.

    Unlike `get_chain` it does not count what has been archived.
    """
    return group.newest(queue_here(queue_file), "chain", Chain, limit)


def append(id: str, jobs: "Iterable[Item]", *, queue_file: Queue | None = None) -> list[str]:
    """Add steps behind the last one of a chain that has not finished; return their ids.

    UnknownJob when there is no such chain, BadArgument when all its steps have finished.
    """
    return group.append(queue_here(queue_file), id, group.items(jobs, "a chain"), in_a_row=True)


def cancel_chain(id: str, *, queue_file: Queue | None = None) -> int:
    """Cancel the steps of a chain that have not begun, and `then` and `catch`; return how many.

    What runs goes on, and then `finally_` runs.  UnknownJob when there is no such chain.
    """
    return group.cancel(queue_here(queue_file), id)


def previous_results(*, queue_file: Queue | None = None) -> "list[Any]":
    """Return the results of the jobs that this handler's job has waited for, in their order.

    Of a group, as `then` waits for one, those of its completed jobs.  BadArgument when it has
    waited for none, UnknownJob when one of them is gone.
    """
    return [before.result for before in group.waited_for(queue_here(queue_file))]


def previous_result(*, queue_file: Queue | None = None) -> "Any":
    """Return the result of the job before the one that runs here; of several, of the last one.

    None where none of them has completed.
    """
    return next(reversed(previous_results(queue_file=queue_file)), None)
