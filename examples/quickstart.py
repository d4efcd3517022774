#!/usr/bin/env python3
"""Three jobs, one tick, and the file before and after it.

    python quickstart.py

It works in a fresh temporary folder and leaves it there, so that you can look around.
"""

import logging
import os
import shlex
import sys
import tempfile
from datetime import timedelta

from dbbasic_queue import enqueue, process_jobs

SHOWN = ("id", "type", "payload", "status", "attempts", "error", "result")


def greet(payload):
    """What a handler returns becomes the job's result."""
    return {"greeting": f"Hello, {payload['name']}!"}


def divide(payload):
    """What a handler raises becomes the job's error."""
    return payload["a"] / payload["b"]


def show(title):
    """Print the file as columns: its lines, split at the tabs."""
    with open("data/queue.tsv", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    places = [rows[0].index(name) for name in SHOWN]
    cells = [[row[place] for place in places] for row in rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(SHOWN))]
    print(f"\n{title}\n")
    for row in cells:
        print("  " + "  ".join(map(str.ljust, row, widths)).rstrip())


def main():
    folder = tempfile.mkdtemp(prefix="queue-")
    os.chdir(folder)
    os.mkdir("logs")
    logging.basicConfig(filename="logs/queue.log", level=logging.INFO)

    enqueue("greet", {"name": "Ana"})
    enqueue("divide", {"a": 1, "b": 0}, max_attempts=1)
    enqueue("greet", {"name": "Ben"}, run_at=timedelta(hours=1))
    show("Three jobs were added, so data/queue.tsv has three lines under its header:")

    process_jobs({"greet": greet, "divide": divide})
    show("One tick later. The first one worked, the second one cannot, the third one is not due:")

    worker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
    here, python, worker = map(shlex.quote, (folder, sys.executable, worker))
    print(f"""
Now try:

  cd {here}
  cat data/queue.tsv
  grep -c pending data/queue.tsv
  grep failed data/queue.tsv
  tail logs/queue.log

and for a tick each minute put such a line into `crontab -e`:

  * * * * * cd {here} && {python} {worker} >> logs/queue.log 2>&1""")


if __name__ == "__main__":
    main()
