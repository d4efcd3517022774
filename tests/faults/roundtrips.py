"""Whatever hypothesis thinks of, there and back: any JSON, any text, any bytes in place of a row,
any part of a row with the next one behind it.
"""

import json
import logging
import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from dbbasic_queue import Queue
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.tsv import HEADER, escape, row, unescape

from .killed import MEMORY
from .results import Result

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
LABELS = ("job_type", "queue", "group", "column")


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


def payload(queue, value):
    """A payload comes back equal, on one line, and so does the result; any other is refused."""
    file = Path(queue.path)
    queue.enqueue("other")
    before = file.read_bytes()

    try:
        id = queue.enqueue("note", value)
    except BadArgument:
        # halves that JSON joins into one character are the only JSON that is refused
        assert json.loads(json.dumps(value)) != value
        assert file.read_bytes() == before
        return

    line = file.read_bytes()[len(before) :]
    assert same(queue.get(id).payload, value)
    assert line.count(b"\n") == len(line.decode().splitlines()) == 1
    queue.process_jobs({"note": lambda payload: payload})
    assert same(queue.get(id).result, value)
    assert same(queue.get_job(id)["result"], value)
    assert file.read_bytes().count(b"\n") == len(file.read_text().splitlines()) == 3


def same(one, other):
    """Equal, and of the same types: 1 is not True, nor 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def cell(queue, text):
    """Any text fits into a cell and comes back."""
    inside = escape(text)

    assert unescape(inside) == text
    assert len(f"{inside}.".encode().decode().splitlines()) == 1
    assert "\t" not in inside and "\x1b" not in inside
    id = queue.enqueue("note", columns={"mine": text})
    assert queue.get(id).cell("mine") == text


def error(queue, text):
    """Any text as an error comes back."""

    def fail(payload):
        raise LookupError(text)

    id = queue.enqueue("note")

    queue.process_jobs({"note": fail}, 1)

    assert queue.get(id).error == (f"LookupError: {text}" if text else "LookupError")


def label(queue, given):
    """A label is taken as it is or refused, before anything is written."""
    what, text = given
    options = {"job_type": "note", what: text}
    if what == "column":
        options = {"job_type": "note", "columns": {text: "x"}}

    try:
        id = queue.enqueue(**options)
    except BadArgument:
        assert not Path(queue.path).exists()
        return

    job = queue.get(id)
    found = {"job_type": job.type, "queue": job.queue, "group": job.group}
    assert job.cell(text) == "x" if what == "column" else found[what] == text
    assert len(Path(queue.path).read_text().splitlines()) == 2


def torn(queue, given):
    """A part of a row is no job, nor is it glued to the next one; with all its tabs it is whole."""
    value, group, columns, cut = given
    file, kept = Path(queue.path), Path(f"{queue.path}.d/torn.tsv")
    first = queue.enqueue("note", "first", columns=columns)
    before = file.read_bytes()
    try:
        queue.enqueue("note", value, group=group, columns=columns)
    except BadArgument:
        return
    row = file.read_bytes()[len(before) :]
    part = row[: min(cut, len(row) - 1)]
    file.write_bytes(before + part)

    assert [job.id for job in queue.jobs()] == [first]
    last = queue.enqueue("note", "last")

    jobs = list(queue.jobs())
    if part == row[:-1]:
        assert [job.id for job in jobs] == [first, row[:16].decode(), last]
        assert same(jobs[1].payload, value) and jobs[1].group == group
    else:
        assert [job.id for job in jobs] == [first, last]
        assert not part or kept.read_bytes() == part + b"\n"


def line(queue, junk):
    """Any bytes as a row are kept, never run, and break nothing."""
    file = Path(queue.path)
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
    assert [queue.get(id).status for id in (first, second)] == ["completed", "completed"]
    assert ran == ["first", "second"]
    if row(junk, HEADER) is None:
        assert len(good) == 2
        assert file.read_bytes().split(b"\n")[2] == junk


TRIPS = {
    "payload": (payload, JSON),
    "cell": (cell, TEXT),
    "error": (error, TEXT),
    "label": (label, st.tuples(st.sampled_from(LABELS), TEXT | st.text("aZ9_.-:", max_size=5))),
    "torn": (
        torn,
        st.tuples(
            JSON,
            st.sampled_from([None, "g"]),
            st.sampled_from([{}, {"mine": ""}, {"mine": "ä"}]),
            st.integers(0, 150) | st.just(1 << 20),
        ),
    ),
    "line": (line, LINE),
}


def hold(name, examples, chance=None):
    """Let hypothesis look for what does not come back; without `chance` always the same."""
    check, values = TRIPS[name]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        queue = Queue(Path(folder, "queue.tsv"), sync="off")

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=chance is None,
            suppress_health_check=list(HealthCheck),
        )
        @given(values)
        def one(value):
            for path in Path(folder).rglob("*.tsv"):
                path.unlink()
            check(queue, value)

        logger = logging.getLogger("dbbasic_queue")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            (one if chance is None else seed(chance)(one))()
        finally:
            logger.setLevel(level)


def campaign(bounded):
    """Yield a Result for each way there and back."""
    examples = 400 if bounded else 10_000
    chance = 1 if bounded else random.SystemRandom().getrandbits(32)
    for name in TRIPS:
        violations = []
        try:
            hold(name, examples, chance)
        except Exception as problem:
            notes = "\n".join(getattr(problem, "__notes__", []))
            violations.append(f"seed {chance}: {problem!r}\n{notes}")
        yield Result(f"round trip: {name}, seed {chance}", examples, violations)
