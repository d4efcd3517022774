"""The figures by type and by queue, and the switch of each queue."""

from ...show import length, span
from ..html import Safe, el, join
from ..parts import percent, section, table
from ..svg import share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..view import View

KINDS = ("due", "processing", "stuck", "retrying", "scheduled", "waiting")


def page(view: "View") -> "tuple[str, Safe]":
    figures = view.figures.look()
    body = join(_by_queue(view, figures), _by_type(view, figures), _whole(figures), _for_programs())
    return "Metrics", body


def _by_queue(view: "View", figures: "dict[str, Any]") -> Safe:
    paused = figures["paused"]
    rows = []
    for label in sorted({*figures["by_queue"], *(paused or ())}):
        of = figures["by_queue"].get(label, {})
        is_paused = paused is not None and label in paused
        turn = ("resume", "Resume") if is_paused else ("pause", "Pause")
        oldest = of.get("oldest_due_age")
        rows.append(
            (
                el("a", {"href": view.url("jobs", queue=label)}, label),
                el("span", {"class": "state pending"}, "‖ paused") if is_paused else "open",
                *(_count(view, of.get(kind, 0), queue=label, status=kind) for kind in KINDS),
                "–" if oldest is None else span(oldest),
                view.button(*turn, queue=label),
            )
        )
    head = ("queue", "state", *KINDS, "oldest due", "")
    return section("Queues", table("Jobs by queue", head, rows, empty="No jobs."))


def _by_type(view: "View", figures: "dict[str, Any]") -> Safe:
    rows = [
        (
            el("a", {"href": view.url("jobs", type=type)}, type),
            _count(view, of["completed"], type=type, status="completed"),
            _count(view, of["failed"], type=type, status="failed"),
            join(
                share([("completed", of["completed"]), ("failed", of["failed"])]),
                " ",
                percent(of["success_rate"]),
            ),
            *(_time(of[key]) for key in ("average", "p50", "p95")),
        )
        for type, of in sorted(figures["by_type"].items())
    ]
    head = ("type", "completed", "failed", "success", "average run", "p50", "p95")
    title = f"Types, in the last {span(figures['window'])}"
    return section(title, table("Finished jobs by type", head, rows, empty="None has finished."))


def _count(view: "View", number: int, **chosen: str) -> "Safe | int":
    return el("a", {"href": view.url("jobs", **chosen)}, f"{number:,}") if number else 0


def _time(seconds: "float | None") -> str:
    return "–" if seconds is None else length(seconds)


def _whole(figures: "dict[str, Any]") -> Safe:
    uptime = figures["uptime"]
    facts = [
        ("processed", f"{figures['processed']:,} in the file and its archive"),
        ("failed ever", f"{figures['failed_ever']:,}"),
        ("archived", f"{figures['archived']:,}"),
        ("live workers", figures["workers"] if figures["workers"] is not None else "not known"),
        ("oldest worker", f"up for {span(uptime)}" if uptime else "–"),
    ]
    shown = [join(el("dt", name), el("dd", text)) for name, text in facts]
    return section("The whole", el("dl", {"class": "facts"}, *shown))


def _for_programs() -> Safe:
    words = el(
        "p", "For Prometheus: ", el("code", "dbbasic-queue metrics"), " prints these figures;"
    )
    more = el("p", el("code", "--out FILE"), " writes them for the textfile collector.")
    return section("For programs", words, more)
