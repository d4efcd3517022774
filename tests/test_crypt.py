"""Sealed jobs: what reaches the disk, the log and stderr; what is refused; keys that change."""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from dbbasic_queue import (
    Discard,
    Queue,
    Retry,
    Snooze,
    batch,
    cli,
    crypt,
    current_job,
    schedule,
    sign,
)
from dbbasic_queue import chain as chains
from dbbasic_queue.errors import BadArgument, BadRow, JobTimeout, Killed, QueueError
from dbbasic_queue.middleware import errors_kept, errors_of
from dbbasic_queue.steps import checkpoint, last_checkpoint, progress, step
from dbbasic_queue.tasks import Tasks
from dbbasic_queue.unique import enqueue_unique

OLD, NEW = crypt.new_key(), crypt.new_key()
SECRET = "tulip-4711"
MAIL = {"password": SECRET, "to": "Zürich"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", OLD)


@pytest.fixture
def queue(tmp_path):
    return Queue("data/queue.tsv", sync="off")  # the default one of this folder


@pytest.fixture
def run(queue):
    def run(handler=lambda payload: payload, layers=None, **given):
        handlers = handler if isinstance(handler, dict) else {"mail": handler}
        given.setdefault("backoff", "none")
        queue.process_jobs(handlers, middleware=layers or [crypt.unsealing()], **given)

    return run


def vi(old, new, count=1):
    """Change a text in the file as an editor does: whole, by another file's name."""
    path = Path("data/queue.tsv")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.with_suffix(".swp").write_text(text.replace(old, new, count), encoding="utf-8")
    path.with_suffix(".swp").rename(path)


def line_of(id):
    lines = Path("data/queue.tsv").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(id))


def everything():
    """All bytes beside and below the queue."""
    return b"".join(path.read_bytes() for path in Path("data").rglob("*") if path.is_file())


# What is stored


def test_the_handler_sees_what_was_sealed(queue, run):
    seen = []
    id = crypt.enqueue_sealed("mail", MAIL)

    run(lambda payload: seen.append((payload, current_job().payload)))

    assert seen == [(MAIL, MAIL)]
    assert queue.get(id).status == "completed"


def test_the_row_says_who_and_when_and_which_key_and_nothing_else(queue):
    id = crypt.enqueue_sealed("mail", MAIL, queue="night", priority=-3)

    job = queue.get(id)
    assert (job.type, job.status, job.queue, job.priority) == ("mail", "pending", "night", -3)
    assert job.payload.keys() == {"sealed", "key"}
    assert job.payload["key"] == crypt.Keys(OLD).first.name
    assert SECRET.encode() not in everything()


def test_the_result_is_sealed_and_opened_for_who_has_the_key(queue, run):
    id = crypt.enqueue_sealed("mail", MAIL)

    run(lambda payload: {"was": SECRET})

    job = queue.get(id)
    assert job.result.keys() == {"sealed", "key"}
    assert crypt.opened(job).result == {"was": SECRET}
    assert crypt.opened(job).payload == MAIL
    assert SECRET.encode() not in everything()


@pytest.mark.parametrize("result", [None, 0, False, "", [], {"a": [1.5]}])
def test_each_result_comes_back_as_itself(queue, run, result):
    id = crypt.enqueue_sealed("mail", result)

    run()

    assert crypt.opened(queue.get(id)).result == result


def test_what_is_recorded_is_sealed_and_plain_for_the_next_attempt(queue, run):
    seen, told = [], []
    id = crypt.enqueue_sealed("mail", MAIL)

    def handler(payload):
        seen.append(current_job().cell("steps"))
        current_job().record(steps=f"{SECRET} step\twith tab")
        assert SECRET.encode() not in everything()
        assert crypt.opened(queue.get(id)).cell("steps") == f"{SECRET} step\twith tab"
        raise Retry(SECRET)

    run(handler, max_attempts=2, listeners=[lambda event, job: told.append((event, job.cells))])
    run(handler, max_attempts=2, listeners=[lambda event, job: told.append((event, job.cells))])

    assert seen == ["", f"{SECRET} step\twith tab"]
    assert "progressed" in dict(told)
    assert SECRET not in str(told)
    assert crypt.opened(queue.get(id)).cell("steps") == f"{SECRET} step\twith tab"


def test_steps_a_checkpoint_and_progress_are_sealed_and_go_on(queue, run):
    ran, seen = [], []
    id = crypt.enqueue_sealed("mail", MAIL)

    def charge():
        ran.append("charge")
        return SECRET

    def handler(payload):
        seen.append((step("charge", charge), last_checkpoint()))
        checkpoint(f"{SECRET} at 5")
        progress(50, message=SECRET)
        if len(seen) == 1:
            raise Retry("again")

    run(handler)
    run(handler)

    assert (ran, seen) == (["charge"], [(SECRET, None), (SECRET, f"{SECRET} at 5")])
    assert queue.get(id).status == "completed"
    assert queue.get(id).cell("steps").startswith("sealed ")
    assert SECRET.encode() not in everything()


def test_a_listener_that_keeps_the_job_keeps_it_sealed(run):
    kept = []
    crypt.enqueue_sealed("mail", MAIL)

    run(listeners=[lambda event, job: kept.append(job)])

    assert SECRET not in str([(job.payload, job.cells) for job in kept])


# What a handler raises


def from_within():
    try:
        raise ValueError(SECRET)
    except ValueError:
        raise KeyError(SECRET)  # noqa: B904 (the first one is told after it)


def noted():
    error = ValueError(1)
    error.__notes__ = [SECRET]
    raise error


def exits():
    sys.exit(SECRET)


def raises(error):
    def handler(payload):
        raise error

    return handler


@pytest.mark.parametrize(
    ("handler", "status", "text"),
    [
        (raises(ValueError(SECRET)), "pending", f"ValueError: {SECRET}"),
        (lambda payload: from_within(), "pending", f"KeyError: '{SECRET}'"),
        (lambda payload: noted(), "pending", "ValueError: 1"),
        (lambda payload: exits(), "pending", f"SystemExit: {SECRET}"),
        (raises(Retry(SECRET, after=50)), "pending", SECRET),
        (raises(Snooze(50, SECRET)), "pending", SECRET),
        (raises(Discard(SECRET)), "failed", SECRET),
        (raises(Killed(SECRET)), "cancelled", SECRET),
        (raises(JobTimeout(SECRET)), "pending", SECRET),
    ],
)
def test_no_exception_tells_the_secret(queue, run, caplog, capfd, handler, status, text):
    caplog.set_level(logging.DEBUG)
    id = crypt.enqueue_sealed("mail", MAIL)

    run(handler)

    job = queue.get(id)
    printed = "".join(capfd.readouterr())
    assert job.status == status
    assert crypt.opened(job).error == text
    assert SECRET not in caplog.text + printed
    assert SECRET.encode() not in everything()


def test_a_retry_and_a_snooze_keep_their_times(queue, run):
    retried = crypt.enqueue_sealed("mail", 1)
    put_back = crypt.enqueue_sealed("late", 1)

    run({"mail": raises(Retry("x", after=500)), "late": raises(Snooze(900))})

    assert queue.get(retried).run_at == pytest.approx(time.time() + 500, abs=5)
    assert queue.get(put_back).run_at == pytest.approx(time.time() + 900, abs=5)
    assert (queue.get(retried).attempts, queue.get(put_back).attempts) == (1, 0)
    assert queue.get(put_back).error is None


def test_a_long_error_is_cut_before_it_is_sealed(queue, run):
    id = crypt.enqueue_sealed("m" * 100, 1)

    run({"m" * 100: raises(ValueError("ü" * 5000))})

    assert crypt.opened(queue.get(id)).error.startswith("ValueError: üüü")


def test_the_exception_that_goes_on_holds_none_of_what_was_raised(queue, run):
    seen = []
    crypt.enqueue_sealed("mail", MAIL)

    def outer(job, call_next):
        try:
            call_next(job)
        except Exception as error:
            seen.append((error, error.__context__, error.__cause__))
            raise

    run(raises(ValueError(SECRET)), [outer, crypt.unsealing()])

    [(error, *others)] = seen
    assert isinstance(error, crypt.SealedError)
    assert others == [None, None]


@pytest.mark.parametrize("another", [False, True])
def test_a_job_that_is_timed_out_does_not_tell_what_it_was_at(queue, run, caplog, another):
    id = crypt.enqueue_sealed("mail", MAIL, timeout=0.1, max_attempts=1)

    def handler(payload):
        try:
            try:
                raise ValueError(SECRET)
            except ValueError:
                time.sleep(5)
        except JobTimeout:
            if another:
                raise JobTimeout("over") from None
            raise

    run(handler)

    assert queue.get(id).error == "timed out after 0.1 s"
    assert "JobTimeout" in caplog.text
    assert SECRET not in caplog.text


def test_an_async_handler_beside_others_is_opened_and_sealed(queue, run, caplog):
    ids = [crypt.enqueue_sealed("mail", {"n": n, "of": SECRET}) for n in range(6)]

    async def handler(payload):
        await asyncio.sleep(0.01)
        assert current_job().payload is payload
        current_job().record(progress=SECRET)
        if payload["n"] == 5:
            raise Discard(f"{SECRET} 5")
        return payload["n"]

    run(handler, concurrency=4)

    assert [crypt.opened(queue.get(id)).result for id in ids] == [0, 1, 2, 3, 4, None]
    assert crypt.opened(queue.get(ids[5])).error == f"{SECRET} 5"
    assert SECRET.encode() not in everything()
    assert SECRET not in caplog.text


# Whole processes

WORKER = f"""
    import logging, os, sys, time
    from dbbasic_queue import Queue, crypt, current_job
    logging.basicConfig(level=logging.DEBUG)
    def handler(payload):
        assert payload["password"] == {SECRET!r}
        current_job().record(steps=payload["password"])
        print("runs", flush=True)
        if payload.get("sleep") and current_job().attempts == 1:
            time.sleep(30)
        if payload.get("raise"):
            raise ValueError(payload)
        return payload
    Queue("data/queue.tsv").process_jobs(
        {{"mail": handler}}, middleware=[crypt.unsealing()], backoff="none", processes=PROCESSES)
"""


def test_a_killed_worker_leaves_nothing_in_plain_and_the_next_one_goes_on(queue, run_python):
    id = crypt.enqueue_sealed("mail", {**MAIL, "sleep": True})
    first = run_python(WORKER.replace("PROCESSES", "0"), stderr=-1)
    assert first.stdout.readline() == "runs\n"
    while_it_runs = everything()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    after_the_kill = everything()

    second = run_python(WORKER.replace("PROCESSES", "0"), stderr=-1)
    told = first.communicate()[1] + second.communicate(timeout=20)[1]

    assert crypt.opened(queue.get(id)).result["password"] == SECRET
    assert queue.get(id).attempts == 2
    assert SECRET.encode() not in while_it_runs + after_the_kill + everything()
    assert SECRET not in told


def test_a_pool_runs_sealed_jobs_and_logs_nothing_of_them(queue, run_python):
    ids = [crypt.enqueue_sealed("mail", {**MAIL, "raise": n == 3}) for n in range(5)]

    worker = run_python(WORKER.replace("PROCESSES", "2"), stderr=-1)
    told = "".join(worker.communicate(timeout=30))

    assert [queue.get(id).status for id in ids].count("completed") == 4
    assert "SealedError" in told
    assert SECRET not in told
    assert SECRET.encode() not in everything()


# Keys


def test_a_job_whose_key_is_missing_stays_and_says_which(queue, run, monkeypatch):
    id = crypt.enqueue_sealed("mail", MAIL)
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", NEW)

    run(raises(AssertionError))

    job = queue.get(id)
    assert (job.status, job.attempts) == ("pending", 0)
    assert job.error == (
        f"its payload is sealed with the key '{crypt.Keys(OLD).first.name}', which is not here"
    )
    assert job.run_at > time.time() + 30


def test_without_any_key_a_sealed_job_stays(queue, run, monkeypatch):
    id = crypt.enqueue_sealed("mail", MAIL)
    monkeypatch.delenv("DBBASIC_QUEUE_KEY")

    run(raises(AssertionError))

    assert (queue.get(id).status, queue.get(id).attempts) == ("pending", 0)
    with pytest.raises(BadArgument, match="there is no key"):
        crypt.enqueue_sealed("mail", MAIL)


@pytest.mark.parametrize("bad", ["secret-words", OLD[:-1], OLD + "A", "ä" * 44])
def test_a_bad_key_is_refused_and_not_shown(queue, run, monkeypatch, bad):
    id = crypt.enqueue_sealed("mail", MAIL)
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", f"{NEW},{bad}")

    run(raises(AssertionError))

    with pytest.raises(BadArgument) as caught:
        crypt.seal("mail", 1)
    assert "number 2 is no key" in str(caught.value)
    assert bad not in str(caught.value) + queue.get(id).error
    assert (queue.get(id).status, queue.get(id).attempts) == ("pending", 0)


@pytest.mark.parametrize("keys", [f"{NEW},{OLD}", f" {NEW} {OLD}\n", [NEW, OLD]])
def test_the_first_key_seals_and_all_open(queue, run, keys):
    old = crypt.enqueue_sealed("mail", 1, keys=OLD)
    new = crypt.enqueue_sealed("mail", 2, keys=keys)

    run(layers=[crypt.unsealing(keys)])

    assert [crypt.opened(queue.get(id), keys).result for id in (old, new)] == [1, 2]
    assert queue.get(new).payload["key"] == crypt.Keys(NEW).first.name
    assert queue.get(old).result["key"] == crypt.Keys(NEW).first.name


def test_a_key_does_not_show_itself():
    assert OLD not in repr(crypt.Keys(OLD).first) + str(vars(crypt.Keys(OLD)))


def test_without_cryptography_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)

    with pytest.raises(QueueError, match=r"pip install 'dbbasic-queue\[crypto\]'"):
        crypt.seal("mail", 1, keys=crypt.new_key())


def test_without_cryptography_a_sealed_job_waits_and_is_not_charged(queue, monkeypatch):
    job_id = crypt.enqueue_sealed("mail", 1, queue_file=queue)
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)

    queue.process_jobs(
        {"mail": str}, 1, middleware=[crypt.unsealing(os.environ["DBBASIC_QUEUE_KEY"])]
    )

    job = queue.get(job_id)
    assert (job.status, job.attempts) == ("pending", 0)
    assert "pip install 'dbbasic-queue[crypto]'" in job.error


def test_errors_that_are_sealed_say_how_they_are_read(queue):
    tasks = Tasks()

    @tasks.task(sealed=True, middleware=[errors_kept], backoff="none")
    def number(text):
        return int(text)

    job_id = number.enqueue("secret")

    queue.process_jobs(tasks)
    queue.process_jobs(tasks)

    job = queue.get(job_id)
    with pytest.raises(BadRow, match=r"crypt\.opened"):
        errors_of(job)
    [(attempt, error)] = errors_of(crypt.opened(job))
    assert attempt == 1 and error.startswith("ValueError")


def test_importing_the_feature_needs_no_cryptography(run_python):
    code = """
        import sys
        sys.modules["cryptography"] = None
        import dbbasic_queue.crypt, dbbasic_queue.tasks
        print("cryptography.fernet" in sys.modules)
    """

    assert run_python(code).communicate()[0] == "False\n"


# What was changed by hand


def refused(queue, run, id):
    """Run what is due; return why the job was not run, with its payload as it was before."""
    payload = queue.get(id).cells[2]
    run(raises(AssertionError("it ran")))
    job = queue.get(id)
    assert job.status == "failed"
    assert job.cells[2] == payload
    return job.error


def test_a_token_of_another_job_is_refused(queue, run):
    a = crypt.enqueue_sealed("mail", 1, run_at=time.time() + 900)
    b = crypt.enqueue_sealed("mail", 2)
    tokens = [queue.get(id).payload["sealed"] for id in (a, b)]

    vi(tokens[1], tokens[0])

    assert f"was sealed for the payload of job {a} of type mail" in refused(queue, run, b)


def test_a_retry_after_the_repair_runs_it(queue, run):
    a = crypt.enqueue_sealed("mail", 1, run_at=time.time() + 900)
    b = crypt.enqueue_sealed("mail", 2)
    tokens = [queue.get(id).payload["sealed"] for id in (a, b)]
    vi(tokens[1], tokens[0])
    refused(queue, run, b)

    with queue.edit() as e:
        e.set(e.get(b), {"payload": queue.get(b).cells[2].replace(*[t.encode() for t in tokens])})
    queue.retry(b)
    run()

    assert crypt.opened(queue.get(b)).result == 2


def test_another_type_is_refused(queue, run):
    id = crypt.enqueue_sealed("letter", 1)

    vi("\tletter\t", "\tmail\t")

    assert "of type letter" in refused(queue, run, id)


def test_another_column_is_refused(queue, run):
    id = crypt.enqueue_sealed("mail", 1)

    def handler(payload):
        current_job().record(steps="a", checkpoint="b")
        raise Retry("again")

    run(handler)
    job = queue.get(id)
    vi(job.cell("steps"), job.cell("checkpoint"))

    error = refused(queue, run, id)
    assert "its steps was sealed for the checkpoint" in error.replace("its steps were", "its steps")


def test_steps_written_by_hand_are_refused(queue, run):
    id = crypt.enqueue_sealed("mail", 1, columns={"steps": '{"charge": "done"}'})

    assert "by hand" in refused(queue, run, id)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-8],
        lambda token: token[:40],
        lambda token: "",
        lambda token: token[:60] + ("A" if token[60] != "A" else "B") + token[61:],
        lambda token: "gAAAAA" + "A" * 100 + "==",
        lambda token: "é" + token,
        lambda token: crypt.seal("mail", 1, keys=NEW)["payload"]["sealed"],
    ],
)
def test_a_token_that_is_truncated_or_forged_is_refused(queue, run, change):
    id = crypt.enqueue_sealed("mail", 1)
    token = queue.get(id).payload["sealed"]

    vi(token, change(token))

    assert "changed or cut short" in refused(queue, run, id)


def test_a_payload_cell_that_is_cut_off_does_not_run(queue, run):
    id = crypt.enqueue_sealed("mail", 1)

    vi('", "key"', "")
    run(raises(AssertionError("it ran")))

    assert queue.get(id).status != "completed"
    assert "it ran" not in str(queue.get(id).error)


def test_a_row_copied_under_another_id_is_refused(queue, run):
    id = crypt.enqueue_sealed("mail", 1)
    run()
    other = queue.new_id()
    with open("data/queue.tsv", "a", encoding="utf-8") as file:
        row = line_of(id).replace(id, other).replace("\tcompleted\t", "\tpending\t").split("\t")
        file.write("\t".join([*row[:7], "", "", *[""] * (len(row) - 9)]) + "\n")

    assert f"job {id}" in refused(queue, run, other)


def pasted(queue, line):
    """Put a row at the end of the file, as from another file's copy."""
    with open("data/queue.tsv", "a", encoding="utf-8") as file:
        file.write(line + "\n")


def statuses(id):
    lines = Path("data/queue.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[3] for line in lines if line.startswith(id)]


def test_a_row_put_there_once_more_after_it_ran_is_refused(queue, run):
    id = crypt.enqueue_sealed("mail", 1)
    before = line_of(id)
    run()
    crypt.enqueue_sealed("late", 1)
    pasted(queue, before)

    run(raises(AssertionError("it ran")))

    assert statuses(id) == ["completed", "failed"]
    assert "another row has its id" in Path("data/queue.tsv").read_text()


def test_a_row_put_there_twice_before_it_ran_runs_neither_time(queue, run):
    id = crypt.enqueue_sealed("mail", 1)
    pasted(queue, line_of(id))

    run(raises(AssertionError("it ran")))

    assert "failed" in statuses(id)
    assert "completed" not in statuses(id)
    assert "it ran" not in Path("data/queue.tsv").read_text()


def test_a_row_put_back_after_it_was_archived_is_refused(queue, run):
    id = crypt.enqueue_sealed("mail", 1)
    before = line_of(id)
    run()
    with queue.edit() as e:
        e.change(e.get(id), finished_at=time.time() - 100)
    assert queue.archive(50) == 1
    pasted(queue, before)

    run(raises(AssertionError("it ran")))

    assert statuses(id) == ["failed"]
    assert "stands in the archive" in queue.get(id).error


def test_a_damaged_line_with_its_id_holds_no_job_up(queue, run):
    id = crypt.enqueue_sealed("mail", 1)
    pasted(queue, f"{id}\tmail\tno row")

    run()

    assert crypt.opened(queue.get(id)).result == 1


# Plain jobs


def test_a_plain_job_runs_beside_sealed_ones(queue, run):
    id = queue.enqueue("mail", {"a": 1})

    run()

    assert queue.get(id).result == {"a": 1}


def test_a_plain_job_is_refused_in_a_queue_of_sealed_ones(queue, run):
    plain = queue.enqueue("mail", 1, queue="safe")
    other = queue.enqueue("mail", 2)
    sealed = crypt.enqueue_sealed("mail", 3, queue="safe")

    run(layers=[crypt.unsealing(queues=["safe"])])

    assert queue.get(plain).status == "failed"
    assert queue.get(plain).error == "its payload is plain, and here only sealed jobs run"
    assert queue.get(other).result == 2
    assert crypt.opened(queue.get(sealed)).result == 3


# With the other verbs


def test_a_copy_under_a_new_id_is_refused_and_a_retry_is_not(queue, run):
    id = crypt.enqueue_sealed("mail", 7)
    run(raises(Discard("no")))

    [copy] = queue.retry(id, copy=True)
    queue.retry(id)
    run()

    assert crypt.opened(queue.get(id)).result == 7
    assert f"was sealed for the payload of job {id}" in queue.get(copy).error


def test_what_opened_tells_can_be_sealed_anew_for_a_copy(queue, run):
    id = crypt.enqueue_sealed("mail", 7)
    old = crypt.opened(queue.get(id))

    copy = queue.enqueue(**crypt.seal(old.type, old.payload))
    run()

    assert crypt.opened(queue.get(copy)).result == 7


def test_a_job_from_the_archive_is_opened(queue, run):
    id = crypt.enqueue_sealed("mail", MAIL)
    run()
    with queue.edit() as e:
        e.change(e.get(id), finished_at=time.time() - 100)
    queue.archive(50)

    assert crypt.opened(queue.get(id)).result == MAIL
    assert SECRET.encode() not in everything()


def test_a_unique_job_may_be_sealed_but_takes_no_others_place(queue):
    first = enqueue_unique(**crypt.seal("mail", 1), key="a")
    second = enqueue_unique(**crypt.seal("mail", 2), key="a")

    assert first == second
    with pytest.raises(BadArgument, match="keeps its own id"):
        enqueue_unique(**crypt.seal("mail", 2), key="a", replace=True)


def test_a_chain_of_sealed_jobs_hands_its_results_on(queue, run):
    steps = [crypt.seal("mail", n, after=None) for n in (1, 2)]
    chain = chains.enqueue_chain(steps)
    seen = []

    def handler(payload):
        if payload == 2:
            seen.append((crypt.previous_result(), chains.previous_result().keys()))
        return f"{SECRET} {payload}"

    run(handler)

    assert seen == [(f"{SECRET} 1", {"sealed", "key"})]
    assert chains.get_chain(chain.id).ok
    assert SECRET.encode() not in everything()


def test_what_follows_a_batch_reads_the_results_of_all_of_it(queue, run):
    seen = []
    batch.enqueue_batch([crypt.seal("mail", n) for n in (1, 2)], then=crypt.seal("sum", MAIL))

    run({"mail": lambda n: n * 10, "sum": lambda of: seen.append((of, crypt.previous_results()))})

    assert seen == [(MAIL, [10, 20])]


def test_a_result_of_another_job_is_not_taken_for_the_one_before(queue, run):
    other = crypt.enqueue_sealed("mail", 1)
    chains.enqueue_chain([crypt.seal("mail", 2), crypt.seal("sum", 3)])
    run()
    theirs, before = (job.result["sealed"] for job in queue.jobs(type="mail"))
    vi(before, theirs)
    said = []

    def adds(payload):
        with pytest.raises(crypt.NotOpened, match=f"was sealed for the result of job {other}"):
            said.append(crypt.previous_result())

    run({"sum": adds})

    assert said == []
    assert queue.counts("status") == {"completed": 3}


def test_a_worker_may_run_sealed_jobs_only(queue, run):
    id = queue.enqueue("mail", 1)

    run(layers=[crypt.unsealing(all=True)])

    assert queue.get(id).status == "failed"


def test_what_a_schedule_adds_cannot_have_been_sealed_before(queue, run):
    schedule.add_schedule("nightly", "mail", crypt.seal("mail", 1)["payload"], every=60)

    id = schedule.run_now("nightly")
    run(schedule.serving({"mail": raises(AssertionError("it ran"))}))

    assert "was sealed for the payload of job" in queue.get(id).error


def test_many_are_sealed_and_added_at_once(queue, run):
    ids = queue.enqueue_many(crypt.seal("mail", n) for n in range(3))

    run()

    assert [crypt.opened(queue.get(id)).result for id in ids] == [0, 1, 2]


def test_what_waits_for_others_keeps_waiting_when_it_is_sealed(queue):
    first = queue.enqueue("other")

    id = crypt.enqueue_sealed("mail", 1, after=iter([first]))

    assert queue.get(id).after == f"ok:{first}"


def test_bad_arguments_are_found_before_anything_is_written(queue):
    for given in ({"job_type": "a\tb"}, {"job_type": "mail", "priority": "x"}):
        with pytest.raises(BadArgument):
            crypt.seal(**given)
    with pytest.raises(BadArgument, match="over the limit"):
        crypt.enqueue_sealed("mail", "x" * 800_000)

    assert not Path("data").exists()


def test_a_sealed_job_may_be_signed_too(queue, run):
    id = queue.enqueue(**sign.sign(**crypt.seal("mail", 5)))

    run(layers=[crypt.unsealing(), sign.verifying()])

    assert crypt.opened(queue.get(id)).result == 5


# Tasks


def test_a_sealed_task_seals_and_opens_by_itself(queue):
    tasks, seen = Tasks(), []

    @tasks.task(sealed=True)
    def greet(name):
        seen.append(name)
        return name

    id = greet.enqueue(SECRET)
    many = queue.enqueue_many([greet.job(SECRET)])
    queue.process_jobs(tasks)

    assert seen == [SECRET, SECRET]
    assert crypt.opened(queue.get(id)).result == crypt.opened(queue.get(many[0])).result == SECRET
    assert SECRET.encode() not in everything()


def test_a_sealed_task_runs_under_a_layer_that_opens_too(queue, run):
    tasks, seen = Tasks(), []
    task = tasks.task(sealed=[OLD], name="greet")(seen.append)

    task.enqueue("a")
    run(dict(tasks))
    task.enqueue("b")
    run({"greet": task})

    assert seen == ["a", "b"]


def test_a_sealed_task_runs_no_plain_call(queue):
    tasks = Tasks()
    tasks.task(sealed=True, name="greet")(raises(AssertionError("it ran")))
    id = queue.enqueue("greet", {"args": ["x"]})

    queue.process_jobs(tasks)

    assert queue.get(id).error == "its payload is plain, and here only sealed jobs run"


@pytest.mark.parametrize("unique", [True, lambda name: name])
def test_the_key_of_a_unique_sealed_task_tells_nothing(queue, unique):
    tasks = Tasks()
    task = tasks.task(sealed=True, unique=unique, name="greet")(lambda name: None)

    first, second, third = task.enqueue(SECRET), task.enqueue(SECRET), task.enqueue("b")

    assert first == second != third
    assert SECRET.encode() not in everything()


@pytest.mark.parametrize("retried", [False, True])
def test_failed_is_told_the_error_in_plain(queue, caplog, retried):
    tasks, told = Tasks(), []

    @tasks.task(sealed=True, max_attempts=1)
    class Greet:
        name: str

        def handle(self):
            raise ValueError(f"no {self.name}")

        def failed(self, error):
            told.append((self.name, error))

    id = Greet.enqueue(SECRET)
    queue.process_jobs(tasks)
    if retried:
        queue.retry(id)
        queue.process_jobs(tasks)

    assert told == [(SECRET, f"ValueError: no {SECRET}")] * (1 + retried)
    assert SECRET.encode() not in everything()
    assert SECRET not in caplog.text


def test_no_keys_are_no_way_to_say_sealed():
    with pytest.raises(BadArgument, match="give True, or keys"):
        Tasks().task(sealed=[], name="greet")(lambda: None)


# Reseal


def test_reseal_brings_every_row_under_the_first_key(queue, run):
    done = crypt.enqueue_sealed("mail", 1)
    failed = crypt.enqueue_sealed("mail", 2)
    archived = crypt.enqueue_sealed("mail", 3)

    def handler(payload):
        current_job().record(steps="some")
        if payload == 2:
            raise Discard("no")
        return payload

    run(handler)
    with queue.edit() as e:
        e.change(e.get(archived), finished_at=time.time() - 100)
    queue.archive(50)
    waits = crypt.enqueue_sealed("mail", 4)
    plain = queue.enqueue("mail", 5)
    old, new = (crypt.Keys(key).first.name.encode() for key in (OLD, NEW))

    assert crypt.reseal([NEW, OLD]) == (4, 0)

    assert old not in everything()
    assert everything().count(new) == 4 + 2 + 1 + 3
    jobs = {id: crypt.opened(queue.get(id), NEW) for id in (done, failed, archived, waits)}
    assert [job.payload for job in jobs.values()] == [1, 2, 3, 4]
    assert (jobs[done].result, jobs[failed].error) == (1, "no")
    assert jobs[archived].cell("steps") == "some"
    run(layers=[crypt.unsealing(NEW)])
    assert crypt.opened(queue.get(waits), NEW).result == 4
    assert queue.get(plain).result == 5
    assert crypt.reseal([NEW, OLD]) == (0, 0)


def test_reseal_leaves_what_runs_what_was_changed_and_what_has_another_key(queue, run):
    changed = crypt.enqueue_sealed("mail", 1, run_at=time.time() + 900)
    token = queue.get(changed).payload["sealed"]
    vi(token, token[:50])
    crypt.enqueue_sealed("mail", 2, keys=crypt.new_key(), run_at=time.time() + 900)
    id = crypt.enqueue_sealed("mail", 3)
    counts = []

    run(lambda payload: counts.append(crypt.reseal([NEW, OLD])), layers=[crypt.unsealing(OLD)])

    assert counts == [(0, 3)]
    assert crypt.reseal([NEW, OLD]) == (1, 2)
    assert crypt.opened(queue.get(id), NEW).payload == 3


def test_reseal_signs_anew_what_was_signed(queue, run):
    id = queue.enqueue(**sign.sign(**crypt.seal("mail", 5)))

    crypt.reseal([NEW, OLD])
    run(layers=[crypt.unsealing(NEW), sign.verifying(NEW)])

    assert crypt.opened(queue.get(id), NEW).result == 5


def test_a_live_queue_is_resealed_and_nothing_runs_twice_or_is_lost(queue, run_python):
    ids = queue.enqueue_many(crypt.seal("mail", {**MAIL, "n": n}) for n in range(60))
    env = {"DBBASIC_QUEUE_KEY": f"{NEW},{OLD}"}
    worker = run_python(WORKER.replace("PROCESSES", "0"), env=env, stderr=-1)

    while worker.poll() is None:
        crypt.reseal([NEW, OLD])
    ran = worker.communicate()[0].count("runs")
    left = crypt.reseal([NEW, OLD])[1]

    assert (ran, left) == (60, 0)
    assert {crypt.opened(queue.get(id), NEW).result["n"] for id in ids} == set(range(60))


@pytest.mark.faults
def test_a_reseal_killed_at_any_call_leaves_the_old_or_the_new(queue, run, run_python):
    ids = [crypt.enqueue_sealed("mail", n) for n in range(3)]
    run()
    with queue.edit() as e:
        e.change(e.get(ids[0]), finished_at=time.time() - 100)
    queue.archive(50)
    code = f"""
        import os, signal, sys
        from dbbasic_queue import crypt
        left = NUMBER
        def count(name):
            real = getattr(os, name)
            def call(*given, **more):
                global left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **more)
            setattr(os, name, call)
        for name in ("open", "write", "fsync", "rename", "unlink", "close", "ftruncate", "fchmod"):
            count(name)
        crypt.reseal({[NEW, OLD]!r})
    """
    for number in range(200):
        child = run_python(code.replace("NUMBER", str(number)))
        ended = child.wait()
        assert [crypt.opened(queue.get(id), [NEW, OLD]).result for id in ids] == [0, 1, 2]
        if ended == 0:
            break
    assert number > 10
    assert crypt.reseal([NEW, OLD]) == (0, 0)


# From the shell


def test_a_key_from_the_shell_seals(queue, capsys):
    cli.main(["new-key"])
    key = capsys.readouterr().out.strip()
    cli.main(["new-key", "--json"])
    named = json.loads(capsys.readouterr().out)

    assert crypt.opened(queue.get(crypt.enqueue_sealed("mail", 1, keys=key)), key).payload == 1
    assert named["fingerprint"] == crypt.Keys(named["key"]).first.name


def test_show_opens_when_it_is_asked_to_and_says_which_key_is_missing(queue, capsys, monkeypatch):
    id = crypt.enqueue_sealed("mail", MAIL)
    answers = [cli.main(["show", id]), cli.main(["show", id, "--unseal"])]
    shown = capsys.readouterr().out
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", NEW)
    answers.append(cli.main(["show", id, "--unseal"]))

    assert answers == [0, 0, 2]
    assert shown.count(SECRET) == 1
    assert crypt.Keys(OLD).first.name in capsys.readouterr().err


def test_reseal_says_how_many_and_ends_with_one_while_some_are_left(queue, capsys, monkeypatch):
    crypt.enqueue_sealed("mail", 1)
    crypt.enqueue_sealed("mail", 2, keys=crypt.new_key())
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", f"{NEW} {OLD}")

    assert cli.main(["reseal"]) == 1
    assert capsys.readouterr().out == f"1 job of {queue.path} resealed, 1 left\n"


# Figures


def test_sealing_and_opening_a_job_is_cheap(queue):
    began = time.perf_counter()

    jobs = [crypt.seal("mail", MAIL) for _ in range(50)]

    assert (time.perf_counter() - began) / len(jobs) < 0.01
    assert json.dumps(jobs[0]["payload"])


def test_work_and_run_open_what_a_key_of_the_environment_opens(tmp_path, monkeypatch):
    from dbbasic_queue.cli import main

    (tmp_path / "sealed_handlers.py").write_text("HANDLERS = {'x': lambda payload: payload['a']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    key, other = crypt.new_key(), crypt.new_key()
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", key)
    queue = Queue()
    first, second = (crypt.enqueue_sealed("x", {"a": n}) for n in (1, 2))
    foreign = crypt.enqueue_sealed("x", {"a": 3}, keys=[other])

    assert main(["run", first, "sealed_handlers:HANDLERS"]) == 0
    assert main(["work", "sealed_handlers:HANDLERS"]) == 0

    assert [crypt.opened(queue.get(id)).result for id in (first, second)] == [1, 2]
    assert crypt.sealed_with(queue.get(foreign)) == crypt.Keys(other).first.name
    assert queue.get(foreign).error == "KeyError: 'a'"  # it came sealed, as to any handler
