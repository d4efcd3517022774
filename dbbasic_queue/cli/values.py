"""The values that the command line takes: durations, moments, ages, numbers of processes."""

import argparse
import re
import time
from datetime import datetime

from ..errors import BadArgument, seconds_of

_EARLIEST = 100_000_000  # a smaller Unix time is a date without its dashes, or seconds from now


def duration(text: str) -> float:
    """Return the seconds of 90, 90s, 5m, 2h, 1d or 2w."""
    try:
        seconds = seconds_of(text)
    except BadArgument as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return int(seconds) if seconds == int(seconds) else seconds


def moment(text: str) -> float:
    """Return the Unix time of +5m, of Unix seconds, or of an ISO 8601 time."""
    if text.startswith("+"):
        return time.time() + duration(text[1:])
    if re.fullmatch(r"\d+(\.\d*)?", text, re.ASCII):
        seconds = float(text)
        if 0 < seconds < _EARLIEST:
            raise argparse.ArgumentTypeError(
                f"{text} as Unix time is {time.strftime('%Y-%m-%d', time.gmtime(seconds))}; "
                "write +30s for seconds from now, or a date as 2030-01-31"
            )
        return seconds
    iso = text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text  # for Python 3.10
    try:
        at = datetime.fromisoformat(iso)
        return at.timestamp()  # a naive one is local time
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r:.80} is no time: give Unix seconds, ISO 8601, or +30s +5m +2h +1d"
        ) from None


def processes(text: str) -> "int | tuple[int, int]":
    """Return what --processes says."""
    least, dash, most = text.partition("-")
    return (int(least), int(most)) if dash else int(least)


def age(text: str) -> tuple[str, str]:
    """Return the status and the duration of --keep; what they may be is said elsewhere."""
    status, equals, how_long = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not STATUS=TIME, as in completed=7d")
    return status, how_long
