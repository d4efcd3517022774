"""Half a minute of what the campaign does for ten."""

import pytest

from . import soak


@pytest.mark.soak
def test_p1_p5_p9_p10_p12_p16_p20_p25_p26_many_at_once_are_killed_stopped_and_robbed():
    """P1, P5, P9, P10, P12, P16, P20, P25, P26: nothing is lost, no run is without a reason."""
    for result in soak.campaign(bounded=True):
        print(result.name)
        assert not result.violations, "\n".join([result.name, *result.violations])
        assert result.cases > 20, result.name
