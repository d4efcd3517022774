"""Chains, batches and workflows end as they must, whoever is killed."""

import pytest

from . import features_groups

pytestmark = pytest.mark.faults


def test_what_follows_a_chain_or_a_batch_runs_once_and_in_time_whoever_is_killed(tmp_path):
    result = features_groups.run(50, tmp_path)

    assert result.violations == []
    assert (result.cases, result.killed > 300) == (50, True)
