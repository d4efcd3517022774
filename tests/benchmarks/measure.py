"""Runs the rows: each run a fresh process, the sides in turn, several rounds, medians."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import SIDES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LIMIT = "limit"
PACKAGES = ("filelock", "huey", "litequeue", "persist-queue", "rq", "celery", "redis", "packaging")
OLD = "dbbasic-queue==1.0.0"
WORST = ("lost", "doubled")  # one round that loses a job is enough
VERSIONS = """import json, sys
from importlib.metadata import distributions
found = {one.metadata["Name"]: one.version for one in distributions()}
print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))
"""


class Found:
    """What one row has found: figures[side][size] is a dict of medians over the rounds."""

    def __init__(self, row, sizes):
        self.sizes = sizes
        self.ours = row.sides[0]
        self.figures = {}

    def value(self, side, metric="value", size=None):
        """A figure with the most rows that the side was measured with, None without any."""
        sizes = self.figures.get(side)
        if not sizes or (size is not None and size not in sizes):
            return None
        return sizes[max(sizes) if size is None else size].get(metric)

    def common(self, side):
        """The most rows that a side and ours were both measured with."""
        return max(self.figures.get(side, {}).keys() & self.figures[self.ours], default=None)

    def less(self, side):
        theirs, mine = self.value(side), self.value(self.ours)
        return None if theirs is None or mine is None else mine - theirs

    def derived(self, row):
        """The same runs, seen for another figure."""
        _, metric = row.sides
        found = Found(row, self.sizes)
        found.ours = self.ours
        for side, sizes in self.figures.items():
            for size, figures in sizes.items():
                if metric in figures:
                    found.figures.setdefault(side, {})[size] = {"value": figures[metric]}
        return found


class Bench:
    """Where it all happens: a folder, the Pythons, a redis-server where there is one."""

    def __init__(self, folder, venv, seconds):
        self.folder = Path(tempfile.mkdtemp(prefix="queues-", dir=folder))
        self.python = str(venv / "peers" / "bin" / "python") if venv else sys.executable
        self.old_python = str(venv / "old" / "bin" / "python") if venv else None
        self.seconds = seconds  # how long one measurement may take
        self.redis, self.port = None, ""
        self.package = self.folder / "ours"  # as pip installs it: with its byte code
        ours = self.package / "dbbasic_queue"
        shutil.copytree(ROOT / "dbbasic_queue", ours, ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run([self.python, "-m", "compileall", "-q", ours], check=True)
        self.seeds = {}  # queues as a workload begins with them
        self.failed = {}  # peers that broke down, and where
        self.versions = self._versions()
        self.left_out = self._left_out()

    def __enter__(self):
        if not {"rq", "celery"} <= self.left_out.keys():
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = str(free.getsockname()[1])
            options = f"--bind 127.0.0.1 --port {self.port} --appendonly yes --save".split()
            program = ["redis-server", *options, "", "--dir", str(self.folder)]
            self.redis = subprocess.Popen(program, stdout=subprocess.DEVNULL)
            self._wait_for_redis()
        return self

    def _wait_for_redis(self):
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", int(self.port))).close()
                return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError("redis-server does not start")

    def __exit__(self, *error):
        if self.redis:
            self.redis.kill()
            self.redis.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _versions(self):
        """Return the version of each package that is installed."""
        found = {}
        for python, names in ((self.python, PACKAGES), (self.old_python, ["dbbasic-queue"])):
            if python:
                program = [python, "-I", "-c", VERSIONS, *names]
                found |= json.loads(subprocess.run(program, capture_output=True, check=True).stdout)
        return found

    def _left_out(self):
        """Return why a side cannot take part."""
        reasons = {}
        for name, side in SIDES.items():
            missing = [package for package in side.needs if package not in self.versions]
            if missing:
                what = OLD if name == "1.0.0" else " ".join(missing)
                reasons[name] = f"needs {what} (--venv FOLDER installs it there)"
            elif hasattr(side.engine, "server") and not shutil.which("redis-server"):
                reasons[name] = "needs redis-server (the Debian package of that name)"
        return reasons

    # --- one process

    def _program(self, side):
        """Return the Python of a side, and its environment."""
        env = {n: value for n, value in os.environ.items() if not n.startswith(("PYTHON", "DBB"))}
        env["BENCHMARK_SECONDS"] = str(self.seconds)
        if side.startswith("ours"):
            env["PYTHONPATH"] = str(self.package)
        if side in SIDES and hasattr(SIDES[side].engine, "server"):
            env["REDIS_PORT"] = self.port
        return (self.old_python if side == "1.0.0" else self.python), env

    def child(self, workload, side, folder, arguments):
        python, env = self._program(side)
        program = [python, str(HERE / "workloads.py"), workload, side, str(folder)]
        done = subprocess.run(
            [*program, json.dumps(arguments)], env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{side}: {workload} {arguments}:\n{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def new_queue(self, side, seed):
        """Return the folder of a queue: made once, and then copied, but for what redis has."""
        if seed is None:
            return Path(tempfile.mkdtemp(dir=self.folder))
        key = SIDES[side].engine, json.dumps(seed)
        folder = self.seeds.get(key)
        if folder is None:
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            self.child("fill", side, folder, seed)
            if not hasattr(SIDES[side].engine, "server"):
                self.seeds[key] = folder
        if key in self.seeds:
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            shutil.copytree(self.seeds[key], folder, dirs_exist_ok=True)
        self.child("settle", side, folder, seed)
        return folder

    # --- whole processes, timed from outside

    def _process(self, side, folder, arguments, calls, before=lambda: None):
        """Return the median milliseconds of a Python from its start to its end."""
        python, env = self._program(side)
        env["DBBASIC_QUEUE"] = str(folder / "queue.tsv")
        taken, until = [], time.perf_counter() + self.seconds
        while len(taken) < calls and (not taken or time.perf_counter() < until):
            before()
            begun = time.perf_counter()
            subprocess.run(
                [python, *arguments], env=env, cwd=folder, stdout=subprocess.DEVNULL, check=True
            )
            taken.append((time.perf_counter() - begun) * 1e3)
        return {"value": statistics.median(taken), "calls": len(taken)}

    def _with_peak(self, side, folder, code, calls, before=lambda: None):
        """A program's time, and the most memory that it had: asked of one more run."""
        script = folder / "program.py"
        script.write_text(code)
        found = self._process(side, folder, [str(script)], calls, before)
        python, env = self._program(side)
        env["DBBASIC_QUEUE"] = str(folder / "queue.tsv")
        ask = 'print(*(line for line in open("/proc/self/status") if line[:5] == "VmHWM"))\n'
        if os.path.exists("/proc/self/status"):
            script.write_text(code + ask)
            before()
            program = [python, str(script)]
            told = subprocess.check_output(program, env=env, cwd=folder, text=True)
            found["peak"] = int(told.split()[1]) / 1e3
        return found

    def tick(self, side, folder, calls):
        def forget():
            (folder / "queue.tsv.d" / "hint").unlink(missing_ok=True)

        before = forget if side.endswith("no hint") else lambda: None
        return self._with_peak(side, folder, SIDES[side].engine.TICK, calls, before)

    def imported(self, side, folder, calls):
        return self._with_peak(side, folder, SIDES[side].imports + "\n", calls)

    def bare(self, side, folder, calls):
        return self._with_peak(side, folder, "\n", calls)

    def first(self, side, folder, calls):
        program = [str(HERE / "workloads.py"), "enqueue", side, str(folder), '{"calls": 1}']
        return self._process(side, folder, program, calls)

    # --- a row

    def run(self, row, sizes, rounds, sides):
        found = Found(row, sizes)
        for size in sizes:
            jobs = {side: clipped(row, side, size, sizes) for side in sides}
            jobs = {side: count for side, count in jobs.items() if count is not None}
            if row.limit:
                jobs[LIMIT] = size
            for side, runs in self._rounds(row, jobs, rounds).items():
                figures = {name: middle(name, [run[name] for run in runs]) for name in runs[0]}
                figures |= {"rows": jobs[side]} if jobs[side] != size else {}
                found.figures.setdefault(side, {})[size] = figures
        return found

    def _rounds(self, row, jobs, rounds):
        """A B C A B C …, each run a process of its own.  A peer that breaks down is left out."""
        runs = {side: [] for side in jobs}
        queues = {}
        for _ in range(rounds):
            for side in list(runs):
                try:
                    runs[side].append(self._once(row, side, jobs[side], queues))
                except (RuntimeError, subprocess.CalledProcessError) as problem:
                    if side.startswith("ours") or side == LIMIT:
                        raise
                    self.failed[f"{side}: {row.id}, {jobs[side]} rows"] = str(problem)
                    del runs[side]
        for folder in queues.values():
            shutil.rmtree(folder)
        return runs

    def _once(self, row, side, count, queues):
        name, arguments = row.limit[1:] if side == LIMIT else row.work
        if side not in queues or row.fresh:
            seed = row.seed(count) if row.seed and side != LIMIT else None
            queues[side] = self.new_queue(side, seed)
        try:
            if hasattr(self, name):
                return getattr(self, name)(side, queues[side], **arguments(count))
            return self.child(name, side, queues[side], arguments(count))
        finally:
            if row.fresh:
                shutil.rmtree(queues.pop(side))


def middle(name, values):
    return max(values) if name in WORST else statistics.median(values)


def clipped(row, side, size, sizes):
    """Return how many rows a side is asked for: never more than its most, and that only once."""
    most = getattr(SIDES[side].engine, row.most, size)
    if size <= most:
        return size
    return most if most not in sizes and size == min(n for n in sizes if n > most) else None


def make_venvs(folder):
    """Make what is missing: one environment with the peers, one with the old package."""
    for name, packages in (("peers", PACKAGES), ("old", [OLD])):
        python = folder / name / "bin" / "python"
        if not python.exists():
            print(f"installing {' '.join(packages)} in {folder / name}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
