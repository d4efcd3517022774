"""How the queue is now, on one page."""

from ...show import length, span
from ...stats import SILENT, ticks
from .. import svg
from ..html import Safe, el, join
from ..parts import ago, job_link, percent, section, table
from ..svg.scale import clock_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..view import View

COUNTS = ("due", "processing", "failed", "stuck", "retrying", "scheduled", "waiting")
FINISHED = ("completed", "cancelled")
_ERRORS = 10


def page(view: "View") -> "tuple[str, Safe]":
    figures = view.figures.look()
    body = join(
        _counts(view, figures),
        el("div", {"class": "columns"}, _cron(view, figures), _facts(view, figures)),
        _workers(view, figures),
        _errors(view),
        el("div", {"class": "columns"}, *_pictures(view)),
    )
    return "Overview", body


def _counts(view: "View", figures: "dict[str, Any]") -> Safe:
    """Return the big numbers; each leads to its jobs."""
    statuses = figures["statuses"]
    shown = []
    for kind in (*COUNTS, *FINISHED):
        number = figures[kind] if kind in figures else statuses.get(kind, 0)
        alarms = number and kind in ("failed", "stuck")
        shown.append(
            el(
                "li",
                {"class": f"{kind} alarm" if alarms else kind if number else f"{kind} none"},
                el(
                    "a",
                    {"href": view.url("jobs", status=kind)},
                    el("b", f"{number:,}"),
                    el("span", kind),
                ),
            )
        )
    return el(
        "section",
        {"class": "counts", "aria-label": "Jobs by status"},
        el("h2", {"class": "unseen"}, "Jobs by status"),
        el("ul", *shown),
    )


def alive(figures: "dict[str, Any]", now: float) -> "tuple[bool, str]":
    """Return whether something runs this queue, and the sentence that says it."""
    age, workers = figures["last_tick_age"], figures["workers"] or 0
    if workers and (age is None or age > SILENT):
        return True, f"{workers} live worker{'s' if workers > 1 else ''}"
    if age is None:
        return False, "no tick yet: nothing has run this queue; is the line in the crontab?"
    if age > SILENT:
        since = clock_text(now - age, day=age > 43200)
        return False, f"no tick since {since} ({span(age)}): cron has stopped, or cannot start it"
    return True, f"cron is alive: last tick {span(age)} ago"


def alive_said(figures: "dict[str, Any]", now: float) -> Safe:
    good, words = alive(figures, now)
    sign = el("span", {"aria-hidden": "true"}, "✓ " if good else "✕ ")
    return el("p", {"class": f"alive {'good' if good else 'bad'}", "role": "status"}, sign, words)


def _cron(view: "View", figures: "dict[str, Any]") -> Safe:
    strip = svg.strip(ticks(view.queue), view.now)
    return section("Ticks", alive_said(figures, view.now), strip)


def _facts(view: "View", figures: "dict[str, Any]") -> Safe:
    """Return what is worth a number, but no link."""
    oldest, rate = figures["oldest_due_age"], figures["rate"]
    run, wait = figures["run_time"] or {}, figures["wait_time"] or {}
    facts: list[tuple[str, Any]] = [
        ("oldest due", "nothing is due" if oldest is None else f"for {span(oldest)}"),
        ("last tick", _age(figures["last_tick_age"], view.now)),
        ("finished", "–" if rate is None else f"{rate:.3g} a minute in the last hour"),
        ("success", f"{percent(figures['success_rate'])} in the last {span(figures['window'])}"),
        ("wait", _times(wait)),
        ("run", _times(run)),
        ("jobs", f"{figures['jobs']:,} in the file, {figures['archived']:,} archived"),
    ]
    if figures["paused"]:
        facts.append(("paused", ", ".join(figures["paused"])))
    if figures["bad_lines"]:
        facts.append(("unreadable", f"{figures['bad_lines']} lines; see: dbbasic-queue doctor"))
    rows = [join(el("dt", name), el("dd", text)) for name, text in facts]
    return section("Figures", el("dl", {"class": "facts"}, *rows))


def _age(age: "float | None", now: float) -> "Safe | str":
    return "never" if age is None else ago(now - age, now)


def _times(figures: "dict[str, float]") -> str:
    if not figures or figures.get("p50") is None:
        return "–"
    return f"p50 {length(figures['p50'])}, p95 {length(figures['p95'])}"


def _workers(view: "View", figures: "dict[str, Any]") -> Safe:
    rows = [
        (
            el("a", {"href": view.url("workers")}, one["name"] or one["id"]),
            running(view, one),
            ago(one["since"], view.now),
            one["jobs"],
            percent(one["busy"]),
        )
        for one in figures["by_worker"]
    ]
    head = ("worker", "runs", "since", "jobs", "busy")
    empty = "No worker lives now; between two ticks that is as it should be."
    return section("Workers", table("Live workers", head, rows, empty=empty))


def running(view: "View", worker: "dict[str, Any]", most: int = 5) -> "Safe | str":
    """Return the jobs that a worker runs, each with for how long it has run."""
    jobs = sorted(worker["running"].items(), key=lambda item: item[1])
    shown = [
        el("div", job_link(view, id), f" for {span(view.now - since)}") for id, since in jobs[:most]
    ]
    if len(jobs) > most:
        shown.append(el("div", f"and {len(jobs) - most} more"))
    return join(*shown) if shown else "–"


def _errors(view: "View") -> Safe:
    rows = []
    for one in view.figures.errors(limit=_ERRORS):
        chosen = {"status": "failed", "type": one["type"], "text": one["error"]}
        if "***" in one["error"]:  # what is hidden cannot be looked for
            chosen.pop("text")
        again: Any = ""
        if view.may_change and "text" in chosen:
            href = view.url("confirm", action="retry", **chosen)
            words = f"Retry all {one['jobs']:,} of these" if one["jobs"] > 1 else "Retry this one"
            again = el("a", {"class": "button", "href": href}, words)
        rows.append(
            (
                el("a", {"href": view.url("jobs", **chosen)}, one["error"] or "no text"),
                one["type"],
                one["jobs"],
                ago(one["first"], view.now),
                ago(one["last"], view.now),
                again,
            )
        )
    head = ("error", "type", "jobs", "first", "last", "")
    return section("Errors", table("Failed jobs by error", head, rows, empty="No job is failed."))


def _pictures(view: "View") -> list[Safe]:
    figures = view.figures
    throughput = svg.bars(
        figures.throughput(), title="Finished per minute", names=("completed", "failed")
    )
    waiting = svg.lines(figures.waiting(), title="Due and not begun", names=("jobs",))
    waits = svg.lines(
        figures.waits(), title="Wait before the start", names=("p50", "p95"), seconds=True
    )
    load = svg.bars(figures.load(), title="Scheduled, by hour", names=("jobs",), step=3600)
    return [el("section", {"class": "card"}, one) for one in (throughput, waiting, waits, load)]
