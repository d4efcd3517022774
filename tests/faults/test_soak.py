"""The long version of what tests/test_processes.py does in a second."""

import pytest

from . import soak


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_p1_p5_p10_p12_2000_jobs_survive_300_kills(seed, tmp_path):
    """P1, P5, P10, P12: 0 lost, extra runs <= kills, none stuck after one more tick."""
    result = soak.Soak(tmp_path, producers=4, jobs=500, workers=3, kills=320, seed=seed).run()

    print(result)
    assert not result.problems, "\n".join(result.problems)
    assert result.kills >= 300
    assert result.told == 2000
    assert min(result.effects.values()) == 1
