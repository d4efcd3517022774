"""A job that waits for others: every word of `after`, and what becomes of it when they end."""

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import after, current_job
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.new import new_job
from dbbasic_queue.tsv import STATUSES

A, B = "00000000000000aa", "00000000000000bb"


def fail(payload):
    raise ValueError("not today")


# The types say how a job ends: "off" is cancelled before the tick, for "late" nobody has a handler.
HANDLERS = {"good": str, "bad": fail, "child": str}


def tick(queue, **options):
    queue.process_jobs(HANDLERS, 1, **options)


def add(queue, types, **arguments):
    return [queue.enqueue(job_type, **arguments) for job_type in types.split()]


def outcome(queue, child):
    """Let everything run that can, and return how the child ended."""
    for job in list(queue.jobs(type="off")):
        queue.cancel(job.id)
    tick(queue)
    job = queue.get(child)
    if job.status == "cancelled":
        assert job.error and not any(word in job.error for word in STATUSES)
    return job.status


@pytest.mark.parametrize(
    "word, parents, expected",
    [
        ("ok", "good", "completed"),
        ("ok", "bad", "cancelled"),
        ("ok", "off", "cancelled"),
        ("ok", "late", "pending"),
        ("ok", "good good", "completed"),
        ("ok", "good late", "pending"),
        ("ok", "good bad", "cancelled"),
        ("ok", "late bad", "cancelled"),
        ("notok", "good", "cancelled"),
        ("notok", "bad", "completed"),
        ("notok", "off", "completed"),
        ("notok", "late", "pending"),
        ("notok", "bad off", "completed"),
        ("notok", "bad good", "cancelled"),
        ("notok", "late good", "cancelled"),
        ("notok", "bad late", "pending"),
        ("any", "good", "completed"),
        ("any", "bad", "completed"),
        ("any", "off", "completed"),
        ("any", "late", "pending"),
        ("any", "good bad off", "completed"),
        ("any", "good bad late", "pending"),
    ],
)
def test_of_a_list_of_jobs_each_must(queue, word, parents, expected):
    ids = add(queue, parents)
    child = queue.enqueue("child", after=f"{word}:{','.join(ids)}")

    assert outcome(queue, child) == expected


@pytest.mark.parametrize(
    "condition, members, expected",
    [
        ("ok:@g", "good good", "completed"),
        ("ok:@g", "good late", "pending"),
        ("ok:@g", "good bad", "cancelled"),
        ("ok:@g", "good off", "cancelled"),
        ("ok:@g", "late bad", "cancelled"),
        ("ok:@g~0", "good good", "completed"),
        ("ok:@g~0", "good bad", "cancelled"),
        ("ok:@g~1", "good bad", "completed"),
        ("ok:@g~1", "late bad", "pending"),
        ("ok:@g~1", "bad off late", "cancelled"),
        ("ok:@g~5", "bad off", "completed"),
        ("ok:@g~5", "bad off late", "pending"),
        ("any:@g", "good bad off", "completed"),
        ("any:@g", "good bad late", "pending"),
        ("notok:@g", "good good", "cancelled"),
        ("notok:@g", "good late", "pending"),
        ("notok:@g", "good bad", "completed"),
        ("notok:@g", "late bad", "completed"),
        ("notok:@g~1", "bad late", "pending"),
        ("notok:@g~1", "bad good", "cancelled"),
        ("notok:@g~1", "bad off late", "completed"),
    ],
)
def test_of_a_group_all_must_but_at_most_so_many(queue, condition, members, expected):
    add(queue, members, group="g")
    add(queue, "late bad", group="another")
    child = queue.enqueue("child", after=condition)

    assert outcome(queue, child) == expected


@pytest.mark.parametrize(
    "parents, expected",
    [
        ("good bad good", "completed"),
        ("bad bad good", "cancelled"),
        ("good good good", "cancelled"),
        ("good bad bad", "cancelled"),
        ("late bad good", "pending"),
        ("good late good", "pending"),
        ("good bad late", "pending"),
        ("late good late", "cancelled"),
    ],
)
def test_of_several_conditions_all_must_hold(queue, parents, expected):
    one, two, three = parents.split()
    first, second = add(queue, f"{one} {two}")
    add(queue, three, group="g")
    child = queue.enqueue("child", after=f"ok:{first} notok:{second} ok:@g")

    assert outcome(queue, child) == expected


@pytest.mark.parametrize("form", [lambda ids: ids, tuple, iter, lambda ids: f"ok:{','.join(ids)}"])
def test_plain_ids_mean_that_each_completes(queue, form):
    ids = add(queue, "good good")

    child = queue.enqueue("child", after=form(ids))

    assert queue.get(child).after == f"ok:{ids[0]},{ids[1]}"
    assert outcome(queue, child) == "completed"


def test_one_plain_id_means_that_it_completes(queue):
    (parent,) = add(queue, "bad")

    child = queue.enqueue("child", after=parent)

    assert queue.get(child).after == f"ok:{parent}"
    assert outcome(queue, child) == "cancelled"


def test_an_empty_list_waits_for_nobody(queue):
    child = queue.enqueue("child", after=[])

    assert outcome(queue, child) == "completed"


@pytest.mark.parametrize(
    "after",
    [
        "ok",
        "ok:",
        "ok:abc",
        f"OK:{A}",
        f"all:{A}",
        f"{A},{B}",
        f"ok:{A},",
        f"ok:{A}~1",
        f" ok:{A}",
        f"ok:{A}  ok:{B}",
        f"ok:{A}\tok:{B}",
        f"ok:{A}\n",
        f"ok:{A.upper()}",
        "ok:@",
        "ok:@a:b",
        "ok:@g~",
        "ok:@g~-1",
        "ok:@g~x",
        "ok:@g~١",
        "any:@g~1",
        5,
        [5],
        ["abc"],
        [A, "any:" + B],
    ],
    ids=repr,
)
def test_a_condition_that_is_none_is_refused_before_a_write(queue, after):
    queue.enqueue("good", id=A, group="g")
    queue.enqueue("good", id=B)
    before = Path(queue.path).read_bytes()

    with pytest.raises(BadArgument, match="after="):
        queue.enqueue("child", after=after)

    assert Path(queue.path).read_bytes() == before


@pytest.mark.parametrize("after", [B, f"any:{B}", [A, B], "ok:@nobody", f"ok:{A} any:@nobody"])
def test_a_parent_that_nobody_knows_is_refused_before_a_write(queue, after):
    queue.enqueue("good", id=A, group="g")
    before = Path(queue.path).read_bytes()

    with pytest.raises(BadArgument, match=f"{B}|nobody"):
        queue.enqueue("child", after=after)
    with pytest.raises(BadArgument, match=f"{B}|nobody"):
        queue.enqueue_many([("good", 1), {"job_type": "child", "after": after}])

    assert Path(queue.path).read_bytes() == before


def test_parents_may_come_in_the_same_call_before_or_behind(queue):
    ids = queue.enqueue_many(
        [
            {"job_type": "child", "after": A},
            {"job_type": "child", "after": "ok:@g"},
            {"job_type": "good", "id": A},
            {"job_type": "good", "group": "g"},
        ]
    )
    ran = []

    queue.process_jobs({name: lambda payload: ran.append(current_job().id) for name in HANDLERS})

    assert sorted(ran) == sorted(ids)
    assert ran.index(ids[2]) < ran.index(ids[0])
    assert ran.index(ids[3]) < ran.index(ids[1])


def test_a_group_that_only_its_own_follower_would_be_in_is_no_group(queue):
    try:
        child = queue.enqueue("child", group="g", after="ok:@g")
    except BadArgument:
        return

    assert outcome(queue, child) == "cancelled"


def test_what_follows_a_group_may_carry_its_label(queue):
    add(queue, "good good", group="g")
    then = queue.enqueue("child", group="g", after="ok:@g")
    catch = queue.enqueue("child", group="g", after="notok:@g")
    finally_ = queue.enqueue("child", group="g", after="any:@g")

    assert [outcome(queue, one) for one in (then, catch, finally_)] == [
        "completed",
        "cancelled",
        "completed",
    ]


def test_a_member_that_waits_for_another_job_is_a_member(queue):
    first = queue.enqueue("late")
    queue.enqueue("good", group="g", after=first)
    child = queue.enqueue("child", after="ok:@g")

    assert outcome(queue, child) == "pending"


# --- when the parents end


def test_a_waiting_job_does_not_overtake_its_parent(queue):
    ran = []
    parent = queue.enqueue("good", "parent", priority=5)
    queue.enqueue("good", "child", priority=-5, after=parent)

    queue.process_jobs({"good": ran.append})

    assert ran == ["parent", "child"]


def test_a_parent_that_is_tried_again_ends_nothing(queue):
    (parent,) = add(queue, "bad")
    child = queue.enqueue("child", after=f"ok:{parent}")
    catch = queue.enqueue("child", after=f"notok:{parent}")

    queue.process_jobs(HANDLERS, 2)

    assert queue.counts("type", "status") == {("bad", "pending"): 1, ("child", "pending"): 2}
    assert queue.get(child).after == f"ok:{parent}"
    assert queue.get(catch).error is None


def test_a_parent_that_ends_in_another_process_frees_the_child(queue, run_python):
    (parent,) = add(queue, "good")
    child = queue.enqueue("child", after=parent)
    code = f"from dbbasic_queue import Queue; Queue({queue.path!r}).process_jobs({{'good': str}})"
    tick(queue, queues=["none of them"])

    assert run_python(code).wait() == 0
    assert queue.get(parent).status == "completed"
    assert queue.get(child).status == "pending"
    assert outcome(queue, child) == "completed"


def test_a_parent_that_fails_in_another_process_ends_the_child_in_the_same_edit(queue, run_python):
    (parent,) = add(queue, "bad")
    child = queue.enqueue("child", after=parent)
    code = f"from dbbasic_queue import Queue; Queue({queue.path!r}).process_jobs({{'bad': int}}, 1)"

    assert run_python(code).wait() == 0
    assert queue.get(child).status == "cancelled"


@pytest.mark.parametrize(
    "parent_type, word, expected",
    [
        ("good", "ok", "completed"),
        ("good", "any", "completed"),
        ("good", "notok", "cancelled"),
        ("bad", "ok", "cancelled"),
        ("bad", "notok", "completed"),
    ],
)
@pytest.mark.parametrize("archived", [False, True], ids=["in the file", "in the archive"])
def test_a_job_may_come_later_than_its_parents_end(queue, parent_type, word, expected, archived):
    (parent,) = add(queue, parent_type)
    tick(queue)
    if archived:
        with freeze_time(timedelta(days=2)):
            assert queue.archive(86400) == 1

    child = queue.enqueue("child", after=f"{word}:{parent}")

    assert outcome(queue, child) == expected


def test_a_job_that_a_running_job_adds_behind_itself_runs_after_it(queue):
    ran = []

    def parent(payload):
        queue.enqueue("child", after=current_job().id)
        ran.append("parent")

    queue.enqueue("parent")
    queue.process_jobs({"parent": parent, "child": lambda payload: ran.append("child")})

    assert ran == ["parent", "child"]


def test_a_met_condition_does_not_hurry_a_later_time(queue):
    (parent,) = add(queue, "good")
    child = queue.enqueue("child", None, timedelta(hours=1), after=parent)

    tick(queue)
    early = queue.get(child).status
    with freeze_time(timedelta(hours=2)):
        tick(queue)

    assert (early, queue.get(child).status) == ("pending", "completed")


def test_the_cell_is_never_rewritten(queue):
    ids = add(queue, "good bad", group="g")
    after = f"any:{ids[0]} notok:@g ok:{ids[0]}"
    child = queue.enqueue("child", after=after)

    assert outcome(queue, child) == "completed"
    assert queue.get(child).cell("after") == after


# --- parents that are gone


def cut_out(queue, *ids):
    """Delete rows by hand, as a text editor does."""
    file = Path(queue.path)
    lines = file.read_bytes().split(b"\n")
    kept = [line for line in lines if line.split(b"\t")[0].decode() not in ids]
    file.write_bytes(b"\n".join(kept))


@pytest.mark.parametrize(
    "word, expected", [("any", "completed"), ("ok", "cancelled"), ("notok", "cancelled")]
)
def test_a_parent_that_is_gone_meets_any_and_ends_the_others(queue, word, expected):
    (parent,) = add(queue, "late")
    child = queue.enqueue("child", after=f"{word}:{parent}")
    cut_out(queue, parent)

    assert outcome(queue, child) == expected
    assert expected == "completed" or parent in queue.get(child).error


@pytest.mark.parametrize(
    "word, expected", [("any", "completed"), ("ok", "cancelled"), ("notok", "cancelled")]
)
def test_so_does_a_group_without_a_member(queue, word, expected):
    members = add(queue, "late late", group="g")
    child = queue.enqueue("child", after=f"{word}:@g")
    cut_out(queue, *members)

    assert outcome(queue, child) == expected


def test_a_condition_that_a_hand_edit_spoilt_waits_and_hurts_nobody(queue):
    (parent,) = add(queue, "good")
    child, other = queue.enqueue("child", after=parent), queue.enqueue("child", after=parent)
    with queue.edit() as e:
        e.change(e.get(child), after="ok nonsense")

    assert outcome(queue, child) == "pending"
    assert queue.get(other).status == "completed"


# --- down the graph, and back


def test_a_cancel_ends_what_can_never_run_down_the_whole_graph(queue):
    told = []
    queue.listeners = (lambda event, job: told.append((event, job.id)),)
    a = queue.enqueue("good")
    b = queue.enqueue("child", after=a)
    c = queue.enqueue("child", after=f"ok:{b}")
    catch = queue.enqueue("child", after=f"notok:{c}")
    last = queue.enqueue("child", after=f"any:{c} ok:{catch}")
    other = queue.enqueue("child")
    told.clear()

    queue.cancel(a)

    assert [queue.get(id).status for id in (a, b, c)] == ["cancelled"] * 3
    assert [queue.get(id).status for id in (catch, last, other)] == ["pending"] * 3
    assert told == [("cancelled", a), ("cancelled", b), ("cancelled", c)]
    assert queue.get(a).error is None
    assert a in queue.get(b).error and b in queue.get(c).error
    assert queue.get(b).finished_at
    assert outcome(queue, last) == "completed"


def test_a_long_chain_ends_in_one_edit(queue):
    ids = [f"{number:016x}" for number in range(1, 301)]
    chain = [{"job_type": "child", "id": ids[0]}]
    chain += [{"job_type": "child", "id": b, "after": a} for a, b in pairwise(ids)]
    queue.enqueue_many(chain)

    assert queue.cancel(ids[0])

    assert queue.counts("status") == {"cancelled": 300}


def test_retry_brings_back_what_was_cancelled_only_because_of_the_job(queue):
    bad, also_bad = add(queue, "bad bad")
    child = queue.enqueue("child", after=bad)
    grandchild = queue.enqueue("child", after=f"ok:{child}")
    of_group = queue.enqueue("child", after=[bad, child], group="g")
    of_both = queue.enqueue("child", after=[bad, also_bad])
    by_hand = queue.enqueue("child", after=bad)
    queue.cancel(by_hand)
    tick(queue)
    assert queue.counts("status") == {"failed": 2, "cancelled": 5}

    back = queue.retry(bad)

    assert back[0] == bad
    assert sorted(back[1:]) == [child, grandchild, of_group]
    assert all(queue.get(id).status == "pending" for id in back)
    assert all(queue.get(id).error is None for id in back)
    assert all(queue.get(id).finished_at is None for id in back)
    assert queue.get(of_both).status == queue.get(by_hand).status == "cancelled"
    queue.process_jobs({**HANDLERS, "bad": str})
    assert [queue.get(id).status for id in back] == ["completed"] * 4


def test_retry_of_a_member_brings_back_what_follows_the_group(queue):
    members = add(queue, "good bad", group="g")
    then = queue.enqueue("child", group="g", after="ok:@g")
    tick(queue)

    back = queue.retry(members[1])

    assert back == [members[1], then]


def test_retry_of_the_child_alone_ends_it_again(queue):
    (parent,) = add(queue, "bad")
    child = queue.enqueue("child", after=parent)
    tick(queue)

    queue.retry(child)

    assert outcome(queue, child) == "cancelled"
    assert parent in queue.get(child).error


def test_a_listener_is_told_of_a_retried_job_as_it_is_before_it_is_claimed_again(queue):
    told, fails = [], [ValueError("once")]
    (parent,) = add(queue, "good")
    queue.enqueue("child", after=parent, backoff="none")

    queue.process_jobs(
        {"good": str, "child": lambda payload: fail(fails.pop()) if fails else None},
        listeners=[lambda event, job: told.append((event, job.status, job.worker is None))],
        run_for=5,
        max_jobs=3,
    )

    assert told[3] == ("retried", "pending", True)


def fail(problem):
    raise problem


def test_a_worker_tells_its_listeners_whom_it_cancelled(queue):
    told = []
    (parent,) = add(queue, "bad")
    child = queue.enqueue("child", after=parent)

    tick(queue, listeners=[lambda event, job: told.append((event, job.id))])

    assert told == [("started", parent), ("failed", parent), ("cancelled", child)]


def test_the_last_rows_of_a_group_are_read_from_the_end_of_a_long_file(queue):
    long = "x" * (700 << 10)
    for number in range(6):
        queue.enqueue("run", [number, long], group="g" if number % 2 else "h")
    queue.enqueue("last", after="ok:@g")

    with queue.edit() as e:
        e.change(next(e.scan()), priority=1)
        found = [job.payload[0] for job in e.last_rows(b"\tg\t") if job.type == "run"]

    assert found == [0, 5, 3, 1]  # what was changed comes first


def test_a_long_row_of_cancellations_counts_a_group_once(queue, monkeypatch):
    queue.enqueue_many([{"job_type": "run", "group": "g"} for _ in range(2)])
    first = queue.enqueue("run")
    queue.enqueue_many([{"job_type": "run", "after": first, "group": "g"} for _ in range(50)])
    queue.enqueue("last", after="ok:@g")
    counted = []
    real = after.count
    monkeypatch.setattr(after, "count", lambda *given: counted.append(1) or real(*given))

    queue.cancel(first)

    assert [job.status for job in queue.jobs(type="last")] == ["cancelled"]
    assert len(counted) <= 3


def test_many_groups_that_end_together_are_counted_in_one_look(queue, monkeypatch):
    for number in range(40):
        queue.enqueue("good", group=f"g{number}")
        queue.enqueue("child", after=f"ok:@g{number}")
    counted = []
    real = after.count
    monkeypatch.setattr(after, "count", lambda *given: counted.append(1) or real(*given))

    tick(queue)

    assert queue.counts("type", "status") == {("good", "completed"): 40, ("child", "completed"): 40}
    assert len(counted) <= 20  # in the edits of this tick; not one for each


def test_a_long_chain_that_breaks_counts_its_group_a_few_times(queue, monkeypatch):
    before = queue.enqueue("bad", group="g")
    for _ in range(40):
        before = queue.enqueue("good", after=before, group="g")
    queue.enqueue("child", after="notok:@g")
    counted = []
    real = after.count
    monkeypatch.setattr(after, "count", lambda *given: counted.append(1) or real(*given))

    tick(queue)

    assert queue.counts("status") == {"failed": 1, "cancelled": 40, "completed": 1}
    assert len(counted) <= 20


def test_counts_of_all_groups_follow_what_the_edit_changes(queue):
    for number in range(12):
        queue.enqueue_many([{"job_type": "good", "group": f"g{number}"} for _ in range(2)])
        queue.enqueue("child", after=f"any:@g{number}", group=f"g{number}")

    with queue.edit() as e:
        for number in range(12):
            e.count_group(f"g{number}")
        first, second = (job for job in e.find("group", "g0") if not job.after)
        e.change(first, status="failed", finished_at=1)
        e.change(first, status="cancelled")
        e.change(second, group="g1")
        e.remove(next(e.find("group", "g2")))
        e.add(new_job("good", group="g3"))
        found = [e.count_group(f"g{number}") for number in (0, 1, 2, 3, 99)]

    assert [(one.any, one.open, one.notok) for one in found] == [
        (1, 0, 1), (3, 3, 0), (1, 1, 0), (3, 3, 0), (0, 0, 0),
    ]  # fmt: skip
