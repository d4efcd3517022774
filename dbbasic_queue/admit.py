"""Which of the due rows may start now: none of a paused queue, none that an `admit` function of the
caller leaves.
"""

import math
import os

from . import log
from .beside import open_regular
from .edit import Edit
from .errors import QueueError
from .job import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

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

    def __init__(
        self,
        edit: Edit,
        processing: "Mapping[bytes, Job]",
        functions: "Sequence[Function]",
        raised: list[object],
    ) -> None:
        self.counts = Counts(edit, processing)
        self._functions = functions
        self._raised = raised  # of these it is logged already

    def __call__(self, job: Job) -> bool | None:
        """None: leave the row.  False: claim it.  True: claim it, to run first and alone.

        A row that is claimed is to be noted before.
        """
        counts, limited = self.counts, False
        counts.calls.clear()
        counts.all_such = False
        for ask in self._functions:
            try:
                verdict = ask(job, counts)
            except Exception as problem:  # the user's function
                if ask not in self._raised:
                    self._raised.append(ask)
                    self._warn(job, problem)
                return None
            if verdict is False:
                return None
            limited = limited or verdict is True
            counts.all_such = False  # said, and not meant
        return limited

    def note(self, job: Job) -> bool:
        """Do what the functions asked for in case that the job is claimed; False: it is not."""
        try:
            for call in self.counts.calls:
                call()
        except Exception as problem:
            code = getattr(call, "__code__", call)  # it is a new function each time, perhaps
            if code not in self._raised:
                self._raised.append(code)
                self._warn(job, problem)
            return False
        return True

    @staticmethod
    def _warn(job: Job, problem: Exception) -> None:
        log.warn("admit raised %s for job %s; it is left", repr(problem), job.id)


class Counts:
    """How many jobs there are, for an `admit` function: counts(status=, type=, queue=, group=).

    Each question is one scan of the file; what is claimed meanwhile is counted over.  `memory` is
    for the functions: what they want to remember until this edit ends.
    """

    def __init__(self, edit: Edit, processing: "Mapping[bytes, Job]") -> None:
        self._edit = edit
        self._processing = processing
        self._known: dict[tuple[str | None, ...], int] = {}
        self.memory: dict[object, Any] = {}
        self.calls: list[Callable[[], object]] = []
        self.all_such = False  # the last verdict holds for the type and queue of the job
        self.ask_at = math.inf

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

    def processing(self) -> "Iterable[Job]":
        """Return the jobs of the whole file that are processing now, from what the worker knows."""
        return self._processing.values()

    def if_claimed(self, call: "Callable[[], object]") -> None:
        """Call this, still under the lock, when the other functions let the job start too."""
        self.calls.append(call)

    def leave_kind(self) -> bool:
        """Leave the job, and ask for no other of its type and queue in this edit; return False."""
        self.all_such = True
        return False

    def ask_again(self, at: float) -> None:
        """Look again at this Unix time, when a job that is left now may start."""
        self.ask_at = min(self.ask_at, at)

    def claimed(self, job: Job) -> None:
        """Count a job that was pending as processing."""
        for status, type, queue, group in self._known:
            same = type in (None, job.type) and queue in (None, job.queue)
            if status is not None and same and group in (None, job.group):
                step = (status == "processing") - (status == "pending")
                self._known[status, type, queue, group] += step
