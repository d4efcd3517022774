"""Log lines for programs: one JSON object a line, which names the job that ran meanwhile.

handler = logging.StreamHandler()
handler.setFormatter(JSONFormatter())        in a shell: dbbasic-queue work … --log-json

{"time": "2026-01-31T06:00:00.123Z", "level": "INFO", "logger": "shop", "message": "sent",
 "job": {"id": "6474847126a6107c", "type": "mail", "queue": "default", "attempt": 1}}
"""

import json
import logging
import time

from .here import running
from .redact import masked, paths_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .job import Job

_OURS = frozenset(("time", "level", "logger", "message", "job", "exc", "stack"))
_STANDARD = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
_DEEPEST = 8


class JSONFormatter(logging.Formatter):
    """Format a record as one line of plain ASCII JSON; no record makes it raise.

    What `extra=` brings stands beside the other fields, an exception as text under `exc`.  The
    sensitive values of the job that runs are `***` in all of them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        attempt = running.get(None)
        job = attempt.job if attempt is not None else None
        found: dict[str, Any] = {
            "time": _clock(record.created),
            "level": str(record.levelname),
            "logger": str(record.name),
        }
        if job is not None:
            found["job"] = {
                "id": job.id, "type": job.type, "queue": job.queue, "attempt": job.attempts,
            }  # fmt: skip
        try:
            hides = job if job is not None and paths_of(job) else None
            found |= _plain(self._said_by(record), hides)
        except Exception as problem:  # what is in it cannot even be looked at
            found["message"] = f"(cannot be said: {type(problem).__name__})"
        return json.dumps(found)

    def _said_by(self, record: logging.LogRecord) -> "dict[str, Any]":
        said: dict[str, Any] = {"message": _message(record)}
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in _OURS:
                said[name] = value
        failure = record.exc_info
        if failure and failure[0] is not None:
            said["exc"] = _said(lambda: self.formatException(failure))
        elif record.exc_text:
            said["exc"] = record.exc_text
        if record.stack_info:
            said["stack"] = record.stack_info
        return said


def _clock(created: float) -> str:
    try:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
        return f"{seconds}.{int(created * 1000) % 1000:03}Z"
    except (ValueError, OverflowError, OSError, TypeError):
        return _said(lambda: str(created))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # words and arguments that do not go together: say both
        return f"{_said(lambda: str(record.msg))} {_said(lambda: repr(record.args))}"


def _said(text_of: "Any") -> str:
    try:
        return str(text_of())
    except Exception as problem:
        return f"(cannot be said: {type(problem).__name__})"


def _plain(value: "Any", hides: "Job | None", depth: int = 0) -> "Any":
    """Return a value as JSON has it, with what the job hides left out of every text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and hides is None:
        try:
            json.dumps(value, allow_nan=False)
            return value
        except ValueError:  # NaN, or more digits than Python writes
            return _said(lambda: repr(value))
    if isinstance(value, dict) and depth < _DEEPEST:
        pairs = [(_said(lambda key=key: str(key)), one) for key, one in list(value.items())]
        return {_masked(key, hides): _plain(one, hides, depth + 1) for key, one in pairs}
    if isinstance(value, (list, tuple)) and depth < _DEEPEST:
        return [_plain(one, hides, depth + 1) for one in value]
    if isinstance(value, (int, float)):
        text = _said(lambda: repr(value))
        return _plain(value, None) if _masked(text, hides) == text else "***"
    return _masked(value if isinstance(value, str) else _said(lambda: repr(value)), hides)


def _masked(text: str, hides: "Job | None") -> str:
    return text if hides is None else masked(hides, text)
