"""Paused queues: their labels in `queue.tsv.d/paused`, which the claim of every worker heeds."""

import os

from .. import admit
from ..after import is_label
from ..beside import replace
from ..edit import Edit
from ..errors import BadArgument, QueueError
from ..files import sync_folder, unlink_if_there
from ..here import queue_here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..disk import QueueFile
    from ..queue import Queue


def pause(label: str, queue_file: "Queue | None" = None) -> bool:
    """Let no worker claim a job of this queue, until `resume`; False when it was paused already.

    When this returns, nothing further is claimed; what is claimed runs, or goes back within a
    second.  Jobs can be added all the time.  QueueError when there is no queue file yet.
    """
    return _change(label, queue_here(queue_file), pausing=True)


def resume(label: str, queue_file: "Queue | None" = None) -> bool:
    """Let workers claim jobs of this queue again; False when it was not paused.

    A worker that waits looks within a second.
    """
    return _change(label, queue_here(queue_file), pausing=False)


def paused(queue_file: "Queue | None" = None) -> list[str]:
    """Return the labels of the queues that are paused, sorted."""
    return sorted(admit.paused(queue_here(queue_file).file))


def _change(label: str, queue: "Queue", *, pausing: bool) -> bool:
    if not is_label(label):
        raise BadArgument(f"label={label!r:.80}: a queue is 1 to 100 letters, digits, _ . or -")
    with Edit(queue.file, queue.lock_timeout, create=False) as e:
        if not e.exists and pausing:
            raise QueueError(f"{queue.path}: there is no queue yet; the first enqueue makes it")
        labels = admit.paused(queue.file)
        if not e.exists or (label in labels) == pausing:
            return False
        try:
            _store(queue.file, sorted(labels ^ {label}))
        except OSError as error:
            path = queue.file.side + "/paused"
            raise QueueError(f"{path}: not changed: {error.strerror}") from error
    return True


def _store(file: "QueueFile", labels: list[str]) -> None:
    """Put a file with these labels in the place of the old one; without labels there is none."""
    folder = file.make_side()
    path = os.path.join(folder, "paused")
    if labels:
        replace(path, "".join(label + "\n" for label in labels).encode(), file.real)
    else:
        unlink_if_there(path)
    sync_folder(folder)
