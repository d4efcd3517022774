"""An audit trail, for whoever asks for one: a line for each move of each job, in a file that only
grows.

`queue.tsv.d/audit.tsv`; each line holds a hash of the line before it, so that what was changed or
taken out later is found.  Payloads and results are not in it.  It is never cut: to put a part of it
aside, rename it to audit-2030-01.tsv, say; `chattr +a` lets nobody but root do more than add to it.
"""

from .completing import complete as complete
from .file import Entry as Entry
from .file import audit_path as audit_path
from .file import history as history
from .file import read as read
from .file import verify as verify
from .trail import trail as trail
