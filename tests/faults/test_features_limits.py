"""Limits hold while workers are killed; see features_limits."""

import pytest

from . import features_limits


@pytest.mark.faults
def test_limits_hold_and_nothing_leaks_while_workers_are_killed(tmp_path):
    result = features_limits.run(54, tmp_path)

    assert result.violations == []
    assert result.killed >= 200
