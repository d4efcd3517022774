#!/usr/bin/env python3
"""How often jobs start, how many run at a time, a queue that is paused, and one that is full.

    python limits.py

The limits hold for all workers on the file together, so give the same ones to each of them. What
may not start yet stays pending. A worker with `run_for` starts it as soon as it may; a tick leaves
it to the next tick.
"""

import time

from dbbasic_queue import Queue
from dbbasic_queue.limits import QueueFull, concurrency, enqueue_bounded, pause, rate, resume

LIMITS = [
    rate(5, 0.2, type="call_api"),  # five in any fifth of a second
    rate(1, 60, type="send_sms", key="user"),  # for each user one in any minute
    concurrency(1, type="rebuild_index"),  # a mutex
    concurrency(2, queue="video"),
]


def work(payload):
    print(f"{time.monotonic() - BEGUN:4.1f} s  {payload}")


HANDLERS = dict.fromkeys(("call_api", "send_sms", "rebuild_index"), work)
BEGUN = time.monotonic()

if __name__ == "__main__":
    queue = Queue()
    for number in range(8):
        queue.enqueue("call_api", {"call": number})
    for user in ("ada", "bob", "ada"):
        queue.enqueue("send_sms", {"user": user})
    queue.enqueue("rebuild_index", {"index": "shop"}, queue="nightly")

    pause("nightly")
    queue.process_jobs(HANDLERS, run_for=0.3, admit=LIMITS)
    print("\nleft:", queue.counts("type", "status").get(("send_sms", "pending")), "text to ada")

    resume("nightly")
    queue.process_jobs(HANDLERS, admit=LIMITS)

    try:
        while True:
            enqueue_bounded("send_sms", {"user": "eve"}, longest=3)
    except QueueFull as full:
        print(full)
