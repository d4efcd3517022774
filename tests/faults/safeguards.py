"""Proof that the campaign notices: without any one safeguard it must find something wrong.

A campaign that finds nothing proves nothing, unless it is known to find what is there.  So one
safeguard at a time is taken away from outside of the package, and its scene is done again.  Here
it is a violation that nothing was noticed.
"""

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import campaign as calls
from . import cuts, power, rivals, sabotage, true_cut
from .results import Result

POSIX, BOTH = ["posix"], list(power.MODELS)


class Call(NamedTuple):
    """Each call of a scene meets one fault: see `campaign`."""

    scene: str
    fault: str

    def found(self, without, path):
        """Return (cases, what was noticed), None where this cannot be tried."""
        if not shutil.which("gcc"):
            return None
        (result,) = calls.campaign(False, [self.scene], without.__name__, self.fault)
        return max(1, result.cases), result.violations  # perhaps seen before the first fault

    def __str__(self):
        return f"{self.scene}, {self.fault}"


class Cut(NamedTuple):
    """The power is cut at each point of a scene: see `cuts`."""

    scene: str
    sync: str
    models: list  # those that must notice it, and no other

    def found(self, without, path):
        results = cuts.results(self.scene, self.sync, cuts.BOUNDED, without)
        seen = [name for name, one in zip(BOTH, results, strict=True) if one.violations]
        noticed = [text for one in results for text in one.violations]
        return sum(one.cases for one in results), noticed if seen == self.models else []

    def __str__(self):
        return f"{self.scene}, sync={self.sync}, cuts"


class TrueCut(NamedTuple):
    """The power of an ext4 is cut while producers work: see `true_cut`."""

    def found(self, without, path):
        if true_cut.refused(path):
            return None
        return true_cut.rounds(path, "normal", "as usual", 3, without)

    def __str__(self):
        return "true power cuts"


class Rivals(NamedTuple):
    """Several meet in one queue: see `rivals`."""

    scene: str
    seen: str  # what must be said of it

    def found(self, without, path):
        cases, problems = rivals.results(self.scene, path / "queues", without)
        return cases, [text for text in problems if self.seen in text]

    def __str__(self):
        return self.scene


# What takes it away, and where that must be noticed.
WITHOUT = [
    # no sync
    (sabotage.the_sync_of_rows, Cut("enqueue", "normal", BOTH)),
    (sabotage.the_sync_of_rows, TrueCut()),
    (sabotage.the_sync_of_the_neighbour, Cut("cancel", "normal", POSIX)),
    (sabotage.the_sync_of_outcomes, Cut("tick", "full", BOTH)),
    (sabotage.the_sync_of_the_archive, Cut("archive", "normal", BOTH)),
    (sabotage.the_error_of_a_sync, Call("enqueue_many", "EIO from")),
    # no folder sync
    (sabotage.the_sync_of_folders, Cut("first use", "normal", POSIX)),
    (sabotage.the_sync_of_folders, Cut("cancel", "normal", BOTH)),
    (sabotage.the_sync_of_the_workers_folder, Cut("tick", "full", POSIX)),
    (sabotage.the_settling_for_the_dead, Cut("cancel killed, enqueue", "normal", POSIX)),
    (sabotage.the_settling_for_the_dead, Cut("first use killed, enqueue", "normal", POSIX)),
    (sabotage.the_settling_of_a_rename, Call("enqueue after an unsettled rename", "killed before")),
    # no look at the last byte, no truncate back, and what else keeps a write whole
    (sabotage.the_look_at_the_last_byte, Call("enqueue behind a torn line", "killed before")),
    (sabotage.the_cut_after_a_failed_append, Call("enqueue", "a short count, then ENOSPC from")),
    (sabotage.the_neighbour_file, Call("retry", "killed after")),
    (sabotage.the_sweep_after_a_killed_edit, Call("cancel", "killed before")),
    (sabotage.the_rows_that_an_archive_has_already, Call("archive", "killed after")),
    (sabotage.the_error_that_the_hint_may_have, Call("purge", "EIO from")),
    # no inode lock, no process mutex
    (sabotage.the_inode_lock, Rivals("a foreign program appends", "lost")),
    (sabotage.the_look_after_the_wait, Rivals("a rename while somebody waits", "lost")),
    (sabotage.the_process_mutex, Rivals("threads share a queue", "perhaps stored")),
    (sabotage.the_release_of_a_lock_after_an_error, Call("enqueue", "ENOSPC from")),
    # no fold of dead journals, no claim number, and what else a worker notes
    (sabotage.the_fold_of_what_the_dead_have_finished, Call("recovery", "killed before")),
    (sabotage.the_claim_number, Rivals("a worker claims a job again", "in the end")),
    (sabotage.the_start_lines, Call("tick", "killed before")),
    (sabotage.the_room_for_outcomes, Call("tick", "ENOSPC for ever from")),
]


def title(without, where):
    return f"{without.__name__.replace('the_', 'no ', 1).replace('_', ' ')}: {where}"


def noticed(without, where):
    """Take a safeguard away; return a Result in which it is a violation that nobody saw it."""
    name = title(without, where)
    with tempfile.TemporaryDirectory(dir=None if where == TrueCut() else cuts.memory()) as folder:
        found = where.found(without, Path(folder))
    if found is None:
        return Result(f"{name}: not possible here", 0, [])
    cases, seen = found
    return Result(name, cases, [] if seen else [f"{name}: not noticed, or not where it must be"])


def campaign(bounded):
    """Yield a Result for each safeguard; before that, for the scenes that no other part does."""
    for name in rivals.SCENES:
        with tempfile.TemporaryDirectory(dir=cuts.memory()) as folder:
            yield Result(name, *rivals.results(name, Path(folder, "queues")))
    for without, where in WITHOUT:
        yield noticed(without, where)
