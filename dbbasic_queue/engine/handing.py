"""The rows that an engine has: which they are, what became of them, and which come next."""

import os
import time

from ..beside import make
from ..claim import Stale
from ..disk import Changed
from ..flock import try_lock, unlock
from ..hint import idle_tick, note_tick
from ..job import Job
from ..log import tell
from ..lookup import jobs
from ..options import Options
from ..queue import Queue
from ..tsv import PROCESSING
from ..turn import Turns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..journal import Cells

    # By job id: its row's mark, the number of the attempt, the row's new cells.
    Outcomes = Mapping[str, tuple[str, int, Cells]]


def marked(queue: Queue, start: str) -> "list[Job]":
    """Return the rows of an engine whose mark begins so, in the order of the file."""
    found = jobs(queue.file, needle=b"\t%b\t" % PROCESSING)
    held = [job for job in found if job.cell("worker").startswith(start)]
    return [job for job in held if job.status == "processing"]


class Engine:
    """What one engine, of this `name`, has of one queue; one forwarder at a time turns it."""

    def __init__(self, queue: Queue, name: str, options: Options) -> None:
        self.queue = queue
        self.options = options
        self._mark = _Mark(name)
        self._turns = _Turns(queue, options, self._mark, set())  # type: ignore[arg-type]
        self._fd = -1

    def is_idle(self) -> bool:
        """Whether there is plainly nothing to do, by a look that takes no lock."""
        return idle_tick(self.queue.path)

    def enter(self) -> bool:
        """Be the only forwarder of this engine, until `leave`; False when there is one already."""
        if not self.queue.file.lock(self.queue.lock_timeout):
            return False
        try:
            path = f"{self.queue.file.make_side()}/{self._mark.id}"
            self._fd = make(path, os.O_RDWR, self.queue.file.real)
        finally:
            self.queue.file.unlock()
        if try_lock(self._fd):
            return True
        self._close()
        return False

    def leave(self) -> None:
        """Let the next one in."""
        unlock(self._fd)
        self._close()

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def held(self) -> "list[Job]":
        """Return the jobs that this engine has, as their rows say."""
        return marked(self.queue, f"{self._mark.id}.")

    def turn(self, outcomes: "Outcomes", room: int) -> "list[Job]":
        """Take in outcomes and claim the next due jobs, at most `room`, in one edit; return them.

        An outcome for a row that does not bear its mark any more is dropped, and logged.
        """
        given = {
            id.encode(): (mark.encode(), number, dict(cells))
            for id, (mark, number, cells) in outcomes.items()
        }
        for attempt in range(4):
            try:
                made = self._turns.turn(given, _EVERYTHING, room, False)
                break
            except (Stale, Changed):
                if attempt == 3:
                    raise
        claimed, events = made or ([], [])
        for event, job in events:
            tell(self.options.listeners, event, [job])
        note_tick(self.queue.file.real, len(outcomes))
        return claimed


class _Turns(Turns):
    def rank(self, type: str, queue: str) -> int | None:
        """As there, but what this engine does not run is not worth a warning."""
        return super().rank(type, queue) if type in self._options.handlers else None


class _Everything:
    """All ids: every row with our mark stays as it is."""

    def __contains__(self, id: object) -> bool:
        return True

    def __iter__(self) -> "Iterator[bytes]":
        return iter(())

    def __len__(self) -> int:
        return 1


_EVERYTHING = _Everything()


class _Mark:
    """In the place of a worker's file: an engine has none, and never dies."""

    def __init__(self, name: str) -> None:
        self.id = "@" + name
        self._k = 0

    @property
    def k(self) -> int:
        """The number of the last claim: microseconds, so that no two ever have the same."""
        self._k = max(self._k, int(time.time() * 1e6) - 1)
        return self._k

    @k.setter
    def k(self, number: int) -> None:
        self._k = number

    def marks(self) -> tuple[bytes, ...]:
        return (self.id.encode() + b".",)

    def register(self) -> None:
        pass

    renew_if_lost = remove = register
