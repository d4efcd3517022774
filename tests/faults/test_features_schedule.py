"""Schedules whose workers are killed."""

import pytest

pytest.importorskip("cronsim")


@pytest.mark.faults
def test_no_slot_is_lost_or_doubled_when_workers_and_deploys_are_killed():
    from . import features_schedule

    found = features_schedule.run(cases=60)

    print(f"{found.cases} cases, {found.killed} processes killed")
    assert found.violations == []
    assert found.killed > 3 * found.cases
