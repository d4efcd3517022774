"""Which jobs: each thing that can be asked, pages of a long file, and cancelling many at once."""

import os
import random
import time
from datetime import timedelta

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, kinds, lookup
from dbbasic_queue.choose import Choice, cancel, count, ids, jobs, looking, page
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.kinds import Kinds
from dbbasic_queue.redact import sensitive
from dbbasic_queue.tags import tags

NOW = "2026-11-22 12:00:00"


def fails(payload):
    raise ValueError(f"cannot reach {payload['to']}")


@pytest.fixture
def shop(queue):
    """Jobs of every status and kind, by a name each."""
    with freeze_time(NOW) as clock:
        add = queue.enqueue
        named = {
            "failed": add("mail", {"to": "Ada"}, max_attempts=1),
            "retrying": add("mail", {"to": "Ben"}),
            "completed": add("report", {"of": "sales"}, queue="slow", columns=tags("monthly")),
        }
        named["waiting"] = add("report", after=add("never", run_at=timedelta(hours=9)), group="g1")
        queue.process_jobs({"mail": fails, "report": lambda payload: 1})
        clock.tick(timedelta(seconds=10))
        named["due"] = add("other", {"say": 'a "quoted" word'})
        named["scheduled"] = add("mail", {"to": "Zoë"}, run_at=timedelta(hours=1))
        named["stuck"] = add("mail")
        with queue.edit() as e:
            e.change(e.get(named["stuck"]), status="processing", worker="w-1-abcdef.1")
        clock.tick(timedelta(seconds=10))
        yield queue, named, clock


def names(shop, **asked):
    queue, named, _ = shop
    known = {id: name for name, id in named.items()}
    return [known.get(job.id, "parent") for job in jobs(Choice(**asked), queue)]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"status": "failed"}, ["failed"]),
        ({"status": "due"}, ["due"]),
        ({"status": "scheduled"}, ["parent", "scheduled"]),
        ({"status": "retrying"}, ["retrying"]),
        ({"status": "waiting"}, ["waiting"]),
        ({"status": "stuck"}, ["stuck"]),
        ({"status": "processing"}, ["stuck"]),
        ({"status": ("failed", "completed")}, ["failed", "completed"]),
        ({"status": ("stuck", "failed")}, ["failed", "stuck"]),
        ({"status": "pending", "type": "mail"}, ["retrying", "scheduled"]),
        ({"queue": "slow"}, ["completed"]),
        ({"queue": "default", "type": "report"}, ["waiting"]),
        ({"tag": "monthly"}, ["completed"]),
        ({"tag": "month"}, []),
        ({"group": "g1"}, ["waiting"]),
        ({"worker": "w-1-abcdef"}, ["stuck"]),
        ({"text": "ADA"}, ["failed"]),
        ({"text": "cannot reach"}, ["failed", "retrying"]),
        ({"text": 'a "quoted" word'}, ["due"]),
        ({"text": "zoë"}, ["scheduled"]),
        ({"text": "nothing like it"}, []),
        ({"older_than": 15, "type": "mail"}, ["failed", "retrying"]),
    ],
)  # fmt: skip
def test_all_that_is_asked_must_hold(shop, asked, found):
    assert names(shop, **asked) == found


def test_given_ids_come_in_their_order_and_archived_ones_too(shop):
    queue, named, clock = shop
    clock.tick(timedelta(days=1))
    queue.archive(3600, status="failed")

    assert names(shop, ids=[named["due"], named["failed"], "0" * 16]) == ["due", "failed"]


def test_what_is_hidden_is_not_found(queue):
    queue.enqueue("login", {"user": "ada", "token": "tulip-4711"}, columns=sensitive("token"))

    assert count(Choice(text="tulip"), queue) == 0
    assert count(Choice(text="ada"), queue) == 1


def test_a_text_written_with_other_escapes_is_found(queue):
    queue.enqueue("old")
    with open(queue.path, "a") as file:
        file.write('0123456789abcdef\tcity\t{"in": "Z\\u00fcrich"}\tpending\t1\t1\t0\t\t\n')

    assert count(Choice(text="Zürich"), queue) == 1


@pytest.mark.parametrize(
    "asked", [{"status": "done"}, {"text": "x" * 1001}, {"until": "not an id"}]
)
def test_what_cannot_be_asked_is_refused_by_name(asked):
    with pytest.raises(BadArgument, match=r"done|1000|no id"):
        Choice(**asked)


def test_nothing_asked_is_every_job(shop):
    queue = shop[0]

    assert ids(Choice(), queue) == [job.id for job in queue.jobs()]
    assert not Choice().given_any
    assert Choice(older_than=0).given_any


def test_until_leaves_out_what_came_later(queue):
    first = queue.enqueue_many([("a", 1), ("a", 2)])
    queue.enqueue("a", 3)

    assert ids(Choice(type="a", until=first[1]), queue) == first


def test_what_a_worker_has_just_finished_is_told_as_it_is(queue):
    seen = []

    def look(payload):
        seen.append(
            (count(Choice(status="completed"), queue), count(Choice(status="processing"), queue))
        )

    queue.enqueue_many([("look", 1), ("look", 2)])
    queue.process_jobs({"look": look})

    assert seen == [(0, 1), (1, 1)]


# --- pages


@pytest.mark.parametrize("asked", [{}, {"type": "b"}, {"status": "due"}, {"text": "7"}])
def test_pages_are_all_jobs_newest_first_and_back_again(queue, asked):
    queue.enqueue_many((chance, {"n": n}) for n, chance in enumerate("abcb" * 60))
    choice = Choice(**asked)
    every = ids(choice, queue)[::-1]

    forth, back = [], []
    found = page(choice, queue, limit=7)
    assert found.newer is None
    while True:
        forth += [job.id for job in found.jobs]
        if found.older is None:
            break
        found = page(choice, queue, before=found.older, limit=7)
    while found.newer is not None:
        found = page(choice, queue, after=found.newer, limit=7)
        back = [job.id for job in found.jobs] + back

    assert forth == every
    assert back == every[: len(back)]
    assert len(back) >= len(every) - 7


def test_a_page_goes_on_from_a_job_that_is_gone(queue):
    added = queue.enqueue_many(("a", n) for n in range(40))
    cursor = page(Choice(), queue, limit=10).older
    queue.purge(ids=[cursor], status="pending")

    assert [job.id for job in page(Choice(), queue, before=cursor, limit=3).jobs] == [
        *added[29:26:-1]
    ]
    assert [job.id for job in page(Choice(), queue, after=cursor, limit=3).jobs] == [
        *added[33:30:-1]
    ]


@pytest.mark.parametrize("cursor", ["0" * 16, "f" * 16, "no id"])
def test_a_strange_cursor_harms_nothing(queue, cursor):
    queue.enqueue_many(("a", n) for n in range(5))

    assert len(page(Choice(), queue, before=cursor).jobs) in (0, 5)
    assert len(page(Choice(), queue, after=cursor).jobs) in (0, 5)


def test_a_page_of_a_queue_that_is_not_there_is_empty(queue):
    assert page(Choice(status="failed"), queue) == ([], None, None)


def test_lines_that_are_no_rows_are_no_jobs(queue):
    queue.enqueue("a")
    with open(queue.path, "a") as file:
        file.write("what is this\n" + "open line without an end")

    assert count(Choice(), queue) == len(page(Choice(), queue).jobs) == 1


@pytest.mark.soak
def test_the_last_failed_job_of_a_long_file_is_found_at_once(queue):
    import time

    queue.enqueue("bad", max_attempts=1)
    queue.process_jobs({"bad": fails})
    queue.enqueue_many(("good", n) for n in range(300_000))

    begun = time.perf_counter()
    found = page(Choice(status="failed"), queue)

    assert len(found.jobs) == 1
    assert time.perf_counter() - begun < 1


# --- cancelling


@pytest.mark.parametrize("number", [3, 500])
def test_many_are_cancelled_in_one_edit_with_what_waits_for_them(queue, number, monkeypatch):
    told = []
    queue = Queue(queue.path, sync="off", listeners=[lambda event, job: told.append(event)])
    added = queue.enqueue_many(("a", n) for n in range(number))
    after = queue.enqueue("b", after=added[0])
    kept = queue.enqueue("c")
    told.clear()

    gone = cancel(random.sample(added, number), queue)

    assert set(gone) == {*added, after}
    assert told == ["cancelled"] * (number + 1)
    assert queue.get(kept).status == "pending"


def test_what_is_not_pending_is_not_cancelled(shop):
    queue, named, _ = shop

    assert cancel([named["failed"], named["due"], "0" * 16], queue) == [named["due"]]


def test_a_kind_can_be_told_of_one_job(shop):
    queue, named, _ = shop
    kinds = Kinds(queue)

    told = {name: kinds.of(queue.get(id)) for name, id in named.items()}

    assert told == {name: name for name in named}


@pytest.mark.parametrize("text", ["é\x85x", "😀\u2028", "é\t\x7f", "\ud800é"])
def test_a_text_of_letters_and_odd_characters_is_found(queue, text):
    id = queue.enqueue("good", {"v": f"before {text} behind"})

    assert ids(Choice(text=text), queue) == [id]


def test_pages_go_on_where_ids_have_no_order(queue):
    given = [f"{n * 0x9E3779B97F4A7C15 % (1 << 60):016x}" for n in range(1500)]
    queue.enqueue_many({"job_type": "good", "payload": "x" * 150, "id": id} for id in given)
    found, before = [], None

    for _ in range(5):
        shown, before, _ = page(Choice(), queue, before=before, limit=500)
        found += [job.id for job in shown]
        if before is None:
            break

    assert found == given[::-1]


def test_a_job_whose_worker_ends_during_the_look_is_not_stuck(queue, monkeypatch):
    id = queue.enqueue("good")
    with queue.edit() as e:
        e.change(e.get(id), status="processing", worker="w-1-abc.1")
    known = queue.workers

    def ended():
        with queue.edit() as e:
            if e.get(id).status == "processing":
                e.change(e.get(id), status="completed", finished_at=time.time())
        return known()

    monkeypatch.setattr(queue, "workers", ended)

    assert ids(Choice(status="stuck"), queue) == []


@pytest.mark.parametrize("cursor", ["before", "after"])
def test_a_file_that_is_cut_in_place_while_a_page_is_made_harms_nothing(queue, monkeypatch, cursor):
    queue.enqueue_many(("good", n) for n in range(3))
    known = looking.read_header

    def cut(fd, path):
        header = known(fd, path)
        os.truncate(path, 10)
        return header

    monkeypatch.setattr(looking, "read_header", cut)

    assert page(Choice(), queue, **{cursor: "6474847126a6107c"}).jobs == []


def test_parents_that_are_nowhere_are_looked_for_once(queue, monkeypatch):
    parents = queue.enqueue_many(("good", n) for n in range(600))
    queue.enqueue_many({"job_type": "good", "after": "any:" + id} for id in parents)
    with open(queue.path, "rb+") as file:
        lines = file.readlines()
        file.seek(0)
        file.truncate()
        file.writelines([lines[0], *lines[601:]])
    monkeypatch.setattr(kinds, "get", None)  # one by one, each would be a look at the whole file
    cells = ["any:" + id for id in parents]
    found = Kinds(queue)

    found.read(cells)

    assert all(map(found.is_met, cells))


def test_parents_in_the_archive_count_with_their_status(queue):
    parents = queue.enqueue_many(("good", n) for n in range(600))
    waiting = queue.enqueue_many({"job_type": "good", "after": "ok:" + id} for id in parents)
    queue.process_jobs({"good": str}, max_jobs=600)
    with open(queue.path, "rb+") as file:
        lines = file.readlines()
        file.seek(0)
        file.truncate()
        file.writelines([lines[0], *lines[601:]])
    os.makedirs(queue.path + ".d/archive", exist_ok=True)
    month = lookup.archive_path(queue.file, lookup.month_of(parents[0]))
    with open(month, "wb") as file:
        file.writelines(lines[:601])

    found = Kinds(queue)
    found.read({queue.get(id).after for id in waiting})

    assert all(found.is_met(queue.get(id).after) for id in waiting)


@pytest.mark.parametrize("asked", [{"tag": "rare"}, {"worker": "anna"}])
def test_a_rare_tag_or_worker_is_found_without_reading_every_row(queue, asked, monkeypatch):
    queue.enqueue_many(("good", n) for n in range(100))
    id = queue.enqueue("good", columns=tags("rare", "more"))
    with queue.edit() as e:
        e.change(e.get(id), worker="anna-1-abcdef.1")
    known, read = looking.row, []
    monkeypatch.setattr(looking, "row", lambda line, header: read.append(1) or known(line, header))

    assert ids(Choice(**asked), queue) == [id]

    assert len(read) < 3


@pytest.mark.soak
def test_a_hundred_thousand_ids_cost_no_square(queue):
    made = queue.enqueue_many(("good", n) for n in range(100_000))
    began = time.perf_counter()

    assert count(Choice(ids=made), queue) == len(made)

    assert time.perf_counter() - began < 30
