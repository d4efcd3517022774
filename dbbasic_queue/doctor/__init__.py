"""What is wrong with a queue, and how to mend it.  Looking changes no row; only `mend` does.

examine(queue)  -> findings, each with a level, a text and, where there is one, a remedy
mend(queue)     -> what was done: bad lines moved out, dead workers taken in, leftovers removed
"""

from ..queue import Queue, default_queue
from .finding import NOTE as NOTE
from .finding import OK as OK
from .finding import PROBLEM as PROBLEM
from .finding import UNKNOWN as UNKNOWN
from .finding import Finding as Finding
from .lines import Lines, look_at_file
from .mending import mend as mend
from .places import look_at_cron, look_at_mount, look_at_permissions
from .workers import look_at_leftovers, look_at_lock, look_at_pauses, look_at_workers


def examine(queue_file: Queue | None = None) -> list[Finding]:
    """Look at everything about a queue, in the order in which one trouble explains the next."""
    queue = queue_file or default_queue()
    seen = Lines()
    findings = list(look_at_file(queue, seen))
    if seen.is_queue:
        findings += look_at_permissions(queue)
        findings += look_at_mount(queue)
        findings += look_at_lock(queue, seen)
        findings += look_at_workers(queue, seen)
        findings += look_at_pauses(queue, seen)
        findings += look_at_leftovers(queue)
    return [*findings, *look_at_cron(queue)]
