"""The commands that run jobs: work (one tick, or as long as you say) and run (one job, here)."""

import fcntl
import importlib
import logging
import math
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager

from .. import Queue, QueueError, health, shell
from ..errors import BadArgument
from ..middleware import traceback_kept
from ..redact import redacted, redacting
from ..show import as_json, document, visible
from . import ping
from .output import Output, tell
from .sealed import opening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType
    from typing import Any

    from .. import Job

    Handlers = Mapping[str, Callable[[Any], Any]]


_EVENTS = {
    "started": b"s",
    "completed": b"c",
    "failed": b"f",
    "retried": b"r",
    "snoozed": b"z",
    "cancelled": b"x",
    "recovered": b"v",
}


class _Lines(logging.Formatter):
    """Log lines without a control character; further lines of a message are set in."""

    def format(self, record: logging.LogRecord) -> str:
        first, *more = map(visible, super().format(record).split("\n"))
        return "\n".join([first, *(f"    {line.removeprefix('    ')}" for line in more)])


class _Terminated(SystemExit):
    """SIGTERM came, and whatever ran has been put away."""


def _log_to_stderr(level: int, given: "Namespace | None" = None) -> None:
    if logging.getLogger().handlers:
        return  # the module of the handlers has ideas of its own
    to_stderr = logging.StreamHandler()
    if getattr(given, "log_json", False):
        from ..jsonlog import JSONFormatter

        to_stderr.setFormatter(JSONFormatter())
    else:
        to_stderr.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[to_stderr])


def load(words: str, given: "Namespace | None" = None) -> "Mapping[str, Any]":
    """Return the mapping that MODULE:NAME means."""
    found = load_any(words, given)
    if not hasattr(found, "keys") or not hasattr(found, "__getitem__"):
        raise BadArgument(f"{words} is no mapping, but {type(found).__name__}")
    mapping: Mapping[str, Any] = found
    return mapping


def load_any(words: str, given: "Namespace | None" = None) -> "Any":
    """Return what MODULE:NAME means; the working folder comes first."""
    module, colon, name = words.partition(":")
    if not colon or not module or not name:
        raise BadArgument(f"{words!r:.80} is not MODULE:NAME, as in handlers:HANDLERS")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, _Terminated):
            raise
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if not missing or not f"{module}.".startswith(f"{missing}."):
            _log_to_stderr(logging.ERROR, given)
            logging.getLogger("dbbasic_queue").error("importing %s", module, exc_info=error)
        raise BadArgument(f"cannot import {module}: {type(error).__name__}: {error}") from error
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise BadArgument(f"the module {module} has no {name}") from None
    return found


def handlers_of(given: "Namespace") -> "Handlers":
    """Return the handlers that are meant, those of commands, and what runs schedules."""
    if given.handlers is None and not given.shell:
        raise BadArgument("which handlers? give MODULE:HANDLERS, or --shell for commands")
    handlers: Handlers = load(given.handlers, given) if given.handlers else {}
    if given.shell:
        size = getattr(given, "output", None)
        own = shell.handlers if size is None else shell.handlers_with(output=size << 20)
        handlers = {**handlers, **own}
    if "schedule" in handlers:
        return handlers
    from ..schedule import serving

    return serving(handlers)


def arguments_of(given: "Namespace") -> "dict[str, Any]":
    """Return the arguments of process_jobs: those of the flags, and of the mapping --options."""
    from inspect import signature

    if (given.load, given.output) != (None, None) and not given.shell:
        raise BadArgument("--load and --output are for commands: give --shell too")
    flags = {
        "max_attempts": given.max_attempts,
        "queues": _labels(given.queue),
        "keep": dict(given.keep) if given.keep else None,
    }
    for name in (
        "run_for max_jobs processes memory concurrency name timeout backoff max_workers grace"
        " keep_by"
    ).split():
        flags[name] = getattr(given, name)
    options = dict(load(given.options, given)) if given.options else {}
    known = signature(Queue.process_jobs).parameters
    if unknown := [name for name in options if name not in known or name in ("self", "handlers")]:
        raise BadArgument(f"{given.options}: process_jobs has no argument {unknown[0]!r:.80}")
    for name in ("middleware", "listeners", "admit"):
        if name in options and not hasattr(options[name], "__iter__"):
            text = f"{name}={options[name]!r:.80} is no list of functions"
            raise BadArgument(f"{given.options}: {text}")
    for name, value in flags.items():
        if value != known[name].default and name in options:
            raise BadArgument(f"{given.options} says {name} too: give it once")
        options.setdefault(name, value)
    if given.keep_by == "purge" and options["keep"] is None:
        raise BadArgument("--keep-by purge says where, --keep STATUS=TIME what: give both")
    if given.load is not None:
        options["admit"] = [*options.get("admit", ()), shell.quiet(given.load)]
    return options


def _name_of(given: "Namespace") -> str:
    return given.name or given.handlers or "--shell"


@contextmanager
def _telling_why_not(
    queue: Queue, given: "Namespace", kind: type[Exception] = Exception
) -> "Iterator[None]":
    """Keep beside the queue why this cannot begin, where `health` finds it."""
    try:
        yield
    except kind as error:
        text = str(error) if isinstance(error, QueueError) else f"{type(error).__name__}: {error}"
        health.note(queue, _name_of(given), text)
        raise


def _ping_of(given: "Namespace") -> str:
    """Return the URL of --ping, "" without one."""
    if given.ping and given.run_for == math.inf:
        text = "it is sent at the end of a tick, and --forever has none"
        raise BadArgument(f"--ping: {text}; let cron call `health --ping URL`")
    return ping.checked(given.ping) if given.ping else ""


def _leave(number: int, frame: "FrameType | None") -> None:
    raise _Terminated(0)


def work(queue: Queue, given: "Namespace", out: Output) -> int:
    """Run the jobs that are due, and return."""
    url = _ping_of(given)
    tally = None
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)  # the worker calls it when it has stopped
    try:
        with _telling_why_not(queue, given):
            handlers, arguments = handlers_of(given), arguments_of(given)
        health.forget(queue, _name_of(given))
        _log_to_stderr(logging.INFO if given.verbose else logging.WARNING, given)
        logging.getLogger("dbbasic_queue").info("queue %s", queue.path)
        shows = out.shows_progress and not given.verbose
        tally = Tally() if out.json or shows else None
        if tally:
            arguments["listeners"] = [*arguments.get("listeners", ()), tally.note]
        try:
            with out.progress("working" if shows else "", tally.text if tally else str):
                layers = [traceback_kept, redacting, *opening(), *arguments.pop("middleware", ())]
                with _telling_why_not(queue, given, BadArgument):
                    queue.process_jobs(handlers, middleware=layers, **arguments)
            if url and (problem := ping.ping(url)):
                logging.getLogger("dbbasic_queue").warning("%s", problem)
        except _Terminated:
            pass  # it has stopped in good order
        if out.json and tally:
            out.document({event: count for event, count in tally.counts().items() if count})
    finally:
        if tally:
            tally.close()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    return 0


class Tally:
    """How many events there were, in this process and in those that it forks.

    Each is a byte at the end of a file without a name that they all share.
    """

    def __init__(self) -> None:
        import tempfile

        with tempfile.TemporaryFile(buffering=0) as file:
            fd = self._fd = os.dup(file.fileno())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        self._own = self._identity()
        self._read = 0
        self._counts = dict.fromkeys(_EVENTS, 0)

    def close(self) -> None:
        if self._is_there():
            os.close(self._fd)

    def _identity(self) -> tuple[int, int]:
        st = os.fstat(self._fd)
        return st.st_dev, st.st_ino

    def _is_there(self) -> bool:
        """Whether the descriptor is still ours: a handler may have closed all that it found."""
        try:
            return self._identity() == self._own
        except OSError:
            return False

    def note(self, event: str, job: "Job") -> None:
        """Count one event; this is a listener."""
        if event in _EVENTS and self._is_there():
            os.write(self._fd, _EVENTS[event])

    def counts(self) -> "dict[str, int]":
        """Return how often each event has come until now."""
        while self._is_there() and (new := os.pread(self._fd, 1 << 20, self._read)):
            self._read += len(new)
            for event, letter in _EVENTS.items():
                self._counts[event] += new.count(letter)
        return self._counts

    def text(self) -> str:
        """Return what the line on the terminal says of them."""
        counts = self.counts()
        return f", {counts['completed']} completed, {counts['failed']} failed"


def _labels(text: str | None) -> "list[str] | None":
    labels = None if text is None else [label.strip() for label in text.split(",")]
    if labels and not all(labels):
        raise BadArgument(f"--queue {text!r:.80}: give the names of queues, as in high,default")
    return labels


def run(queue: Queue, given: "Namespace", out: Output) -> int:
    """Run one pending job here and now."""
    handlers = handlers_of(given)
    _log_to_stderr(logging.INFO if given.verbose else logging.ERROR)  # errors: the traceback
    job = queue.get(given.id)
    problem = _why_not(queue, job, given.id, handlers)
    if problem or job is None:
        tell(problem)
        return 1
    ended: list[Job] = []
    with queue.edit() as e:
        row = e.get(job.id)
        if row and row.status == "pending" and not row.is_due(time.time()):
            e.change(row, run_at=int(time.time()))
    queue.process_jobs(
        handlers,
        queues=[job.queue],
        max_jobs=1,
        max_workers=1 << 20,
        middleware=[traceback_kept, redacting, *opening()],
        admit=[lambda one, count: None if one.id == given.id else False],
        listeners=[lambda event, one: ended.append(one) if one.id == given.id else None],
    )
    now = redacted(queue.get(given.id) or job)
    if not ended:
        waits = f"it waits: after {now.after}" if now.after else f"it is {now.status}"
        tell(f"job {given.id} was not run here: {waits}")
        return 1
    if out.json:
        out.document(document(now))
    elif now.status == "completed":
        out.line(as_json(now.result))
    if now.status != "completed":
        tell(f"job {given.id} is {now.status} after attempt {now.attempts}: {now.error}")
    return 0 if now.status == "completed" else 1


def _why_not(queue: Queue, job: "Job | None", id: str, handlers: "Handlers") -> str:
    """Return why a job cannot be run, "" when it can."""
    if job is None:
        return f"{queue.path}: no job has the id {id}"
    if job.finished:
        again = "" if job.status == "completed" else f"; `retry {id}` makes it pending again"
        return f"job {id} is {job.status} already{again}"
    if job.status == "processing":
        return f"job {id} is running, by worker {job.worker}"
    return "" if job.type in handlers else f"no handler for type {job.type}, which job {id} has"
