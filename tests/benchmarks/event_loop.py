#!/usr/bin/env python3
"""How late an event loop comes when its coroutines enqueue.

python tests/benchmarks/event_loop.py [--folder FOLDER]

100,000 jobs that a worker drains meanwhile, and users that enqueue one job after the other. A
coroutine that wants to wake each millisecond tells how much later it does.  --folder lies on the
disk that is to be measured.
"""

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dbbasic_queue import Queue

PAYLOAD = {"to": "ana@example.com"}


async def directly(call, *arguments):
    call(*arguments)
    await asyncio.sleep(0)  # as between two requests: let the others go on


WAYS = {"nobody enqueues": None, "directly": directly, "asyncio.to_thread": asyncio.to_thread}


async def measure(queue, way, users, seconds, begin):
    late, waits, ends = [], [], time.perf_counter() + seconds

    async def watch():
        while (before := time.perf_counter()) < ends:
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - before - 0.001)

    async def use():
        while (before := time.perf_counter()) < ends:
            await way(queue.enqueue, "mail", PAYLOAD)
            waits.append(time.perf_counter() - before)

    begin()
    await asyncio.gather(watch(), *(use() for _ in range(users if way else 0)))
    return sorted(late), sorted(waits)


def drain(path, seconds, start):
    start.wait()
    handlers = dict.fromkeys(("mail", "no-op"), lambda payload: None)
    Queue(path).process_jobs(handlers, run_for=seconds)


def at(values, part):
    return f"{1000 * values[int(len(values) * part)]:.1f}" if values else "-"


def line(name, users, late, waits, seconds):
    cells = [at(late, 0.5), at(late, 0.99), at(late, 0.9999999), at(waits, 0.5), at(waits, 0.99)]
    cells.append(f"{len(waits) / seconds:,.0f}")
    return f"{name:<18}{users:>6}" + "".join(f"{cell:>10}" for cell in cells)


def main():
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--seconds", type=float, default=5)
    ask.add_argument("--rows", type=int, default=100_000)
    ask.add_argument("--folder")
    given = ask.parse_args()
    names = "p50", "p99", "most", "p50", "p99", "jobs/s"
    print(f"ms                 users  {'loop is late':^28}  {'an enqueue':^18}")
    print(" " * 24 + "".join(f"{name:>10}" for name in names))
    for users in (1, 50):
        for name, way in WAYS.items():
            with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                queue = Queue(os.path.join(folder, "queue.tsv"))
                queue.enqueue_many([("no-op", PAYLOAD)] * given.rows)
                start = multiprocessing.Event()
                worker = multiprocessing.Process(
                    target=drain, args=(queue.path, given.seconds, start)
                )
                worker.start()
                time.sleep(0.3)
                found = asyncio.run(measure(queue, way, users, given.seconds, start.set))
                worker.join()
                print(line(name, users, *found, given.seconds), flush=True)


if __name__ == "__main__":
    main()
