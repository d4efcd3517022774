"""What a caller of process_jobs asked for, checked before anything runs; each queue's defaults."""

import math
import os

from .after import is_label
from .errors import BadArgument
from .job import Job
from .layers import awaiting, check_layers, is_async
from .new import DEFAULT_BACKOFF, check_attempts, check_timeout, parse_backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .new import Backoff
    from .queue import Admit, Handlers, Layer, Listener
    from .recover import LiveWorker

SETTINGS = {"rank", "max_attempts", "timeout", "backoff", "aging"}


class Options:
    """What a caller of process_jobs asked for, checked, with the defaults of each queue."""

    def __init__(
        self,
        *,
        handlers: "Handlers",
        max_attempts: int,
        queues: "Sequence[str] | None",
        run_for: float | None,
        max_jobs: int | None,
        processes: int | tuple[int, int],
        name: str | None,
        timeout: float | None,
        backoff: "str | Backoff | None",
        max_workers: int | None,
        grace: float | None,
        concurrency: int,
        memory: int | None,
        middleware: "Sequence[Layer]",
        listeners: "Sequence[Listener]",
        own_listeners: "Sequence[Listener]",
        admit: "Sequence[Admit]",
        settings: "Mapping[str, Mapping[str, Any]] | None",
        tend: "Callable[[], None] | None" = None,
    ) -> None:
        if type(concurrency) is not int or concurrency < 1:
            raise BadArgument(f"concurrency={concurrency!r:.80} is no number of at least 1")
        self.concurrency = concurrency
        pair = processes if isinstance(processes, tuple) else (processes, processes)
        if len(pair) != 2 or not all(type(n) is int for n in pair) or not 0 <= pair[0] <= pair[1]:
            raise BadArgument(f"processes={processes!r:.80} is neither a number nor (least, most)")
        if pair[1] and not pair[0]:
            raise BadArgument(f"processes={processes!r:.80}: at least 1, who looks for jobs")
        if pair[1] and max_jobs is not None:
            raise BadArgument(f"max_jobs={max_jobs!r:.80} goes with a single process only")
        self.processes = pair
        if memory is not None and not (_is_number(memory) and memory >= 1 and pair[1]):
            raise BadArgument(f"memory={memory!r:.80}: megabytes of each of the `processes`")
        self.memory = memory
        for one in handlers:
            if not isinstance(one, str):
                raise BadArgument(f"handlers has the key {one!r:.80}: a type is a text")
            if isinstance(handlers, dict) and not callable(handlers[one]):
                raise BadArgument(f"handlers[{one!r}]={handlers[one]!r:.80} is no function")
        if isinstance(queues, str):
            raise BadArgument(f"queues={queues!r:.80} is one text: give a list of labels")
        at_least = {"run_for": (run_for, 0), "grace": (grace, 0)}
        for name_of, (number, least) in (
            at_least | {"max_jobs": (max_jobs, 0), "max_workers": (max_workers, 1)}
        ).items():
            if number is not None and not (_is_number(number) and number >= least):
                raise BadArgument(f"{name_of}={number!r:.80} is no number of at least {least}")
        if name is not None and not (is_label(name) and name[0] != "."):
            raise BadArgument(
                f"name={name!r:.80}: a worker's name is 1 to 100 letters, digits, _ . or -"
            )
        check_layers(middleware)
        for what, functions in (("listeners", listeners), ("admit", admit)):
            if not hasattr(functions, "__iter__") or not all(map(callable, functions)):
                raise BadArgument(f"{what}={functions!r:.80} is no list of functions")
        if concurrency > 1:
            middleware = list(map(awaiting, middleware))
        if concurrency > 1 and (plain := [one for one in middleware if not is_async(one)]):
            raise BadArgument(
                f"concurrency={concurrency} needs `async def` layers: {plain[0]!r:.80}"
            )
        _check_settings(settings or {})
        self.handlers = handlers
        self.max_attempts = check_attempts(max_attempts)
        self.queues = list(queues) if queues is not None else None
        self.run_for = run_for or None  # 0 is one tick
        self.max_jobs = math.inf if max_jobs is None else max_jobs
        self.name = name
        self.timeout = timeout if timeout is None else check_timeout(timeout)
        self.backoff = parse_backoff(backoff or DEFAULT_BACKOFF)
        self.max_workers = max_workers
        self.grace = grace
        self.middleware = tuple(middleware)
        self.listeners = (*own_listeners, *listeners)
        self.admit = tuple(admit)
        self.settings = dict(settings or {})
        self.tend = tend  # the upkeep, which says itself when it is due

    def are_enough(self, live: "list[LiveWorker]") -> bool:
        """Whether so many workers of the same queues live that one more is not wanted.

        Ticks must not pile up behind long jobs; what runs for ever was started once, on purpose.
        """
        if self.max_workers is None and self.run_for == math.inf:
            return False
        same = sum(one.queues == (self.queues or []) for one in live)
        return same >= (self.max_workers or max(4, os.cpu_count() or 1))

    def rank(self, queue: str) -> int | None:
        """Return the precedence of a queue, None when this worker does not serve it."""
        if self.queues is not None:
            return self.queues.index(queue) if queue in self.queues else None
        return int(self.settings.get(queue, {}).get("rank", 0)) + (1 << 20)

    def attempts_of(self, job: Job) -> int:
        own = self.settings.get(job.queue, {}).get("max_attempts") if self.settings else None
        return job.max_attempts or own or self.max_attempts

    def timeout_of(self, job: Job) -> float | None:
        own = self.settings.get(job.queue, {}).get("timeout") if self.settings else None
        return job.timeout or own or self.timeout

    def backoff_of(self, job: Job) -> "Backoff":
        words = job.backoff or self.settings.get(job.queue, {}).get("backoff")
        return parse_backoff(words) if words else self.backoff


def _check_settings(settings: "Mapping[str, Mapping[str, Any]]") -> None:
    if not hasattr(settings, "items"):
        raise BadArgument(f"settings={settings!r:.80} is no mapping of queues to settings")
    for label, one in settings.items():
        where = f"settings[{label!r:.80}]"
        if not hasattr(one, "items"):
            raise BadArgument(f"{where} is {one!r:.80}, no mapping")
        for what, value in one.items():
            if what == "max_attempts":
                check_attempts(value)
            elif what == "timeout":
                check_timeout(value)
            elif what == "backoff":
                parse_backoff(value)
            elif what not in ("rank", "aging"):
                raise BadArgument(f"{where} has {what!r:.80}, not one of {sorted(SETTINGS)}")
            elif not _is_number(value) or (what == "rank" and value != int(value)):
                raise BadArgument(f"{where}: {what}={value!r:.80} is no number")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
