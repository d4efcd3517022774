"""The rows that leave a file for good, because an engine has them from now on."""

from collections import Counter
from itertools import islice

from ..after import named
from ..edit import Edit
from ..job import Job
from ..queue import Queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_APART = "schedule"  # the type of the rows that make jobs, and stay


class Wanted:
    """Which pending jobs leave a file for good, due or not; `left` counts the others by why."""

    def __init__(self, types: "set[str] | None", queues: "set[str] | None") -> None:
        self._types = types
        self._queues = queues
        self.left: dict[str, int] = {}

    def take(self, queue: Queue, mark: str, most: int) -> "list[Job]":
        """Mark them as an engine's, at most so many, and return them as they were."""
        with queue.edit() as e:
            taken = list(islice(self._choose(e), most))
            for job in taken:
                e.change(job, status="processing", worker=mark)
        return taken

    def count(self, queue: Queue) -> "dict[str, int]":
        """Return how many would leave, by type; nothing is changed."""
        with queue.edit() as e:
            return dict(Counter(job.type for job in self._choose(e)))

    def _choose(self, e: Edit) -> "Iterator[Job]":
        self.left = {}
        waited_for = {name for job in e.rows() for name in named(job.cell("after"))}
        for job in e.scan("pending"):
            if self._types is not None and job.type not in self._types:
                continue
            if self._queues is not None and job.queue not in self._queues:
                continue
            why = _why_not(job, waited_for)
            if why:
                self.left[why] = self.left.get(why, 0) + 1
            else:
                yield job


def _why_not(job: Job, waited_for: "set[str]") -> str:
    """Return why a pending job cannot leave the file, "" when it can."""
    if job.type == _APART:
        return "schedules: they make jobs, and stay"
    if job.after or job.group:
        return "jobs that wait for others, or belong to a group"
    if {job.id, f"@{job.group}"} & waited_for:
        return "jobs that others wait for"
    return "" if job.payload_is_json() else "rows whose payload cannot be read"


def remove(queue: Queue, given: "Iterable[Job]") -> int:
    """Remove rows which an engine has for good, if they bear the mark that was seen."""
    count = 0
    with queue.edit() as e:
        for seen in given:
            job = e.get(seen.id)
            if job is not None and job.raw("worker") == seen.raw("worker"):
                e.remove(job)
                count += 1
    return count
