"""Words that jobs carry, to find them by: in the column `tags`, with a space between them.

enqueue("mail", {"to": "ada"}, columns=tags("newsletter", "customer-42"))
for job in tagged("customer-42", status="failed"): …
"""

from .after import is_label
from .errors import BadArgument
from .here import queue_here
from .lookup import jobs
from .tsv import STATUSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .job import Job
    from .queue import Queue


def tags(*words: str) -> dict[str, str]:
    """Return columns for enqueue: these tags, each once, {} for none.

    A tag is 1 to 100 letters, digits, _ . or -, and not the word of a status, by which `grep`
    counts.  BadArgument names one that is not.
    """
    for word in words:
        _check(word)
    return {"tags": " ".join(dict.fromkeys(words))} if words else {}


def tags_of(job: "Job") -> tuple[str, ...]:
    """Return the tags of a job, in the order they were given."""
    return tuple(job.cell("tags").split())


def tagged(
    tag: str, *, queue_file: "Queue | None" = None, status: str | None = None
) -> "Iterator[Job]":
    """Return an iterator of the jobs with a tag, in the order they were added."""
    _check(tag)
    if status is not None and status not in STATUSES:
        raise BadArgument(f"status={status!r:.80} is none of {', '.join(STATUSES)}")
    found = jobs(queue_here(queue_file).file, needle=tag.encode())
    return (job for job in found if tag in tags_of(job) and status in (None, job.status))


def _check(word: object) -> None:
    if not is_label(word) or word in STATUSES:
        raise BadArgument(
            f"{word!r:.80} is no tag: give 1 to 100 letters, digits, _ . or -, and no status"
        )
