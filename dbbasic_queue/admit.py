"""Which of the due rows may start now: none of a paused queue, none that an `admit` function of the
caller leaves.
"""

import os

from . import log
from .beside import open_regular
from .edit import Edit
from .errors import QueueError
from .job import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .disk import QueueFile

    Function = Callable[[Job, "Counts"], bool | None]


def paused(file: "QueueFile") -> frozenset[str]:
    """Return the labels in `queue.tsv.d/paused`, one a line: no job of these queues is claimed."""
    path = file.side + "/paused"
    try:
        fd = open_regular(path, os.O_RDONLY)
        try:
            return frozenset(os.pread(fd, 1 << 20, 0).decode(errors="replace").split("\n")) - {""}
        finally:
            os.close(fd)
    except FileNotFoundError:
        return frozenset()
    except OSError as error:  # not taken for empty
        raise QueueError(f"{path}: cannot be read: {error.strerror}") from error


class Admit:
    """The `admit` functions of one worker in one claim."""

    def __init__(self, edit: Edit, functions: "Sequence[Function]", raised: list[object]) -> None:
        self.counts = Counts(edit)
        self._functions = functions
        self._raised = raised  # of these it is logged already

    def __call__(self, job: Job) -> bool | None:
        """None: leave the row.  False: claim it.  True: claim it, to run first and alone."""
        limited = False
        self.counts.calls.clear()
        for ask in (*self._functions, self._claims):
            try:
                verdict = ask(job, self.counts)
            except Exception as problem:  # the user's function
                if ask not in self._raised:
                    self._raised.append(ask)
                    log.warn("admit raised %s for job %s; it is left", repr(problem), job.id)
                return None
            if verdict is False:
                return None
            limited = limited or verdict is True
        return limited

    @staticmethod
    def _claims(job: Job, counts: "Counts") -> None:
        """All of them let the job start: do what they asked for in this case."""
        for call in counts.calls:
            call()


class Counts:
    """How many jobs there are, for an `admit` function: counts(status=, type=, queue=, group=).

    Each question is one scan of the file; what is claimed meanwhile is counted over.
    """

    def __init__(self, edit: Edit) -> None:
        self._edit = edit
        self._known: dict[tuple[str | None, ...], int] = {}
        self.calls: list[Callable[[], object]] = []

    def __call__(
        self,
        status: str | None = None,
        type: str | None = None,
        queue: str | None = None,
        group: str | None = None,
    ) -> int:
        asked = (status, type, queue, group)
        if asked not in self._known:
            rows = self._edit.scan(status, type, queue)
            self._known[asked] = sum(group in (None, job.group) for job in rows)
        return self._known[asked]

    def if_claimed(self, call: "Callable[[], object]") -> None:
        """Call this, still under the lock, when the other functions let the job start too."""
        self.calls.append(call)

    def claimed(self, job: Job) -> None:
        """Count a job that was pending as processing."""
        for status, type, queue, group in self._known:
            same = type in (None, job.type) and queue in (None, job.queue)
            if status is not None and same and group in (None, job.group):
                step = (status == "processing") - (status == "pending")
                self._known[status, type, queue, group] += step
