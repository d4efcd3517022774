"""What a job waits for: the words of its `after` cell, and whether they are met.

    ok:ID,ID    each of these jobs completed        ok:@G      all of group G completed
    notok:ID    it failed or was cancelled          ok:@G~2    all finished, at most 2 not completed
    any:ID      it finished                         notok:@G~2 more than 2 failed or were cancelled

Several conditions stand side by side with a space, and all must hold.  A group is every row with
that label whose own `after` does not name it.  The cell is never rewritten: what it says is
computed from rows.
"""

import time

from .errors import BadArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .edit import Edit
    from .job import Job

MET, OPEN, NEVER = "met", "open", "never"
WAITING = (b"\tok:", b"\tnotok:", b"\tany:")  # how the cell begins
LABEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_HEX = frozenset("0123456789abcdef")
_LOOKS = 8  # of an edit for one group each


class Condition:
    """One condition: a word, and ids or a group with how many of it may go wrong."""

    __slots__ = ("allowed", "group", "ids", "word")

    def __init__(self, word: str, ids: tuple[str, ...], group: str, allowed: int) -> None:
        self.word = word
        self.ids = ids
        self.group = group
        self.allowed = allowed


class GroupCount:
    """The members of a group: whether there are any (or how many), whether some have not finished
    (or how many), and how many are failed or cancelled.
    """

    __slots__ = ("any", "notok", "open")

    def __init__(self, any: int, open: int, notok: int) -> None:
        self.any = any
        self.open = open
        self.notok = notok


def is_id(text: str) -> bool:
    return len(text) == 16 and _HEX.issuperset(text)


def is_label(text: object) -> bool:
    """Whether a text can be the label of a queue or group: 1 to 100 letters, digits, _ . or -."""
    return isinstance(text, str) and 0 < len(text) <= 100 and LABEL.issuperset(text)


def parse(cell: str) -> list[Condition]:
    """Return the conditions of an `after` cell; BadArgument when it has none of the forms above."""
    conditions = []
    for text in cell.split(" "):
        word, colon, what = text.partition(":")
        group, tilde, number = what[1:].partition("~") if what.startswith("@") else ("", "", "")
        ids = () if group else tuple(what.split(","))
        good = is_label(group) if group else all(map(is_id, ids))
        if tilde and not (number.isdecimal() and number.isascii() and word in ("ok", "notok")):
            good = False
        if word not in ("ok", "notok", "any") or not colon or not good:
            raise BadArgument(
                f"after={cell[:200]!r}: {text[:80]!r} is none of ok:ID,ID notok:ID any:ID"
                " ok:@GROUP ok:@GROUP~n"
            )
        conditions.append(Condition(word, ids, group, int(number or 0)))
    return conditions


def as_cell(after: "str | Iterable[str]") -> str:
    """Return what a caller gave as `after` in the cell's words: plain ids mean `ok:`."""
    if isinstance(after, str):
        return f"ok:{after}" if is_id(after) else after
    if not hasattr(after, "__iter__"):
        raise BadArgument(f"after={after!r} is neither a text nor a list of job ids")
    return "ok:" + ",".join(map(str, after))


def names(cell: str, group: str) -> bool:
    """Whether an `after` cell names a group; such a row is no member of it."""
    return bool(cell) and any(
        part.partition("@")[2].partition("~")[0] == group for part in cell.split(" ")
    )


def is_callback(job: "Job") -> bool:
    """Whether a row waits for the group whose label it has."""
    return names(job.after or "", job.group or "")


def named(cell: str) -> list[str]:
    """Return the ids, and the groups as @GROUP, that an `after` cell names; [] when unreadable."""
    try:
        conditions = parse(cell)
    except BadArgument:
        return []
    return [name for one in conditions for name in (one.ids or (f"@{one.group}",))]


def state(
    cell: str, status_of: "Callable[[str], str | None]", count: "Callable[[str], GroupCount]"
) -> tuple[str, str]:
    """Return (MET | OPEN | NEVER, reason); `status_of` gives None for a job that is gone."""
    try:
        conditions = parse(cell)
    except BadArgument as error:
        return OPEN, str(error)
    result = MET
    for condition in conditions:
        if condition.group:
            got, who = _group_state(condition, count(condition.group)), f"group {condition.group}"
        else:
            got, who = _ids_state(condition, status_of)
        if got == NEVER:
            return NEVER, f"never {condition.word}: {who}"
        if got == OPEN:
            result = OPEN
    return result, ""


def _ids_state(condition: Condition, status_of: "Callable[[str], str | None]") -> tuple[str, str]:
    result = MET
    for id in condition.ids:
        status = status_of(id)
        if status in ("pending", "processing"):
            result = OPEN
        elif condition.word != "any" and (
            status is None or (status == "completed") != (condition.word == "ok")
        ):
            return NEVER, f"job {id}" + (" is gone" if status is None else "")
    return result, ""


def _group_state(condition: Condition, members: GroupCount) -> str:
    if condition.word == "any":
        return OPEN if members.open else MET
    if not members.any:
        return NEVER
    if members.notok > condition.allowed:
        return NEVER if condition.word == "ok" else MET
    if members.open:
        return OPEN
    return MET if condition.word == "ok" else NEVER


# --- in an edit


def count(edit: "Edit", group: str) -> GroupCount:
    """Count the members of a group, with a look at few of its rows.

    Those that went wrong are found by their status; one that has not finished is mostly the last.
    """
    cell = group.encode()

    def among(rows: "Iterable[Job]") -> "Iterator[Job]":
        for job in rows:
            if job.raw("group") == cell and not is_callback(job):
                yield job

    wrong = among(edit.rows((b"\tfailed\t", b"\tcancelled\t")))
    notok = sum(job.status in ("failed", "cancelled") for job in wrong)
    every = among(edit.last_rows(b"\t%b\t" % cell))
    first = next(every, None)
    open = first is not None and (not first.finished or any(not job.finished for job in every))
    return GroupCount(first is not None, open, notok)


class Groups:
    """What an edit knows of the groups in its file: each is counted when it is asked for, and all
    of them in one look when that is often.
    """

    def __init__(self) -> None:
        self._known: dict[str, GroupCount] = {}
        self._looks = 0
        self._is_whole = False  # all groups are known, and kept

    def count(self, edit: "Edit", group: str) -> GroupCount:
        """Count a group; the edit is not kept here, for it must go with its last reference."""
        found = self._known.get(group)
        if found is None and self._looks == _LOOKS and not self._is_whole:
            self._known.clear()
            self._is_whole = True
            for job in edit.rows():
                self.take(job)
            found = self._known.get(group)
        if found is None and self._is_whole:
            found = GroupCount(0, 0, 0)
        elif found is None:
            self._looks += 1
            found = self._known[group] = count(edit, group)
        return found

    def take(self, new: "Job | None", old: "Job | None" = None) -> None:
        """Take in that the edit has put one version of a job, or none, in the place of another."""
        for job, step in (old, -1), (new, 1):
            if job is not None and (found := self._of(job)):
                found.any += step
                found.open += 0 if job.finished else step
                found.notok += step if job.status in ("failed", "cancelled") else 0

    def follow(self, job: "Job") -> None:
        """Take in that an unfinished job has new cells where it stood."""
        if found := self._of(job):
            found.open -= job.finished
            found.notok += job.status in ("failed", "cancelled")

    def _of(self, job: "Job") -> GroupCount | None:
        """Return the count to keep of a job's group; where there is none, forget the group."""
        if not (self._known or self._is_whole) or not job.raw("group") or is_callback(job):
            return None
        if self._is_whole:
            return self._known.setdefault(job.cell("group"), GroupCount(0, 0, 0))
        self._known.pop(job.cell("group"), None)
        return None


def refuse_unknown(edit: "Edit", jobs: "list[Job]") -> None:
    """Raise BadArgument when a new job waits for one that is nowhere, nor among them."""
    from graphlib import CycleError, TopologicalSorter

    ids = {job.id for job in jobs}
    labels = {job.group for job in jobs if not is_callback(job)}
    graph: dict[str, list[str]] = {}
    for job in jobs:
        for condition in parse(job.after) if job.after else ():
            graph.setdefault(job.id, []).extend(ids.intersection(condition.ids))
            for id in condition.ids:
                if id not in ids and edit.status_of(id) is None:
                    raise BadArgument(f"after={job.after!r:.200}: no job has the id {id}")
            group = condition.group
            if group and group not in labels and not edit.count_group(group).any:
                raise BadArgument(f"after={job.after!r:.200}: no job is in the group {group}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise BadArgument(f"these jobs wait for each other: {' '.join(error.args[1])}") from None


def settle(edit: "Edit", waiting: "Iterable[Job] | None" = None) -> "list[Job]":
    """Cancel the pending jobs that can now never run, and return those that wait no more.

    `waiting` are the pending rows with an `after`, None to look for them.  What was cancelled
    stands in `edit.cancelled`.
    """
    rows = edit.rows(WAITING) if waiting is None else waiting
    left = {job.id: job for job in rows if job.status == "pending" and job.after}
    children: dict[str, list[str]] = {}
    for id, job in left.items():
        for name in named(job.after or ""):
            children.setdefault(name, []).append(id)

    def status_of(id: str) -> str | None:
        return "pending" if id in left else edit.status_of(id)

    met: dict[str, Job] = {}
    to_weigh = list(left)
    later: set[str] = set()  # a group is counted when all else is settled
    while to_weigh or later:
        id = to_weigh.pop() if to_weigh else later.pop()
        if id not in left:
            continue
        job = left[id]
        found, reason = state(job.after or "", status_of, edit.count_group)
        met.pop(id, None)
        if found == MET:
            met[id] = job
        elif found == NEVER:
            del left[id]
            cells = {"status": "cancelled", "error": reason, "finished_at": time.time()}
            edit.cancelled.append(edit.change(job, **cells))
            to_weigh += children.get(id, ())
            later.update(children.get(f"@{job.group}", ()))
    edit.ended = False
    return list(met.values())


def revive(edit: "Edit") -> "list[Job]":
    """Make pending again what was cancelled only because of jobs that are now pending."""
    rows = [job for job in edit.rows((b"\tnever ",)) if job.status == "cancelled" and job.after]
    left = {job.id: job for job in rows if (job.error or "").startswith("never ")}
    revived: list[Job] = []
    again = True
    while again:
        again = False
        for job in list(left.values()):
            if state(job.after or "", edit.status_of, edit.count_group)[0] != NEVER:
                del left[job.id]
                revived.append(edit.change(job, status="pending", error="", finished_at=None))
                again = True
    return revived
