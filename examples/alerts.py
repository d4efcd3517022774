#!/usr/bin/env python3
"""Be told when a job has failed for good: by a listener, and by jobs that cannot be missed.

    python alerts.py

A listener is called by the worker, after the failure is in the file: quick to write, and told also
of jobs whose worker died, but missed when that worker is killed in the same moment. So let it only
`enqueue`, and leave the mail or the call to Slack to a job, which is tried again.

Where no alert may be missed, let the file say it: a job with `after="notok:ID"` runs when that one
has failed or was cancelled. It is stored together with the job that it watches over, and no crash
can come between. (A task has `failed`, called with the job: see tasks.py.)
"""

import os

from dbbasic_queue import Discard, Queue
from dbbasic_queue.events import on_failure

ALERT = "alert"
queue = Queue()


def charge(payload):
    raise Discard(f"the card of {payload['user']} was declined")


def alert(payload):
    """Here you would send a mail, or post to $SLACK_WEBHOOK with urllib.request."""
    print("alert:", payload["text"], "to", os.environ.get("ALERT_TO", "the people on duty"))


def when_failed(job):
    if job.type != ALERT:  # an alert that cannot be sent is no reason for another one
        queue.enqueue(ALERT, {"text": f"{job.type} {job.id} failed: {job.error}"}, max_attempts=20)


if __name__ == "__main__":
    queue.enqueue("charge", {"user": "ada"})

    order = queue.new_id()
    queue.enqueue_many([
        {"job_type": "charge", "payload": {"user": "bob"}, "id": order},
        {"job_type": ALERT, "payload": {"text": f"order {order} is unpaid"},
         "after": f"notok:{order}"},
    ])  # fmt: skip

    handlers = {"charge": charge, ALERT: alert}
    for _ in range(2):  # what is added during a tick is left to the next one
        queue.process_jobs(handlers, listeners=[on_failure(when_failed)])
