"""What takes a safeguard away from outside of the package, in the process that calls it.

`safeguards` has the table of them, with the scene that must notice each.
"""

import os
import stat
import sys

from dbbasic_queue import disk, files, hint, journal, leave, lock, recover, run


def nothing(*args, **named):
    """What stands in the place of a safeguard."""


# --- of a write


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
    run.Attempt.start_line = lambda self, max_attempts: b""


def the_room_for_outcomes():
    journal.WorkerFile.reserve = lambda self: None


def the_rows_that_an_archive_has_already():
    leave.blocks = lambda fd, start: ()


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

    def only_when_all_is_well(self, **named):
        if sys.exc_info()[0] is None:
            release(self, **named)

    lock.Lock.release = only_when_all_is_well


# --- of what a power cut leaves


def the_sync_of_the_neighbour():
    real = os.fsync
    os.fsync = lambda fd: None if stat.S_ISREG(os.fstat(fd).st_mode) else real(fd)


def the_sync_of_folders():
    disk.sync_folder = disk.sync_path = nothing


def the_settling_for_the_dead():
    disk.QueueFile.settle_rename = nothing


def the_sync_of_rows():
    disk.sync = nothing


def the_sync_of_outcomes():
    journal.sync = nothing


def the_sync_of_the_workers_folder():
    journal.sync_folder = nothing


def the_sync_of_the_archive():
    leave.sync = nothing


# --- of who may be there at once


def the_inode_lock():
    """Only the neighbour queue.tsv.lock is taken."""
    wait = lock.Lock._wait_for

    def wait_for_the_neighbour(self, fd, timeout):
        if fd != self.fd:
            wait(self, fd, timeout)

    lock.Lock._wait_for = wait_for_the_neighbour
    disk.try_lock = lambda fd: True


def the_look_after_the_wait():
    """Whoever waited goes on with the file that it had opened before."""

    def still_there(self, **named):
        self.seen = os.fstat(self.fd)
        return True

    lock.Lock._still_there = still_there


def the_process_mutex():
    class Nobodys:
        def acquire(self, **named):
            return True

        release = nothing

    make = lock._Turn.__init__

    def make_without(self, real):
        make(self, real)
        self.mutex = Nobodys()

    lock._Turn.__init__ = make_without


def the_claim_number():
    """Each claim of a worker is its first."""
    journal.WorkerFile.k = property(lambda worker: 0, nothing)
