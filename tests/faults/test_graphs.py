"""Every graph of four jobs ends as it must, whichever of them fail or are killed."""

import pytest

from . import graphs

pytestmark = pytest.mark.faults


def test_every_graph_of_four_jobs_with_every_mix_of_ends_is_final_within_two_ticks(request):
    bounded = not request.config.getoption("--all-faults")

    (result,) = graphs.campaign(bounded)

    print(result.name, result.cases, "cases")
    assert result.violations == []
    assert result.cases == (1037 if bounded else 2**6 * 3**4)
