"""Jobs that wait for each other, as boxes in layers with arrows between them."""

from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean

from ..html import Safe, el

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Stop = tuple[str, int]  # a box or, behind it, a free place for an arrow in a later column

MOST = 60  # boxes; more are told in words
ALIKE = 8  # more brothers than this, alike in all that is shown, become one box
WIDTH, HIGH, ACROSS, BETWEEN = 176, 44, 52, 14
SIGNS = {
    "pending": "○", "processing": "◐", "completed": "✓", "failed": "✕", "cancelled": "⊘",
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """One box: a job, or `count` jobs that are alike.  `after` names the nodes before it."""

    id: str
    label: str
    status: str
    url: str = ""
    after: "tuple[str, ...]" = ()
    is_here: bool = False
    count: int = 1


def graph(nodes: "Sequence[Node]", *, title: str = "The jobs and what they wait for") -> Safe:
    """Draw nodes from left to right, each behind all that it waits for."""
    nodes = _merged(nodes)
    total = sum(node.count for node in nodes)
    counted: dict[str, int] = {}
    for node in nodes:
        counted[node.status] = counted.get(node.status, 0) + node.count
    text = f"{total} jobs: " + ", ".join(f"{n} {status}" for status, n in sorted(counted.items()))
    if not nodes or len(nodes) > MOST:
        words = f"{text}. Too many to be drawn." if nodes else "No jobs."
        return el("p", {"class": "said"}, words)
    layers = _layers(nodes)
    places = _places(nodes, layers)
    wide = max(x for x, _ in places.values()) + WIDTH + 2
    high = max(y for _, y in places.values()) + HIGH + 2
    arrows = [_arrow([places[stop] for stop in stops]) for stops in _ways(nodes, layers)]
    boxes = [_box(node, *places[node.id, layers[node.id]]) for node in nodes]
    size = {"class": "graph", "role": "group", "width": wide, "height": high,
            "viewBox": f"0 0 {wide} {high}"}  # fmt: skip
    drawn = el("svg", size, el("title", title), el("desc", text), *arrows, *boxes)
    around = {"class": "scroll", "tabindex": 0, "role": "region", "aria-label": title}
    return el(
        "figure", {"class": "chart"}, el("div", around, drawn), el("p", {"class": "said"}, text)
    )


def _merged(nodes: "Sequence[Node]") -> "list[Node]":
    """Put many that are alike, and wait for the same and are waited for by the same, into one."""
    children: dict[str, set[str]] = {node.id: set() for node in nodes}
    for node in nodes:
        for parent in node.after:
            children.setdefault(parent, set()).add(node.id)
    groups: dict[object, list[Node]] = {}
    for node in nodes:
        likeness: object = node.id
        if not node.is_here:
            around = frozenset(node.after), frozenset(children[node.id])
            likeness = node.label, node.status, *around
        groups.setdefault(likeness, []).append(node)
    found = []
    for alike in groups.values():
        if len(alike) > ALIKE:  # whoever waits for one of them waits for the first one too
            found.append(replace(alike[0], count=sum(node.count for node in alike)))
        else:
            found += alike
    order = {node.id: place for place, node in enumerate(nodes)}
    return sorted(found, key=lambda node: order[node.id])


def _layers(nodes: "Sequence[Node]") -> "dict[str, int]":
    """Return in which column each box stands; a circle of jobs does no harm."""
    layers = {node.id: 0 for node in nodes}
    for _ in nodes:
        moved = False
        for node in nodes:
            behind = [layers[one] + 1 for one in node.after if one in layers and one != node.id]
            layer = min(max(behind, default=0), len(nodes) - 1)
            moved = moved or layer != layers[node.id]
            layers[node.id] = layer
        if not moved:
            break
    used = {layer: place for place, layer in enumerate(sorted(set(layers.values())))}
    return {id: used[layer] for id, layer in layers.items()}


def _ways(nodes: "Sequence[Node]", layers: "dict[str, int]") -> "list[list[Stop]]":
    """Return through which stops each arrow goes: a box, free places in between, a box."""
    return [
        [*((parent, layer) for layer in range(layers[parent], layers[node.id])),
         (node.id, layers[node.id])]
        for node in nodes
        for parent in node.after
        if parent in layers and layers[parent] < layers[node.id]
    ]  # fmt: skip


def _places(nodes: "Sequence[Node]", layers: "dict[str, int]") -> "dict[Stop, tuple[int, int]]":
    """Return where the upper left corner of each stop is, close to those before it."""
    before: dict[Stop, set[Stop]] = {(node.id, layers[node.id]): set() for node in nodes}
    for stops in _ways(nodes, layers):
        for one, following in pairwise(stops):
            before.setdefault(following, set()).add(one)
    columns: dict[int, list[Stop]] = {}
    for stop in before:
        columns.setdefault(stop[1], []).append(stop)
    tallest = max(map(len, columns.values()))
    rows: dict[Stop, float] = {}
    for _, stops in sorted(columns.items()):
        means = {stop: mean([rows[one] for one in before[stop]] or [0.0]) for stop in stops}
        top = (tallest - len(stops)) / 2
        for place, stop in enumerate(sorted(stops, key=means.__getitem__)):
            rows[stop] = top + place
    return {
        (id, layer): (layer * (WIDTH + ACROSS) + 1, int(row * (HIGH + BETWEEN)) + 1)
        for (id, layer), row in rows.items()
    }


def _arrow(stops: "list[tuple[int, int]]") -> Safe:
    middle = HIGH // 2
    x, y = stops[0][0] + WIDTH, stops[0][1] + middle
    path = f"M{x} {y}"
    for left, top in stops[1:]:
        bend, end = x + ACROSS // 2, left - 6 if (left, top) == stops[-1] else left
        path += f"C{bend} {y} {bend} {top + middle} {end} {top + middle}"
        x, y = left + WIDTH, top + middle
        if (left, top) != stops[-1]:
            path += f"H{x}"
    x = stops[-1][0]
    head = f"M{x - 7} {y - 4}L{x} {y}L{x - 7} {y + 4}Z"
    line = el("path", {"d": path})
    return el("g", {"class": "arrow"}, line, el("path", {"class": "head", "d": head}))


def _box(node: Node, x: int, y: int) -> Safe:
    name = node.label if len(node.label) <= 20 else node.label[:19] + "…"
    many = f" × {node.count}" if node.count > 1 else ""
    shape = {"x": x, "y": y, "width": WIDTH, "height": HIGH, "rx": 6}
    inside = (
        el("title", f"{node.label}{many}: {node.status}"),
        el("rect", shape),
        el("text", {"class": "sign", "x": x + 12, "y": y + 28}, SIGNS.get(node.status, "?")),
        el("text", {"class": "name", "x": x + 34, "y": y + 18}, name),
        el("text", {"class": "state", "x": x + 34, "y": y + 34}, f"{node.status}{many}"),
    )
    here = " here" if node.is_here else ""
    box = el("g", {"class": f"box {node.status}{here}"}, *inside)
    return el("a", {"href": node.url}, box) if node.url and not node.is_here else box
