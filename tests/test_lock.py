"""The lock: who is kept out, who is told what, and that nobody can keep it by accident."""

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import filelock
import pytest
from faults import calls, reader, scenes
from faults.children import Children, until
from freezegun import freeze_time

from dbbasic_queue import Queue, mount
from dbbasic_queue.errors import QueueBusy, QueueError
from dbbasic_queue.lock import in_a_lock

FILE = Path("data/queue.tsv")
LOCK = Path("data/queue.tsv.lock")


@pytest.fixture
def children():
    with Children() as children:
        yield children


def queue(**options):
    return Queue(FILE, **{"sync": "off", "lock_timeout": 5, **options})


def note(payload):
    return payload


def is_locked(path):
    """Whether anybody else holds the flock of a file."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def seconds_of(call, expected):
    """How long a call takes that must raise `expected`; return (seconds, the exception)."""
    begun = time.monotonic()
    with pytest.raises(expected) as raised:
        call()
    return time.monotonic() - begun, raised.value


def hold(say, path=FILE):
    """In a child: stay in an edit until killed."""
    with Queue(path).edit():
        say("held")
        time.sleep(600)


@contextmanager
def a_shell_that_holds_the_lock():
    command = ["flock", LOCK, "-c", "echo held; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as shell:
        try:
            shell.stdout.readline()
            yield shell
        finally:
            os.killpg(shell.pid, signal.SIGKILL)


# --- who is kept out


@pytest.mark.soak
@pytest.mark.skipif(not shutil.which("flock"), reason="needs flock(1)")
def test_a_shells_flock_keeps_enqueue_out_and_the_error_names_file_and_holder():
    queue().enqueue("note")
    before = FILE.read_bytes()

    with a_shell_that_holds_the_lock() as shell:
        seconds, problem = seconds_of(lambda: queue(lock_timeout=0.3).enqueue("note"), QueueBusy)

    assert 0.2 < seconds < 3
    assert str(FILE.resolve()) in str(problem)
    assert "0.3 s" in str(problem)
    assert f"process {shell.pid} (flock)" in str(problem)
    assert FILE.read_bytes() == before
    queue().enqueue("note")


@pytest.mark.skipif(not shutil.which("flock"), reason="needs flock(1)")
def test_an_edit_keeps_a_shells_flock_out():
    with queue().edit():
        held = subprocess.run(["flock", "-n", LOCK, "true"], check=False).returncode
    free = subprocess.run(["flock", "-n", LOCK, "true"], check=False).returncode

    assert (held, free) == (1, 0)


@pytest.mark.soak
def test_anybodys_file_lock_keeps_every_verb_out():
    id = queue().enqueue("note")
    one = queue(lock_timeout=0.05)

    with filelock.FileLock(LOCK):
        for verb in (
            lambda: one.enqueue("note"),
            lambda: one.cancel(id),
            lambda: one.retry(id),
            lambda: one.purge(),
            lambda: one.process_jobs({"note": note}),
            lambda: one.edit().__enter__(),
        ):
            seconds, _ = seconds_of(verb, QueueBusy)
            assert seconds < 3

    one.process_jobs({"note": note})
    assert one.get(id).status == "completed"


def test_an_edit_keeps_anybodys_file_lock_out():
    with queue().edit(), pytest.raises(filelock.Timeout):
        filelock.FileLock(LOCK, timeout=0).acquire()

    with filelock.FileLock(LOCK, timeout=0):
        pass


def test_readers_need_no_lock():
    id = queue().enqueue("note")

    with filelock.FileLock(LOCK):
        assert queue().get_job(id)["status"] == "pending"
        assert queue().counts("status") == {"pending": 1}
        assert [job.id for job in queue().jobs()] == [id]


@pytest.mark.soak
def test_a_frozen_clock_does_not_make_a_locked_queue_wait_for_ever(children):
    queue().enqueue("note")
    children.start(hold).hear()

    with freeze_time("2026-01-01"):
        seconds, _ = seconds_of(lambda: queue(lock_timeout=0.2).enqueue("note"), QueueBusy)

    assert seconds < 5


def test_a_lock_timeout_of_zero_asks_once(children):
    queue().enqueue("note")
    children.start(hold).hear()

    seconds, _ = seconds_of(lambda: queue(lock_timeout=0).enqueue("note"), QueueBusy)

    assert seconds < 0.5


def test_the_lock_of_a_killed_process_is_free_at_once(children):
    queue().enqueue("note")
    holder = children.start(hold)
    holder.hear()

    os.kill(holder.pid, signal.SIGKILL)
    begun = time.monotonic()
    queue().enqueue("note")

    assert time.monotonic() - begun < 1


@pytest.mark.soak
def test_a_stopped_process_keeps_its_lock_until_it_goes_on(children):
    queue().enqueue("note")
    holder = children.start(hold)
    holder.hear()

    holder.send(signal.SIGSTOP)

    seconds_of(lambda: queue(lock_timeout=0.1).enqueue("note"), QueueBusy)


def test_the_lock_file_stays_empty_and_the_same():
    ids = [queue().enqueue("note") for _ in range(3)]
    before = LOCK.stat().st_ino

    queue().cancel(ids[0])
    queue().process_jobs({"note": note})

    assert LOCK.stat().st_ino == before
    assert LOCK.stat().st_size == 0


def test_a_lock_file_that_is_a_link_is_an_error_and_what_it_points_to_is_left_alone(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("text")
    FILE.parent.mkdir()
    LOCK.symlink_to(precious)

    with pytest.raises(QueueError, match=r"queue\.tsv\.lock"):
        queue().enqueue("note")

    assert precious.read_text() == "text"
    assert not FILE.exists()


# --- P8: calls from within


@pytest.mark.parametrize("other", ["the same object", "another object", "a link"])
def test_p8_a_verb_inside_an_edit_of_its_queue_is_busy_at_once(other, tmp_path):
    outer = queue()
    id = outer.enqueue("note")
    link = tmp_path / "link.tsv"
    link.symlink_to(FILE.resolve())
    inner = {"the same object": outer, "another object": queue()}.get(other)
    inner = inner or Queue(link, sync="off", lock_timeout=5)

    with outer.edit() as e:
        for verb in (lambda: inner.enqueue("note"), lambda: inner.cancel(id)):
            seconds, problem = seconds_of(verb, QueueBusy)
            assert seconds < 1
            assert "this thread" in str(problem)
        e.change(e.get(id), priority=5)

    assert outer.get(id).priority == 5
    assert len(reader.read(FILE)) == 1


def test_p8_an_edit_of_another_queue_inside_an_edit_is_fine():
    one, two = Queue("one.tsv", sync="off"), Queue("two.tsv", sync="off")

    with one.edit():
        two.enqueue("note")

    assert two.counts("status") == {"pending": 1}


def test_p8_a_body_that_raises_changes_nothing_and_frees_the_lock():
    id = queue().enqueue("note")
    before = FILE.read_bytes()

    with pytest.raises(ZeroDivisionError), queue().edit() as e:
        e.change(e.get(id), priority=5)
        raise ZeroDivisionError

    assert FILE.read_bytes() == before
    queue(lock_timeout=0).enqueue("note")


def test_p8_another_thread_waits_for_an_edit_and_gives_up_after_lock_timeout():
    queue().enqueue("note")
    problems = []

    def enqueue_in_vain():
        problems.append(seconds_of(lambda: queue(lock_timeout=0.2).enqueue("note"), QueueBusy))

    with queue().edit():
        thread = threading.Thread(target=enqueue_in_vain)
        thread.start()
        thread.join()
    [(seconds, problem)] = problems

    assert 0.1 < seconds < 3
    assert "another thread" in str(problem)


def test_p8_threads_exclude_each_other():
    """P8: eight threads add and change at once; each of their jobs is there, as it should be."""
    one, told, problems = queue(), [], []

    def work():
        try:
            for number in range(12):
                id = one.enqueue("note", {"number": number})
                if number % 4 == 0:
                    one.cancel(id)
                told.append(id)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    rows = reader.by_id(FILE)
    assert not problems
    assert sorted(rows) == sorted(told)
    assert sum(row["status"] == "cancelled" for row in rows.values()) == 24


def test_p8_a_handler_may_use_every_verb_of_its_queue():
    one = queue()
    one.enqueue("outer")
    victim = one.enqueue("note", run_at=time.time() + 3600)
    seen = {}

    def outer(payload):
        seen["added"] = one.enqueue("note", {"from": "outer"})
        seen["cancelled"] = one.cancel(victim)
        with one.edit() as e:
            seen["status"] = e.get(seen["added"]).status

    one.process_jobs({"outer": outer, "note": note})

    assert (seen["cancelled"], seen["status"]) == (True, "pending")
    assert one.get(seen["added"]).status == "completed"
    assert one.counts("status") == {"completed": 2, "cancelled": 1}


def test_p8_a_signal_handler_that_enqueues_neither_hangs_nor_harms():
    """P8: it has its job stored, or is told at once that the queue is busy."""
    one, told, busy = queue(lock_timeout=20), [], []

    def on_alarm(number, frame):
        try:
            told.append(one.enqueue("signal"))
        except QueueBusy:
            busy.append(1)

    old = signal.signal(signal.SIGALRM, on_alarm)
    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.0013, 0.0013)
    try:
        while len(told) < 30 or len(busy) < 30:
            told.append(one.enqueue("main"))
            assert time.monotonic() - begun < 15
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)

    assert sorted(told) == sorted(reader.by_id(FILE))


def test_p8_a_call_from_within_any_call_of_an_enqueue_neither_waits_nor_harms(tmp_path):
    """P8: as a signal handler does, at each system call in turn."""
    base = scenes.Folder(tmp_path / "base")
    base.path.mkdir()
    scenes.three_jobs(base)

    for number in range(1, 1000):
        folder = base.copy(tmp_path / str(number))
        within = calls.Mode("within", False, lambda *_: True, enqueue_within(folder))
        begun = time.monotonic()
        outcome = calls.attempt(lambda f=folder: scenes.enqueue(f), within, number)
        seconds = time.monotonic() - begun
        if not outcome.struck:
            break
        assert not outcome.raised, outcome
        assert seconds < 2, f"{outcome.struck}: {seconds} s"
        added = set(folder.rows()) - set(folder.known.values())
        assert added == set(folder.noted("told"))

    assert number > 10


def enqueue_within(folder):
    def strike(real, name, args):
        try:
            folder.note("told", folder.queue().enqueue("run"))
        except QueueBusy:
            pass
        return real(*args)

    return strike


@pytest.mark.parametrize(
    "verb", ["enqueue", "enqueue_many", pytest.param("cancel", marks=pytest.mark.faults)]
)
def test_p8_an_exception_at_any_moment_out_of_a_signal_handler_leaves_nothing_locked(verb):
    """P8: where Python runs signal handlers, after calls in C and at the start of functions."""
    others, ways = queue(lock_timeout=0), set()

    for number in range(1, 2000):
        one = queue(lock_timeout=0)
        given = {"enqueue": "note", "enqueue_many": [("note",)], "cancel": one.enqueue("note")}
        if not raises_at(number, partial(getattr(one, verb), given[verb]), ways):
            break
        with ThreadPoolExecutor(1) as thread:
            thread.submit(others.enqueue, "note").result()
        assert not in_a_lock(threading.get_ident())
        one.enqueue("note")

    assert len(ways) > 20


def raises_at(number, call, ways):
    """Make a call and raise at one moment; whether there were as many."""
    left = number

    def count(frame, event, function):
        nonlocal left
        if event in ("call", "c_return") and "dbbasic_queue" in frame.f_code.co_filename:
            left -= 1
            if not left:
                ways.add((frame.f_code.co_name, event, frame.f_lineno))
                raise KeyboardInterrupt

    try:
        sys.setprofile(count)
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return left <= 0


# --- P8, P17: forks


def test_p8_a_fork_inside_an_edit_leaves_the_lock_with_the_parent(children):
    id = queue().enqueue("note")

    with queue().edit() as e:
        children.start(lambda say: None).wait()
        assert is_locked(LOCK)
        assert is_locked(FILE)
        e.change(e.get(id), priority=7)

    assert queue().get(id).priority == 7


def test_p8_a_child_forked_inside_an_edit_does_not_keep_the_lock(children):
    queue().enqueue("note")

    with queue().edit():
        sleeper = children.start(lambda say: time.sleep(600))
    begun = time.monotonic()
    asked = children.start(lambda say: say(queue().enqueue("note")))

    assert asked.hear()
    assert time.monotonic() - begun < 2
    assert not sleeper.ended


def test_p8_a_child_forked_inside_an_edit_waits_for_it_like_anybody(children):
    def enqueue(say):
        say("begun")
        say(queue().enqueue("child"))

    queue().enqueue("note")
    with queue().edit():
        child = children.start(enqueue)
        assert child.hear() == "begun"
        time.sleep(0.05)
        inside = len(reader.read(FILE))
    id = child.hear()

    assert inside == 1
    assert id in reader.by_id(FILE)


def test_p8_a_child_that_leaves_its_parents_edit_changes_nothing(children):
    """P8: the body of the edit goes on in both; only the parent's may be stored."""
    id = queue().enqueue("note")

    with queue().edit() as e:
        child = children.start(lambda say: leave(e, id))
        assert child.wait() == 1, "the child was let to commit"
        assert is_locked(LOCK)
        e.change(e.get(id), priority=7)

    assert [row["priority"] for row in reader.read(FILE)] == ["7"]
    assert not reader.leftovers(FILE)


def leave(e, id):
    e.change(e.get(id), priority=3)
    e.__exit__(None, None, None)


def test_p8_a_fork_leaves_the_lock_alone_also_after_many_other_queues(children):
    """P8: a process that has used more queues than are kept open."""
    first = queue()
    id = first.enqueue("note")
    for number in range(80):
        Queue(f"other/{number}.tsv", sync="off").enqueue("note")

    with first.edit() as e:
        child = children.start(lambda say: leave(e, id))
        assert child.wait() == 1, "the child was let to commit"
        assert is_locked(FILE)
        seconds, _ = seconds_of(lambda: Queue(FILE).enqueue("note"), QueueBusy)

    assert seconds < 1
    assert [row["priority"] for row in reader.read(FILE)] == [""]


def test_p8_a_fork_in_another_thread_in_the_middle_of_edits_harms_neither(children):
    """P8: children forked while a thread edits can use the queue, and the thread goes on."""
    one, stop, told = queue(), threading.Event(), []

    def work():
        while not stop.is_set():
            told.append(one.enqueue("parent"))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        forked = [children.start(lambda say: say(one.enqueue("child"))) for _ in range(20)]
        told_in_children = [child.hear() for child in forked]
    finally:
        stop.set()
        thread.join()

    assert all(len(id) == 16 for id in told_in_children), told_in_children
    assert sorted(reader.by_id(FILE)) == sorted(told + told_in_children)


def test_p8_a_fork_while_another_thread_waits_for_the_first_time_hangs_no_child(run_python):
    """P8: that imports filelock, and a child forked meanwhile waited for ever for that import."""
    code = """
        import fcntl, os, sys, threading, time
        from dbbasic_queue import Queue
        lock = os.open("queue.tsv.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        begun = threading.Event()
        class Slow:
            def find_spec(self, name, *rest):
                if name == "filelock":
                    begun.set()
                    time.sleep(0.02)
        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=Queue("queue.tsv").enqueue, args=["note"])
        thread.start()
        begun.wait()
        if not os.fork():
            Queue("queue.tsv").enqueue("note")
            os._exit(0)
        time.sleep(0.02)
        fcntl.flock(lock, fcntl.LOCK_UN)
        thread.join()
        os.wait()
    """
    child = run_python(code, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert child.wait(timeout=10) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


# --- P26: the lock file is deleted


def test_p26_a_deleted_lock_file_lets_nobody_into_an_edit(children):
    queue().enqueue("note")
    holder = children.start(hold)
    holder.hear()

    LOCK.unlink()
    seconds_of(lambda: queue(lock_timeout=0.1).enqueue("note"), QueueBusy)
    holder.kill()
    queue().enqueue("note")

    assert len(reader.read(FILE)) == 2


def test_p26_deleting_the_lock_file_again_and_again_loses_and_doubles_nothing(children):
    """P26: processes that add, cancel and run meanwhile."""

    def produce(say):
        one = queue(lock_timeout=20)
        for number in range(60):
            id = one.enqueue("note", {"number": number})
            if number % 6 == 0:
                one.cancel(id)
            say(id)

    def work(say):
        while True:
            queue(lock_timeout=20).process_jobs({"note": ran})
            time.sleep(0.003)

    def ran(payload):
        with open("ran", "ab", buffering=0) as file:
            file.write(b"x")

    def remove(say):
        while True:
            LOCK.unlink(missing_ok=True)
            time.sleep(0.001)

    producers = [children.start(produce) for _ in range(3)]
    others = [children.start(work), children.start(work), children.start(remove)]
    told = [id for child in producers for id in child.hear_all()]
    assert [child.wait() for child in producers] == [0, 0, 0], told
    until(lambda: b"\tpending\t" not in FILE.read_bytes())
    until(lambda: b"\tprocessing\t" not in FILE.read_bytes())
    assert not any(child.ended for child in others)

    rows = reader.by_id(FILE)
    assert sorted(rows) == sorted(told)
    completed = sum(row["status"] == "completed" for row in rows.values())
    assert completed == os.stat("ran").st_size


# --- links


@pytest.mark.soak
def test_two_names_of_one_queue_share_one_lock(children, tmp_path):
    queue().enqueue("note")
    link = tmp_path / "link.tsv"
    link.symlink_to(FILE.resolve())
    children.start(hold, link).hear()

    seconds_of(lambda: queue(lock_timeout=0.1).enqueue("note"), QueueBusy)

    assert not tmp_path.joinpath("link.tsv.lock").exists()


def test_a_link_that_is_gone_and_was_used_before_makes_way_for_a_queue(tmp_path):
    link = tmp_path / "link.tsv"
    link.symlink_to(FILE.resolve())
    one = Queue(link, sync="off", lock_timeout=5)
    one.enqueue("note")
    link.unlink()

    one.enqueue("note")

    assert link.is_file() and not link.is_symlink()
    assert one.counts() == {"pending": 1}


def test_a_link_that_is_pointed_elsewhere_is_followed_at_the_next_call(tmp_path):
    link, one, two = tmp_path / "link.tsv", tmp_path / "one.tsv", tmp_path / "two.tsv"
    link.symlink_to(one)
    through = Queue(link, sync="off")
    through.enqueue("note")
    Queue(two, sync="off").enqueue("note")

    link.unlink()
    link.symlink_to(two)
    id = through.enqueue("note")
    through.cancel(id)

    assert len(reader.read(one)) == 1
    assert [row["status"] for row in reader.read(two)] == ["pending", "cancelled"]
    assert link.is_symlink()


def test_a_link_that_changes_while_somebody_waits_leads_him_to_the_new_file(children, tmp_path):
    link, one, two = tmp_path / "link.tsv", tmp_path / "one.tsv", tmp_path / "two.tsv"
    for target in (one, two):
        Queue(target, sync="off").enqueue("note")
    link.symlink_to(one)

    with Queue(one, sync="off").edit():
        waiting = children.start(lambda say: [say("begun"), say(Queue(link).enqueue("waited"))])
        waiting.hear()
        time.sleep(0.05)
        os.symlink(two, tmp_path / "new")
        os.rename(tmp_path / "new", link)

    assert waiting.hear() in reader.by_id(two)
    assert len(reader.read(one)) == 1


def test_a_queue_whose_file_is_replaced_by_hand_goes_on_with_the_new_one(tmp_path):
    one = queue()
    one.enqueue("note")
    shutil.copy(FILE, tmp_path / "copy.tsv")
    os.rename(tmp_path / "copy.tsv", FILE)

    id = one.enqueue("note")

    assert list(reader.by_id(FILE))[1] == id


def test_a_link_to_nothing_is_a_queue_to_be_made_where_it_points(tmp_path):
    link, target = tmp_path / "link.tsv", tmp_path / "there" / "queue.tsv"
    target.parent.mkdir()
    link.symlink_to(target)

    id = Queue(link, sync="off").enqueue("note")

    assert link.is_symlink()
    assert list(reader.by_id(target)) == [id]


# --- the files stay open between calls


def descriptors(path):
    """The numbers under which this process has a file open."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts them in /proc")
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    there = [n for n in numbers if os.path.lexists(f"/proc/self/fd/{n}")]
    return [n for n in there if os.readlink(f"/proc/self/fd/{n}").split(" (")[0] == str(path)]


def lend(number, path, flags):
    """Close a descriptor as a program does that closes all it finds, and open a file there."""
    os.close(number)
    fd = os.open(path, flags) if path else os.pipe()[1]
    if fd != number:
        os.dup2(fd, number)
        os.close(fd)


def test_a_small_queue_is_kept_open_from_one_enqueue_to_the_next_and_an_edit_closes_it():
    one, counts = queue(), []

    for verb in (one.enqueue, one.enqueue, one.cancel, one.enqueue):
        verb("note")
        counts.append(len(descriptors(FILE.resolve())))
    one.cancel(one.enqueue("note"))

    assert counts == [1, 1, 0, 1]
    assert descriptors(FILE.resolve()) == []


def test_a_long_queue_is_not_kept_open_so_that_no_idle_process_keeps_an_old_version_on_the_disk():
    one = queue()
    one.enqueue_many([("note", "x" * 1_000_000)] * 9)

    one.enqueue("note")
    one.enqueue("note")

    assert descriptors(FILE.resolve()) == []


@pytest.mark.parametrize("name", ["queue.tsv", "queue.tsv.lock"])
@pytest.mark.parametrize("other", ["other", "queue.tsv", "queue.tsv.lock", ""])
def test_a_file_that_got_the_number_of_one_of_ours_is_neither_locked_nor_written(name, other):
    """A daemon closes all descriptors that it finds, and then opens files of its own."""
    one = queue()
    one.enqueue("note")
    Path("data/other").write_text("precious")
    [number] = descriptors(FILE.with_name(name).resolve())
    path = FILE.with_name(other).resolve() if other else None

    lend(number, path, os.O_RDWR)
    theirs, at = os.fstat(number), other and os.lseek(number, 3, os.SEEK_SET)
    ids = [one.enqueue("note"), one.enqueue("note")]

    closed = other == name == "queue.tsv.lock"  # cannot be told from ours, but is never written
    try:
        assert closed or os.path.samestat(os.fstat(number), theirs)
        assert closed or not other or os.lseek(number, 0, os.SEEK_CUR) == at
    finally:
        with suppress(OSError):
            os.close(number)
    assert list(reader.by_id(FILE))[1:] == ids
    assert (Path("data/other").read_text(), LOCK.read_bytes()) == ("precious", b"")


def test_a_kept_file_that_is_moved_away_gets_no_more_jobs():
    one = queue()
    first = one.enqueue("note")
    FILE.rename("data/old.tsv")

    second = one.enqueue("note")

    assert list(reader.by_id(Path("data/old.tsv"))) == [first]
    assert list(reader.by_id(FILE)) == [second]


def test_a_kept_file_that_a_link_stands_for_now_is_locked_where_the_link_points():
    one = queue()
    one.enqueue("note")
    FILE.rename("data/moved.tsv")
    FILE.symlink_to("moved.tsv")

    one.enqueue("note")

    assert len(reader.read(Path("data/moved.tsv"))) == 2
    assert Path("data/moved.tsv.lock").exists()


def test_a_kept_file_that_another_process_has_replaced_gets_no_more_jobs(children):
    one = queue()
    ids = [one.enqueue("note")]

    for _ in range(3):
        assert children.start(lambda say: say(queue().cancel(ids[-1]))).hear() == "True"
        ids.append(one.enqueue("note"))

    assert list(reader.by_id(FILE)) == ids
    assert len(descriptors(FILE.resolve())) == 1


def test_a_child_has_neither_file_of_its_parent_open(children):
    one = queue()
    one.enqueue("note")

    child = children.start(
        lambda say: say(descriptors(FILE.resolve()) + descriptors(LOCK.resolve()))
    )
    told = child.hear()
    one.enqueue("note")

    assert told == "[]"
    assert len(descriptors(FILE.resolve())) == 1


@pytest.mark.soak
@pytest.mark.parametrize("holder", ["the child", "the parent"])
def test_a_child_that_code_in_c_has_forked_shares_no_lock_with_its_parent(holder):
    """As a server in C does after it has loaded the program: no hook of Python is run."""
    one, ready, done = queue(lock_timeout=0.1), os.pipe(), os.pipe()
    one.enqueue("note")
    pid = ctypes.PyDLL(None).fork()
    try:
        if (pid == 0) == (holder == "the child"):
            with one.edit():
                os.write(ready[1], b".")
                os.read(done[0], 1)
        else:
            os.read(ready[0], 1)
            try:
                seconds_of(lambda: one.enqueue("note"), QueueBusy)
            finally:
                os.write(done[1], b".")
    except BaseException:
        if pid:
            raise
        os._exit(1)
    if not pid:
        os._exit(0)

    assert os.waitpid(pid, 0)[1] == 0
    one.enqueue("note")


@pytest.mark.soak
def test_thousands_of_queues_are_not_all_kept_open():
    queues = [Queue(f"data/{number}.tsv", sync="off") for number in range(100)]

    for one in queues:
        one.enqueue("note")
    for one in queues:
        one.enqueue("note")

    kept = [len(descriptors(one.path)) for one in queues]
    assert sum(kept) <= 64
    assert [len(reader.read(Path(one.path))) for one in queues] == [2] * 100


# --- P30: where flock cannot be had


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "ceph", "fuse.sshfs", "lustre"])
def test_p30_a_network_file_system_is_refused(kind, tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"36 22 0:50 / {tmp_path}/data rw,relatime shared:2 - {kind} server:/export rw\n"
    )
    monkeypatch.setattr(mount, "MOUNTS", str(mounts))

    with pytest.raises(QueueError, match=kind) as problem:
        queue().enqueue("note")

    assert str(FILE.resolve()) in str(problem.value)
    assert not FILE.exists()
    Queue("elsewhere/queue.tsv").enqueue("note")


def test_p30_an_unusual_mount_is_taken_when_flock_keeps_a_second_process_out(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 22 0:50 / {tmp_path}\\040x rw - nfs a rw\n1 1 0:1 / / rw - 9p b rw\n")
    monkeypatch.setattr(mount, "MOUNTS", str(mounts))

    id = queue().enqueue("note")

    assert list(reader.by_id(FILE)) == [id]
    assert not reader.leftovers(FILE)


def test_p30_an_unusual_mount_is_refused_when_flock_lets_a_second_process_in(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 1 0:1 / / rw - fuse.strange b rw\n")
    monkeypatch.setattr(mount, "MOUNTS", str(mounts))
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)  # as where it works on one side only

    with pytest.raises(QueueError, match=r"fuse\.strange"):
        queue().enqueue("note")

    assert not FILE.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_p30_a_file_system_without_locks_is_an_error_never_a_queue_without_a_lock(
    number, monkeypatch
):
    queue().enqueue("note")
    before = FILE.read_bytes()

    def refuse(fd, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for verb in (lambda: queue().enqueue("note"), lambda: queue().process_jobs({"note": note})):
        with pytest.raises(QueueError, match="lock") as problem:
            verb()
        assert str(FILE.resolve()) in str(problem.value)

    assert FILE.read_bytes() == before
