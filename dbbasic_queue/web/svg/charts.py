"""Bars, lines, the strip of minutes, and small bars for shares."""

import math
from itertools import pairwise

from ...show import length
from ..html import Safe, el
from .scale import clock_text, number, times, top_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    # Its time, and a number for each name; None: nothing is known of this one.
    Point = tuple[float, ...] | None

HEIGHT = 96  # of a plot; its texts stand above and below
_ABOVE, _BELOW = 16, 20


def bars(
    points: "Sequence[Point]", *, title: str, names: "Sequence[str]" = ("jobs",), step: int = 60
) -> Safe:
    """Draw stacked bars, one for each point; `step` is the seconds that a bar stands for."""
    known = [point for point in points if point is not None]
    top = top_of([sum(_finite(point[1:])) for point in known])
    marks = []
    for at, point in enumerate(points):
        if point is None:
            continue
        below, said = 0.0, _said(point, names, number)
        for place, value in enumerate(_finite(point[1:])):
            if value > 0:
                high = max(value / top * 100, 1.5)
                shape = {
                    "class": f"s{place + 1}", "x": at + 0.1, "width": 0.8,
                    "y": _short(100 - below - high), "height": _short(high),
                }  # fmt: skip
                marks.append(el("rect", shape, el("title", said)))
                below += high
    sums = [sum(column) for column in zip(*(_finite(point[1:]) for point in known), strict=True)]
    words = [f"{number(total)} {name}" for name, total in zip(names, sums, strict=False)]
    text = ", ".join(words) or "nothing yet"
    return _chart(title, text, points, marks, names, number, top, step, "s")


def lines(
    points: "Sequence[Point]",
    *,
    title: str,
    names: "Sequence[str]" = ("jobs",),
    seconds: bool = False,
    step: int = 60,
) -> Safe:
    """Draw a line for each name, the first one as an area; None among the points is a gap."""
    say = length if seconds else number
    known = [point for point in points if point is not None]
    top = top_of([value for point in known for value in _finite(point[1:])], seconds=seconds)
    marks: list[Safe] = []
    for place in range(len(names)):
        for run in _runs(points, place, top):
            path = " ".join(f"{_short(x)},{_short(y)}" for x, y in run)
            if place == 0:
                area = f"{_short(run[0][0])},100 {path} {_short(run[-1][0])},100"
                marks.append(el("polygon", {"class": "area a1", "points": area}))
            marks.append(el("polyline", {"class": f"line l{place + 1}", "points": path}))
    for at, point in enumerate(points):
        if point is not None:  # what stands under the pointer
            over = {"class": "over", "x": at, "y": 0, "width": 1, "height": 100}
            marks.append(el("rect", over, el("title", _said(point, names, say))))
    text = "nothing yet"
    if known:
        now = [f"{name} {say(value)}" for name, value in zip(names, known[-1][1:], strict=False)]
        most = max(value for point in known for value in _finite(point[1:]))
        text = f"{', '.join(now)} at last; {say(most)} at most"
    return _chart(title, text, points, marks, names, say, top, step, "l")


def _runs(
    points: "Sequence[Point]", place: int, top: float
) -> "Iterable[list[tuple[float, float]]]":
    """Yield the stretches of a line without a gap, each at least as long as a point is wide."""
    run: list[tuple[float, float]] = []
    for at, point in enumerate([*points, None]):
        if point is not None:
            (value,) = _finite(point[place + 1 : place + 2]) or [0.0]
            run.append((at + 0.5, 100 - value / top * 100))
        elif run:
            x, y = run[0]
            yield run if len(run) > 1 else [(x - 0.5, y), (x + 0.5, y)]
            run = []


def _chart(
    title: str,
    text: str,
    points: "Sequence[Point]",
    marks: "Sequence[Safe]",
    names: "Sequence[str]",
    say: "Any",
    top: float,
    step: int,
    key: str,
) -> Safe:
    """Put a plot, its scales, its legend and its table together."""
    drawn: list[Any] = [el("title", title), el("desc", text)]
    labels = []
    for part in (1, 0.5, 0):
        y = _ABOVE + HEIGHT * (1 - part)
        drawn.append(el("line", {"class": "grid", "x1": 0, "x2": "100%", "y1": y, "y2": y}))
        if part and (say is length or (top * part).is_integer()):
            labels.append(el("text", {"class": "scale", "x": 0, "y": y - 4}, say(top * part)))
    box = f"0 0 {max(1, len(points))} 100"
    drawn.append(
        el(
            "svg",
            {"x": 0, "y": _ABOVE, "width": "100%", "height": HEIGHT, "viewBox": box,
             "preserveAspectRatio": "none"},
            *marks,
        )
    )  # fmt: skip
    drawn += labels  # above the marks
    known = [(at, point[0]) for at, point in enumerate(points) if point is not None]
    if known:
        (at, first), count = known[0], len(points)
        start = first - at * step
        for when, words in times(start, start + count * step):
            drawn.append(_time(when, words, (when - start) / (count * step)))
    else:
        drawn.append(
            el("text", {"class": "nothing", "x": "50%", "y": _ABOVE + HEIGHT / 2}, "nothing yet")
        )
    size = {"class": "plot", "role": "img", "width": "100%", "height": _ABOVE + HEIGHT + _BELOW}
    legend = [
        el("span", el("i", {"class": f"key {key}{place + 1}"}), name)
        for place, name in enumerate(names)
    ]
    head = el("figcaption", el("b", title), el("span", {"class": "legend"}, *legend))
    return el(
        "figure", {"class": "chart"}, head, el("svg", size, *drawn),
        el("p", {"class": "said"}, text), _table(points, names, say),
    )  # fmt: skip


def _time(at: float, words: str, part: float) -> Safe:
    anchor = "start" if part < 0.04 else "end" if part > 0.94 else "middle"
    place = {"class": f"time {anchor}", "x": f"{part * 100:.2f}%", "y": _ABOVE + HEIGHT + 15}
    return el("text", place, words)


def _table(points: "Sequence[Point]", names: "Sequence[str]", say: "Any") -> Safe | None:
    """Return the numbers as a table for those who open it; stretches of zeros are left out."""
    rows = [
        el("tr", el("td", clock_text(point[0], day=True)), *(el("td", say(n)) for n in point[1:]))
        for point in points
        if point is not None and any(point[1:])
    ]
    if not rows:
        return None
    head = el(
        "tr", el("th", {"scope": "col"}, "time"), *(el("th", {"scope": "col"}, n) for n in names)
    )
    table = el("table", el("thead", head), el("tbody", *rows))
    return el("details", {"class": "data"}, el("summary", "as a table"), table)


# --- is cron alive?


def strip(ticks: "Sequence[tuple[float, int]]", now: float, minutes: int = 120) -> Safe:
    """Draw a cell for each of the last minutes: tall where a tick ran jobs, half as high where it
    was idle, a dot on the ground where there was none.
    """
    last = int(now // 60)
    ran: dict[int, int] = {}
    for at, jobs in ticks:
        ran[int(at // 60)] = ran.get(int(at // 60), 0) + jobs
    cells, counts = [], {"ran": 0, "idle": 0, "gap": 0}
    for place, minute in enumerate(range(last - minutes + 1, last + 1)):
        run = ran.get(minute)
        kind = "gap" if run is None else "ran" if run else "idle"
        said = {"gap": "no tick", "idle": "a tick, nothing to do"}.get(kind, f"{run} jobs run")
        if minute == last and run is None:
            kind, said = "now", "this minute: no tick yet"
        else:
            counts[kind] += 1
        high = {"ran": 24, "idle": 12}.get(kind, 3)
        shape = {
            "class": f"tick {kind}", "x": place + 0.1, "width": 0.8, "y": 24 - high, "height": high,
        }  # fmt: skip
        cells.append(el("rect", shape, el("title", f"{clock_text(minute * 60)} {said}")))
    text = (
        f"Of the last {minutes} minutes: jobs run in {counts['ran']}, nothing to do in"
        f" {counts['idle']}, no tick in {counts['gap']}."
    )
    inner = {
        "width": "100%", "height": 24, "viewBox": f"0 0 {minutes} 24",
        "preserveAspectRatio": "none",
    }  # fmt: skip
    start = (last - minutes + 1) * 60
    labels = []
    for when, words in times(start, start + minutes * 60, 6):
        part = (when - start) / (minutes * 60)
        anchor = "start" if part < 0.04 else "end" if part > 0.94 else "middle"
        place_of = {"class": f"time {anchor}", "x": f"{part * 100:.2f}%", "y": 38}
        labels.append(el("text", place_of, words))
    size = {"class": "plot strip", "role": "img", "width": "100%", "height": 42}
    title = el("title", "Ticks, minute by minute")
    drawn = el("svg", size, title, el("desc", text), el("svg", inner, *cells), *labels)
    return el("figure", {"class": "chart"}, drawn, el("p", {"class": "said"}, text))


def share(parts: "Sequence[tuple[str, float]]", *, title: str = "") -> Safe:
    """Draw what parts make up a whole as one small bar: (class, size) of each, in order.

    Every part that is not nothing can be seen, however small it is.
    """
    sizes = [max(0.0, size) if math.isfinite(size) else 0.0 for _, size in parts]
    whole = sum(sizes)
    shown = [max(size / whole * 100, 1.5) if size else 0.0 for size in sizes] if whole else []
    ends = [0.0]
    for size in shown:
        ends.append(ends[-1] + size * 100 / sum(shown))
    cells = [
        el("rect", {"class": name, "x": _short(begin), "width": _short(end - begin), "height": 1})
        for (name, _), (begin, end) in zip(parts, pairwise(ends), strict=False)
        if end > begin
    ]
    text = title or ", ".join(f"{number(size)} {name}" for name, size in parts if size)
    return el(
        "svg",
        {"class": "share", "role": "img", "viewBox": "0 0 100 1", "preserveAspectRatio": "none"},
        el("title", text or "nothing"),
        *cells,
    )


# --- numbers


def _finite(values: "Iterable[float | None]") -> list[float]:
    return [
        max(0.0, value) if value is not None and math.isfinite(value) else 0.0 for value in values
    ]


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def _said(point: "tuple[float, ...]", names: "Sequence[str]", say: "Any") -> str:
    values = (f"{name} {say(value)}" for name, value in zip(names, point[1:], strict=False))
    return f"{clock_text(point[0], day=True)}: {', '.join(values)}"
