"""What a look found: a level, a text, and the figures behind it with their bounds."""

from typing import NamedTuple

from ..errors import BadArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Bound = float | tuple[float | None, float | None] | None

OK, WARNING, CRITICAL, UNKNOWN = "ok", "warning", "critical", "unknown"
_ORDER = (OK, WARNING, UNKNOWN, CRITICAL)
OTHERS = "*"  # in a mapping from queue to bound: every queue that is not named


class Figure(NamedTuple):
    """A number that a monitor draws; it alarms above `warning` and above `critical`."""

    label: str
    value: float
    unit: str  # "s", or "" for a count or a share
    warning: float | None = None
    critical: float | None = None


class Check(NamedTuple):
    name: str
    level: str
    text: str
    figures: tuple[Figure, ...] = ()


class Bounds(NamedTuple):
    """Above `warning` it is a warning, above `critical` it is critical; None: never."""

    warning: float | None = None
    critical: float | None = None

    def level(self, value: float) -> str:
        for level, most in ((CRITICAL, self.critical), (WARNING, self.warning)):
            if most is not None and value > most:
                return level
        return OK

    def figure(self, label: str, value: float, unit: str = "") -> Figure:
        return Figure(label, value, unit, *self)


def worst(checks: "Iterable[Check]") -> str:
    """Return the level that counts: critical, else unknown, else warning, else ok."""
    return max((one.level for one in checks), key=_ORDER.index, default=OK)


def bounds(name: str, given: "Bound") -> Bounds:
    """Return what an argument means: a number is critical, a pair (warning, critical)."""
    pair = given if isinstance(given, tuple) else (None, given)
    numbers = [most for most in pair if most is not None]
    for most in numbers:
        if isinstance(most, bool) or not isinstance(most, (int, float)) or not most >= 0:
            raise BadArgument(f"{name}={given!r:.80}: give a number >= 0, or (warning, critical)")
    if len(pair) != 2 or numbers != sorted(numbers):
        raise BadArgument(f"{name}={given!r:.80}: give (warning, critical), the smaller one first")
    return Bounds(*pair)


def bounds_by_queue(name: str, given: "Bound | Mapping[str, Bound]") -> "Mapping[str, Bounds]":
    """Return the bounds of each queue that is named, and of the OTHERS."""
    if given is None or isinstance(given, (int, float, tuple)):
        return {OTHERS: bounds(name, given)}
    if not hasattr(given, "keys"):
        raise BadArgument(f"{name}={given!r:.80}: give a number, a pair, or a mapping by queue")
    return {OTHERS: Bounds()} | {label: bounds(name, given[label]) for label in given}
