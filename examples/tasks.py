#!/usr/bin/env python3
"""Functions and small classes as jobs: enqueued as they are called, checked when they are.

    python tasks.py

A task is a function with `@task`; calling it still calls it, `.enqueue` adds a job instead. Of a
class, `handle` is the job, and `failed` is called when it has failed for good: after its last
attempt, at a Discard, and also when its worker was killed in it.
"""

from datetime import timedelta

from dbbasic_queue import Discard, Queue, process_jobs
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.tasks import handlers, task


@task
def greet(name, greeting="Hello"):
    print(f"{greeting}, {name}!")
    return {"greeted": name}


@task(queue="reports", max_attempts=5, unique=True, unique_for=3600)
async def report(day):
    """Once for each day; asked for again within an hour, the job that has the result."""
    return {"day": day, "orders": 17}


@task(max_attempts=1)
class Charge:
    order: str
    cents: int

    def handle(self):
        if self.cents > 10_000:
            raise Discard("the card was declined")
        return {"charged": self.cents}

    def failed(self, error):
        print(f"order {self.order} was not paid: {error}")


if __name__ == "__main__":
    greet("Ana")  # here and now: no job
    greet.enqueue("Ben", greeting="Good morning")
    greet.using(priority=-10).enqueue("Cleo")  # runs first
    greet.using(run_at=timedelta(hours=1)).enqueue("Dan")
    Queue().enqueue_many([greet.job(name) for name in ("Eva", "Finn")])  # in one write
    first = report.enqueue("2026-11-22")
    Charge.enqueue("A-1001", cents=4_200)
    Charge.enqueue("A-1002", cents=42_000)
    try:
        greet.enqueue("Gus", greeting={"not", "JSON"})
    except BadArgument as problem:
        print(f"refused: {problem}")

    process_jobs(handlers)

    assert report.enqueue("2026-11-22") == first
    print(Queue().get_job(first)["result"])
    for status, count in sorted(Queue().counts("status").items()):
        print(count, status)
