"""Changes by hand: what was typed in a copy is applied, or refused by name and kept."""

import io
import json
import os
import random
import shlex
import signal
import stat
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from dbbasic_queue import Queue, byhand, cli
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.tsv import HEADER

NINE = HEADER.columns[:9]
TIMES = {"created_at": "1", "run_at": "1"}


def content(queue):
    return Path(queue.path).read_bytes()


def copied(queue, **chosen):
    file = io.BytesIO()
    byhand.copy(queue, file, **chosen)
    return file.getvalue()


class Sheet:
    """The lines of a copy, as somebody at an editor changes them."""

    def __init__(self, text):
        header, *rows = text.decode().removesuffix("\n").split("\n")
        self.columns = header.split("\t")
        self.rows = [line.split("\t") for line in rows]

    def row(self, job_id):
        return next(cells for cells in self.rows if cells[0] == job_id)

    def set(self, job_id, **cells):
        for column, text in cells.items():
            self.row(job_id)[self.columns.index(column)] = text
        return self

    def drop(self, *ids):
        self.rows = [cells for cells in self.rows if cells[0] not in ids]
        return self

    def add(self, **cells):
        self.rows.append([cells.get(column, "") for column in self.columns])
        return self

    def text(self):
        lines = ["\t".join(cells) for cells in (self.columns, *self.rows)]
        return "".join(line + "\n" for line in lines).encode()


def edited(queue, change, meanwhile=lambda: None):
    """Apply what `change` makes of a copy of all rows; `meanwhile` happens in between."""
    before = copied(queue)
    sheet = Sheet(before)
    change(sheet)
    meanwhile()
    return byhand.apply(queue, before, sheet.text())


def refusals(done):
    return {one.line: one.why for one in done.refused}


def edit(queue, job_id, **cells):
    with queue.edit() as e:
        e.change(e.get(job_id), **cells)


# --- the copy


def test_the_copy_is_the_rows_as_the_file_has_them(queue):
    ids = queue.enqueue_many([("mail", {"to": "Zürich\t\x1b"}), ("note", "x"), ("mail", 3)])
    edit(queue, ids[1], error="a\\b\nc", tenant="acme")
    with open(queue.path, "ab") as file:
        file.write(b"# a remark\n" + b"0123456789abcdef\tmail\t{}\tpending\t1\t1\t0\t\t\n")
    lines = content(queue).split(b"\n")

    assert copied(queue).split(b"\n")[:4] == lines[:4]
    assert copied(queue).split(b"\n")[4].startswith(lines[5])
    assert len(copied(queue).split(b"\n")) == 6
    assert copied(queue, wanted=lambda job: job.type == "note").split(b"\n")[1:] == [lines[2], b""]
    assert copied(queue, ids=[ids[2], ids[0], ids[2]]).split(b"\n")[1:3] == [lines[3], lines[1]]


def test_rows_that_are_processing_are_left_out_and_counted(queue):
    waits, runs = queue.enqueue_many([("mail", 1), ("mail", 2)])
    edit(queue, runs, status="processing", worker="w.1")
    file = io.BytesIO()

    made = byhand.copy(queue, file, ids=[runs, "nobody", "a\tb", waits])

    assert (made.rows, made.running, made.unknown) == (1, 1, ["nobody", "a\tb"])
    assert [cells[0] for cells in Sheet(file.getvalue()).rows] == [waits]


def test_an_empty_queue_has_a_header_to_write_under(queue):
    Path(queue.path).parent.mkdir()
    Path(queue.path).touch()

    done = edited(queue, lambda sheet: sheet.add(type="mail", payload="7"))

    (job_id,) = done.added
    assert queue.get(job_id).payload == 7


# --- what is applied


def test_cells_that_differ_are_applied_and_nothing_else_is_touched(queue):
    ids = queue.enqueue_many([("mail", n) for n in range(5)])
    with open(queue.path, "ab") as file:
        file.write(b"# a remark\n")
    before = content(queue).split(b"\n")

    done = edited(queue, lambda sheet: sheet.set(ids[3], type="note", payload='{"a":1}',
                                                 run_at="4000000000", priority="-5", timeout="2.5",
                                                 backoff="linear:1:2", group="g"))  # fmt: skip

    assert (done.changed, done.added, done.deleted, done.refused) == ([ids[3]], [], [], [])
    job = queue.get(ids[3])
    assert (job.type, job.payload, job.run_at, job.priority) == ("note", {"a": 1}, 4 * 10**9, -5)
    assert (job.timeout, job.backoff, job.group) == (2.5, "linear:1:2", "g")
    assert [line for line in content(queue).split(b"\n") if line not in before] == [
        content(queue).split(b"\n")[4]
    ]


def test_nothing_is_written_where_nothing_differs(queue):
    ids = queue.enqueue_many([("mail", n) for n in range(3)])
    seen = os.stat(queue.path)

    done = edited(queue, lambda sheet: sheet.rows.reverse())

    assert vars(done) == vars(byhand.Applied())
    assert os.stat(queue.path) == seen
    assert len(ids) == 3


def test_line_ends_of_another_system_are_stripped(queue):
    first, second = queue.enqueue_many([("mail", 1), ("mail", 2)])
    before = copied(queue)
    typed = Sheet(before).set(second, priority="4").add(type="note").text()

    done = byhand.apply(queue, before, typed.replace(b"\n", b"\r\n"))

    assert (done.changed, len(done.added), done.refused) == ([second], 1, [])
    assert b"\r" not in content(queue)
    assert queue.get(first)


def test_empty_lines_say_nothing(queue):
    job_id = queue.enqueue("mail")
    before = copied(queue)
    typed = Sheet(before).set(job_id, priority="4").text()

    done = byhand.apply(queue, before, typed + b"\n\r\n\n")

    assert (done.changed, done.refused) == ([job_id], [])


def test_a_new_status_brings_its_time(queue):
    waits, failed = queue.enqueue_many([("mail", 1), ("mail", 2)])
    edit(queue, failed, status="failed", finished_at=5.0, error="boom", attempts=3)

    edited(queue, lambda sheet: sheet.set(waits, status="cancelled").set(failed, status="pending"))

    assert abs(queue.get(waits).finished_at - time.time()) < 60
    assert queue.get(failed).finished_at is None
    assert (queue.get(failed).attempts, queue.get(failed).error) == (3, "boom")


def test_what_waits_for_a_job_that_is_ended_by_hand_is_settled(queue):
    parent = queue.enqueue("mail")
    child = queue.enqueue("mail", after=parent)
    grandchild = queue.enqueue("mail", after=child)
    other = queue.enqueue("mail", after=f"notok:{parent}")

    done = edited(queue, lambda sheet: sheet.set(parent, status="failed"))

    assert done.cancelled == [child, grandchild]
    assert queue.get(child).error == f"never ok: job {parent}"
    assert queue.get(other).status == "pending"

    edited(queue, lambda sheet: sheet.set(parent, status="completed"))

    assert [queue.get(one).status for one in (child, grandchild)] == ["pending"] * 2
    assert queue.get(other).status == "cancelled"


def test_a_line_with_an_empty_id_is_a_new_job(queue):
    parent = queue.enqueue("mail", columns={"tenant": "a"})

    done = edited(queue, lambda sheet: sheet
                  .add(type="report", payload='["x"]', run_at="4000000000", queue="high",
                       priority="3", max_attempts="2", timeout="9", after=f"any:{parent}",
                       group="g", tenant="acme", **{"created_at": "7"})
                  .add(type="note", status="pending", attempts="0"))  # fmt: skip

    first, second = map(queue.get, done.added)
    assert parent < first.id < second.id
    assert (first.type, first.payload, first.run_at, first.queue) == ("report", ["x"], 4 * 10**9,
                                                                      "high")  # fmt: skip
    assert (first.priority, first.max_attempts, first.timeout, first.group) == (3, 2, 9, "g")
    assert (first.after, first.cell("tenant")) == (f"any:{parent}", "acme")
    assert abs(first.created_at - time.time()) < 60
    assert (second.type, second.payload, second.status) == ("note", None, "pending")
    assert second.is_due(time.time())


def test_a_new_line_may_have_the_nine_cells_of_the_contract(queue):
    queue.enqueue("mail")
    before = copied(queue)

    done = byhand.apply(queue, before, before + b"\tmail\t{}\t\t\t\t\t\t\n")

    assert queue.get(done.added[0]).payload == {}


def test_a_new_job_may_not_fill_the_last_column(queue):
    """A torn line that has all its tabs is taken for whole: so its last cell must be empty."""
    Path(queue.path).parent.mkdir()
    Path(queue.path).write_text("\t".join((*NINE, "note")) + "\n")

    done = edited(queue, lambda sheet: sheet.add(type="mail", note="by hand"))

    assert content(queue).split(b"\n")[0].endswith(b"\tfinished_at")
    assert queue.get(done.added[0]).cell("note") == "by hand"


def test_a_file_of_nine_columns_is_edited_too(queue):
    Path(queue.path).parent.mkdir()
    row = "0123456789abcdef\tmail\t{}\tpending\t1\t1\t0\t\t"
    Path(queue.path).write_text("\t".join(NINE) + f"\n{row}\n")

    done = edited(queue, lambda sheet: sheet.set("0123456789abcdef", status="cancelled"))

    assert done.changed == ["0123456789abcdef"]
    assert queue.get("0123456789abcdef").finished_at


def test_listeners_are_told(queue):
    told = []
    queue = Queue(queue.path, listeners=[lambda event, job: told.append((event, job.id))])
    parent, failed, gone = queue.enqueue_many([("mail", 1), ("mail", 2), ("mail", 3)])
    child = queue.enqueue("mail", after=parent)
    edit(queue, failed, status="failed")
    told.clear()

    done = edited(queue, lambda sheet: sheet.set(parent, status="cancelled").drop(gone)
                  .set(failed, status="pending").add(type="new"))  # fmt: skip

    assert told == [("enqueued", done.added[0]), ("cancelled", parent), ("cancelled", child),
                    ("retried", failed), ("purged", gone)]  # fmt: skip


# --- what happened meanwhile


def test_a_row_that_changed_meanwhile_is_refused_and_shown(queue):
    mine, both = queue.enqueue_many([("mail", 1), ("mail", 2)])

    done = edited(
        queue,
        lambda sheet: sheet.set(mine, priority="3").set(both, priority="4", type="note"),
        lambda: edit(queue, both, priority=9, error="x"),
    )

    assert done.changed == [mine]
    (refused,) = done.refused
    assert (refused.id, refused.line, refused.why) == (both, 3, "was changed meanwhile")
    assert refused.cells == [("type", "mail", "note"), ("error", "x", ""), ("priority", "9", "4")]
    assert refused.text.startswith(both.encode() + b"\tnote\t")
    assert (queue.get(both).type, queue.get(both).priority) == ("mail", 9)


def test_what_somebody_else_changed_alike_is_no_quarrel(queue):
    job_id = queue.enqueue("mail")

    done = edited(
        queue,
        lambda sheet: sheet.set(job_id, priority="3"),
        lambda: edit(queue, job_id, priority=3),
    )

    assert (done.changed, done.refused) == ([job_id], [])


@pytest.mark.parametrize("change", [lambda s, id: s.set(id, priority="3"), Sheet.drop])
def test_a_row_that_runs_meanwhile_is_refused(queue, change):
    job_id = queue.enqueue("mail")
    before = copied(queue)
    typed = change(Sheet(before), job_id).text()
    answers = []

    def handler(payload):
        answers.append(byhand.apply(queue, before, typed))

    queue.process_jobs({"mail": handler})

    ((refused,),) = (done.refused for done in answers)
    assert refused.id == job_id
    assert refused.why.startswith("runs now, by w-")
    assert queue.get(job_id).status == "completed"


def test_a_row_that_is_gone_meanwhile_is_refused(queue):
    changed, deleted = queue.enqueue_many([("mail", 1), ("mail", 2)])

    done = edited(
        queue,
        lambda sheet: sheet.set(changed, priority="3").drop(deleted),
        lambda: queue.purge(ids=[changed, deleted]),
    )

    assert [(one.id, one.line) for one in done.refused] == [(deleted, None), (changed, 2)]
    assert {one.why for one in done.refused} == {"is gone: deleted or archived meanwhile"}
    assert list(queue.jobs()) == []


def test_rows_added_meanwhile_stay(queue):
    first = queue.enqueue("mail")
    added = []

    done = edited(
        queue,
        lambda sheet: sheet.drop(first),
        lambda: added.append(queue.enqueue("note", columns={"tenant": "acme"})),
    )

    assert done.deleted == [first]
    assert [job.id for job in queue.jobs()] == added


def test_a_header_that_was_widened_meanwhile_changes_no_row(queue):
    job_id = queue.enqueue("mail")

    done = edited(
        queue,
        lambda sheet: sheet.set(job_id, priority="3").add(type="note"),
        lambda: queue.enqueue("mail", columns={"tenant": "acme"}),
    )

    assert (done.changed, done.refused, len(done.added)) == ([job_id], [], 1)
    assert queue.get(job_id).priority == 3


def test_a_queue_that_is_gone_is_not_made_again(queue):
    job_id, gone = queue.enqueue_many([("mail", 1), ("mail", 2)])

    done = edited(
        queue,
        lambda sheet: sheet.set(job_id, priority="3").drop(gone).add(type="note"),
        lambda: os.unlink(queue.path),
    )

    assert [one.why for one in done.refused] == ["the queue file is gone"] * 3
    assert not os.path.exists(queue.path)


def test_a_queue_with_other_columns_takes_nothing(queue):
    job_id = queue.enqueue("mail", columns={"tenant": "acme"})
    plain = b"\t".join(name.encode() for name in NINE) + b"\n"

    done = edited(
        queue,
        lambda sheet: sheet.set(job_id, tenant="other"),
        lambda: Path(queue.path).write_bytes(plain),
    )

    assert refusals(done) == {2: "the queue has other columns now"}
    assert content(queue) == plain


# --- what is refused


@pytest.mark.parametrize(
    ("column", "text", "says"),
    [
        ("type", "", "type"),
        ("type", "a b", "letters, digits"),
        ("type", "x" * 101, "1 to 100"),
        ("payload", "{", "payload: is not JSON"),
        ("payload", "NaN", "not JSON"),
        ("payload", "[" * 300 + "]" * 300, "deep"),
        ("payload", '"\u2028"', "control character"),
        ("result", "yes", "result: is not JSON"),
        ("status", "", "none of pending"),
        ("status", "done", "'done' is none of"),
        ("status", "processing", "only a worker"),
        ("created_at", "", "created_at"),
        ("created_at", "now", "no Unix time"),
        ("run_at", "2030-01-31", "no Unix time"),
        ("run_at", "-1", "no Unix time"),
        ("run_at", "999999999999", "9999"),
        ("attempts", "", "attempts"),
        ("attempts", "-1", "no whole number"),
        ("attempts", "two", "no whole number"),
        ("error", "\x1b[31m", "control character"),
        ("error", "a\x0bb", "control character"),
        ("queue", "a b", "queue="),
        ("priority", "high", "no whole number"),
        ("priority", "9999999999", "priority="),
        ("max_attempts", "0", "max_attempts="),
        ("timeout", "5m", "no number of seconds"),
        ("timeout", "0", "timeout="),
        ("backoff", "often", "backoff="),
        ("after", "whenever", "after="),
        ("after", "0123456789abcdef", "after="),
        ("after", "ok:0123456789abcdef", "no job has the id"),
        ("after", "ok:@nobody", "no job is in the group"),
        ("group", "a b", "group="),
        ("started_at", "then", "no Unix time"),
        ("finished_at", "1e9", "no Unix time"),
        ("tenant", "\x85", "control character"),
    ],
)
def test_a_cell_that_enqueue_would_refuse_is_refused_by_name(queue, column, text, says):
    other, job_id = queue.enqueue_many([{"job_type": "a", "columns": {"tenant": "x"}}, ("b", 1)])

    done = edited(queue, lambda sheet: sheet.set(job_id, **{column: text}).set(other, type="c"))

    assert (done.changed, [one.id for one in done.refused]) == ([other], [job_id])
    assert says in refusals(done)[3]
    assert (queue.get(job_id).type, queue.get(job_id).status) == ("b", "pending")


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({}, "type"),
        ({"type": "a b"}, "letters, digits"),
        ({"type": "mail", "payload": "{"}, "payload"),
        ({"type": "mail", "status": "failed"}, "a new job is pending"),
        ({"type": "mail", "status": "processing"}, "a new job is pending"),
        ({"type": "mail", "attempts": "2"}, "attempts"),
        ({"type": "mail", "result": "1"}, "result"),
        ({"type": "mail", "worker": "w.1"}, "worker"),
        ({"type": "mail", "finished_at": "1"}, "finished_at"),
        ({"type": "mail", "after": "ok:0123456789abcdef"}, "no job has the id"),
        ({"type": "mail", "backoff": "often"}, "backoff"),
    ],
)
def test_a_new_line_that_is_no_new_job_is_refused(queue, cells, says):
    job_id = queue.enqueue("mail")

    done = edited(queue, lambda sheet: sheet.set(job_id, priority="1").add(**cells))

    assert (done.changed, done.added) == ([job_id], [])
    assert says in refusals(done)[3]
    assert len(list(queue.jobs())) == 1


def test_what_stood_there_before_is_not_judged(queue):
    job_id = queue.enqueue("mail")
    file = Path(queue.path)
    file.write_bytes(content(queue).replace(b"\tmail\tnull\t", b"\told type\t{not json\t"))

    done = edited(queue, lambda sheet: sheet.set(job_id, priority="1"))

    assert (done.changed, done.refused) == ([job_id], [])
    assert queue.get(job_id).type == "old type"


def test_an_id_that_was_changed_neither_renames_nor_deletes(queue):
    ids = queue.enqueue_many([("mail", n) for n in range(5)])

    done = edited(queue, lambda sheet: sheet.set(ids[2], id="0123456789abcdef").drop(ids[4]))

    assert done.deleted == [ids[4]]
    assert [(one.id, one.line) for one in done.refused] == [(ids[2], None), ("0123456789abcdef", 4)]
    assert [job.id for job in queue.jobs()] == ids[:4]


def test_where_lines_were_sorted_a_changed_id_deletes_nothing(queue):
    ids = queue.enqueue_many([("mail", n) for n in range(4)])

    def change(sheet):
        sheet.set(ids[1], id="0123456789abcdef").drop(ids[0]).rows.reverse()

    done = edited(queue, change)

    assert done.deleted == []
    assert [job.id for job in queue.jobs()] == ids


def test_an_id_that_stands_twice_is_refused(queue):
    same, both = queue.enqueue_many([("mail", 1), ("mail", 2)])

    def change(sheet):
        sheet.rows += [list(sheet.row(same)), list(sheet.row(both)), list(sheet.row(same))]
        sheet.set(both, priority="1")  # the first of the two
        sheet.rows[-1][1] = "note"
        sheet.rows[-2][1] = "note"

    done = edited(queue, change)

    assert sorted(refusals(done)) == [3, 4, 5, 6]
    assert set(refusals(done).values()) == {"its id stands on several lines; a new job has none"}
    assert [(job.id, job.type, job.priority) for job in queue.jobs()] == [
        (same, "mail", 0), (both, "mail", 0)]  # fmt: skip


def test_an_id_that_the_queue_itself_has_twice_is_left_alone(queue):
    queue.enqueue("mail")
    row = b"0123456789abcdef\tmail\t%d\tpending\t1\t1\t0\t\t\n"
    with open(queue.path, "ab") as file:
        file.write(row % 1 + row % 2)
    before = content(queue)

    unchanged = edited(queue, lambda sheet: sheet)
    changed = edited(queue, lambda sheet: sheet.set("0123456789abcdef", type="note"))
    deleted = edited(queue, lambda sheet: sheet.drop("0123456789abcdef"))

    assert [len(done.refused) for done in (unchanged, changed, deleted)] == [0, 1, 0]
    assert content(queue) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b"\t", b"    "),
        lambda line: line.replace(b"\t", b" ", 1),
        lambda line: line + b"\t",
        lambda line: line.rpartition(b"\t")[0],
        lambda line: line[:16],
    ],
)
def test_a_line_with_another_number_of_cells_is_refused_and_its_job_stays(queue, spoil):
    ids = queue.enqueue_many([("mail", n) for n in range(4)])
    before = copied(queue)
    lines = Sheet(before).set(ids[3], priority="1").drop(ids[0]).text().split(b"\n")
    lines[2] = spoil(lines[2])

    done = byhand.apply(queue, before, b"\n".join(lines))

    assert (done.changed, done.deleted) == ([ids[3]], [ids[0]])
    assert [(one.id, one.line, one.text) for one in done.refused] == [(ids[2], 3, lines[2])]
    assert "cells, where the header has 19" in done.refused[0].why
    assert [job.id for job in queue.jobs()] == ids[1:]


@pytest.mark.parametrize("spoil", [b"", b"id\n", b"\xef\xbb\xbf", b"\x00\xff garbage \t\n" * 50])
def test_with_another_header_nothing_is_applied(queue, spoil):
    job_id = queue.enqueue("mail")
    before, seen = copied(queue), content(queue)
    typed = Sheet(before).set(job_id, priority="1").text()

    with pytest.raises(BadArgument, match="line 1"):
        byhand.apply(queue, before, spoil + typed[4:] if spoil else b"")

    assert content(queue) == seen


def test_a_text_that_was_cut_off_deletes_nothing(queue):
    ids = queue.enqueue_many([("mail", "x" * 50) for n in range(6)])
    before, seen = copied(queue), content(queue)
    header = before.index(b"\n")

    for size in range(header, len(before)):
        done = byhand.apply(queue, before, before[:size])
        cut_at_a_line = before[:size].endswith(b"\n")
        assert not done.changed and not done.added
        if not cut_at_a_line:
            assert done.deleted == []
            assert content(queue) == seen
        else:  # that is how a deletion looks
            assert done.deleted == ids[before[:size].count(b"\n") - 1 :]
            Path(queue.path).write_bytes(seen)


def test_a_last_line_without_its_end_is_a_line(queue):
    first, last = queue.enqueue_many([("mail", 1), ("mail", 2)])
    before = copied(queue)
    typed = Sheet(before).set(last, priority="1").text()

    done = byhand.apply(queue, before, typed.removesuffix(b"\n"))

    assert (done.changed, done.refused) == ([last], [])
    assert queue.get(first)


# --- deleting


def test_a_deleted_line_deletes_its_job(queue):
    ids = queue.enqueue_many([("mail", n) for n in range(4)])
    edit(queue, ids[1], status="completed")

    done = edited(queue, lambda sheet: sheet.drop(ids[1], ids[2]))

    assert (done.deleted, done.refused) == ([ids[1], ids[2]], [])
    assert [job.id for job in queue.jobs()] == [ids[0], ids[3]]


def test_a_deleted_row_that_changed_meanwhile_stays(queue):
    job_id = queue.enqueue("mail")

    done = edited(queue, lambda s: s.drop(job_id), lambda: edit(queue, job_id, priority=3))

    assert [(one.id, one.why) for one in done.refused] == [(job_id, "was changed meanwhile")]
    assert done.refused[0].text == b""
    assert queue.get(job_id)


@pytest.mark.parametrize("waiting", ["ok:ID", "any:ID", "any:@g", "ok:@g~1 any:ID"])
def test_a_job_that_an_unfinished_one_waits_for_is_not_deleted(queue, waiting):
    parent = queue.enqueue("mail", group="g")
    other = queue.enqueue("mail")
    child = queue.enqueue("mail", after=waiting.replace("ID", parent))

    done = edited(queue, lambda sheet: sheet.drop(parent, other))

    assert done.deleted == [other]
    assert [(one.id, one.why) for one in done.refused] == [
        (parent, "not deleted: an unfinished job waits for it")]  # fmt: skip

    done = edited(queue, lambda sheet: sheet.drop(parent, child))

    assert done.deleted == [parent, child]


def test_of_a_chain_only_what_nobody_waits_for_is_deleted(queue):
    first = queue.enqueue("mail")
    second = queue.enqueue("mail", after=first)
    third = queue.enqueue("mail", after=second)
    last = queue.enqueue("mail", after=third)

    done = edited(
        queue, lambda s: s.drop(first, second, last), lambda: edit(queue, last, error="x")
    )

    assert done.deleted == []
    assert {one.id for one in done.refused} == {first, second, last}
    assert len(list(queue.jobs())) == 4


def test_what_a_new_line_waits_for_is_not_deleted(queue):
    parent = queue.enqueue("mail")

    done = edited(queue, lambda sheet: sheet.drop(parent).add(type="mail", after=f"ok:{parent}"))

    assert (done.deleted, len(done.added)) == ([], 1)
    assert queue.get(parent)


# --- who waits for whom


def test_jobs_that_would_wait_for_each_other_are_refused(queue):
    first, second, third = queue.enqueue_many([("mail", n) for n in range(3)])
    edit(queue, second, after=f"ok:{first}")
    edit(queue, third, after=f"any:{second}")

    done = edited(
        queue, lambda sheet: sheet.set(first, after=f"ok:{third}").set(second, priority="1")
    )
    alone = edited(queue, lambda sheet: sheet.set(first, after=f"ok:{first}"))

    assert done.changed == [second] or done.changed == []
    assert "wait for each other" in done.refused[0].why
    assert "wait for each other" in alone.refused[0].why
    assert queue.get(first).after is None or queue.get(second).priority == 0
    queue.process_jobs({"mail": str})
    assert queue.counts() == {"completed": 3}


def test_a_group_that_would_wait_for_itself_is_refused(queue):
    member = queue.enqueue("mail", group="g")
    waits = queue.enqueue("mail", after="ok:@g")

    done = edited(
        queue,
        lambda sheet: sheet.add(type="mail", group="g", after=f"ok:{waits}")
        .add(type="mail", group="h", after=f"ok:{waits}"),
    )  # fmt: skip
    moved = edited(queue, lambda sheet: sheet.set(member, after=f"any:{waits}"))

    assert len(done.added) == 1
    assert [one.line for one in done.refused] == [4]
    assert "wait for each other" in moved.refused[0].why
    queue.process_jobs({"mail": str})
    assert queue.counts() == {"completed": 3}


# --- at random


@pytest.mark.parametrize("seed", range(3))
def test_random_typing_beside_random_changes_loses_nobody_s_work(queue, seed):
    chance = random.Random(seed)
    queue.enqueue_many([("mail", n) for n in range(30)])
    for _ in range(4):
        before = copied(queue)
        sheet = Sheet(before)
        mine = {cells[0]: chance.choice(["keep", "keep", "set", "drop"]) for cells in sheet.rows}
        theirs = {id: chance.choice(["keep", "keep", "keep", "set", "drop"]) for id in mine}
        for id, what in mine.items():
            if what == "set":
                sheet.set(id, error="mine")
            elif what == "drop":
                sheet.drop(id)
        chance.shuffle(sheet.rows)
        sheet.add(type="new")
        with queue.edit() as e:
            for id, what in theirs.items():
                if what == "set":
                    e.change(e.get(id), error="theirs")
                elif what == "drop":
                    e.remove(e.get(id))

        done = byhand.apply(queue, before, sheet.text())

        clash = {id for id in mine if mine[id] != "keep" and theirs[id] != "keep"}
        assert {one.id for one in done.refused} == clash
        now = {job.id: job.error for job in queue.jobs() if job.id in mine}
        for id in mine:
            what = theirs[id] if theirs[id] != "keep" else mine[id]
            assert (id in now) == (what != "drop")
            if what == "set":
                assert now[id] == ("theirs" if theirs[id] == "set" else "mine")
        with queue.edit() as e:
            for job in list(e.scan()):
                e.change(job, error="")


# --- the command


class Answer(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def doc(self):
        return json.loads(self.out)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def editor(tmp_path, monkeypatch, scratch):
    """Be an editor that runs a line of sh, with the file as $1."""

    def be(line, variable="EDITOR"):
        monkeypatch.delenv("VISUAL", raising=False)
        script = tmp_path / f"editor-{variable}"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
        monkeypatch.setenv(variable, str(script))

    return be


@pytest.fixture
def run(capfd, queue):
    def run(words):
        capfd.readouterr()
        status = cli.main(["--file", queue.path, *shlex.split(words)])
        return Answer(status, *capfd.readouterr())

    return run


def test_the_editor_gets_a_private_file_that_looks_like_one(run, editor, queue, scratch):
    job_id = queue.enqueue("mail", {"to": "ada"})
    editor('stat -c "%a %n" "$(dirname "$1")" "$1" > seen; cat "$1" > copy')

    answer = run("edit")

    folder, file = Path("seen").read_text().splitlines()
    assert folder.startswith(f"700 {scratch}/")
    assert file.startswith("600 ") and file.endswith(".tsv")
    assert Path("copy").read_bytes() == content(queue)
    assert answer == (0, f"nothing changed in {queue.path}\n", "")
    assert os.listdir(scratch) == []
    assert queue.get(job_id)


def test_edit_applies_and_says_what(run, editor, queue, scratch):
    first, second, third = queue.enqueue_many([("mail", 1), ("note", 2), ("mail", 3)])
    editor(f"sed -i -e 's/\\tmail\\t1/\\tmail\\t7/' -e '/^{third}/d' \"$1\"; "
           """printf '\\tnew\\t[]\\t\\t\\t\\t\\t\\t\\n' >> "$1" """)  # fmt: skip

    answer = run("edit --type mail")

    (new,) = (job.id for job in queue.jobs(type="new"))
    assert answer == (0, f"changed {first}\ndeleted {third}\nadded {new}\n", "")
    assert [(job.type, job.payload) for job in queue.jobs()] == [("mail", 7), ("note", 2),
                                                                  ("new", [])]  # fmt: skip
    assert second
    assert os.listdir(scratch) == []


def test_edit_as_json(run, editor, queue):
    first, second = queue.enqueue_many([("mail", 1), ("mail", 2)])
    editor("sed -i -e 's/\\tmail\\t1/\\tmail\\t7/' -e 's/\\tmail\\t2/\\tmail\\t}/' \"$1\"")

    answer = run("edit --json")

    doc = answer.doc
    kept = doc.pop("kept")
    why = doc["refused"][0].pop("why")
    assert doc == {"changed": [first], "deleted": [], "added": [], "file": queue.path,
                   "refused": [{"id": second, "line": 3}]}  # fmt: skip
    assert "not JSON" in why
    assert Path(kept).read_text().count("\n") == 2
    assert answer.status == 1


def test_refused_lines_are_shown_and_kept(run, editor, queue, scratch):
    """The editor is slow: a worker has the one row meanwhile, and somebody changes the other."""
    ran, changed = queue.enqueue_many([("mail", 1), ("note", 2)])
    program = f"{sys.executable} -c"
    meanwhile = (
        f"import sys; sys.path.append({str(Path(cli.__file__).parents[2])!r});"
        f"from dbbasic_queue import Queue; q = Queue({queue.path!r});"
        "q.process_jobs({'mail': abs})\n"
        f"with q.edit() as e: e.change(e.get({changed!r}), priority=9)"
    )
    editor("sed -i 's/\\tpending\\t/\\tcancelled\\t/' \"$1\"; "
           f"{program} {shlex.quote(meanwhile)}")  # fmt: skip

    answer = run(f"edit {ran} {changed}")

    assert (answer.status, answer.out) == (1, "")
    assert f"line 2, job {ran}: not applied: was changed meanwhile" in answer.err
    assert "    status: theirs completed / yours cancelled\n" in answer.err
    assert "    result: theirs 1 / yours \n" in answer.err
    assert "    priority: theirs 9 / yours \n" in answer.err
    (kept,) = scratch.iterdir()
    assert f"2 lines kept in {kept}" in answer.err
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    lines = Sheet(kept.read_bytes())
    assert [(cells[0], cells[3]) for cells in lines.rows] == [(ran, "cancelled"),
                                                              (changed, "cancelled")]  # fmt: skip
    assert queue.get(ran).status == "completed"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("exit 3", "the editor ended with status 3: nothing was applied"),
        ("kill -9 $$", "the editor was ended by signal 9: nothing was applied"),
        ('rm "$1"', "the editor left no file: nothing was applied"),
    ],
)
def test_an_editor_that_fails_changes_nothing(run, editor, queue, scratch, line, says):
    queue.enqueue("mail")
    before = content(queue)
    editor(line)

    answer = run("edit")

    assert answer == (2, "", f"dbbasic-queue: {says}\n")
    assert content(queue) == before
    assert os.listdir(scratch) == []


@pytest.mark.parametrize(
    "line",
    [
        'sed -i s/mail/note/ "$1"; kill -9 $$',
        'sed -i s/mail/note/ "$1"; exit 1',
        'head -c 5000 /dev/urandom > "$1"',
        ': > "$1"; echo typed > "$1"',
        'expand "$1" > "$1.new"; mv "$1.new" "$1"',
    ],
)
def test_what_was_typed_in_vain_is_kept(run, editor, queue, scratch, line):
    queue.enqueue("mail")
    before = content(queue)
    editor(line + '; exit "$?"')

    answer = run("edit")

    (kept,) = scratch.iterdir()
    assert answer.status == 2
    assert str(kept) in answer.err
    assert kept.stat().st_size
    assert content(queue) == before


def test_ctrl_c_is_the_editor_s_own(run_python, editor, queue, scratch):
    queue.enqueue("mail")
    editor(
        "trap 'sed -i s/mail/note/ \"$1\"; exit 0' INT; touch open; while :; do sleep 0.01; done"
    )
    child = run_python(
        f"import sys; from dbbasic_queue import cli; "
        f"sys.exit(cli.main(['--file', {queue.path!r}, 'edit']))",
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not os.path.exists("open"):
        time.sleep(0.005)

    os.killpg(child.pid, signal.SIGINT)

    assert child.wait(60) == 0
    assert [job.type for job in queue.jobs()] == ["note"]
    assert os.listdir(scratch) == []


def test_an_editor_that_truncates_changes_nothing(run, editor, queue, scratch):
    queue.enqueue_many([("mail", n) for n in range(9)])
    before = content(queue)
    editor('truncate -s 700 "$1"')

    answer = run("edit")

    assert answer.status == 1
    assert "is cut off" in answer.err
    assert content(queue) == before


def test_an_editor_may_replace_the_file_and_leave_others(run, editor, queue, scratch):
    job_id = queue.enqueue("mail")
    editor('sed s/mail/note/ "$1" > "$1~"; cp "$1~" "$1.swp"; mv "$1~" "$1"')

    answer = run("edit")

    assert (answer.status, queue.get(job_id).type) == (0, "note")
    assert os.listdir(scratch) == []


def test_visual_comes_before_editor_and_has_words(run, editor, queue, monkeypatch):
    job_id = queue.enqueue("mail")
    editor('printf "%s\\n" "$@" > words')
    monkeypatch.setenv("VISUAL", f"{os.environ['EDITOR']} --wait 'two words'")
    monkeypatch.setenv("EDITOR", "false")

    assert run(f"edit {job_id}").status == 0

    assert Path("words").read_text().splitlines()[:2] == ["--wait", "two words"]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"EDITOR": "no-such-editor -x"}, "tried $EDITOR 'no-such-editor -x' (No such file"),
        ({"VISUAL": "no-such", "EDITOR": "true"}, "tried $VISUAL 'no-such' (No such file"),
        ({"EDITOR": "vi 'oops"}, "$EDITOR is"),
        ({"PATH": "/nowhere"}, "tried editor (No such file or directory) and vi (No"),
    ],
)
def test_without_an_editor_it_says_what_was_tried(run, queue, monkeypatch, variables, says):
    queue.enqueue("mail")
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)

    answer = run("edit")

    assert (answer.status, answer.out) == (2, "")
    assert says in answer.err
    assert answer.err.count("\n") == 1


def test_edit_takes_ids_or_filters(run, editor, queue):
    first, runs, last = queue.enqueue_many([("mail", 1), ("mail", 2), ("note", 3)])
    edit(queue, runs, status="processing", worker="w.1")
    editor('cut -f1 "$1" | tail -n +2 > ids')

    def chosen(words):
        Path("ids").unlink(missing_ok=True)
        answer = run(f"edit {words}")
        ids = Path("ids").read_text().split() if Path("ids").exists() else None
        return answer.status, ids, answer.err

    assert chosen("") == (0, [first, last], "dbbasic-queue: 1 job processing: left out\n")
    assert chosen("--type note") == (0, [last], "")
    assert chosen("--older-than 1h")[:2] == (1, None)
    assert chosen(f"{last} {runs} nobody")[:2] == (1, [last])
    assert chosen("nobody") == (1, None, "dbbasic-queue: no job has the id nobody\n")
    assert chosen(f"{last} --type note")[:2] == (2, None)


def test_without_a_queue_there_is_nothing_to_edit(run, editor, queue, scratch):
    editor("echo never")

    answer = run("edit")

    assert (answer.status, answer.out) == (1, "")
    assert "there is no queue to edit" in answer.err
    assert os.listdir(scratch) == []
    assert not os.path.exists(queue.path)


def test_typing_outlives_a_queue_that_turned_foreign(run, editor, queue, scratch):
    queue.enqueue("mail")
    editor(f'sed -i s/mail/note/ "$1"; echo foreign > {queue.path}')

    answer = run("edit")

    (kept,) = scratch.iterdir()
    assert answer.status == 2
    assert "not a queue" in answer.err
    assert f"what you typed is in {kept}" in answer.err
    assert b"\tnote\t" in kept.read_bytes()


def test_hostile_cells_do_not_reach_the_terminal(run, editor, queue):
    job_id = queue.enqueue("mail")
    editor(r"""sed -i 's/\tmail\t/\tma\x1b[31mil\t/' "$1"; printf '\x9b\x07\tx\n' >> "$1" """)

    answer = run("edit")

    assert answer.status == 1
    assert "\x1b" not in answer.err and "\x07" not in answer.err and "\x9b" not in answer.err
    assert job_id in answer.err


def test_nobody_waits_for_the_editor(run, editor, queue):
    check_producers(run, editor, queue, 25)


@pytest.mark.soak
def test_nobody_waits_for_the_editor_for_long(run, editor, queue):
    longest, open_for = check_producers(run, editor, queue, 2500)

    assert longest < open_for / 3


def check_producers(run, editor, queue, count):
    """Four processes add jobs while an editor is open, which it is until they are done."""
    changed = queue.enqueue("mail")
    producers = [produce(queue.path, number, count) for number in range(4)]
    editor('touch open; while [ "$(ls -d over-? 2>/dev/null | wc -l)" -lt 4 ]; do sleep 0.01; done;'
           'sed -i s/mail/note/ "$1"')  # fmt: skip
    begun = time.monotonic()

    answer = run("edit")

    open_for = time.monotonic() - begun
    assert [os.waitpid(pid, 0)[1] for pid in producers] == [0] * 4
    assert (answer.status, answer.out) == (0, f"changed {changed}\n")
    assert queue.counts("type") == {"note": 1, **{f"p{number}": count for number in range(4)}}
    return max(float(Path(f"over-{number}").read_text()) for number in range(4)), open_for


def produce(path, number, count):
    """Fork a producer that waits for the editor; it says how long its longest call took."""
    pid = os.fork()
    if pid:
        return pid
    status, longest = 1, 0.0
    try:
        queue = Queue(path, lock_timeout=10)
        while not os.path.exists("open"):
            time.sleep(0.002)
        for n in range(count):
            begun = time.monotonic()
            queue.enqueue(f"p{number}", n)
            longest = max(longest, time.monotonic() - begun)
        status = 0
    finally:
        Path(f"over-{number}.tmp").write_text(str(longest))
        os.rename(f"over-{number}.tmp", f"over-{number}")
        os._exit(status)
