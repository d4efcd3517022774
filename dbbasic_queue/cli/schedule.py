"""The commands of schedules: add, list, pause, resume, run, remove; and their words."""

import time
from datetime import timedelta

from .. import Queue, schedule
from ..errors import UnknownJob
from ..show import span
from .change import read_payload
from .output import Output, tell
from .values import duration, moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from .arguments import Parser

HEAD = ("NAME", "TYPE", "WHEN", "ZONE", "NEXT", "RUNS", "ERROR")


def add(queue: Queue, given: "Namespace", out: Output) -> int:
    """Declare a schedule and print the id of its row."""
    id = schedule.add_schedule(
        given.name,
        given.type,
        read_payload(given.payload),
        cron=given.cron,
        every=given.every,
        next=given.next,
        tz=given.tz,
        run_at=given.run_at,
        max_count=given.max_count,
        catch_up="skip" if given.skip else "once",
        queue=given.queue,
        priority=given.priority,
        max_attempts=given.max_attempts,
        timeout=given.timeout,
        backoff=given.backoff,
        queue_file=queue,
    )
    if out.json:
        out.document({"id": id, "name": given.name, "file": queue.path})
    else:
        out.line(id)
    return 0


def show(queue: Queue, given: "Namespace", out: Output) -> int:
    """List the schedules that go on."""
    found = schedule.schedules(queue)
    out.place(queue.path)
    if out.json:
        out.document([_document(one) for one in found])
    elif not out.table(HEAD, (_row(one, time.time()) for one in found)):
        tell("there are no schedules")
    return 0 if found else 1


def _document(one: "schedule.Schedule") -> "dict[str, object]":
    at = one.next_run.isoformat() if one.next_run else None
    return {**vars(one), "next_run": at}


def _row(one: "schedule.Schedule", now: float) -> list[str]:
    when = "paused" if one.paused else ""
    if one.next_run:
        left = one.next_run.timestamp() - now
        when = f"{one.next_run:%Y-%m-%d %H:%M:%S}, {f'in {span(left)}' if left > 0 else 'due'}"
    runs = f"{one.count} of {one.max_count}" if one.max_count else str(one.count)
    return [one.name, one.type, one.spec, one.tz, when, runs, one.error or ""]


def pause(queue: Queue, given: "Namespace", out: Output) -> int:
    """Pause a schedule."""
    return _change(queue, given, out, "paused", schedule.pause_schedule)


def resume(queue: Queue, given: "Namespace", out: Output) -> int:
    """Let a paused schedule go on."""
    return _change(queue, given, out, "resumed", schedule.resume_schedule)


def run(queue: Queue, given: "Namespace", out: Output) -> int:
    """Add the job of a schedule now, and print its id."""
    return _change(queue, given, out, "id", schedule.run_now)


def remove(queue: Queue, given: "Namespace", out: Output) -> int:
    """End a schedule."""
    return _change(queue, given, out, "removed", schedule.remove_schedule)


def _change(
    queue: Queue, given: "Namespace", out: Output, done: str, call: "Callable[..., object]"
) -> int:
    try:
        answer = call(given.name, queue_file=queue) or given.name
    except UnknownJob as unknown:
        if out.json:
            out.document({done: None, "file": queue.path})
        tell(str(unknown))
        return 1
    if out.json:
        out.document({done: answer, "file": queue.path})
    else:
        out.line(str(answer))
    return 0


# --- the words


def add_words(p: "Parser", command: "Callable[..., Parser]") -> None:
    """Give `schedule` its words; `command(parser of commands, name, …)` makes one of them."""
    words = p.add_subparsers(dest="what", metavar="WORD", required=True, help="what to do")
    one = command(
        words, "schedule add", add, "Declare a schedule, or change it, and print its row's id.",
        """schedule add nightly report '{"of": "sales"}' --cron '30 2 * * *' --tz Europe/Berlin
           schedule add sync fetch --every 15m --skip
           schedule add closing report --next month_end --run-at 2030-01-31T18:00""",
        "Declared again as it is, it stays as it is.  Where clocks change, a time of day that\n"
        "does not exist runs after the gap, one that comes twice runs once; `*` always goes on.",
    )  # fmt: skip
    one.add_argument("name", metavar="NAME", help="letters, digits, _ . or -")
    one.add_argument("type", metavar="TYPE", help="which handler runs its jobs")
    one.add_argument("payload", nargs="?", metavar="JSON", help="their data; - reads it from stdin")
    when = one.add_mutually_exclusive_group(required=True)
    five = "minute hour day month weekday, or @hourly @daily @weekly @monthly @yearly"
    when.add_argument("--cron", metavar="WORDS", help=five)
    when.add_argument("--every", type=duration, metavar="TIME", help="90s, 15m, 2h, 1d")
    function = "a function that the worker gives to serving(); it needs --run-at"
    when.add_argument("--next", metavar="NAME", help=function)
    zone = "as Europe/Berlin (default: this machine's, kept by name)"
    one.add_argument("--tz", metavar="ZONE", help=zone)
    first = "the first slot of --every or --next: Unix seconds, ISO 8601, +5m"
    one.add_argument("--run-at", type=_first, metavar="TIME", help=first)
    one.add_argument("--max-count", type=int, metavar="N", help="end after so many runs")
    late = "leave out a slot that is more than five minutes late"
    one.add_argument("--skip", action="store_true", help=late)
    label = "the label that workers choose by"
    one.add_argument("--queue", default="default", metavar="LABEL", help=label)
    one.add_argument("--priority", type=int, default=0, metavar="N", help="lower runs first")
    often = "how often each job is started at most"
    one.add_argument("--max-attempts", type=int, metavar="N", help=often)
    one.add_argument("--timeout", type=duration, metavar="TIME", help="of each attempt: 90s, 5m")
    kinds = "none, linear:BASE:CAP or exponential:BASE:CAP[:jitter]"
    one.add_argument("--backoff", metavar="WORDS", help=kinds)

    command(words, "schedule list", show, "List the schedules.", "schedule list --json")
    for name, call, doc in (
        ("pause", pause, "Pause a schedule: no job until it is resumed."),
        ("resume", resume, "Let a paused schedule go on, with its next slot from now on."),
        ("run", run, "Add the job of a schedule now, beside its slots, and print its id."),
        ("remove", remove, "End a schedule; the jobs that it has added stay."),
    ):
        one = command(words, f"schedule {name}", call, doc, f"schedule {name} nightly")
        one.add_argument("name", metavar="NAME", help="the schedule")


def _first(text: str) -> "float | timedelta":
    """Return a moment; one that counts from now stays a span, as each deploy says it anew."""
    return timedelta(seconds=duration(text[1:])) if text.startswith("+") else moment(text)
