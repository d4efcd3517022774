"""Jobs that share a label: added in one append, counted and read again.

Chains and batches are made of it.  A member is a row of the group whose own `after` does not name
the group; the others, which wait for it, are its callbacks.
"""

import itertools
import json
import os
import time
from contextlib import suppress

from .after import is_callback, is_label, named, parse
from .beside import is_folder, open_regular
from .disk import unhurried
from .edit import Edit
from .errors import BadArgument, QueueError, UnknownJob
from .files import blocks, read_header
from .here import current_job
from .job import Job, new_id
from .log import tell
from .lookup import jobs, lines_with, month_of
from .new import new_jobs
from .queue import Queue
from .tsv import row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, TypeVar

    from .tsv import Header

    G = TypeVar("G", bound="Group")
    # (type, payload), (type, payload, run_at), or a mapping of enqueue's arguments.
    Item = tuple[Any, ...] | dict[str, Any]

ABOUT = "about"  # the column of a group's name, and of how many of its members may go wrong
_LONGEST = 200  # characters of a name


class Group:
    """What a group was when it was asked for: how many members it had, and what became of them.

    `total` = `pending` + `processing` + `completed` + `failed` + `cancelled`; members that have
    been archived count too.  `allow_failures`: how many may be failed or cancelled.
    """

    def __init__(self, id: str, queue: Queue, found: "Iterable[Job] | None" = None) -> None:
        self.id = id
        self.name: str | None = None
        self.allow_failures = 0
        self.total = self.pending = self.processing = 0
        self.completed = self.failed = self.cancelled = 0
        self._queue = queue
        self._count(rows(queue, id) if found is None else found)

    def _count(self, found: "Iterable[Job]") -> None:
        for job in found:
            if about := job.cell(ABOUT):
                self._read(about)
            if not is_callback(job):
                self.total += 1
                setattr(self, job.status, getattr(self, job.status) + 1)

    def _read(self, about: str) -> None:
        # else it is somebody else's column, or changed by hand
        with suppress(ValueError, TypeError, KeyError):
            said = json.loads(about)
            self.name, self.allow_failures = said["name"], int(said["allow_failures"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.processed} of {self.total}>"

    @property
    def processed(self) -> int:
        """How many have finished: completed, failed or cancelled."""
        return self.completed + self.failed + self.cancelled

    @property
    def progress(self) -> int:
        """Return how many percent have finished, 0 to 100."""
        return 100 * self.processed // self.total if self.total else 0

    @property
    def finished(self) -> bool:
        """Whether no member will run any more."""
        return self.processed == self.total

    @property
    def ok(self) -> bool:
        """Whether all have finished, and no more than allowed went wrong."""
        return self.finished and self.failed + self.cancelled <= self.allow_failures

    def jobs(self) -> "Iterator[Job]":
        """Yield the members as they are now, in the order they were added."""
        return members(self._queue, self.id)

    def failed_jobs(self) -> "Iterator[Job]":
        """Yield the members that are failed now, with their errors."""
        return (job for job in self.jobs() if job.status == "failed")


def label(kind: str) -> str:
    """Return the label of a new group, which tells when it was made."""
    return f"{kind}-{new_id()}"


def items(jobs: "Iterable[Item]", what: str) -> "list[dict[str, Any]]":
    """Return the arguments of `enqueue` for each; BadArgument when there are none."""
    found = [as_arguments(one, what) for one in jobs]
    if not found:
        raise BadArgument(f"{what} of no jobs")
    return found


def as_arguments(item: "Item", what: str) -> "dict[str, Any]":
    """Return the arguments of `enqueue` of one item, which may not name a group itself."""
    if isinstance(item, dict):
        given = dict(item)
    elif isinstance(item, tuple) and 1 <= len(item) <= 3:
        given = dict(zip(("job_type", "payload", "run_at"), item, strict=False))
    else:
        raise BadArgument(
            f"{what}: {item!r:.200} is neither (type, payload), (type, payload, run_at) nor a"
            " mapping of enqueue's arguments, such as task.job(…)"
        )
    if given.get("group"):
        raise BadArgument(f"{what}: group={given['group']!r:.80}: the group is made here")
    return given


def callbacks(group: str, allowed: int, **given: "Item | None") -> "list[dict[str, Any]]":
    """Return the jobs that wait for a group: `then`, `catch`, `finally_`, as far as there are."""
    more = f"~{allowed}" if allowed else ""
    conditions = {
        "then": f"ok:@{group}{more}",
        "catch": f"notok:@{group}{more}",
        "finally_": f"any:@{group}",
    }
    made = []
    for name, item in given.items():
        if item is not None:
            job = as_arguments(item, f"{name}=")
            if job.get("after"):
                raise BadArgument(f"{name}= waits for the others; it cannot have an after=")
            made.append(job | {"after": conditions[name], "group": group})
    return made


def about(name: "str | None", allow_failures: int = 0) -> "dict[str, str]":
    """Return the column that says what a group is called and what it allows; {} for neither."""
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= _LONGEST):
        raise BadArgument(f"name={name!r:.80}: a name is a text of 1 to {_LONGEST} characters")
    if type(allow_failures) is not int or allow_failures < 0:
        raise BadArgument(f"allow_failures={allow_failures!r:.80} is no number of at least 0")
    if name is None and not allow_failures:
        return {}
    return {ABOUT: json.dumps({"name": name, "allow_failures": allow_failures}, ensure_ascii=False)}


def describe(given: "list[dict[str, Any]]", members: int, columns: "dict[str, str]") -> None:
    """Give a group's columns to its first member and to its callbacks."""
    for at in (0, *range(members, len(given))) if columns else ():
        given[at] = given[at] | {"columns": {**given[at].get("columns", {}), **columns}}


def add(queue: Queue, given: "list[dict[str, Any]]", what: str) -> "list[Job]":
    """Add jobs in one append and return them."""
    made = list(new_jobs(given, what))

    def body() -> list[Job]:
        with queue.edit() as e:
            e.add_all(made)
        return made

    tell(queue.listeners, "enqueued", unhurried(body))
    return made


# --- reading


def waited_for(queue: Queue) -> list[Job]:
    """Return the jobs that the job which runs here has waited for, of groups the completed ones.

    BadArgument when it has waited for none, UnknownJob when one of them is gone.
    """
    job = current_job()
    conditions = parse(job.after) if job.after else []
    if not conditions:
        raise BadArgument(f"job {job.id} of type {job.type} has waited for no other job")
    found: list[Job] = []
    for condition in conditions:
        if condition.group:
            every = members(queue, condition.group)
            found += [one for one in every if one.status == "completed"]
    for id in [id for condition in conditions for id in condition.ids]:
        before = queue.get(id)
        if before is None:
            raise UnknownJob(f"{queue.path}: no job has the id {id}, for which {job.id} waited")
        found.append(before)
    return found


def rows(queue: Queue, group: str) -> "Iterator[Job]":
    """Yield each row of a group as it is now, archived ones first."""
    if not is_label(group):
        return
    needle = b"\t%b\t" % group.encode()
    found = (job for job in jobs(queue.file, needle=needle) if job.cell("group") == group)
    first = next(found, None)  # the file is open now: what is archived meanwhile is still in it
    in_file: Iterable[Job] = () if first is None else itertools.chain([first], found)
    if archived := _archived(queue, needle, group):
        in_file = list(in_file)
        for job in in_file:
            archived.pop(job.cells[0], None)  # a crash has left it in both; the queue's row counts
        yield from (Job(row(*one) or [], one[1]) for one in archived.values())
    yield from in_file


def _archived(queue: Queue, needle: bytes, group: str) -> "dict[bytes, tuple[bytes, Header]]":
    """Return a group's lines in the archives since it was made, by id: the last one of each."""
    folder = os.path.join(queue.file.side, "archive")
    try:
        months = sorted(os.listdir(folder)) if is_folder(folder) else []
    except OSError as error:
        raise QueueError(f"{folder}: cannot be read: {error.strerror}") from error
    since, found = "", {}
    with suppress(ValueError, OverflowError, OSError):  # a label that was not made here
        since = month_of(group.rpartition("-")[2])
    for name in months:
        if name < since or not name.endswith(".tsv"):
            continue
        path = os.path.join(folder, name)
        try:
            fd = open_regular(path, os.O_RDONLY)
            try:
                header = read_header(fd, path)
                for _, block in blocks(fd, len(header.line) + 1) if header else ():
                    for begin, end in sorted(lines_with(block, (needle,))):
                        cells = row(line := block[begin:end], header) if header else None
                        if cells and header and Job(cells, header).cell("group") == group:
                            found[cells[0]] = line, header
            finally:
                os.close(fd)
        except OSError as error:
            raise QueueError(f"{path}: cannot be read: {error.strerror}") from error
    return found


def newest(queue: Queue, kind: str, made: "type[G]", limit: int) -> "list[G]":
    """Return the groups of a kind that were made last and have rows in the file, newest first."""
    found: dict[str, G] = {}
    for job in jobs(queue.file, needle=b"\t%b-" % kind.encode()):
        if (label := job.cell("group")).startswith(f"{kind}-"):
            one = found.get(label) or found.setdefault(label, made(label, queue, ()))
            one._count((job,))
            if len(found) > limit:
                del found[min(found)]
    return [found[label] for label in sorted(found, reverse=True)]


def members(queue: Queue, group: str) -> "Iterator[Job]":
    """Yield the members of a group as they are now."""
    return (job for job in rows(queue, group) if not is_callback(job))


def group_here() -> str:
    """Return the group that the job that runs here has waited for, else its own.

    BadArgument when it has none.
    """
    job = current_job()
    waited = [name[1:] for name in named(job.after or "") if name.startswith("@")]
    label = waited[0] if waited else job.group
    if label is None:
        raise BadArgument(f"job {job.id} of type {job.type} belongs to no group")
    return label


# --- changing


def _edit(queue: Queue) -> Edit:
    """Return an edit of what is there: it makes no file."""
    return Edit(queue.file, queue.lock_timeout, durable=queue.sync != "off", create=False)


def _found(e: Edit, group: str) -> "list[Job]":
    """Return the rows of a group that the file has; UnknownJob when there are none."""
    found = list(e.find("group", group)) if is_label(group) else []
    if not found:
        raise UnknownJob(f"{e.path}: no job is in the group {group!r:.120}")
    return found


def append(
    queue: Queue, group: str, given: "list[dict[str, Any]]", *, in_a_row: bool = False
) -> list[str]:
    """Add members to a group that has not finished, in one edit; `in_a_row` one after the other.

    UnknownJob when there is no such group, BadArgument when it has finished.
    """
    made = list(new_jobs((one | {"group": group} for one in given), f"append to {group}"))

    def body() -> list[Job]:
        with _edit(queue) as e:
            found = [job for job in _found(e, group) if not is_callback(job)]
            if all(job.finished for job in found):
                raise BadArgument(f"{queue.path}: {group} has finished: nothing can be added")
            if in_a_row:
                last = found[-1].id
                for job in made:
                    made_after = f"{job.after} ok:{last}" if job.after else f"ok:{last}"
                    last = e.add(job.replace(after=made_after))
            else:
                e.add_all(made)
        return e.added

    added = unhurried(body)
    tell(queue.listeners, "enqueued", added)
    return [job.id for job in added]


def cancel(queue: Queue, group: str) -> int:
    """Cancel the pending members of a group, and what waits for more than its end.

    Return how many members were cancelled.  UnknownJob when there is no such group.
    """
    counts: list[int] = []

    def body() -> list[Job]:
        with _edit(queue) as e:
            found = _found(e, group)
            ended = {
                "status": b"cancelled",
                "finished_at": b"%.3f" % time.time(),
                "error": b"its group was ended",
            }
            counts[:] = [0]
            for job in found:
                callback = is_callback(job)
                if job.status == "pending" and (job.after != f"any:@{group}" or not callback):
                    e.cancelled.append(e.set(job, ended))
                    counts[0] += not callback
        return e.cancelled

    tell(queue.listeners, "cancelled", unhurried(body))
    return counts[0]
