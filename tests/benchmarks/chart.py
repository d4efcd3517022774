"""Two pictures of a benchmark.json: ours beside the peers, and how cost grows with the rows.

Both have logarithmic scales and a background of their own, for dark pages too.
`python tests/benchmarks/chart.py benchmark.json` writes them beside it.
"""

import json
import sys
from html import escape
from math import ceil, floor, log10
from pathlib import Path

from record import LIMIT, best, figure, ours, peers, short, value

WIDTH = 900
INK, PALE, GRID, BETTER, WORSE = "#1f2328", "#59636e", "#d8dee4", "#9fd3b4", "#f4b4a8"
COLOURS = {
    "sqlite": "#0969da", "litequeue": "#00a3bf", "huey": "#8250df", "persist-queue": "#bf8700",
    "rq": "#1a7f37", "celery": "#cf4f9b", "1.0.0": "#8c959f",
}  # fmt: skip
IN_MICROSECONDS = {"µs": 1.0, "ms": 1e3}
GROWTH = (  # a record, one of its sides, what the line is called
    ("enqueue-off", "ours off", 'enqueue, sync="off"', "#d1242f"),
    ("get-job", "ours off", "get_job by id", "#8250df"),
    ("idle-tick", "ours off", "idle tick, a new process", "#0969da"),
    ("idle-tick", "ours off no hint", "idle tick without the hint", "#00899c"),
    ("claim", "ours off", "tick for one job, file changed", "#bf8700"),
    ("drain-long", "ours off", "drain, for each job", "#1a7f37"),
    ("claim", LIMIT, "copy_file_range and fsync", "#6e7781"),
)


def pictures(record):
    """Return the pictures of a run, with their names."""
    of = record["machine"]
    note = f"{of['cpu']}, {of['cores']} cores, {of['file_system']}, Python {of['python']}"
    note += f", {record['date'][:10]}, rounds: {record['rounds']}"
    records = [one for one in record["records"] if any(peers(one))]
    found = {one["id"]: one for one in record["records"]}
    return ("benchmark.svg", _beside(records, note)), ("growth.svg", _growth(found, note))


# --- beside the peers


def _beside(records, note):
    """A line for each workload: a bar to the best peer, a dot for each other, a tick: the limit."""
    left, right, top, step = 470, WIDTH - 40, 122, 26
    height = top + step * len(records) + 40
    ratios = [ratio for one in records for _, _, ratio in peers(one)]
    x, powers = _scale([*ratios, 0.5, 20], left, right)
    parts = [_text(20, 30, "Peers, as a multiple of what this queue takes", size=16, bold=True)]
    words = "left of 1 ×: quicker, or smaller; bars: the best, like for like"
    parts.append(_text(WIDTH - 20, 30, words, size=12, anchor="end", colour=PALE))
    parts += _legend(26, 58)
    parts.append(_text(left - 95, top - 24, "ours", size=11, anchor="end"))
    parts.append(_text(left - 30, top - 24, "ratio", size=11, anchor="end"))
    for power in powers:
        at = x(10.0**power)
        parts.append(_line(at, top - 18, at, height - 34, INK if power == 0 else GRID))
        parts.append(_text(at, top - 24, f"{10.0**power:,g} ×", size=11, anchor="middle"))
    for number, one in enumerate(records):
        parts += _workload(one, x, left, top + step * number)
    parts.append(_text(WIDTH - 20, height - 12, note, size=11, anchor="end", colour=PALE))
    return _svg(height, parts)


def _workload(one, x, left, y):
    side, sizes = ours(one)
    first = best(one)
    size = first[1] if first else max(sizes, key=int)
    name = one["workload"].replace(", each job", "")
    name += f", {_rows(int(size))}" if int(size) else ""
    mine, unit = value(one, side, size), one["unit"]
    mine = figure(mine / 1e3, "ms") if unit == "µs" and mine >= 1e4 else figure(mine, unit)
    yield _text(left - 162, y + 4, name, anchor="end", size=12)
    yield _text(left - 95, y + 4, mine, anchor="end", size=12)
    if first:
        ratio = short(first[2]) if first[2] >= 0.01 else f"{first[2]:.1g}"  # there is little room
        yield _text(left - 30, y + 4, f"{ratio} ×", anchor="end", size=12, bold=True)
        start, stop = sorted((x(1), x(first[2])))
        fill, title = BETTER if first[2] >= 1 else WORSE, _title(one, first)
        place = f'x="{start:.1f}" y="{y - 9}" width="{max(stop - start, 1):.1f}" height="18"'
        yield f'<rect {place} fill="{fill}"><title>{escape(title)}</title></rect>'
    others = sorted(peers(one), key=lambda found: found == first)
    for found in others:
        engine, at = found[0].split()[0], x(found[2])
        if engine == LIMIT:
            place = f'x="{at - 1.5:.1f}" y="{y - 9}" width="3" height="18"'
            title = escape(f"{one['limit_is']}: {short(found[2])} ×")
            yield f'<rect {place} fill="{INK}"><title>{title}</title></rect>'
        else:
            yield _dot(at, y, COLOURS[engine], _title(one, found), found[0] not in one["fair"])


def _title(one, found):
    side, size, ratio = found
    rows = f" with {int(size):,} rows" if int(size) else ""
    return f"{side}{rows}: {figure(value(one, side, size), one['unit'])}, {short(ratio)} ×"


def _legend(at, y):
    for name, colour in COLOURS.items():
        yield _dot(at, y - 4, colour, name)
        yield _text(at + 8, y, name, size=12)
        at += 26 + 6.6 * len(name)
    yield _dot(at + 10, y - 4, PALE, "not like for like", ring=True)
    yield _text(at + 19, y, "keeps less, or works otherwise", size=12)
    yield f'<rect x="{at + 222}" y="{y - 12}" width="3" height="16" fill="{INK}"/>'
    yield _text(at + 232, y, "the machine alone", size=12)


# --- growth


def _growth(found, note):
    left, right, top, bottom, height = 80, WIDTH - 240, 60, 420, 480
    lines = []
    for id, side, name, colour in GROWTH:
        one = found.get(id, {"figures": {}})
        points = [
            (int(size), figures["value"] * IN_MICROSECONDS[one["unit"]])
            for size, figures in one["figures"].get(side, {}).items()
            if int(size)
        ]
        if points:
            lines.append((points, name, colour, "5 4" if side == LIMIT else "none"))
    x, columns = _scale([10, 1_000_000, *(n for line in lines for n, _ in line[0])], left, right)
    y, levels = _scale([10, 1e5, *(v for line in lines for _, v in line[0])], bottom, top)
    parts = [_text(20, 28, "How cost grows with the rows in the file", size=16, bold=True)]
    for power in columns:
        at = x(10.0**power)
        parts.append(_line(at, top, at, bottom, GRID))
        parts.append(_text(at, bottom + 18, f"{10**power:,}", size=11, anchor="middle"))
    for power in levels:
        at = y(10.0**power)
        parts.append(_line(left, at, right, at, GRID))
        parts.append(_text(left - 8, at + 4, _time(power), size=11, anchor="end"))
    lowest = top - 16
    for points, name, colour, dash in sorted(lines, key=lambda line: y(line[0][-1][1])):
        path = " ".join(f"{x(n):.1f},{y(cost):.1f}" for n, cost in points)
        look = f'fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{path}" {look}/>')
        parts += [_dot(x(n), y(v), colour, f"{name}, {n:,}: {short(v)} µs") for n, v in points]
        lowest = max(lowest + 16, y(points[-1][1]) + 4)
        parts.append(_text(x(points[-1][0]) + 12, lowest, name, colour=colour))
    parts.append(_text(WIDTH - 20, height - 12, note, size=11, anchor="end", colour=PALE))
    return _svg(height, parts)


def _time(power):
    """10 to that power in microseconds, as people say it."""
    unit, less = next((u, p) for u, p in (("s", 6), ("ms", 3), ("µs", -9)) if power >= p)
    return f"{10.0 ** (power - max(less, 0)):g} {unit}"


def _rows(size):
    """1000000 as 1M."""
    return f"{size // 10**6}M" if size >= 10**6 else f"{size // 1000}k" if size >= 1000 else size


# --- small shapes


def _scale(values, start, stop):
    """A function from a value to its place, and the decades from end to end."""
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    place = lambda number: start + (stop - start) * (log10(number) - low) / (high - low)  # noqa: E731
    return place, range(low, high + 1)


def _svg(height, parts):
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        *parts, "</svg>", "",
    ])  # fmt: skip


def _line(x, y, to_x, to_y, colour):
    return f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{colour}"/>'


def _dot(x, y, colour, title, ring=False):
    look = f'r="4" fill="{"#ffffff" if ring else colour}" stroke="{colour}" stroke-width="1.5"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}><title>{escape(title)}</title></circle>'


def _text(x, y, text, *, size=13, anchor="start", colour=INK, bold=False):
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text {place} font-weight="{600 if bold else 400}">{escape(str(text))}</text>'


if __name__ == "__main__":
    source = Path(sys.argv[1])
    for name, picture in pictures(json.loads(source.read_text(encoding="utf-8"))):
        (source.parent / name).write_text(picture, encoding="utf-8")
