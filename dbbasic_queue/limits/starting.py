"""`rate` and `concurrency`: whether one more job may start now, asked under the lock at a claim.

What runs is counted from the rows, after the dead were taken in; starts are noted in a file before
the claim is stored, so that a crash in between can cost a start, and never allows one too many.
"""

import time
from collections import Counter

from ..after import is_label
from ..errors import BadArgument, in_seconds
from ..here import queue_here
from .starts import Starts
from .which import Which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from ..admit import Counts
    from ..job import Job
    from ..queue import Admit
    from .which import Key, Texts

HOW = ("sliding", "fixed", "spacing")


class Limit:
    """An `admit` function that shows the words it was made of."""

    __slots__ = ("_ask", "_text")

    def __init__(self, ask: "Admit", text: str) -> None:
        self._ask = ask
        self._text = text

    def __call__(self, job: "Job", counts: "Counts") -> bool | None:
        return self._ask(job, counts)

    def __repr__(self) -> str:
        return self._text


def concurrency(
    n: int, *, type: "Texts" = None, queue: "Texts" = None, key: "Key" = None
) -> "Admit":
    """Return an `admit` function: at most `n` of these jobs run at a time, on the whole file.

    `type` and `queue`, a text or several, say of which jobs; None is any.  `key`, a field of the
    payload or a function payload -> value, gives each value a limit of its own; jobs without the
    field have one in common.  `concurrency(1)` is a mutex.  A job whose worker was killed counts
    until the next edit of any worker; one that has ended, until its outcome is in the file: at
    once, or within a second where its worker has claimed other jobs with it.

    A key function is called under the lock: it must be quick.  Where it raises, the job is left
    and that is logged.  BadArgument names what cannot be used.
    """
    _check_count(n)
    which = Which(type, queue, key)

    def admit(job: "Job", counts: "Counts") -> bool | None:
        if not which.has(job):
            return None
        running = counts.memory.get(admit)
        if running is None:
            jobs = filter(which.has, counts.processing())
            running = counts.memory[admit] = Counter(map(which.key_of_running, jobs))
        if running[which.key_of(job)] < n:
            return True
        return False if which.key else counts.leave_kind()

    return Limit(admit, f"concurrency({n}{which.words()})")


def rate(
    n: int,
    seconds: "float | timedelta",
    *,
    type: "Texts" = None,
    queue: "Texts" = None,
    key: "Key" = None,
    how: str = "sliding",
    name: str | None = None,
) -> "Admit":
    """Return an `admit` function: at most `n` of these jobs start in `seconds`, on the whole file.

    `how`: "sliding" is n within any so many seconds; "fixed", n in each window, which begins at a
    multiple of `seconds` of Unix time; "spacing", at least seconds/n between two starts.  `type`,
    `queue` and `key` are as in `concurrency`.  Limits with the same words have their starts in
    common, whatever their `n`; `name` stands for type, queue and key there, and a key that is a
    lambda needs one.

    A start is counted at the claim, which the run follows after one edit.  A retry, a snoozed and
    a recovered job is a start again; a job that is given back before it began has used its start.
    A clock that is set back lets nobody wait longer than one window.  BadArgument names what cannot
    be used.
    """
    _check_count(n)
    length = in_seconds(seconds)
    window = round(length * 1e6) if length < 1e10 else 0
    if not window:
        raise BadArgument(f"seconds={seconds!r:.80} is no time above 0, and below 300 years")
    if how not in HOW:
        raise BadArgument(f"how={how!r:.80} is none of {', '.join(HOW)}")
    which = Which(type, queue, key)
    if name is not None and (not is_label(name) or name.startswith(".")):
        raise BadArgument(f"name={name!r:.80}: a name is 1 to 100 letters, digits, _ . or -")
    file = f"{name or which.name()}.{how}.{window / 1e6}"

    def admit(job: "Job", counts: "Counts") -> bool | None:
        if not which.has(job):
            return None
        starts = counts.memory.get(file)
        if starts is None:
            starts = counts.memory[file] = Starts(queue_here(), file, window)
        key, now = which.key_of(job), time.time_ns() // 1000
        at = _free_at(starts.of(key), n, window, how, now)
        if at <= now:
            counts.if_claimed(lambda: starts.note(key))
            return True
        counts.ask_again(at / 1e6)
        return False if which.key else counts.leave_kind()

    more = "" if how == "sliding" else f", how={how!r}"
    text = f"rate({n}, {window / 1e6:.15g}{which.words()}{more}, name={name or which.name()!r})"
    return Limit(admit, text)


def _free_at(starts: "Sequence[int]", n: int, window: int, how: str, now: int) -> int:
    """Return when one more may start, after those starts; all times in microseconds."""
    if how == "spacing":
        return starts[-1] - (-window // n) if starts else now
    if how == "sliding":
        return starts[-n] + window if len(starts) >= n else now
    begin = now // window * window
    return begin + window if sum(at >= begin for at in starts) >= n else now


def _check_count(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise BadArgument(f"n={n!r:.80} is no whole number of at least 1")
