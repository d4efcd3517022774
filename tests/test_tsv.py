"""Cells and rows: what a payload, result, error or type holds is one line, and comes back."""

import json
import math
import re
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from dbbasic_queue.errors import BadArgument
from dbbasic_queue.tsv import COLUMNS, HEADER, MAX_DEPTH, MAX_JSON, escape, row, unescape, visible

# What would end a line somewhere, move a cursor, or not be UTF-8.
UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

NASTY = {
    "a tab": "a\tb",
    "a line feed": "a\nb",
    "a carriage return": "a\rb",
    "both": "a\r\nb\r\n",
    "NUL": "a\0b",
    "a colour": "\x1b[31mred\x1b[0m",
    "a title": "\x1b]0;owned\x07",
    "DEL": "a\x7fb",
    "C1": "a\x9b31mb\x80\x9f",
    "NEL": "a\x85b",
    "LS": "a\u2028b",
    "PS": "a\u2029b",
    "VT and FF": "a\vb\fc",
    "FS GS RS": "a\x1cb\x1dc\x1ed",
    "a high surrogate": "a\ud83db",
    "a low surrogate": "\ude00",
    "a pair, the wrong way round": "\ude00\ud83d",
    "backslashes": "\\t \\\\ \\x1b \\u2028 \\q \\",
    "a forged row": "\n0123456789abcdef\tevil\t{}\tpending\t1\t1\t0\t\t\n",
    "quotes": "\"'`",
    "every status": "pending processing completed failed cancelled",
    "other languages": "Zürich 東京 🎉 \u202egnp.exe\u202c \ufeff",
    "blanks": "  ",
    "nothing": "",
}
nasty = pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)

# A character outside the first 65,536 as JSON's \u escapes name it: JSON would join the halves.
SPLIT_PAIR = "\ud83d" + "\ude00"


def lines(queue):
    """The file's lines, in text, after a look at every character."""
    text = Path(queue.path).read_bytes().decode()
    assert UNSAFE.findall(text) == []
    assert text.endswith("\n")
    return text.split("\n")[:-1]


def raise_(problem):
    raise problem


# --- what goes in comes out


@nasty
def test_p7_a_payload_comes_back_equal_on_one_line(queue, text):
    payload = {text: [text, {"inner": text}], "plain": text}

    job_id = queue.enqueue("note", payload)

    assert queue.get(job_id).payload == payload
    assert len(lines(queue)) == 2


@nasty
def test_p35_a_result_comes_back_equal_on_one_line(queue, text):
    job_id = queue.enqueue("note")

    queue.process_jobs({"note": lambda payload: {text: [text]}})

    assert queue.get(job_id).result == {text: [text]}
    assert len(lines(queue)) == 2


@nasty
def test_p35_an_error_comes_back_equal_on_one_line(queue, text):
    job_id = queue.enqueue("note")

    queue.process_jobs({"note": lambda payload: raise_(ValueError(text))}, 1)

    assert queue.get(job_id).error == (f"ValueError: {text}" if text else "ValueError")
    assert len(lines(queue)) == 2


@nasty
def test_a_cell_of_ones_own_comes_back_equal_on_one_line(queue, text):
    job_id = queue.enqueue("note", columns={"note": text})

    queue.cancel(job_id)

    assert queue.get(job_id).cell("note") == text
    assert len(lines(queue)) == 2


def test_a_pair_of_surrogates_in_an_error_stays_a_pair(queue):
    job_id = queue.enqueue("note")

    queue.process_jobs({"note": lambda payload: raise_(ValueError(SPLIT_PAIR))}, 1)

    assert queue.get(job_id).error == f"ValueError: {SPLIT_PAIR}"


def test_a_pair_of_surrogates_in_a_result_comes_back_or_is_refused(queue):
    job_id = queue.enqueue("note")

    queue.process_jobs({"note": lambda payload: SPLIT_PAIR}, 1)

    assert queue.get(job_id).result == SPLIT_PAIR or queue.get(job_id).status == "failed"


def test_text_stays_readable_for_grep(queue):
    queue.enqueue("note", {"city": "Zürich", "path": "C:\\temp", "party": "🎉"})

    line = lines(queue)[1]

    assert '{"city": "Zürich", "path": "C:\\\\temp", "party": "🎉"}' in line


@pytest.mark.parametrize(
    "value", [None, 0, False, "", [], {}, True, -0.0, 1e308, 10**4000, 0.1, [[]], {"": None}]
)
def test_a_value_comes_back_as_itself(queue, value):
    job_id = queue.enqueue("note", value)
    queue.process_jobs({"note": lambda payload: payload})

    job = queue.get(job_id)

    assert (repr(job.payload), repr(job.result)) == (repr(value), repr(value))


def test_a_tuple_comes_back_as_a_list(queue):
    job_id = queue.enqueue("note", (1, ("a", ())))

    assert queue.get(job_id).payload == [1, ["a", []]]


def test_every_character_fits_into_a_text_cell():
    text = "".join(map(chr, (*range(0x3000), *range(0xD7F0, 0xE010), 0xFFFF, 0x10000, 0x10FFFF)))

    cell = escape(text)

    assert UNSAFE.findall(cell) == []
    assert "\t" not in cell and "\n" not in cell
    assert len(cell.splitlines()) == 1
    assert unescape(cell) == text


@pytest.mark.parametrize("cell", ["\\q", "C:\\new\\x", "\\", "\\u12", "\\xZZ"])
def test_a_backslash_that_is_none_of_ours_stays(cell):
    assert unescape(cell) == cell.replace("\\n", "\n")


def test_a_log_keeps_its_single_backslashes():
    assert visible("C:\\temp\x1b[0m\n") == "C:\\temp\\x1b[0m\\n"


# --- what is refused, and leaves no trace

REFUSED = {
    "NaN": math.nan,
    "infinity": [math.inf],
    "minus infinity": {"a": -math.inf},
    "bytes": b"abc",
    "a set": {1, 2},
    "an object": object(),
    "a function": len,
    "a decimal": Decimal("1.0"),
    "a datetime": {"at": datetime(2026, 1, 1, tzinfo=timezone.utc)},
    "a generator": (n for n in ()),
    "a number as key": {1: "a"},
    "None as key": {"a": [{None: "a"}]},
    "a bool as key": {True: "a"},
    "a tuple as key": {(1, 2): "a"},
    "bytes as key": {b"a": 1},
    "a split surrogate pair": [SPLIT_PAIR],
    "one in a key": {"a": {SPLIT_PAIR: 1}},
    "a number too long to read back": 10**5000,
}


@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED)
def test_p7_any_other_payload_is_refused_before_a_write(queue, payload):
    queue.enqueue("note")
    before = Path(queue.path).read_bytes()

    with pytest.raises(BadArgument, match="payload of 'note'"):
        queue.enqueue("note", payload)

    assert Path(queue.path).read_bytes() == before


def test_a_payload_that_holds_itself_is_refused(queue):
    payload = []
    payload.append(payload)

    with pytest.raises(BadArgument):
        queue.enqueue("note", payload)

    assert not Path(queue.path).exists()


def nested(depth):
    payload = []
    for _ in range(depth - 1):
        payload = [payload]
    return payload


def test_a_payload_may_be_nested_deeply(queue):
    payload = nested(MAX_DEPTH)

    assert queue.get(queue.enqueue("note", payload)).payload == payload


@pytest.mark.parametrize("depth", [MAX_DEPTH + 2, 5_000, 200_000])
def test_p7_a_payload_nested_too_deeply_is_refused(queue, depth):
    with pytest.raises(BadArgument, match="nested"):
        queue.enqueue("note", nested(depth))

    assert not Path(queue.path).exists()


@pytest.mark.parametrize("char", ["a", "ä", "\x1b"], ids=["plain", "two bytes", "escaped"])
def test_p7_a_payload_of_one_mebibyte_is_the_longest(queue, char):
    size = len(json.dumps(char, ensure_ascii=False).encode()) - 2
    longest = char * ((MAX_JSON - 2) // size) + "." * ((MAX_JSON - 2) % size)

    shorter, exact = queue.enqueue_many([("note", longest[1:]), ("note", longest)])
    with pytest.raises(BadArgument, match="1048577"):
        queue.enqueue("note", longest + ".")

    assert queue.get(shorter).payload == longest[1:]
    assert queue.get(exact).payload == longest
    assert len(lines(queue)) == 3


@pytest.mark.parametrize("result", [*REFUSED.values(), "a" * MAX_JSON], ids=[*REFUSED, "too long"])
def test_a_result_that_is_not_json_is_a_failed_attempt_or_comes_back_equal(queue, result):
    bad, good = queue.enqueue("bad"), queue.enqueue("good")

    queue.process_jobs({"bad": lambda payload: result, "good": lambda payload: 1}, 1)

    job = queue.get(bad)
    if job.status == "failed":
        assert "the result" in job.error
    else:  # what json itself turns into something else, such as {1: "a"}
        assert job.result == json.loads(json.dumps(result))
    assert queue.get(good).status == "completed"
    assert len(lines(queue)) == 3


@pytest.mark.parametrize("name", ["a", "send_email", "app.tasks:mail-2", "A" * 100, "0"])
def test_a_type_is_letters_digits_and_four_signs(queue, name):
    assert queue.get(queue.enqueue(name)).type == name


@pytest.mark.parametrize(
    "name",
    ["", "a" * 101, "a b", "a\tb", "a\n", "\na", "a/b", "é", "１", "\0", "\x1b[0m", None, 5, b"a"],
)
def test_p33_any_other_type_is_refused_before_a_write(queue, name):
    with pytest.raises(BadArgument, match="job_type="):
        queue.enqueue(name)

    assert not Path(queue.path).exists()


@pytest.mark.parametrize("argument", ["queue", "group"])
@pytest.mark.parametrize(
    "label", ["", "a" * 101, "a b", "a\tb", "a\nb", "a:b", "@a", "a~1", "ä", 5, b"a"]
)
def test_a_label_that_could_be_something_else_is_refused(queue, argument, label):
    with pytest.raises(BadArgument, match=f"{argument}="):
        queue.enqueue("note", **{argument: label})

    assert not Path(queue.path).exists()


def test_an_error_is_cut_before_it_fills_the_file(queue):
    job_id = queue.enqueue("note")

    queue.process_jobs({"note": lambda payload: raise_(ValueError("long " * 100_000))}, 1)

    assert len(queue.get(job_id).error) == 2000


# --- which lines are rows

GOOD = b"0123456789abcdef\tnote\t{}\tpending\t1760000000\t1760000000\t0\t\t".split(b"\t")
WIDE = GOOD + [b""] * (HEADER.width - len(GOOD))


def with_cell(at, cell):
    return b"\t".join([*WIDE[:at], cell, *WIDE[at + 1 :]])


BAD_LINES = {
    "an empty line": b"",
    "text": b"# a note to myself",
    "a cell too few": b"\t".join(WIDE[:-1]),
    "a cell too many": b"\t".join([*WIDE, b""]),
    "eight cells": b"\t".join(GOOD[:-1]),
    "no id": with_cell(0, b""),
    "no type": with_cell(1, b""),
    "a status nobody knows": with_cell(3, b"done"),
    "a status in capitals": with_cell(3, b"PENDING"),
    "no status": with_cell(3, b""),
    "created_at is text": with_cell(4, b"yesterday"),
    "created_at is empty": with_cell(4, b""),
    "run_at is not finite": with_cell(5, b"nan"),
    "run_at is infinite": with_cell(5, b"inf"),
    "attempts is text": with_cell(6, b"x"),
    "priority is text": with_cell(HEADER.index["priority"], b"high"),
    "started_at is text": with_cell(HEADER.index["started_at"], b"now"),
    "not UTF-8": with_cell(2, b'"\xff\xfe"'),
    "half a character": with_cell(2, '"ü"'.encode()[:2]),
    "a carriage return": b"\t".join(WIDE) + b"\r",
    "NULs": bytes(40),
}


def test_the_rows_that_the_bad_lines_are_made_of_are_good():
    assert row(b"\t".join(GOOD), HEADER) == row(b"\t".join(WIDE), HEADER) == WIDE


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_p19_a_line_that_is_no_row_is_not_read_as_one(line):
    assert row(line, HEADER) is None


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_p19_a_bad_line_is_kept_byte_for_byte_and_breaks_no_verb(queue, line):
    first = queue.enqueue("note", "first")
    with open(queue.path, "ab") as file:
        file.write(line + b"\n")
    second = queue.enqueue("note", "second")
    cancelled = queue.enqueue("note", "third")
    ran = []

    assert [job.id for job in queue.jobs()] == [first, second, cancelled]
    assert [job.id for job in queue.jobs(newest=True)] == [cancelled, second, first]
    assert queue.counts("status") == {"pending": 3}
    assert queue.cancel(cancelled)
    assert queue.cancel(GOOD[0].decode()) is False
    assert queue.get(GOOD[0].decode()) is None
    queue.process_jobs({"note": ran.append})
    assert queue.purge(ids=[cancelled]) == 1
    assert queue.retry() == []

    assert ran == ["first", "second"]
    assert Path(queue.path).read_bytes().split(b"\n")[2] == line


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_p19_a_bad_line_is_kept_byte_for_byte_when_the_file_gets_a_column(queue, line):
    queue.enqueue("note", "first")
    with open(queue.path, "ab") as file:
        file.write(line + b"\n")

    job_id = queue.enqueue("note", "second", columns={"colour": "red"})

    assert Path(queue.path).read_bytes().split(b"\n")[2] == line
    assert queue.get(job_id).cell("colour") == "red"


@pytest.mark.parametrize(
    "number",
    ["1_760_000_000", " 1760000000", "+1760000000", "1.76e9", "-5", "1760000000.", "01760000000"],
)
@pytest.mark.parametrize("column", [4, 5])
def test_a_row_that_counts_as_pending_and_is_due_runs(queue, column, number):
    """Both Python and the search for due rows can read its numbers, or it is no row."""
    queue.enqueue("other")
    with open(queue.path, "ab") as file:
        file.write(with_cell(column, number.encode()) + b"\n")
    ran = []

    counted = queue.counts("type").get("note", 0)
    queue.process_jobs({"note": ran.append, "other": str})

    assert len(ran) == counted


def test_numbers_with_a_fraction_are_read_since_the_old_package_wrote_some(queue):
    queue.enqueue("other")
    with open(queue.path, "ab") as file:
        file.write(b"\t".join([*GOOD[:4], b"1760000000.25", b"1760000000.75", *GOOD[6:]]) + b"\n")

    job = queue.get(GOOD[0].decode())

    assert (job.created_at, job.run_at) == (1760000001, 1760000001)


def test_a_payload_that_a_hand_edit_spoilt_hurts_only_its_own_job(queue):
    first, second = queue.enqueue("note", {"n": 1}), queue.enqueue("note", {"n": 2})
    file = Path(queue.path)
    file.write_bytes(file.read_bytes().replace(b'{"n": 1}', b'{"n": 1'))
    ran = []

    queue.process_jobs({"note": ran.append})
    queue.process_jobs({"note": ran.append})

    assert ran == [{"n": 2}]
    assert queue.get(first).status == "pending"
    assert queue.get(second).status == "completed"
    assert b'\t{"n": 1\t' in file.read_bytes()


def test_p4_a_row_cut_anywhere_is_no_job_and_does_not_swallow_the_next_one(queue):
    first = queue.enqueue("note", "first", columns={"colour": "red"})
    cut_off = queue.enqueue("note", ["cut", "off"], group="g", columns={"colour": "red"})
    file = Path(queue.path)
    whole = file.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    tabs = whole[start:].count(b"\t")

    for cut in range(start, len(whole) - 1):
        file.write_bytes(whole[:cut])
        torn = [job.id for job in queue.jobs()]
        after = queue.enqueue("note", "after")

        survives = [cut_off] if whole[start:cut].count(b"\t") == tabs else []
        assert torn == [first]
        assert [job.id for job in queue.jobs()] == [first, *survives, after]
        for job_id in survives:
            assert queue.get(job_id).cells == row(whole[start:-1], queue.get(first).header)


@pytest.mark.parametrize("priority", [b"-5.5", b"-", b"--5", b"5.5", b"-5", b"-1" + b"0" * 19, b""])
@pytest.mark.parametrize("started_at", [b"", b"1760000000.123"])
def test_a_row_with_times_is_as_strict_as_one_without(priority, started_at):
    cells = dict.fromkeys(COLUMNS, b"")
    cells |= {"id": b"a", "type": b"b", "status": b"failed", "created_at": b"1", "run_at": b"1"}
    cells |= {"attempts": b"1", "priority": priority, "started_at": started_at}

    accepted = row(b"\t".join(cells.values()), HEADER) is not None

    assert accepted == (priority in (b"5.5", b"-5", b""))
