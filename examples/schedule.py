#!/usr/bin/env python3
"""Jobs that come again: each night, every quarter of an hour, and on the last day of a month.

    python schedule.py

Needs cronsim for `cron=`: pip install 'dbbasic-queue[cron]'. Each deploy may run this file: what is
declared already, and has not changed, is left as it is. A schedule is a row of the queue that
waits for its next slot; the worker that runs it adds the job and the row of the slot after it.
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from dbbasic_queue import process_jobs
from dbbasic_queue.schedule import add_schedule, next_runs, run_now, schedules, serving, slot

ZONE = "Europe/Berlin"


def report(payload):
    return {"report": payload["of"], "slot": slot().isoformat()}


def month_end(slot):
    """Return the last day of the month after the slot's, at the same time of day."""
    a_month_later = (slot.replace(day=1) + timedelta(days=63)).replace(day=1)
    return a_month_later - timedelta(days=1)


HANDLERS = serving({"report": report}, functions={"month_end": month_end})

if __name__ == "__main__":
    closing = datetime(2030, 1, 31, 18, tzinfo=ZoneInfo(ZONE))
    add_schedule("nightly", "report", {"of": "sales"}, cron="30 2 * * *", tz=ZONE)
    add_schedule("stock", "report", {"of": "stock"}, every=timedelta(minutes=15), catch_up="skip")
    add_schedule("closing", "report", {"of": "books"}, next="month_end", run_at=closing, tz=ZONE)

    run_now("nightly")
    process_jobs(HANDLERS)

    for one in schedules():
        print(f"{one.name:9}{one.spec:18}{one.next_run:%Y-%m-%d %H:%M %Z}")
    print(*(at.date() for at in next_runs("closing", 3, functions={"month_end": month_end})))
