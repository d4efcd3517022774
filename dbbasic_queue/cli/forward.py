"""The commands for Celery: hand due jobs over each minute, or move all of them for good."""

import logging

from .. import Queue
from ..errors import BadArgument
from .output import Output, numbered
from .values import duration
from .work import load_any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable


def forward(queue: Queue, given: "Namespace", out: Output) -> int:
    """Hand due jobs over to Celery, and take in what became of others."""
    _check_extra()
    from ..contrib.celery import Bridge  # here, since no other command needs it

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    bridge = load_any(given.bridge)
    if not isinstance(bridge, Bridge):
        raise BadArgument(f"{given.bridge} is no Bridge, but {type(bridge).__name__}")
    bridge.queue_file = queue
    if given.cancel or given.recall is not None:
        if given.cancel:
            count, word = sum(map(bridge.cancel, given.cancel)), "cancelled"
        else:
            count, word = bridge.recall(given.recall or None), "pending again"
        if out.json:
            out.document({"file": queue.path, word.replace(" ", "_"): count})
        else:
            out.line(f"{numbered(count)} {word}")
        return 0 if count else 1
    made = bridge.run(given.run_for)
    if out.json:
        out.document({"file": queue.path, **made._asdict()})
    elif any(made):
        words = ("handed over", "sent again", "ended", "put back")
        told = [f"{count} {word}" for count, word in zip(made, words, strict=True) if count]
        out.line(", ".join(told))
    return 0


def graduate(queue: Queue, given: "Namespace", out: Output) -> int:
    """Move the pending jobs to Celery for good, and say what went."""
    _check_extra()
    from ..contrib.celery import graduate as move

    report = move(
        given.to,
        types=given.type or None,
        queues=given.queue or None,
        dry_run=given.dry_run,
        queue_file=queue,
    )
    if out.json:
        dry = {"dry_run": given.dry_run}
        out.document({"file": queue.path, **dry, "moved": report.moved, "left": report.left})
        return 0
    word = "would move" if given.dry_run else "moved"
    for type, count in sorted(report.moved.items()):
        out.line(f"{word}\t{count}\t{type}")
    for why, count in sorted(report.left.items()):
        out.line(f"stay\t{count}\t{why}")
    running = sum(1 for _ in queue.jobs("processing"))
    if running:
        out.line(f"run\t{running}\tjobs that a worker has now; come again when they have ended")
    if not (report.moved or report.left or running):
        out.line("nothing is pending")
    return 0


def _check_extra() -> None:
    try:
        import celery  # noqa: F401
        import redis  # noqa: F401
    except ModuleNotFoundError as error:
        text = f"{error.name} is not installed: pip install 'dbbasic-queue[celery]'"
        raise BadArgument(text) from None


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the words of these commands."""
    p = add(
        "forward", forward, "Hand due jobs over to Celery, and take in what became of others.",
        """forward jobs:bridge
           forward jobs:bridge --for 55
           forward jobs:bridge --cancel 65f0c3a1b2d4e000
           forward jobs:bridge --recall""",
        "A line of your crontab, each minute; jobs:bridge is a Bridge of\n"
        "dbbasic_queue.contrib.celery.  While Redis is away nothing is handed over, or lost.",
    )  # fmt: skip
    p.add_argument("bridge", metavar="MODULE:BRIDGE", help="the bridge, importable from here")
    p.add_argument(
        "--for", dest="run_for", type=duration, default=0.0, metavar="TIME",
        help="go on for so long (default: one look)",
    )  # fmt: skip
    either = p.add_mutually_exclusive_group()
    either.add_argument(
        "--cancel", nargs="+", default=[], metavar="ID", help="cancel jobs that no worker has begun"
    )
    either.add_argument(
        "--recall", nargs="*", metavar="ID",
        help="take jobs back that no worker has begun (without an ID: all)",
    )  # fmt: skip
    p = add(
        "graduate", graduate, "Move the pending jobs to Celery for good.",
        """graduate --to redis://localhost:6379/0 --dry-run
           graduate --to redis://localhost:6379/0
           graduate --to redis://localhost:6379/0 --type mail --queue high""",
        "It may be killed and called again: no job is lost, and none runs twice for it.\n"
        "What waits for other jobs, and schedules, stay.",
    )  # fmt: skip
    p.add_argument("--to", required=True, metavar="URL", help="the Redis of the Celery workers")
    p.add_argument("--type", action="append", default=[], metavar="TYPE", help="only this type")
    p.add_argument("--queue", action="append", default=[], metavar="QUEUE", help="only this queue")
    p.add_argument("--dry-run", action="store_true", help="say what would go; change nothing")
