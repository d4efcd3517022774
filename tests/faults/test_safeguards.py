"""Without any one safeguard the campaign finds something wrong; with all of them it does not."""

import shutil

import pytest

from . import rivals, sabotage, safeguards, true_cut

pytestmark = pytest.mark.faults

TITLES = [safeguards.title(*one) for one in safeguards.WITHOUT]


@pytest.mark.parametrize(("without", "where"), safeguards.WITHOUT, ids=TITLES)
def test_something_is_noticed(without, where, tmp_path):
    if isinstance(where, safeguards.Call) and not shutil.which("gcc"):
        pytest.skip("needs gcc")

    result = safeguards.noticed(without, where)

    assert result.violations == []
    assert result.cases or true_cut.refused(tmp_path)


@pytest.mark.parametrize("name", rivals.SCENES)
def test_p5_p8_p12_rivals_who_meet_lose_nothing_when(name, tmp_path):
    """P5, P8, P12: a foreign program, one who waited, a thread, an older claim."""
    cases, problems = rivals.results(name, tmp_path / "queues")

    assert problems == []
    assert cases >= 3


def test_each_that_can_be_taken_away_is_in_the_table():
    named = {name for name in vars(sabotage) if name.startswith("the_")}

    assert named == {without.__name__ for without, _ in safeguards.WITHOUT}
