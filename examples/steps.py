#!/usr/bin/env python3
"""A job whose worker is killed in the middle: what it has done already is not done again.

    python steps.py

The first worker charges the card, reserves the goods and is killed with SIGKILL. The second one
goes on from there. A loop over many rows goes on from its checkpoint in the same way, and says how
far it is: `dbbasic-queue list` shows that while it runs.
"""

import os
import signal

from dbbasic_queue import Queue, current_job
from dbbasic_queue.steps import checkpoint, last_checkpoint, progress, progress_of, step


def charge(card):
    print("  the card is charged")
    return {"receipt": "R-" + card[-4:]}


def reserve(article):
    print("  the goods are reserved")
    return 1


def send_mail(to, receipt):
    print(f"  mail to {to}: receipt {receipt}")


def order(payload):
    print(f"attempt {current_job().attempts}")
    paid = step("charge", charge, payload["card"])
    step("reserve", reserve, payload["article"])
    if current_job().attempts == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # the power is cut, say
    step("mail", send_mail, payload["to"], paid["receipt"])


def import_rows(payload):
    first = last_checkpoint() or 0
    print(f"rows from {first} on")
    for row in range(first, payload["rows"]):
        progress(row, payload["rows"], "reading rows")
        if row == 2500 and current_job().attempts == 1:
            raise ConnectionError("the source went away")
        if row % 1000 == 999:
            checkpoint(row + 1)
    progress(payload["rows"], payload["rows"])


HANDLERS = {"order": order, "import": import_rows}

if __name__ == "__main__":
    queue = Queue()
    queue.enqueue("order", {"card": "4000 1234", "article": "lamp", "to": "ada@example.com"})
    if not (child := os.fork()):
        queue.process_jobs(HANDLERS)
    os.waitpid(child, 0)
    print("the worker is dead")
    queue.process_jobs(HANDLERS)

    rows = queue.enqueue("import", {"rows": 5000}, backoff="none")
    queue.process_jobs(HANDLERS)
    print(queue.get(rows).error, "at", progress_of(queue.get(rows)))
    queue.process_jobs(HANDLERS)
    print("now", queue.get(rows).cell("progress"))
