"""Django's Tasks on a queue file: what is enqueued, how it runs, what its result says."""

import asyncio
import contextlib
import functools
import importlib
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, health
from dbbasic_queue.middleware import kept_traceback
from dbbasic_queue.schedule import add_schedule
from dbbasic_queue.why import why

django = pytest.importorskip("django", reason="needs the extra django")
if django.VERSION < (6,):
    pytest.importorskip("django_tasks", reason="needs the extra django: django-tasks")

from django.conf import settings  # noqa: E402

APP = "dbbasic_queue.contrib.django"
TSV = f"{APP}.TSVBackend"
TASKS = """
    import asyncio
    import os
    import time

    from asgiref.sync import sync_to_async
    from django.db import connection

    from dbbasic_queue import current_job
    from dbbasic_queue.contrib.django.framework import framework

    task, default = framework.task, framework.default_task_backend
    ran = []

    @task
    def add(a, b=0):
        ran.append((a, b))
        return a + b

    @task()
    async def double(n):
        return {"is": 2 * n}

    @task
    async def dawdle(seconds):
        ran.append("begun")
        try:
            await asyncio.sleep(seconds)
            ran.append("late")
        finally:
            await asyncio.sleep(0.05)
            ran.append("ended")

    @task
    async def ask():
        return await sync_to_async(query.func)()

    @task
    def twice(n):
        return [add.enqueue(n).id, add.enqueue(n).id]

    @task
    def fail(error="boom"):
        raise ValueError(error)

    @task
    def leave():
        raise SystemExit("gone")

    @task
    def give(what):
        return {"nan": float("nan"), "function": print, "tuple": (1, b"two")}[what]

    @task(takes_context=True)
    def flaky(context, least):
        if context.attempt < least:
            raise ConnectionError(f"attempt {context.attempt}")
        return context.attempt

    @task(takes_context=True)
    def look(context):
        own = default.get_result(context.task_result.id)
        return [context.task_result.status, own.status, own.attempts, own.started_at is not None]

    @task
    def query():
        with connection.cursor() as cursor:
            return cursor.execute("select 7").fetchone()[0]

    @task
    def sleep(seconds):
        time.sleep(seconds)

    @task
    def die():
        os._exit(9)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Django with an application `shop`, and its tasks."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").touch()
    text = "\n".join(line.removeprefix("    ") for line in TASKS.split("\n"))
    (folder / "shop" / "tasks.py").write_text(text)
    (folder / "elsewhere.py").write_text("open('imported', 'w').close()\n")
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3"}
    settings.configure(
        BASE_DIR=folder, SECRET_KEY="no secret", USE_TZ=True, INSTALLED_APPS=[APP, "shop"],
        DATABASES={"default": database}, LOGGING_CONFIG=None, TASKS={"default": {"BACKEND": TSV}},
    )  # fmt: skip
    sys.path.insert(0, str(folder))
    django.setup()
    yield importlib.import_module("shop.tasks")
    sys.path.remove(str(folder))


@pytest.fixture
def use(shop, tmp_path):
    """Give the settings TASKS another value, until the test ends; return the default back end."""
    from django.test import override_settings

    from dbbasic_queue.contrib.django.framework import task_backends

    with contextlib.ExitStack() as stack:

        def use(*, queues=(), others=None, backend=TSV, **options):
            options = {"path": tmp_path / "queue.tsv", "sync": "off"} | options
            default = {"BACKEND": backend, "QUEUES": list(queues), "OPTIONS": options}
            given = override_settings(TASKS={"default": default, **(others or {})})
            stack.enter_context(given)
            shop.ran.clear()
            return task_backends["default"]

        yield use


@pytest.fixture
def backend(use):
    return use()


@pytest.fixture
def tick(shop):
    from dbbasic_queue.contrib.django.running import work

    return work


@pytest.fixture
def told(shop):
    """What the signals say: (signal, status) in their order."""
    from dbbasic_queue.contrib.django import framework

    said = []
    names = ("task_enqueued", "task_started", "task_finished")
    receivers = {
        name: functools.partial(
            lambda name, sender, task_result, **_: said.append((name, task_result.status)), name
        )
        for name in names
    }
    for name, receiver in receivers.items():
        getattr(framework, name).connect(receiver)
    yield said
    for name, receiver in receivers.items():
        getattr(framework, name).disconnect(receiver)


def refused():
    from dbbasic_queue.contrib.django import framework

    return framework.InvalidTask


def unknown():
    from dbbasic_queue.contrib.django import framework

    return framework.TaskResultDoesNotExist


def only(queue):
    [job] = queue.jobs()
    return job


# --- what is enqueued


def test_a_task_is_a_row_with_its_path_and_its_arguments(shop, backend):
    result = shop.add.enqueue(1, b=2)

    job = only(backend.queue)
    assert (job.id, job.type, job.queue) == (result.id, "shop.tasks.add", "default")
    assert job.payload == {"args": [1], "kwargs": {"b": 2}}
    assert Path(backend.path).read_text().count("\n") == 2


def test_the_higher_priority_of_django_is_the_lower_one_of_the_row_and_runs_first(
    shop, backend, tick
):
    for number in (-100, 5, 0, 100):
        shop.add.using(priority=number).enqueue(number)

    tick(backend)

    assert [job.priority for job in backend.queue.jobs()] == [100, -5, 0, -100]
    assert [a for a, _ in shop.ran] == [100, 5, 0, -100]


def test_a_task_for_later_waits(shop, backend, tick):
    at = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)

    with freeze_time(at - timedelta(minutes=1)):
        result = shop.add.using(run_after=at).enqueue(1)
        tick(backend)
    waiting = backend.get_result(result.id)
    with freeze_time(at):
        tick(backend)

    assert (waiting.status, waiting.task.run_after) == ("READY", at)
    assert backend.get_result(result.id).status == "SUCCESSFUL"


def test_a_naive_time_is_local_where_time_zones_are_off(shop, backend):
    from django.test import override_settings

    at = datetime(2030, 1, 1, 12)
    with override_settings(USE_TZ=False):
        result = shop.add.using(run_after=at).enqueue(1)

        assert backend.get_result(result.id).task.run_after == at
        assert result.enqueued_at.tzinfo is None

    assert only(backend.queue).run_at == at.timestamp()


def test_a_queue_is_one_of_the_back_ends(shop, use):
    backend = use(queues=["mail"])

    shop.add.using(queue_name="mail").enqueue(1)
    with pytest.raises(refused(), match="not valid"):
        shop.add.enqueue(1)

    assert only(backend.queue).queue == "mail"


@pytest.mark.parametrize("label", ["two words", "a/b", "x" * 101])
def test_a_queue_name_that_is_no_label_is_refused(shop, backend, label):
    with pytest.raises(refused(), match="no job: queue="):
        shop.add.using(queue_name=label)


def test_a_path_that_is_no_type_is_refused_where_it_is_declared(shop, backend):
    function = type(shop.add.func)(shop.add.func.__code__, {}, "größer")
    function.__module__, function.__qualname__ = "shop.tasks", "größer"

    with pytest.raises(refused(), match="no job: job_type="):
        shop.task(function)


@pytest.mark.parametrize("arguments", [[float("nan")], [{1: 2}], ["x" * (1 << 20)]])
@pytest.mark.parametrize("on_commit", [False, True])
def test_what_no_row_can_hold_is_refused_at_once(shop, use, arguments, on_commit):
    from django.db import transaction

    backend = use(enqueue_on_commit=on_commit)

    with transaction.atomic(), pytest.raises(ValueError, match=r"shop\.tasks\.add"):
        shop.add.enqueue(*arguments)

    assert not Path(backend.path).exists()


# --- at the commit


def test_a_row_is_added_at_once_as_django_does_it(shop, backend):
    from django.db import transaction

    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        shop.add.enqueue(1)
        raise ZeroDivisionError

    assert only(backend.queue).status == "pending"


@pytest.mark.parametrize("database", [True, "default"])
def test_a_row_is_added_at_the_commit_where_the_option_says_so(shop, use, told, database):
    from django.db import transaction

    backend = use(enqueue_on_commit=database)

    with transaction.atomic():
        result = shop.add.enqueue(1)
        before = (os.path.exists(backend.path), result.enqueued_at, list(told))

    assert before == (False, None, [])
    assert only(backend.queue).id == result.id
    assert result.enqueued_at == backend.get_result(result.id).enqueued_at
    assert told == [("task_enqueued", "READY")]


def test_what_is_rolled_back_adds_no_row(shop, use):
    from django.db import transaction

    backend = use(enqueue_on_commit=True)

    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        result = shop.add.enqueue(1)
        raise ZeroDivisionError

    assert not Path(backend.path).exists()
    with pytest.raises(unknown()):
        backend.get_result(result.id)


# --- results


def test_the_result_of_a_task_that_succeeded(shop, backend, tick):
    result = shop.add.enqueue(1, b=2)

    tick(backend)
    result.refresh()

    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 3, 1)
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    assert (result.args, result.kwargs, result.errors) == ([1], {"b": 2}, [])
    assert only(backend.queue).worker.startswith(f"{result.worker_ids[0]}.")
    assert shop.add.get_result(result.id) == result


def test_the_result_of_a_task_that_failed(shop, backend, tick):
    result = shop.fail.enqueue(error="no way")

    tick(backend)
    result.refresh()

    [error] = result.errors
    assert (result.status, result.attempts, error.exception_class) == ("FAILED", 1, ValueError)
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert error.traceback.endswith("ValueError: no way\n")
    assert "in fail" in error.traceback
    assert "running.py" not in error.traceback
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    job = only(backend.queue)
    assert (job.status, job.error) == ("failed", "ValueError: no way")
    assert kept_traceback(job) == error.traceback.rstrip("\n")  # what `show` and the pages show


def test_a_task_that_exits_has_failed(shop, backend, tick):
    result = shop.leave.enqueue()

    tick(backend)
    result.refresh()

    assert (result.status, result.errors[0].exception_class) == ("FAILED", SystemExit)


@pytest.mark.parametrize("what,kind", [("nan", ValueError), ("function", TypeError)])
def test_a_value_that_is_no_json_is_a_failure(shop, backend, tick, told, what, kind):
    result = shop.give.enqueue(what)

    tick(backend)
    result.refresh()

    assert (result.status, result.errors[0].exception_class) == ("FAILED", kind)
    assert told[-1] == ("task_finished", "FAILED")


def test_a_value_is_made_json_as_django_does_it(shop, backend, tick):
    result = shop.give.enqueue("tuple")

    tick(backend)
    result.refresh()

    assert result.return_value == [1, "two"]


def test_an_async_task_and_the_async_calls(shop, backend, tick):
    async def enqueue():
        return await shop.double.aenqueue(4)

    async def again(result):
        await result.arefresh()
        return await shop.double.aget_result(result.id)

    result = asyncio.run(enqueue())
    tick(backend)

    assert asyncio.run(again(result)) == result
    assert result.return_value == {"is": 8}


def test_a_task_that_runs_is_running_with_an_attempt(shop, backend, tick):
    result = shop.look.enqueue()

    tick(backend)
    result.refresh()

    assert result.return_value == ["RUNNING", "RUNNING", 1, True]


def test_a_cancelled_job_has_failed_and_says_why(shop, backend):
    result = shop.add.enqueue(1)

    backend.queue.cancel(result.id)
    result.refresh()

    assert (result.status, result.is_finished, result.attempts) == ("FAILED", True, 0)
    assert [error.traceback for error in result.errors] == ["cancelled\n"]
    assert result.errors[0].exception_class.__name__ == "Killed"


def test_a_task_whose_worker_died_has_failed_and_says_so(shop, backend, tick):
    result = shop.die.enqueue()

    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            tick(backend)
        os._exit(0)
    os.waitpid(child, 0)
    tick(backend)
    result.refresh()

    assert (result.status, result.attempts) == ("FAILED", 1)
    assert "worker died" in result.errors[0].traceback
    assert result.errors[0].exception_class.__name__ == "QueueError"


@pytest.mark.parametrize("id", ["123", "0" * 16, 123, None])
def test_an_id_that_nobody_has_does_not_exist(backend, id):
    with pytest.raises(unknown()):
        backend.get_result(id)


def test_a_job_that_is_no_task_does_not_exist(backend):
    id = backend.queue.enqueue("send_email", {"to": "ana"})

    with pytest.raises(unknown(), match="no task 'send_email' is declared here"):
        backend.get_result(id)


def test_a_result_is_read_although_the_settings_have_changed(shop, use, tick):
    use(queues=["old"])
    result = shop.add.using(queue_name="old", priority=3).enqueue(1)
    backend = use(queues=["new"])

    tick(backend)

    found = backend.get_result(result.id)
    assert (found.status, found.task) == ("SUCCESSFUL", result.task)
    assert result.task.queue_name == "old"


def test_a_job_that_was_retried_is_as_new(shop, backend, tick):
    result = shop.fail.enqueue()
    tick(backend)

    backend.queue.retry(result.id)
    result.refresh()

    assert (result.status, result.attempts, result.errors) == ("READY", 0, [])
    assert (result.started_at, result.finished_at) == (None, None)


def test_cells_that_were_spoilt_by_hand_hurt_no_result(shop, backend, tick):
    result = shop.fail.enqueue()
    tick(backend)
    with backend.queue.edit() as e:
        e.change(e.get(result.id), task_errors='{"job": 5')

    result.refresh()

    assert [error.traceback for error in result.errors] == ["ValueError: boom\n"]


# --- how it runs


def test_a_task_is_tried_once_as_django_has_no_retries(shop, backend, tick):
    result = shop.flaky.enqueue(2)

    tick(backend)
    result.refresh()

    assert (result.status, result.attempts) == ("FAILED", 1)


def test_a_task_is_tried_again_where_the_option_says_so(shop, use, tick, told):
    backend = use(max_attempts=3, backoff="none")
    result = shop.flaky.enqueue(3)

    tick(backend)
    result.refresh()
    first = (result.status, result.attempts, len(result.errors))
    for _ in range(2):
        tick(backend)
    result.refresh()

    assert first == ("READY", 1, 1)
    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 3, 3)
    assert [one.traceback.rsplit("\n", 2)[1] for one in result.errors] == [
        "ConnectionError: attempt 1",
        "ConnectionError: attempt 2",
    ]
    assert len(set(result.worker_ids)) == 3
    assert result.started_at < result.last_attempted_at
    names = [name for name, _ in told]
    assert names == ["task_enqueued", *["task_started"] * 3, "task_finished"]


def test_the_signals_come_in_their_order_and_from_the_back_ends_class(shop, backend, tick, told):
    from dbbasic_queue.contrib.django import framework

    senders = []
    note = lambda sender, **_: senders.append(sender)  # noqa: E731
    framework.task_finished.connect(note)

    shop.add.enqueue(1)
    shop.fail.enqueue()
    tick(backend)

    framework.task_finished.disconnect(note)
    assert senders == [type(backend)] * 2
    assert told == [
        *[("task_enqueued", "READY")] * 2,
        ("task_started", "RUNNING"),
        ("task_finished", "SUCCESSFUL"),
        ("task_started", "RUNNING"),
        ("task_finished", "FAILED"),
    ]


@pytest.mark.parametrize("name", ["task_enqueued", "task_started", "task_finished"])
def test_a_receiver_that_raises_changes_nothing(shop, backend, tick, name):
    from dbbasic_queue.contrib.django import framework

    def receiver(**_):
        raise RuntimeError("receiver")

    getattr(framework, name).connect(receiver)
    result = shop.add.enqueue(1)
    tick(backend)
    getattr(framework, name).disconnect(receiver)

    result.refresh()
    assert (result.status, result.attempts) == ("SUCCESSFUL", 1)


@pytest.mark.soak
def test_an_async_task_that_takes_too_long_has_ended_before_that_is_told(shop, use, tick):
    backend = use(timeout=0.02)
    result = shop.dawdle.enqueue(5)

    tick(backend)
    result.refresh()

    assert (result.status, shop.ran) == ("FAILED", ["begun", "ended"])


@pytest.mark.soak
def test_a_task_that_takes_too_long_is_ended(shop, use, tick):
    backend = use(timeout=0.02)
    result = shop.sleep.enqueue(5)

    tick(backend)
    result.refresh()

    assert (result.status, result.errors[0].exception_class.__name__) == ("FAILED", "JobTimeout")


def test_old_connections_are_closed_after_each_task(shop, backend, tick):
    from django.db import connection

    results = [shop.query.enqueue(), shop.ask.enqueue()]

    tick(backend)

    assert [backend.get_result(result.id).return_value for result in results] == [7, 7]
    assert connection.connection is None


def test_a_task_enqueues_tasks(shop, backend, tick):
    result = shop.twice.enqueue(1)

    tick(backend)
    result.refresh()

    assert shop.ran == [(1, 0)] * 2
    assert [backend.get_result(id).status for id in result.return_value] == ["SUCCESSFUL"] * 2


def test_a_back_end_with_a_task_class_of_its_own(shop, use, tick):
    from dbbasic_queue.contrib.django import TSVBackend
    from dbbasic_queue.contrib.django.framework import Task

    class Loud(Task):
        __slots__ = ()

        def call(self, *args, **kwargs):
            return f"{Task.call(self, *args, **kwargs)}!"

    backend = use()
    function = type(shop.add.func)(shop.add.func.__code__, shop.__dict__, "loud", (0,))
    function.__module__, function.__qualname__ = "shop.tasks", "loud"
    fields = {"priority": 0, "backend": "default", "queue_name": "default", "run_after": None}
    result = Loud(func=function, **fields).enqueue(1)

    tick(backend)
    result.refresh()

    assert isinstance(backend, TSVBackend)
    assert (result.return_value, type(result.task)) == ("1!", Loud)


def test_a_type_in_the_file_is_never_imported(shop, backend, tick):
    id = backend.queue.enqueue("elsewhere.task", {"args": [], "kwargs": {}})

    tick(backend)
    with pytest.raises(unknown()):
        backend.get_result(id)

    assert backend.queue.get(id).status == "pending"
    assert not Path("imported").exists()
    reason = why(id, queue_file=backend.queue)[0]
    assert reason == "not handled: no worker has a handler for type elsewhere.task"


def test_the_modules_of_the_option_are_imported(shop, use, tick):
    backend = use(modules=["elsewhere"])

    tick(backend)

    assert Path("imported").exists()


def test_modules_that_cannot_be_imported_are_told_to_health(shop, use, tick):
    backend = use(modules=["shop.nowhere"])
    shop.add.enqueue(1)

    with pytest.raises(ImportError):
        tick(backend)

    [broken] = [one for one in health.check(backend.queue) if one.name == "broken"]
    assert "manage.py process_jobs: " in broken.text
    assert "shop.nowhere" in broken.text


def test_a_task_of_another_back_end_runs_where_it_is_sent_here(shop, use, tick, tmp_path):
    from dbbasic_queue.contrib.django.declared import tasks
    from dbbasic_queue.contrib.django.framework import NAME, task_backends

    dummy = f"{NAME}.backends.dummy.DummyBackend"
    ours = {"BACKEND": TSV, "OPTIONS": {"path": tmp_path / "queue.tsv"}}
    use(backend=dummy, others={"queue": ours})
    result = shop.add.using(backend="queue").enqueue(1)
    tasks.clear()  # as in another process

    tick(task_backends["queue"])

    assert task_backends["queue"].get_result(result.id).return_value == 1
    assert result.backend == "queue"


def test_what_is_no_call_has_failed(shop, backend, tick):
    id = backend.queue.enqueue("shop.tasks.add", {"a": 1})

    tick(backend)

    assert backend.queue.get(id).status == "failed"
    assert "the payload is no call" in backend.queue.get(id).error


def test_a_schedule_starts_a_task(shop, backend, tick):
    call = {"args": [5], "kwargs": {}}
    with freeze_time("2030-01-01 12:00:00") as clock:
        add_schedule("five", "shop.tasks.add", call, every=60, queue_file=backend.queue)
        clock.move_to("2030-01-01 12:01:01")
        tick(backend)

    assert shop.ran == [(5, 0)]


# --- manage.py


def test_the_command_runs_one_tick(shop, backend):
    from django.core.management import call_command

    result = shop.add.enqueue(1)

    call_command("process_jobs")

    assert backend.get_result(result.id).status == "SUCCESSFUL"


def test_the_command_runs_what_its_words_say(shop, use):
    from django.core.management import call_command

    backend = use(max_attempts=5)
    shop.add.using(queue_name="low").enqueue(1)
    shop.add.using(queue_name="high").enqueue(2)
    result = shop.fail.using(queue_name="high").enqueue()

    call_command("process_jobs", "--queue", "high, mail", "--max-attempts", "1", "--max-jobs", "2")

    assert shop.ran == [(2, 0)]
    assert backend.get_result(result.id).status == "FAILED"


@pytest.mark.parametrize(
    "words,text",
    [
        (["--backend", "nobody"], "nobody"),
        (["--backend", "other"], "no TSVBackend"),
        (["--max-attempts", "0"], "max_attempts=0"),
        (["--keep-by", "purge"], "give both"),
        (["--for", "soon"], "no duration"),
        (["--keep", "completed"], "STATUS=TIME"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(shop, use, words, text):
    from django.core.management import CommandError, call_command

    from dbbasic_queue.contrib.django.framework import NAME

    use(others={"other": {"BACKEND": f"{NAME}.backends.dummy.DummyBackend"}})
    shop.add.enqueue(1)

    with pytest.raises(CommandError, match=text):
        call_command("process_jobs", *words)


def test_the_command_asks_which_of_several_back_ends(shop, use, tmp_path):
    from django.core.management import CommandError, call_command

    from dbbasic_queue.contrib.django.framework import NAME

    ours = {"BACKEND": TSV, "OPTIONS": {"path": tmp_path / "queue.tsv"}}
    dummy = f"{NAME}.backends.dummy.DummyBackend"
    use(backend=dummy, others={"one": ours, "two": ours})

    with pytest.raises(CommandError, match="--backend one or two"):
        call_command("process_jobs")


# --- manage.py check


def ids(backend):
    return [message.id.removeprefix("dbbasic_queue.") for message in backend.check()]


def test_a_good_back_end_has_nothing_to_say(backend):
    assert ids(backend) == []


@pytest.mark.parametrize(
    "options,id",
    [
        ({"paht": "x"}, "E001"),
        ({"path": 5}, "E002"),
        ({"modules": "shop.mails"}, "E003"),
        ({"enqueue_on_commit": "nowhere"}, "E004"),
        ({"max_attempts": 0}, "E005"),
        ({"timeout": "soon"}, "E005"),
        ({"backoff": "often"}, "E005"),
        ({"sync": "maybe"}, "E005"),
        ({"path": "/dev/null/queue.tsv"}, "E006"),
        ({"path": "data/queue.tsv"}, "W002"),
    ],
)
def test_the_check_finds_what_is_wrong_with_an_option(use, options, id):
    assert ids(use(**options)) == [id]


def test_the_check_finds_a_file_that_is_no_queue(use, tmp_path):
    (tmp_path / "notes.txt").write_text("milk\n")

    assert ids(use(path=tmp_path / "notes.txt")) == ["E007"]


def test_the_check_warns_of_due_jobs_that_nobody_works(shop, backend, tick):
    with freeze_time(datetime.now(timezone.utc) - timedelta(minutes=4)):
        shop.add.enqueue(1)
    before = ids(backend)

    tick(backend)
    shop.add.enqueue(2)

    assert before == ["W003"]
    assert ids(backend) == []


def test_the_check_warns_where_the_application_is_not_installed(backend):
    from django.test import override_settings

    with override_settings(INSTALLED_APPS=["shop"]):
        assert ids(backend) == ["W001"]


def test_manage_py_check_asks_the_back_end(use):
    from django.core.management import call_command
    from django.core.management.base import SystemCheckError

    use(paht="x")

    with pytest.raises(SystemCheckError, match="there is no option 'paht'"):
        call_command("check")


def test_without_a_path_it_is_that_of_the_environment_else_in_the_projects_folder(
    use, monkeypatch, tmp_path
):
    backend = use(path=None)

    project = backend.path
    monkeypatch.setenv("DBBASIC_QUEUE", str(tmp_path / "env.tsv"))

    assert project == str(settings.BASE_DIR / "data" / "queue.tsv")
    assert backend.path == str(tmp_path / "env.tsv")
    assert isinstance(backend.queue, Queue)


def test_who_uses_no_django_loads_none(run_python):
    child = run_python("""
        import sys
        import dbbasic_queue.contrib, dbbasic_queue.queue
        print([name for name in sys.modules if name.startswith("django")])
    """)

    assert child.communicate()[0] == "[]\n"
