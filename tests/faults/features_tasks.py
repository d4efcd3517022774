"""`failed` of a task under fire: workers are killed at any moment, and by the jobs themselves.

In the end each job that ended as failed has been told of, with its error, and no other one; once,
but for each time that the job which tells was itself cut off.
"""

import math
import os
import random
import signal
import time
from collections import defaultdict

from dbbasic_queue import Discard, Queue, Snooze, current_job
from dbbasic_queue.tasks import Tasks

from .cases import each, kill_by_chance, lines, note, start

ENDS = {"well": "completed", "raise": "failed", "discard": "failed", "kill": "failed",
        "snooze": "completed", "late": "completed"}  # fmt: skip
MOST = 1000  # attempts of a job that is to complete whoever dies


def run(cases, folder, seed=0):
    """Run so many cases, each in a folder of its own; return a Result."""
    return each(one_case, cases, folder, seed)


def tasks_of(place):
    """Return a class for each way in which a job ends; what they do is noted by one write."""
    tasks = Tasks()

    @tasks.task(name="job", backoff="none")
    class Job:
        how: str

        def handle(self):
            job = current_job()
            note(place / "runs", f"{job.id} {job.attempts}")
            time.sleep(random.random() * 0.004)
            if self.how == "raise" or (self.how == "late" and job.attempts == 1):
                raise ValueError("as it should")
            if self.how == "discard":
                raise Discard("of no use")
            if self.how == "snooze" and job.created_at % 2 == 0 and random.random() < 0.5:
                raise Snooze(0)
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            return self.how

        def failed(self, error):
            job = current_job()
            note(place / "told", f"{job.after.partition(':')[2]} {job.attempts} {error}")
            time.sleep(random.random() * 0.004)

    return tasks, Job


def one_case(place, chance, seconds=0.25):
    """Let two workers run a dozen jobs, kill one after the other, and judge how all has ended."""
    queue = Queue(place / "queue.tsv", sync=chance.choice(["normal", "off"]))
    tasks, task = tasks_of(place)
    task = task.using(queue_file=queue)
    how = {}
    for kind in chance.choices(list(ENDS), k=12):
        most = MOST if ENDS[kind] == "completed" else chance.choice([1, 2, 3])
        if chance.random() < 0.2:
            most = 2  # may be cut off for good, and is told of then
        how[task.using(max_attempts=most).enqueue(kind)] = kind
    killed = kill_by_chance(
        lambda role: start(role, queue, tasks), [work, work], chance, seconds, 0.03
    )
    for _ in range(100):
        os.waitpid(start(work, queue, tasks, None), 0)
        if not any(not job.finished for job in queue.jobs()):
            break
    return killed, judge(queue, place, how)


def work(queue, tasks, run_for=math.inf):
    queue.process_jobs(tasks, run_for=run_for, max_workers=99, backoff="none")


def judge(queue, place, how):
    """Return what is wrong in the end."""
    wrong, told = [], defaultdict(list)
    for line in lines(place / "told"):
        id, attempt, error = line.split(" ", 2)
        told[id].append((int(attempt), error))
    tellers = {job.after.partition(":")[2]: job for job in queue.jobs() if job.after}
    if len(tellers) * 2 != sum(1 for _ in queue.jobs()):
        wrong.append(f"{sum(1 for _ in queue.jobs())} rows for {len(tellers)} jobs that wait")
    for id, kind in how.items():
        job, teller = queue.get(id), tellers.get(id)
        if job is None or teller is None:
            wrong.append(f"{kind}: {job} and {teller}")
            continue
        died = (job.error or "").startswith("worker died")
        if not job.finished or (job.status != ENDS[kind] and not died):
            wrong.append(f"{kind}: {job} {job.error}")
        if job.status == "completed" and job.result != kind:
            wrong.append(f"{kind}: {job} has the result {job.result!r}")
        wanted = "completed" if job.status == "failed" else "cancelled"
        if teller.status != wanted:
            wrong.append(f"{kind}: {job}, but {teller}, {teller.error}")
        calls = told.pop(id, [])
        if bool(calls) != (job.status == "failed"):
            wrong.append(f"{kind}: {job}, told of {len(calls)} times")
        if any(error != job.error for _, error in calls):
            wrong.append(f"{kind}: {job} has the error {job.error!r}, told was {calls}")
        if [attempt for attempt, _ in calls] != sorted({attempt for attempt, _ in calls}):
            wrong.append(f"{kind}: {job} told of twice in one attempt: {calls}")
    wrong += [f"{id} is nobody's, and was told of" for id in told]
    return wrong
