"""Every time zone that changes its clocks: one run a slot."""

import pytest

pytest.importorskip("cronsim")


@pytest.mark.faults
def test_one_run_a_slot_in_every_zone_that_changes_its_clocks():
    from . import zones

    tally = zones.campaign()

    print(f"{tally.zones} zones, {tally.changes} changes, {tally.slots:,} slots, {tally.runs} runs")
    assert tally.violations == []
    assert tally.zones > 100
    assert tally.runs > 10 * tally.changes
