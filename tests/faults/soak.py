"""Many at once, for long: all who work on a queue are killed, stopped, robbed of files at random.

SCENARIOS says who plays and what befalls them; `soak_verdict` judges by what each was told.
"""

import fcntl
import importlib
import logging
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from dbbasic_queue.errors import QueueError

from . import reader
from .children import Children
from .results import Result
from .roles import NEVER_FAILS, Place, be
from .soak_verdict import Verdict

IMPORTED = ["filelock", *(f"dbbasic_queue.{name}" for name in "archive control pool".split())]
WORK = ("ticks", "stays", "pool")


class Scenario(NamedTuple):
    """Who plays, what befalls them how often, and for how many seconds."""

    roles: dict
    mishaps: dict  # a name in MISHAPS -> its weight
    pause: float  # seconds between two of them, at most
    share: float  # of the time of a campaign


SCENARIOS = {
    "kills": Scenario(
        {"producer": 2, "ticks": 1, "stays": 1},
        {"kill": 40, "kill all": 1},
        0.03,
        0.15,
    ),
    "pools": Scenario(
        {"producer": 1, "pool": 2},
        {"kill a worker": 10, "kill": 1, "end a job": 4},
        0.2,
        0.25,
    ),
    "everything": Scenario(
        {"producer": 2, "ticks": 1, "stays": 1, "pool": 1, "changes": 1, "edits": 1, "looks": 1},
        {
            "kill": 8, "kill all": 1, "kill a worker": 6, "end a job": 2, "ask to stop": 2,
            "stop": 4, "stop the holder": 4,
            "delete the lock": 3, "delete the workers": 2, "delete the side": 2,
            "delete the hint": 2,
        },
        0.15,
        0.6,
    ),
}  # fmt: skip


class Soak:
    """One run of a scenario: who lives, and what has befallen whom."""

    def __init__(self, path, name, seed):
        self.place = Place(path)
        self.scenario = SCENARIOS[name]
        self.chance = random.Random(seed)
        self.seed = seed
        self.queue = self.place.queue(lock_timeout=0.2)
        self.living = dict.fromkeys(
            (role, number) for role, count in self.scenario.roles.items() for number in range(count)
        )
        self.sessions = {}  # of each that was ever started: its role
        self.lives = Counter()
        self.stopped = {}  # pid -> until when
        self.done = Counter()
        self.verdict = Verdict(self.place)
        self.zombies = Counter()

    def run(self, seconds):
        """Let it go on for so many seconds; return the verdict."""
        for name in IMPORTED:  # once, and not by each of the thousand that are forked
            importlib.import_module(name)
        with Children() as children:
            try:
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    self.start_the_dead(children)
                    self.let_go_on()
                    self.look_for_zombies()
                    if sum(self.done.values()) % 100 == 99:
                        self.verdict.digest()
                    mishaps = self.scenario.mishaps
                    (name,) = self.chance.choices(list(mishaps), mishaps.values())
                    self.done[name] += bool(MISHAPS[name](self))
                    time.sleep(self.chance.random() * self.scenario.pause)
            finally:
                self.end_all()
        with Children() as children:
            drain = children.start(drained, self.place)
            said = drain.hear_all(180)
            assert drain.wait() == 0, "\n".join(said)
        return self.verdict.of(self.done)

    def start_the_dead(self, children):
        for (role, number), child in self.living.items():
            if child is None or child.ended:
                self.lives[role, number] += 1
                life = self.lives[role, number]
                child = children.start(be, self.place, role, number, life, self.seed)
                self.living[role, number] = child
                self.sessions[child.pid] = role

    def end_all(self):
        for _ in range(100):
            pids = [pid for pid, _ in self.processes()]
            if not pids:
                return
            for pid in pids:
                self.send(pid, signal.SIGKILL)
            time.sleep(0.02)
            _ = [child.ended for child in self.living.values() if child]  # asks how it ended
        raise AssertionError("they do not die")

    # --- mishaps: each returns whether it has happened

    def kill(self):
        """Kill one that we have started, a supervisor too."""
        pids = [child.pid for child in self.living.values() if not child.ended]
        return bool(pids) and self.send(self.chance.choice(pids), signal.SIGKILL)

    def kill_all(self):
        pids = [child.pid for child in self.living.values() if not child.ended]
        return any([self.send(pid, signal.SIGKILL) for pid in pids])

    def kill_a_worker(self):
        """Kill one that a supervisor has started."""
        pids = [pid for pid, role in self.processes() if role == "pool"]
        pids = [pid for pid in pids if pid not in self.sessions]
        return bool(pids) and self.send(self.chance.choice(pids), signal.SIGKILL)

    def stop(self):
        """Stop one for a while: perhaps it holds the lock."""
        pids = [pid for pid, role in self.processes() if pid not in self.stopped]
        if not pids:
            return False
        pid = self.chance.choice(pids)
        self.stopped[pid] = time.monotonic() + self.chance.choice([0.05, 0.2, 0.5, 2.0])
        return self.send(pid, signal.SIGSTOP)

    def stop_the_holder(self):
        """Stop the one that has the lock now, and perhaps delete the lock under it."""
        lock = Path(f"{self.place.file}.lock")
        for _ in range(50):
            inode = str(lock.stat().st_ino) if lock.exists() else ""
            held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
            pids = {int(one[4]) for one in held if one[5].rpartition(":")[2] == inode}
            pids &= {pid for pid, _ in self.processes()} - self.stopped.keys()
            if pids:
                pid = pids.pop()
                self.stopped[pid] = time.monotonic() + self.chance.choice([0.1, 0.4, 1.5])
                sent = self.send(pid, signal.SIGSTOP)
                return sent and (self.chance.random() < 0.5 or self.delete_the_lock())
        return False

    def let_go_on(self):
        for pid, until in list(self.stopped.items()):
            if time.monotonic() >= until:
                del self.stopped[pid]
                self.send(pid, signal.SIGCONT)

    def ask_to_stop(self):
        """SIGTERM, once in a life: the running job is finished, the rest goes back."""
        children = [
            child
            for (role, _), child in self.living.items()
            if role in WORK and child.pid not in self.verdict.asked and not child.ended
        ]
        if not children:
            return False
        pid = self.chance.choice(children).pid
        self.verdict.asked.add(pid)
        return self.send(pid, signal.SIGTERM)

    def end_a_job(self):
        try:
            running = [id for one in self.queue.workers() for id in one.jobs]
            id = self.chance.choice(running) if running else ""
            self.verdict.ended_on_request.add(id)
            return bool(id) and self.queue.kill(id)
        except QueueError:  # busy, or the folder has just been deleted
            return False

    def delete_the_lock(self):
        Path(f"{self.place.file}.lock").unlink(missing_ok=True)
        return True

    def delete_the_hint(self):
        self.place.side.joinpath("hint").unlink(missing_ok=True)
        return True

    def delete_the_workers(self):
        return self.delete(self.place.side / "workers")

    def delete_the_side(self):
        """Delete queue.tsv.d; what is in the archive is kept elsewhere before."""
        with open(self.place.path / "quiet", "a") as quiet:
            try:
                fcntl.flock(quiet, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False  # something is being archived
            for month in self.place.side.glob("archive/*.tsv"):
                shutil.copy(month, self.place.path / "kept" / f"{time.monotonic_ns()}.tsv")
            return self.delete(self.place.side)

    def delete(self, folder):
        with self.verdict.deletion():
            for _ in range(20):
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    break
        return True

    # --- who is there

    def processes(self):
        """Return (pid, role) of all that live in the sessions of those that we have started."""
        found = []
        for pid, state, _, session in processes_by_proc():
            if session in self.sessions and state != "Z":
                found.append((pid, self.sessions[session]))
        return found

    def send(self, pid, number):
        """Send a signal to a process of ours; False when it has gone."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if os.getsid(pid) not in (*self.sessions, os.getsid(0)):
                return False  # somebody else has the number now
            dead = [pid, *self.stopped_below(pid)] if number == signal.SIGKILL else []
            at = time.monotonic()
            signal.pidfd_send_signal(fd, number)
            self.verdict.kills += [(one, at) for one in dead]
            self.place.note("chaos", signal.Signals(number).name, pid=pid)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)

    def stopped_below(self, pid):
        """The stopped workers of a supervisor: the kernel sends them SIGHUP when it dies."""
        below = [one for one, _, parent, _ in processes_by_proc() if parent == pid]
        return self.stopped.keys() & below

    def look_for_zombies(self):
        """A supervisor that runs asks soon how its workers have ended."""
        parents = {
            child.pid
            for (role, _), child in self.living.items()
            if role == "pool" and child.pid not in self.stopped
        }
        found = [
            pid
            for pid, state, parent, _ in processes_by_proc()
            if state == "Z" and parent in parents
        ]
        self.zombies = Counter({pid: self.zombies[pid] + 1 for pid in found})
        if max(self.zombies.values(), default=0) > 60:
            self.verdict.violations.append("a zombie stays")


MISHAPS = {name: getattr(Soak, name.replace(" ", "_")) for name in SCENARIOS["everything"].mishaps}


def processes_by_proc():
    """Return (pid, state, parent, session) of every process."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stat:
                    fields = stat.read().rpartition(") ")[2].split()
            except OSError:
                continue
            found.append((int(name), fields[0], int(fields[1]), int(fields[3])))
    return found


def drained(say, place):
    """Run all that is left, by a worker whom nobody disturbs."""
    logging.getLogger("dbbasic_queue").setLevel(logging.CRITICAL + 1)
    queue, until = place.queue(lock_timeout=20), time.monotonic() + 120
    while True:
        queue.process_jobs(place.handlers(), **NEVER_FAILS)
        left = {row["status"] for row in reader.read(place.file)} & {"pending", "processing"}
        if not left or time.monotonic() > until:
            return
        time.sleep(0.1)


def soak(path, name, seconds, seed):
    return Soak(path, name, seed).run(seconds)


def campaign(bounded):
    """Yield a Result for each scenario: half a minute in all, or ten."""
    for name, scenario in SCENARIOS.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds = scenario.share * (30 if bounded else 600)
            verdict = soak(Path(folder), name, seconds, seed=1)
            title = f"soak, {name}, {seconds:.0f} s: {verdict}"
            yield Result(title, verdict.cases, verdict.violations)
