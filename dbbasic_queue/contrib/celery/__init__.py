"""The same handlers on any number of machines: Celery runs them, the queue file keeps the say.

    app = Celery("jobs", broker="redis://host/0", backend="redis://host/0")
    bridge = Bridge(app, handlers)

`celery -A jobs worker` runs them anywhere, `dbbasic-queue forward jobs:bridge` each minute hands
over what is due.  Needs the extra `celery`: pip install 'dbbasic-queue[celery]'.
"""

from .bridge import Bridge, Tick
from .graduation import Report, graduate

__all__ = ["Bridge", "Report", "Tick", "graduate"]
