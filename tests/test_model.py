"""Random verbs, ticks, crashes, hand edits and clock moves: the file says what a dict says."""

import pytest

pytest.importorskip("hypothesis")

from faults import machine


def test_whatever_is_done_the_file_says_what_the_model_says():
    machine.hold(examples=8, steps=20)


@pytest.mark.faults
def test_p1_p4_p12_p19_p31_and_more_often():
    """P1, P4, P12, P19, P31: after a kill, all of a verb has happened, or nothing."""
    for result in machine.campaign(bounded=True):
        assert not result.violations, f"{result.name}: {result.violations[0]}"
