"""The command health: one line as Nagios reads it, then what is not well."""

import argparse
import re

from .. import Queue
from ..errors import BadArgument
from ..health import OK, WARNING, Check, check, worst
from ..show import visible
from . import ping
from .output import Output
from .values import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable
    from typing import Any

    from ..health import Figure

    Pair = tuple[float | None, float | None]

_STATUS = {"ok": 0, "warning": 1, "critical": 2, "unknown": 2}
_FIRST = ("tick", "due")  # what the first line tells when all is well


def health(queue: Queue, given: "Namespace", out: Output) -> int:
    """Say whether the queue is healthy."""
    url = ping.checked(given.ping) if given.ping else ""
    labels = [label for label, _ in given.max_backlog]
    if len(labels) != len(set(labels)):
        raise BadArgument("--max-backlog: give one for each queue, and one without a name")
    checks = check(
        queue,
        max_tick_age=given.max_tick_age,
        max_due_age=given.max_due_age,
        max_backlog=dict(given.max_backlog) or None,
        max_fail=given.max_fail,
        log=given.log,
    )
    if url and worst(checks) == OK and (problem := ping.ping(url)):
        checks.append(Check("ping", WARNING, problem))
    level = worst(checks)
    if out.json:
        out.document({
            "file": queue.path,
            "level": level,
            "checks": [_as_dict(one) for one in checks],
        })  # fmt: skip
        return _STATUS[level]
    figures = " ".join(_perfdata(figure) for one in checks for figure in one.figures)
    told = [one.text for one in checks if (one.level == level if level != OK else False)][:1]
    told += [one.text for one in checks if one.name in _FIRST and one.text not in told]
    first = f"{level.upper()} - {', '.join(map(_plain, told))}"
    out.line(f"{first} | {figures}" if figures else first)
    for one in checks:
        if one.level != OK:
            out.lines(one.level, f"{one.name}: {_plain(one.text)}", 8)
    return _STATUS[level]


def _as_dict(one: Check) -> "dict[str, Any]":
    figures = [figure._asdict() for figure in one.figures]
    return {"name": one.name, "level": one.level, "text": one.text, "figures": figures}


def _plain(text: str) -> str:
    return text.replace("|", "¦")  # behind a | Nagios expects figures


def _perfdata(figure: "Figure") -> str:
    label = visible(re.sub(r"['=|]", "_", figure.label))
    label = label if re.fullmatch(r"[\w.-]+", label) else f"'{label}'"
    bounds = ["" if most is None else f"{most:g}" for most in (figure.warning, figure.critical)]
    return f"{label}={figure.value:g}{figure.unit};{bounds[0]};{bounds[1]};0"


# --- the words


def bound(value: "Callable[[str], float]") -> "Callable[[str], Pair]":
    """Return what reads CRITICAL, WARNING:CRITICAL or WARNING: as a pair."""

    def read(text: str) -> "Pair":
        warning, colon, critical = text.partition(":")
        if not colon:
            warning, critical = "", warning
        try:
            pair = tuple(value(one) if one else None for one in (warning, critical))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r:.80} is no number") from None
        low, high = pair
        if low is None and high is None:
            raise argparse.ArgumentTypeError(f"{text!r:.80} is neither N nor WARNING:CRITICAL")
        if low is not None and high is not None and low > high:
            raise argparse.ArgumentTypeError(f"{text!r:.80}: the first is the warning, the smaller")
        return low, high

    return read


def count(text: str) -> float:
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def share(text: str) -> float:
    """Return what 0.1 or 10% means."""
    if not re.fullmatch(r"\d{1,3}(\.\d{1,6})?%?", text, re.ASCII):
        raise ValueError(text)
    value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is more than all: write 0.1 or 10%")
    return value


def backlog(text: str) -> "tuple[str, Pair]":
    """Return the queue and the bound of `mail=1000`; `*` for one without a queue."""
    label, equals, most = text.rpartition("=")
    if equals and not label:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is neither N nor QUEUE=N")
    return label or "*", bound(count)(most)


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the words of `health`."""
    p = add(
        "health", health, "Say whether the queue is healthy: one line as Nagios reads it.",
        """health
           health --log logs/queue.log
           health --max-backlog 100:1000 --max-backlog mail=5000 --max-fail 0.1
           health --max-tick-age 15m --ping https://hc-ping.com/UUID""",
        "The status is 0 when all is well, 1 for a warning, 2 when something is critical, or\n"
        "cannot be told.  N is critical above N; W:C is a warning above W and critical above C;\n"
        "W: is only a warning.  Looked at: the last tick, workers that could not begin, due jobs,\n"
        "what failed in a day, bad lines, jobs that nobody serves, paused queues, stuck jobs, and\n"
        "the room on the disk.",
    )  # fmt: skip
    age, part = bound(duration), bound(share)
    text = "since the last tick (default 3m)"
    p.add_argument("--max-tick-age", type=age, default=180, metavar="TIME", help=text)
    text = "since a job became due that has not begun (default 10m:1h)"
    p.add_argument("--max-due-age", type=age, default=(600, 3600), metavar="TIME", help=text)
    text = "due jobs of each queue, or of one"
    p.add_argument(
        "--max-backlog", type=backlog, action="append", default=[], metavar="[QUEUE=]N", help=text
    )
    text = "the share of the last day's finished jobs that failed: 0.1 or 10%%"
    p.add_argument("--max-fail", type=part, metavar="SHARE", help=text)
    text = "what cron's line writes; when no tick comes, its last traceback is told"
    p.add_argument("--log", metavar="FILE", help=text)
    text = "ask for this URL when all is well, as healthchecks.io wants it"
    p.add_argument("--ping", metavar="URL", help=text)
