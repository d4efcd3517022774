"""What may stand in a cell that somebody typed: `enqueue` decides, and is asked here.

A cell that is as it was before is nobody's typing, and is not judged.
"""

import re

from ..after import parse
from ..errors import BadArgument
from ..job import Job
from ..new import new_job, unix_time
from ..tsv import (
    COLUMNS,
    MAX_JSON,
    PROCESSING,
    STATUSES,
    Header,
    check_plain,
    dump,
    load,
    row,
    visible,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_OF_ENQUEUE = ("queue", "priority", "max_attempts", "timeout", "backoff", "after", "group")
_OF_A_RUN = ("error", "result", "worker", "started_at", "finished_at")
_SECONDS = re.compile(r"\d{1,12}(\.\d{1,6})?", re.ASCII)


def changed_cells(header: Header, before: list[bytes], typed: list[bytes]) -> dict[str, bytes]:
    """Return the cells of a row that differ; BadArgument for one that cannot stand there."""
    pairs = zip(header.columns, before, typed, strict=True)
    cells = {name: new for name, old, new in pairs if new != old}
    for name, cell in cells.items():
        value = _read(name, cell)
        if name == "type":
            new_job(value)
        elif name in _OF_ENQUEUE and cell:
            new_job("any", **{name: value})
    if cells.get("status") == PROCESSING:
        raise BadArgument("status: only a worker makes a job processing")
    if row(b"\t".join(typed), header) is None:
        raise BadArgument("cannot be read as a row")
    return cells


def new_row(header: Header, typed: list[bytes]) -> Job:
    """Return the job that a row without an id means; BadArgument for what no new job can have."""
    given = {name: cell for name, cell in zip(header.columns, typed, strict=False) if cell}
    values = {name: _read(name, cell) for name, cell in given.items()}
    if values.get("status", "pending") != "pending":
        raise BadArgument("status: a new job is pending; leave it empty")
    if values.get("attempts"):
        raise BadArgument("attempts: a new job has had none; leave it empty")
    for name in _OF_A_RUN:
        if name in values:
            raise BadArgument(f"{name}: a new job has none; leave it empty")
    job = new_job(
        values.get("type", ""),
        values.get("payload"),
        values.get("run_at"),
        **{name: values[name] for name in _OF_ENQUEUE if name in values},
    )
    return job.with_cells({name: cell for name, cell in given.items() if name not in COLUMNS})


# --- one cell


def _read(name: str, cell: bytes) -> "Any":
    try:
        text = cell.decode()
    except UnicodeDecodeError:
        raise BadArgument(f"{name}: is not UTF-8 text") from None
    if visible(text) != text:
        raise BadArgument(f"{name}: has a control character; write it as \\n, \\x1b or \\u2028")
    return _VALUES[name](name, text) if name in _VALUES else text


def _json(name: str, text: str) -> "Any":
    try:
        value = load(text.encode())
    except ValueError as error:
        raise BadArgument(f"{name}: is not JSON: {visible(str(error))[:200]}") from None
    dump(value, name)  # no NaN
    check_plain(value, name)
    if len(text.encode()) > MAX_JSON:
        raise BadArgument(f"{name}: is over the limit of {MAX_JSON} bytes")
    return value


def _status(name: str, text: str) -> str:
    if text not in STATUSES:
        raise BadArgument(f"{name}: {text[:80]!r} is none of {', '.join(STATUSES)}")
    return text


def _time(name: str, text: str) -> float | None:
    if not text and name.endswith("ed_at") and name != "created_at":
        return None
    if not _SECONDS.fullmatch(text):
        raise BadArgument(f"{name}: {text[:80]!r} is no Unix time in seconds")
    return unix_time(float(text))


def _number(name: str, text: str) -> int | None:
    if not text and name != "attempts":
        return None
    if not re.fullmatch(r"-?\d{1,10}", text, re.ASCII) or text.startswith("-") > (
        name == "priority"
    ):
        raise BadArgument(f"{name}: {text[:80]!r} is no whole number")
    return int(text)


def _duration(name: str, text: str) -> float | None:
    if text and not _SECONDS.fullmatch(text):
        raise BadArgument(f"{name}: {text[:80]!r} is no number of seconds")
    return float(text) if text else None


def _after(name: str, text: str) -> str:
    if text:
        parse(text)
    return text


_VALUES: "dict[str, Callable[[str, str], Any]]" = {
    "payload": _json,
    "status": _status,
    "created_at": _time,
    "run_at": _time,
    "attempts": _number,
    "result": _json,
    "priority": _number,
    "max_attempts": _number,
    "timeout": _duration,
    "after": _after,
    "started_at": _time,
    "finished_at": _time,
}
