"""The command that hands the figures to Prometheus."""

import argparse

from .. import Queue
from ..errors import BadArgument
from ..stats import stats
from .output import Output, emit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable


def metrics(queue: Queue, given: "Namespace", out: Output) -> int:
    """Print the figures, or put them where a collector finds them."""
    from ..metrics import text, write  # here, since no other command needs it

    if out.json and (given.out or given.label):
        raise BadArgument("--json prints the figures of `stats`: leave out --out and --label")
    labels = dict(given.label)
    if out.json:
        out.document(stats(queue_file=queue))
    elif given.out is not None:
        write(given.out, queue, labels=labels)
    else:
        emit(text(queue, labels=labels), end="")
    return 0


def _label(text: str) -> "tuple[str, str]":
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not NAME=VALUE, as in app=shop")
    return name, value


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the words of this command."""
    p = add(
        "metrics", metrics, "Print the figures in the text format of Prometheus.",
        """metrics
           metrics --out /var/lib/prometheus/node-exporter/queue.prom
           metrics --label app=shop""",
        "--out writes by rename what the textfile collector of node_exporter reads: a line of\n"
        "your crontab, each minute.",
    )  # fmt: skip
    p.add_argument("--out", metavar="FILE", help="the file to write, readable by everybody")
    what = "a label for every sample, where one server reads several queues"
    p.add_argument(
        "--label", type=_label, action="append", default=[], metavar="NAME=VALUE", help=what
    )
