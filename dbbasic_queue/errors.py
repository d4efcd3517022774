"""Every error that this package raises on purpose, and the three words a handler may raise.

`except QueueError` catches all that is about the queue.  Snooze, Retry and Discard are not errors:
a handler raises them to say how its run ends.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta


class QueueError(Exception):
    """Something about the queue file is wrong; the message names the file and the remedy."""


class BadArgument(QueueError, ValueError):
    """A value given to a call cannot be used; nothing was written."""


class DuplicateId(BadArgument):
    """The id given to enqueue belongs to a job that is in the file already."""


class QueueBusy(QueueError):
    """The lock did not come free in time, or this thread holds it already; nothing was changed."""


class ForeignFile(QueueError):
    """The file does not begin with the nine columns of a queue; it was not touched."""


class NotStored(QueueError):
    """The disk refused (full, quota, I/O error); the file is as it was before the call."""


class BadRow(QueueError, ValueError):
    """A cell of a row cannot be read; the message names the job and the column."""


class UnknownJob(QueueError, LookupError):
    """No job has this id, neither in the file nor in its archive."""


class Snooze(Exception):
    """Raise in a handler: put the job back for `seconds` (or a timedelta), uncounted.

    `reason` is kept as the job's error while it waits; without one that stays as it was.
    """

    def __init__(self, seconds: "float | timedelta", reason: str = "") -> None:
        super().__init__(reason or f"put back for {seconds}")
        self.seconds = in_seconds(seconds)
        self.reason = reason


class Retry(Exception):
    """Raise in a handler: this attempt did not succeed, try again after `after` seconds (or a
    timedelta).

    The attempt counts.  `after=None` takes the job's backoff.
    """

    def __init__(self, message: str = "", *, after: "float | timedelta | None" = None) -> None:
        super().__init__(message or "another attempt was asked for")
        self.after = None if after is None else in_seconds(after)


class Discard(Exception):
    """Raise in a handler: the job has failed for good, and `reason` is its error."""

    def __init__(self, reason: str = "discarded") -> None:
        super().__init__(reason)
        self.reason = reason


class JobTimeout(BaseException):
    """Raised inside a handler that ran longer than its job's `timeout`."""


class Killed(BaseException):
    """Raised inside a handler whose job is to end: it becomes cancelled, with this text as error.

    A layer may raise it in the place of a call that is not to be made any more.
    """


class Stopped(BaseException):
    """Raised inside a handler at the second SIGTERM or SIGINT: the job goes back, uncharged."""


def seconds_of(words: str) -> float:
    """Return the seconds of 90, 90s, 5m, 2h, 7d or 2w; BadArgument for other words."""
    import re

    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([smhdw]?)", words, re.ASCII)
    if not found:
        raise BadArgument(f"{words!r:.80} is no duration such as 90s, 5m, 2h, 7d")
    return float(found[1]) * {"m": 60, "h": 3600, "d": 86400, "w": 604800}.get(found[2], 1)


def in_seconds(duration: "float | timedelta") -> float:
    """Return a duration as seconds; BadArgument when it is negative or no duration."""
    seconds = duration.total_seconds() if hasattr(duration, "total_seconds") else duration
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise BadArgument(f"{duration!r} is no duration: give seconds >= 0 or a timedelta")
    return seconds
