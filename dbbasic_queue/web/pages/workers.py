"""The workers that live now, and what they do."""

from ..html import Safe, el, join
from ..parts import ago, percent, section, table
from ..svg import share
from .overview import alive_said, running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..view import View


def page(view: "View") -> "tuple[str, Safe]":
    figures = view.figures.look()
    rows = [
        (
            join(el("b", one["name"] or "no name"), el("div", {"class": "id"}, one["id"])),
            one["pid"],
            ago(one["since"], view.now),
            _few(one["queues"]),
            _few(one["types"]),
            running(view, one, most=20),
            el("a", {"href": view.url("jobs", worker=one["id"])}, f"{one['jobs']:,}"),
            join(share([("ran", one["busy"] or 0.0), ("rest", 1 - (one["busy"] or 0.0))],
                       title=f"busy {percent(one['busy'])} of its life"),
                 " ", percent(one["busy"])),
            view.button("stop", "Stop after its job", name=one["id"]),
        )
        for one in figures["by_worker"]
    ]  # fmt: skip
    head = ("worker", "pid", "since", "queues", "types", "runs", "jobs", "busy", "")
    hint = el("p", {"class": "hint"}, "A single job is ended on its own page.")
    empty = "No worker lives now; between two ticks that is as it should be."
    body = section(
        "Live workers",
        alive_said(figures, view.now),
        table("Live workers", head, rows, empty=empty),
        hint,
    )
    return "Workers", body


def _few(names: "list[str]", most: int = 5) -> str:
    """Return names as a text; where there are none, the worker takes all."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "all"
