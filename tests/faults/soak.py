"""Producers and workers that are killed with -9 again and again, and started again each time.

What counts is a file to which the handlers append a line per effect, and what the producers were
told: not what the queue says of itself.
"""

import math
import os
import random
import time
from collections import Counter
from typing import NamedTuple

from dbbasic_queue import Queue, current_job

from . import reader
from .children import Children

PRODUCER, WORKER = "producer", "worker"


class Result(NamedTuple):
    kills: int
    of_workers: int
    told: int
    effects: Counter
    seconds: float
    problems: list

    def __str__(self):
        counts = self.effects.values()
        return (
            f"{self.kills} kills ({self.of_workers} of workers) in {self.seconds:.1f} s; "
            f"{self.told} ids told, {sum(counts)} effects of {len(counts)} jobs, "
            f"{min(counts)} to {max(counts)} for each"
        )


class Soak:
    """One run: who lives, and who was killed how often."""

    def __init__(self, path, *, producers, jobs, workers, kills, seed):
        self.file = path / "data" / "queue.tsv"
        self.path = path
        self.jobs = jobs
        self.kills = kills
        self.chance = random.Random(seed)
        self.killed = Counter()
        self.problems = []
        self.living = {(PRODUCER, number): None for number in range(producers)}
        self.living |= {(WORKER, number): None for number in range(workers)}

    def run(self):
        begun = time.monotonic()
        with Children() as children:
            while self.killed.total() < self.kills or not self.all_told():
                self.start_the_dead(children)
                time.sleep(self.chance.random() * 0.02)
                self.kill_somebody()
            for name, child in self.living.items():
                self.killed[name[0]] += not child.ended
                child.kill()
        with Children() as children:
            children.start(tick, self).wait(120)
        self.judge()
        seconds = time.monotonic() - begun
        told = sum(len(self.told(number)) for number in self.producers())
        return Result(
            self.killed.total(), self.killed[WORKER], told, self.effects(), seconds, self.problems
        )

    def start_the_dead(self, children):
        for (role, number), child in self.living.items():
            if child is None or child.ended:
                if child is not None and (said := child.hear_all()):
                    self.problems.append("\n".join(said))
                does = produce if role == PRODUCER else work
                self.living[role, number] = children.start(does, self, number)

    def kill_somebody(self):
        names = [name for name, child in self.living.items() if not child.ended]
        if self.killed.total() < self.kills and names:
            for name in names if self.chance.random() < 0.03 else [self.chance.choice(names)]:
                if not self.living[name].ended:
                    self.killed[name[0]] += 1
                    self.living[name].kill()

    def judge(self):
        rows, effects = reader.by_id(self.file), self.effects()
        told = {id for number in self.producers() for id in self.told(number)}
        findings = {
            "lost": told - set(effects),
            "no row for": (told | set(effects)) - set(rows),
            "not completed": {id for id, row in rows.items() if row["status"] != "completed"},
            "left over": reader.leftovers(self.file),
        }
        self.problems += [f"{what}: {found}" for what, found in findings.items() if found]
        extra = effects.total() - len(effects)
        untold = len(rows) - len(told)
        if extra > self.killed[WORKER]:
            self.problems.append(f"{extra} extra runs, but {self.killed[WORKER]} workers killed")
        if untold > self.killed[PRODUCER]:
            self.problems.append(f"{untold} untold, but {self.killed[PRODUCER]} producers killed")

    # --- what the processes leave

    def producers(self):
        return [number for role, number in self.living if role == PRODUCER]

    def note(self, name, line):
        fd = os.open(self.path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{line}\n".encode())
        os.close(fd)

    def noted(self, name):
        path = self.path / name
        return path.read_text().split() if path.exists() else []

    def told(self, number):
        return self.noted(f"told-{number}")

    def all_told(self):
        return all(len(self.told(number)) == self.jobs for number in self.producers())

    def effects(self):
        return Counter(self.noted("effects"))

    def queue(self):
        return Queue(self.file)

    def handlers(self):
        def effect(payload):
            self.note("effects", current_job().id)
            time.sleep(random.random() * 0.004)
            return payload

        return {"effect": effect}


# --- what the processes do


def produce(say, soak, number):
    random.seed()
    queue = soak.queue()
    for job in range(len(soak.told(number)), soak.jobs):
        id = queue.enqueue("effect", {"producer": number, "job": job})
        soak.note(f"told-{number}", id)
        time.sleep(random.random() * 0.004)
    time.sleep(3600)


def work(say, soak, number):
    """Stay, or make one tick after the other; no number of kills must end a job as failed."""
    random.seed()
    options = {"max_attempts": 10**6, "max_workers": 99}
    if number % 2:
        soak.queue().process_jobs(soak.handlers(), run_for=math.inf, **options)
    while True:
        soak.queue().process_jobs(soak.handlers(), **options)
        time.sleep(0.002)


def tick(say, soak):
    soak.queue().process_jobs(soak.handlers(), max_attempts=10**6)
