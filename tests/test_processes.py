"""Many processes on one file: producers, workers that are killed, readers, and slow jobs."""

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from faults import reader, soak
from faults.children import Children, until

from dbbasic_queue import Queue, current_job

FILE = Path("data/queue.tsv")
SIDE = Path("data/queue.tsv.d")


@pytest.fixture
def children():
    with Children() as children:
        yield children


def queue(**options):
    return Queue(FILE, **{"sync": "off", **options})


def effect(payload=None):
    """Leave a line outside of the queue: the id of the job that runs."""
    fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{current_job().id}\n".encode())
    os.close(fd)


def effects():
    return Counter(Path("effects").read_text().split() if Path("effects").exists() else ())


def until_stopped(payload=None):
    """A long job: it begins, and goes on until the file `stop` is there."""
    effect()
    until(lambda: Path("stop").exists(), 60)
    return "stopped"


def no_signal_is_on_its_way(pid):
    """Whether the kernel has delivered what was sent; elsewhere than on Linux, after a while."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        time.sleep(0.2)
        return True
    return not any(int(mask, 16) for mask in re.findall(r"(?:SigPnd|ShdPnd):\s*(\w+)", status))


def work(say, handlers, **options):
    """In a child: a tick, then tell."""
    queue().process_jobs(handlers, **options)
    say("ticked")


def counts():
    return Counter(row["status"] for row in reader.read(FILE))


# --- P5, P6: many at once


def test_p6_fifty_processes_that_are_the_first_to_use_a_queue(children):
    """P6: one header, fifty rows."""

    def enqueue(say, number):
        until(lambda: Path("go").exists())
        say(queue().enqueue("note", {"number": number}))

    begun = [children.start(enqueue, number) for number in range(50)]
    Path("go").touch()
    told = [child.hear() for child in begun]
    children.finish()

    rows = reader.by_id(FILE)
    assert sorted(rows) == sorted(told)
    assert FILE.read_bytes().count(b"id\ttype\t") == 1
    assert not reader.leftovers(FILE)


def test_p5_producers_workers_and_readers_at_once_lose_and_double_nothing(children):
    """P5, P20: four producers, three workers, and readers who see whole lines of one version."""

    def produce(say):
        one = queue()
        while not Path("enough").exists():
            say(one.enqueue("effect", {"text": "x" * random.randrange(300)}))
            for id in one.enqueue_many([("effect", number) for number in range(3)]):
                say(id)
            time.sleep(0.005)  # or the file grows faster than it is read

    def tick_again_and_again(say):
        while not Path("stop").exists():
            queue().process_jobs({"effect": effect}, max_workers=9)

    def read(say):
        seen, completed = set(), set()
        while not Path("enough").exists():
            rows = reader.by_id(FILE, torn=True)
            done = {id for id, row in rows.items() if row["status"] == "completed"}
            assert seen <= set(rows), "rows have gone"
            assert completed <= done, "jobs are no longer completed"
            seen, completed = set(rows), done
            assert len([job.id for job in queue().jobs()]) >= len(seen)
            say(len(seen))

    queue().enqueue("effect")
    workers = [children.start(tick_again_and_again) for _ in range(3)]
    producers = [children.start(produce) for _ in range(4)]
    readers = [children.start(read) for _ in range(2)]
    for child in readers:
        assert all(child.hear().isdigit() for _ in range(12)), child.hear_all()
    Path("enough").touch()
    told = [id for child in producers for id in child.hear_all()]
    until(lambda: len(told) + 1 == counts()["completed"])
    Path("stop").touch()
    ends = [child.wait() for child in (*producers, *workers, *readers)]

    rows = reader.by_id(FILE)
    assert ends == [0] * 9
    assert set(told) < set(rows)
    assert len(rows) == len(told) + 1
    assert effects() == Counter(list(rows))


@pytest.mark.faults
def test_p1_p5_p12_kill_9_of_producers_and_workers_at_any_time(tmp_path):
    """P1, P5, P10, P12: each job that somebody was told of has its effect, extra ones <= kills."""
    verdict = soak.soak(tmp_path, "kills", seconds=0.6, seed=1)

    print(verdict)
    assert not verdict.violations, "\n".join(verdict.violations)
    assert verdict.cases >= 5
    assert verdict.jobs >= 5


# --- P9, P10: who lives is left alone, who died is found at once


def test_p9_a_job_whose_worker_lives_is_not_run_by_another_however_late_it_is(children):
    """P9: the other worker's clock is a year ahead."""
    id = queue().enqueue("long")
    worker = children.start(work, {"long": until_stopped})
    until(lambda: effects()[id] == 1)

    def tick_in_a_year(say):
        from freezegun import freeze_time

        with freeze_time(time.strftime("%Y-%m-%d", time.gmtime(time.time() + 365 * 86400))):
            queue().process_jobs({"long": until_stopped})
        say("ticked")

    assert children.start(tick_in_a_year).hear() == "ticked"
    assert queue().get(id).status == "processing"
    Path("stop").touch()
    worker.wait()

    assert effects() == {id: 1}
    assert (queue().get(id).status, queue().get(id).attempts) == ("completed", 1)


def test_p9_a_stopped_worker_is_alive(children):
    id = queue().enqueue("long")
    worker = children.start(work, {"long": until_stopped})
    until(lambda: effects()[id] == 1)

    worker.send(signal.SIGSTOP)
    work(lambda text: None, {"long": until_stopped})
    during = queue().get(id)
    Path("stop").touch()
    worker.send(signal.SIGCONT)
    worker.wait()

    assert (during.status, during.attempts) == ("processing", 1)
    assert effects() == {id: 1}
    assert queue().get(id).result == "stopped"


def test_p10_p12_the_job_of_a_killed_worker_is_run_by_the_next_tick_and_only_that_one_is_charged(
    children,
):
    """P10, P12: at once, without a time-out; what was claimed and not begun loses no attempt."""
    ids = queue().enqueue_many([("effect", 0), ("long", 1), ("effect", 2), ("effect", 3)])
    worker = children.start(work, {"long": until_stopped, "effect": effect})
    until(lambda: effects()[ids[1]] == 1)
    between = [queue().get(id).status for id in ids]

    worker.kill()
    begun = time.monotonic()
    queue().process_jobs({"long": effect, "effect": effect})
    seconds = time.monotonic() - begun

    assert between[:2] == ["completed", "processing"]
    assert [effects()[id] for id in ids] == [1, 2, 1, 1]
    assert [queue().get(id).attempts for id in ids] == [1, 2, 1, 1]
    assert counts() == {"completed": 4}
    assert seconds < 2
    assert not reader.leftovers(FILE)


@pytest.mark.soak
def test_p10_a_worker_that_idles_takes_in_the_dead_within_two_seconds(children):
    id = queue().enqueue("long")
    dying = children.start(work, {"long": until_stopped})
    until(lambda: effects()[id] == 1)
    children.start(lambda say: queue().process_jobs({"long": effect}, run_for=60))
    until(lambda: len(list(SIDE.joinpath("workers").glob("*.tsv"))) >= 1)

    dying.kill()
    begun = time.monotonic()
    until(lambda: queue().get(id).status == "completed", 10)

    assert time.monotonic() - begun < 3
    assert effects()[id] == 2


def test_p11_what_was_finished_before_the_kill_is_not_run_again(children):
    """P11: its outcome stood in the worker's file only."""
    ids = queue().enqueue_many([("effect", number) for number in range(5)] + [("die", None)])
    worker = children.start(work, {"effect": effect, "die": lambda _: os.kill(os.getpid(), 9)})
    worker.wait()
    in_the_file = counts()
    known = [queue().get(id).status for id in ids]

    queue().process_jobs({"effect": effect, "die": effect})

    assert in_the_file["completed"] < 5
    assert known == ["completed"] * 5 + ["processing"]
    assert [effects()[id] for id in ids] == [1] * 6


def test_p12_a_worker_file_deleted_by_hand_costs_at_most_one_extra_run(children):
    id = queue().enqueue("long")
    worker = children.start(work, {"long": until_stopped})
    until(lambda: effects()[id] == 1)

    for path in SIDE.joinpath("workers").iterdir():
        path.unlink()
    queue().process_jobs({"long": effect})
    Path("stop").touch()
    worker.wait()
    queue().process_jobs({"long": effect})

    assert effects() == {id: 2}
    assert counts() == {"completed": 1}
    assert not reader.leftovers(FILE)


# --- P13: a job that kills its worker


def test_p13_a_job_that_kills_its_worker_three_times_ends_as_failed_and_the_others_run(children):
    ids = queue().enqueue_many([("effect", 1), ("die", None), ("effect", 2), ("effect", 3)])

    def die(payload):
        effect()
        os.kill(os.getpid(), signal.SIGKILL)

    ends = [children.start(work, {"effect": effect, "die": die}).wait() for _ in range(4)]

    job = queue().get(ids[1])
    assert ends == [-9, -9, -9, 0]
    assert (job.status, job.attempts) == ("failed", 3)
    assert job.error.startswith("worker died")
    assert [effects()[id] for id in ids] == [1, 3, 1, 1]
    assert counts() == {"completed": 3, "failed": 1}
    assert not reader.leftovers(FILE)


@pytest.mark.parametrize(
    "end",
    ["os._exit(3)", "os.abort()", "__import__('ctypes').string_at(0)"],
    ids=["exit", "abort", "segmentation fault"],
)
def test_p13_however_a_job_ends_its_process_it_is_charged(end, run_python):
    id = queue().enqueue("end", max_attempts=1)
    other = queue().enqueue("effect")

    worker = run_python(
        f"""
        import faulthandler, os, resource
        from dbbasic_queue import process_jobs
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        process_jobs({{"end": lambda payload: {end}, "effect": print}})
        """,
        stderr=subprocess.DEVNULL,
    )
    assert worker.wait(timeout=30) != 0
    queue().process_jobs({"effect": effect})

    assert (queue().get(id).status, queue().get(id).attempts) == ("failed", 1)
    assert queue().get(other).status == "completed"


def test_p13_the_owners_limit_counts_when_somebody_else_takes_in_the_dead(children):
    """P13: the effective max_attempts stands in the worker's file."""
    id = queue().enqueue("die")
    children.start(
        lambda say: queue().process_jobs({"die": lambda _: os.kill(os.getpid(), 9)}, max_attempts=1)
    ).wait()

    queue().process_jobs({}, max_attempts=50)

    assert queue().get(id).status == "failed"


# --- P15, P16: ticks that overlap, ticks that are stopped


def test_p15_a_tick_with_nothing_to_do_leaves_the_file_alone():
    one = queue()
    one.enqueue("effect")
    one.enqueue("effect", run_at=time.time() + 3600)
    one.enqueue("nobody-runs-this")
    one.process_jobs({"effect": effect})
    before = FILE.stat()

    for _ in range(3):
        one.process_jobs({"effect": effect})
        subprocess.run([sys.executable, "-c", IDLE_TICK], check=True, env=path_of_the_package())

    after = FILE.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not reader.leftovers(FILE)


IDLE_TICK = "import dbbasic_queue; dbbasic_queue.process_jobs({'effect': print})"


def path_of_the_package():
    import dbbasic_queue

    return {**os.environ, "PYTHONPATH": str(Path(dbbasic_queue.__file__).parents[1])}


def test_p15_ticks_that_overlap_share_the_work_and_run_nothing_twice(children):
    ids = queue().enqueue_many([("slow", number) for number in range(60)])

    def slow(payload):
        effect()
        if not payload:  # the first one lasts until another worker has come
            until(lambda: len(list(SIDE.glob("workers/*.tsv"))) > 1)

    begun = [children.start(work, {"slow": slow}) for _ in range(4)]
    assert [child.hear() for child in begun] == ["ticked"] * 4

    workers = {row["worker"].rpartition(".")[0] for row in reader.read(FILE)}
    assert effects() == Counter(ids)
    assert counts() == {"completed": 60}
    assert len(workers) > 1


def test_p15_a_tick_that_finds_enough_workers_leaves_them_to_it(children):
    ids = queue().enqueue_many([("long", number) for number in range(3)])
    two = [children.start(work, {"long": until_stopped}) for _ in range(2)]
    until(lambda: len(effects()) == 2)

    queue().process_jobs({"long": effect}, max_workers=2)
    left = counts()
    Path("stop").touch()
    for child in two:
        child.wait()

    assert left == {"processing": 2, "pending": 1}
    assert effects() == Counter(ids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_p16_a_stopped_worker_finishes_its_job_and_gives_back_the_rest_uncharged(number, children):
    ids = queue().enqueue_many([("effect", 0), ("long", 1), ("effect", 2), ("effect", 3)])
    worker = children.start(work, {"long": until_stopped, "effect": effect})
    until(lambda: effects()[ids[1]] == 1)

    worker.send(number)
    until(lambda: no_signal_is_on_its_way(worker.pid))
    Path("stop").touch()
    worker.wait()

    rows = reader.by_id(FILE)
    assert [rows[id]["status"] for id in ids] == ["completed"] * 2 + ["pending"] * 2
    assert [rows[id]["attempts"] for id in ids] == ["1", "1", "0", "0"]
    assert not reader.leftovers(FILE)
    queue().process_jobs({"effect": effect})
    assert effects() == Counter(ids)


def test_p16_a_second_signal_gives_back_the_running_job_too_uncharged(children):
    ids = queue().enqueue_many([("long", 1), ("effect", 2)])
    worker = children.start(work, {"long": until_stopped, "effect": effect})
    until(lambda: effects()[ids[0]] == 1)

    worker.send(signal.SIGTERM)
    time.sleep(0.05)
    assert not worker.ended
    worker.send(signal.SIGTERM)
    worker.wait()

    rows = reader.by_id(FILE)
    assert [(rows[id]["status"], rows[id]["attempts"]) for id in ids] == [("pending", "0")] * 2
    queue().process_jobs({"long": effect, "effect": effect})
    assert counts() == {"completed": 2}


def test_p16_after_grace_the_running_job_goes_back_uncharged(children):
    id = queue().enqueue("long")
    worker = children.start(lambda say: queue().process_jobs({"long": until_stopped}, grace=0.2))
    until(lambda: effects()[id] == 1)

    worker.send(signal.SIGTERM)
    worker.wait(5)

    assert (queue().get(id).status, queue().get(id).attempts) == ("pending", 0)


# --- P17: handlers that fork


@pytest.mark.parametrize("how", ["os.fork", "multiprocessing", "subprocess"])
def test_p17_a_sleeper_forked_by_a_handler_does_not_keep_its_dead_worker_alive(how, children):
    id = queue().enqueue("forks")

    def sleep_on():
        Path("sleeper").write_text(str(os.getpid()))
        time.sleep(600)

    def forks(payload):
        if how == "os.fork":
            if not os.fork():
                sleep_on()
                os._exit(0)
        elif how == "multiprocessing":
            multiprocessing.get_context("fork").Process(target=sleep_on).start()
        else:
            child = subprocess.Popen(["sleep", "600"], close_fds=False)
            Path("sleeper").write_text(str(child.pid))
        effect()
        time.sleep(600)

    worker = children.start(work, {"forks": forks})
    sleeper = int(until(lambda: Path("sleeper").exists() and Path("sleeper").read_text()))
    until(lambda: effects()[id] == 1)
    try:
        worker.kill()
        queue().process_jobs({"forks": effect})

        os.kill(sleeper, 0)
        assert queue().get(id).status == "completed"
        assert effects() == {id: 2}
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_p17_a_child_forked_by_a_handler_that_ends_does_not_free_the_live_worker(children):
    id = queue().enqueue("forks")

    def forks(payload):
        pid = os.fork()
        if not pid:
            queue().enqueue("note")
            os._exit(0)
        os.waitpid(pid, 0)
        until_stopped()

    worker = children.start(work, {"forks": forks})
    until(lambda: effects()[id] == 1)
    queue().process_jobs({"forks": effect})
    Path("stop").touch()
    worker.wait()

    assert effects() == {id: 1}
    assert queue().get(id).status == "completed"


def test_p17_a_forked_child_that_comes_back_from_its_handler_records_nothing(children):
    """P17: the handler's `return` runs in parent and child; only the parent is the worker."""
    id = queue().enqueue("forks")

    def forks(payload):
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            effect()
            return "parent"
        return "child"

    children.start(work, {"forks": forks}).wait()
    queue().process_jobs({"forks": effect})

    assert queue().get(id).result == "parent"
    assert effects() == {id: 1}
    assert not reader.leftovers(FILE)


# --- one slow job holds nobody


def run_beside(children, handlers, **options):
    """Start a worker that serves for a minute."""

    def serve(say):
        say("serving")
        queue().process_jobs(handlers, run_for=60, **options)

    child = children.start(serve)
    child.hear()
    return child


@pytest.mark.soak
@pytest.mark.parametrize("before", [0, 30])
def test_a_long_job_does_not_hold_up_the_hundred_behind_it(before, children):
    """The first worker may have claimed some of them together with the long one."""
    jobs = [("effect", n) for n in range(before)] + [("long", None)]
    ids = queue().enqueue_many(jobs + [("effect", n) for n in range(100)])
    handlers = {"long": until_stopped, "effect": effect}
    run_beside(children, handlers)
    until(lambda: effects()[ids[before]] == 1)

    run_beside(children, handlers)
    begun = time.monotonic()
    until(lambda: len(effects()) == len(ids), 10)
    seconds = time.monotonic() - begun

    print(f"the 100 behind it ended after {seconds:.3f} s")
    assert seconds < 3
    assert max(effects().values()) == 1


@pytest.mark.soak
def test_what_a_long_job_holds_up_is_seen_as_pending_again_within_two_seconds(children):
    jobs = [("effect", n) for n in range(30)] + [("long", None)] + [("effect", n) for n in range(9)]
    ids = queue().enqueue_many(jobs)
    run_beside(children, {"long": until_stopped, "effect": effect})
    until(lambda: effects()[ids[30]] == 1)

    until(lambda: counts() == {"completed": 30, "processing": 1, "pending": 9}, 3)


@pytest.mark.soak
def test_a_long_job_in_one_queue_delays_none_in_another_by_more_than_0_3_seconds(children):
    def seconds_until_it_ran():
        begun = time.monotonic()
        id = queue().enqueue("effect", queue="fast")
        until(lambda: effects()[id] == 1)
        return time.monotonic() - begun

    handlers = {"long": until_stopped, "effect": effect}
    run_beside(children, handlers, queues=["slow"])
    run_beside(children, handlers, queues=["fast"])
    long = queue().enqueue("long", queue="slow")
    until(lambda: effects()[long] == 1)

    for _ in range(3):  # where the machine itself is busy
        delays = [seconds_until_it_ran() for _ in range(5)]
        print(f"the longest delay: {max(delays):.3f} s")
        if max(delays) <= 0.3:
            break

    assert max(delays) <= 0.3
    assert queue().get(long).status == "processing"


# --- P8: a fork beside a thread that imports


def test_p8_a_child_forked_while_a_thread_is_in_its_first_import_can_enqueue(run_python):
    child = run_python(
        """
        import os, sys, threading, time
        from dbbasic_queue import Queue

        class Slowly:
            def find_spec(self, name, path=None, target=None):
                if name == "json":
                    begun.set()
                    time.sleep(0.05)

        begun, queue = threading.Event(), Queue("queue.tsv", sync="off")
        for name in [name for name in sys.modules if name.partition(".")[0] == "json"]:
            del sys.modules[name]
        sys.meta_path.insert(0, Slowly())
        thread = threading.Thread(target=queue.enqueue, args=("a", {"by": "the thread"}))
        thread.start()
        begun.wait()
        child = os.fork()
        if not child:
            import signal
            signal.alarm(5)
            queue.enqueue("b", {"by": "the child"})
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        """
    )

    assert child.communicate(timeout=30)[0] == "0\n"
