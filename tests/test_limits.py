"""Limits: how often jobs start, how many run at a time, paused queues, a bound on length."""

import asyncio
import inspect
import os
import stat
import time
from datetime import timedelta

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, QueueError, Retry, Snooze
from dbbasic_queue.errors import BadArgument, DuplicateId
from dbbasic_queue.limits import (
    QueueFull,
    concurrency,
    enqueue_bounded,
    pause,
    paused,
    rate,
    resume,
)

START = "2030-01-01 00:00:00"  # a multiple of all the windows below


def completed(queue):
    return queue.counts().get("completed", 0)


def tick(queue, *admit, **options):
    """Run one tick of a handler for mail and note; return how many jobs it completed."""
    before = completed(queue)
    queue.process_jobs({"mail": len, "note": len}, admit=admit, **options)
    return completed(queue) - before


def forked(does):
    """Do it in a process of its own, and return whether it ended well."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            does()
            status = 0
        finally:
            os._exit(status)
    return not os.waitpid(pid, 0)[1]


def ran_beside(queue, *admit):
    """While the first due job runs, let another process run a tick; return what that one ran."""
    seen = []

    def mail(payload):
        if not seen:
            before = {job.id for job in queue.jobs(status="completed")}
            assert forked(lambda: tick(queue, *admit))
            seen.append([j for j in queue.jobs(status="completed") if j.id not in before])

    queue.process_jobs({"mail": mail, "note": len}, max_jobs=1, admit=admit)
    return [(job.type, job.queue, job.payload) for job in seen[0]]


def lines(queue):
    """The lines in the one file of starts."""
    [name] = os.listdir(queue.file.side + "/limits")
    with open(f"{queue.file.side}/limits/{name}", "rb") as file:
        return file.read().split(b"\n")


def starts_file(queue):
    [name] = os.listdir(queue.file.side + "/limits")
    return f"{queue.file.side}/limits/{name}"


# --- concurrency


def test_no_more_than_n_run_at_a_time_and_others_are_not_held_up(queue):
    for type in ("mail", "mail", "note"):
        queue.enqueue(type, type)

    assert ran_beside(queue, concurrency(1, type="mail")) == [("note", "default", "note")]
    assert tick(queue, concurrency(1, type="mail")) == 1


def test_two_may_run_where_two_are_allowed(queue):
    for number in range(2):
        queue.enqueue("mail", [number])

    assert ran_beside(queue, concurrency(2, type="mail")) == [("mail", "default", [1])]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ({}, []),
        ({"type": "mail"}, ["slow note"]),
        ({"type": ["mail", "note"]}, []),
        ({"queue": "default"}, ["slow mail", "slow note"]),
        (
            {"queue": ("default", "slow"), "type": "note"},
            ["default mail", "slow mail", "slow note"],
        ),
        ({"type": "mail", "key": "to"}, ["default mail", "slow note"]),
        ({"type": "mail", "key": lambda payload: len(payload["to"])}, ["slow note"]),
    ],
    ids=str,
)
def test_type_queue_and_key_say_which_jobs_are_limited_together(queue, words, left):
    queue.enqueue("mail", {"to": "ada"})
    queue.enqueue("mail", {"to": "bob"})
    queue.enqueue("mail", {"to": "ada"}, queue="slow")
    queue.enqueue("note", {"to": "ada"}, queue="slow")

    ran = ran_beside(queue, concurrency(1, **words))

    assert sorted(f"{label} {type}" for type, label, _ in ran) == left


def test_jobs_without_the_field_have_one_limit_in_common(queue):
    for payload in ({"to": "ada"}, None, [5], {}, {"to": None}):
        queue.enqueue("mail", payload)
    queue.enqueue("mail", {"to": "bob"})
    begun = []

    def mail(payload):
        if payload is None:
            begun.append(ran_beside_now(queue))

    def ran_beside_now(queue):
        assert forked(lambda: tick(queue, concurrency(1, key="to")))
        return [job.payload for job in queue.jobs(status="completed")]

    queue.process_jobs({"mail": mail}, max_jobs=2, admit=[concurrency(1, key="to")])

    assert begun == [[{"to": "ada"}, {"to": "bob"}]]


def test_keys_that_are_equal_in_python_and_not_in_json_are_apart(queue):
    for value in (1, True, "1", 1.0, ["1"]):
        queue.enqueue("mail", {"to": value})

    ran = ran_beside(queue, concurrency(1, key="to"))

    assert [payload["to"] for _, _, payload in ran] == [True, "1", 1.0, ["1"]]


def test_a_key_function_that_raises_leaves_the_job_and_is_logged(queue, caplog):
    queue.enqueue("mail", {})
    queue.enqueue("mail", {"to": "ada"})

    ran = tick(queue, concurrency(1, key=lambda payload: payload["to"]))

    assert ran == 1
    assert "KeyError('to')" in caplog.text


def test_several_limits_must_all_let_a_job_start(queue):
    for _ in range(3):
        queue.enqueue("mail", [], queue="slow")

    assert tick(queue, concurrency(5, type="mail"), rate(1, 60, queue="slow")) == 1
    assert tick(queue, rate(1, 60, queue="slow"), concurrency(5, type="mail")) == 0


def test_a_job_whose_worker_was_killed_holds_no_slot(queue):
    def dies(payload):
        os.kill(os.getpid(), 9)

    queue.enqueue("mail", [])
    limit = [concurrency(1, type="mail")]
    assert not forked(lambda: queue.process_jobs({"mail": dies}, admit=limit))

    assert queue.counts() == {"processing": 1}
    assert tick(queue, *limit) == 1


def test_a_refused_type_is_asked_for_once_in_an_edit(queue, tmp_path):
    queue.enqueue_many([("mail", [n]) for n in range(500)])
    queue.enqueue("note", [])
    asked = tmp_path / "asked"

    def noting(job, counts):
        with open(asked, "a") as file:
            file.write(f"{job.type}\n")

    ran_beside(queue, noting, concurrency(1, type="mail"))

    assert asked.read_text().split() == ["mail", "mail", "note", "mail"]


# --- rate


@pytest.mark.parametrize(
    ("how", "started"),
    [
        # by the second, from 55 s on: two in 60 s
        ("sliding", {55: 2, 115: 2, 175: 2}),
        ("fixed", {55: 2, 60: 2, 120: 2, 180: 2}),
        ("spacing", {55: 1, 85: 1, 115: 1, 145: 1, 175: 1}),
    ],
)
def test_how_a_rate_spreads_starts_over_time(queue, how, started):
    queue.enqueue_many([("mail", [n]) for n in range(20)])
    limit, found = rate(2, 60, type="mail", how=how), {}

    with freeze_time(START) as clock:
        for second in (54.999, 55, 59.999, 60, 84.999, 85, 114.999, 115, 119.999, 120, 145, 174.999,
                       175, 180):  # fmt: skip
            clock.move_to(START)
            clock.tick(second)
            if second >= 55 and (ran := tick(queue, limit)):
                found[second] = ran

    assert found == started


def test_each_key_has_a_rate_of_its_own(queue):
    for to in ("ada", "bob", "ada", "bob", "a\tda\n", "x" * 10_000):
        queue.enqueue("mail", {"to": to})

    assert tick(queue, rate(1, 60, key="to")) == 4
    assert all(len(line) < 150 for line in lines(queue))


def test_n_may_change_between_two_ticks_and_the_starts_stay(queue):
    queue.enqueue_many([("mail", [n]) for n in range(9)])

    assert [tick(queue, rate(n, 60)) for n in (2, 5, 3)] == [2, 3, 0]


def test_a_retry_and_a_snoozed_job_are_starts_again(queue):
    queue.enqueue("mail", 0)
    ends = iter([Retry("later", after=0), Snooze(0), Snooze(0)])

    def mail(payload):
        raise next(ends)

    for _ in range(3):
        queue.process_jobs({"mail": mail}, admit=[rate(2, 60)])

    assert [queue.get(next(queue.jobs()).id).attempts, len(list(ends))] == [1, 1]


def test_a_start_is_noted_only_when_the_job_is_claimed(queue):
    queue.enqueue("mail", [])

    tick(queue, rate(1, 60, type="mail"), lambda job, counts: False)
    assert not os.path.exists(queue.file.side + "/limits")

    assert tick(queue, rate(1, 60, type="mail")) == 1


def test_a_start_that_was_noted_counts_though_another_function_then_failed(queue):
    queue.enqueue_many([("mail", [n]) for n in range(2)])

    def fails(job, counts):
        counts.if_claimed(lambda: 1 / 0)

    assert tick(queue, rate(1, 60), fails) == 0
    assert tick(queue, rate(1, 60)) == 0
    assert len(lines(queue)) == 2


@pytest.mark.soak
def test_a_worker_that_waits_starts_the_next_job_when_the_window_opens(queue):
    queue.enqueue_many([("mail", n) for n in range(4)])
    at = []

    queue.process_jobs(
        {"mail": lambda payload: at.append(time.monotonic())},
        run_for=10,
        max_jobs=4,
        admit=[rate(20, 1, how="spacing")],
    )

    assert 0.14 <= at[3] - at[0] < 0.5


def test_a_clock_that_is_set_back_lets_nobody_wait_longer_than_one_window(queue):
    queue.enqueue_many([("mail", [n]) for n in range(6)])
    limit = rate(2, 60)

    with freeze_time(START) as clock:
        ran = [tick(queue, limit)]
        for seconds in (-86400, 59, 1):
            clock.tick(seconds)
            ran.append(tick(queue, limit))

    assert ran == [2, 0, 0, 2]


def test_a_torn_last_line_is_cut_and_lines_that_cannot_be_read_count_for_nothing(queue):
    queue.enqueue_many([("mail", [n]) for n in range(6)])
    tick(queue, rate(2, 60))
    path = starts_file(queue)
    with open(path, "ab") as file:
        file.write(b"hello\n\0\0\n99999999999999999999.000000\t\n-5.000000\t\n5\t\n1893456000.00")

    ran = [tick(queue, rate(2, 60)), tick(queue, rate(3, 60)), tick(queue, rate(3, 60))]

    assert ran == [0, 1, 0]
    assert lines(queue)[-1] == b""
    assert b"1893456000.001" not in b"\n".join(lines(queue))
    assert lines(queue)[2:-2] == [
        b"hello", b"\0\0", b"99999999999999999999.000000\t", b"-5.000000\t", b"5\t"
    ]  # fmt: skip


@pytest.mark.soak
def test_starts_outside_the_window_are_forgotten_in_the_end(queue):
    limit, most = rate(5, 10, type="mail"), 0

    with freeze_time(START) as clock:
        for _ in range(30):
            queue.enqueue_many([("mail", [])] * 5)
            tick(queue, limit)
            most = max(most, len(lines(queue)))
            clock.tick(10)

    assert completed(queue) == 150
    assert most <= 70
    assert os.listdir(queue.file.side + "/limits") == [os.path.basename(starts_file(queue))]


def test_the_file_of_starts_is_as_open_as_the_queue(queue):
    queue.enqueue("mail", [])
    os.chmod(queue.path, 0o664)

    tick(queue, rate(1, 60))

    assert stat.S_IMODE(os.stat(starts_file(queue)).st_mode) == 0o664


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_in_the_place_of_the_starts_is_not_written_through(queue, tmp_path, caplog, link):
    other = tmp_path / "other"
    other.write_text("mine\n")
    queue.enqueue("mail", [])
    tick(queue, rate(1, 0.001))
    queue.enqueue("mail", [])
    path = starts_file(queue)
    os.unlink(path)
    link(other, path)

    assert tick(queue, rate(1, 0.001)) == 0

    assert other.read_text() == "mine\n"
    assert "it is left" in caplog.text


def by_length(payload):
    return len(payload)


def test_rates_with_the_same_words_share_their_starts_and_others_do_not(queue):
    queue.enqueue_many([("mail", [n]) for n in range(9)])
    same = [
        rate(1, 60, type="mail", key=by_length),
        rate(1, timedelta(minutes=1), type=["mail"], key=by_length),
    ]
    others = [
        rate(1, 60, type="mail"),
        rate(1, 61, type="mail", key=by_length),
        rate(1, 60, queue="default", key=by_length),
        rate(1, 60, type="mail", key=by_length, how="fixed"),
        rate(1, 60, type="mail", key="by_length"),
        rate(1, 60, type="mail", key=lambda payload: 1, name="mine"),
    ]

    assert [tick(queue, one) for one in same] == [1, 0]
    assert [tick(queue, one) for one in others] == [1] * 6
    assert "mine.sliding.60.0" in os.listdir(queue.file.side + "/limits")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: rate(0, 60), "n=0"),
        (lambda: rate(True, 60), "n=True"),
        (lambda: rate("5", 60), "n='5'"),
        (lambda: rate(5, 0), "seconds=0"),
        (lambda: rate(5, -1), "-1"),
        (lambda: rate(5, "1"), "'1'"),
        (lambda: rate(5, float("inf")), "inf"),
        (lambda: rate(5, 60, how="often"), "how='often'"),
        (lambda: rate(5, 60, type=""), "type=''"),
        (lambda: rate(5, 60, type="a b"), "type='a b'"),
        (lambda: rate(5, 60, type=[]), r"type=\[\]"),
        (lambda: rate(5, 60, type=5), "type=5"),
        (lambda: rate(5, 60, queue=["a", "b/c"]), "queue='b/c'"),
        (lambda: rate(5, 60, key=5), "key=5"),
        (lambda: rate(5, 60, key=""), "key=''"),
        (lambda: rate(5, 60, key=lambda payload: 1), "give name="),
        (lambda: rate(5, 60, name="../x"), "name="),
        (lambda: rate(5, 60, name=".."), "name="),
        (lambda: concurrency(0), "n=0"),
        (lambda: concurrency(1.5), "n=1.5"),
        (lambda: concurrency(1, queue=[None]), r"queue=\[None\]"),
    ],
    ids=str,
)
def test_what_makes_no_limit_is_refused_by_name(make, named):
    with pytest.raises(BadArgument, match=named):
        make()


# --- aging


@pytest.mark.parametrize(("settings", "waited"), [({"aging": 60}, 600), ({}, None)], ids=str)
def test_with_aging_a_low_priority_starts_in_time_under_a_stream_of_high_ones(
    queue, settings, waited
):
    started = None

    with freeze_time(START) as clock:
        begun = time.time()
        low = queue.enqueue("mail", [], priority=10)
        for _ in range(15):
            queue.enqueue("note", [])
            tick(queue, max_jobs=1, settings={"default": settings})
            if started is None and queue.get(low).finished:
                started = time.time() - begun
            clock.tick(60)

    assert started == waited


# --- pause, resume


def test_no_job_of_a_paused_queue_starts_until_it_is_resumed(queue):
    queue.enqueue("mail", [], queue="slow")
    queue.enqueue("note", [])

    did = [pause("slow", queue), pause("slow", queue), pause("other", queue)]
    ran = [tick(queue), tick(queue)]
    labels = paused(queue)
    did += [resume("slow", queue), resume("slow", queue)]

    assert did == [True, False, True, True, False]
    assert labels == ["other", "slow"]
    assert [*ran, tick(queue)] == [1, 0, 1]


def test_when_nothing_is_paused_there_is_no_file(queue):
    queue.enqueue("mail", [])
    os.chmod(queue.path, 0o664)

    pause("default", queue)
    mode = os.stat(queue.file.side + "/paused").st_mode
    resume("default", queue)

    assert stat.S_IMODE(mode) == 0o664
    assert os.listdir(queue.file.side) == []
    assert paused(queue) == []


@pytest.mark.parametrize("call", [pause, resume])
@pytest.mark.parametrize("label", ["", "a b", "a\nb", None, "x" * 101])
def test_what_is_no_label_is_not_paused(queue, call, label):
    with pytest.raises(BadArgument, match="label="):
        call(label, queue)


def test_a_queue_that_is_not_there_is_not_made_by_a_pause(queue):
    with pytest.raises(QueueError, match="no queue yet"):
        pause("mail", queue)

    assert not resume("mail", queue)
    assert paused(queue) == []
    assert not os.path.exists(queue.path)


def test_a_handler_pauses_the_queue_in_which_it_runs(queue):
    queue.enqueue_many([("mail", n) for n in range(3)])

    queue.process_jobs({"mail": lambda payload: pause("default")})

    assert paused(queue) == ["default"]


def test_processes_that_pause_different_queues_lose_none(queue):
    queue.enqueue("mail", [])
    for label in ("a0", "b0"):
        pause(label, queue)

    def changes(name):
        for number in range(5):
            assert pause(f"{name}{number + 1}", queue)
            assert resume(f"{name}{number}", queue)

    pids = []
    for name in "ab":
        pid = os.fork()
        if not pid:
            changes(name)
            os._exit(0)
        pids.append(pid)

    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    assert paused(queue) == ["a5", "b5"]


# --- a bound on length


def test_a_queue_that_is_full_takes_no_job(queue):
    added = [enqueue_bounded("mail", n, longest=2, queue="slow", queue_file=queue) for n in (1, 2)]

    with pytest.raises(QueueFull, match=r"queue\.tsv: 2 jobs of queue slow are unfinished"):
        enqueue_bounded("mail", 3, longest=2, queue="slow", queue_file=queue)

    assert [job.id for job in queue.jobs()] == added
    assert enqueue_bounded("mail", 4, longest=1, queue_file=queue)


def test_what_is_finished_or_in_another_queue_takes_no_room(queue):
    for status in ("pending", "completed", "failed", "cancelled", "processing"):
        job_id = queue.enqueue("pending", "\tslow\t", queue="slow", group="slow")
        with queue.edit() as e:
            e.change(e.get(job_id), status=status)
    queue.enqueue_many([("slow", n) for n in range(5)])

    def add(longest, label):
        return enqueue_bounded("mail", longest=longest, queue=label, queue_file=queue)

    with pytest.raises(QueueFull):
        add(2, "slow")
    assert add(3, "slow")
    assert add(6, "default")
    with pytest.raises(QueueFull):
        add(6, "default")


def test_a_bounded_enqueue_takes_what_enqueue_takes_and_tells_the_listeners(tmp_path):
    told = []
    queue = Queue(tmp_path / "q.tsv", listeners=[lambda event, job: told.append((event, job.id))])
    first = queue.enqueue("first")

    id = enqueue_bounded(
        "mail", {"a": 1}, timedelta(hours=1), longest=9, priority=3, max_attempts=2, timeout=5,
        backoff="none", after=first, group="g", columns={"tenant": "x"}, queue_file=queue,
    )  # fmt: skip

    job = queue.get(id)
    assert (job.payload, job.priority, job.raw("after"), job.cell("tenant")) == (
        {"a": 1},
        3,
        b"ok:" + first.encode(),
        "x",
    )
    assert told[1:] == [("enqueued", id)]
    with pytest.raises(DuplicateId):
        enqueue_bounded("mail", longest=9, id=first, queue_file=queue)


def test_a_bounded_enqueue_has_every_argument_of_enqueue():
    mine = dict(inspect.signature(enqueue_bounded).parameters)
    theirs = dict(inspect.signature(Queue.enqueue).parameters)
    added = [mine.pop(name) for name in ("longest", "queue_file")]

    assert [one.name for one in added] == ["longest", "queue_file"]
    assert {str(one) for one in mine.values()} == {str(one) for one in theirs.values()} - {"self"}


@pytest.mark.parametrize("longest", [0, -1, 1.0, True, None, "5"])
def test_what_is_no_bound_is_refused_by_name(queue, longest):
    with pytest.raises(BadArgument, match="longest="):
        enqueue_bounded("mail", longest=longest, queue_file=queue)

    assert not os.path.exists(queue.path)


def test_processes_that_add_at_once_keep_to_the_bound(queue):
    fill(queue, processes=4, bound=10, each=10)

    assert queue.counts() == {"pending": 10}


def fill(queue, processes, bound, each):
    pids = []
    for _ in range(processes):
        pid = os.fork()
        if not pid:
            for number in range(each):
                try:
                    enqueue_bounded("mail", number, longest=bound, queue_file=queue)
                except QueueFull:
                    pass
            os._exit(0)
        pids.append(pid)
    assert not any(os.waitpid(pid, 0)[1] for pid in pids)


@pytest.mark.faults
def test_fifty_processes_at_a_bound_of_a_hundred_leave_exactly_a_hundred(queue):
    fill(queue, processes=50, bound=100, each=10)

    assert queue.counts() == {"pending": 100}


# --- with handlers that run side by side


@pytest.mark.soak
@pytest.mark.parametrize(
    ("limit", "most"),
    [(concurrency(3, type="mail"), 3), (rate(200, 1, type="mail", how="spacing"), 4)],
    ids=["concurrency", "rate"],
)
def test_async_handlers_start_as_soon_as_a_limit_lets_them(queue, limit, most):
    queue.enqueue_many([("mail", n) for n in range(8)])
    running, side_by_side = set(), []

    async def mail(payload):
        running.add(payload)
        side_by_side.append(len(running))
        await asyncio.sleep(0.05)
        running.remove(payload)

    queue.process_jobs({"mail": mail}, run_for=10, max_jobs=8, concurrency=4, admit=[limit])

    assert completed(queue) == 8
    assert max(side_by_side) == most


def test_the_key_of_a_tasks_call_is_an_argument_given_by_name(queue):
    for name in ("ana", "ben", "ana"):
        queue.enqueue("send", {"args": [], "kwargs": {"to": name}})

    queue.process_jobs({"send": lambda payload: None}, admit=[rate(1, 3600, type="send", key="to")])

    assert [job.status for job in queue.jobs()] == ["completed", "completed", "pending"]
