"""Costs that do not grow with the file: time, system calls, rewrites, imports, memory.

Held as it holds on a noisy machine too; each test prints what it measured.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dbbasic_queue
from dbbasic_queue import Queue

PACKAGE = Path(dbbasic_queue.__file__).parents[1]
FEW, MANY = 10, 100_000
NEVER_AT_IMPORT = "json re logging dataclasses typing datetime pathlib filelock".split()


@pytest.fixture(scope="module")
def queues(tmp_path_factory):
    """Two queues of jobs that are not due: one short, one long. With their ids."""
    found = {}
    for rows in (FEW, MANY):
        path = tmp_path_factory.mktemp("speed") / f"{rows}" / "queue.tsv"
        queue = Queue(path, sync="off")
        first = queue.enqueue("note", {"number": 0, "to": "user@example.com"}, time.time() + 86400)
        header, row, _ = path.read_bytes().split(b"\n")
        ids = [f"{int(first, 16) + n:016x}" for n in range(-rows, 0)]
        lines = [row.replace(first.encode(), id.encode()) for id in ids]
        path.write_bytes(b"\n".join([header, *lines, b""]))
        queue.process_jobs({"note": print})  # the full look, which leaves the hint
        found[rows] = queue, ids
    return found


def measure(times, **calls):
    """Return the median seconds of each call; they take turns, so that noise meets all."""
    taken = {name: [] for name in calls}
    for number in range(times):
        for name, call in calls.items():
            begun = time.perf_counter()
            call(number)
            taken[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    print(", ".join(f"{name} {median * 1e6:.1f} µs" for name, median in medians.items()))
    return medians


def forget_the_hint(queue):
    """Have the next tick look at the whole file."""
    Path(queue.path + ".d", "hint").unlink(missing_ok=True)


def test_enqueue_costs_with_100_000_pending_what_it_costs_with_10(queues):
    (short, _), (long, _) = queues[FEW], queues[MANY]

    taken = measure(
        300,
        few=lambda n: short.enqueue("note", {"number": n}, time.time() + 86400),
        many=lambda n: long.enqueue("note", {"number": n}, time.time() + 86400),
    )

    assert taken["many"] < 3 * taken["few"] + 20e-6


def test_get_job_costs_with_100_000_pending_what_it_costs_with_10(queues):
    (short, few), (long, many) = queues[FEW], queues[MANY]

    taken = measure(
        300,
        few=lambda n: short.get_job(few[n % FEW]),
        many=lambda n: long.get_job(many[n * 331 % MANY]),
    )

    assert taken["many"] < 3 * taken["few"] + 50e-6


def test_an_idle_tick_costs_with_100_000_pending_what_it_costs_with_10(queues):
    (short, _), (long, _) = queues[FEW], queues[MANY]
    for queue in (short, long):
        forget_the_hint(queue)
        queue.process_jobs({"note": print})

    taken = measure(
        300,
        few=lambda n: short.process_jobs({"note": print}),
        many=lambda n: long.process_jobs({"note": print}),
    )

    assert taken["many"] < 3 * taken["few"] + 20e-6
    assert taken["many"] < 0.003


def test_ten_thousand_jobs_are_run_within_a_second_and_in_few_rewrites(tmp_path, monkeypatch):
    queue = Queue(tmp_path / "queue.tsv", sync="off")
    queue.enqueue_many([("nothing", {"number": number}) for number in range(10_000)])
    renames, real = [], os.rename

    def rename(source, target):
        renames.append(os.path.basename(target))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    begun = time.perf_counter()
    queue.process_jobs({"nothing": lambda payload: None})
    seconds = time.perf_counter() - begun
    rewrites = renames.count("queue.tsv")

    print(f"10,000 jobs in {seconds:.3f} s, {10_000 / seconds:.0f} a second, {rewrites} rewrites")
    assert queue.counts("status") == {"completed": 10_000}
    assert seconds < 3
    assert rewrites < 8


def test_one_job_is_run_in_two_rewrites(tmp_path, monkeypatch):
    queue = Queue(tmp_path / "queue.tsv", sync="off")
    queue.enqueue("nothing")
    renames, real = [], os.rename
    monkeypatch.setattr(
        os, "rename", lambda source, target: [renames.append(target), real(source, target)]
    )

    queue.process_jobs({"nothing": lambda payload: None})

    assert sum(str(target).endswith("queue.tsv") for target in renames) == 2


def test_an_edit_copies_what_it_does_not_change_inside_the_kernel(queues, tmp_path, monkeypatch):
    if not hasattr(os, "copy_file_range"):
        pytest.skip("needs copy_file_range")
    queue, _ = queues[MANY]
    id, copied, real = queue.enqueue("last"), [], os.copy_file_range

    def copy(*args):
        copied.append(real(*args))
        return copied[-1]

    monkeypatch.setattr(os, "copy_file_range", copy)
    queue.cancel(id)

    assert sum(copied) > 0.9 * os.path.getsize(queue.path)


CALLS = """
import sys
from dbbasic_queue import process_jobs
calls, counted = 0, []
def count(frame, event, argument):
    global calls
    calls += event == "call"
sys.setprofile(count)
process_jobs({"nothing": lambda payload: counted.append(calls)})
sys.setprofile(None)
between = sorted(after - before for before, after in zip(counted, counted[1:]))
print(len(counted), calls / len(counted), between[len(between) // 2])
"""


def test_the_number_of_calls_that_a_job_costs_is_small(tmp_path):
    """A measure of work that no noise can spoil: the Python functions that are called."""
    queue = Queue(tmp_path / "data" / "queue.tsv", sync="off")
    queue.enqueue_many([("nothing", {"number": number}) for number in range(1_000)])

    jobs, a_job, between = map(float, idle_tick(tmp_path, CALLS).split())

    print(f"{a_job:.1f} calls a job, {between:.0f} of them from one job to the next")
    assert jobs == 1_000
    assert between <= 56
    assert a_job <= 102


def test_a_full_look_reads_the_file_once_and_takes_next_to_no_row_apart(queues, monkeypatch):
    queue, _ = queues[MANY]
    data = Path(queue.path).read_bytes()
    read, real = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *given: read.append(real(*given)) or read[-1])
    looks, counts = [], []

    for _ in range(5):
        forget_the_hint(queue)
        read.clear()
        begun = time.process_time()
        queue.process_jobs({"note": print})
        looks.append(time.process_time() - begun)
        begun = time.process_time()
        assert data.count(b"\tpending\t") >= MANY
        counts.append(time.process_time() - begun)

    look, count = min(looks), min(counts)
    print(f"{sum(map(len, read)) / len(data):.3f} of the file; {look:.3f} s, a count {count:.3f} s")
    assert sum(map(len, read)) < 1.05 * len(data) + 10_000
    assert look < 9 * count + 0.005


def bytes_read():
    """By this process, in all: what it asked the kernel for, cached or not."""
    with open("/proc/self/io") as lines:
        return int(next(line for line in lines if line.startswith("rchar")).split()[1])


@pytest.mark.skipif(not os.access("/proc/self/io", os.R_OK), reason="needs /proc/self/io")
def test_an_idle_tick_reads_as_many_bytes_with_100_000_rows_as_with_10(queues):
    read = {}
    for rows, (queue, _) in queues.items():
        queue.process_jobs({"note": print})
        begun = bytes_read()
        queue.process_jobs({"note": print})
        read[rows] = bytes_read() - begun

    print(f"an idle tick reads {read} bytes")
    assert abs(read[MANY] - read[FEW]) < 100
    assert read[MANY] < 1_000


# --- system calls

TEN_OF_EACH = """
import json, os, sys, time
from dbbasic_queue import Queue
for path, sync, text in json.load(sys.stdin):
    queue = Queue(path, sync=sync)
    call = eval("lambda: " + text)
    call(), call()
    os.access("/begin", 0)
    for _ in range(10):
        call()
    os.access("/end", 0)
"""


@pytest.fixture(scope="module")
def system_calls(queues, tmp_path_factory):
    """The names of the system calls of ten calls, by what is called and how many rows there are."""
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("needs strace")
    enqueue = "queue.enqueue('note', {}, time.time() + 86400)"
    wanted = {("synced enqueue", FEW): ("normal", enqueue)}
    for rows, (_, ids) in queues.items():
        wanted["enqueue", rows] = "off", enqueue
        wanted["idle tick", rows] = "off", "queue.process_jobs({'note': print})"
        wanted["get_job", rows] = "off", f"queue.get_job({ids[rows * 7 // 10]!r})"
    record = tmp_path_factory.mktemp("strace") / "calls"
    done = subprocess.run(
        [strace, "-f", "-qq", "-o", record, sys.executable, "-c", TEN_OF_EACH],
        input=json.dumps([(queues[rows][0].path, *how) for (_, rows), how in wanted.items()]),
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    parts = [part.split('"/end"')[0] for part in record.read_text().split('"/begin"')[1:]]
    names = [re.findall(r"(?m)^\d+ +(\w+)\(", part.rpartition("\n")[0]) for part in parts]
    return dict(zip(wanted, names, strict=True))


@pytest.mark.parametrize("what", ["enqueue", "idle tick"])
def test_the_number_of_system_calls_does_not_grow_with_the_file_of(what, system_calls):
    found = {rows: system_calls[what, rows] for rows in (FEW, MANY)}

    for rows, names in found.items():
        each = {name: names.count(name) / 10 for name in sorted(set(names))}
        print(f"{rows} rows: {len(names) / 10} a call: {each}")
    assert 0 < len(found[MANY]) <= len(found[FEW]) + 10
    assert len(found[MANY]) / 10 <= {"enqueue": 11, "idle tick": 22}[what]


def test_an_enqueue_opens_no_file_and_makes_ten_system_calls(system_calls):
    names = system_calls["enqueue", FEW]

    assert not {"open", "openat", "close"} & set(names)
    assert len(names) / 10 <= 10


def test_a_synced_enqueue_makes_one_write_and_one_sync(system_calls):
    names = system_calls["synced enqueue", FEW]

    assert (names.count("write"), names.count("fdatasync"), names.count("fsync")) == (10, 10, 0)


def test_get_job_reads_a_few_blocks_of_a_long_file(system_calls):
    names = system_calls["get_job", MANY]

    print(f"get_job with {MANY} rows: {len(names) / 10} calls")
    assert 0 < len(names) / 10 <= 30


# --- an idle tick: imports, memory, processor


def idle_tick(path, code, *, bare=False):
    """Run code in a fresh Python that knows nothing but the standard library; return its output."""
    done = subprocess.run(
        [sys.executable, *(["-S", "-E"] if bare else []), "-c", code, str(PACKAGE)],
        cwd=path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


MODULES = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from dbbasic_queue import process_jobs
process_jobs({"note": len})
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("rows", ["no file", "an empty file", "rows that are not due"])
def test_an_idle_tick_loads_next_to_nothing(rows, tmp_path):
    (tmp_path / "data").mkdir()
    if rows == "an empty file":
        tmp_path.joinpath("data/queue.tsv").touch()
    elif rows == "rows that are not due":
        queue = Queue(tmp_path / "data" / "queue.tsv")
        queue.enqueue("note", run_at=time.time() + 3600)
        queue.process_jobs({"note": len})

    loaded = idle_tick(tmp_path, MODULES, bare=True).split()

    print(*loaded)
    rooms = {name.partition(".")[2] for name in loaded if name.startswith("dbbasic_queue")}
    assert rooms == {"", "errors", "tsv", "files", "beside", "hint"}
    assert not set(loaded) & set(NEVER_AT_IMPORT)


def test_importing_the_package_loads_nothing_of_what_it_may_need_later(tmp_path):
    code = MODULES.replace('process_jobs({"note": len})', "")

    loaded = idle_tick(tmp_path, code, bare=True).split()

    print(*loaded)
    assert {name for name in loaded if name.startswith("dbbasic_queue")} == {"dbbasic_queue"}
    assert not set(loaded) & set(NEVER_AT_IMPORT)


PEAK = """
import os, resource
from dbbasic_queue import process_jobs
process_jobs({"note": len})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_of_a_tick(queue):
    """Kilobytes; the kernel counts from the fork on, so that a small Python starts the tick."""
    start = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", start, PEAK],
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "DBBASIC_QUEUE": queue.path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_an_idle_tick_needs_no_more_memory_for_100_000_rows_than_for_10(queues):
    peaks = {rows: peak_of_a_tick(queue) for rows, (queue, _) in queues.items()}

    print(f"idle tick: {peaks} KB")
    assert peaks[MANY] < peaks[FEW] + 2000


def test_a_look_at_the_whole_file_does_not_load_it(queues):
    peaks = {}
    for rows, (queue, _) in queues.items():
        forget_the_hint(queue)
        peaks[rows] = peak_of_a_tick(queue)

    size = os.stat(queues[MANY][0].path).st_size
    print(f"a look at {FEW} and {MANY} rows ({size / 1e6:.0f} MB): {peaks} KB")
    assert peaks[MANY] - peaks[FEW] < 6000


@pytest.mark.soak
def test_a_worker_that_idles_uses_less_than_two_hundredths_of_a_core(tmp_path):
    queue = Queue(tmp_path / "queue.tsv", sync="off")
    queue.enqueue("note", run_at=time.time() + 3600)
    queue.process_jobs({"note": print}, run_for=0.1)

    begun = time.process_time()
    queue.process_jobs({"note": print}, run_for=0.75)
    used = time.process_time() - begun

    print(f"{used / 0.75:.2%} of a core")
    assert used < 0.015


@pytest.mark.soak
def test_a_worker_that_drains_100_000_jobs_holds_a_small_part_of_them(tmp_path):
    peaks = {}
    for jobs in (FEW, MANY):
        queue = Queue(tmp_path / f"{jobs}.tsv", sync="off")
        queue.enqueue_many(("note", {"number": n, "text": "x" * 70}) for n in range(jobs))
        peaks[jobs] = peak_of_a_tick(queue)
        assert queue.counts("status") == {"completed": jobs}

    print(f"a drain: {peaks} KB")
    assert peaks[MANY] - peaks[FEW] < 25_000


@pytest.mark.soak
def test_an_idle_tick_and_a_full_look_need_no_more_memory_for_1_000_000_rows(queues, tmp_path):
    queue, rows = Queue(tmp_path / "queue.tsv", sync="off"), Path(queues[MANY][0].path).read_bytes()
    header, _, rest = rows.partition(b"\n")
    with open(queue.path, "wb") as file:  # ten times the same ids, which a look does not mind
        file.writelines([header, b"\n", *[rest] * 10])
    few, _ = queues[FEW]
    forget_the_hint(few)
    peaks = {"look at few": peak_of_a_tick(few), "look": peak_of_a_tick(queue)}
    peaks |= {"idle with few": peak_of_a_tick(few), "idle": peak_of_a_tick(queue)}

    print(f"{os.stat(queue.path).st_size / 1e6:.0f} MB: {peaks} KB")
    assert peaks["look"] - peaks["look at few"] < 6000
    assert peaks["idle"] - peaks["idle with few"] < 2000


ADD = """
import sys
sys.path.insert(0, sys.argv[1])
from dbbasic_queue import Queue, errors
try:
    Queue("queue.tsv", lock_timeout=0.001).enqueue("note")
except errors.QueueBusy:
    pass
print("filelock" in sys.modules)
"""


def test_a_script_that_adds_a_job_imports_filelock_only_if_it_has_to_wait(tmp_path):
    """Its import takes longer than all the rest of such a script."""
    queue = Queue(tmp_path / "queue.tsv")

    alone = idle_tick(tmp_path, ADD)
    with queue.edit():
        waited = idle_tick(tmp_path, ADD)

    assert (alone, waited) == ("False\n", "True\n")
    assert queue.counts() == {"pending": 1}
