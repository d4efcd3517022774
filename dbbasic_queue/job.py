"""One job: a view of its row, and the making of a new one from what a caller gave.

The life of a job: pending → processing → completed, failed or pending again; pending → cancelled.
"""

import math
import os
import time

from .after import as_cell, is_id, is_label, parse
from .errors import BadArgument
from .tsv import COLUMNS, HEADER, PENDING, check_plain, dump, escape, load, unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from typing import Any

    from .tsv import Header

    When = float | datetime | timedelta | None
    Backoff = Callable[[int], float]

LATEST = 253402300799  # the last second of the year 9999
DEFAULT_BACKOFF = "exponential:60:86400"
TYPE_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-")
_JSON = ("payload", "result")
_WHOLE = ("created_at", "run_at", "attempts", "priority", "max_attempts")
_UNREAD: "Any" = object()


class Job:
    """One job as its row said when it was read; nothing here changes the file.

    `payload` and `result` are the JSON values, `error` is text or None, times are Unix seconds, `max_attempts`,
    `timeout` and `backoff` are None where the job has none of its own.
    """

    __slots__ = ("_payload", "_record", "at", "cells", "header", "size")

    def __init__(self, cells: list[bytes], header: "Header", at: int = -1, size: int = 0) -> None:
        self.cells = cells
        self.header = header
        self.at = at  # where the row stands in the file that was read
        self.size = size  # and how long it is, with its newline
        self._payload = _UNREAD
        self._record: Callable[..., None] | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.type} {self.status}>"

    def cell(self, column: str) -> str:
        """Return a column's text, "" when it is empty or the file does not have it."""
        at = self.header.index.get(column)
        return "" if at is None else unescape(self.cells[at].decode())

    def _number(self, column: str) -> float | None:
        at = self.header.index.get(column)
        return float(self.cells[at]) if at is not None and self.cells[at] else None

    @property
    def id(self) -> str:
        return self.cells[0].decode()

    @property
    def type(self) -> str:
        return self.cells[1].decode()

    @property
    def payload(self) -> "Any":
        if self._payload is _UNREAD:
            self._payload = load(self.cells[2])
        return self._payload

    @property
    def status(self) -> str:
        return self.cells[3].decode()

    @property
    def created_at(self) -> int:
        return whole(self.cells[4])

    @property
    def run_at(self) -> int:
        return whole(self.cells[5])

    @property
    def attempts(self) -> int:
        return whole(self.cells[6])

    @property
    def error(self) -> str | None:
        return unescape(self.cells[7].decode()) or None

    @property
    def result(self) -> "Any":
        return load(self.cells[8])

    @property
    def queue(self) -> str:
        return self.cell("queue") or "default"

    @property
    def priority(self) -> int:
        return int(self._number("priority") or 0)

    @property
    def max_attempts(self) -> int | None:
        number = self._number("max_attempts")
        return None if number is None else int(number)

    @property
    def timeout(self) -> float | None:
        return self._number("timeout")

    @property
    def backoff(self) -> str | None:
        return self.cell("backoff") or None

    @property
    def worker(self) -> str | None:
        return self.cell("worker") or None

    @property
    def after(self) -> str | None:
        return self.cell("after") or None

    @property
    def group(self) -> str | None:
        return self.cell("group") or None

    @property
    def started_at(self) -> float | None:
        return self._number("started_at")

    @property
    def finished_at(self) -> float | None:
        return self._number("finished_at")

    @property
    def finished(self) -> bool:
        """Completed, failed or cancelled."""
        return self.status in ("completed", "failed", "cancelled")

    def is_due(self, now: float) -> bool:
        """Whether the row's own time has come; a clock that steps back delays no job that was for at once."""
        return self.run_at <= now or self.run_at <= self.created_at

    def as_dict(self) -> "dict[str, Any]":
        """Return the nine documented keys."""
        payload = self.payload
        return {
            "id": self.id,
            "type": self.type,
            "payload": {} if payload is None and not self.cells[2] else payload,
            "status": self.status,
            "created_at": self.created_at,
            "run_at": self.run_at,
            "attempts": self.attempts,
            "error": self.error,
            "result": self.result,
        }

    def replace(self, **cells: "Any") -> "Job":
        """Return a copy with other values in some columns."""
        copy = Job(list(self.cells), self.header, self.at, self.size)
        copy._payload = _UNREAD if "payload" in cells else self._payload
        copy._record = self._record
        for column, value in cells.items():
            copy.cells[self.header.index[column]] = encode(column, value)
        return copy

    def payload_is_json(self) -> bool:
        """Whether the payload can be read; a hand edit may have spoilt it."""
        try:
            return self.payload is not _UNREAD
        except ValueError:
            return False

    def set_record(self, record: "Callable[..., None]") -> None:
        self._record = record

    def record(self, **cells: "Any") -> None:
        """Store cells of a feature's own columns for the running job at once; `Queue.get` sees them.

        They reach the row with the outcome, and also when this attempt dies.
        """
        if self._record is None:
            raise BadArgument(f"job {self.id} is not running in this process: only current_job() can record")
        self._record(**cells)


def whole(cell: bytes) -> int:
    """Return the whole number of a cell; the old package wrote some with a fraction, which is rounded up."""
    try:
        return int(cell)
    except ValueError:
        number = float(cell)
        if not math.isfinite(number):
            raise
        return math.ceil(number)


def encode(column: str, value: "Any") -> bytes:
    """Return the bytes of a value in a column; None is an empty cell, but JSON null for payload and result."""
    if isinstance(value, bytes):
        return value
    if column in _JSON:
        return dump(value, column)
    if value is None:
        return b""
    if isinstance(value, float) and column in _WHOLE:
        value = math.ceil(value)
    elif isinstance(value, float):
        return b"%.3f" % value
    return escape(str(value)).encode()


# --- ids

_last = 0


def new_id() -> str:
    """Return 16 hex characters that sort by time: 13 of microseconds, rising within the process, 3 of chance."""
    return new_ids(1)[0]


def new_ids(count: int, above: str = "") -> list[str]:
    """Return ids in rising order, all greater than the id `above`."""
    global _last
    first = max(int(time.time() * 1e6), _last + 1)
    if above:
        first = max(first, int(above[:13], 16) + 1)
    _last = first + count - 1
    chance = int.from_bytes(os.urandom(2), "big") & 0xFFF
    return [f"{first + at:013x}{(chance + at * 2654435761) & 0xFFF:03x}" for at in range(count)]


# --- a new job


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
    """Return a job that is in no file yet, with everything checked; see `Queue.enqueue` for the arguments."""
    if not isinstance(job_type, str) or not 0 < len(job_type) <= 100 or not TYPE_CHARS.issuperset(job_type):
        raise BadArgument(f"job_type={job_type!r:.200}: a type is 1 to 100 letters, digits, _ . : or -")
    cell = dump(payload, f"the payload of {job_type!r}")
    check_plain(payload, f"the payload of {job_type!r}")
    now = int(time.time())
    created = b"%d" % now
    due = created
    if run_at is not None:
        at = unix_time(run_at)
        if at > now:
            due = b"%d" % math.ceil(at)
    if id is not None and (not isinstance(id, str) or not is_id(id)):
        raise BadArgument(f"id={id!r}: an id is 16 lower-case hex characters")
    if id is not None and int(id[:13], 16) > (time.time() + 86400) * 1e6:
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
        cells[_AT["timeout"]] = f"{check_timeout(timeout):g}".encode()
    if backoff is not None:
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


_EMPTY = [b""] * (len(COLUMNS) - 7)
_AT = HEADER.index


def _with_columns(job: Job, columns: "Mapping[str, str]") -> Job:
    for name, value in columns.items():
        if name in COLUMNS or not name.isidentifier() or not name.isascii() or name != name.lower():
            raise BadArgument(f"columns={{{name!r}: …}}: not a name for a column of your own")
        if not isinstance(value, str):
            raise BadArgument(f"columns={{{name!r}: {value!r:.80}}}: a cell is text")
    header = HEADER.with_columns(set(columns))
    cells = [job.cells[_AT[name]] if name in _AT else escape(columns[name]).encode() for name in header.columns]
    return Job(cells, header)


def _label(what: str, value: object) -> None:
    if not is_label(value):
        raise BadArgument(f"{what}={value!r:.200}: a {what} is 1 to 100 letters, digits, _ . or -")


def unix_time(run_at: "When") -> float:
    """Return Unix seconds for a Unix time, an aware datetime, or a timedelta from now."""
    if isinstance(run_at, str):
        raise BadArgument(f"run_at={run_at!r:.80} is no time; if it is the name of a queue, write queue={run_at!r:.80}")
    if hasattr(run_at, "total_seconds"):
        at = time.time() + run_at.total_seconds()
    elif hasattr(run_at, "timestamp"):
        if run_at.tzinfo is None or run_at.utcoffset() is None:
            raise BadArgument(f"run_at={run_at!r} has no time zone; make it aware, for example with .astimezone()")
        at = run_at.timestamp()
    elif isinstance(run_at, bool) or not isinstance(run_at, (int, float)):
        raise BadArgument(f"run_at={run_at!r:.80} is no time: give Unix seconds, an aware datetime or a timedelta")
    else:
        at = run_at
    if not -LATEST <= at <= LATEST:
        raise BadArgument(f"run_at={run_at!r:.80} is beyond the year 9999; Unix time counts seconds")
    return at


def check_attempts(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 2**31:
        raise BadArgument(f"max_attempts={number!r:.80} is no whole number of at least 1")
    return number


def check_timeout(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e9:
        raise BadArgument(f"timeout={seconds!r:.80} is no number of seconds above 0")
    return seconds


def parse_backoff(words: "str | Backoff") -> "Backoff":
    """Return the function attempts -> seconds of a backoff in words.

    `none`, `linear:BASE:CAP` (base, 2 base, 3 base …), `exponential:BASE:CAP[:jitter]` (base, 2 base, 4 base …; with
    jitter a random half to the whole of it), in seconds.
    """
    if callable(words):
        return words
    kind, *numbers = words.split(":") if isinstance(words, str) else [""]
    jitter = kind == "exponential" and numbers[2:] == ["jitter"]
    try:
        base, cap = map(float, numbers[:2] if jitter else numbers) if kind != "none" else (0.0, 0.0)
        good = kind in ("none", "linear", "exponential") and base >= 0 and math.isfinite(base) and cap >= 0
    except ValueError:
        good = False
    if not good or kind == "none" and numbers:
        raise BadArgument(f"backoff={words!r:.80} is none of none, linear:BASE:CAP, exponential:BASE:CAP[:jitter]")

    def seconds(attempts: int) -> float:
        wait = base * attempts if kind == "linear" else base * 2.0 ** min(attempts - 1, 60)
        wait = min(wait, cap)
        return wait * (0.5 + os.urandom(1)[0] / 510) if jitter else wait

    return seconds
