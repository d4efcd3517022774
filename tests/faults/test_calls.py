"""Every call of every scene goes wrong in every way."""

import pytest

from . import calls, scenes

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("mode", calls.modes())
@pytest.mark.parametrize("scene", scenes.SCENES)
def test_p3_p12_p18_p21_p29_each_call_of(scene, mode, tmp_path):
    """P3, P12, P18, P21, P29: an error is an error, the old content is intact, all goes on."""
    count, problems = scenes.problems_of(scene, mode, tmp_path)

    assert not problems, "\n".join(problems)
    assert count >= 1


@pytest.mark.parametrize("times", [2, 3])
def test_p31_recovery_may_be_killed_at_any_point_again_and_again(times, tmp_path):
    count, problems = scenes.problems_of("recovery", "killed before", tmp_path, again=times)

    assert not problems, "\n".join(problems)
    assert count >= 20
