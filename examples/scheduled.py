#!/usr/bin/env python3
"""Jobs for later: at an hour of the clock, after a while, or never after all.

    python scheduled.py

`run_at` is a Unix time, an aware datetime or a timedelta from now. A job runs in the first
tick after that, so with a tick each minute at most a minute late, and never early.
"""

from datetime import date, datetime, time, timedelta

from dbbasic_queue import cancel_job, enqueue, get_job, process_jobs


def generate_daily_report(payload):
    return {"report": f"{payload['report_type']} of {payload['date']}"}


def send_reminder(payload):
    return {"reminded": payload["user_id"]}


HANDLERS = {
    "generate_daily_report": generate_daily_report,
    "send_reminder": send_reminder,
}


def next_midnight():
    """Return the coming midnight of this machine's time zone, right also when clocks change."""
    return datetime.combine(date.today() + timedelta(days=1), time()).astimezone()


if __name__ == "__main__":
    report = {"report_type": "sales", "date": date.today().isoformat()}
    ids = [
        enqueue("generate_daily_report", report, run_at=next_midnight()),
        enqueue("send_reminder", {"user_id": 1}, run_at=timedelta(hours=1)),
        enqueue("send_reminder", {"user_id": 2}, run_at=timedelta(days=1)),
        enqueue("send_reminder", {"user_id": 3}),
    ]
    cancel_job(ids[2])

    process_jobs(HANDLERS)

    for job in map(get_job, ids):
        print(f"{job['type']:24}{job['status']:12}{datetime.fromtimestamp(job['run_at'])}")
