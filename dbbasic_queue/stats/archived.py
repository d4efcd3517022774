"""How many jobs the archive has, by status, counted once for each state of a month's file."""

import os
import re

from ..beside import open_regular
from ..errors import QueueError
from ..files import blocks, close_quietly, stamp_of
from ..lookup import archives

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..disk import QueueFile

_STATUS = re.compile(
    rb"^[^\t\n]+\t[^\t\n]*\t[^\t\n]*\t(completed|failed|cancelled)\t", re.MULTILINE
)


class Archived:
    """The counts of each month, remembered by what its file was."""

    def __init__(self) -> None:
        self._months: dict[str, tuple[tuple[int, int, int], dict[str, int]]] = {}

    def count(self, file: "QueueFile") -> "dict[str, int]":
        """Return the jobs in the archive by status; a job that was archived twice counts twice."""
        total = {"completed": 0, "failed": 0, "cancelled": 0}
        for path in archives(file):
            try:
                stamp = stamp_of(os.stat(path))
                known = self._months.get(path)
                if known is None or known[0] != stamp:
                    known = self._months[path] = stamp, _counted(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise QueueError(f"{path}: cannot be read: {error.strerror}") from error
            for status, number in known[1].items():
                total[status] += number
        return total


def _counted(path: str) -> "dict[str, int]":
    found = {"completed": 0, "failed": 0, "cancelled": 0}
    fd = open_regular(path, os.O_RDONLY)
    try:
        for _, block in blocks(fd, 0):
            for status in _STATUS.findall(block):
                found[status.decode()] += 1
    finally:
        close_quietly(fd)
    return found
