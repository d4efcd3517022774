"""Limits that hold for all workers on the file: how often jobs start, how many run, how many wait.

`rate` and `concurrency` make functions for `process_jobs(admit=[…])`; give the same ones to every
worker.  A job that may not start stays pending.  What counts is kept in the rows, and for a rate in
`queue.tsv.d/limits/`: nothing leaks when a worker is killed.

Where a limit opens while a tick runs, the job starts at once; a tick does not wait for it: that
does a worker with `run_for`.
"""

from .bound import QueueFull as QueueFull
from .bound import enqueue_bounded as enqueue_bounded
from .pausing import pause as pause
from .pausing import paused as paused
from .pausing import resume as resume
from .starting import concurrency as concurrency
from .starting import rate as rate
