"""Functions and classes as jobs: how they are called, enqueued, checked, run and told of."""

import asyncio
import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from enum import IntEnum
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Discard, Queue, Retry, Snooze, current_job, enqueue
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.layers import is_async
from dbbasic_queue.tasks import Task, Tasks, handlers, task

NOT_YET = 2_000_000_000
ran = []


def nothing():
    return None


@pytest.fixture(autouse=True)
def nothing_ran_yet():
    ran.clear()


@pytest.fixture
def tasks():
    return Tasks()


@pytest.fixture
def queue(tmp_path):
    return Queue("data/queue.tsv", sync="off")  # the default one of this folder


@pytest.fixture
def run(queue, tasks):
    """Run what is due until nothing is, each attempt at once."""

    def run(**options):
        for _ in range(5):
            queue.process_jobs(tasks, **{"backoff": "none", **options})

    return run


@pytest.fixture
def send(tasks):
    @tasks.task
    def send(to, subject="hello", *more, urgent=False, **headers):
        ran.append((to, subject, more, urgent, headers))
        return {"to": to}

    return send


@pytest.fixture
def charge(tasks):
    """A class whose `handle` does what its argument says."""

    @tasks.task(max_attempts=2)
    class Charge:
        how: str
        cents: int = 100

        def handle(self):
            ran.append(("handle", self.how, current_job().attempts))
            if self.how == "raise":
                raise ValueError("card expired")
            if self.how == "discard":
                raise Discard("no such card")
            if self.how == "snooze" and len(ran) == 2:
                raise Snooze(0)
            if self.how == "snooze":
                raise ValueError("after all")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            return self.cents

        def failed(self, error):
            ran.append(("failed", self.how, error))

    return Charge


def job_of(queue, id):
    job = queue.get(id)
    return job.status, job.result, job.error


# Calling and enqueueing


def test_a_task_that_is_called_is_called_here_and_now_without_a_row(send, queue):
    assert send("ana", urgent=True) == {"to": "ana"}
    assert ran == [("ana", "hello", (), True, {})]
    assert not Path(queue.path).exists()


def test_a_task_runs_with_the_arguments_it_was_enqueued_with(send, queue, run):
    id = send.enqueue("ana", "hi", 1, [2], urgent=None, reply_to="ben")

    run()

    assert ran == [("ana", "hi", (1, [2]), None, {"reply_to": "ben"})]
    assert job_of(queue, id) == ("completed", {"to": "ana"}, None)
    assert queue.get(id).payload == {
        "args": ["ana", "hi", 1, [2]],
        "kwargs": {"urgent": None, "reply_to": "ben"},
    }


def test_defaults_are_not_stored_so_that_they_may_change(send, queue):
    assert queue.get(send.enqueue("ana")).payload == {"args": ["ana"], "kwargs": {}}


def test_a_name_of_an_argument_is_never_taken_for_one_of_ours(tasks, queue, run):
    @tasks.task
    def resize(queue, timeout, key, name, self=None):
        return [queue, timeout, key, name]

    id = resize.enqueue(queue="a", timeout="b", key="c", name="d")
    run()

    assert queue.get(id).result == ["a", "b", "c", "d"]
    assert (queue.get(id).queue, queue.get(id).timeout) == ("default", None)


def test_a_task_keeps_the_name_and_the_text_of_its_function(tasks):
    @tasks.task
    def report(day):
        """Write the report of a day."""

    assert (report.name, report.__name__, report.__doc__) == (
        "report", "report", "Write the report of a day.",
    )  # fmt: skip
    assert repr(report) == "<Task report>"
    assert list(tasks) == ["report"]


def test_the_modules_own_mapping_goes_into_process_jobs(queue, monkeypatch):
    monkeypatch.setattr(handlers, "_tasks", {})

    @task
    def only_here():
        ran.append("only_here")

    try:
        only_here.enqueue()
        queue.process_jobs(handlers)
    finally:
        del handlers["only_here"]

    assert ran == ["only_here"]


def test_an_async_task_runs_and_returns_its_result(tasks, queue, run):
    @tasks.task
    async def fetch(url):
        await asyncio.sleep(0)
        return url

    id = fetch.enqueue("x")
    run()

    assert job_of(queue, id) == ("completed", "x", None)
    assert asyncio.run(fetch("y")) == "y"


def test_async_tasks_run_side_by_side(tasks, queue):
    met = []

    async def layer(job, call_next):
        return await call_next(job)

    @tasks.task(middleware=[layer])
    async def meet(me):
        met.append(me)
        for _ in range(500):
            if len(met) == 3:
                return me
            await asyncio.sleep(0.01)
        raise ValueError("alone")

    @tasks.task
    class Meet:
        me: str

        async def handle(self):
            return await meet.function(self.me)

        async def failed(self, error):
            pass

    ids = [meet.enqueue("a"), meet.enqueue("b"), Meet.enqueue("c")]
    queue.process_jobs(tasks, concurrency=3)

    assert [queue.get(id).result for id in ids] == ["a", "b", "c"]


# using, job


def test_using_says_how_this_one_is_enqueued_and_changes_no_other(send, queue):
    parent = send.enqueue("first")

    urgent = send.using(
        run_at=NOT_YET, queue="mail", priority=-5, max_attempts=7, timeout=3, backoff="none",
        after=parent, group="g",
    )  # fmt: skip
    job = queue.get(urgent.enqueue("ana"))
    other = queue.get(send.enqueue("ben"))

    assert (job.run_at, job.queue, job.priority, job.max_attempts) == (NOT_YET, "mail", -5, 7)
    assert (job.timeout, job.backoff, job.after, job.group) == (3.0, "none", f"ok:{parent}", "g")
    assert (other.queue, other.priority, other.after) == ("default", 0, None)
    assert (urgent.name, urgent("x")) == ("send", {"to": "x"})


def test_using_again_keeps_what_was_said_before(tasks, queue):
    @tasks.task(queue="a", priority=4, max_attempts=2, timeout=9, backoff="none")
    def tick():
        pass

    job = queue.get(tick.using(run_at=timedelta(seconds=60)).using(queue="b").enqueue())

    assert (job.queue, job.priority, job.max_attempts, job.timeout) == ("b", 4, 2, 9.0)
    assert job.backoff == "none"
    assert 59 <= job.run_at - time.time() <= 61


def test_using_may_be_given_ids_that_can_be_read_once(send, queue):
    parents = [send.enqueue("a"), send.enqueue("b")]

    last = send.using(after=iter(parents))

    ids = [last.enqueue("c"), last.enqueue("d")]
    assert [queue.get(id).after for id in ids] == [f"ok:{parents[0]},{parents[1]}"] * 2


def test_a_task_may_have_a_queue_file_of_its_own(tasks, tmp_path):
    one, two = Queue(tmp_path / "one.tsv"), Queue(tmp_path / "two.tsv")

    @tasks.task(queue_file=one)
    def tick():
        pass

    ids = tick.using(priority=1).enqueue(), tick.using(queue_file=two).enqueue()

    assert [[job.id for job in q.jobs()] for q in (one, two)] == [[ids[0]], [ids[1]]]


def test_inside_a_worker_a_task_is_enqueued_where_the_worker_works(tasks, tmp_path, run):
    @tasks.task
    def count(n):
        if n:
            count.enqueue(n - 1)

    elsewhere = Queue(tmp_path / "elsewhere.tsv")
    count.using(queue_file=elsewhere).enqueue(3)
    elsewhere.process_jobs(tasks)

    assert elsewhere.counts("status") == {"completed": 4}


def test_many_calls_are_added_by_one_write(send, queue, run):
    ids = queue.enqueue_many([send.using(priority=n).job(f"user{n}") for n in range(3)])
    run()

    assert [queue.get(id).status for id in ids] == ["completed"] * 3
    assert [to for to, *_ in ran] == ["user0", "user1", "user2"]
    assert enqueue(**send.job("d")) in {job.id for job in queue.jobs()}


# What is checked at enqueue


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "missing a required argument: 'to'"),
        (("a",), {"to": "b"}, "multiple values for argument 'to'"),
        (({1, 2},), {}, "its argument to is not JSON: Object of type set"),
        ((b"x",), {}, "its argument to is not JSON: Object of type bytes"),
        ((object(),), {}, "its argument to is not JSON: Object of type object"),
        (("a", float("nan")), {}, "its argument subject is not JSON"),
        ((("a", "b"),), {}, r"its argument to is \('a', 'b'\), which JSON gives back as \['a'"),
        (({"x": [(1,)]},), {}, "its argument to is .*which JSON gives back as"),
        (({1: 2},), {}, "its argument to has the key 1, which is no string"),
        (("a", "b", 1, {2}), {}, "its argument more is not JSON"),
        (("a",), {"urgent": {3}}, "its argument urgent is not JSON"),
        (("a",), {"reply": {3}}, "its argument reply is not JSON"),
    ],
)
def test_a_call_that_cannot_be_made_is_refused_by_the_name_of_task_and_argument(
    send, queue, args, kwargs, says
):
    for add in (send.enqueue, send.job):
        with pytest.raises(BadArgument, match=f"task send: {says}"):
            add(*args, **kwargs)

    assert not Path(queue.path).exists()


def test_what_json_gives_back_as_it_was_is_taken(send, queue, run):
    values = [None, True, 0, -1.5, "é\t\u2028\ud800", [], {}, {"a": [{"b": None}]}, Number.ONE]

    send.enqueue("x", "y", *values)
    run()

    assert list(ran[0][2]) == values


def test_a_task_without_such_an_argument_refuses_it(tasks):
    @tasks.task
    def plain(a):
        pass

    with pytest.raises(BadArgument, match="task plain: got an unexpected keyword argument 'b'"):
        plain.enqueue(1, b=2)
    with pytest.raises(BadArgument, match="task plain: too many positional arguments"):
        plain.enqueue(1, 2)


# What does not fit when it runs


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"args": [], "kwargs": {}}, "task send: missing a required argument: 'to'"),
        ({"to": "ana"}, "task send: the payload is no call"),
        ({"args": ["ana"], "to": 1}, "task send: the payload is no call"),
        ({"args": {"to": 1}}, "task send: the payload is no call"),
        ({"kwargs": []}, "task send: the payload is no call"),
        (None, "task send: missing a required argument: 'to'"),
        ({}, "task send: missing a required argument: 'to'"),
        (0, "task send: the payload is no call"),
        (["ana"], "task send: the payload is no call"),
    ],
)
def test_a_payload_that_does_not_fit_ends_the_job_at_once_and_says_why(
    send, queue, run, payload, says
):
    id = enqueue("send", payload)
    run()

    job = queue.get(id)
    assert (job.status, job.attempts) == ("failed", 1)
    assert job.error.startswith(says)
    assert ran == []


@pytest.mark.parametrize("payload", [{"args": ["ana"]}, {"kwargs": {"to": "ana"}}])
def test_a_shell_may_leave_out_what_is_empty(send, run, payload):
    enqueue("send", payload)
    run()

    assert [to for to, *_ in ran] == ["ana"]


def test_a_task_without_arguments_may_be_enqueued_by_its_name(tasks, queue, run):
    @tasks.task
    def tick():
        ran.append("tick")

    enqueue("tick")
    enqueue(tick.name, {})
    run()

    assert ran == ["tick", "tick"]


def test_a_type_error_of_the_function_itself_is_tried_again(tasks, queue, run):
    @tasks.task
    def wrong(a):
        return a + 1

    id = wrong.enqueue("x")
    run(max_attempts=3)

    assert queue.get(id).attempts == 3
    assert queue.get(id).error.startswith("TypeError: can only concatenate")


# Names


def test_a_second_task_of_a_name_is_refused_and_both_places_are_named(send, tasks):
    def other():
        pass

    with pytest.raises(BadArgument, match=r"a task send already.*\.send: give .*\.other a name"):
        tasks.task(name="send")(other)
    elsewhere = {"__name__": "elsewhere"}
    exec("def send(): pass", elsewhere)
    elsewhere["send"].__qualname__ = send.__qualname__
    with pytest.raises(BadArgument, match=r"a task send already.* give elsewhere"):
        tasks.task(elsewhere["send"])
    tasks["plain"] = len
    with pytest.raises(BadArgument, match=r"a task plain already, builtins\.len"):
        tasks.task(name="plain")(other)
    assert Tasks().task(name="send")(other).name == "send"


def test_a_module_that_is_loaded_again_replaces_its_tasks(tmp_path, monkeypatch, queue):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "reloaded_tasks.py"
    text = "from dbbasic_queue.tasks import Tasks\nimport sys\n"
    text += "tasks = sys.modules.setdefault('the_tasks', Tasks())\n@tasks.task\ndef one(): return "
    file.write_text(text + "1")
    module = importlib.import_module("reloaded_tasks")
    monkeypatch.setitem(sys.modules, "the_tasks", module.tasks)

    file.write_text(text + "'two'")
    importlib.reload(module)

    id = module.one.enqueue()
    queue.process_jobs(module.tasks)
    assert queue.get(id).result == "two"


def test_a_script_that_is_imported_too_has_its_tasks_once(tmp_path, run_python):
    (tmp_path / "script.py").write_text(
        "from dbbasic_queue.tasks import handlers, task\n@task\ndef one(): pass\n"
        "if __name__ == '__main__':\n    import script\n    print(*handlers)\n"
    )

    name = str(tmp_path / "script.py")
    code = f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r})"
    child = run_python(f"{code}; runpy.run_path({name!r}, None, '__main__')")
    printed, _ = child.communicate(timeout=20)

    assert printed == "one\n"


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 101, 7, "a/b"])
def test_a_name_that_is_no_type_is_refused(tasks, name):
    with pytest.raises(BadArgument, match=r"^job_type="):
        tasks.task(name=name)(lambda: None)

    assert tasks == {}


def generates():
    yield


@pytest.mark.parametrize(
    ("options", "function", "says"),
    [
        ({}, lambda: None, "<lambda>"),
        ({}, 7, "no plain function"),
        ({}, generates, "no plain function"),
        ({}, type("NoHandle", (), {}), "no handle"),
        ({"queue": "a b"}, nothing, "queue='a b'"),
        ({"priority": "high"}, nothing, "priority='high'"),
        ({"max_attempts": 0}, nothing, "max_attempts=0"),
        ({"timeout": -1}, nothing, "timeout=-1"),
        ({"backoff": "slow"}, nothing, "backoff='slow'"),
        ({"unique": 7}, nothing, "unique=7"),
        ({"unique_for": 60}, nothing, "unique_for=60"),
        ({"unique": True, "unique_for": -1}, nothing, "-1"),
        ({"middleware": [7]}, nothing, "middleware="),
    ],
)
def test_what_cannot_be_a_task_is_refused_where_it_stands(tasks, options, function, says):
    with pytest.raises(BadArgument, match=says):
        tasks.task(**options)(function) if options else tasks.task(function)

    assert tasks == {}


def test_what_using_is_given_is_checked_at_once(send):
    with pytest.raises(BadArgument, match="priority='high'"):
        send.using(priority="high")


# Classes


def test_a_class_is_made_a_dataclass_and_its_fields_are_the_arguments(charge, queue, run):
    id = charge.enqueue("well", cents=250)
    run()

    assert isinstance(charge, Task)
    assert charge("well") == charge.function(how="well", cents=100)
    assert job_of(queue, id) == ("completed", 250, None)
    assert queue.get(id).payload == {"args": ["well"], "kwargs": {"cents": 250}}


def test_a_class_of_ones_own_is_left_as_it_is(tasks, queue, run):
    @tasks.task
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        n: int

        def handle(self):
            return self.n

    @tasks.task(name="own")
    class Own:
        def __init__(self, *numbers):
            self.numbers = numbers

        def handle(self):
            return sum(self.numbers)

    ids = Frozen.enqueue(1), Own.enqueue(1, 2)
    run()

    assert not dataclasses.is_dataclass(Own.function)
    assert [queue.get(id).result for id in ids] == [1, 3]
    assert [queue.get(id).type for id in ids] == ["Frozen", "own"]


# failed


def others(queue, id):
    return [job for job in queue.jobs() if job.id != id]


def test_failed_is_called_once_when_the_last_attempt_is_over(charge, queue, run):
    id = charge.enqueue("raise")
    run()

    assert ran == [
        ("handle", "raise", 1),
        ("handle", "raise", 2),
        ("failed", "raise", "ValueError: card expired"),
    ]
    assert job_of(queue, id) == ("failed", None, "ValueError: card expired")
    [told] = others(queue, id)
    assert (told.type, told.status, told.after) == ("Charge.failure", "completed", f"notok:{id}")


def test_failed_is_called_when_an_earlier_attempt_gives_up(charge, run):
    charge.enqueue("discard")
    run()

    assert ran == [("handle", "discard", 1), ("failed", "discard", "no such card")]


def test_failed_is_not_called_when_the_job_completes(charge, queue, run):
    id = charge.enqueue("well")
    run()

    assert ran == [("handle", "well", 1)]
    [told] = others(queue, id)
    assert (told.status, told.error) == ("cancelled", f"never notok: job {id}")


def test_failed_is_not_called_when_the_job_is_cancelled(charge, queue, run):
    queue.cancel(charge.enqueue("raise"))
    run()

    assert ran == []


def test_failed_is_called_when_a_layer_around_all_tasks_ends_the_job(charge, run):
    def layer(job, call_next):
        if job.type == "Charge":
            raise Discard("not allowed")
        return call_next(job)

    charge.enqueue("well")
    run(middleware=[layer])

    assert ran == [("failed", "well", "not allowed")]


@pytest.mark.parametrize("added", ["enqueue", "job"])
def test_a_snoozed_last_attempt_waits_with_one_row(charge, queue, run, added):
    if added == "enqueue":
        id = charge.enqueue("snooze")
    else:
        [id] = queue.enqueue_many([charge.job("snooze")])
    run()

    assert [attempt for *_, attempt in ran[:3]] == [1, 2, 2]
    assert ran[3:] == [("failed", "snooze", "ValueError: after all")]
    [told] = others(queue, id)
    assert (told.status, told.id) == ("completed", queue.get(id).cell("on_failure"))


def in_a_child(queue, tasks):
    child = os.fork()
    if not child:
        try:
            queue.process_jobs(tasks, backoff="none")
        finally:
            os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("added", ["enqueue", "job", "shell"])
def test_failed_is_called_when_the_last_attempt_kills_its_worker(charge, queue, tasks, run, added):
    if added == "enqueue":
        charge.enqueue("kill")
    elif added == "job":
        queue.enqueue_many([charge.job("kill")])
    else:
        enqueue("Charge", {"args": ["kill"]}, max_attempts=2)

    in_a_child(queue, tasks)
    in_a_child(queue, tasks)
    run()

    assert ran == [("failed", "kill", "worker died (signal 9)")] or ran == [
        ("failed", "kill", "worker died")
    ]
    assert queue.counts("type", "status") == {
        ("Charge", "failed"): 1,
        ("Charge.failure", "completed"): 1,
    }


def test_failed_is_called_for_a_mapping_and_for_a_row_without_max_attempts(charge, queue, run):
    queue.enqueue_many([charge.job("discard")])
    enqueue("Charge", {"args": ["raise"]})
    run(max_attempts=4)

    assert [one for one in ran if one[0] == "failed"] == [
        ("failed", "discard", "no such card"),
        ("failed", "raise", "ValueError: card expired"),
    ]


@pytest.mark.parametrize("told", ["completed", "failed"])
def test_failed_is_called_again_when_a_retried_job_fails_again(charge, queue, run, told):
    id = charge.enqueue("raise")
    run()
    with queue.edit() as e:
        e.change(e.get(queue.get(id).cell("on_failure")), status=told)
    queue.retry(id)
    run()

    assert [one[0] for one in ran] == ["handle", "handle", "failed"] * 2


def test_failed_waits_on_when_its_job_was_retried_before_it_began(charge, queue, tasks):
    retried = []

    def layer(job, call_next):
        if job.type == "Charge.failure" and not retried:
            retried.append(queue.retry(id))
        return call_next(job)

    with freeze_time() as clock:
        id = charge.using(max_attempts=1).enqueue("raise")
        for _ in range(4):
            queue.process_jobs(tasks, middleware=[layer])
            clock.tick(2)

    assert [one[0] for one in ran] == ["handle", "handle", "failed"]
    assert [told.status for told in others(queue, id)] == ["completed"]


def test_a_run_whose_failure_nobody_would_tell_does_not_begin(charge, queue, tasks):
    def layer(job, call_next):
        with queue.edit():  # so that nothing can be added now
            return call_next(job)

    [id] = queue.enqueue_many([charge.using(max_attempts=1).job("raise")])
    queue.process_jobs(tasks, middleware=[layer])

    assert ran == []
    assert (queue.get(id).status, queue.get(id).attempts) == ("pending", 0)


def test_a_job_that_tells_of_nobody_says_so(charge, queue, run):
    id = enqueue("Charge.failure", {"args": ["raise"]}, max_attempts=1)
    run()

    assert queue.get(id).status == "failed"
    assert "no job has the id" in queue.get(id).error


def test_failed_that_raises_is_tried_again(tasks, queue, run):
    @tasks.task(max_attempts=1)
    class Flaky:
        def handle(self):
            raise ValueError("no")

        def failed(self, error):
            ran.append(error)
            if len(ran) < 3:
                raise OSError("the mail server is down")

    Flaky.enqueue()
    run()

    assert ran == ["ValueError: no"] * 3


def test_async_failed_is_awaited_and_returns_nothing(tasks, queue, run):
    @tasks.task(max_attempts=1)
    class Later:
        async def handle(self):
            raise Discard("no")

        async def failed(self, error):
            ran.append(error)
            return {1}

    id = Later.enqueue()
    run()

    assert ran == ["no"]
    assert [job_of(queue, job.id)[:2] for job in others(queue, id)] == [("completed", None)]


def test_the_job_that_tells_goes_the_way_of_its_own(charge, queue):
    id = charge.using(queue="money", priority=-3, timeout=9, run_at=NOT_YET).enqueue("x")

    first, job = queue.jobs()

    assert (first.queue, first.priority, first.timeout, first.after) == (
        "money", -3, 9.0, f"notok:{id}",
    )  # fmt: skip
    assert job.cell("on_failure") == first.id
    assert (job.id, job.max_attempts, job.run_at) == (id, 2, NOT_YET)
    assert first.id < job.id


def test_no_row_of_ours_makes_grep_failed_count_too_many(charge, queue):
    charge.enqueue("x")

    text = Path(queue.path).read_text()

    assert [
        word for word in ("failed", "cancelled", "completed", "processing") if word in text
    ] == []


# unique


@pytest.mark.parametrize(
    "unique", [True, "one", lambda user, *rest, **more: f"user-{user}"], ids=["all", "text", "own"]
)
def test_a_unique_task_is_there_once(tasks, queue, run, unique):
    @tasks.task(unique=unique)
    def sync(user, fully=False):
        ran.append(user)

    first = sync.enqueue(7)

    assert sync.enqueue(user=7, fully=False) == first
    assert (sync.enqueue(8) == first) == (unique == "one")
    run()
    assert sync.enqueue(7) != first


def test_unique_by_all_arguments_tells_them_apart(tasks):
    @tasks.task(unique=True)
    def sync(*users, fully=0, **more):
        pass

    calls = [
        sync.enqueue(1), sync.enqueue(2), sync.enqueue(1, 2), sync.enqueue(1, fully=1),
        sync.enqueue(1, a=1), sync.enqueue(1, fully=True), sync.enqueue("x" * 300),
        sync.enqueue("x" * 301), sync.enqueue("1"), sync.enqueue(1, fully=False),
    ]  # fmt: skip

    assert len(set(calls)) == 10
    assert sync.enqueue("x" * 300) == calls[6]
    assert sync.enqueue(1, fully=0) == calls[0]
    assert sync.enqueue(a=1, b=2) == sync.enqueue(b=2, a=1)


def test_unique_tells_calls_apart_whose_keywords_are_named_as_other_parameters(tasks):
    @tasks.task(unique=True)
    def sync(first, /, *args, **more):
        return None

    calls = [
        sync.enqueue(5, first=5),
        sync.enqueue(6, first=5),
        sync.enqueue(1, 2, args=[3]),
        sync.enqueue(1, 4, args=[3]),
        sync.enqueue(1, 3),
    ]

    assert len(set(calls)) == 5


def test_an_argument_is_checked_though_a_keyword_has_its_name(tasks):
    @tasks.task
    def sync(first, /, **more):
        return None

    with pytest.raises(BadArgument, match="argument first"):
        sync.enqueue((1, 2), first=3)


def test_unique_for_makes_the_result_a_cache(tasks, queue, run):
    @tasks.task(unique=True, unique_for=timedelta(hours=1))
    def count(n):
        return n + 1

    first = count.enqueue(1)
    run()

    assert count.enqueue(1) == first
    assert queue.get(first).result == 2


def test_a_unique_class_with_failed_adds_both_or_none(tasks, queue, run):
    @tasks.task(unique=True, max_attempts=1)
    class Once:
        n: int

        def handle(self):
            raise ValueError("no")

        def failed(self, error):
            ran.append(self.n)

    ids = {Once.enqueue(1), Once.enqueue(1)}
    assert queue.counts("type") == {"Once.failure": 1, "Once": 1}
    run()

    assert (len(ids), ran) == (1, [1])


def test_a_unique_task_is_no_mapping(tasks):
    @tasks.task(unique=True)
    def sync():
        pass

    with pytest.raises(BadArgument, match="task sync is unique"):
        sync.job()


# Layers


def test_a_tasks_layers_are_around_its_runs_only_and_inside_the_others(tasks, queue, run):
    def layer(name):
        def around(job, call_next):
            ran.append((name, job.id, job.attempts))
            return call_next(job)

        return around

    @tasks.task(middleware=[layer("outer"), layer("inner")])
    def one():
        ran.append(current_job().id)
        return 1

    @tasks.task
    def two():
        ran.append(current_job().id)

    id = one.enqueue()
    run(middleware=[layer("all")])
    second = two.enqueue()
    run(middleware=[layer("all")])

    assert ran == [("all", id, 1), ("outer", id, 1), ("inner", id, 1), id,
                   ("all", second, 1), second]  # fmt: skip
    assert queue.get(id).result == 1


def test_a_layer_around_all_may_give_another_payload(tasks, queue, run):
    def unsealing(job, call_next):
        return call_next(job.replace(payload={"args": [job.payload["sealed"][::-1]]}))

    def seen(job, call_next):
        ran.append(job.payload)
        return call_next(job)

    @tasks.task(middleware=[seen])
    def read(text):
        return text

    id = enqueue("read", {"sealed": "cba"})
    run(middleware=[unsealing])

    assert (queue.get(id).result, ran) == ("abc", [{"args": ["abc"]}])


def test_a_tasks_layer_may_end_the_run_in_its_own_way(tasks, queue, run):
    def refuse(job, call_next):
        raise Discard("not you")

    async def again(job, call_next):
        result = await call_next(job)
        if job.attempts < 2:
            raise Retry("once more", after=0)
        return result

    @tasks.task(middleware=[refuse])
    class Refused:
        def handle(self):
            ran.append("never")

        def failed(self, error):
            ran.append(error)

    @tasks.task(middleware=[again])
    def twice():
        return current_job().attempts

    Refused.enqueue()
    id = twice.enqueue()
    run()

    assert ran == ["not you"]
    assert queue.get(id).result == 2


def test_a_plain_layer_around_an_async_task_gets_its_result(tasks, queue, run):
    def doubling(job, call_next):
        return 2 * call_next(job)

    @tasks.task(middleware=[doubling])
    async def count():
        return 21

    id = count.enqueue()
    run()

    assert queue.get(id).result == 42


# Around it


def test_importing_the_package_loads_none_of_it(run_python):
    child = run_python("import sys, dbbasic_queue; print(*sorted(sys.modules))")
    loaded = child.communicate(timeout=20)[0].split()

    ours = {name for name in loaded if name.startswith("dbbasic_queue.")}
    assert ours == set()
    assert "inspect" not in loaded


TYPED = """
from dbbasic_queue.tasks import task

@task
def send(to: str, retries: int = 1) -> bool:
    return True

@task(queue="mail")
async def fetch(url: str) -> str:
    return url

class Charge:
    def __init__(self, cents: int) -> None: ...
    def handle(self) -> int:
        return 1

charge = task(Charge)
good: bool = send("ana", retries=2)
id: str = send.using(priority=1).enqueue("ana")
send.job("ana", retries=3)
fetch.enqueue(url="x")
charge.enqueue(100)
"""
WRONG = {
    "send.enqueue(7)": "arg-type",
    "send.enqueue('ana', 1, 2)": "call-arg",
    "send.using(queue='a').enqueue('ana', retris=1)": "call-arg",
    "send.job()": "call-arg",
    "fetch.enqueue(url=1)": "arg-type",
    "charge.enqueue('a')": "arg-type",
    "send.using(prio=1)": "call-arg",
    "x: int = send('ana') + 'a'": "operator",
}


@pytest.mark.soak
def test_a_type_checker_knows_the_arguments_of_a_task(tmp_path):
    pytest.importorskip("mypy")
    file = tmp_path / "typed.py"
    file.write_text(TYPED + "\n".join(WRONG))
    root = Path(__file__).parents[1]

    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)],
        env={**os.environ, "MYPYPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout.splitlines()

    first = TYPED.count("\n") + 1
    found = [(int(line.split(":")[1]), line.rpartition("[")[2][:-1]) for line in said
             if ": error:" in line]  # fmt: skip
    assert found == [(first + at, kind) for at, kind in enumerate(WRONG.values())], said


def test_a_task_that_is_async_is_seen_as_such(tasks):
    @tasks.task
    async def fetch():
        pass

    assert is_async(fetch.function)


def test_a_task_in_the_place_of_its_handler_makes_the_call_of_its_payload(queue):
    tasks = Tasks()

    @tasks.task(queue_file=queue)
    def greet(name, twice=False):
        return f"Hello, {name}!" * (1 + twice)

    greet.enqueue("Ana", twice=True)
    queue.process_jobs({"greet": greet})

    assert next(queue.jobs()).result == "Hello, Ana!Hello, Ana!"
    assert greet("Ben") == "Hello, Ben!"


def test_a_task_has_columns_of_its_own_and_of_one_call(queue):
    tasks = Tasks()
    send = tasks.task(name="send", columns={"tenant": "acme"}, queue_file=queue)(nothing)

    one, other = send.enqueue(), send.using(columns={"color": "red"}).enqueue()

    assert [queue.get(id).cell("tenant") for id in (one, other)] == ["acme", "acme"]
    assert [queue.get(id).cell("color") for id in (one, other)] == ["", "red"]


def test_a_method_is_refused_when_it_is_made_a_task(tasks):
    with pytest.raises(BadArgument, match="a class with handle"):

        class Shop:
            @tasks.task
            def close(self, day):
                pass


def test_a_function_that_calls_its_argument_self_is_a_task(tasks):
    @tasks.task
    def greet(self):
        pass

    assert "greet" in tasks
