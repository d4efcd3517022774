"""The commands for keys and sealed jobs: new-key, reseal; the word --plain."""

import os

from .. import Queue
from ..layers import awaiting, with_twin
from .output import Output, numbered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable
    from typing import Any

    from .. import Job

    Call = Callable[[Job], Any]


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add these commands to the command line."""
    add(
        "new-key", make_key, "Print a new key for sealed and signed jobs.",
        """new-key
           new-key > queue.key""",
        "Keep it apart from the queue and its backups: whoever has both reads the jobs.",
    )  # fmt: skip
    add(
        "reseal", reseal_jobs, "Seal under the first of $DBBASIC_QUEUE_KEY what is under others.",
        """reseal
           reseal --json""",
        "For a new key: put it before the old one, in every program, reseal until none is left,\n"
        "then take the old one out.  The archive is resealed too; backups are not.  The status is\n"
        "1 while jobs are left: they run now, or their key is missing, or they were changed.",
    )  # fmt: skip


def add_plain(p: "ArgumentParser") -> None:
    p.add_argument("--plain", action="store_true", help="show sensitive fields too, not ***")


def opening() -> "list[Callable[[Job, Call], Any]]":
    """Return the layer that opens what a key of $DBBASIC_QUEUE_KEY opens; [] where there is none.

    What is sealed with another key is left to the layers that the handlers bring along.
    """
    if not os.environ.get("DBBASIC_QUEUE_KEY"):
        return []
    from ..crypt import Keys, sealed_with, unsealing

    known, layer = Keys().by_name, unsealing()
    twin = awaiting(layer)

    def opened(job: "Job", call_next: "Call") -> "Any":
        return layer(job, call_next) if sealed_with(job) in known else call_next(job)

    async def opened_beside(job: "Job", call_next: "Call") -> "Any":
        return await (twin(job, call_next) if sealed_with(job) in known else call_next(job))

    return [with_twin(opened, opened_beside)]


def make_key(queue: Queue, given: "Namespace", out: Output) -> int:
    """Print a new key."""
    from ..crypt import Keys, new_key

    key = new_key()
    if out.json:
        out.document({"key": key, "fingerprint": Keys(key).first.name})
    else:
        out.line(key)
    return 0


def reseal_jobs(queue: Queue, given: "Namespace", out: Output) -> int:
    """Seal under the first key what is under another."""
    from ..crypt import reseal

    done, left = reseal(queue_file=queue)
    if out.json:
        out.document({"resealed": done, "left": left, "file": queue.path})
    else:
        out.line(f"{numbered(done)} of {queue.path} resealed, {left} left")
    return 1 if left else 0
