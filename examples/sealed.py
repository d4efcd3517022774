#!/usr/bin/env python3
"""Jobs that nobody reads in the file, jobs that nobody changes there, fields that no view shows.

    pip install 'dbbasic-queue[crypto]'
    export DBBASIC_QUEUE_KEY=$(dbbasic-queue new-key)      keep it apart from the queue
    python sealed.py

In earnest the key comes from the environment of your application and of its worker alone: whoever
has the file, or a backup of it, has no key.  Without the variable this example makes one, and only
what it adds itself can be opened.
"""

import os

from dbbasic_queue import Queue, crypt, enqueue, process_jobs, redact, sign
from dbbasic_queue.show import document
from dbbasic_queue.tasks import handlers, task

# --- sealed: the handler sees what the file does not


def report(payload):
    print(f"report for patient {payload['patient']}")
    return {"pages": 3, "patient": payload["patient"]}


def pay(payload):
    print(f"pays {payload['cents']} cents")


@task(sealed=True)
def welcome(name, password):
    print(f"welcome {name}")
    if len(password) < 12:
        raise ValueError(f"{password} is too short")


if __name__ == "__main__":
    os.environ.setdefault("DBBASIC_QUEUE_KEY", crypt.new_key())
    queue = Queue()

    sealed = crypt.enqueue_sealed("report", {"patient": "Ana Lima"})
    signed = sign.enqueue_signed("pay", {"order": "A-1002", "cents": 4200})
    forged = enqueue("pay", {"order": "A-1003", "cents": 990_000})
    broken = welcome.using(max_attempts=1).enqueue("Ana", "tulip-4711")
    # These types run sealed only, that one signed only, whoever adds a row.
    process_jobs({"report": report, **handlers}, middleware=[crypt.unsealing(all=True)])
    process_jobs({"pay": pay}, middleware=[sign.verifying()])

    job = queue.get(sealed)
    print(f"in the file: {', '.join(job.result)}; with the key: {crypt.opened(job).result}")
    print(f"signed: {queue.get(signed).status}")
    print(f"not signed: {queue.get(forged).status}, {queue.get(forged).error}")
    print(f"the error: {crypt.opened(queue.get(broken)).error}")
    text = open(queue.path, encoding="utf-8").read()
    print(f"in plain in the file: {[word for word in ('Ana', 'tulip', 'A-1002') if word in text]}")

    # --- a new key: it goes first, the old one stays until nothing is left that needs it

    old, new = os.environ["DBBASIC_QUEUE_KEY"], crypt.new_key()
    resealed, left = crypt.reseal([new, old])
    print(f"resealed {resealed}, left {left}: {crypt.opened(queue.get(sealed), new).result}")

    # --- only out of sight: plain in the file, *** for whoever looks

    hidden = enqueue("mail", {"to": "ana@example.com", "token": "tk-81f0"},
                     columns=redact.sensitive("token"))  # fmt: skip
    print(document(queue.get(hidden))["payload"])
