"""What is planted in the file or beside it reaches nothing else: P33 to P35."""

import os

import pytest

from . import security

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who has something to lose"),
]


@pytest.mark.parametrize("part", ["rows", "modes", "planted"])
def test_p33_p34_p35_nothing_outside_of_the_queue_is_reached(part):
    """P33, P34, P35: rows, modes and owners, links and pipes."""
    found = list(security.PARTS[part](True))

    violations = [text for result in found for text in result.violations]
    assert not violations, "\n".join(violations)
    assert all(result.cases for result in found)
