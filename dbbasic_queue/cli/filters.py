"""The filters that commands share: their words, and the choice of jobs that they make."""

import argparse

from ..choose import Choice
from ..errors import BadArgument
from .values import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .arguments import Parser

STATUSES = ("pending", "processing", "completed", "failed", "cancelled")
KINDS = ("due", "scheduled", "retrying", "waiting", "stuck")
FILTERS = ("status", "type", "queue", "worker", "tag", "group", "text", "older_than")


def add_filters(p: "Parser", doc: str, *, kinds: bool = True) -> None:
    """Add the words of the filters; `kinds`: also those that are computed."""
    group = p.add_argument_group("filters", doc)
    known = (*STATUSES, *KINDS) if kinds else STATUSES
    group.add_argument("--status", choices=known, metavar="STATUS", help=", ".join(known))
    group.add_argument("--type")
    group.add_argument("--queue")
    group.add_argument("--worker", help="a worker's id or its name")
    group.add_argument("--tag", help="a word in its column `tags`")
    group.add_argument("--group", metavar="LABEL", help="its label, as of a chain or a batch")
    group.add_argument("--text", metavar="WORDS", help="in its payload or its error, in any case")
    age = "finished, or else added, longer ago than this: 90s, 5m, 2h, 7d"
    group.add_argument("--older-than", type=duration, metavar="TIME", help=age)


def choice_of(given: argparse.Namespace, *statuses: str) -> Choice:
    """Return the choice that the filters make; of these statuses where none is given."""
    asked = {name: getattr(given, name) for name in FILTERS}
    asked["status"] = asked["status"] or statuses or None
    return Choice(**asked)


def filtered(given: argparse.Namespace) -> bool:
    """Whether any filter was given."""
    return any(getattr(given, name) is not None for name in FILTERS)


def only_type_or_queue(given: argparse.Namespace) -> bool:
    """Whether no filter but these was given, for which a queue's own verb needs no ids."""
    others = (name for name in FILTERS if name not in ("type", "queue"))
    return not any(getattr(given, name) is not None for name in others)


def check_choice(given: argparse.Namespace, what: str) -> None:
    """Refuse a command that changes jobs and does not say which, or says so twice."""
    ways = sum((bool(given.ids), filtered(given), given.all))
    if not ways:
        raise BadArgument(f"which jobs? give ids, filters as --type, or --all for every {what} one")
    if ways > 1:
        raise BadArgument("give ids, filters or --all, one of the three")
