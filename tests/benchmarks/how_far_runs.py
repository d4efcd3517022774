"""What how_far.py measures, in new processes: `python how_far_runs.py RUN FOLDER ARGUMENTS`.

Each run is a function that prints what it found as JSON: seconds, unless its name says otherwise.
"""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from statistics import median

PAYLOAD = {"user": 1234567, "to": "ana@example.com", "template": "welcome", "lang": "en"}
READY, GO = "ready-", "go"
MB = 1e6


def opened(folder, name="queue.tsv"):
    from dbbasic_queue import Queue

    return Queue(os.path.join(folder, name))


def fill(folder, rows, name="queue.tsv"):
    """Make a queue with so many finished rows, each as a job of ours leaves it, but for the id."""
    path = os.path.join(folder, name)
    for beside in os.listdir(folder):
        if beside.startswith(name) and os.path.isfile(os.path.join(folder, beside)):
            os.unlink(os.path.join(folder, beside))
    queue = opened(folder, name)
    id = queue.enqueue("mail", PAYLOAD)
    queue.process_jobs({"mail": lambda payload: {"sent": True}})
    with open(path, "rb") as file:
        header, line = file.readlines()
    assert line.startswith(id.encode()) and b"\tcompleted\t" in line
    line, first, step = line[16:], int(id, 16) - (rows << 12), 1 << 12
    with open(path, "wb") as file:
        file.write(header)
        for at in range(0, rows, 10_000):
            numbers = range(at, min(rows, at + 10_000))
            file.writelines(b"%016x%b" % (first + number * step, line) for number in numbers)
        file.flush()
        os.fsync(file.fileno())
    return opened(folder, name), [f"{first + number * step:016x}" for number in range(rows)]


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def timed(call, values):
    taken = []
    for value in values:
        begun = time.perf_counter()
        call(value)
        taken.append(time.perf_counter() - begun)
    return taken


# --- one process, and a file that grows


def size(folder, rows, jobs, calls):
    queue, ids = fill(folder, rows)
    handlers = {"mail": lambda payload: None}
    queue.process_jobs(handlers)
    found = {
        "mb": os.path.getsize(queue.path) / MB,
        "row_bytes": os.path.getsize(queue.path) / rows,
    }
    adds = timed(lambda _: queue.enqueue("mail", PAYLOAD, 1 << 33), range(calls))
    found["enqueue"], found["enqueue_p99"] = median(adds), percentile(adds, 0.99)
    found["get"] = median(timed(queue.get, random.Random(0).choices(ids, k=calls)))

    def edit(rows):
        with queue.edit() as e:
            for id in ids[-rows:]:
                e.change(e.get(id), tenant="acme")

    edit(1)  # the column is new: this one writes every row
    found["edit"] = median(timed(edit, [1] * 5))
    some = min(rows, 1000)
    found["edit_row"] = max(0, (median(timed(edit, [some] * 3)) - found["edit"]) / some)
    queue.process_jobs(handlers)
    found["idle"] = median(timed(lambda _: queue.process_jobs(handlers), range(20)))
    queue.enqueue("mail", PAYLOAD)
    (found["tick_of_one"],) = timed(lambda _: queue.process_jobs(handlers), [0])
    queue.enqueue_many([("mail", PAYLOAD)] * jobs)
    (drain,) = timed(lambda _: queue.process_jobs(handlers), [0])
    return found | {"jobs_a_second": jobs / drain}


def synced(folder, mb):
    """Bytes written and synced: what an edit cannot do without."""
    data = os.urandom(1 << 20)
    begun = time.perf_counter()
    with open(os.path.join(folder, "synced"), "wb") as file:
        for _ in range(mb):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return {"mb_a_second": mb * (1 << 20) / MB / (time.perf_counter() - begun)}


# --- several processes


def child(run, folder, **arguments):
    program = [sys.executable, __file__, run, folder, json.dumps(arguments)]
    return subprocess.Popen(program, stdout=subprocess.PIPE)


def answer(process):
    told = process.communicate()[0]
    assert process.returncode == 0, f"{process.args[2]} failed"
    return json.loads(told)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "a child does not start"
        time.sleep(0.002)


def ready_and_go(folder, mark):
    open(os.path.join(folder, f"{READY}{mark}"), "w").close()
    wait_for(lambda: os.path.exists(os.path.join(folder, GO)))


def start_all(folder, number):
    wait_for(lambda: sum(name.startswith(READY) for name in os.listdir(folder)) >= number)
    open(os.path.join(folder, GO), "w").close()
    return time.perf_counter()


def clear(folder):
    for name in os.listdir(folder):
        if name == GO or name.startswith(READY):
            os.unlink(os.path.join(folder, name))


def warm(folder, mark):
    """Import what the first call and the first job import, and what waits for a lock."""
    import filelock  # noqa: F401

    queue = opened(folder, f"warm-{mark}.tsv")
    queue.enqueue("mail", PAYLOAD)
    queue.process_jobs({"mail": lambda payload: None})


def produce(folder, mark, seconds, name="queue.tsv"):
    """Enqueue without a pause."""
    queue, taken = opened(folder, name), []
    warm(folder, mark)
    ready_and_go(folder, mark)
    begun = now = time.perf_counter()
    while now - begun < seconds:
        queue.enqueue("mail", PAYLOAD)
        ended = time.perf_counter()
        taken.append(ended - now)
        now = ended
    return {"taken": taken, "seconds": now - begun}


def arrive(folder, mark, times):
    """Enqueue at these seconds after the start; late ones at once."""
    queue, taken = opened(folder), []
    warm(folder, mark)
    ready_and_go(folder, mark)
    start = time.perf_counter()
    for at in times:
        time.sleep(max(0, start + at - time.perf_counter()))
        begun = time.perf_counter()
        queue.enqueue("mail", {"at": time.time()})
        taken.append(time.perf_counter() - begun)
    return {"taken": taken}


def serve(folder, mark, handler=0, name="queue.tsv", jobs=None):
    """Run the jobs that are there, or without `jobs` those that come until it is asked to stop."""
    queue, delays = opened(folder, name), []

    def mail(payload):
        if "at" in payload:
            delays.append(time.time() - payload["at"])
        if handler:
            time.sleep(handler)

    warm(folder, mark)
    ready_and_go(folder, mark)
    begun = time.perf_counter()
    queue.process_jobs({"mail": mail}, run_for=None if jobs else 3600)
    return {"seconds": time.perf_counter() - begun, "delays": delays}


def producers(folder, rows, number, worker, seconds):
    """So many producers that call without a pause, and perhaps a worker beside them."""
    fill(folder, rows)
    clear(folder)
    children = [child("produce", folder, mark=n, seconds=seconds) for n in range(number)]
    working = child("serve", folder, mark="w") if worker else None
    start_all(folder, number + bool(working))
    found = [answer(one) for one in children]
    if working:
        opened(folder).stop()
        answer(working)
    taken = [one for each in found for one in each["taken"]]
    return {
        "jobs_a_second": sum(len(one["taken"]) / one["seconds"] for one in found),
        "p50": median(taken), "p99": percentile(taken, 0.99), "most": max(taken),
    }  # fmt: skip


def handlers(folder, handler, processes, jobs):
    """Jobs that are there already, from the start of the worker to its end."""
    queue, _ = fill(folder, 1000)
    queue.enqueue_many([("mail", PAYLOAD)] * jobs)

    def mail(payload):
        if handler:
            time.sleep(handler)

    begun = time.perf_counter()
    queue.process_jobs({"mail": mail}, processes=processes)
    seconds = time.perf_counter() - begun
    assert queue.counts("status")["completed"] == 1000 + jobs
    return {"jobs_a_second": jobs / seconds}


def files(folder, number, jobs, seconds):
    """So many queue files: each with a worker that drains, then each with a producer."""
    names = [f"queue-{n}.tsv" for n in range(number)]
    for name in names:
        queue, _ = fill(folder, 1000, name)
        queue.enqueue_many([("mail", PAYLOAD)] * jobs)
    clear(folder)
    children = [child("serve", folder, mark=name, name=name, jobs=jobs) for name in names]
    begun = start_all(folder, number)
    for one in children:
        answer(one)
    drained = number * jobs / (time.perf_counter() - begun)
    clear(folder)
    children = [child("produce", folder, mark=n, name=n, seconds=seconds) for n in names]
    start_all(folder, number)
    found = [answer(one) for one in children]
    added = sum(len(one["taken"]) / one["seconds"] for one in found)
    return {"drained_a_second": drained, "added_a_second": added}


def real(folder, rows, rate, jobs, number, handler):
    """The calls and delays of jobs that come at a rate, as the model has them."""
    from lock_model import arrivals

    fill(folder, rows)
    clear(folder)
    times = arrivals(rate, jobs, number)
    children = [child("arrive", folder, mark=n, times=times[n]) for n in range(number)]
    working = child("serve", folder, mark="w", handler=handler)
    start_all(folder, number + 1)
    calls = [one for each in children for one in answer(each)["taken"]]
    queue = opened(folder)
    wait_for(lambda: not queue.counts("status").get("pending"))
    queue.stop()
    delays = answer(working)["delays"]
    assert len(delays) >= jobs, f"{len(delays)} of {jobs} jobs ran"
    return {"calls": calls, "delays": delays}


@contextlib.contextmanager
def redis_server(folder):
    """A server of our own that syncs each second; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    server += ["--appendonly", "yes", "--dir", folder]
    with subprocess.Popen(server, stdout=subprocess.DEVNULL) as running:
        try:
            wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
            yield port
        finally:
            running.terminate()


def redis(folder, jobs, clients):
    """LPUSH and RPOP of a row's bytes, as redis-benchmark counts them."""
    with redis_server(folder) as port:
        program = f"redis-benchmark -p {port} -n {jobs} -c {clients} -d 200 -t lpush,rpop -q"
        told = subprocess.run(program.split(), capture_output=True, text=True, check=True)
    rates = re.findall(r"(LPUSH|RPOP)\b[^\n]*?: ([\d.]+) requests per second", told.stdout)
    return {f"{name}_a_second": float(rate) for name, rate in rates}


def bridge(folder, rows, jobs):
    """Jobs that the forwarder of the Celery bridge hands over; nobody runs them."""
    from celery import Celery

    from dbbasic_queue.contrib.celery import Bridge

    queue, _ = fill(folder, rows)
    with redis_server(folder) as port:
        app = Celery("how_far", broker=f"redis://127.0.0.1:{port}/0")
        forwarder = Bridge(app, {"mail": lambda payload: None}, queue_file=queue)
        queue.enqueue("mail", PAYLOAD)
        assert forwarder.tick().sent == 1  # connected, and the file was looked at
        queue.enqueue_many([("mail", PAYLOAD)] * jobs)
        sent, begun = 0, time.perf_counter()
        while sent < jobs:
            sent += forwarder.tick().sent
        return {"jobs_a_second": sent / (time.perf_counter() - begun)}


if __name__ == "__main__":
    run, folder, arguments = sys.argv[1:]
    print(json.dumps(globals()[run](folder, **json.loads(arguments))))
