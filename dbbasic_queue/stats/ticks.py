"""The strip of minutes: when ticks ran, as the file `tick` says: a line for each minute."""

import os
import time

from ..queue import Queue, default_queue

SILENT = 180  # seconds without a tick: three that cron should have started
_DAY = 86400
_LINE = 32  # bytes


def ticks(queue_file: "Queue | None" = None) -> list[tuple[int, int]]:
    """Return (Unix time, jobs run) of each minute of the last day in which a tick ran, in order."""
    file = queue_file or default_queue()
    try:
        with open(file.file.side + "/tick", "rb") as strip:
            lines = strip.read(1440 * _LINE)
    except OSError:
        return []
    fields = [lines[at : at + _LINE].split() for at in range(0, len(lines), _LINE)]
    now = time.time()
    whole = [(int(one[0]), int(one[1])) for one in fields if len(one) == 2 and _digits(one)]
    return sorted((at, jobs) for at, jobs in whole if now - _DAY < at <= now + 60)


def _digits(fields: list[bytes]) -> bool:
    return all(field.isdigit() for field in fields)


def last_tick_age(queue_file: "Queue | None" = None) -> float | None:
    """Return the seconds since a tick ended, None when none has."""
    file = queue_file or default_queue()
    try:
        return round(max(0.0, time.time() - os.stat(file.file.side + "/tick").st_mtime), 3)
    except OSError:
        return None
