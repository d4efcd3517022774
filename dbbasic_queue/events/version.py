"""The queue file as it is at one moment, held open: an edit puts a new one in its place."""

import os

from ..beside import open_queue
from ..files import blocks, close_quietly, identity, last_line, read_header, stamp_of
from ..job import Job
from ..lookup import find_row, lines_with
from ..tsv import HEADER, row
from .tails import as_job, end_of_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PRINT = 256  # the last bytes by which a file is known again


class Version:
    """A descriptor, and how far its rows reach; FileNotFoundError when there is no file."""

    def __init__(self, path: str) -> None:
        self.fd = open_queue(path)
        try:
            st = os.fstat(self.fd)
            header = read_header(self.fd, path)
            self.stamp = stamp_of(st)
            self.is_empty = header is None  # or in the making
            self.header = header or HEADER
            self.start = len(self.header.line) + 1
            self.stop = max(end_of_lines(self.fd, st.st_size), self.start)
            self._at = self.stop - min(_PRINT, self.stop)
            self._print = os.pread(self.fd, self.stop - self._at, self._at)
        except BaseException:
            os.close(self.fd)
            raise
        self.last_id = last_line(self.fd, self.stop).partition(b"\t")[0]

    def close(self) -> None:
        close_quietly(self.fd)

    def is_file_of(self, later: "Version") -> bool:
        """Whether both are one file, so that this one reads as the later one now."""
        return identity(self.fd) == identity(later.fd)

    def is_start_of(self, later: "Version") -> bool:
        """Whether rows were only added since."""
        same = os.pread(later.fd, len(self._print), self._at) == self._print
        return self.is_file_of(later) and later.stop >= self.stop and same

    def jobs(self, start: int = 0, needles: "Sequence[bytes]" = ()) -> "Iterator[Job]":
        """Yield the rows from an offset on; with needles, those whose line holds one."""
        for _, block in blocks(self.fd, max(start, self.start), self.stop):
            for begin, end in lines_with(block, needles):
                if cells := row(block[begin:end], self.header):
                    yield Job(cells, self.header)

    def job(self, id: bytes) -> Job | None:
        """Return the row of an id that lies where its time belongs."""
        found = find_row(self.fd, id, self.start, self.stop, everywhere=False)
        return as_job(found[1][:-1], self.header) if found else None
