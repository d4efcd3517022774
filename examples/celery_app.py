"""The same handlers on any number of machines: Celery runs them, the queue file keeps the say.

    pip install 'dbbasic-queue[celery]'

On each machine that is to run jobs:

    celery -A celery_app worker --queues celery,high --concurrency 8

On the machine that has the queue file, a line of its crontab:

    * * * * * cd /srv/app && .venv/bin/dbbasic-queue forward celery_app:bridge --for 55

`enqueue` writes to the file as before.  A tick hands over what is due, in order, as messages whose
task id is the job's id; results, errors and attempts come back into the rows.  What is scheduled,
waits for other jobs or is to be tried again stays in the file until it is due: no message waits in
Redis for a time.  An id that runs, or has run, is refused, so a message that is delivered twice
does no harm.  A worker that dies costs its job an attempt, as here; one of whose jobs nothing is
heard for `lease` seconds, and half as long again, is dead.

    dbbasic-queue list --status processing       the rows of Celery's jobs say @celery
    dbbasic-queue forward celery_app:bridge --cancel ID    while no worker has begun it
    dbbasic-queue forward celery_app:bridge --recall       all that no worker has begun

A Celery worker throws a message away whose type it does not know; such a job is sent again after
ten minutes (`again=`).  So start new workers first, then the forwarder that knows the new type.

A Redis that loses everything gets what waits again from the file, and what runs just then may run
twice; what was added straight to Celery is lost with it.  A broker of another kind needs a
`socket_timeout` in its `broker_transport_options`, or a silent one holds the forwarder.  Signed and
sealed jobs stay here: whether one has run is looked up in the file.

Move one type at a time with `types=["image"]`, or one queue with `queues=["high"]`; a worker here
must not have handlers for what has moved.  Schedules stay here: keep a worker for them.

Programs on other machines add jobs straight to Celery: `bridge.enqueue("image", {...})` takes the
words of `enqueue`, but for `after` and `group`; `bridge.get(id)` and `bridge.cancel(id)` go with
it.  A handler that runs in Celery adds further jobs so, too.  And when the file has done its part:

    dbbasic-queue graduate --to redis://host:6379/0 --dry-run
"""

import os

from celery import Celery

from dbbasic_queue.contrib.celery import Bridge

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
app = Celery("jobs", broker=URL, backend=URL)
app.conf.worker_prefetch_multiplier = 1  # a worker that dies holds no further messages


def image(payload: dict) -> str:
    return f"resized {payload['path']}"


bridge = Bridge(app, {"image": image}, timeout=600)

if __name__ == "__main__":
    print("sent", bridge.enqueue("image", {"path": "cat.png"}))
