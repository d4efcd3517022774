"""Scales that people can read: round numbers, round times in the local zone, short texts."""

import math
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_STEPS = [60 * m for m in (1, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 43200)]
_ROUND_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600)


def number(value: float) -> str:
    """Return a number short enough for a label: 950, 1.2k, 35k, 4.1M."""
    if not math.isfinite(value):
        return "?"
    size = abs(value)
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit * 0.9995:
            short = value / unit
            return f"{short:.3g}{letter}" if abs(short) < 999.5 else f"{short:.0f}{letter}"
    return f"{value:.3g}" if size < 100 and value != int(value) else f"{value:.0f}"


def top_of(values: "Sequence[float]", *, seconds: bool = False) -> float:
    """Return the least round number that no value exceeds, and at least 1 (or 10 ms)."""
    most = max((value for value in values if math.isfinite(value)), default=0.0)
    if seconds and most > 1:
        found = next((size for size in _ROUND_SECONDS if size >= most), None)
        return float(found) if found else math.ceil(most / 86400) * 86400.0
    least = 0.01 if seconds else 1.0
    if most <= least:
        return least
    power = 10.0 ** math.floor(math.log10(most))
    return next(size * power for size in (1, 2, 5, 10) if size * power >= most * (1 - 1e-9))


def clock_text(at: float, *, day: bool = False) -> str:
    """Return a time of the local zone: 14:05, with `day` Mon 14:05."""
    try:
        return time.strftime("%a %H:%M" if day else "%H:%M", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return str(at)


def times(first: float, last: float, most: int = 5) -> "list[tuple[float, str]]":
    """Return at most that many round times within a stretch, each with its text."""
    if not (math.isfinite(first) and math.isfinite(last)) or last <= first:
        return [(first, clock_text(first))]
    step = next((size for size in _STEPS if (last - first) / size <= most), _STEPS[-1])
    try:
        offset = time.localtime(first).tm_gmtoff
    except (ValueError, OverflowError, OSError):
        offset = 0
    at = math.ceil((first + offset) / step) * step - offset
    found: list[tuple[float, str]] = []
    while at <= last and len(found) <= most:
        text = clock_text(at)
        if step >= 1440 * 60 or (text == "00:00" and last - first > 43200):
            text = clock_text(at, day=True).partition(" ")[0]
        found.append((float(at), text))
        at += step
    return found
