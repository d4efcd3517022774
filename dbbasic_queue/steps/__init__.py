"""Durable steps, a checkpoint and the progress of a job: what it has done already stays done.

    def order(payload):
        paid = step("charge", charge, payload["card"])     # once, also when the worker is killed
        step("mail", send_mail, payload["to"], paid["receipt"])

Each is a line in the worker's file, and reaches the row with the outcome, or when the worker died:
columns `steps`, `checkpoint`, `progress`.  A kill loses none; a power cut perhaps the last ones,
unless the queue has `sync="full"`.  The first two hold the id of their job: a copy of it
(`retry(id, copy=True)`) begins anew, a retry of the job itself goes on.  Where no job runs, as in
a test that calls the handler, `step` calls and the others do nothing.  A thread that the handler
starts knows its job when it runs in a copy of its context, as `asyncio.to_thread` does it.

The cell `steps` is written whole at each step.  With results of 20 characters, 10 steps cost 0.4
ms and 3 KB in the worker's file, 100 cost 5 ms and 0.2 MB, 1,000 (the limit) 0.4 s and 18 MB.  So
tens of steps are sensible; for the turns of a loop there is `checkpoint`.
"""

from .once import checkpoint as checkpoint
from .once import last_checkpoint as last_checkpoint
from .once import step as step
from .progressing import Progress as Progress
from .progressing import progress as progress
from .progressing import progress_of as progress_of
