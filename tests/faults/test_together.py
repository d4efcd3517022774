"""All features in one file, while all who use it are killed."""

import pytest

from . import together

pytestmark = pytest.mark.faults


def test_chains_keys_limits_and_schedules_hold_together_whoever_is_killed(tmp_path):
    cases, killed, violations = together.run(80, tmp_path)

    assert violations == []
    assert cases == killed == 80
