"""Worker processes under fire: workers, supervisors and jobs are killed at random for a minute."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from dbbasic_queue import Queue

from . import reader

SUPERVISOR = """
    import math, os, random, time
    from dbbasic_queue import Queue, current_job
    def effect(payload):
        fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, current_job().id.encode() + b"\\n")
        os.close(fd)
        time.sleep(random.random() * payload)
    Queue("data/queue.tsv").process_jobs(
        {"effect": effect}, processes=(2, 4), run_for=math.inf, max_workers=99, max_attempts=10**6
    )
"""
SECONDS = 60


@pytest.mark.soak
def test_p9_p10_p12_eight_workers_survive_a_minute_of_kills_of_workers_supervisors_and_jobs(
    tmp_path, run_python
):
    queue, chance = Queue(tmp_path / "data" / "queue.tsv"), random.Random(1)
    told, killed, ended = [], Counter(), set()
    supervisors, zombies, most = [None, None], Counter(), 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for number, child in enumerate(supervisors):
            if child is None or child.poll() is not None:
                assert child is None or child.returncode == -signal.SIGKILL
                supervisors[number] = run_python(SUPERVISOR, env={"PYTHONWARNINGS": "ignore"})
        told += queue.enqueue_many([("effect", 0.3)] * chance.randrange(8))
        workers = queue.workers()
        most = max(most, len(workers))
        zombies = Counter(
            {pid: zombies[pid] + 1 for pid in zombies_of({one.pid for one in supervisors})}
        )
        assert max(zombies.values(), default=0) < 10, "a zombie stays"
        what = chance.choices(("worker", "supervisor", "job"), (10, 1, 4))[0]
        if what == "supervisor":
            chance.choice(supervisors).kill()
            killed[what] += 1
        elif workers and what == "worker":
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers).pid, signal.SIGKILL)
                killed[what] += 1
        elif running := [id for one in workers for id in one.jobs]:
            id = chance.choice(running)
            if queue.kill(id):
                ended.add(id)
                killed[what] += 1
        time.sleep(chance.random() * 0.2)

    if all(child.poll() is not None for child in supervisors):
        supervisors[0] = run_python(SUPERVISOR, env={"PYTHONWARNINGS": "ignore"})
    drained = time.monotonic() + 60
    while set(queue.counts()) - {"completed", "cancelled"} and time.monotonic() < drained:
        time.sleep(0.1)
    assert queue.stop(timeout=20) == []
    for child in supervisors:
        assert child.wait(timeout=20) in (0, -signal.SIGKILL)

    effects = Counter((tmp_path / "effects").read_text().split())
    rows = reader.by_id(tmp_path / "data" / "queue.tsv")
    extra = effects.total() - len(effects)
    print(
        f"{dict(killed)} killed in {SECONDS} s, at most {most} workers; {len(told)} jobs, "
        f"{extra} extra runs, {sum(row['status'] == 'cancelled' for row in rows.values())} ended "
        f"on request"
    )
    assert set(rows) == set(told)
    assert {id for id in told if rows[id]["status"] == "completed"} >= set(told) - ended
    assert {id for id in told if not effects[id]} <= ended  # ended before it had begun
    assert extra <= killed["worker"] + killed["supervisor"]
    assert not reader.leftovers(tmp_path / "data" / "queue.tsv")
    assert killed["worker"] > 100 and killed["supervisor"] > 10 and killed["job"] > 30
    assert most >= 6


def zombies_of(parents):
    """The pids of processes that have ended and whose parent has not asked how."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, rest = stat.read_text().split(" (", 1)
            state, parent = rest.rsplit(") ", 1)[1].split()[:2]
            if state == "Z" and int(parent) in parents:
                yield int(pid)
