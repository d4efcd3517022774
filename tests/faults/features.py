"""Features under kills: each by itself, then all of them in one file, then every graph of four."""

import logging
import tempfile
from pathlib import Path

from . import (
    features_cared,
    features_groups,
    features_limits,
    features_schedule,
    features_tasks,
    features_unique,
    graphs,
    together,
    zones,
)
from .killed import MEMORY
from .results import Result

PARTS = {
    "tasks: failed is called": features_tasks,
    "unique keys": features_unique,
    "chains, batches, workflows": features_groups,
    "schedules": features_schedule,
    "limits, pauses, bounds": features_limits,
    "seals, steps, retention": features_cared,
    "all of them in one file": together,
}
CASES = 50  # of each, when bounded; together's are its kills


def campaign(bounded):
    """Yield a Result for each: how many cases, and in the name how many processes were killed."""
    logger = logging.getLogger("dbbasic_queue")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        for name, part in PARTS.items():
            with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
                result = part.run(CASES if bounded else 10 * CASES, Path(folder))
            cases, killed, violations = result
            yield Result(f"{name}; {killed} processes killed", cases, violations)
        yield from graphs.campaign(bounded)
        found = zones.campaign()
        title = f"time zones {found.zones}, changes {found.changes}, slots {found.slots}"
        yield Result(f"{title}; 8 workers, 3 days down, clock back", found.runs, found.violations)
    finally:
        logger.setLevel(level)
