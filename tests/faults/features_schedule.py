"""Schedules whose workers die: no slot twice, none lost, one unfinished row for each schedule.

The clock stands, and is moved from round to round.  In each round workers and a deploy that
declares everything anew are killed with SIGKILL, at a random call or a random moment; then one tick
is left alone, and the file is compared with what must be there.
"""

import collections
import os
import random
import signal
import tempfile
import time
import traceback
from datetime import datetime, timedelta
from pathlib import Path

import freezegun

from dbbasic_queue import Queue, current_job, schedule

from . import killed
from .cases import Result

BEGIN = 1_780_000_000  # a whole minute is 20 s away, as everywhere else
ROUNDS = 6
CHILDREN = 3
LONGEST = 0.03  # seconds that a child lives that no call kills
MOST = 3  # runs of the schedule that ends
PERIODS = {"often": 60, "seldom": 1000, "few": 60, "cron": 120}
VERBS = ("tick", "tick", "tick", "declare", "run_now")


def run(cases, folder=None, seed=0):
    """Run so many cases, each in a folder of its own; return what they came to."""
    count, violations = 0, []
    for number in range(cases):
        with tempfile.TemporaryDirectory(dir=folder or killed.MEMORY) as name:
            chance = random.Random(seed * 1000 + number)
            with freezegun.freeze_time(moment(BEGIN)) as clock:
                ended, wrong = one_case(Path(name), chance, clock)
        count += ended
        violations += [f"case {number}: {text}" for text in wrong]
    return Result(cases, count, violations)


def one_case(folder, chance, clock):
    queue = Queue(folder / "queue.tsv", sync="off")
    declare(queue, 0)
    now, count, due = BEGIN, 0, first_slots()
    expected, runs, wrong = set(), collections.Counter(), []
    for number in range(ROUNDS):
        back = number > 2 and chance.random() < 0.2
        now += chance.choice((30, 60, 75, 300, 4000)) if not back else -chance.choice((60, 7200))
        clock.move_to(moment(now))
        count += kill_some(folder, queue, chance, number)
        declare(queue, number)  # the deploy comes to its end, and so does a tick
        queue.process_jobs(handlers(folder), **WORKER)
        advance(now, due, expected, runs)
        wrong += [f"round {number} at {now}: {text}" for text in judge(folder, queue, expected)]
    return count, wrong


WORKER = {"max_workers": 99, "max_attempts": 10**6, "backoff": "none"}


def moment(at):
    return datetime(1970, 1, 1) + timedelta(seconds=at)


def declare(queue, version):
    """Declare all of them, each time with another payload."""
    for name, seconds in PERIODS.items():
        how = {"cron": "*/2 * * * *", "tz": "UTC"} if name == "cron" else {"every": seconds}
        if name == "few":
            how["max_count"] = MOST
        elif name != "seldom":
            how["payload"] = version
        schedule.add_schedule(name, "note", queue_file=queue, **how)


def handlers(folder):
    def note(payload):
        fd = killed.REAL["open"](folder / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        killed.REAL["write"](fd, f"{current_job().id}\n".encode())
        os.close(fd)

    return schedule.serving({"note": note})


# --- what is done


def kill_some(folder, queue, chance, version):
    """Start children that work and declare, kill them; return how many SIGKILL has ended."""
    children = []
    for _ in range(CHILDREN):
        verb = chance.choice(VERBS)
        die_at, how = chance.randrange(1, 40), chance.choice(("before", "after", "half"))
        armed = chance.random() < 0.6
        pid = os.fork()
        if not pid:
            child(folder, queue, verb, version, (die_at, how) if armed else None)
        children.append((pid, None if armed else chance.random() * LONGEST))
    begun, ended = time.clock_gettime(time.CLOCK_MONOTONIC), 0
    for pid, lives in sorted(children, key=lambda one: one[1] or 0):
        if lives is not None:
            left = begun + lives - time.clock_gettime(time.CLOCK_MONOTONIC)
            time.sleep(max(0, left))
            os.kill(pid, signal.SIGKILL)
    for pid, _ in children:
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            ended += 1
        elif status:
            raise AssertionError((folder / f"error-{pid}").read_text())
    return ended


def child(folder, queue, verb, version, die):
    status = 1
    try:
        if die:
            killed.arm(*die)
        if verb == "declare":
            declare(queue, version)
        elif verb == "run_now":
            schedule.run_now("seldom", queue_file=queue)
        else:
            queue.process_jobs(handlers(folder), **WORKER)
        status = 0
    except BaseException:
        (folder / f"error-{os.getpid()}").write_text(traceback.format_exc())
    finally:
        os._exit(status)


# --- what must be there


def first_slots():
    return {name: after(name, BEGIN) for name in PERIODS}


def after(name, at):
    """The first slot after a moment: `every` counts from BEGIN, cron from the even minute."""
    origin = 0 if name == "cron" else BEGIN
    return at + PERIODS[name] - (at - origin) % PERIODS[name]


def advance(now, due, expected, runs):
    """Add the slots that a tick is to run: of each schedule the last one that is due."""
    for name, slot in due.items():
        if slot <= now and (name != "few" or runs[name] < MOST):
            latest = after(name, now) - PERIODS[name]
            expected.add(f"{name}@{moment(latest):%Y-%m-%dT%H:%M:%SZ}")
            runs[name] += 1
            due[name] = after(name, now)


def judge(folder, queue, expected):
    """Compare the file with what must be there after a tick that nobody disturbed."""
    rows = list(queue.jobs())
    jobs = [job for job in rows if job.type == "note"]
    cells = collections.Counter(job.cell("unique") for job in jobs if "~" not in job.cell("unique"))
    twice = [cell for cell, count in cells.items() if count > 1]
    lost, more = expected - cells.keys(), cells.keys() - expected
    unfinished = sorted(
        job.payload["schedule"] for job in rows if job.type == "schedule" and not job.finished
    )
    few = sum(cell.startswith("few@") for cell in expected)
    wanted = sorted(name for name in PERIODS if name != "few" or few < MOST)
    path = folder / "effects"
    effects = set(path.read_text().split()) if path.exists() else set()
    if twice or lost or more:
        yield f"twice {twice}, lost {sorted(lost)}, too many {sorted(more)}"
    if unfinished != wanted:
        yield f"unfinished rows of {unfinished}, not of {wanted}"
    if wrong := [(job.id, job.status) for job in jobs if job.status != "completed"]:
        yield f"not run: {wrong}"
    if {job.id for job in jobs} != effects:
        yield f"effects without a job, or the other way round: {effects ^ {j.id for j in jobs}}"
