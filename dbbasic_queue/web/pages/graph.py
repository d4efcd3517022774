"""What a job or a group waits for, as a picture; what has happened to a job, as a timeline."""

from itertools import islice

from ...errors import BadRow
from ...group import rows as rows_of
from ...middleware import errors_of
from ...redact import redacted
from ...show import waits_for
from ..html import Safe, el
from ..svg import Node, graph, timeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...job import Job
    from ..svg.timeline import Moment
    from ..view import View

_READ = 1000  # rows of a group that a picture is made of
_BEFORE = 40  # jobs that are looked up because one waits for them


def graph_of(view: "View", group: str, here: str = "") -> Safe:
    """Return the picture of a group; the job `here` is marked."""
    jobs = list(islice(rows_of(view.queue, group), _READ + 1))
    if len(jobs) > _READ:
        words = f"More than {_READ:,} jobs: too many to be drawn."
        return el("p", {"class": "said"}, words)
    members = tuple(job.id for job in jobs if f"@{group}" not in waits_for(job))
    return graph([_node(view, job, here, {f"@{group}": members}) for job in jobs])


def around(view: "View", job: "Job") -> Safe | None:
    """Return the picture of a job's chain or batch, else of what it waits for; None for neither."""
    if job.group:
        return graph_of(view, job.group, job.id)
    found, wanted = {job.id: job}, waits_for(job)
    while wanted and len(found) < _BEFORE:
        name = wanted.pop(0)
        before = None if name in found or name.startswith("@") else view.queue.get(name)
        if before is not None:
            found[name] = before
            wanted += waits_for(before)
    if len(found) == 1:
        return None
    return graph([_node(view, one, job.id, {}) for one in reversed(found.values())])


def _node(view: "View", job: "Job", here: str, groups: "dict[str, tuple[str, ...]]") -> Node:
    after: list[str] = []
    for name in waits_for(job):
        after += groups.get(name, () if name.startswith("@") else (name,))
    url = view.url("job", id=job.id)
    return Node(job.id, job.type, job.status, url, tuple(dict.fromkeys(after)), job.id == here)


def timeline_of(view: "View", job: "Job") -> Safe:
    """Return what has happened to a job, and what lies ahead."""
    job = redacted(job)
    moments: list[Moment] = []
    later = job.run_at > job.created_at
    started, added = job.started_at, _added(job)
    if later and (started is None or job.run_at <= started) and not job.attempts:
        moments.append(("added", added, "scheduled", ""))
        moments.append(("due", job.run_at, "waited", ""))
    else:
        moments.append(("added", added, "waited" if job.attempts < 2 else "", ""))
    try:
        kept = errors_of(job)
    except BadRow as problem:
        kept = []
        moments.append(("earlier attempts", None, "", str(problem)))
    moments += [(f"attempt {number}", None, "", _first_line(error)) for number, error in kept]
    if started is not None:
        number = max(job.attempts, 1)
        moments.append((f"attempt {number} began", started, "ran" if not _gone(job) else "", ""))
    error = _first_line(job.error or "")
    if job.finished:
        moments.append((job.status, job.finished_at, "", error))
    elif job.status == "pending" and started is not None:
        moments.append(("put back", None, "", error))
        if job.run_at > started:
            moments.append(("due again", job.run_at, "waited", ""))
    return timeline(moments, view.now)


def _added(job: "Job") -> float:
    """Return when a job was added: its id knows that to the microsecond, if it was made then."""
    exact = int(job.id[:13], 16) / 1e6
    return exact if 0 <= exact - job.created_at < 1 else job.created_at


def _gone(job: "Job") -> bool:
    """Whether the last attempt has ended without a time that says when."""
    return job.status == "pending"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]
