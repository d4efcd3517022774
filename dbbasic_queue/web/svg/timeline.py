"""What has happened to one job, and how long each stretch took."""

import math

from ...show import clock, length
from ..html import Safe, el
from .charts import share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    # (what happened, when or None, kind of the stretch until the next one, more words)
    Moment = tuple[str, float | None, str, str]

_ROUNDED = 1.0  # seconds by which a time of the file may be ahead of the clock


def timeline(moments: "Sequence[Moment]", now: float) -> Safe:
    """Draw moments in their order, with the time between one and the next.

    The kind of a stretch (scheduled, waited, ran, or "" for none) is its colour in the bar on top.
    A moment that lies ahead says in how long; of one without a time only its words are shown.
    """
    rows, parts = [], []
    for place, (what, at, kind, more) in enumerate(moments):
        later = (one[1] for one in moments[place + 1 :] if one[1] is not None)
        until = next(later, None)
        took = ""
        is_open = until is None
        if at is not None and until is None:
            until = max(now, at) if kind and at <= now + _ROUNDED else None
        if at is not None and until is not None and math.isfinite(until - at):
            so_far = " until now" if is_open else ""
            took = f"{kind} {length(until - at)}{so_far}".strip() if until >= at else ""
            if kind:
                parts.append((kind, max(until - at, 0.0)))
        ahead = at is not None and at > now + _ROUNDED
        when = "" if at is None else clock(at)
        if ahead and at is not None:
            when += f" (in {length(at - now)})"
        rows.append(
            el(
                "li",
                {"class": "ahead" if ahead else f"was {kind}".strip()},
                el("b", what),
                el("time", when) if when else None,
                el("span", {"class": "more"}, more) if more else None,
                el("span", {"class": "took"}, took) if took else None,
            )
        )
    words = ", ".join(f"{kind} {length(size)}" for kind, size in parts)
    bar = share(parts, title=words) if sum(size for _, size in parts) > 0 else None
    return el("div", {"class": "timeline"}, bar, el("ol", *rows))
