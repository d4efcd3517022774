"""Every graph of four jobs, with every mix of completed, failed and killed.

A job that waits for others runs when all of them have completed, and is cancelled otherwise.  Each
tick is a process of its own; a handler that is to be killed kills it.
"""

import itertools
import logging
import os
import signal
import tempfile
from pathlib import Path

from dbbasic_queue import Queue
from dbbasic_queue.batch import enqueue_workflow

from . import reader
from .killed import MEMORY
from .results import Result

NAMES = "abcd"
EDGES = list(itertools.combinations(NAMES, 2))
ENDS = ("completed", "failed", "killed")
FINISHED = ("completed", "failed", "cancelled")


def cases():
    """Yield (the jobs that each job waits for, how each ends when it runs)."""
    for chosen in itertools.product((False, True), repeat=len(EDGES)):
        edges = [edge for edge, taken in zip(EDGES, chosen, strict=True) if taken]
        after = {name: [one for one, other in edges if other == name] for name in NAMES}
        for ends in itertools.product(ENDS, repeat=len(NAMES)):
            yield after, dict(zip(NAMES, ends, strict=True))


def expected(after, ends):
    """Return the status in which each job has to end."""
    found = {}
    for name in NAMES:
        runs = all(found[one] == "completed" for one in after[name])
        found[name] = "failed" if ends[name] == "killed" else ends[name]
        if not runs:
            found[name] = "cancelled"
    return found


def completed(payload):
    return payload


def failed(payload):
    raise ValueError(payload)


def killed(payload):
    os.kill(os.getpid(), signal.SIGKILL)


HANDLERS = {"completed": completed, "failed": failed, "killed": killed}


def tick(queue):
    """Run one tick in a process of its own; return whether it was killed."""
    pid = os.fork()
    if not pid:
        try:
            queue.process_jobs(HANDLERS, max_attempts=1)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def statuses(path):
    """Return each job's status by its payload, and how many have started, from the file alone."""
    rows = reader.read(Path(path))
    return {row["payload"].strip('"'): row["status"] for row in rows}


def one(path, after, ends):
    """Run one case; return how many ticks were killed, and what is wrong."""
    queue = Queue(path, sync="off")
    jobs = {name: (ends[name], name) for name in NAMES}
    enqueue_workflow(jobs, after, queue_file=queue)
    wanted = expected(after, ends)
    runs = sum(status != "cancelled" for status in wanted.values())
    kills = sum(wanted[name] == "failed" and ends[name] == "killed" for name in NAMES)
    killed = 0
    for _ in range(kills + 2):  # each kill ends a tick; two more are allowed
        killed += tick(queue)
        found = statuses(path)
        if all(status in FINISHED for status in found.values()):
            break
    wrong = [] if found == wanted else [f"{after} {ends}: {found}, not {wanted}"]
    if killed != kills:
        wrong.append(f"{after} {ends}: {killed} ticks were killed, not {kills}; {runs} were to run")
    return killed, wrong


def warm_up(path):
    """Run a tick here: what it imports, no forked child imports again."""
    queue = Queue(path, sync="off")
    queue.enqueue_many([("completed",), ("failed",)])
    queue.process_jobs(HANDLERS, max_attempts=1)


def campaign(bounded):
    """Yield one Result: 64 graphs with 81 mixes each, a file for each; bounded each fifth."""
    logger = logging.getLogger("dbbasic_queue")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    count, killed, violations = 0, 0, []
    try:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            warm_up(os.path.join(folder, "first.tsv"))
            for after, ends in itertools.islice(cases(), 0, None, 5 if bounded else 1):
                count += 1
                path = os.path.join(folder, str(count), "queue.tsv")
                more, wrong = one(path, after, ends)
                killed += more
                violations += wrong
    finally:
        logger.setLevel(level)
    yield Result(f"every graph of four jobs, every mix of ends; {killed} kills", count, violations)
