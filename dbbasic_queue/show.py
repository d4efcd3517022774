"""What people and programs see of a job: short texts for tables, all of it for one page, JSON.

Texts that leave this module hold no control character, whatever a payload or an error says, and
`***` for the fields that are sensitive; `plain=True` shows these too.
"""

import json
import math
import time
from itertools import pairwise

from .after import named
from .redact import redacted
from .tsv import COLUMNS
from .tsv import visible as visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .job import Job

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def as_json(value: "Any") -> str:
    """Return JSON in plain ASCII on one line: safe on any terminal and in any locale."""
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:  # a NaN that somebody wrote into the file by hand
        text = json.dumps(_without_nan(value))
    return text.replace("\x7f", "\\u007f")


def _without_nan(value: "Any") -> "Any":
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return str(value) if isinstance(value, float) and value - value != 0 else value


def document(job: "Job", *, plain: bool = False) -> "dict[str, Any]":
    """Return every column of a job as a JSON value; text for the columns of others.

    A payload or result that is not JSON is None, and its text stands under `payload_text`.
    """
    values: dict[str, Any] = {}
    job = job if plain else redacted(job)
    for name in (*COLUMNS, *(name for name in job.header.columns if name not in COLUMNS)):
        if name in ("payload", "result"):
            values[name], text = json_cell(job, name)
            if text is not None:
                values[name + "_text"] = text
        else:
            values[name] = getattr(job, name) if name in COLUMNS else job.cell(name)
    return values


def json_cell(job: "Job", column: str) -> "tuple[Any, str | None]":
    """Return (value, None) of the payload or the result; (None, its text) when it is not JSON."""
    try:
        return getattr(job, column), None
    except ValueError:
        return None, job.cells[job.header.index[column]].decode(errors="replace")


# --- texts


def span(seconds: float) -> str:
    """Return a duration in one unit, or two while the first is a small number: 45s, 2h 5m, 40d."""
    left = max(0, int(seconds))
    for (unit, size), (small, smaller) in pairwise(_UNITS):
        if left >= size:
            rest = left % size // smaller if left < 10 * size and unit != "m" else 0
            return f"{left // size}{unit} {rest}{small}" if rest else f"{left // size}{unit}"
    return f"{left}s"


def length(seconds: float) -> str:
    """Return a duration as `span` does, with parts of a second where it is short: 89ms, 1.2s."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.3g}ms" if seconds > 0 else "0s"
    return f"{seconds:.2g}s" if seconds < 9.95 else span(round(seconds))


def clock(at: float) -> str:
    """Return a Unix time in the local zone; the number itself when no calendar reaches it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return str(at)


def when(job: "Job", now: float) -> str:
    """Return in a few words where in its life a job is."""
    if job.status == "pending":
        return (
            f"due {span(now - job.run_at)}" if job.is_due(now) else f"in {span(job.run_at - now)}"
        )
    if job.status == "processing":
        return f"for {span(now - job.started_at)}" if job.started_at else "claimed"
    return f"{span(now - (job.finished_at or job.created_at))} ago"


def waits_for(job: "Job") -> list[str]:
    """Return the ids, and the groups as @GROUP, for which a job waits or has waited."""
    return named(job.after or "")


ROW = ("ID", "STATUS", "TYPE", "QUEUE", "ATTEMPTS", "WHEN", "ERROR OR PAYLOAD")


def row(job: "Job", now: float) -> list[str]:
    """Return a job as one line of a table, a text for each word of ROW."""
    job = redacted(job)
    progress = job.cell("progress") if job.status == "processing" else ""
    last = progress or job.error or job.cells[2].decode()
    return [job.id, job.status, job.type, job.queue, str(job.attempts), when(job, now), last]


def page(job: "Job", now: float, *, plain: bool = False) -> "list[tuple[str, str]]":
    """Return all of a job as (column, text), the empty ones left out; a text may have lines."""
    lines = []
    for name, value in document(job, plain=plain).items():
        if name.endswith("_text"):
            text = f"{value}  (not JSON)"
        elif name in ("payload", "result") and (value is not None or _holds_null(job, name)):
            text = json.dumps(value, indent=2, ensure_ascii=False)
        elif value is None or value == "":
            continue
        elif name.endswith("_at") and (at := _time_in(value)) is not None:
            text = f"{clock(at)}  ({at:.15g})"
        elif name == "status":
            text = f"{value}, {when(job, now)}"
        else:
            text = str(value)
        lines.append((name, text))
    return lines


def _time_in(value: float | str) -> float | None:
    """Return the Unix time that a cell says, None where a column of others says something else."""
    if isinstance(value, str):
        is_number = value.isascii() and value.replace(".", "", 1).isdigit()
        return float(value) if is_number else None
    return value


def _holds_null(job: "Job", column: str) -> bool:
    return job.cells[job.header.index[column]] == b"null"
