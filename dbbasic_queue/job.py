"""One job, as its row says.

The life of a job: pending → processing → completed, failed or pending again; pending → cancelled.
"""

import math
import os
import time

from .errors import BadArgument, BadRow
from .tsv import dump, escape, load, unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .tsv import Header

_JSON = ("payload", "result")
_WHOLE = ("created_at", "run_at", "attempts", "priority", "max_attempts")
_UNREAD: "Any" = object()


class Job:
    """One job as its row said when it was read; nothing here changes the file.

    `payload` and `result` are the JSON values, `error` is text or None, times are Unix seconds,
    `max_attempts`, `timeout` and `backoff` are None where the job has none of its own.
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
        cell = self.raw(column)
        return unescape(cell.decode()) if cell else ""

    def _number(self, column: str) -> float | None:
        at = self.header.index.get(column)
        return float(self.cells[at]) if at is not None and self.cells[at] else None

    def _json(self, at: int) -> "Any":
        try:
            return load(self.cells[at])
        except ValueError as error:
            column = self.header.columns[at]
            raise BadRow(f"job {self.id}: its {column} cannot be read as JSON: {error}") from None

    @property
    def id(self) -> str:
        return self.cells[0].decode()

    @property
    def type(self) -> str:
        return self.cells[1].decode()

    @property
    def payload(self) -> "Any":
        if self._payload is _UNREAD:
            self._payload = self._json(2)
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
        return self._json(8)

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
    def is_elsewhere(self) -> bool:
        """An engine elsewhere has it, as @NAME.K: no worker here is to judge it."""
        return self.raw("worker").startswith(b"@")

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
        """Whether the row's time has come."""
        return is_due(self.cells, now)

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

    def copy(self) -> "Job":
        """Return a copy whose cells may be changed."""
        new = Job(self.cells[:], self.header, self.at, self.size)
        new._payload = self._payload
        new._record = self._record
        return new

    def with_cells(self, cells: "Mapping[str, bytes]") -> "Job":
        """Return a copy with other cells, as they stand in a file; it has the columns they need."""
        new = self.copy()
        index = self.header.index
        if not cells.keys() <= index.keys():
            missing = {name for name, cell in cells.items() if cell and name not in index}
            new.header = self.header.with_columns(missing) if missing else self.header
            new.cells = self.line(new.header)[:-1].split(b"\t")
            index = new.header.index
        for name, cell in cells.items():
            if name in index:
                new.cells[index[name]] = cell
        if "payload" in cells:
            new._payload = _UNREAD
        return new

    def alter(self, cells: "Mapping[str, bytes]") -> bool:
        """Give cells other than the payload new values here; False where a column is missing."""
        index, row = self.header.index, self.cells
        if not cells.keys() <= index.keys():
            return False
        for name, cell in cells.items():
            row[index[name]] = cell
        return True

    def replace(self, **cells: "Any") -> "Job":
        """Return a copy with other values in some columns."""
        return self.with_cells({column: encode(column, value) for column, value in cells.items()})

    def raw(self, column: str) -> bytes:
        """Return a cell as it stands in the file, b"" when the file does not have the column."""
        at = self.header.index.get(column)
        return b"" if at is None else self.cells[at]

    def line(self, header: "Header") -> bytes:
        """Return this job's row, with its newline, in a file with that header."""
        if self.header is header:
            return b"\t".join(self.cells) + b"\n"
        return b"\t".join([self.raw(name) for name in header.columns]) + b"\n"

    def columns_in_use(self) -> "set[str]":
        return {name for name, at in self.header.index.items() if self.cells[at]}

    def again(self) -> "Job":
        """Return this job as one that is to run from its first attempt on."""
        new = self.replace(status="pending", attempts=0, error="", run_at=int(time.time()))
        for column in ("result", "worker", "started_at", "finished_at"):
            if column in self.header.index:
                new.cells[self.header.index[column]] = b""
        return new

    def anew(self) -> "Job":
        """Return a new job like this one, not yet in the file."""
        new = self.again()
        new.cells[0], new.cells[4], new.at = b"", new.cells[5], -1
        return new

    def payload_is_json(self) -> bool:
        """Whether the payload can be read; a hand edit may have spoilt it."""
        try:
            self._payload = load(self.cells[2])
        except ValueError:
            return False
        return True

    def forget_payload(self) -> None:
        """Read the payload from its cell when it is asked for again."""
        self._payload = _UNREAD

    def run_with(self, payload: "Any", record: "Callable[..., None] | None") -> None:
        """Be the job that runs, with the very payload that its handler has."""
        self._payload, self._record = payload, record

    def record(self, **cells: "Any") -> None:
        """Store cells of a feature's own columns for the running job at once; `Queue.get` sees
        them.

        They reach the row with the outcome, and also when this attempt dies.
        """
        if self._record is None:
            raise BadArgument(
                f"job {self.id} is not running in this process: only current_job() can record"
            )
        self._record(**cells)


def is_due(cells: list[bytes], now: float) -> bool:
    """Whether a row's time has come; a clock that steps back delays no job for at once."""
    if cells[4] == cells[5]:
        return True
    run_at = whole(cells[5])
    return run_at <= now or run_at == whole(cells[4])


def whole(cell: bytes) -> int:
    """Return the whole number of a cell; a fraction, from the old package, is rounded up."""
    try:
        return int(cell)
    except ValueError:
        number = float(cell)
        if not math.isfinite(number):
            raise
        return math.ceil(number)


def encode(column: str, value: "Any") -> bytes:
    """Return the bytes of a value in a column; None is empty, or JSON null where JSON is."""
    if isinstance(value, bytes):
        raise BadArgument(f"{column}={value!r:.80}: a cell is text, a number or JSON, no bytes")
    if column in _JSON:
        return dump(value, column)
    if value is None or (column == "queue" and value == "default"):
        return b""
    if isinstance(value, float) and column in _WHOLE:
        value = math.ceil(value)
    elif isinstance(value, float):
        return b"%.3f" % value
    return escape(str(value)).encode()


# --- ids

DAY = 86_400_000_000  # microseconds
_first = _last = 0  # microseconds of the ids made in this process
_chance: list[int] = []
os.register_at_fork(after_in_child=_chance.clear)


def new_id() -> str:
    """Return 16 hex characters: 13 of microseconds, rising in the process, 3 of chance."""
    global _last
    now = int(time.time() * 1e6)
    if not _first or now <= _last:
        return new_ids(1)[0]
    _last = now
    return f"{now << 12 | _dice():016x}"


def new_ids(count: int, above: str = "") -> list[str]:
    """Return ids in rising order, all greater than the id `above`."""
    global _first, _last
    now = int(time.time() * 1e6)
    first = max(now, _last + 1) if _last < now + DAY else now  # the clock was wrong for a while
    _first, _last = _first or first, first + count - 1
    if above:
        first = max(first, int(above[:13], 16) + 1)
    chance = _dice()
    return [f"{first + at << 12 | (chance + at * 2654435761) & 0xFFF:016x}" for at in range(count)]


def _dice() -> int:
    """Return twelve bits of chance, fetched many at a time."""
    try:
        return _chance.pop() & 0xFFF
    except IndexError:
        _chance.extend(memoryview(os.urandom(512)).cast("H"))
        return _chance.pop() & 0xFFF


def was_made_here(id: str) -> bool:
    """Whether an id's time is one of those that this process has given ids for."""
    return _first <= int(id[:13], 16) <= _last


def is_ahead(id: str) -> bool:
    """Whether an id says a time more than a day ahead: it was not made from a clock."""
    return int(id[:13], 16) > time.time() * 1e6 + DAY
