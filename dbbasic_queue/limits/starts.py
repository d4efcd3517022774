"""The starts of one rate, in `queue.tsv.d/limits/NAME`: lines `Unix time<TAB>key`, the last ones of
at least one window.  Read and written under the queue's lock only.
"""

import os
import time

from ..beside import make, open_regular, replace
from ..files import read_all, sync, sync_folder, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..queue import Queue

_FEW = 64  # lines that are not worth a new file


class Starts:
    """What the file says in one edit.  Times are microseconds."""

    def __init__(self, queue: "Queue", name: str, window: int) -> None:
        self._file = queue.file
        self._durable = queue.sync != "off"
        self._name = name
        self._lines = 0
        self._end = 0  # of the last whole line
        self._by_key: dict[bytes, list[int]] = {}
        now = time.time_ns() // 1000
        ahead = False
        for line in self._read().split(b"\n")[:-1]:
            self._lines += 1
            self._end += len(line) + 1
            stamp, tab, key = line.partition(b"\t")
            whole, _, rest = stamp.partition(b".")
            if tab and len(rest) == 6 and rest.isdigit() and whole.isdigit() and len(whole) < 13:
                at = int(whole + rest)
                if at > now:  # the clock was set back since: nobody waits for it to catch up
                    at, ahead = now, True
                if at > now - window:
                    self._by_key.setdefault(key, []).append(at)
        if ahead:
            for stamps in self._by_key.values():
                stamps.sort()
            self._rewrite()

    def of(self, key: bytes) -> "Sequence[int]":
        """Return the starts within the window, in order."""
        return self._by_key.get(key, ())

    def note(self, key: bytes) -> None:
        """Note a start; on an error none is noted."""
        stamps = self._by_key.setdefault(key, [])
        at = max(time.time_ns() // 1000, stamps[-1] if stamps else 0)
        kept = sum(map(len, self._by_key.values()))
        if self._lines > max(_FEW, 2 * kept):
            self._rewrite()
        line = _line(at, key)
        folder = self._file.make_side("limits")
        path = os.path.join(folder, self._name)
        fd = make(path, os.O_RDWR, self._file.real)
        try:
            os.ftruncate(fd, self._end)  # a line that a crash has cut
            os.lseek(fd, self._end, os.SEEK_SET)
            try:
                write_all(fd, line)
                if self._durable:
                    sync(fd)
            except OSError:
                os.ftruncate(fd, self._end)
                raise
        finally:
            os.close(fd)
        if not self._end:
            sync_folder(folder)
        self._end += len(line)
        self._lines += 1
        stamps.append(at)

    def _read(self) -> bytes:
        try:
            fd = open_regular(os.path.join(self._file.side, "limits", self._name), os.O_RDONLY)
        except FileNotFoundError:
            return b""
        try:
            return read_all(fd)
        finally:
            os.close(fd)

    def _rewrite(self) -> None:
        """Put a file with the starts of the window alone in the place of the old one."""
        starts = [(at, key) for key, stamps in self._by_key.items() for at in stamps]
        data = b"".join(_line(at, key) for at, key in sorted(starts))
        folder = self._file.make_side("limits")
        path = os.path.join(folder, self._name)
        replace(path, data, self._file.real, durable=self._durable)
        self._lines, self._end = len(starts), len(data)


def _line(at: int, key: bytes) -> bytes:
    return b"%d.%06d\t%b\n" % (*divmod(at, 1_000_000), key)
