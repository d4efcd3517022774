"""What people do not see of a job: `***` stands in the place of its sensitive fields in every view.

The names are in the job's own column `sensitive`, and for all jobs in $DBBASIC_QUEUE_REDACT.  A
value that is hidden in one place is hidden wherever it stands again: in an error, in a result, in
steps.  This is about views and logs only: the file holds all of it in plain.
"""

import json
import os
import re

from .errors import BadArgument, Discard, Retry, Snooze
from .job import Job
from .layers import with_twin
from .log import traceback_of
from .tsv import COLUMNS, dump, escape, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .tsv import Header

    # Names from the outside to the inside, in lower case.
    Path = tuple[str, ...]
    Trail = tuple[str | int, ...]

COLUMN = "sensitive"
VARIABLE = "DBBASIC_QUEUE_REDACT"
HIDDEN = "***"
_PIECE = 5  # characters: a piece of a hidden value that is as long is hidden too
_MOST = 100_000  # characters of hidden values that are looked for piece by piece
_STAY = {*COLUMNS, COLUMN, "signature"} - {"payload", "result", "error"}


def sensitive(*names: str) -> "dict[str, str]":
    """Return the column that says which fields of a job are not shown: enqueue(…, columns=this).

    A name, as "password", means that field at any depth of payload and result, in any case; a path,
    as "card.number", such a field of such a field; a number is a place in a list, as in "args.0".
    What is below the field is hidden with it.
    """
    for name in names:
        good = isinstance(name, str) and name and all(name.split("."))
        if not good or re.search(r"[\s,:]", name) or len(name) > 200:
            raise BadArgument(f"{name!r:.80} is no name of a field: no spaces, no comma, no colon")
    if not names:
        raise BadArgument("sensitive() of no names")
    return {COLUMN: " ".join(names)}


def paths_of(job: "Job | None" = None) -> "list[Path]":
    """Return what is hidden of a job; without one, of every job."""
    text = os.environ.get(VARIABLE, "")
    text = f"{text} {job.cell(COLUMN)}" if job is not None else text
    return [tuple(name.casefold().split(".")) for name in re.split(r"[\s,]+", text) if name]


def hides_lines(header: "Header") -> bool:
    """Whether no line that cannot be read may be quoted: nobody knows which field is where."""
    return bool(paths_of()) or COLUMN in header.index


def redacted(job: Job) -> Job:
    """Return a job as people may see it; the very job where nothing of it is sensitive.

    A payload or a result that is not JSON is hidden whole, and then so are all texts.
    """
    paths = paths_of(job)
    if not paths:
        return job
    values = Values()
    found: dict[str, Any] = {}
    for column in ("payload", "result"):
        if job.raw(column):
            try:
                found[column] = _without(load(job.raw(column)), paths, values)
            except ValueError:
                found[column] = HIDDEN
                values.unknown = True
    texts = {name: job.cell(name) for name in job.columns_in_use() - _STAY - found.keys()}
    parsed = {name: _container(text) for name, text in texts.items()}
    for name, value in parsed.items():  # first all that is hidden anywhere
        parsed[name] = None if value is None else _without(value, paths, values)
    cells = {name: _json_cell(values.masked(value)) for name, value in found.items()}
    for name, text in texts.items():
        if parsed[name] is not None:
            text = json.dumps(values.masked(parsed[name]), ensure_ascii=False)
        cells[name] = escape(values.masked(text)).encode(errors="replace")
    return job.with_cells(cells)


def masked(job: Job, text: str) -> str:
    """Return a text about a job, as what it has printed, without its sensitive values."""
    paths = paths_of(job)
    values = Values()
    for column in ("payload", "result") if paths else ():
        try:
            _without(load(job.raw(column)), paths, values)
        except ValueError:
            values.unknown = True
    return str(values.masked(text))


def _json_cell(value: "Any") -> bytes:
    try:
        return dump(value, "")
    except BadArgument:  # a NaN that somebody wrote into the file by hand
        return dump(HIDDEN, "")


def _container(text: str) -> "Any":
    """Return the object or the list that a text is in JSON, None for others."""
    if not text.startswith(("{", "[")):
        return None
    try:
        return load(text.encode())
    except ValueError:
        return None


def _without(value: "Any", paths: "list[Path]", values: "Values", trail: "Trail" = ()) -> "Any":
    """Return a value with `***` for the fields that the paths mean; their values are noted."""
    pairs: Iterable[tuple[str | int, Any]]
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    else:
        inner = _container(value) if isinstance(value, str) else None
        if inner is None:
            return value
        new = _without(inner, paths, values, trail)
        return value if new == inner else json.dumps(new, ensure_ascii=False)
    made: list[tuple[Any, Any]] = []
    for key, one in pairs:
        below = (*trail, key if isinstance(key, int) else key.casefold())
        if any(_means(path, below) for path in paths):
            values.note(one)
            made.append((key, HIDDEN))
        else:
            made.append((key, _without(one, paths, values, below)))
    return dict(made) if isinstance(value, dict) else [one for _, one in made]


def _means(path: "Path", trail: "Trail") -> bool:
    """Whether a path ends just here; places in lists may be left out of it."""
    if str(trail[-1]) != path[-1]:
        return False
    left = list(path[:-1])
    for name in reversed(trail[:-1]):
        if not left:
            break
        if str(name) == left[-1]:
            left.pop()
        elif not isinstance(name, int):
            return False
    return not left


class Values:
    """The values that are hidden, which are to stand nowhere else either."""

    def __init__(self) -> None:
        self.unknown = False  # there are some that cannot be told: hide every text
        self._long: set[str] = set()
        self._short: set[str] = set()
        self._pieces: set[str] | None = None

    def note(self, value: "Any") -> None:
        """Note all texts and numbers of a value that is hidden."""
        if isinstance(value, dict):
            for key, one in value.items():
                self.note(key if len(key) > _PIECE else None)
                self.note(one)
        elif isinstance(value, list):
            for one in value:
                self.note(one)
        elif isinstance(value, str) or (value is not None and not isinstance(value, bool)):
            text = value if isinstance(value, str) else json.dumps(value)
            text = text.strip()
            if len(text) < _PIECE:
                self._short |= {text.lower()} - {""}
            else:
                self._long |= {form.lower() for form in _forms(text)}
            if inner := _container(text):
                self.note(inner)
            self._pieces = None

    def masked(self, value: "Any") -> "Any":
        """Return a value with `***` wherever a hidden one, or a piece of it, stands in it."""
        if isinstance(value, dict):
            return {self._text(key): self.masked(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.masked(one) for one in value]
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool):
            return value
        text = json.dumps(value)
        return value if self._text(text) == text else HIDDEN

    def _text(self, text: str) -> str:
        if text == HIDDEN or not (self._long or self._short or self.unknown):
            return text
        if self.unknown or sum(map(len, self._long)) > _MOST:
            return HIDDEN if text else text
        lower = text.lower() if len(text.lower()) == len(text) else text
        for short in self._short:
            if short in lower and re.search(rf"(?<!\w){re.escape(short)}(?!\w)", lower):
                return HIDDEN  # to take it out alone would tell how long it is
        if self._pieces is None:
            self._pieces = {
                long[at : at + _PIECE] for long in self._long for at in range(len(long) - 4)
            }
        if not self._pieces:
            return text
        made, shown = [], 0
        at = 0
        while at <= len(lower) - _PIECE:
            if lower[at : at + _PIECE] not in self._pieces:
                at += 1
                continue
            made += [text[shown:at], HIDDEN]
            while at <= len(lower) - _PIECE and lower[at : at + _PIECE] in self._pieces:
                at += 1
            at = shown = at + _PIECE - 1
        made.append(self._without_beginning(text[shown:]))
        return "".join(made)

    def _without_beginning(self, text: str) -> str:
        """Return the end of a text without the beginning of a value that was cut off there."""
        for size in (4, 3):
            if any(text.lower().endswith(long[:size]) for long in self._long):
                return text[:-size] + HIDDEN
        return text


def _forms(text: str) -> "list[str]":
    """Return how a text may stand in an error: as it is, or written by repr, JSON or in a URL."""
    import urllib.parse

    plain = text.encode(errors="replace").decode()
    return [
        text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1],
        escape(text), ascii(text)[1:-1], urllib.parse.quote(plain), urllib.parse.quote_plus(plain),
    ]  # fmt: skip


# --- logs


class RedactedError(Exception):
    """What a handler raised, without the sensitive values that its text has quoted."""


def redacting(job: Job, call_next: "Callable[[Job], Any]") -> "Any":
    """Run a job so that what it raises quotes no sensitive value, in the log nor as its error.

    A layer; `work` and `run` of the command line have it.
    """
    try:
        return call_next(job)
    except Exception as failure:
        instead = _instead_of(failure, job)
        if instead is None:
            raise
    raise instead


async def _awaiting(job: Job, call_next: "Callable[[Job], Any]") -> "Any":
    try:
        return await call_next(job)
    except Exception as failure:
        instead = _instead_of(failure, job)
        if instead is None:
            raise
    raise instead


with_twin(redacting, _awaiting)


def _instead_of(failure: Exception, job: Job) -> Exception | None:
    """Return what to raise in the place of an exception, None where that tells nothing."""
    paths = paths_of(job)
    if not paths:
        return None
    from .outcome import text_of

    values = Values()
    _without(job.payload, paths, values)
    text, readable = text_of(failure)
    trace = traceback_of(failure, readable)
    if values.masked(trace) == trace and values.masked(text) == text:
        return None
    said = values.masked(text)
    made: Exception
    if isinstance(failure, Snooze):
        made = Snooze(failure.seconds, said if failure.reason else "")
    elif isinstance(failure, Retry):
        made = Retry(values.masked(str(failure)), after=failure.after)
    elif isinstance(failure, Discard):
        made = Discard(said)
    else:
        made = RedactedError(said)
    return made.with_traceback(failure.__traceback__)
