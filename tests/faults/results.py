"""What a part of the fault campaign reports."""

from typing import NamedTuple


class Result(NamedTuple):
    """One line of the campaign's table; it is good when there are no violations."""

    name: str
    cases: int
    violations: list  # of sentences, each with what is needed to see it again
