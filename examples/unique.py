#!/usr/bin/env python3
"""One job of a key at a time: many ask for the same, and it is done once.

    python unique.py

The key stands in the row of the job that has it, and nowhere else: when that job has ended,
the key is free. With `seconds=` the result then serves as a cache; with `replace=True` a job
that waits is put off by each call, until nobody calls any more.
"""

from datetime import timedelta

from dbbasic_queue import Queue, get_job, process_jobs
from dbbasic_queue.unique import enqueue_unique


def index_document(payload):
    print(f"document {payload['document']} is indexed")


def count_orders(payload):
    print("the orders are counted")
    return {"orders": 17}


def save_draft(payload):
    print(f"draft {payload['draft']!r} is saved")


HANDLERS = {
    "index_document": index_document,
    "count_orders": count_orders,
    "save_draft": save_draft,
}


def document_of(payload):
    return f"document-{payload['document']}"


if __name__ == "__main__":
    # Three changes of two documents: two jobs.
    for document in (7, 8, 7):
        enqueue_unique("index_document", {"document": document}, key=document_of)

    # Whoever asks within an hour gets the id of the same job, and its result.
    first = enqueue_unique("count_orders", key="all", seconds=3600)
    process_jobs(HANDLERS)
    again = enqueue_unique("count_orders", key="all", seconds=3600)
    print(first == again, get_job(again)["result"])

    # Saved a moment after the last keystroke, and only once.
    for draft in ("H", "He", "Hello"):
        saved = enqueue_unique(
            "save_draft", {"draft": draft}, timedelta(seconds=5), key="draft-1", replace=True
        )
    print(get_job(saved)["payload"])
    print(Queue().counts("status"))
