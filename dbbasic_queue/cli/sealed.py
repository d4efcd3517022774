"""The commands for keys and sealed jobs: new-key, reseal; the word --plain."""

from .. import Queue
from .output import Output, numbered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable


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
