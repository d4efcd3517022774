"""One sealed cell: a Fernet token around the cell, its job's id and type, and its column.

Fernet has no associated data, so these stand inside and are compared.  In the file a payload and a
result are JSON, {"sealed": TOKEN, "key": FINGERPRINT}; other cells are the text `sealed FINGERPRINT
TOKEN`.
"""

import re

from ..errors import QueueError
from ..keys import Key, Keys
from ..tsv import COLUMNS, dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..job import Job

JSON = ("payload", "result")
_NEVER = {*COLUMNS} - {*JSON, "error"}
_VERSION = b"1"
_TEXT = re.compile(r"(?:[A-Za-z_][\w.]*: )?sealed ([0-9a-f]{8}) ([\w=-]+)", re.ASCII)
_TOKEN = re.compile(r"[\w=-]+", re.ASCII)


class NotOpened(QueueError):
    """A sealed cell cannot be opened: it was changed, cut short, or sealed for another place."""


class KeyMissing(NotOpened):
    """A cell is sealed with a key that is not among those given; the message has its name."""


class CipherMissing(QueueError):
    """The package `cryptography` is not installed here."""


def cipher_of(key: Key) -> "Any":
    """Return what seals with a key; CipherMissing where `cryptography` is not there."""
    if key.cipher is None:
        try:
            from cryptography.fernet import Fernet
        except ImportError as problem:
            text = "sealed jobs need the package cryptography: pip install 'dbbasic-queue[crypto]'"
            raise CipherMissing(text) from problem
        key.cipher = Fernet(key.text)
    return key.cipher


def seal_cell(key: Key, id: str, type: str, column: str, cell: bytes) -> bytes:
    """Return a cell, as it would stand in the file, sealed; an empty one stays empty."""
    if not cell:
        return cell
    plain = b"\t".join((_VERSION, id.encode(), type.encode(), column.encode(), cell))
    token = cipher_of(key).encrypt(plain).decode()
    if column in JSON:
        return dump({"sealed": token, "key": key.name}, f"the sealed {column}")
    return f"sealed {key.name} {token}".encode()


def parts(column: str, cell: bytes) -> "tuple[str, str] | None":
    """Return (fingerprint, token) of a sealed cell, None where it is plain."""
    if b"sealed" not in cell:
        return None
    if column not in JSON:
        found = _TEXT.fullmatch(cell.decode(errors="replace"))
        return (found[1], found[2]) if found else None
    try:
        value = load(cell)
    except ValueError:
        return None
    if not isinstance(value, dict) or not value.keys() >= {"sealed", "key"}:
        return None
    return str(value["key"]), str(value["sealed"])


def open_cell(keys: Keys, job: "Job", column: str) -> bytes | None:
    """Return a cell of a job as it was before it was sealed; None where it is plain.

    KeyMissing, or NotOpened with the reason.
    """
    cell = job.raw(column)
    found = parts(column, cell)
    if found is None:
        return None
    name, token = found
    key = keys.by_name.get(name)
    if key is None:
        raise KeyMissing(f"its {column} is sealed with the key {name[:8]!r}, which is not here")
    cipher = cipher_of(key)
    from cryptography.fernet import InvalidToken

    try:
        if not _TOKEN.fullmatch(token):
            raise InvalidToken
        plain: bytes = cipher.decrypt(token.encode())
    except InvalidToken:
        text = f"its {column} cannot be opened: it was changed or cut short since it was sealed"
        raise NotOpened(text) from None
    bound = plain.split(b"\t", 4)
    here = [_VERSION, job.cells[0], job.cells[1], column.encode()]
    if bound[:4] != here:
        raise NotOpened(f"its {column} was sealed for {_place(bound)}, and does not count here")
    return bound[4]


def _place(bound: "list[bytes]") -> str:
    if len(bound) != 5 or bound[0] != _VERSION:
        return "another program"
    _, id, type, column, _ = (part.decode(errors="replace")[:100] for part in bound)
    return f"the {column} of job {id} of type {type}"


def columns_of(job: "Job") -> "list[str]":
    """Return the columns of a job that may hold something sealed, those in use."""
    return sorted(job.columns_in_use() - _NEVER)
