#!/usr/bin/env python3
"""Layers around each run, and what a job may carry: tags, permissions, a moment it is too late at.

    python middleware.py

The first layer in the list is the outermost one. Give a layer to `process_jobs` for all jobs, or to
`@task(middleware=[…])` for those of one task.
"""

import logging
import sys
from contextlib import contextmanager
from datetime import timedelta

from dbbasic_queue import Discard, Queue
from dbbasic_queue.expiry import expires, expiring
from dbbasic_queue.middleware import (
    authorized,
    errors_kept,
    errors_of,
    layer_of,
    limited,
    logged,
    needs,
    retrying,
    throttled,
)
from dbbasic_queue.tags import tagged, tags


@contextmanager
def greeted(job):
    """A layer of one's own: what stands before the `yield` runs before the handler."""
    print(f"hello, {job.type}")
    try:
        yield
    finally:
        print(f"goodbye, {job.type}")


LAYERS = [
    logged(logging.getLogger("shop")),
    layer_of(greeted),
    expiring,
    authorized("mail", "shop"),
    errors_kept,
    throttled(2, 60, name="gateway"),  # two runs a minute, over all workers; the others wait
    retrying({ConnectionError: "none", ValueError: Discard}),
    limited(seconds=30, memory=500),
]


def mail(payload):
    if payload == "down":
        raise ConnectionError("the server is down")


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
    queue = Queue()
    late = queue.enqueue("mail", columns=expires(timedelta(0)))
    secret = queue.enqueue("mail", columns=needs("mail", "payroll"))
    queue.enqueue("mail", "down", columns={**tags("newsletter", "ada"), **expires(3600)})
    for name in ("ben", "eva"):
        queue.enqueue("mail", name, columns=tags("newsletter", name))

    with queue.edit() as e:  # for the sake of trying: an hour goes by
        e.change(e.get(late), expires_at="1")
    for _ in range(2):
        queue.process_jobs({"mail": mail}, 2, middleware=LAYERS)

    print(queue.get(late).error.partition(",")[0])
    print(queue.get(secret).error)
    for job in tagged("newsletter", queue_file=queue):
        print(job.cell("tags"), job.status, errors_of(job) or job.error or "")
