"""One edit: it sees its own changes, and either all of them are in the file or none."""

import gc
import os
import threading
import weakref
from pathlib import Path

import pytest

from dbbasic_queue import Queue, QueueError
from dbbasic_queue.errors import BadArgument, DuplicateId, QueueBusy
from dbbasic_queue.new import new_job


def content(queue):
    return Path(queue.path).read_bytes()


def three(queue):
    return queue.enqueue_many([("note", 1), ("note", 2), ("other", 3)])


# --- seeing its own changes


def test_a_change_is_seen_by_every_question_that_follows(queue):
    first, second, _ = three(queue)

    with queue.edit() as e:
        changed = e.change(e.get(first), status="failed", priority=7, group="g", error="a\tb")

        assert (changed.status, changed.priority, changed.error) == ("failed", 7, "a\tb")
        assert e.get(first).priority == 7
        assert [job.id for job in e.scan("failed")] == [first]
        assert [job.id for job in e.scan("pending", type="note")] == [second]
        assert [job.id for job in e.find("group", "g")] == [first]
        assert [job.id for job in e.find("priority", 7)] == [first]
        assert [job.id for job in e.find("error", "a\tb")] == [first]
        assert (len(list(e.scan("failed"))), len(list(e.scan("pending")))) == (1, 2)

    assert queue.get(first).priority == 7
    assert queue.counts("status") == {"failed": 1, "pending": 2}


def test_an_added_job_is_seen_by_every_question_that_follows(queue):
    ids = three(queue)

    with queue.edit() as e:
        new = e.add(new_job("mail", {"to": "a"}, queue="high", group="g"))

        assert e.get(new).payload == {"to": "a"}
        assert new in [job.id for job in e.scan("pending")]
        assert [job.id for job in e.find("type", "mail")] == [new]
        assert [job.group for job in e.scan(queue="high")] == ["g"]
        e.change(e.get(new), priority=3)
        assert e.get(new).priority == 3

    assert [job.id for job in queue.jobs()] == [*ids, new]
    assert queue.get(new).priority == 3


def test_a_removed_job_is_seen_by_no_question_that_follows(queue):
    first, second, third = three(queue)

    with queue.edit() as e:
        new = e.add(new_job("mail"))
        for job_id in (first, new):
            e.remove(e.get(job_id))

        assert e.get(first) is e.get(new) is None
        assert sorted(job.id for job in e.scan()) == [second, third]
        assert list(e.find("type", "mail")) == []
        assert len(list(e.scan())) == 2

    assert [job.id for job in queue.jobs()] == [second, third]


def test_a_scan_that_goes_on_sees_what_was_changed_meanwhile_once(queue):
    ids = [queue.enqueue("note", number) for number in range(5)]

    with queue.edit() as e:
        seen = []
        for job in e.scan("pending"):
            seen.append(job.id)
            if job.id == ids[1]:
                e.change(e.get(ids[0]), priority=1)
                e.change(e.get(ids[2]), status="cancelled")
                e.remove(e.get(ids[3]))

    assert seen == [ids[0], ids[1], ids[4]]


def test_a_job_is_found_by_its_queue_whether_the_cell_says_so_or_not(queue):
    plain, high = queue.enqueue("note"), queue.enqueue("note", queue="high")
    other = queue.enqueue("note")
    with queue.edit() as e:
        e.change(e.get(other), queue="default")

    with queue.edit() as e:
        assert [job.id for job in e.find("queue", "default")] == [plain, other]
        assert [job.id for job in e.scan(queue="default")] == [plain, other]
        assert [job.id for job in e.find("queue", "high")] == [high]


def test_what_is_not_there_is_none(queue):
    three(queue)

    with queue.edit() as e:
        assert e.get("0" * 16) is None
        assert e.get("") is e.get("nonsense") is None
        assert list(e.find("type", "nobody")) == []
        assert list(e.find("no_such_column", "x")) == []
        assert list(e.scan("processing")) == []


# --- what a change starts from


def test_a_second_change_keeps_the_first(queue):
    job_id = queue.enqueue("note")

    with queue.edit() as e:
        job = e.get(job_id)
        e.change(job, priority=5)
        e.change(job, max_attempts=2)

    assert (queue.get(job_id).priority, queue.get(job_id).max_attempts) == (5, 2)


@pytest.mark.parametrize("where", ["before", "earlier edit", "added", "changed"])
def test_a_job_read_elsewhere_means_the_row_with_its_id(queue, where):
    ids = three(queue)
    before, job_id, _ = ids
    with queue.edit() as e:
        job = {"before": queue.get(job_id), "earlier edit": e.get(job_id)}.get(where)
    with queue.edit() as e:
        e.change(e.get(before), error="moves every row behind it")

    with queue.edit() as e:
        if where == "added":
            job_id = e.add(new_job("mail"))
            job = e.get(job_id)
            e.change(job, group="g")
        if where == "changed":
            job = e.get(job_id)
            e.change(job, group="g")
        e.change(job, priority=5)

    assert queue.get(job_id).priority == 5
    assert [queue.get(one).payload for one in ids] == [1, 2, 3]
    assert {job.id for job in queue.jobs()} == {*ids, job_id}


@pytest.mark.parametrize("where", ["before", "earlier edit", "added", "changed"])
def test_a_job_read_elsewhere_can_be_removed(queue, where):
    before, job_id, behind = three(queue)
    with queue.edit() as e:
        job = {"before": queue.get(job_id), "earlier edit": e.get(job_id)}.get(where)
    with queue.edit() as e:
        e.change(e.get(before), error="moves every row behind it")

    with queue.edit() as e:
        if where == "added":
            e.remove(e.get(job_id))
            job_id = e.add(new_job("mail"))
        if where in ("added", "changed"):
            job = e.get(job_id)
            e.change(job, group="g")
        e.remove(job)

    assert [job.id for job in queue.jobs()] == [before, behind]


# --- all or nothing


def test_a_body_that_raises_changes_nothing(queue):
    first, second, _ = three(queue)
    before = content(queue)

    with pytest.raises(ZeroDivisionError), queue.edit() as e:
        e.change(e.get(first), priority=5, colour="red")
        e.remove(e.get(second))
        e.add(new_job("mail"))
        raise ZeroDivisionError

    assert content(queue) == before
    assert queue.enqueue("note")


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_so_does_one_that_is_interrupted(queue, end):
    (first, *_) = three(queue)
    before = content(queue)

    with pytest.raises(end), queue.edit() as e:
        e.change(e.get(first), priority=5)
        raise end

    assert content(queue) == before
    assert queue.enqueue("note")


def test_an_edit_without_a_change_writes_nothing(queue):
    three(queue)
    before = os.stat(queue.path)

    with queue.edit() as e:
        assert len(list(e.scan())) == 3

    after = os.stat(queue.path)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_edit_that_only_adds_is_one_append(queue):
    ids = three(queue)
    before, inode = content(queue), os.stat(queue.path).st_ino

    with queue.edit() as e:
        new = [e.add(new_job("note", n)) for n in range(3)]

    assert content(queue).startswith(before)
    assert os.stat(queue.path).st_ino == inode
    assert [job.id for job in queue.jobs()] == [*ids, *new]


def test_all_changes_of_an_edit_are_one_rename(queue):
    first, second, third = three(queue)
    rows = content(queue).split(b"\n")

    with queue.edit() as e:
        e.change(e.get(first), priority=5)
        e.remove(e.get(second))
        new = e.add(new_job("mail"))
        assert content(queue).split(b"\n") == rows

    assert [job.id for job in queue.jobs()] == [first, third, new]
    assert content(queue).split(b"\n")[2] == rows[3]


def test_a_first_edit_makes_the_file(queue):
    with queue.edit() as e:
        job_id = e.add(new_job("note"))

    assert queue.get(job_id).type == "note"


def test_an_id_that_is_there_is_refused_and_nothing_happens(queue):
    ids = three(queue)
    before = content(queue)

    with pytest.raises(DuplicateId), queue.edit() as e:
        e.add(new_job("note"))
        e.add(new_job("note", id=ids[1]))

    assert content(queue) == before


def test_ids_rise_from_one_added_job_to_the_next(queue):
    with queue.edit() as e:
        ids = [e.add(new_job("note")) for _ in range(20)]

    assert ids == sorted(set(ids))
    assert [job.id for job in queue.jobs()] == ids


# --- columns


def test_a_change_may_bring_a_new_column_before_finished_at(queue):
    first, second, third = three(queue)

    with queue.edit() as e:
        e.change(e.get(second), colour="red\tgreen")
        assert e.get(second).cell("colour") == "red\tgreen"
        assert [job.id for job in e.find("colour", "red\tgreen")] == [second]

    lines = [line.split(b"\t") for line in content(queue).split(b"\n")[:-1]]
    assert lines[0][-2:] == [b"colour", b"finished_at"]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert queue.get(second).cell("colour") == "red\tgreen"
    assert [queue.get(job_id).payload for job_id in (first, second, third)] == [1, 2, 3]


def test_an_empty_cell_brings_no_column(queue):
    (first, *_) = three(queue)
    before = content(queue)

    with queue.edit() as e:
        e.change(e.get(first), colour="")
        e.change(e.get(first), size=None)

    assert content(queue) == before


@pytest.mark.parametrize("name", ["Colour", "failed_at", "pending"])
def test_a_new_column_has_a_name_of_its_own(queue, name):
    (first, *_) = three(queue)
    before = content(queue)

    with pytest.raises(BadArgument, match="column"), queue.edit() as e:
        e.change(e.get(first), **{name: "x"})

    assert content(queue) == before


def test_a_time_with_a_fraction_is_stored_as_a_whole_second_that_is_not_early(queue):
    (first, *_) = three(queue)

    with queue.edit() as e:
        e.change(e.get(first), run_at=4_000_000_000.25, timeout=0.25)

    cells = content(queue).split(b"\n")[1].split(b"\t")
    assert cells[5] == b"4000000001"
    assert queue.get(first).timeout == 0.25


# --- one at a time


@pytest.mark.parametrize(
    "verb",
    [
        lambda queue, job_id: queue.enqueue("note"),
        lambda queue, job_id: queue.cancel(job_id),
        lambda queue, job_id: queue.retry(),
        lambda queue, job_id: queue.purge(),
        lambda queue, job_id: queue.archive(0),
        lambda queue, job_id: queue.process_jobs({"note": print}),
        lambda queue, job_id: queue.edit().__enter__(),
        lambda queue, job_id: Queue(queue.path).enqueue("note"),
    ],
    ids="enqueue cancel retry purge archive process_jobs edit another-Queue".split(),
)
def test_a_verb_inside_an_edit_is_refused_at_once(queue, verb):
    first, second, _ = three(queue)

    with queue.edit() as e:
        e.change(e.get(first), priority=5)
        with pytest.raises(QueueBusy, match="in the middle of an edit"):
            verb(queue, second)

    assert queue.get(first).priority == 5
    assert queue.counts("status") == {"pending": 3}


def test_reading_inside_an_edit_shows_the_file_as_it_was(queue):
    (first, *_) = three(queue)

    with queue.edit() as e:
        e.change(e.get(first), priority=5)

        assert queue.get(first).priority == 0
        assert queue.counts("status") == {"pending": 3}


def test_another_thread_waits_for_the_edit(queue):
    (first, *_) = three(queue)
    added = []
    thread = threading.Thread(target=lambda: added.append(queue.enqueue("late")))

    with queue.edit() as e:
        thread.start()
        e.change(e.get(first), priority=5)
        assert added == []
    thread.join()

    assert queue.get(first).priority == 5
    assert queue.get(added[0]).type == "late"


def test_another_thread_gives_up_after_the_lock_timeout(queue):
    three(queue)
    impatient = Queue(queue.path, lock_timeout=0.05)
    problems = []

    def enqueue():
        try:
            impatient.enqueue("late")
        except QueueBusy as problem:
            problems.append(problem)

    with queue.edit():
        thread = threading.Thread(target=enqueue)
        thread.start()
        thread.join()

    assert "0.05 s" in str(problems[0])
    assert sum(queue.counts().values()) == 3


@pytest.mark.parametrize("how", ["a row more", "saved by an editor"])
def test_p25_a_row_saved_by_hand_in_the_middle_of_an_edit_is_not_lost(queue, how):
    first, second, _ = three(queue)
    row = b"0123456789abcdef\tnote\t{}\tpending\t1\t1\t0\t\t\n"

    with pytest.raises(QueueBusy, match="without the lock"), queue.edit() as e:
        e.change(e.get(first), priority=5)
        if how == "a row more":
            with open(queue.path, "ab") as file:
                file.write(row)
        else:
            copy = Path(queue.path + "~")
            copy.write_bytes(content(queue) + row)
            copy.replace(queue.path)

    assert [job.id for job in queue.jobs()][-1] == "0123456789abcdef"
    assert queue.get(first).priority == 0
    assert queue.cancel(second)
    assert sorted(os.listdir(Path(queue.path).parent)) == [
        "queue.tsv", "queue.tsv.d", "queue.tsv.lock",
    ]  # fmt: skip


def test_an_error_of_an_edit_is_a_queue_error(queue):
    three(queue)

    with pytest.raises(QueueError), queue.edit():
        queue.enqueue("note")


def test_p8_an_edit_goes_with_its_last_reference_and_with_it_the_lock(queue):
    """P8: an exception out of a signal handler may leave an edit that nobody has ended."""
    queue.enqueue_many([{"job_type": "run", "group": "g"} for _ in range(3)])
    gc.disable()
    try:
        with queue.edit() as e:
            assert e.count_group("g").any
        seen = weakref.ref(e)

        del e

        assert seen() is None
    finally:
        gc.enable()
