"""One line of the file: its columns, its cells, and how any text fits into one of them.

A line is a row when it ends in a newline and has exactly as many cells as the header, or exactly
the nine of the contract (a shell or the old package wrote it).  A cell never holds a tab, a line
separator of any kind, another control character or a lone surrogate: JSON cells use JSON's own
escapes, text cells a backslash.
"""

import os
from _thread import RLock
from itertools import repeat
from operator import itemgetter

from .errors import BadArgument, ForeignFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CONTRACT = (
    "id", "type", "payload", "status", "created_at", "run_at", "attempts", "error", "result",
)  # fmt: skip
OURS = ("queue", "priority", "max_attempts", "timeout", "backoff", "worker", "after", "group")
LAST = (
    "started_at",
    "finished_at",
)  # the last column of a new row is empty: a torn line that has all its tabs is whole
COLUMNS = CONTRACT + OURS + LAST
NUMBERS = {"created_at", "run_at", "attempts", "priority", "max_attempts", "timeout", *LAST}

PENDING, PROCESSING, COMPLETED = b"pending", b"processing", b"completed"
FAILED, CANCELLED = b"failed", b"cancelled"
STATUSES = ("pending", "processing", "completed", "failed", "cancelled")
FINISHED = frozenset((COMPLETED, FAILED, CANCELLED))
_STATUSES = FINISHED | {PENDING, PROCESSING}

LONGEST_NUMBER = 20  # characters
MAX_JSON = 1 << 20  # bytes of one payload or result, as stored
MAX_DEPTH = 200  # of a payload: far below where Python's own reader gives up


class Header:
    """The columns of one file, in order.

    The last one, whosever it is, is empty in a new row: then a torn line that has all its tabs is
    the whole row.
    """

    __slots__ = (
        "are_numbers", "columns", "index", "kind_of", "line", "numbers", "numbers_of", "width"
    )  # fmt: skip

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.index = {name: at for at, name in enumerate(columns)}
        self.width = len(columns)
        self.line = "\t".join(columns).encode()
        self.numbers = [at for at, name in enumerate(columns) if name in NUMBERS]
        self.numbers_of = itemgetter(*self.numbers)  # their cells in a row
        order = ("type", "run_at", "queue", "priority")
        self.are_numbers: Callable[[bytes], object] = self._are_numbers
        self.kind_of = itemgetter(*[self.index[name] for name in order if name in self.index])

    def _are_numbers(self, cells: bytes) -> object:
        """Whether cells of numbers, with a tab between them, are as we write them."""
        _, re = _modules()
        sign = {at: rb"|-\d{1,16}" for at in self.numbers if self.columns[at] == "priority"}
        need = {at: b"" if at < len(CONTRACT) else b"?" for at in self.numbers}
        one = rb"(?:\d{1,16}(?:\.\d{1,3})?%b)%b"
        pattern = b"\t".join([one % (sign.get(at, b""), need[at]) for at in self.numbers])
        self.are_numbers = re.compile(pattern, re.ASCII).fullmatch
        return self.are_numbers(cells)

    def with_columns(self, names: "set[str]") -> "Header":
        """Return a header that has `names` and all of ours too, the new ones before the last."""
        missing = [name for name in COLUMNS if name not in self.index]
        missing += sorted(name for name in names if name not in self.index and name not in COLUMNS)
        if not missing and self.columns[-1] not in names:
            return self
        kept = [name for name in self.columns if name != LAST[-1]]
        return Header((*kept, *(name for name in missing if name != LAST[-1]), LAST[-1]))


_NEEDED = itemgetter(0, 1, 4, 5, 6)  # cells that are not empty: id, type and three numbers
HEADER = Header(COLUMNS)
_known = {HEADER.line: HEADER}


def parse_header(line: bytes, path: str) -> Header:
    """Return the header in `line` (without its newline); ForeignFile when it is not a queue's."""
    known = _known.get(line)
    if known:
        return known
    try:
        columns = tuple(line.decode().split("\t"))
    except UnicodeDecodeError:
        raise ForeignFile(f"{path}:1: not a queue: the first line is not UTF-8 text") from None
    for at, name in enumerate(CONTRACT):
        found = columns[at] if at < len(columns) else ""
        if found != name:
            raise ForeignFile(
                f"{path}:1: not a queue: column {at + 1} is {escape(found[:80])!r}, not {name!r}"
            )
    if columns[-1].endswith("\r"):
        raise ForeignFile(f"{path}:1: the lines end in \\r\\n; convert the file to \\n first")
    if len(set(columns)) != len(columns):
        raise ForeignFile(f"{path}:1: a column name stands twice")
    return _known.setdefault(line, Header(columns)) if len(_known) < 100 else Header(columns)


def split(line: bytes, header: Header) -> list[bytes] | None:
    """Return the cells of a line (without its newline), None when their number is wrong."""
    cells = line.split(b"\t")
    if len(cells) != header.width:
        if len(cells) != len(CONTRACT):
            return None
        cells += [b""] * (header.width - len(CONTRACT))
    return cells


def row(line: bytes, header: Header) -> list[bytes] | None:
    """Return the cells of a line that can be read as a row, else None; its payload is not read."""
    cells = line.split(b"\t")
    plain = len(cells) == header.width and line.isascii() and b"\0" not in line
    if plain and all(_NEEDED(cells)) and cells[3] in _STATUSES:
        numbers = header.numbers_of(cells)
        digits = b"".join(numbers)
        if digits.isdigit() and len(digits) <= LONGEST_NUMBER + 2:  # three of them are not empty
            return cells
        if header.are_numbers(b"\t".join(numbers)):  # with times, most likely
            return cells
    return _unusual_row(line, header)


def _unusual_row(line: bytes, header: Header) -> list[bytes] | None:
    """Return the cells of a row that not everything is plain about."""
    cells = split(line, header)
    if cells is None or cells[3] not in _STATUSES or not cells[0] or not cells[1]:
        return None
    if b"\0" in line:  # a power cut left a part of it out
        return None
    numbers = header.numbers_of(cells)
    if len(max(numbers, key=len)) > LONGEST_NUMBER:
        return None
    if not all(map(_is_number, header.numbers, numbers, repeat(header))):
        return None
    try:
        line.decode()
    except UnicodeDecodeError:
        return None
    return cells


def _is_number(at: int, cell: bytes, header: Header) -> bool:
    """Whether a cell is what may stand in a column of numbers: empty only in one of ours."""
    if cell.isdigit() or (not cell and at >= len(CONTRACT)):
        return True
    if cell.startswith(b"-") and header.columns[at] == "priority":
        return cell[1:].isdigit()
    return _has_fraction(cell)


def _has_fraction(cell: bytes) -> bool:
    whole, _, fraction = cell.partition(b".")
    return whole.isdigit() and fraction.isdigit()


def rehead(line: bytes, old: Header, new: Header) -> bytes:
    """Return a line under `old` as a line under `new`; a line that is not a row stays as it is."""
    cells = row(line, old)
    if cells is None:
        return line
    return b"\t".join([cells[old.index[n]] if n in old.index else b"" for n in new.columns])


def check_column(name: str) -> str:
    """Return a name that a column of somebody's own may have; BadArgument when it may not.

    `grep failed` counts jobs, so no column's name holds the word of a status.
    """
    plain = isinstance(name, str) and name.isascii() and name.isidentifier() and name.islower()
    if not plain or name in COLUMNS or any(status in name for status in STATUSES):
        raise BadArgument(f"{name!r:.80} cannot be the name of a column of your own")
    return name


# --- text cells

_unsafe: "Callable[[Callable[[Any], str], str], str] | None" = None
_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def _escaped(match: "Any") -> str:
    char = match[0]
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _escaped_json(match: "Any") -> str:
    return f"\\u{ord(match[0]):04x}"


def _replace_unsafe(by: "Callable[[Any], str]", text: str) -> str:
    global _unsafe
    if _unsafe is None:
        _, re = _modules()
        _unsafe = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").sub
    return _unsafe(by, text)


def escape(text: str) -> str:
    """Return `text` as one that fits a cell and is safe to print; `unescape` undoes it."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return text if text.isprintable() else _replace_unsafe(_escaped, text)


def unescape(text: str) -> str:
    """Undo `escape`; a backslash that is none of ours stays."""
    if "\\" not in text:
        return text
    _, re = _modules()
    names = {short: char for char, short in _SHORT.items()}
    text = re.sub(
        r"\\(?:[\\tnr]|x[0-9a-f]{2}|u[0-9a-f]{4})",
        lambda m: names.get(m[0]) or chr(int(m[0][2:], 16)),
        text,
    )
    return text


def visible(text: str) -> str:
    """Return `text` without control characters, for logs and terminals; backslashes stay single."""
    return text if text.isprintable() else _replace_unsafe(_escaped, text)


_importing = RLock()
os.register_at_fork(
    before=_importing.acquire,
    after_in_parent=_importing.release,
    after_in_child=_importing.release,
)


def _modules() -> "tuple[Any, Any]":
    """Return json and re, which few processes need; no thread may fork while they are imported.

    A child that was forked in the middle of an import could never import it.
    """
    with _importing:
        import json
        import re
    return json, re


# --- JSON cells

_encode: "Callable[[Any], str] | None" = None
_decode: "Callable[[str, int], tuple[Any, int]] | None" = None
_ATOMS = frozenset((str, int, float, bool, type(None)))


def dump(value: "Any", what: str) -> bytes:
    """Return `value` as the JSON text of a cell; BadArgument naming `what` when it is none."""
    global _encode
    if value is None:
        return b"null"
    if _encode is None:
        _encode = _encoder()
    try:
        text = _encode(value)
        if not text.isprintable():
            if _holds_split_pair(text):
                raise ValueError("two surrogates side by side would come back as one character")
            text = _replace_unsafe(_escaped_json, text)
        cell = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadArgument(f"{what} is not JSON: {visible(reason[:200])}") from None
    if len(cell) > MAX_JSON:
        raise BadArgument(f"{what} is {len(cell)} bytes of JSON, over the limit of {MAX_JSON}")
    return cell


def _encoder() -> "Callable[[Any], str]":
    """Return what writes JSON: `encode` of the standard library, made once and not at each call."""
    json, _ = _modules()
    plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
    try:
        write = json.encoder.c_make_encoder(
            None,
            plain.default,
            json.encoder.encode_basestring,
            None,
            ": ",
            ", ",
            False,
            False,
            False,
        )  # in its own order: no circles looked for, the depth ends them; no indent; no NaN
        write({"": [1]}, 0)
    except (AttributeError, TypeError):  # a Python without it, or with another one
        encode: Callable[[Any], str] = plain.encode
        return encode
    return lambda value: "".join(write(value, 0))


def _holds_split_pair(text: str) -> bool:
    _, re = _modules()
    return bool(re.search("[\ud800-\udbff][\udc00-\udfff]", text))


def load(cell: bytes) -> "Any":
    """Return the value of a JSON cell, None for an empty one; ValueError when it is not JSON."""
    global _decode
    if not cell:
        return None
    if _decode is None:
        _decode = _modules()[0].JSONDecoder().scan_once
    text = cell.decode()
    try:
        value, end = _decode(text, 0)
        if end == len(text):
            return value
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except StopIteration:  # no JSON, or spaces around it
        pass
    try:
        return _modules()[0].loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_plain(value: "Any", what: str, depth: int = 0) -> None:
    """Refuse what JSON would give back as something else: keys that are no strings."""
    if depth > MAX_DEPTH:
        raise BadArgument(f"{what} is nested more than {MAX_DEPTH} deep")
    inner: Any = ()
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise BadArgument(f"{what} has the key {key!r:.80}, which is no string")
        inner = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    for one in inner:
        if type(one) not in _ATOMS:
            check_plain(one, what, depth + 1)
