"""The keys of sealed and of signed jobs, and what both refuse: a row that stands twice.

One secret serves both: what is sealed takes the key as it is, all else a key that is derived from
it for that one purpose.  No text here shows a key; its fingerprint says which one is meant.
"""

import hmac
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from .beside import open_queue
from .errors import BadArgument, Discard, QueueError, Snooze
from .files import blocks, read_header
from .lookup import archive_path, ids_in, lines_with, month_of
from .tsv import row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .disk import QueueFile
    from .job import Job

    # One text with keys between commas or spaces, or several; None: $DBBASIC_QUEUE_KEY.
    Texts = str | Iterable[str] | None

VARIABLE = "DBBASIC_QUEUE_KEY"
PAUSE = 60  # seconds until a job whose key is missing is looked at again
SIGNATURE = "signature"  # the column
_KEY = re.compile("[A-Za-z0-9_-]{43}=")


def new_key() -> str:
    """Return a new key: 32 bytes of chance as 44 characters, as Fernet takes them."""
    return urlsafe_b64encode(os.urandom(32)).decode()


class Key:
    """One key; its `name` is a fingerprint, which may be shown."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._raw = urlsafe_b64decode(text)
        self.name = self.derived("fingerprint").hex()[:8]
        self.cipher: Any = None  # what seals with it, once it is made

    def __repr__(self) -> str:
        return f"<Key {self.name}>"

    def derived(self, purpose: str) -> bytes:
        """Return a key of 32 bytes for one purpose, which does not tell this one."""
        return hmac.digest(self._raw, f"dbbasic-queue {purpose}".encode(), "sha256")


class Keys:
    """Several keys: the first one seals and signs, each of them opens and verifies."""

    def __init__(self, given: "Texts" = None) -> None:
        where = f"${VARIABLE}" if given is None else "keys="
        given = os.environ.get(VARIABLE, "") if given is None else given
        texts = re.split(r"[,\s]+", given.strip(", \t\n")) if isinstance(given, str) else [*given]
        self.all: list[Key] = []
        for at, text in enumerate(filter(None, texts), start=1):
            if not isinstance(text, str) or not _KEY.fullmatch(text):
                raise BadArgument(
                    f"{where}: number {at} is no key (it is not shown here); `dbbasic-queue"
                    " new-key` makes one of 44 characters"
                )
            self.all.append(Key(text))
        self.by_name = {key.name: key for key in self.all}

    @property
    def first(self) -> Key:
        """The key that seals; BadArgument where there is none."""
        if not self.all:
            raise BadArgument(f"there is no key: give keys=, or set ${VARIABLE}")
        return self.all[0]


if TYPE_CHECKING:
    Given = Texts | Keys

_of_environment: "tuple[str, Keys] | None" = None


def keys_of(given: "Given") -> Keys:
    """Return keys; those of the environment are looked up at each call."""
    global _of_environment
    if isinstance(given, Keys):
        return given
    if given is not None:
        return Keys(given)
    text = os.environ.get(VARIABLE, "")
    if _of_environment is None or _of_environment[0] != text:
        _of_environment = text, Keys()
    return _of_environment[1]


# --- signatures


def signature(key: Key, id: str, type: str, payload: "Any") -> str:
    """Return the signature of a job as it stands in its column; ValueError when it is no JSON."""
    import json

    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    parts = [part.encode() for part in ("1", id, type, text)]
    framed = b"".join(b"%d:%b," % (len(part), part) for part in parts)  # reads in one way only
    return f"{key.name} {hmac.new(key.derived('signing'), framed, 'sha256').hexdigest()}"


def is_signature(cell: str, key: Key, id: str, type: str, payload: "Any") -> bool:
    """Whether a cell is the signature of a job, compared in a time that does not tell where not."""
    try:
        wanted = signature(key, id, type, payload)
    except (ValueError, RecursionError):
        return False
    return hmac.compare_digest(wanted.encode(), cell.encode(errors="replace"))


# --- rows that stand twice

_seen: "tuple[bytes, dict[bytes, str]]" = b"", {}


def refuse_twice(file: "QueueFile", job: "Job") -> None:
    """Raise Discard for a claimed job that may have run: another row has its id, or the archive.

    The file, and the archives of the claimed jobs, are read once for each claim: a row that is put
    there later is claimed later.  Where they cannot be read the job waits: Snooze.
    """
    global _seen
    mark = job.raw("worker")
    try:
        if not mark or mark != _seen[0]:
            _seen = mark, _twice(file, mark, job.cells[0])
    except (OSError, QueueError) as problem:
        raise Snooze(PAUSE, f"whether it has run cannot be seen: {problem}") from problem
    if why := _seen[1].get(job.cells[0]):
        raise Discard(why)


def _twice(file: "QueueFile", mark: bytes, own: bytes) -> "dict[bytes, str]":
    """Return why, by id, for the jobs of a claim that stand twice."""
    fd = open_queue(file.path)
    try:
        header = read_header(fd, file.path)
        start = len(header.line) + 1 if header else 0
        claimed = {own}
        for _, block in blocks(fd, start) if mark else ():
            found = lines_with(block, (b"\t%b\t" % mark,))
            claimed |= {block[begin : begin + 16] for begin, _ in found}
        rows = dict.fromkeys(claimed, 0)
        for _, block in blocks(fd, start):
            for line in block.split(b"\n"):
                if line[:16] in claimed and header and row(line, header):
                    rows[line[:16]] += 1  # what is no row never runs, and stands for none
    finally:
        os.close(fd)
    why = dict.fromkeys(_archived(file, claimed), "it stands in the archive, so it has run already")
    text = "another row has its id, so it may have run already"
    return why | {id: text for id, count in rows.items() if count > 1}


def _archived(file: "QueueFile", ids: "set[bytes]") -> "set[bytes]":
    """Return those of the ids that the archives of their months hold."""
    months = set()
    for id in ids:
        try:
            months.add(month_of(id.decode()))
        except (ValueError, OverflowError, OSError):
            continue  # no archive has it
    return set().union(*(ids_in(archive_path(file, month), ids) for month in months))
