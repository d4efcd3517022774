"""Worker processes: nothing that a handler does hangs the call, and the other jobs complete."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dbbasic_queue

ROOT = Path(dbbasic_queue.__file__).parents[1]
BAD = """
import ctypes, os, signal, time

def sleep_in_c(payload):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    ctypes.PyDLL(None).sleep(30)  # keeps the interpreter's lock

def spin(payload):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass

def stop_itself(payload):
    os.kill(os.getpid(), signal.SIGSTOP)

def segfault(payload):
    ctypes.string_at(0)

def leave(payload):
    os._exit(7)

def hog(payload):
    b"x" * (4 << 30)

def good(payload):
    return payload

def nap(payload):
    time.sleep(payload)
"""

WORKER = """
import bad, time
from dbbasic_queue import Queue
HANDLERS = {name: value for name, value in vars(bad).items() if callable(value)}
began = time.monotonic()
Queue("queue.tsv").process_jobs(HANDLERS, **OPTIONS)
print(time.monotonic() - began)
"""


@pytest.fixture
def work(tmp_path, run_python):
    """Run one call of process_jobs in a process of its own; return its exit status and seconds."""
    (tmp_path / "bad.py").write_text(BAD)

    def work(**options):
        code = WORKER.replace("OPTIONS", repr(options))
        with run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}) as child:
            out, _ = child.communicate(timeout=60)
        return child.returncode, float(out or "inf")

    return work


@pytest.fixture
def queue(tmp_path):
    return dbbasic_queue.Queue(tmp_path / "queue.tsv", sync="off")


ERRORS = {
    "sleep_in_c": "timed out after 0.3 s",
    "spin": "timed out after 0.3 s",
    "stop_itself": "timed out after 0.3 s",
    "segfault": "worker died (signal 11)",
    "leave": "worker died (exit status 7)",
    "hog": "MemoryError",
}


@pytest.fixture(scope="module")
def all_at_once(tmp_path_factory):
    """For each bad handler a queue and a process that works on it: they wait beside each other."""
    code = WORKER.replace("OPTIONS", "{'processes': 1, 'memory': 512}")
    begun = {}
    for bad, error in ERRORS.items():
        folder = tmp_path_factory.mktemp(bad)
        (folder / "bad.py").write_text(BAD)
        queue = dbbasic_queue.Queue(folder / "queue.tsv", sync="off")
        limit = 0.3 if "timed out" in error else None
        victim = queue.enqueue(bad, timeout=limit, max_attempts=1)
        others = [queue.enqueue("good", number) for number in range(5)]
        begun[bad] = queue, victim, others
    with contextlib.ExitStack() as stack:
        for bad, (queue, *_) in begun.items():
            child = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=os.path.dirname(queue.path),
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
                stdout=subprocess.PIPE,
                text=True,
            )
            begun[bad] += (stack.enter_context(child),)
            stack.callback(child.kill)
        yield begun


@pytest.mark.soak
@pytest.mark.parametrize("bad", ERRORS)
def test_a_handler_that_never_comes_back_hurts_only_itself(all_at_once, bad):
    queue, victim, others, child = all_at_once[bad]

    seconds, _ = child.communicate(timeout=60)

    found = queue.get(victim)
    assert (child.returncode, found.status, found.error) == (0, "failed", ERRORS[bad])
    assert [queue.get(one).result for one in others] == list(range(5))
    assert float(seconds) < 5  # about 1 s on a quiet machine
    assert not os.path.exists(queue.path + ".d/workers")


def test_p13_a_job_that_kills_its_worker_is_tried_so_often_and_the_others_run(queue, work):
    victim = queue.enqueue("segfault")
    others = queue.enqueue_many([("good", number) for number in range(20)])

    status, _ = work(processes=2)

    assert (status, queue.get(victim).status, queue.get(victim).attempts) == (0, "failed", 3)
    assert {queue.get(one).attempts for one in others} == {1}


@pytest.mark.soak
def test_every_job_goes_to_one_of_the_workers(queue, work):
    ids = queue.enqueue_many([("good", number) for number in range(1000)])

    status, _ = work(processes=3)

    assert status == 0
    assert queue.counts() == {"completed": 1000}
    assert [queue.get(one).attempts for one in ids[::50]] == [1] * 20


@pytest.mark.soak
def test_more_workers_are_started_while_jobs_wait(queue, run_python, tmp_path):
    queue.enqueue_many([("nap", None)] * 4)
    code = """
        import os, time
        from dbbasic_queue import Queue
        def nap(payload):
            time.sleep(0.4)
            return os.getpid()
        Queue("queue.tsv").process_jobs({"nap": nap}, processes=(1, 4))
    """

    with run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}) as child:
        assert child.wait(timeout=30) == 0

    assert len({job.result for job in queue.jobs()}) > 1


@pytest.mark.soak
def test_more_workers_are_started_for_jobs_that_come_while_all_are_busy(
    queue, run_python, tmp_path
):
    queue.enqueue("nap", 60)
    code = """
        import time
        from dbbasic_queue import Queue
        Queue("queue.tsv").process_jobs({"nap": time.sleep}, processes=(1, 2))
    """

    with run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}) as child:
        wait_until(lambda: any(worker.jobs for worker in queue.workers()))
        id = queue.enqueue("nap", 0)
        assert queue.wait(id, 20).status == "completed"
        for _ in range(2):
            child.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        assert child.wait(timeout=20) != 0


def test_a_worker_process_hears_a_signal_that_comes_before_it_is_ready(queue, run_python, tmp_path):
    queue.enqueue("later", run_at=9e9)
    code = """
        import os, signal
        from dbbasic_queue import Queue
        os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
        Queue("queue.tsv").process_jobs({}, processes=1, run_for=60)
    """

    with run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}) as child:
        assert child.wait(timeout=20) == 0


def wait_until(true, seconds=20):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_workers_of_a_supervisor_that_ends_stop_after_their_job(
    queue, run_python, tmp_path, number
):
    ids = queue.enqueue_many([("nap", None)] * 6)
    code = """
        import time
        from dbbasic_queue import Queue
        Queue("queue.tsv").process_jobs({"nap": lambda p: time.sleep(0.4)}, processes=2)
    """
    supervisor = run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"})
    wait_until(lambda: sum(len(one.jobs) for one in queue.workers()) == 2)

    supervisor.send_signal(number)
    wait_until(lambda: not queue.workers())

    found = queue.counts()
    assert found.get("completed", 0) >= 2 or number == signal.SIGKILL
    assert "processing" not in found
    assert {queue.get(one).attempts for one in ids} <= {0, 1}


@pytest.mark.soak
@pytest.mark.parametrize("grace, signals", [(0.2, 1), (None, 2)])
def test_p16_a_job_that_hears_nothing_goes_back_uncharged_when_the_grace_is_over(
    queue, run_python, tmp_path, grace, signals
):
    id = queue.enqueue("sleep_in_c")
    (tmp_path / "bad.py").write_text(BAD)
    code = f"""
        import bad
        from dbbasic_queue import Queue, pool
        pool._TOO_LATE = 0.1
        handlers = {{"sleep_in_c": bad.sleep_in_c}}
        Queue("queue.tsv").process_jobs(handlers, processes=1, grace={grace})
    """
    supervisor = run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"})
    wait_until(lambda: sum(len(one.jobs) for one in queue.workers()) == 1)

    for _ in range(signals):
        supervisor.send_signal(signal.SIGTERM)
        time.sleep(0.1)

    assert supervisor.wait(timeout=10) == 143
    queue.process_jobs({"other": str})
    assert (queue.get(id).status, queue.get(id).attempts) == ("pending", 0)


@pytest.mark.soak
def test_a_pool_whose_time_is_over_starts_no_worker_for_what_still_waits(queue, work):
    queue.enqueue_many([("nap", 0.25)] * 40)

    status, seconds = work(processes=(1, 3), run_for=0.6)

    assert status == 0
    assert seconds < 3  # about 0.9 s on a quiet machine, 4 s with all of the jobs
    assert queue.counts()["pending"] > 20


@pytest.mark.soak
def test_workers_that_all_end_before_they_run_a_job_are_an_error(queue, tmp_path, run_python):
    queue.enqueue("good")
    code = """
        import os
        from dbbasic_queue import Queue, journal, pool
        pool._MOST_IN_VAIN = 5
        def refuse(self):
            raise journal.QueueError("no file for this worker")
        journal.WorkerFile.register = refuse
        Queue("queue.tsv").process_jobs({"good": str}, processes=2)
    """
    with run_python(code, cwd=tmp_path, stderr=-1, env={"PYTHONWARNINGS": "ignore"}) as child:
        _, told = child.communicate(timeout=60)

    assert child.returncode == 1
    assert "worker processes in a row ended before they ran a job" in told
    assert told.count("Traceback") == 1
    assert queue.counts() == {"pending": 1}


FORKS_THAT_FAIL = """
    import errno, os, time
    from dbbasic_queue import Queue, pool
    pool._AGAIN = {again}
    real, asked = os.fork, []
    def fork():
        asked.append(1)
        if len(asked) in {which}:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real()
    os.fork = fork
    def nap(payload):
        time.sleep(payload or 0.6)
        return os.getpid()
    Queue("queue.tsv").process_jobs({{"nap": nap}}, processes=2)
"""


@pytest.mark.soak
def test_a_worker_that_cannot_be_forked_at_the_moment_comes_later(queue, tmp_path, run_python):
    ids = queue.enqueue_many([("nap",), ("nap",)])
    code = FORKS_THAT_FAIL.format(which="(2, 3)", again=0.1)
    with run_python(code, cwd=tmp_path, stderr=-1) as child:
        _, told = child.communicate(timeout=60)

    assert child.returncode == 0
    assert told.count("no worker process could be made: Resource temporarily unavailable") == 2
    assert len({queue.get(id).result for id in ids}) == 2


@pytest.mark.soak
def test_a_worker_that_is_missing_keeps_its_place_while_the_others_are_busy(
    queue, tmp_path, run_python
):
    queue.enqueue_many([("nap", 0.45)] * 3)
    code = FORKS_THAT_FAIL.format(which="(2,)", again=0.3)
    with run_python(code, cwd=tmp_path, stderr=-1) as child:
        _, told = child.communicate(timeout=60)

    assert child.returncode == 0, told
    assert queue.counts() == {"completed": 3}


def test_a_pool_that_can_fork_no_worker_at_all_says_so(queue, tmp_path, run_python):
    queue.enqueue("nap")
    code = FORKS_THAT_FAIL.format(which="range(9)", again=0.1)
    with run_python(code, cwd=tmp_path, stderr=-1) as child:
        _, told = child.communicate(timeout=60)

    assert child.returncode == 1
    assert "QueueError: " in told
    assert "no worker process could be made: Resource temporarily unavailable" in told
    assert queue.counts() == {"pending": 1}


def test_options_that_make_no_sense_are_refused(queue):
    for options in (
        {"processes": -1},
        {"processes": (3, 1)},
        {"processes": (0, 2)},
        {"processes": "2"},
        {"memory": 9},
    ):
        with pytest.raises(dbbasic_queue.QueueError, match=next(iter(options))):
            queue.enqueue("t")
            queue.process_jobs({}, **options)


def test_a_pool_whose_process_is_near_its_memory_limit_runs_jobs_and_over_it_says_so(
    queue, tmp_path, run_python
):
    queue.enqueue("t")
    code = """
        import mmap, sys
        from dbbasic_queue import Queue, QueueError
        from dbbasic_queue.pool.slot import resident

        def data():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if "VmData" in line) << 10

        queue, megabyte = Queue("queue.tsv"), 1 << 20
        reserved = mmap.mmap(-1, 300 * megabyte - data() - megabyte, flags=mmap.MAP_PRIVATE)
        queue.process_jobs({"t": str}, processes=1, memory=300)
        queue.enqueue("t")
        much = b"x" * (30 * megabyte)
        try:
            queue.process_jobs({"t": str}, processes=1, memory=resident("self") // megabyte - 1)
        except QueueError as problem:
            sys.exit(str(problem))
    """
    with run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}, stderr=-1) as child:
        _, told = child.communicate(timeout=30)

    assert "MB already, and its workers begin as copies" in told
    assert queue.counts() == {"completed": 1, "pending": 1}


@pytest.mark.soak
def test_a_worker_is_ended_though_its_reason_cannot_be_written(queue, run_python, tmp_path):
    id = queue.enqueue("spin", timeout=0.2, max_attempts=1)
    code = """
        import os
        from dbbasic_queue import Queue, current_job
        def spin(payload):
            worker = current_job().worker.rpartition(".")[0]
            os.symlink("nowhere", f"queue.tsv.d/workers/{worker}.why")
            while True:
                try:
                    while True:
                        pass
                except BaseException:
                    pass
        Queue("queue.tsv").process_jobs({"spin": spin}, processes=1)
    """

    with run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}) as child:
        assert child.wait(timeout=20) == 0

    assert (queue.get(id).status, queue.get(id).error) == ("failed", "worker died")


@pytest.mark.soak
def test_a_handler_that_waits_for_the_lock_is_not_cut_off_before_it_is_told(
    queue, run_python, tmp_path
):
    id = queue.enqueue("t", timeout=0.1, max_attempts=1)
    code = """
        import fcntl, threading, time
        from dbbasic_queue import Queue, held
        held.CUT_OFF = 0.3
        queue = Queue("queue.tsv")
        def handler(payload):
            file = open("queue.tsv.lock")
            fcntl.flock(file, fcntl.LOCK_EX)
            threading.Timer(1, file.close).start()
            queue.enqueue("t", run_at=9e9)
            time.sleep(20)
        queue.process_jobs({"t": handler})
    """

    with run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}) as child:
        assert child.wait(timeout=20) == 0

    assert queue.get(id).error == "timed out after 0.1 s"
    assert queue.counts()["pending"] == 1


@pytest.mark.soak
@pytest.mark.parametrize(
    "bad, error",
    [
        ("sleep_in_c", "timed out after 1 s"),
        ("spin", "timed out after 1 s"),
        ("stop_itself", "timed out after 1 s"),
        ("segfault", "worker died (signal 11)"),
        ("leave", "worker died (exit status 7)"),
        ("hog", "MemoryError"),
    ],
)
def test_a_handler_that_never_comes_back_is_ended_within_two_seconds(queue, work, bad, error):
    victim = queue.enqueue(bad, timeout=1, max_attempts=1)
    others = [queue.enqueue("good", number) for number in range(5)]

    status, _ = work(processes=1, memory=512)

    job = queue.get(victim)
    assert (status, job.status, job.error) == (0, "failed", error)
    assert job.finished_at - job.started_at < 2
    assert [queue.get(one).result for one in others] == list(range(5))


@pytest.mark.soak
def test_cpu_seconds_and_peak_memory_of_each_run_are_kept(queue, run_python, tmp_path):
    heavy, light = queue.enqueue("heavy"), queue.enqueue("light")
    code = """
        import os, time
        from dbbasic_queue import Queue
        def heavy(payload):
            until = time.process_time() + 0.1
            while time.process_time() < until:
                pass
            os.system("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
            bytearray(80 << 20)
        Queue("queue.tsv").process_jobs({"heavy": heavy, "light": id}, processes=1)
    """

    with run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}) as child:
        assert child.wait(timeout=30) == 0

    heavy, light = queue.get(heavy), queue.get(light)
    assert 0.1 < float(heavy.cell("cpu_seconds")) < 1
    assert int(heavy.cell("peak_mb")) > 80 > int(light.cell("peak_mb")) > 5
    assert light.cell("cpu_seconds") in ("", "0.001", "0.002")


@pytest.mark.faults
def test_what_ran_beside_a_job_that_is_killed_for_its_time_goes_back_uncharged(
    queue, run_python, tmp_path
):
    victim, beside = queue.enqueue("block", timeout=0.2, max_attempts=1), queue.enqueue("nap", 0.5)
    code = """
        import asyncio, ctypes
        from dbbasic_queue import Queue, pool
        pool._TOO_LATE = 0.1
        async def block(payload):
            await asyncio.sleep(0.1)
            ctypes.PyDLL(None).sleep(30)
        async def nap(payload):
            await asyncio.sleep(payload)
        Queue("queue.tsv").process_jobs({"block": block, "nap": nap}, processes=1, concurrency=2)
    """

    with run_python(code, cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}) as child:
        assert child.wait(timeout=30) == 0

    assert queue.get(victim).error == "timed out after 0.2 s"
    assert (queue.get(beside).status, queue.get(beside).attempts) == ("completed", 1)
