"""What a campaign says of one of its parts."""

from typing import NamedTuple


class Result(NamedTuple):
    name: str
    cases: int
    violations: list[str]
