"""Questions to benchmark.json: who is quickest among those that keep as much, and how a figure
is written.  `one` is one of its records."""

LIMIT = "limit"


def ours(one):
    """The name of the side that is ours, and its figures by size."""
    return next(iter(one["figures"].items()))


def at(one, side):
    """The most rows with which a side and ours were both measured; None without any."""
    sizes = one["figures"].get(side, {}).keys() & ours(one)[1]
    return max(sizes, key=int, default=None)


def value(one, side, size, metric="value"):
    return one["figures"][side][size].get(metric)


def peers(one):
    """(side, its size, how many times as quick ours is) of each, ours in another mode left out."""
    for side in one["figures"]:
        size = None if side.startswith("ours") else at(one, side)
        if size and value(one, side, size) and value(one, ours(one)[0], size):
            yield side, size, value(one, side, size) / value(one, ours(one)[0], size)


def best(one):
    """The quickest peer that keeps as much, of those that came furthest; None without any."""
    fair = [found for found in peers(one) if found[0] in one["fair"]]
    return max(fair, key=lambda found: (int(found[1]), -found[2]), default=None)


def quicker(one):
    """The quickest of all peers with as many rows as the best has; None where it is the best."""
    first = best(one)
    same = [found for found in peers(one) if first and found[1] == first[1] and found[0] != LIMIT]
    least = min(same, key=lambda found: found[2], default=first)
    return least if least != first else None


def short(number):
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def figure(number, unit):
    return f"{short(number)} {unit}"
