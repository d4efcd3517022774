"""A process dies, or the power goes, at any system call: the file is the old one or the new one.

What is done and what must hold is in tests/faults/scenes.py; the slow part of it is beside it.
"""

import pytest
from faults import calls, scenes


@pytest.fixture
def in_turn(tmp_path):
    """Give a fresh copy of a scene's folder, each time, and what is done in it."""

    def fresh(scene):
        prepare, act, _ = scenes.SCENES[scene]
        base = scenes.Folder(tmp_path / "base")
        base.path.mkdir()
        prepare(base)
        copies = iter(range(1_000_000))

        def another():
            folder = base.copy(tmp_path / f"{next(copies)}")
            return folder, lambda: act(folder)

        return another

    return fresh


@pytest.mark.parametrize("scene", scenes.SCENES)
def test_p1_p4_p6_p10_p11_p12_p27_p31_a_kill_before_any_call_of(scene, in_turn):
    """P1, P4, P6, P10, P11, P12, P27, P31: nothing is lost, nothing that is finished runs again."""
    judge = scenes.SCENES[scene][2]
    struck = 0

    for _, outcome, folder in calls.each_call(in_turn(scene), "killed before"):
        try:
            judge(folder, outcome)
            scenes.go_on(folder, kills=1)
        except AssertionError as problem:
            raise AssertionError(f"{outcome.struck}: {problem}") from problem
        struck += 1

    assert struck >= 3
