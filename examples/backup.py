#!/usr/bin/env python3
"""Back up a folder as a job, and the queue itself.

    python backup.py uploads            into ./backups
    python backup.py                    the same with the folder of this file

The queue's own backup is taken under its lock and holds every outcome so far: put back in
place of data/queue.tsv, it runs no finished job again. A plain copy of a busy queue lacks what
its workers have finished in the last second.
"""

import os
import sys
import tarfile
from datetime import date

from dbbasic_queue import Queue


def backup_data(payload):
    """Pack a folder into a .tar.gz, which is there whole or not at all."""
    source, destination = payload["source"], payload["destination"]
    os.makedirs(os.path.dirname(destination), exist_ok=True)
    with tarfile.open(destination + ".part", "w:gz") as archive:
        archive.add(source, arcname=os.path.basename(source))
    os.replace(destination + ".part", destination)
    return {"destination": destination, "bytes": os.path.getsize(destination)}


HANDLERS = {"backup_data": backup_data}

if __name__ == "__main__":
    source = os.path.abspath(sys.argv[1] if sys.argv[1:] else os.path.dirname(__file__))
    folder = os.path.abspath("backups")
    name = f"{os.path.basename(source)}-{date.today()}.tar.gz"
    queue = Queue()
    job_id = queue.enqueue(
        "backup_data", {"source": source, "destination": os.path.join(folder, name)}
    )
    queue.process_jobs(HANDLERS)
    job = queue.get(job_id)
    print(job.status, job.error or job.result)

    # Not a job: in a copy taken by a job, that job would still be running.
    copy = os.path.join(folder, f"queue-{date.today()}.tsv")
    queue.backup(copy)
    print(copy)
