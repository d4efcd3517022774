"""Hand due jobs over to an engine elsewhere, and take in what became of them, in one edit.

A row that an engine has says `processing`, with a worker like `@celery.K`: no worker here claims it
or takes its worker for dead.  K rises from claim to claim, so what is told of an older one changes
nothing.  `run` is the other side: one attempt, as a worker here would make it.
"""

from ..new import new_job as new  # a job that is in no file yet
from ..options import Options
from .handing import Engine, marked
from .leaving import Wanted, remove
from .running import as_cells, as_job, died, run

__all__ = [
    "Engine",
    "Options",
    "Wanted",
    "as_cells",
    "as_job",
    "died",
    "marked",
    "new",
    "remove",
    "run",
]
