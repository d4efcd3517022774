"""Jobs that come again: when they run next, and what can be done about it."""

from datetime import datetime, timezone

from ...errors import QueueError
from ...schedule import next_runs, schedules
from ..html import Safe, el, join
from ..parts import job_link, section, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...schedule import Schedule
    from ..view import View

_AHEAD = 10  # runs that are told of one schedule


def page(view: "View") -> "tuple[str, Safe]":
    found = schedules(view.queue)
    name = view.query.get("name")
    one = next((each for each in found if each.name == name), None)
    if one is not None:
        return f"Schedule {one.name}", _page_of(view, one)
    rows = [
        (
            el("a", {"href": view.url("schedules", name=each.name)}, each.name),
            _state(each),
            each.type,
            el("code", each.spec) if each.spec else "",
            _next(each),
            f"{each.count} of {each.max_count}" if each.max_count else each.count,
            each.error or "",
            _buttons(view, each),
        )
        for each in found
    ]
    head = ("name", "state", "type", "when", "next run", "runs", "error of the last", "")
    empty = "This queue has no schedule. add_schedule(name, type, payload, cron=…) adds one."
    gone = None
    if name is not None:
        gone = el("p", {"class": "empty"}, f"There is no schedule {name[:80]!r} now.")
    return "Schedules", section("Schedules", gone, table("Schedules", head, rows, empty=empty))


def _page_of(view: "View", one: "Schedule") -> Safe:
    facts = [
        ("state", _state(one)),
        ("type", one.type),
        ("when", el("code", one.spec)),
        ("zone", one.tz),
        ("runs", f"{one.count} of {one.max_count}" if one.max_count else one.count),
        ("its row", job_link(view, one.id)),
        ("error of the last run", one.error or ""),
    ]
    shown = [join(el("dt", name), el("dd", text)) for name, text in facts if text != ""]
    try:
        runs = next_runs(one.name, _AHEAD, queue_file=view.queue)
        times = [el("li", _local(at)) for at in runs]
        ahead = el("ol", *times) if times else el("p", {"class": "empty"}, "None.")
    except QueueError as error:
        ahead = el("p", {"class": "empty"}, str(error))
    return join(
        section(one.name, el("dl", {"class": "facts"}, *shown), _buttons(view, one)),
        section("Next runs", ahead),
    )


def _state(one: "Schedule") -> Safe:
    if not one.type:
        return el("span", {"class": "state failed"}, "✕ spoilt")
    if one.paused:
        return el("span", {"class": "state pending"}, "‖ paused")
    return el("span", {"class": "state completed"}, "✓ on")


def _next(one: "Schedule") -> "Safe | str":
    if one.next_run is None:
        return "–"
    return el("time", {"datetime": one.next_run.isoformat()}, _local(one.next_run))


def _local(at: datetime) -> str:
    ahead = at.astimezone(timezone.utc) - datetime.now(timezone.utc)
    late = "" if ahead.total_seconds() > 0 else ", due"
    return f"{at:%Y-%m-%d %H:%M:%S} {at.tzname() or ''}".rstrip() + late


def _buttons(view: "View", one: "Schedule") -> Safe:
    if not one.type:
        return Safe("")
    turn = ("resume_schedule", "Resume") if one.paused else ("pause_schedule", "Pause")
    return el(
        "div",
        {"class": "buttons"},
        view.button("run_schedule", "Run now", name=one.name),
        view.button(*turn, name=one.name),
    )
