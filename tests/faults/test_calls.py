"""Every call of every scene goes wrong in every way."""

import pytest

from . import campaign, scenes

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("name", scenes.SCENES)
def test_p3_p12_p18_p21_p29_p31_each_call_of(name):
    """P3, P12, P18, P21, P29, P31: an error is an error, the old content is intact, all goes on."""
    (result,) = campaign.campaign(False, [name])

    assert result.violations == []
