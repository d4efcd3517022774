"""What the summaries of all blocks say together."""

from collections import deque

from ..tsv import PROCESSING
from .summary import Errors, Pending, Summary, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..job import Job

SAMPLE = 20_000  # jobs of the window whose times are weighed: those that stand last in the file


class Whole:
    """What all blocks say together."""

    def __init__(self, blocks: list[Summary], running: Summary) -> None:
        self._parts = [*blocks, running]
        self.running: list[Job] = running.running
        self.counts: dict[tuple[bytes, bytes, bytes], int] = dict(running.counts)
        self.pending: dict[bytes, list[Pending]] = {}
        self.linked: list[tuple[str, int, int, bool, bytes]] = []
        self.errors: dict[tuple[str, str], Errors] = {}
        self.minutes: dict[int, list[int]] = {}
        self.queued: dict[int, int] = {}
        self.hours: dict[int, int] = {}
        self.workers: dict[bytes, list[float]] = {}
        self.bad = 0
        for job in running.running:
            key = (plain(job.raw("queue")), job.cells[1], PROCESSING)
            self.counts[key] = self.counts.get(key, 0) + 1
        for part in self._parts:
            if part is not running:
                _add(self.counts, part.counts)
            for label, pending in part.pending.items():
                self.pending.setdefault(label, []).append(pending)
            self.linked += part.linked
            _add(self.queued, part.queued)
            _add(self.hours, part.hours)
            for minute, (completed, failed) in part.minutes.items():
                told = self.minutes.setdefault(minute, [0, 0])
                told[0] += completed
                told[1] += failed
            for worker, (jobs, seconds) in part.workers.items():
                spent = self.workers.setdefault(worker, [0, 0.0])
                spent[0] += jobs
                spent[1] += seconds
            for key_of, errors in part.errors.items():
                self.errors.setdefault(key_of, Errors()).add(errors)
            self.bad += part.bad

    def ended(
        self, since: float
    ) -> "tuple[list[tuple[float, float, float, float]], list[tuple[bytes, bytes]]]":
        """Return what finished since then, at most SAMPLE: (finished, begun, waited, run) of each,
        and its type and status.
        """
        rows: deque[tuple[float, float, float, float]] = deque()
        names: deque[tuple[bytes, bytes]] = deque()
        for part in reversed(self._parts):
            times = part.ended
            for at in range(len(part.ended_as) - 1, -1, -1):
                if times[4 * at] >= since:
                    a, b, c, d = times[4 * at : 4 * at + 4]
                    rows.append((a, b, c, d))
                    names.append(part.ended_as[at])
            if len(rows) >= SAMPLE:
                break
        return list(rows)[:SAMPLE], list(names)[:SAMPLE]


def _add(total: "dict[Any, int]", more: "dict[Any, int]") -> None:
    for key, count in more.items():
        total[key] = total.get(key, 0) + count
