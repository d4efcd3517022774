"""How long jobs waited and ran, and how many succeeded, told from a sample of them."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Figure = dict[str, Any]


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return p50 and p95 of sorted values, each a value that is there (nearest rank)."""
    last = len(values) - 1
    return values[round(last * 0.5)], values[round(last * 0.95)]


def times(values: list[float]) -> "dict[str, float] | None":
    if not values:
        return None
    p50, p95 = percentiles(sorted(values))
    average = sum(values) / len(values)
    return {"average": round(average, 6), "p50": round(p50, 6), "p95": round(p95, 6)}


def rate(statuses: list[bytes]) -> float | None:
    return round(statuses.count(b"completed") / len(statuses), 4) if statuses else None


def by_type(
    rows: "list[tuple[float, float, float, float]]", names: "list[tuple[bytes, bytes]]"
) -> "dict[str, Figure]":
    values: dict[str, list[float]] = {}
    ends: dict[str, list[bytes]] = {}
    for row, (type, status) in zip(rows, names, strict=True):
        values.setdefault(type.decode(), []).append(row[3])
        ends.setdefault(type.decode(), []).append(status)
    return {
        type: {
            "completed": ends[type].count(b"completed"),
            "failed": ends[type].count(b"failed"),
            "success_rate": rate(ends[type]),
            **(times(values[type]) or {}),
        }
        for type in sorted(values)
    }
