"""What several pages are made of: sections, tables, states and times."""

import re
import time

from ..show import clock, span
from .html import Safe, el
from .svg import share
from .svg.graph import SIGNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .view import View

STATUSES = ("completed", "processing", "pending", "failed", "cancelled")


def section(title: str, *inside: "Any", kind: str = "", more: "Any" = None) -> Safe:
    """Return a section with a heading; `more` stands beside the heading."""
    head = el("div", {"class": "head"}, el("h2", title), more)
    return el("section", {"class": f"card {kind}".strip()}, head, *inside)


def table(
    what: str, head: "Sequence[Any]", rows: "Iterable[Sequence[Any]]", *, empty: str = "None."
) -> Safe:
    """Return a table that scrolls by itself where it is too wide; the words of `empty` for none.

    The first cell of each row is its heading; columns of numbers stand to the right.
    """
    rows = [tuple(row) for row in rows]
    if not rows:
        return el("p", {"class": "empty"}, empty)
    kinds = [
        "number" if all(map(_is_number, column)) else None for column in zip(*rows, strict=True)
    ]
    titles = (
        el("th", {"scope": "col", "class": kind}, title)
        for kind, title in zip(kinds, head, strict=True)
    )
    body = [
        el(
            "tr",
            el("th", {"scope": "row"}, row[0]),
            *(
                el("td", {"class": kind}, cell)
                for kind, cell in zip(kinds[1:], row[1:], strict=True)
            ),
        )
        for row in rows
    ]
    around = {"class": "scroll", "tabindex": 0, "role": "region", "aria-label": what}
    whole = el("table", el("caption", what), el("thead", el("tr", *titles)), el("tbody", *body))
    return el("div", around, whole)


def _is_number(cell: "Any") -> bool:
    text = re.sub("<[^>]*>", "", str(cell))
    return text == "–" or (text[:1].isdigit() and " " not in text and len(text) < 16)


def state(status: str) -> Safe:
    """Return a status as a word with a sign: colour alone tells nobody anything."""
    sign = el("span", {"aria-hidden": "true"}, SIGNS.get(status, "•"))
    return el("span", {"class": f"state {status}"}, sign, " ", status)


def ago(at: "float | None", now: float) -> "Safe | str":
    """Return how long ago (or in how long) a time is, with the time itself under the pointer."""
    if at is None:
        return "–"
    try:
        exact = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    except (ValueError, OverflowError, OSError):
        return str(at)
    words = f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"
    return el("time", {"datetime": exact, "title": clock(at)}, words)


def percent(part: "float | None") -> str:
    """Return a share of 0 to 1 as percent; never 100% where something is missing."""
    if part is None:
        return "–"
    return f"{int(part * 1000) / 10:g}%"


def job_link(view: "View", id: str, text: "Any" = None) -> Safe:
    return el("a", {"href": view.url("job", id=id), "class": "id"}, id if text is None else text)


def shares(statuses: "dict[str, int]") -> Safe:
    """Return how many are in which status as a small bar."""
    return share([(name, statuses.get(name, 0)) for name in STATUSES])
