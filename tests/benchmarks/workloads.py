"""What is done in a fresh child process: `python workloads.py WORKLOAD SIDE FOLDER ARGUMENTS`.

Each workload is a function; it prints what it found as JSON.  Its main figure is `value`, in the
unit of its row; less is better.  Imports are at use where they are large: memory is measured.
"""

import fcntl
import json
import os
import sys
import time
from collections import Counter

from peers import SIDES, payload

LINE = b"x" * 149 + b"\n"
RAN, READY, GO = "ran", "ready-", "go"
SECONDS = float(os.environ.get("BENCHMARK_SECONDS", "5"))


def timed(call, calls):
    """Call with 0, 1, 2 …, `calls` times or for SECONDS; figures in microseconds."""
    taken, until = [], time.perf_counter() + SECONDS
    for number in range(calls):
        begun = time.perf_counter()
        call(number)
        ended = time.perf_counter()
        taken.append((ended - begun) * 1e6)
        if ended > until:
            break
    return figures(taken)


def figures(taken):
    taken, last = sorted(taken), len(taken) - 1
    return {"value": taken[last // 2], "p99": taken[int(0.99 * last)], "calls": len(taken)}


def made(side, folder):
    return SIDES[side].engine(folder, os.environ.get("REDIS_PORT") or SIDES[side].mode)


# --- one process


def fill(side, folder, rows, later=False, finished=False, due=0):
    """Make the queue that a workload begins with."""
    from random import sample

    engine = made(side, folder)
    ids = engine.fill(rows, later, finished)
    if due:
        engine.fill(due, False, False)
    with open(os.path.join(folder, "ids.json"), "w") as file:
        json.dump(sample(ids, min(len(ids), 1000)), file)
    return {}


def settle(side, folder, later=False, due=0, **_):
    """Look at it once, if nothing is due; and wait for the disk, or it goes on writing during what
    is measured."""
    if later and not due and hasattr(SIDES[side].engine, "look"):
        made(side, folder).look()
    for entry in os.scandir(folder):
        if entry.is_file():
            with open(entry.path, "rb") as file:
                os.fsync(file.fileno())
    return {}


def enqueue(side, folder, calls):
    engine = made(side, folder)
    if calls > 1:
        timed(engine.enqueue, 5)
    return timed(engine.enqueue, calls)


def bulk(side, folder, jobs):
    engine = made(side, folder)
    engine.enqueue_many(range(1))
    begun = time.perf_counter()
    engine.enqueue_many(range(jobs))
    return {"value": (time.perf_counter() - begun) / jobs * 1e6}


def get(side, folder, calls):
    """Each id once, in no order: nothing is known of it yet."""
    engine = made(side, folder)
    with open(os.path.join(folder, "ids.json")) as file:
        ids = json.load(file)
    engine.get(ids[0])
    return timed(lambda number: engine.get(ids[number % len(ids)]), calls)


def drain(side, folder, jobs, **bounds):
    """Time and processor time for each job; all is imported before, by one job elsewhere."""
    if not hasattr(SIDES[side].engine, "server"):
        other = os.path.join(folder, "warm")
        os.makedirs(other, exist_ok=True)
        first = made(side, other)
        first.fill(1, False, False)
        first.drain(lambda payload: None)
    engine, ran = made(side, folder), 0

    def handler(payload):
        nonlocal ran
        ran += 1
        if ran == 1:
            open(os.path.join(folder, GO), "w").close()

    begun, used = time.perf_counter(), time.process_time()
    engine.drain(handler, **bounds)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    assert ran >= jobs, f"{side} ran {ran} of {jobs} jobs"
    return {"value": seconds / ran * 1e6, "cpu": cpu / ran * 1e6}


# --- several processes


def child(workload, side, folder, **arguments):
    import subprocess

    program = [sys.executable, __file__, workload, side, folder, json.dumps(arguments)]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL)


def until(condition, seconds, pause=0.002):
    end = time.perf_counter() + seconds
    while not condition() and time.perf_counter() < end:
        time.sleep(pause)


def produce(side, folder, first, jobs):
    engine = made(side, folder)
    open(os.path.join(folder, f"{READY}{first}"), "w").close()
    until(lambda: os.path.exists(os.path.join(folder, GO)), 60)
    for number in range(first, first + jobs):
        engine.enqueue(number)
    return {}


def serve(side, folder, number):
    """Run jobs until killed; each is a line of 8 bytes in one file of all workers."""
    fd = os.open(os.path.join(folder, RAN), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    engine = made(side, folder)
    open(os.path.join(folder, f"{READY}w{number}"), "w").close()
    engine.serve(lambda payload: os.write(fd, b"%7d\n" % payload["number"]) and None)


def together(side, folder, jobs):
    """Two producers and two workers, from the first enqueue until all jobs have run."""
    fill(side, folder, 0)
    each, ran = jobs // 2, os.path.join(folder, RAN)
    producers = [child("produce", side, folder, first=n * each, jobs=each) for n in range(2)]
    workers = [child("serve", side, folder, number=n) for n in range(2)]
    try:
        until(lambda: sum(name.startswith(READY) for name in os.listdir(folder)) == 4, 60)
        if hasattr(SIDES[side].engine, "server"):
            time.sleep(2)  # its worker connects
        begun = ended = time.perf_counter()
        open(os.path.join(folder, GO), "w").close()
        size = seen = 0
        while size < jobs * 8 and time.perf_counter() - ended < 5:
            time.sleep(0.001)
            size = os.stat(ran).st_size
            if size > seen:
                seen, ended = size, time.perf_counter()
        for producer in producers:
            assert producer.wait(60) == 0
        time.sleep(0.3)  # for what runs twice
    finally:
        for process in (*producers, *workers):
            process.kill()
            process.wait()
    with open(ran, "rb") as file:
        runs = Counter(file.read().split())
    lost, doubled = jobs - len(runs), sum(runs.values()) - len(runs)
    done = max(1, len(runs))
    return {"value": (ended - begun) / done * 1e6, "lost": lost, "doubled": doubled}


def beside(side, folder, jobs):
    """Enqueue, with half a millisecond between, alone and then while a worker drains `jobs` rows
    behind others; and one edit, for comparison."""
    engine = made(side, folder)

    def one(number):
        time.sleep(0.0005)
        begun = time.perf_counter()
        engine.enqueue(number, later=True)
        return (time.perf_counter() - begun) * 1e6

    alone = figures([one(number) for number in range(int(SECONDS * 200))])
    found = {"alone": alone["value"], "alone_p99": alone["p99"]}
    if hasattr(engine, "queue"):
        id = engine.enqueue(0, later=True)
        begun = time.perf_counter()
        engine.queue.cancel(id)
        found["edit"] = (time.perf_counter() - begun) * 1e6
    worker = child("drain", side, folder, jobs=jobs)
    until(lambda: os.path.exists(os.path.join(folder, GO)), 60)
    taken = []
    while worker.poll() is None:
        taken.append(one(len(taken)))
    assert worker.returncode == 0
    return figures(taken) | found


# --- what the machine can do at best


def append(side, folder, calls, sync=False):
    """open the lock, flock, open, write, close: what an append under a lock cannot do without."""
    path = os.path.join(folder, "plain")

    def one(number):
        lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        os.write(fd, LINE)
        if sync:
            os.fdatasync(fd)
        os.close(fd)
        os.close(lock)

    return timed(one, calls)


def fdatasync(side, folder, calls):
    """Append to an open file, and sync it."""
    with open(os.path.join(folder, "plain"), "ab", 0) as file:
        return timed(lambda number: file.write(LINE) and os.fdatasync(file.fileno()), calls)


def dumps(side, folder, calls):
    """A payload as JSON."""
    begun = time.perf_counter()
    for number in range(calls):
        json.dumps(payload(number))
    return {"value": (time.perf_counter() - begun) / calls * 1e6}


def record(side, folder, calls):
    """A payload read, a result written as JSON, a line written to the file."""
    text = json.dumps(payload(0))
    with open(os.path.join(folder, "plain"), "ab", 0) as file:

        def one(number):
            json.dumps(json.loads(text)["number"])
            file.write(LINE)

        return timed(one, calls)


def reads(side, folder, rows, calls):
    """open, 27 reads of 4 KiB in a file as long, close."""
    from random import randrange

    path, size = os.path.join(folder, "holes"), max(rows * len(LINE), 8192)
    with open(path, "wb") as file:
        file.truncate(size)

    def one(number):
        fd = os.open(path, os.O_RDONLY)
        for _ in range(27):
            os.pread(fd, 4096, randrange(size - 4096))
        os.close(fd)

    return timed(one, calls)


def copy(side, folder, rows, calls):
    """Copy a file of so many rows inside the kernel, and sync the copy."""
    with open(os.path.join(folder, "long"), "wb") as file:
        file.write(LINE * rows)
        file.flush()
        os.fsync(file.fileno())

    def one(number):
        source = os.open(os.path.join(folder, "long"), os.O_RDONLY)
        target = os.open(os.path.join(folder, "copy"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        left = rows * len(LINE)
        while left and (copied := os.copy_file_range(source, target, left)):
            left -= copied
        os.fsync(target)
        os.close(source)
        os.close(target)

    return timed(one, calls)


def peak_mb():
    """Of this process alone: `getrusage` also counts the process that forked it."""
    try:
        with open("/proc/self/status") as lines:
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    workload, side, folder, arguments = sys.argv[1:]
    found = globals()[workload](side, folder, **json.loads(arguments))
    print(json.dumps(found | {"peak": peak_mb()}))
