"""Every file operation of every verb goes wrong in every way.

Each scene is done once without a fault, to write down its calls; then once for each call and each
fault that this call can meet.  A scene with fewer cases than that is reported as well.
"""

import argparse
import faulthandler
import importlib
import json
import logging
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dbbasic_queue

from . import preload, sabotage, scenes, verdict
from .results import Result

HERE = Path(__file__).resolve().parent
STEP = 8  # in a bounded run each so many-th call meets all faults, the others the kills before them


def campaign(bounded, names=(), without=""):
    """Yield a Result for each scene (or those of these names), from a process per processor.

    `without` takes away a safeguard: see `sabotage`.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = preload.build(folder)
        if library is None:
            raise RuntimeError("needs gcc and Linux")
        found = [json.loads(line) for line in _run(library, bounded, names, without)]
    for name in names or scenes.SCENES:
        parts = [one for one in found if one["name"] == name]
        cases, wanted = (sum(one[what] for one in parts) for what in ("cases", "wanted"))
        violations = [text for one in parts for text in one["violations"]]
        if cases < wanted or not wanted:
            violations.append(f"{name}: {cases} of {wanted} cases were met")
        calls = max((one["calls"] for one in parts), default=0)
        yield Result(f"{name}: {calls} calls", cases, violations)


def _run(library, bounded, names, without):
    """Yield the lines of all parts, each a process of its own."""
    path = os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)])
    count = os.cpu_count() or 1
    parts = []
    for part in range(count):
        command = [sys.executable, "-m", "faults.campaign", f"--part={part}", f"--parts={count}"]
        command += ["--bounded"] * bounded + ["--without", without] * bool(without)
        environment = {**os.environ, "PYTHONPATH": path, "LD_PRELOAD": str(library)}
        for name in names:
            command += ["--scene", name]
        parts.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    try:
        for one in parts:
            yield from one.stdout
        for one in parts:
            if one.wait():
                raise RuntimeError(f"a part of the campaign ended with status {one.returncode}")
    finally:
        for one in parts:
            with one:
                one.kill()


def main():
    """Do one part of the campaign, in a process that was started with the library."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--bounded", action="store_true")
    parser.add_argument("--scene", action="append")
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    logging.getLogger("dbbasic_queue").setLevel(logging.CRITICAL + 1)
    for module in pkgutil.walk_packages(dbbasic_queue.__path__, "dbbasic_queue."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    if options.without:
        sabotage.WITHOUT[options.without]()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where a sync costs nothing
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        for name in options.scene or scenes.SCENES:
            path = Path(folder, str(len(os.listdir(folder))))
            print(json.dumps(one_scene(name, path, options)), flush=True)


def one_scene(name, path, options):
    """Do this part's cases of one scene."""
    begun = time.monotonic()
    library = preload.Preload()
    base = scenes.Folder(path / "base")
    base.path.mkdir(parents=True)
    scene = scenes.SCENES[name]
    scene.prepare(base)
    base.look()
    made = calls_of(library, scene, base, path)
    known = [f for f in library.faults() if f.name in scene.faults or not scene.faults]
    plan = [(call, fault) for call in made for fault in faults_of(call, known, options.bounded)]
    mine = plan[options.part :: options.parts]
    cases, violations = 0, []
    for call, fault in mine:
        faulthandler.dump_traceback_later(120, exit=True)
        for _ in range(10):  # on a busy machine a worker may claim less at a time
            met, wrong = one_case(library, name, base.copy(path / "case"), call, fault)
            shutil.rmtree(path / "case")
            if met:
                break
        cases += met
        violations += wrong
    faulthandler.cancel_dump_traceback_later()
    shutil.rmtree(path)
    return {
        "name": name, "calls": len(made), "cases": cases, "wanted": len(mine),
        "seconds": time.monotonic() - begun, "violations": violations,
    }  # fmt: skip


def calls_of(library, scene, base, path):
    """Return the calls of a scene that meets no fault, when they have been the same twice."""
    before = []
    for number in range(20):
        folder = base.copy(path / f"without-{number}")
        outcome, made, child = library.attempt(folder, scene.act, verdict.lives_on)
        wrong = verdict.violations(folder, scene, outcome, kills=0, child=child)
        assert not wrong and not outcome.raised, f"without a fault: {outcome} {wrong}"
        if len(made) == len(before) and all(map(preload.Call.is_like, made, before)):
            return made
        before = made
    raise AssertionError("the calls are never the same")


def faults_of(call, faults, bounded):
    every = [fault for fault in faults if call.kind in fault.at]
    return [one for one in every if one.kills or not bounded or call.number % STEP == 0]


def one_case(library, name, folder, call, fault):
    """Return whether the call has met the fault, and what was wrong afterwards."""
    scene = scenes.SCENES[name]
    outcome, made, child = library.attempt(folder, scene.act, verdict.lives_on, fault, call.number)
    struck = next((one for one in made if one.struck), None)
    if struck is None or not struck.is_like(call):
        return 0, [f"{name}: {fault.name} {call}: it met {struck}"]
    kills = int(outcome.killed)
    for _ in range(scene.again - 1):
        again, _, child = library.attempt(folder, scene.act, verdict.lives_on, fault, call.number)
        kills += again.killed
        if not again.killed:
            break
        outcome = again
    found = verdict.violations(folder, scene, outcome, kills=kills, child=child)
    then = f", then {outcome.raised[0]}: {outcome.text}" if outcome.raised else ""
    return 1, [f"{name}: {outcome.struck}{then}: {text}" for text in found]


if __name__ == "__main__":
    main()
