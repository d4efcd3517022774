"""A new job, from what a caller gave: every value is checked here, before any file is touched."""

import math
import os
import time

from .after import as_cell, is_id, is_label, parse
from .errors import BadArgument
from .job import Job, is_ahead
from .tsv import COLUMNS, HEADER, PENDING, check_column, check_plain, dump, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime, timedelta
    from typing import Any

    When = float | datetime | timedelta | None
    Backoff = Callable[[int], float]

EARLIEST = 10**8  # 1973: a smaller number of seconds is meant from now on
LATEST = 253402300799  # the last second of the year 9999
DEFAULT_BACKOFF = "exponential:60:86400"
TYPE_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-")
_EMPTY = [b""] * (len(COLUMNS) - 7)
_AT = HEADER.index
_types: "set[str]" = set()  # that were found to be good


def new_job(
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
) -> Job:
    """Return a job that is in no file yet, with everything checked; see `Queue.enqueue`."""
    if not isinstance(job_type, str) or job_type not in _types:
        _check_type(job_type)
    try:
        cell = dump(payload, "")
        check_plain(payload, "")
    except BadArgument as problem:
        raise BadArgument(f"the payload of {job_type!r}{problem}") from None
    now = time.time()
    created = due = b"%d" % now
    if run_at is not None:
        at = start_time(run_at)
        if at > now:
            due = b"%d" % math.ceil(at)
    if id is not None and (not isinstance(id, str) or not is_id(id)):
        raise BadArgument(f"id={id!r}: an id is 16 lower-case hex characters")
    if id is not None and is_ahead(id):
        raise BadArgument(f"id={id!r}: its time is more than a day ahead")
    cells = [b"", job_type.encode(), cell, PENDING, created, due, b"0", *_EMPTY]
    if id is not None:
        cells[0] = id.encode()
    job = Job(cells, HEADER)
    if queue != "default":
        _label("queue", queue)
        cells[_AT["queue"]] = queue.encode()
    if priority:
        if not isinstance(priority, int) or not -(2**31) < priority < 2**31:
            raise BadArgument(f"priority={priority!r} is no whole number (lower runs first)")
        cells[_AT["priority"]] = b"%d" % priority
    if max_attempts is not None:
        cells[_AT["max_attempts"]] = b"%d" % check_attempts(max_attempts)
    if timeout is not None:
        cells[_AT["timeout"]] = b"%.3f" % check_timeout(timeout)
    if backoff is not None:
        if not isinstance(backoff, str):
            raise BadArgument(f"backoff={backoff!r:.80}: a job's own backoff is in words")
        parse_backoff(backoff)
        cells[_AT["backoff"]] = backoff.encode()
    if after:
        text = as_cell(after)
        parse(text)
        cells[_AT["after"]] = text.encode()
    if group is not None:
        _label("group", group)
        cells[_AT["group"]] = group.encode()
    return _with_columns(job, columns) if columns else job


def new_jobs(
    several: "Iterable[tuple[Any, ...] | dict[str, Any]]", what: str = "enqueue_many"
) -> "Iterator[Job]":
    """Yield the jobs of a call of `what`; BadArgument says which of them is wrong."""
    for number, one in enumerate(several):
        try:
            job = new_job(**one) if isinstance(one, dict) else new_job(*one)
        except (BadArgument, TypeError) as problem:
            text = str(problem).replace("new_job()", "enqueue()")
            raise BadArgument(f"job {number} of {what}: {text}") from problem
        yield job


def _check_type(job_type: "Any") -> None:
    plain = isinstance(job_type, str) and TYPE_CHARS.issuperset(job_type)
    if not plain or not 0 < len(job_type) <= 100:
        raise BadArgument(
            f"job_type={job_type!r:.200}: a type is 1 to 100 letters, digits, _ . : or -"
        )
    if len(_types) < 1000:
        _types.add(job_type)


def _with_columns(job: Job, columns: "Mapping[str, str]") -> Job:
    if not hasattr(columns, "items"):
        text = "is no mapping of names to texts: several are joined as {**one, **other}"
        raise BadArgument(f"columns={columns!r:.80} {text}")
    for name, value in columns.items():
        if not isinstance(value, str):
            raise BadArgument(f"columns={{{check_column(name)!r}: {value!r:.80}}}: a cell is text")
        check_column(name)
    header = HEADER.with_columns(set(columns))
    cells = [
        job.cells[_AT[name]] if name in _AT else escape(columns[name]).encode()
        for name in header.columns
    ]
    return Job(cells, header)


def _label(what: str, value: object) -> None:
    if not is_label(value):
        raise BadArgument(f"{what}={value!r:.200}: a {what} is 1 to 100 letters, digits, _ . or -")


def start_time(run_at: "When") -> float:
    """Return Unix seconds as `unix_time`; BadArgument for seconds that count from now."""
    at = unix_time(run_at)
    if 0 < at < EARLIEST:
        raise BadArgument(
            f"run_at={run_at!r:.80} as Unix time is near 1970; from now on is a timedelta:"
            f" run_at=timedelta(seconds={run_at!r:.80})"
        )
    return at


def unix_time(run_at: "When") -> float:
    """Return Unix seconds for a Unix time, an aware datetime, or a timedelta from now."""
    at: Any = run_at
    if isinstance(run_at, str):
        raise BadArgument(
            f"run_at={run_at!r:.80} is no time: give Unix seconds, an aware datetime or a timedelta"
            f"; for a queue of that name write queue={run_at!r:.80}"
        )
    if hasattr(at, "total_seconds"):
        at = time.time() + at.total_seconds()
    elif hasattr(at, "timestamp"):
        if at.tzinfo is None or at.utcoffset() is None:
            raise BadArgument(
                f"run_at={run_at!r} has no time zone; make it aware, for example with .astimezone()"
            )
        at = at.timestamp()
    elif isinstance(at, bool) or not isinstance(at, (int, float)):
        raise BadArgument(
            f"run_at={run_at!r:.80} is no time: give Unix seconds, an aware datetime or a timedelta"
        )
    if not -LATEST <= at <= LATEST:
        raise BadArgument(
            f"run_at={run_at!r:.80} is beyond the year 9999; Unix time counts seconds"
        )
    return float(at)


def check_attempts(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 2**31:
        raise BadArgument(f"max_attempts={number!r:.80} is no whole number of at least 1")
    return number


def check_timeout(seconds: object) -> float:
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, (int, float))
        or not 0.001 <= seconds < 1e9
    ):
        raise BadArgument(f"timeout={seconds!r:.80} is no number of seconds above 0")
    return seconds


def parse_backoff(words: "str | Backoff") -> "Backoff":
    """Return the function attempts -> seconds of a backoff in words.

    `none`, `linear:BASE:CAP` (base, 2 base, 3 base …), `exponential:BASE:CAP[:jitter]` (base, 2
    base, 4 base …; with jitter a random half to the whole of it), in seconds.
    """
    if callable(words):
        return words
    kind, *numbers = words.split(":") if isinstance(words, str) else [""]
    jitter = kind == "exponential" and numbers[2:] == ["jitter"]
    two = numbers[:2] if jitter else numbers
    good = kind in ("linear", "exponential") and len(two) == 2 and _is_seconds(two[0])
    good = good and (two[1] == "inf" or _is_seconds(two[1]))
    if not good and words != "none":
        raise BadArgument(
            f"backoff={words!r:.80} is none of none, linear:BASE:CAP, exponential:BASE:CAP[:jitter]"
        )
    base, cap = map(float, two) if good else (0.0, 0.0)

    def seconds(attempts: int) -> float:
        wait = base * attempts if kind == "linear" else base * 2.0 ** min(attempts - 1, 60)
        wait = min(wait, cap)
        return wait * (0.5 + os.urandom(1)[0] / 510) if jitter else wait

    return seconds


def _is_seconds(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdigit()


def copy_target(path: str, own: str) -> str:
    """Return the file that a copy of the queue `own` is to replace; BadArgument for others."""
    if os.path.islink(path) and os.lstat(path).st_uid not in (0, os.geteuid()):
        raise BadArgument(f"{path}: is a link of another user; name the file itself")
    target = os.path.realpath(path)
    there = os.path.exists(target)
    same = there and os.path.exists(own) and os.path.samefile(target, own)
    if same or target in (own, own + ".lock") or target.startswith(own + ".d" + os.sep):
        raise BadArgument(f"{path}: is the queue's own; name another file")
    if not os.path.isdir(os.path.dirname(target)):
        raise BadArgument(f"{path}: there is no such folder")
    if there and not os.path.isfile(target):
        raise BadArgument(f"{path}: is no regular file")
    return target
