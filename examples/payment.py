#!/usr/bin/env python3
"""Charge a card exactly once, although a job may run more than once.

    python payment.py A-1001 4200 tok_visa      add a job (order, cents, card), then run a tick
    python payment.py                           run a tick

A worker can die after the charge and before it is written down; then the job runs again. The
job's id is the same in each attempt, so it goes along as the key by which the payment gateway
($PAYMENT_GATEWAY) knows the charge again. The payload holds a token, never a card number:
everyone who may read the file reads it.
"""

import json
import os
import sys
import urllib.error
import urllib.request

from dbbasic_queue import Discard, Retry, current_job, enqueue, get_job, process_jobs


def charge(payload):
    request = urllib.request.Request(
        os.environ.get("PAYMENT_GATEWAY", "http://localhost:8402") + "/charges",
        data=json.dumps(payload).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": current_job().id},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 402:  # declined: to ask again would change nothing
            raise Discard(error.read().decode()) from None
        if error.code in (429, 503):  # busy: it says itself when to come back
            raise Retry(after=int(error.headers.get("Retry-After", 60))) from None
        raise


HANDLERS = {"charge": charge}

if __name__ == "__main__":
    ids = []
    if sys.argv[1:]:
        order, cents, card = sys.argv[1:]
        payload = {"order": order, "cents": int(cents), "card": card}
        ids.append(enqueue("charge", payload, max_attempts=10))
    process_jobs(HANDLERS)
    for job in map(get_job, ids):
        print(job["id"], job["status"], job["error"] or job["result"] or "")
