#!/usr/bin/env python3
"""Many tenants on one machine: a queue file, an owner and a key for each of them.

    python tenants.py

A tenant is a folder. What one of them holds up, fills or breaks is its own file: no lock, limit,
pause or backup is shared. Its folder is open to its user only (0700) and the files in it to user
and group (0660). Give each folder to a user of its own (`chown -R shop-a tenants/shop-a`) and run
its worker as that user, one line of its crontab:

    * * * * *  cd /app && python -c 'import tenants; tenants.work("shop-a")'

With the feature `crypt`, payloads are sealed by the tenant's own key ($TENANT_KEYS/NAME.key), which
only the worker and the application can read: a copy of the folder tells nothing.
"""

import os
import re
from pathlib import Path

from dbbasic_queue import Queue
from dbbasic_queue.errors import BadArgument

try:
    from dbbasic_queue import crypt
except ImportError:  # a release without it
    crypt = None

TENANTS = Path(os.environ.get("TENANTS", "data/tenants"))
KEYS = os.environ.get("TENANT_KEYS")
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)  # as a label of a host name
SETTINGS = {  # of each queue in a tenant's file
    "mail": {"rank": 1, "max_attempts": 8, "backoff": "exponential:60:3600:jitter"},
    "default": {"rank": 2, "timeout": 600},
}


def folder_of(tenant):
    """Return the folder of a tenant; the name is checked before it becomes a path."""
    if not isinstance(tenant, str) or not NAME.fullmatch(tenant):
        raise BadArgument(f"tenant={tenant!r:.80}: a name is 1 to 63 of a-z, 0-9 and -")
    folder = TENANTS / tenant
    if folder.is_symlink():
        raise BadArgument(f"{folder} is a link: a tenant's folder is a folder")
    return folder


def add_tenant(tenant):
    """Make the folder and the empty file of a new tenant; nothing happens when they are there."""
    folder = folder_of(tenant)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    os.close(os.open(folder / "queue.tsv", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o660))
    (folder / "queue.tsv").chmod(0o660)  # all that is made beside it gets this mode and owner


def queue_of(tenant):
    """Return the queue of a tenant; who is no tenant gets an error and no file."""
    folder = folder_of(tenant)
    if not (folder / "queue.tsv").exists():
        raise BadArgument(f"tenant={tenant!r}: there is no such tenant")
    return Queue(folder / "queue.tsv")


def keys_of(tenant):
    """Return the keys of a tenant, the newest first; None where payloads are not sealed."""
    if crypt is None or KEYS is None:
        return None
    folder_of(tenant)  # checks the name
    return Path(KEYS, f"{tenant}.key").read_text(encoding="ascii").split()


def enqueue(tenant, job_type, payload=None, **arguments):
    """Add a job for a tenant, sealed where it has a key."""
    queue, keys = queue_of(tenant), keys_of(tenant)
    if keys is None:
        return queue.enqueue(job_type, payload, **arguments)
    return crypt.enqueue_sealed(job_type, payload, keys=keys, queue_file=queue, **arguments)


def work(tenant, handlers=None):
    """Make one tick for a tenant: its jobs, its settings, its key, its upkeep."""
    keys = keys_of(tenant)
    queue_of(tenant).process_jobs(
        HANDLERS if handlers is None else handlers,
        settings=SETTINGS,
        middleware=[] if keys is None else [crypt.unsealing(keys)],
        keep={"completed": "7d", "failed": "90d", "archive": "365d"},
        max_workers=1,
        name=tenant,
    )


def send_mail(payload):
    print(f"mail to {payload['to']}")


def report(payload):
    print(f"report of {payload['month']}")


HANDLERS = {"send_mail": send_mail, "report": report}


if __name__ == "__main__":
    for tenant in ("shop-a", "shop-b"):
        add_tenant(tenant)
        enqueue(tenant, "report", {"month": "2025-01"})
        enqueue(tenant, "send_mail", {"to": f"owner@{tenant}.example"}, queue="mail")
    try:
        enqueue("../shop-b", "report", {"month": "2025-02"})
    except BadArgument as refused:
        print(refused)

    work("shop-a")
    for tenant in ("shop-a", "shop-b"):
        print(tenant, queue_of(tenant).counts())
