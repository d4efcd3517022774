"""Layers around a run, for `process_jobs(middleware=[…])` and `@task(middleware=[…])`.

The first one in the list is the outermost.  `errors_kept` and `traceback_kept` are layers; the
others are called, and return one.  Each also works where async handlers run side by side
(`concurrency` above 1); `layer_of` makes such a layer of a function of your own.
"""

from ..layers import layer_of as layer_of
from .keeping import errors_kept as errors_kept
from .keeping import errors_of as errors_of
from .limiting import limited as limited
from .permissions import authorized as authorized
from .permissions import needs as needs
from .permissions import permitted as permitted
from .profiling import profiled as profiled
from .rules import retrying as retrying
from .telling import logged as logged
from .telling import timed as timed
from .throttling import throttled as throttled
from .tracing import kept_traceback as kept_traceback
from .tracing import traceback_kept as traceback_kept
