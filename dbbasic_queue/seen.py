"""What each worker serves, as its last tick said, in `queue.tsv.d/types`: who could run a job.

One line for each name, or for the queues of a worker without one: name, queues (none: all), types
("*": they cannot be listed), Unix time, and the `admit` functions that it asks.  Written in place,
under the queue's lock, when it says something new or is an hour old.  Nothing depends on it.
"""

import os
import time

from .beside import NoFile, is_folder, make, open_regular
from .errors import QueueError
from .files import read_all, write_all
from .options import Options
from .tsv import escape, unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .disk import QueueFile

FRESH = 3600  # seconds after which a line is written again
KEPT = 7 * 86400  # seconds after which one that nobody writes any more goes
MOST = 100  # lines
_LONGEST = 1 << 20
_IN_NONE = "\n"  # no type is like that


class Seen:
    """What a worker served when it was last seen."""

    __slots__ = ("at", "limits", "name", "queues", "types")

    def __init__(self, line: bytes) -> None:
        name, queues, types, at, limits = line.decode(errors="replace").split("\t")
        self.name = unescape(name)
        self.queues = _listed(queues)  # []: all
        self.types = _listed(types)  # ["*"]: they cannot be listed
        self.at = int(at)
        self.limits = unescape(limits).split("\n") if limits else []

    def serves(self, queue: str) -> bool:
        return not self.queues or queue in self.queues

    def handles(self, type: str) -> bool:
        return type in self.types or self.types == ["*"]


def _listed(cell: str) -> list[str]:
    return unescape(cell).split(",") if cell else []


def seen(file: "QueueFile") -> list[Seen]:
    """Return what the workers of the last week served, each once; no lock is taken."""
    found = []
    for line in _lines(file.side + "/types"):
        try:
            found.append(Seen(line))
        except ValueError:
            continue  # cut off, or half written at the moment
    return [one for one in found if -FRESH < time.time() - one.at < KEPT]


def said_by(options: Options) -> tuple[bytes, bytes]:
    """Return what a worker says about itself: the cells before the time, and those after it."""
    queues = None if options.queues is None else ",".join(options.queues)
    cells = (options.name or "", queues or "", _types(options), "")
    texts = [_text(ask).replace("\n", " ") for ask in options.admit]
    return "\t".join(map(escape, cells)).encode(), escape("\n".join(texts)).encode()


def _types(options: Options) -> str:
    if type(options.handlers) is not dict:
        try:
            if _IN_NONE in options.handlers:
                return "*"
        except Exception:  # the caller's mapping; what is in it was listed before
            return "*"
    return ",".join(options.handlers)


def _text(ask: object) -> str:
    try:
        text = repr(ask)
    except Exception:  # the caller's
        text = "<"
    if text.startswith("<"):  # it would have an address in it, another one in each process
        name = getattr(ask, "__qualname__", type(ask).__qualname__)
        text = f"{getattr(ask, '__module__', '')}.{name}"
    return text[:300]


def note(file: "QueueFile", said: tuple[bytes, bytes]) -> None:
    """Store what a worker says about itself, where that is new; under the queue's lock."""
    try:
        _note(file, said, int(time.time()))
    except (OSError, ValueError, QueueError):
        return  # nothing depends on it


def _note(file: "QueueFile", said: tuple[bytes, bytes], now: int) -> None:
    if not is_folder(file.side):
        return
    path = file.side + "/types"
    before = _lines(path)
    mine, kept = _key(said[0]), []
    for line in before:
        front, _, rest = line.rpartition(b"\t")
        front, _, at = front.rpartition(b"\t")
        if at.isdigit() and len(at) < 12 and -FRESH < now - int(at) < KEPT:
            if _key(front) != mine:
                kept.append((int(at), line))
            elif (front + b"\t", rest) == said and 0 <= now - int(at) < FRESH:
                return
    kept = [*sorted(kept)[1 - MOST :], (now, b"%b%d\t%b" % (said[0], now, said[1]))]
    data = b"".join(line + b"\n" for _, line in kept)
    fd = make(path, os.O_RDWR, file.real)
    try:
        write_all(fd, data)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _key(front: bytes) -> bytes:
    """Return by what a worker is known again: its name, else its queues."""
    name, _, rest = front.partition(b"\t")
    return name or b"\t" + rest.partition(b"\t")[0]


def _lines(path: str) -> list[bytes]:
    try:
        fd = open_regular(path, os.O_RDONLY)
    except (FileNotFoundError, NoFile):
        return []
    try:
        return read_all(fd).split(b"\n")[:-1] if os.fstat(fd).st_size <= _LONGEST else []
    finally:
        os.close(fd)
