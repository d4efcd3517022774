#!/usr/bin/env python3
"""See what happens to jobs as it happens, from a process that runs none of them.

    python watch.py

In a shell: `dbbasic-queue watch`, or `dbbasic-queue watch --json --event failed | ...`. With the
audit trail, which a listener writes, you see later who did what and when: `dbbasic-queue history`.
"""

import multiprocessing
import time

from dbbasic_queue import Queue, current_job
from dbbasic_queue.audit import complete, history, trail, verify
from dbbasic_queue.events import watch

PATH = Queue().path


def convert(payload):
    for part in ("half", "most"):
        time.sleep(0.2)
        current_job().record(progress=part)
    return payload["video"].replace(".avi", ".mp4")


def work():
    """The worker, elsewhere; it also writes the trail, to queue.tsv.d/audit.tsv."""
    Queue(PATH, listeners=[trail(PATH)]).process_jobs({"convert": convert})


if __name__ == "__main__":
    queue = Queue(PATH, listeners=[trail(PATH)])
    changes = watch(type="convert", timeout=20, queue_file=queue)  # sees what happens from now on
    queue.enqueue("convert", {"video": "cat.avi"})
    worker = multiprocessing.Process(target=work)
    worker.start()

    for event, job in changes:
        print(f"{event:<10} {job.type} {job.cell('progress')}")
        if event == "completed":
            print("result:", job.result)
            changes.close()  # or `break` inside `with watch(...) as changes:`
    worker.join()

    complete(queue)  # adds what a killed worker could not write; once a day from cron, say
    for entry in history(job.id, queue):
        print(f"{entry.event} by {entry.by.partition('/')[0]}, attempt {entry.attempt}")
    print("the trail is whole" if verify(PATH + ".d/audit.tsv") is None else "it was changed")
