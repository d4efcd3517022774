"""Whatever hypothesis thinks of: any payload, any error, any bytes where a row should be."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbbasic_queue.errors import BadArgument
from dbbasic_queue.tsv import HEADER, escape, row, unescape

TEXT = st.text(st.characters(codec=None))  # lone surrogates too
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
GOOD = b"0123456789abcdef\tother\t{}\tpending\t1760000000\t1760000000\t0".split(b"\t")
GOOD += [b""] * (HEADER.width - len(GOOD))
CELL = st.sampled_from([b"", b"0", b"-1", b"nan", b"1e9", b"processing", b"failed", b"ok:@g", b"{"])


@st.composite
def nearly_rows(draw):
    """A good row with some of its cells replaced, added or left out."""
    cells = list(GOOD)
    for at in draw(st.lists(st.integers(0, HEADER.width), max_size=3)):
        cells[at : at + draw(st.sampled_from([0, 1, 1, 1, 1, 2]))] = [
            draw(CELL | st.binary(max_size=8))
        ]
    return b"\t".join(cells)


LINE = (st.binary(max_size=80) | nearly_rows()).map(lambda line: line.replace(b"\n", b" "))

one_file = settings(
    max_examples=400 if "--all" in sys.argv else 50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@one_file
@given(payload=JSON)
def test_p7_any_payload_that_is_accepted_comes_back_equal_on_one_line(queue, payload):
    queue.enqueue("other")
    before = Path(queue.path).read_bytes()

    try:
        job_id = queue.enqueue("note", payload)
    except BadArgument:
        # halves that JSON joins into one character are the only JSON that is refused
        assert json.loads(json.dumps(payload)) != payload
        assert Path(queue.path).read_bytes() == before
        return

    line = Path(queue.path).read_bytes()[len(before) :]
    assert queue.get(job_id).payload == payload
    assert line.count(b"\n") == len(line.decode().splitlines()) == 1


@one_file
@given(text=TEXT)
def test_any_text_fits_into_a_cell_and_comes_back(text):
    cell = escape(text)

    assert unescape(cell) == text
    assert len(f"{cell}.".encode().decode().splitlines()) == 1
    assert "\t" not in cell and "\x1b" not in cell


@one_file
@given(text=TEXT)
def test_any_text_as_an_error_comes_back(queue, text):
    def fail(payload):
        raise LookupError(text)

    job_id = queue.enqueue("note")

    queue.process_jobs({"note": fail}, 1)

    assert queue.get(job_id).error == (f"LookupError: {text}" if text else "LookupError")


@one_file
@given(junk=LINE)
def test_p19_any_bytes_as_a_row_are_kept_and_break_nothing(queue, junk):
    file = Path(queue.path)
    file.unlink(missing_ok=True)
    first = queue.enqueue("note", "first")
    with open(file, "ab") as end:
        end.write(junk + b"\n")
    second = queue.enqueue("note", "second")
    ran = []

    good = {job.id for job in queue.jobs()}
    queue.counts("type", "status")
    queue.get(junk[:16].decode(errors="replace"))
    queue.process_jobs({"note": ran.append})

    assert {first, second} <= good
    assert [queue.get(job_id).status for job_id in (first, second)] == ["completed", "completed"]
    assert ran == ["first", "second"]
    if row(junk, HEADER) is None:
        assert len(good) == 2
        assert file.read_bytes().split(b"\n")[2] == junk
