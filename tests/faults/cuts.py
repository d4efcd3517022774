"""Cut the power at each point of each scene, in every way that a model allows, and judge."""

import json
import logging
import os
import random
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dbbasic_queue import journal

from . import power, record
from .children import Children
from .disk import Disk
from .judge import Judge, Promised, identity, rows_in
from .power_scenes import FINISHING, SCENES, Place
from .results import Result


class Reach(NamedTuple):
    """How far a campaign goes into one recording."""

    many: int  # combinations at one point: see `power.posix`
    states: int  # so many by chance, besides two of each point
    points: bool  # after each call, not only where the next one is a sync, or something was told


BOUNDED = {"plain": Reach(8, 150, False), "killed": Reach(2, 8, False)}
WHOLE = {"plain": Reach(1 << 10, 3000, True), "killed": Reach(16, 100, True)}
MINOR = frozenset(("hint", "hint.tmp", "tick", "queue.tsv.lock"))
ENDS = {"doomed": "cancelled", "after": "cancelled"}  # by our names of jobs
ROOM = 1 << 13  # that a worker reserves: two pages, so that it is used up and cut back
SECONDS = 3600  # that one scene may take
PARTS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2


class Recording:
    """A scene that was played once: what was there before, and the log of what was done then."""

    def __init__(self, scene, sync, path, kill_at=0, without=None):
        """Play the acts, the first one killed at its call `kill_at` if it makes so many.

        `without` takes a safeguard away in each act.
        """
        self.place = Place(path / "root", sync, scene.file)
        self.log = path / "log"
        scene.before(self.place)
        self.before = record.snapshot(self.place.root)
        self.begin = 0  # the point of the log from which on a cut is new
        self.killed = False
        for number, act in enumerate(scene.acts):
            with Children() as children:
                child = children.start(play, self, act, 0 if number else kill_at, without)
                said = child.hear_all()
                killed = child.wait() == -9
            assert not said, "\n".join(said)
            if not number and kill_at:
                self.killed, self.begin = killed, len(self.entries())
                if not killed:
                    break

    def entries(self):
        return record.read(self.log) if self.log.exists() else []

    def disk(self):
        return Disk(self.before)

    def replay(self):
        """Return the disk after the whole log."""
        disk = self.disk()
        for entry in self.entries():
            disk.follow(entry)
        return disk

    def is_exact(self):
        """Whether the replay of the whole log gives the real folder, byte for byte."""
        return self.replay().tree().key() == Disk(record.snapshot(self.place.root)).tree().key()

    def judge(self):
        """Return the judge of this log, who knows all that was ever whole in a file."""
        disk, written = self.disk(), set()
        name = str(self.place.backup.relative_to(self.place.root))
        backups = {False: {disk.tree().data(name)}, True: set()}
        for entry in (None, *self.entries()):
            if entry:
                disk.follow(entry)
            tree = disk.tree()
            for _, content in tree.files.values():
                written.update(map(identity, rows_in(content.data) or ()))
            backups[False].add(tree.data(name))
            backed_up = ("backed up",) in disk.marks
            backups[backed_up].add(tree.data(name))
        backups[True] = backups[True] or backups[False]
        ends = {id: ENDS[name] for name, id in self.place.known.items() if name in ENDS}
        return Judge(self.place, written, ends, backups)

    def finished(self):
        """Return marks for the jobs that were finished before."""
        data = self.disk().tree().data(str(self.place.file.relative_to(self.place.root)))
        rows = rows_in(data or b"") or ()
        return [("finished", row["id"]) for row in rows if row["status"] in FINISHING]


def play(say, recording, act, kill_at, without):
    place = recording.place
    journal.ROOM = ROOM
    place.recorder = record.Recorder(place.root, recording.log, kill_at)
    if without:
        without()
    act(place)


def states(recording, model, reach, seed):
    """Return (point, promised, tree) of the states to judge: each once with the same promises."""
    entries, disk = recording.entries(), recording.disk()
    reach = reach["killed" if recording.killed else "plain"]
    known, before = recording.place.known.values(), recording.finished()
    seen, musts, others = set(), {}, Sample(reach.states, random.Random(seed))
    for point, entry in enumerate([None, *entries]):
        if entry:
            disk.follow(entry)
        following = entries[point][0] if point < len(entries) else "sync"
        told = entry and entry[0] == "mark"
        if point < recording.begin or not (reach.points or told or "sync" in following):
            continue
        promised = Promised(known, [*before, *disk.marks])
        chance = random.Random(f"{seed} {point}")
        trees = power.MODELS[model](disk, reach.many, chance, MINOR)
        for number, tree in enumerate(trees):
            key = hash((tree.key(), promised.key))
            if number < 2:
                musts.setdefault(key, (point, promised, tree))
            elif key not in seen and key not in musts:
                others.append((key, (point, promised, tree)))
            seen.add(key)
    return [*musts.values(), *(found for key, found in others if key not in musts)]


class Sample(list):
    """Keeps so many of what is appended, each with the same chance."""

    def __init__(self, size, chance):
        self.size = size
        self.chance = chance
        self.count = 0

    def append(self, one):
        self.count += 1
        if len(self) < self.size:
            super().append(one)
        elif (at := self.chance.randrange(self.count)) < self.size:
            self[at] = one


class Part:
    """What one of several processes judges of a scene."""

    def __init__(self, name, sync, reach, path, number, without):
        self.scene = SCENES[name]
        self.sync = sync
        self.reach = reach
        self.path = path
        self.number = number
        self.without = without
        self.cases = Counter()
        self.problems = []  # (model, text)
        self.verdicts = {}

    def judge(self, recording, where, parts=1):
        """Judge each state of a recording that is ours."""
        if not recording.is_exact():
            self.problems += [(model, f"{where}the log is not exact") for model in power.MODELS]
        judge = recording.judge()
        for model in power.MODELS:
            found = states(recording, model, self.reach, where)
            for at, (point, promised, tree) in enumerate(found):
                if at % parts != self.number % parts:
                    continue
                self.cases[model] += 1
                key = where, tree.key(), promised.key
                if key not in self.verdicts:
                    self.verdicts[key] = self.verdict(judge, tree, promised)
                for problem in self.verdicts[key]:
                    self.problems.append((model, f"{where}cut after call {point}: {problem}"))

    def verdict(self, judge, tree, promised):
        problems = judge.problems_in(tree, promised)
        root = self.path / f"state-{self.number}"
        root.mkdir()
        problems += judge.problems_after(tree, root, promised)
        shutil.rmtree(root)
        return problems

    def judge_kills(self, parts):
        """Let the first act be killed at each of its calls that is ours, and judge the rest."""
        kill_at = self.number + 1
        while True:
            path = self.path / f"kill-{kill_at}"
            path.mkdir()
            recording = Recording(self.scene, self.sync, path, kill_at, self.without)
            if not recording.killed:
                return
            self.judge(recording, f"killed at call {kill_at}, ")
            shutil.rmtree(path)
            kill_at += parts


def judge_part(say, recording, *what):
    part = Part(*what)
    if recording:
        part.judge(recording, "", PARTS)
    else:
        part.judge_kills(PARTS)
    told = json.dumps([part.cases, part.problems])
    part.path.joinpath(f"part-{part.number}").write_text(told)


def results(name, sync, reach, without=None):
    """Judge the states of one scene; return a Result for each model.

    `without` takes a safeguard away while it is played.
    """
    scene = SCENES[name]
    cases, problems = Counter(), {model: [] for model in power.MODELS}
    with silence(), tempfile.TemporaryDirectory(dir=memory()) as folder, Children() as children:
        path = Path(folder)
        recording = None if scene.kills else Recording(scene, sync, path, without=without)
        for number in range(PARTS):
            children.start(judge_part, recording, name, sync, reach, path, number, without)
        children.finish(SECONDS)
        for number in range(PARTS):
            counted, found = json.loads((path / f"part-{number}").read_text())
            cases.update(counted)
            for model, problem in found:
                problems[model].append(problem)
    return [
        Result(f"power cut, {model}: {name}, sync={sync}", cases[model], problems[model])
        for model in power.MODELS
    ]


@contextmanager
def silence():
    """Let no log lines through: workers die by the dozen here."""
    logger = logging.getLogger("dbbasic_queue")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def memory():
    """Return a folder in memory, None where there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def campaign(bounded):
    """Yield the results of all scenes."""
    for name, scene in SCENES.items():
        for sync in scene.syncs:
            yield from results(name, sync, BOUNDED if bounded else WHOLE)
