"""What grows at its end: the archive's months, and a worker's file."""

import os
import time

from ..beside import NoFile, open_regular
from ..files import blocks, close_quietly, read_header, stamp_of
from ..job import Job
from ..journal import parse
from ..lookup import archives
from ..tsv import row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..disk import QueueFile
    from ..journal import Line
    from ..tsv import Header

_RACE = 50_000_000  # ns in which two writes may leave the same mtime
_SOME = 1 << 16  # bytes


class Archive:
    """The rows that come into the archive; its months are held open, to know them again."""

    def __init__(self, file: "QueueFile") -> None:
        self._file = file
        self._seen: dict[str, tuple[int, int, int]] = {}  # by path: descriptor, inode, size

    def begin(self, since: float | None) -> "Iterator[tuple[bytes, Header]]":
        """Take what is there as seen; yield the lines of months that were written since then."""
        for path, fd, st in self._files():
            if since is not None and st.st_mtime >= since:
                yield from self._lines(path, fd, 0)
            self._keep(path, fd, st)

    def news(self) -> "Iterator[tuple[bytes, Header]]":
        """Yield (line, header) of what came since the last look."""
        for path, fd, st in self._files():
            old, inode, size = self._seen.get(path, (-1, -1, 0))
            if (inode, size) == (st.st_ino, st.st_size):
                os.close(fd)
                continue
            if inode in (-1, st.st_ino):
                yield from self._lines(path, fd, size if size <= st.st_size else 0)
            else:  # it was given more columns: the same lines, in a new file
                known = sum(block.count(b"\n") for _, block in blocks(old, 0, size))
                for count, found in enumerate(self._lines(path, fd, 0), 2):
                    if count > known:
                        yield found
            self._keep(path, fd, st)

    def close(self) -> None:
        for fd, _, _ in self._seen.values():
            close_quietly(fd)
        self._seen.clear()

    def _files(self) -> "Iterator[tuple[str, int, os.stat_result]]":
        for path in archives(self._file):
            try:
                fd = open_regular(path, os.O_RDONLY)
            except (FileNotFoundError, NoFile):
                continue
            yield path, fd, os.fstat(fd)

    def _lines(self, path: str, fd: int, start: int) -> "Iterator[tuple[bytes, Header]]":
        header = read_header(fd, path)
        if header is None:
            return
        for _, block in blocks(fd, max(start, len(header.line) + 1)):
            yield from ((line, header) for line in block.split(b"\n")[:-1])

    def _keep(self, path: str, fd: int, st: os.stat_result) -> None:
        if path in self._seen:
            close_quietly(self._seen[path][0])
        end = end_of_lines(fd, st.st_size)
        self._seen[path] = fd, st.st_ino, end


class Journal:
    """What comes into one worker's file, which its worker may cut back or replace."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._settled = False
        self._at = 0
        self._last = b""

    def news(self) -> "list[Line]":
        """Return the lines since the last look; after a cut, some for a second time."""
        try:
            st = os.stat(self._path, follow_symlinks=False)
            if stamp_of(st) == self._stamp and self._settled:
                return []
            fd = open_regular(self._path, os.O_RDONLY)
        except (FileNotFoundError, NoFile):
            return []
        try:
            self._stamp = stamp_of(st)
            self._settled = time.time_ns() - st.st_mtime_ns > _RACE
            if os.pread(fd, len(self._last), self._at - len(self._last)) != self._last:
                self._at, self._last = 0, b""
            parts, at = [], self._at
            while block := os.pread(fd, _SOME, at):
                parts.append(block)
                at += len(block)
                if b"\0" in block:  # room that is reserved
                    break
        finally:
            os.close(fd)
        data = b"".join(parts).partition(b"\0")[0]
        cut = data.rfind(b"\n") + 1
        if not cut:
            return []
        self._at += cut
        self._last = data[data.rfind(b"\n", 0, cut - 1) + 1 : cut]
        return parse(data[:cut])[0]


def as_job(line: bytes | None, header: "Header") -> Job | None:
    """Return the job of a line, None where it is no row."""
    cells = row(line, header) if line else None
    return Job(cells, header) if cells else None


def end_of_lines(fd: int, size: int) -> int:
    """Return where the last whole line ends."""
    reach = 1 << 12
    while size:
        start = max(0, size - reach)
        cut = os.pread(fd, size - start, start).rfind(b"\n") + 1
        if cut or not start:
            return start + cut
        reach *= 16
    return 0
