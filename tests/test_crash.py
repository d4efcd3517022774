"""A process dies, or the power goes, at any system call: the file is the old one or the new one.

What is done and what must hold is in tests/faults/scenes.py; the slow part of it is beside it.
"""

import pytest
from faults import scenes


@pytest.mark.parametrize("scene", scenes.SCENES)
def test_p1_p4_p6_p10_p11_p12_p27_a_kill_before_each_call_of(scene, tmp_path):
    """P1, P4, P6, P10, P11, P12, P27: nothing is lost, nothing that is finished runs again."""
    calls, problems = scenes.problems_of(scene, "killed before", tmp_path)

    assert not problems, "\n".join(problems)
    assert calls >= 2
