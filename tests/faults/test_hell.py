"""What no handler can do, whatever it does: lose a good job, run it twice, or hang the queue."""

import pytest

from . import hell
from .hell_handlers import CASES

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def found():
    """What the campaign finds, by handler; it runs once, several handlers at a time."""
    return {result.name: result for result in hell.campaign(bounded=True)}


@pytest.mark.parametrize("name", CASES)
def test_p14_a_bad_handler_ends_as_it_must_and_hurts_no_other(name, found):
    """P10 to P14, P16 to P18, P27, P34: in the calling process, in a pool, among async handlers."""
    violations = found[name].violations

    assert not violations, "\n".join(violations)
    assert found[name].cases >= 1
