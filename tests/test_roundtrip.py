"""Whatever hypothesis thinks of: any payload, any error, any bytes where a row should be."""

import pytest

pytest.importorskip("hypothesis")

from faults import roundtrips


def test_p7_any_payload_that_is_accepted_comes_back_equal_on_one_line():
    roundtrips.hold("payload", 20)


def test_any_text_fits_into_a_cell_and_comes_back():
    roundtrips.hold("cell", 40)


def test_any_text_as_an_error_comes_back():
    roundtrips.hold("error", 20)


def test_p33_any_text_as_a_label_is_taken_as_it_is_or_refused():
    roundtrips.hold("label", 40)


def test_p4_a_part_of_a_row_is_no_job_and_is_not_glued_to_the_next_one():
    roundtrips.hold("torn", 30)


def test_p19_any_bytes_as_a_row_are_kept_and_break_nothing():
    roundtrips.hold("line", 30)


@pytest.mark.faults
def test_p4_p7_p19_more_often():
    for result in roundtrips.campaign(bounded=True):
        assert not result.violations, f"{result.name}: {result.violations[0]}"
