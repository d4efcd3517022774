#!/usr/bin/env python3
"""A thousand jobs in one write, and their ids in order.

    python bulk.py

`enqueue_many` takes the lock once and waits for the disk once, so a thousand jobs cost little
more than one. When it raises, none of them was added.
"""

import time

from dbbasic_queue import Queue


def send_newsletter(payload):
    return {"sent_to": payload["user_id"]}


HANDLERS = {"send_newsletter": send_newsletter}

if __name__ == "__main__":
    queue = Queue()
    jobs = [
        ("send_newsletter", {"user_id": user_id, "newsletter_id": 42}) for user_id in range(1, 1001)
    ]

    begin = time.perf_counter()
    ids = queue.enqueue_many(jobs)
    print(f"{len(ids)} jobs added in {1000 * (time.perf_counter() - begin):.0f} ms")

    begin = time.perf_counter()
    queue.process_jobs(HANDLERS)
    print(f"{queue.counts('status')} after {1000 * (time.perf_counter() - begin):.0f} ms")
