"""The command that says why a job is where it is."""

from .. import Job, Queue
from ..errors import UnknownJob
from .output import Output, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable


def why(queue: Queue, given: "Namespace", out: Output) -> int:
    """Print for each job the answer, and below it what else holds it or explains that."""
    from ..why import why as why_of  # here, since few commands need it

    out.place(queue.path)
    found, unknown = [], []
    for id in dict.fromkeys(given.ids):
        try:
            texts = why_of(id, queue)
        except UnknownJob:
            unknown.append(id)
            continue
        found.append({"id": id, "why": texts})
        if not out.json:
            out.lines(id, "\n".join(texts), 16)
    if out.json:
        out.documents(found)
    for id in unknown:
        tell(f"{queue.path}: no job has the id {id}")
    return 1 if unknown else 0


def line_of(queue: Queue, job: "Job") -> list[tuple[str, str]]:
    """Return the answer alone as a line of a job's page; none for a job that has finished."""
    if job.finished:
        return []
    from ..why import reasons

    try:
        return [("why", text) for text in [next(reasons(job.id, queue), "")] if text]
    except UnknownJob:
        return []


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the words of this command."""
    p = add(
        "why", why, "Say why a job has not run, or not yet; or what became of it.",
        """why 6474847126a6107c
           why $(dbbasic-queue list --status pending --json | jq -r '.[].id')
           why 6474847126a6107c --json | jq -r '.[].why[0]'""",
        "It is for later, waits for another, is paused or limited, others come first, no worker\n"
        "serves its queue or handles its type, no tick comes.  The first line is the answer.",
    )  # fmt: skip
    p.add_argument("ids", nargs="+", metavar="ID")
