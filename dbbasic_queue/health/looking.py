"""The checks themselves: what can be wrong with a queue, in the order in which it is told."""

import os
import time

from ..beside import open_queue
from ..errors import ForeignFile, QueueError
from ..files import read_header
from ..kinds import DUE, Kinds
from ..queue import Queue, default_queue
from ..seen import Seen, seen
from ..show import span
from ..stats import SILENT, stats
from ..tsv import visible
from .broken import broken
from .check import CRITICAL, OK, OTHERS, UNKNOWN, WARNING, Bounds, Check, Figure, bounds
from .check import bounds_by_queue as by_queue
from .log_end import last_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from .check import Bound

_TIGHT = 64 << 20  # bytes that should be free beside two copies of the file
_LEAST = 1 << 20  # and without which no edit can be made
_SLACK = 5  # seconds that a log may be younger than the tick that it tells of
_NAMED = 3  # types or queues that one text names


def check(
    queue_file: Queue | None = None,
    *,
    max_tick_age: "Bound" = SILENT,
    max_due_age: "Bound" = (600, 3600),
    max_backlog: "Bound | Mapping[str, Bound]" = None,
    max_fail: "Bound" = None,
    log: str | None = None,
) -> list[Check]:
    """Look once, and return a check for each thing that was looked at.

    A bound is a number, above which it is critical, or a pair (warning, critical), either of them
    perhaps None; None: never.  `max_tick_age`: seconds since the last tick.  `max_due_age`: since a
    job became due that has not begun, paused queues left out.  `max_backlog`: due jobs of a queue,
    for each of them or as {"mail": 1000, "*": 100}.  `max_fail`: the share of the jobs finished in
    the last day that failed, 0.1 for 10 %.  `log`: the file that cron's line writes; when no tick
    comes, its last traceback is told.
    """
    queue = queue_file or default_queue()
    tick, due = bounds("max_tick_age", max_tick_age), bounds("max_due_age", max_due_age)
    backlog, fail = by_queue("max_backlog", max_backlog), bounds("max_fail", max_fail)
    problem = _unusable(queue)
    if problem:
        return [problem]
    try:
        found = stats(queue_file=queue)
    except (QueueError, OSError) as error:
        return [Check("file", UNKNOWN, _said(queue.path, error))]
    return [
        _ticks(queue, found, tick, log),
        *_broken(queue, found, tick),
        *_due(found, due),
        *_backlog(found, backlog),
        *_failures(found, fail),
        *_lines(found),
        *_unserved(queue, found),
        *_paused(found),
        *_stuck(found),
        *_disk(queue),
    ]


def _said(path: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return visible(f"{error.filename or path}: {error.strerror or error}")
    return visible(str(error))


def _unusable(queue: Queue) -> Check | None:
    """Return what keeps anybody from looking, or every worker from working."""
    path = queue.path
    try:
        fd = open_queue(path)
        try:
            read_header(fd, path)
            st = os.fstat(fd)
        finally:
            os.close(fd)
        folder = os.path.dirname(queue.file.real)
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except FileNotFoundError:
        if os.path.isdir(queue.file.side):
            return Check("file", CRITICAL, visible(f"{path} is gone; what lies beside it is there"))
        return Check("file", UNKNOWN, visible(f"there is no queue {path}"))
    except ForeignFile as error:
        return Check("file", CRITICAL, visible(str(error)))
    except (QueueError, OSError) as error:
        return Check("file", UNKNOWN, _said(path, error))
    if read_only:
        return Check("file", CRITICAL, visible(f"{path}: the file system is read-only"))
    for place, bits in ((queue.file.real, os.W_OK), (folder, os.W_OK | os.X_OK)):
        # whoever else looks, as a monitor does, need not be able to write
        if os.geteuid() == st.st_uid and not os.access(place, bits, effective_ids=True):
            return Check("file", CRITICAL, visible(f"{place} cannot be written by its owner"))
    return None


# --- does anything run?


def _ticks(queue: Queue, found: "dict[str, Any]", bound: Bounds, log: str | None) -> Check:
    age = found["last_tick_age"]
    none_yet = age is None
    if none_yet:
        age = _age_of_first(queue, found)
    figures = () if none_yet else (bound.figure("tick", round(age), "s"),)
    level = bound.level(age)
    if level == OK:
        return Check("tick", OK, "no tick yet" if none_yet else _last(age), figures)
    if not none_yet and any(one["running"] for one in found["by_worker"] or ()):
        text = f"{_last(age)}, and a worker lives that runs a job"
        return Check("tick", OK, text, figures)
    text = "no tick yet" if none_yet else f"no tick since {_time(time.time() - age)}"
    words = _words_of(log, None if none_yet else time.time() - age) if log else ""
    return Check("tick", level, f"{text}; {words}" if words else text, figures)


def _age_of_first(queue: Queue, found: "dict[str, Any]") -> float:
    """Return for how long one could have come; without a job none leaves a trace."""
    if not found["jobs"]:
        return 0.0
    age: float = max(0.0, time.time() - os.stat(queue.path).st_mtime)
    return max(age, found["oldest_due_age"] or 0.0)


def _last(age: float) -> str:
    return f"last tick {span(age)} ago"


def _time(at: float) -> str:
    form = "%H:%M:%S" if time.time() - at < 86400 else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, time.localtime(at))


def _words_of(log: str, since: float | None) -> str:
    """Return what the log says why; only what was written after the last tick can."""
    try:
        written = os.stat(log).st_mtime
        words = last_words(log)
    except OSError as error:
        return visible(f"{log}: {error.strerror}")
    if since is not None and written < since + _SLACK:
        return visible(f"{log}: nothing was written to it since then")
    return visible(f"{log}: {words}" if words else f"{log} is empty")


def _broken(queue: Queue, found: "dict[str, Any]", bound: Bounds) -> "Iterator[Check]":
    """Tell of workers that could not begin: as long as they are tried, or nothing else ticks."""
    most = bound.critical if bound.critical is not None else bound.warning
    age, now = found["last_tick_age"], time.time()
    for name, at, reason in broken(queue):
        again = most is None or now - at <= most or age is None or now - age < at
        ago = "" if again else f" (tried {span(now - at)} ago)"
        yield Check("broken", CRITICAL if again else WARNING, f"{name}: {reason}{ago}")


# --- does it keep up?


def _due(found: "dict[str, Any]", bound: Bounds) -> "Iterator[Check]":
    paused = found["paused"] or ()
    by_queue = found["by_queue"]
    ages = [line["oldest_due_age"] for label, line in by_queue.items() if label not in paused]
    age = max((one for one in ages if one is not None), default=None)
    count = sum(line["due"] for label, line in by_queue.items() if label not in paused)
    text = f"{count} due" + (f", the oldest for {span(age)}" if age is not None else "")
    figures = (Figure("due", count, ""), bound.figure("oldest_due", round(age or 0), "s"))
    yield Check("due", bound.level(age or 0), text, figures)


def _backlog(found: "dict[str, Any]", given: "Mapping[str, Bounds]") -> "Iterator[Check]":
    paused = found["paused"] or ()
    for label in sorted({*found["by_queue"], *given} - {OTHERS}):
        bound = given.get(label, given[OTHERS])
        count = found["by_queue"].get(label, {"due": 0})["due"]
        if bound == Bounds() or label in paused:
            continue
        text = f"{count} due in queue {visible(label)}"
        yield Check("backlog", bound.level(count), text, (bound.figure(f"due_{label}", count),))


def _failures(found: "dict[str, Any]", bound: Bounds) -> "Iterator[Check]":
    lines = found["by_type"].values()
    failed = sum(line["failed"] for line in lines)
    ended = failed + sum(line["completed"] for line in lines)
    share = failed / ended if ended else 0.0
    text = f"{failed} of {ended} failed in the last {span(found['window'])} ({share:.0%})"
    yield Check("failures", bound.level(share), text, (bound.figure("failed", round(share, 4)),))


# --- is something wrong with it?


def _lines(found: "dict[str, Any]") -> "Iterator[Check]":
    count = found["bad_lines"]
    text = f"{count} bad line{'' if count == 1 else 's'}: `doctor` says which"
    figure = Bounds(warning=0).figure("bad_lines", count)
    yield Check("lines", WARNING if count else OK, text if count else "0 bad lines", (figure,))


def _unserved(queue: Queue, found: "dict[str, Any]") -> "Iterator[Check]":
    """Tell of due jobs that no worker of the last ticks would take."""
    serve, paused = _seen(queue), found["paused"] or ()
    if not serve:
        return
    queues = [
        label
        for label, line in found["by_queue"].items()
        if line["due"] and label not in paused and not any(one.serves(label) for one in serve)
    ]
    if queues:
        yield Check("queues", CRITICAL, f"due jobs in {_named('queue', queues)} that nobody serves")
    pending = [name for name, counts in found["types"].items() if counts["pending"]]
    unknown = {name for name in pending if not any(one.handles(name) for one in serve)}
    if unknown:
        kinds = Kinds(queue)
        due = {
            job.type
            for job in queue.jobs(status="pending")
            if job.type in unknown and kinds.of(job) == DUE
        }
        if due:
            text = f"due jobs of {_named('type', sorted(due))} that nobody handles"
            yield Check("types", CRITICAL, text)


def _seen(queue: Queue) -> list[Seen]:
    try:
        return seen(queue.file)
    except (QueueError, OSError):
        return []


def _named(noun: str, names: list[str]) -> str:
    text = ", ".join(visible(name) for name in names[:_NAMED])
    more = len(names) - _NAMED
    ending = f" and {more} more" if more > 0 else ""
    return f"{noun}{'' if len(names) == 1 else 's'} {text}{ending}"


def _paused(found: "dict[str, Any]") -> "Iterator[Check]":
    if found["paused"] is None:
        yield Check("paused", UNKNOWN, "which queues are paused cannot be read")
    for label in found["paused"] or ():
        count = found["by_queue"].get(label, {"due": 0})["due"]
        if count:
            yield Check("paused", WARNING, f"queue {visible(label)} is paused, and {count} due")


def _stuck(found: "dict[str, Any]") -> "Iterator[Check]":
    """Tell of jobs whose worker is dead: the next tick takes them in."""
    count = found["stuck"]
    if count is None:
        return
    figure = Bounds(warning=0).figure("stuck", count)
    text = f"{count} stuck: no worker lives that has them" if count else "0 stuck"
    yield Check("stuck", WARNING if count else OK, text, (figure,))


def _disk(queue: Queue) -> "Iterator[Check]":
    """Look whether an edit, which writes a copy of the file, has room."""
    try:
        disk = os.statvfs(os.path.dirname(queue.file.real))
        size = os.stat(queue.file.real).st_size
    except OSError as error:
        yield Check("disk", UNKNOWN, _said(queue.path, error))
        return
    free = disk.f_bavail * disk.f_frsize
    full = free < size + _LEAST or (disk.f_files and not disk.f_favail)
    level = CRITICAL if full else WARNING if free < 2 * size + _TIGHT else OK
    if disk.f_files and not disk.f_favail:
        text = "the disk has no room for another file"
    else:
        text = f"{free >> 20} MB of the disk are free"
    yield Check("disk", level, text, (Figure("free", free >> 20, "MB"),))
