"""One picture for the README: every engine in every workload, and how cost grows with the rows.

Both halves have logarithmic scales; left and low is better.  A ring is an engine in another mode,
as its title says; the bar is what the machine can do.
"""

from html import escape
from math import ceil, floor, log10

WIDTH = 900
COLOURS = {
    "ours": "#d1242f", "sqlite": "#0969da", "litequeue": "#57a6ff", "huey": "#8250df",
    "persist-queue": "#bf8700", "rq": "#1a7f37", "celery": "#7bc47f", "1.0.0": "#8c959f",
    "limit": "#1f2328",
}  # fmt: skip
SHOWN = {"µs": 1.0, "ms": 1e3}  # in microseconds
GROWTH = {
    "enqueue-off": ("enqueue", "#d1242f"), "get-job": ("get_job", "#8250df"),
    "idle-tick": ("idle tick, a new process", "#0969da"),
    "claim": ("a tick that runs one job", "#bf8700"),
}  # fmt: skip


def picture(record):
    """Return the SVG of a run."""
    rows = [one for one in record["records"] if one["unit"] in SHOWN]
    height = 70 + 30 * len(rows)
    dots = _dots(rows, height)
    lines = _lines({one["id"]: one for one in rows}, height + 30)
    of = record["machine"]
    note = f"{of['cpu']}, {of['cores']} cores, {of['file_system']}, Python {of['python']}"
    note += f", {record['date'][:10]}, rounds: {record['rounds']}"
    total = height + 400
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}"'
        ' font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{total}" fill="#ffffff"/>',
        *dots, *lines, _text(WIDTH - 20, total - 12, note, size=11, anchor="end"), "</svg>", "",
    ])  # fmt: skip


def _dots(rows, height):
    """A line for each workload, a dot for each engine."""
    left, right, top = 330, WIDTH - 30, 60
    values = [v * SHOWN[one["unit"]] for one in rows for _, v in _engines(one)]
    x = _scale(values, left, right)
    parts = list(_grid(x, values, top - 12, height, across=True))
    at = 20
    for name, colour in COLOURS.items():
        shape = _bar if name == "limit" else _dot
        parts += [shape(at, 20, colour, name), _text(at + 10, 24, name)]
        at += 30 + 8 * len(name)
    for number, one in enumerate(rows):
        y = top + 12 + 30 * number
        parts.append(_text(left - 15, y + 4, one["workload"], anchor="end"))
        parts.append(f'<path d="M{left} {y}H{right}" stroke="#eaeef2"/>')
        shapes, seen = [], set()
        for side, value in _engines(one):
            engine, title = side.split()[0], f"{side}: {value:.3g} {one['unit']}"
            place = x(value * SHOWN[one["unit"]]), y, COLOURS[engine], title
            shapes.append(_bar(*place) if engine == "limit" else _dot(*place, engine in seen))
            seen.add(engine)
        parts += reversed(shapes)  # ours on top
    return parts


def _engines(one):
    """Ours, the peers, the limit: (side, value), those that were measured."""
    found = {"ours": one["ours"], **one["peers"], "limit": one["limit"]}
    return [(side, value) for side, value in found.items() if value]


def _lines(rows, top):
    """Cost over rows, for the workloads in GROWTH."""
    left, right, bottom = 90, WIDTH - 230, top + 300
    drawn = {}
    for id, (name, colour) in GROWTH.items():
        one = rows.get(id, {"figures": {}})
        ours = one["figures"].get("ours off", {})
        points = [(n, f["value"] * SHOWN[one["unit"]]) for n, f in ours.items() if n]
        if points:
            drawn[name] = points, colour
    if not drawn:
        return []
    sizes = [n for points, _ in drawn.values() for n, _ in points]
    values = [value for points, _ in drawn.values() for _, value in points]
    x, y = _scale(sizes, left, right), _scale(values, bottom, top + 20)
    parts = [_text(20, top, "How cost grows with the rows in the file", size=15)]
    parts += _grid(y, values, left, right, across=False)
    for size in sorted(set(sizes)):
        parts.append(_text(x(size), bottom + 18, f"{size:,}", anchor="middle"))
    lowest = top
    for name, (points, colour) in sorted(drawn.items(), key=lambda item: -item[1][0][-1][1]):
        path = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        )
        parts += [_dot(x(n), y(value), colour, f"{name}: {value:.0f} µs") for n, value in points]
        lowest = max(lowest + 16, y(points[-1][1]) + 4)
        parts.append(_text(right + 12, lowest, name, colour=colour))
    return parts


# --- small shapes


def _scale(values, start, stop):
    """A function from a value to its place, whole decades from end to end."""
    low, high = floor(log10(min(values, default=1))), ceil(log10(max(values, default=10)))
    span = max(1, high - low)
    return lambda value: start + (stop - start) * (log10(value) - low) / span


def _grid(place, values, start, stop, *, across):
    """A thin line and a name for each decade."""
    for power in range(floor(log10(min(values))), ceil(log10(max(values))) + 1):
        at, name = place(10.0**power), _name(power)
        path = f"M{at:.1f} {start}V{stop}" if across else f"M{start} {at:.1f}H{stop}"
        yield f'<path d="{path}" stroke="#d0d7de"/>'
        if across:
            yield _text(at, start - 4, name, size=11, anchor="middle")
        else:
            yield _text(start - 8, at + 4, name, size=11, anchor="end")


def _name(power):
    """10 to that power in microseconds, as people say it."""
    unit, less = next((u, p) for u, p in (("s", 6), ("ms", 3), ("µs", -9)) if power >= p)
    return f"{10 ** (power - max(less, 0)):g} {unit}"


def _dot(x, y, colour, title, ring=False):
    fill, title = "#ffffff" if ring else colour, f"<title>{escape(title)}</title>"
    look = f'r="4.5" fill="{fill}" stroke="{colour}" stroke-width="1.5"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}>{title}</circle>'


def _bar(x, y, colour, title):
    place = f'x="{x - 1.5:.1f}" y="{y - 8:.1f}" width="3" height="16"'
    return f'<rect {place} fill="{colour}"><title>{escape(title)}</title></rect>'


def _text(x, y, text, *, size=13, anchor="start", colour="#1f2328"):
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
