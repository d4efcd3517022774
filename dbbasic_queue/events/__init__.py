"""What happens to jobs, for programs: listeners of few words, and `watch`, from another process.

A listener is told by the process that does it, after the commit, and may be missed when that
process dies.  `watch` reads the file and the workers' files: whoever writes them, it sees it.
"""

from .listeners import on_failure as on_failure
from .listeners import only as only
from .watcher import EVENTS as EVENTS
from .watcher import Change as Change
from .watching import awatch as awatch
from .watching import watch as watch
