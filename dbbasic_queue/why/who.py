"""Who could run a job: the workers that live, and those that were seen within a week."""

from ..job import Job
from ..seen import Seen, seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..queue import Queue
    from ..recover import LiveWorker


class Worker:
    """A worker that lives, or one that was seen within a week."""

    def __init__(self, said: Seen | None, live: "LiveWorker | None") -> None:
        self.live = live
        name, queues = (said.name, said.queues) if said else ("", [])
        if live is not None:
            name, queues = live.name or "", live.queues
        self.queues = queues
        self.types = said.types if said and (live is None or said.types == ["*"]) else []
        if live is not None and not self.types:
            self.types = live.types
        self.limits = said.limits if said else []
        self.label = f"worker {live.id if live else name}" if live or name else "the worker"
        if not name and not live and queues:
            self.label = f"the worker of {listed(queues, 'queue')}"

    def serves(self, job: Job) -> bool:
        return not self.queues or job.queue in self.queues

    def handles(self, job: Job) -> bool:
        return job.type in self.types or self.types == ["*"]


def workers(queue: "Queue", live: "list[LiveWorker]") -> list[Worker]:
    """Return the workers that live, and then the others that were seen."""
    said = {_key(one): one for one in seen(queue.file)}
    found = [Worker(said.get(_key(one)), one) for one in live]
    here = set(map(_key, live))
    return found + [Worker(one, None) for key, one in said.items() if key not in here]


def _key(one: "Seen | LiveWorker") -> tuple[str, ...]:
    return (one.name,) if one.name else ("", *one.queues)


def listed(words: list[str], noun: str) -> str:
    """Return some words after their noun: queue a; types a, b, c and 4 more."""
    if not words:
        return ""
    if words == ["*"]:
        return "types that it does not list"
    more = f" and {len(words) - 12} more" if len(words) > 12 else ""
    return f"{noun}{'s' if len(words) > 1 else ''} {', '.join(words[:12])}{more}"
