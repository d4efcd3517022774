"""The commands that look: list, show, stats, workers, doctor."""

import time
from itertools import islice

from .. import Queue, choose
from ..doctor import PROBLEM, UNKNOWN, examine, mend
from ..errors import BadArgument
from ..redact import masked
from ..shell import command_line
from ..show import ROW, document, page, row, span
from .filters import choice_of, filtered
from .output import Output, tell
from .shell import lines_of
from .why import line_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from .. import Job


def list_jobs(queue: Queue, given: "Namespace", out: Output) -> int:
    """List jobs, in the order they were added."""
    if given.id and filtered(given):
        raise BadArgument("give --id or filters, one of the two")
    if given.limit is not None and given.limit < 0:
        raise BadArgument(f"--limit {given.limit}: give a number of at least 0")
    jobs: Iterable[Job]
    if given.id:
        jobs = [job for id in dict.fromkeys(given.id) for job in [queue.get(id)] if job]
    else:
        jobs = choose.jobs(choice_of(given), queue, newest=given.newest)
    jobs = islice(jobs, given.limit)
    now = time.time()
    out.place(queue.path)
    if out.json:
        count = out.documents(map(document, jobs))
    else:
        count = out.table(ROW, (_row(job, now) for job in jobs))
        if not count:
            tell("no job is like that" if given.id or filtered(given) else "there are no jobs")
    return 0 if count else 1


def _row(job: "Job", now: float) -> list[str]:
    """Return the line of a job; for a command, what a shell would read instead of the payload."""
    line = row(job, now)
    return line if job.error else [*line[:-1], masked(job, command_line(job)) or line[-1]]


def show(queue: Queue, given: "Namespace", out: Output) -> int:
    """Show everything about one job."""
    job = queue.get(given.id)
    if job is None:
        tell(f"{queue.path}: no job has the id {given.id}")
        return 1
    if given.unseal:
        from ..crypt import opened

        job = opened(job)
    out.place(queue.path)
    if out.json:
        more = {name.replace(" ", "_"): text for name, text in lines_of(queue, job)}
        out.document(document(job, plain=given.plain) | more)
        return 0
    lines = page(job, time.time(), plain=given.plain) + lines_of(queue, job) + line_of(queue, job)
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        out.lines(name, text, width)
    return 0


def workers(queue: Queue, given: "Namespace", out: Output) -> int:
    """List the workers that live, and what they run."""
    live = queue.workers()
    now = time.time()
    out.place(queue.path)
    if out.json:
        names = ("id", "name", "pid", "queues", "types", "started_at", "jobs")
        out.document([{name: getattr(worker, name) for name in names} for worker in live])
        return 0 if live else 1
    rows = []
    for worker in live:
        runs = ", ".join(f"{id} for {span(now - since)}" for id, since in worker.jobs.items())
        queues = ",".join(worker.queues) or "all"
        age = span(now - worker.started_at)
        rows.append([worker.id, str(worker.pid), age, queues, runs or "nothing"])
    if not out.table(("ID", "PID", "LIVES", "QUEUES", "RUNS"), rows):
        tell("no worker lives")
    return 0 if live else 1


def doctor(queue: Queue, given: "Namespace", out: Output) -> int:
    """Say what is wrong with the queue, and mend it."""
    done = mend(queue) if given.mend else []
    findings = examine(queue)
    bad = sum(finding.level == PROBLEM for finding in findings)
    unsure = any(finding.level == UNKNOWN for finding in findings)
    if out.json:
        out.document({
            "file": queue.path,
            "healthy": None if unsure and not bad else not bad,
            "mended": done,
            "findings": [finding.as_dict() for finding in findings],
        })  # fmt: skip
    else:
        out.line(f"queue {queue.path}")
        for text in done:
            out.lines("mended", text, 10)
        for finding in findings:
            remedy = f"\n→ {finding.remedy}" if finding.remedy else ""
            out.lines(finding.level, finding.text + remedy, 10)
        out.line(f"problems: {bad}" if bad else "cannot tell" if unsure else "healthy")
    return 1 if bad else 2 if unsure else 0
