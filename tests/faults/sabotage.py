"""Safeguards that can be taken away, to show that the campaign notices."""

import os
import sys

from dbbasic_queue import archive, disk, files, hint, journal, lock, recover


def the_cut_after_a_failed_append():
    disk.QueueFile._cut_back = lambda self, size: None


def the_look_at_the_last_byte():
    def end(self):
        return self._lock.seen, files.last_line(self.fd, self._lock.seen.st_size)

    disk.QueueFile.end = end


def the_neighbour_file():
    def in_place(self, pieces, seen):
        with open(self.path + ".d/new", "w+b") as new:
            self.write(pieces, new.fileno())
            new.seek(0)
            data = new.read()
        os.unlink(self.path + ".d/new")
        os.ftruncate(self.fd, 0)
        files.write_all(self.fd, data)
        os.fsync(self.fd)

    disk.QueueFile.replace = in_place


def the_sweep_after_a_killed_edit():
    disk.QueueFile._sweep = lambda self, folder: None


def the_error_of_a_sync():
    def sync(fd):
        try:
            os.fdatasync(fd)
        except OSError:
            return

    disk.sync = sync


def the_settling_of_a_rename():
    disk.QueueFile.settle_rename = lambda self: None


def the_fold_of_what_the_dead_have_finished():
    read = recover.Dead.read

    def without_ends(self):
        good = read(self)
        self.lines = [line for line in self.lines if line.event != "end"]
        return good

    recover.Dead.read = without_ends


def the_start_lines():
    journal.start_line.__code__ = (lambda job, max_attempts: b"").__code__


def the_room_for_outcomes():
    journal.WorkerFile.reserve = lambda self: None


def the_rows_that_an_archive_has_already():
    archive.blocks = lambda fd, start: ()


def the_error_that_the_hint_may_have():
    read = hint.read

    def or_raise(side):
        if os.path.exists(side + "/hint"):
            with open(side + "/hint", "rb") as file:
                file.read()
        return read(side)

    hint.read = or_raise


def the_release_of_a_lock_after_an_error():
    release = lock.Lock.release

    def only_when_all_is_well(self):
        if sys.exc_info()[0] is None:
            release(self)

    lock.Lock.release = only_when_all_is_well


# What is missing: what takes it away, the scene, and the fault after which it must be seen.
WITHOUT = {
    "the cut after a failed append": (
        the_cut_after_a_failed_append, "enqueue", "a short count, then ENOSPC from",
    ),
    "the look at the last byte": (
        the_look_at_the_last_byte, "enqueue behind a torn line", "killed before",
    ),
    "the neighbour file": (the_neighbour_file, "retry", "killed after"),
    "the sweep after a killed edit": (the_sweep_after_a_killed_edit, "cancel", "killed before"),
    "the error of a sync": (the_error_of_a_sync, "enqueue_many", "EIO from"),
    "the settling of a rename": (
        the_settling_of_a_rename, "enqueue after an unsettled rename", "killed before",
    ),
    "the fold of what the dead have finished": (
        the_fold_of_what_the_dead_have_finished, "recovery", "killed before",
    ),
    "the start lines": (the_start_lines, "tick", "killed before"),
    "the room for outcomes": (the_room_for_outcomes, "tick", "ENOSPC for ever from"),
    "the rows that an archive has already": (
        the_rows_that_an_archive_has_already, "archive", "killed after",
    ),
    "the error that the hint may have": (the_error_that_the_hint_may_have, "purge", "EIO from"),
    "the release of a lock after an error": (
        the_release_of_a_lock_after_an_error, "enqueue", "ENOSPC from",
    ),
}  # fmt: skip
