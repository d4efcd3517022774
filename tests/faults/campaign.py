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
from pathlib import Path

import dbbasic_queue

from . import preload, sabotage, scenes, verdict
from .results import Result

HERE = Path(__file__).resolve().parent
STEP = 7  # in a bounded run each so many-th call meets all faults, every call those that kill


def campaign(bounded, names=(), without="", fault=""):
    """Yield a Result for each scene (or those of these names), from a process per processor.

    `without` takes away a safeguard, by its name in `sabotage`: then the calls meet one fault only,
    and the first violation is enough.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = preload.build(folder)
        if library is None:
            raise RuntimeError("needs gcc and Linux")
        options = ["--bounded"] * bounded + [f"--scene={name}" for name in names]
        found = list(_parts(library, [*options, f"--without={without}", f"--fault={fault}"]))
    for name in names or scenes.SCENES:
        parts = [one for one in found if one["name"] == name]
        cases, wanted = (sum(one[what] for one in parts) for what in ("cases", "wanted"))
        violations = [text for one in parts for text in one["violations"]]
        if (cases < wanted or not wanted) and not without:
            violations.append(f"{name}: {cases} of {wanted} cases were met")
        calls = max((one["calls"] for one in parts), default=0)
        yield Result(f"{name}: {calls} calls", cases, violations)


def command(library, options):
    """Return the words and the environment that start this module with the library."""
    path = os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)])
    environment = {**os.environ, "PYTHONPATH": path, "LD_PRELOAD": str(library)}
    return [sys.executable, "-m", f"{HERE.name}.campaign", *options], environment


def _parts(library, options):
    """Yield what the parts find, each a process of its own."""
    parts = []
    count = os.cpu_count() or 1
    try:
        for part in range(count):
            words, environment = command(library, [*options, f"--part={part}", f"--parts={count}"])
            parts.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE))
        for one in parts:
            yield from map(json.loads, one.stdout)
            if one.wait():
                raise RuntimeError(f"a part of the campaign ended with status {one.returncode}")
    finally:
        for one in parts:
            with one:
                one.kill()


# --- in a process that was started with the library


def main():
    """Do one part of the campaign, or only one scene without a fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--bounded", action="store_true")
    parser.add_argument("--scene", action="append", default=[])
    parser.add_argument("--without", default="")
    parser.add_argument("--fault", default="")
    parser.add_argument("--calls", action="store_true", help="only the calls of one scene")
    options = parser.parse_args()
    logging.getLogger("dbbasic_queue").setLevel(logging.CRITICAL + 1)
    for module in pkgutil.walk_packages(dbbasic_queue.__path__, "dbbasic_queue."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    if options.without:
        getattr(sabotage, options.without)()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where a sync costs nothing
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        for number, name in enumerate(options.scene or scenes.SCENES):
            part = Part(name, Path(folder, str(number)), options)
            print(json.dumps(part.calls() if options.calls else part.run()), flush=True)


class Part:
    """Some of the cases of one scene."""

    def __init__(self, name, path, options):
        self._name = name
        self._scene = scenes.SCENES[name]
        self._path = path
        self._options = options
        self._library = preload.Preload()
        self._base = scenes.Folder(path / "base")
        self._base.path.mkdir(parents=True)
        self._scene.prepare(self._base)
        self._base.look()

    def calls(self):
        """Return the folder and the calls of the scene without a fault."""
        folder = self._base.copy(self._path / "traced")
        _, made, child = self._library.attempt(folder, self._scene.act, lambda folder: None)
        child.go_on()
        return {"folder": str(folder.file.parent), "calls": made}

    def run(self):
        """Let each call meet each fault in turn, as far as they belong to this part."""
        made, violations = self._calls_without_a_fault()
        plan = [(call, fault) for call in made for fault in self._faults_of(call)]
        mine = plan[self._options.part :: self._options.parts]
        cases = 0
        for call, fault in mine:
            if violations and self._options.without:
                break
            faulthandler.dump_traceback_later(120, exit=True)
            for _ in range(10):  # on a busy machine a worker may claim less at a time
                met, wrong = self._case(call, fault)
                if met:
                    break
            cases += met
            violations += wrong
        faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(self._path)
        return {
            "name": self._name,
            "calls": len(made),
            "cases": cases,
            "wanted": len(mine),
            "violations": violations,
        }

    def _calls_without_a_fault(self):
        """Return the calls, when they have been the same twice, and what is wrong already."""
        before = []
        for number in range(20):
            folder = self._base.copy(self._path / f"without-{number}")
            outcome, made, found = self._try(folder, None, 0)
            if found or outcome.raised:
                return made, [f"{self._name}, without a fault: {text}" for text in found or outcome]
            if len(made) == len(before) and all(map(preload.Call.is_like, made, before)):
                return made, []
            before = made
        raise AssertionError(f"{self._name}: its calls are never the same twice")

    def _faults_of(self, call):
        """Return the faults that this call is to meet."""
        every = [one for one in self._library.faults() if call.kind in one.at]
        only = [self._options.fault] if self._options.fault else self._scene.faults
        if only:
            return [one for one in every if one.name in only]
        if self._options.bounded and call.number % STEP:
            return [one for one in every if one.kills]
        return every

    def _case(self, call, fault):
        """Return whether the call has met the fault, and what was wrong afterwards."""
        folder = self._base.copy(self._path / "case")
        outcome, made, found = self._try(folder, fault, call.number)
        shutil.rmtree(folder.path)
        struck = next((one for one in made if one.struck), None)
        if struck is None or not struck.is_like(call):
            return False, [f"{self._name}: {fault.name} {call}: it met {struck}"]
        then = f", then {outcome.raised[0]}: {outcome.text}" if outcome.raised else ""
        return True, [f"{self._name}: {outcome.struck}{then}: {text}" for text in found]

    def _try(self, folder, fault, number):
        """Do it with a fault; return the outcome, the calls, and what was wrong afterwards."""
        kills = 0
        for turn in range(self._scene.again):
            last = self._library.attempt(folder, self._scene.act, verdict.lives_on, fault, number)
            kills += last[0].killed
            if not turn:
                outcome, made, _ = last
            if not last[0].killed:
                break
        end, _, child = last
        found = verdict.violations(folder, self._scene, end, kills=kills, child=child)
        return outcome, made, found


if __name__ == "__main__":
    main()
