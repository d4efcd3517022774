"""The output of one attempt, added to the job's file: a head line, what was printed, an end line.

Beyond its limit the rest is left out, which a line says, and the very end follows.
"""

import os
import time

from ..errors import QueueError
from ..files import last_line, write_all
from ..log import warn
from ..output import open_to_add
from ..tsv import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..job import Job
    from ..queue import Queue

MARK = b"--- "
LIMIT = 16 << 20  # bytes of a job's file
_END = 1 << 16  # bytes of the end that are kept in any case


class Log:
    """The file of one attempt.  Where it cannot be written the command goes on, and that is
    logged.
    """

    def __init__(self, queue: "Queue", job: "Job", line: str, limit: int) -> None:
        self._attempt = job.attempts
        self._end = b""
        self._at_line_start = True
        self._left_out = 0
        self._path = f"{queue.path}: the output of job {job.id}"
        self._fd, self.was_cut_off = -1, False
        try:
            self._fd = open_to_add(queue.file, job.id)
            size = os.fstat(self._fd).st_size
            last = last_line(self._fd, size)
            self.was_cut_off = bool(size) and not (
                last.startswith(MARK + b"attempt ") and b" ended " in last
            )
            self._at_line_start = not size or last.endswith(b"\n")
        except (OSError, QueueError) as problem:
            self._fail(problem)
            size = 0
        self._room = max(limit - size, _END)
        now = time.strftime("%Y-%m-%d %H:%M:%S %z")
        self._note(f"attempt {self._attempt} began {now}: {line}")

    def add(self, data: bytes) -> None:
        """Add what the command printed."""
        self._end = (self._end + data)[-_END:]
        part = data[: self._room]
        self._room -= len(part)
        self._write(part)
        rest = len(data) - len(part)
        if rest and not self._left_out:
            self._note("cut here: more was printed than is kept; its end follows when it has ended")
        self._left_out += rest

    def close(self, how: str) -> None:
        """Add the end."""
        if self._left_out:
            end = self._end[-self._left_out :]
            self._note(f"{self._left_out - len(end)} bytes were left out")
            self._write(end)
        self._note(f"attempt {self._attempt} ended with {how}")
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def last_line(self) -> str:
        """Return the last line that says something."""
        lines = self._end.rstrip().rsplit(b"\n", 1)
        return lines[-1].rpartition(b"\r")[2].decode(errors="replace").strip()[:300]

    def _note(self, text: str) -> None:
        start = b"" if self._at_line_start else b"\n"
        self._write(start + MARK + visible(text).encode(errors="backslashreplace") + b"\n")

    def _write(self, data: bytes) -> None:
        if self._fd >= 0 and data:
            try:
                write_all(self._fd, data)
                self._at_line_start = data.endswith(b"\n")
            except OSError as problem:
                self._fail(problem)

    def _fail(self, problem: Exception) -> None:
        warn("%s is not kept: %s", self._path, str(problem))
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
