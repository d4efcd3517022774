"""How far one queue file goes: `python tests/benchmarks/how_far.py` prints Markdown in 4 minutes.

--quick: a short look.  Each cell is the better one of two rounds, with all others between.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import lock_model
from how_far_runs import percentile

HERE = Path(__file__).resolve().parent
TABLES = ("size", "producers", "handlers", "files", "machines", "model")


def main():
    options, begun = arguments(), time.time()
    with tempfile.TemporaryDirectory(prefix="how-far-", dir=options.out) as folder:
        bench = Bench(folder, options)
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores", flush=True)
        for name in TABLES:
            if name in options.only:
                print("\n" + "\n".join(getattr(bench, name)()), flush=True)
    print(f"\ntook {time.time() - begun:.0f} s")


def arguments():
    told = "python tests/benchmarks/how_far.py"
    parser = argparse.ArgumentParser(description=__doc__, prog=told, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, seconds")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE")
    parser.add_argument("--out", metavar="FOLDER", help="on the disk to be measured (/tmp)")
    return parser.parse_args()


class Bench:
    def __init__(self, folder, options):
        self.folder, self.quick, self.sizes, self._costs = folder, options.quick, {}, None
        self.seconds, self.rounds = (0.2, 1) if options.quick else (1, 2)

    def run(self, name, **arguments):
        """Run it in a new process and a new folder."""
        folder = Path(self.folder, "run")
        folder.mkdir()
        program = [sys.executable, HERE / "how_far_runs.py", name, folder, json.dumps(arguments)]
        path = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))
        kept = {name: text for name, text in os.environ.items() if name != "DBBASIC_QUEUE_SYNC"}
        try:
            done = subprocess.run(
                program, env={**kept, "PYTHONPATH": path}, stdout=subprocess.PIPE, check=True
            )
        finally:
            shutil.rmtree(folder)
        return json.loads(done.stdout)

    def rows(self, name, cases):
        """Run each case in each round; return the best of each figure: others use this machine."""
        found = [[] for _ in cases]
        for _ in range(self.rounds):
            for each, case in zip(found, cases, strict=True):
                each.append(self.run(name, **case))
        return [{key: best(key, [one[key] for one in each]) for key in each[0]} for each in found]

    # --- the tables

    def size(self):
        all_rows = [100, 1000] if self.quick else [1000, 10_000, 100_000, 1_000_000]
        cases = [{"rows": n, "jobs": 2000, "calls": 200} for n in all_rows]
        lines = ["| rows | MB | enqueue | its p99 | get | idle tick | one edit | tick of one job"
                 " | drain of 2,000 |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for number, one in zip(all_rows, self.rows("size", cases), strict=True):
            self.sizes[number] = one
            names = "enqueue enqueue_p99 get idle edit tick_of_one".split()
            cells = [f"{number:,}", f"{one['mb']:.1f}", *(length(one[name]) for name in names)]
            lines.append(line(*cells, f"{short(one['jobs_a_second'])} jobs/s"))
        speed = self.run("synced", mb=20 if self.quick else 200)["mb_a_second"]
        return [*lines, "", f"A file written and synced: {short(speed)} MB/s.", self.parameters()]

    def costs(self):
        """What the model is given: a line through the smallest and the largest file."""
        if not self.sizes:
            self.size()
        first, last = self.sizes[min(self.sizes)], self.sizes[max(self.sizes)]
        slope = max(0.05, (last["edit"] - first["edit"]) / (last["mb"] - first["mb"]) * 1000)
        return lock_model.Costs(
            enqueue=round(first["enqueue"] * 1000, 2),
            edit=round(max(0.1, first["edit"] * 1000 - slope * first["mb"]), 1),
            edit_mb=round(slope, 2),
            edit_row=round(median([one["edit_row"] for one in self.sizes.values()]) * 1000, 3),
            row=round(last["row_bytes"]),
        )

    def parameters(self):
        self._costs = self._costs or self.costs()
        words = [
            f"--{name.replace('_', '-')} {value:g}" for name, value in self._costs._asdict().items()
        ]
        return "Parameters: " + " ".join(words)

    def producers(self):
        numbers = [1, 2] if self.quick else [1, 2, 4, 8, 16, 32]
        cases = [(10_000, n) for n in numbers]
        if not self.quick:
            cases += [(n, 8) for n in (1000, 100_000, 1_000_000)]
        lines = ["| rows | producers | alone: calls/s | p50 | p99 | most"
                 " | with a worker: calls/s | p50 | p99 | most |", "|" + "---|" * 10]  # fmt: skip
        given = [
            {"rows": rows, "number": number, "worker": worker, "seconds": self.seconds}
            for rows, number in cases for worker in (False, True)
        ]  # fmt: skip
        found = self.rows("producers", given)
        for case, alone, beside in zip(cases, found[::2], found[1::2], strict=True):
            cells = [f"{case[0]:,}", case[1]]
            for one in (alone, beside):
                cells.append(short(one["jobs_a_second"]))
                cells += [length(one[name]) for name in ("p50", "p99", "most")]
            lines.append(line(*cells))
        return lines

    def handlers(self):
        numbers = [1, 2] if self.quick else [1, 2, 4]
        jobs = {0: 20_000, 0.001: 800, 0.01: 100, 0.1: 12}  # of one process, for about a second
        if self.quick:
            jobs = {0: 500, 0.01: 10}
        cases = [
            {"handler": each, "processes": n, "jobs": number * (n if each else 1)}
            for each, number in jobs.items() for n in numbers
        ]  # fmt: skip
        found = iter(self.rows("handlers", cases))
        lines = [line("a handler waits", *(f"processes={n}" for n in numbers))]
        lines.append("|---" * (len(numbers) + 1) + "|")
        for each in jobs:
            rates = [f"{short(next(found)['jobs_a_second'])} jobs/s" for _ in numbers]
            lines.append(line(length(each), *rates))
        return lines

    def files(self):
        numbers = [1, 2] if self.quick else [1, 2, 4, 8]
        cases = [
            {"number": n, "jobs": 500 if self.quick else 20_000, "seconds": self.seconds}
            for n in numbers
        ]
        lines = ["| files | drained, a worker each | added, a producer each |", "|---|---|---|"]
        for number, one in zip(numbers, self.rows("files", cases), strict=True):
            drained, added = short(one["drained_a_second"]), short(one["added_a_second"])
            lines.append(line(number, f"{drained} jobs/s", f"{added} jobs/s"))
        return lines

    def machines(self):
        """One outbox for other machines, by arithmetic; and what Redis takes here."""
        self.parameters()
        lines = []
        if shutil.which("redis-server") and find_spec("celery") and find_spec("redis"):
            sizes = [1000] if self.quick else [1000, 1_000_000]
            cases = [{"rows": n, "jobs": 100 if self.quick else 3000} for n in sizes]
            for number, one in zip(sizes, self.rows("bridge", cases), strict=True):
                rate = one["jobs_a_second"]
                lines.append(f"The forwarder to Celery, {number:,} rows: {short(rate)} jobs/s.")
                if number == min(sizes):
                    self._costs = self._costs._replace(message=round(1000 / rate, 2))
            lines += [self.parameters(), ""]
        lines += lock_model.outbox_table(self._costs)
        if shutil.which("redis-server") and shutil.which("redis-benchmark"):
            found = self.rows("redis", [{"jobs": 2000 if self.quick else 50_000, "clients": 50}])[0]
            told = ", ".join(f"{name[:-9]} {short(rate)}/s" for name, rate in found.items())
            lines += ["", f"redis-server, 50 clients, --appendonly yes: {told}."]
        return lines

    def model(self):
        """The model beside real runs, and then what it says."""
        self.parameters()
        lines = ["| rows | jobs/s | | calls p50 | p99 | delays p50 | p99 |", "|---" * 7 + "|"]
        points = [(1000, 100, 20)] if self.quick else [(300_000, 20, 200), (700_000, 8, 120)]
        for rows, rate, jobs in points:
            case = {"rate": rate, "jobs": jobs, "handler": 0.001}
            mb = rows * self._costs.row / 1e6
            told = lock_model.simulate(self._costs, mb, producers=8, **case)
            real = self.run("real", rows=rows, number=8, **case)
            pairs = []
            for name in ("calls", "delays"):
                both = real[name], getattr(told, name)
                pairs += [[percentile(each, share) for each in both] for share in (0.5, 0.99)]
            lines.append(line(f"{rows:,}", rate, "measured", *(length(one) for one, _ in pairs)))
            lines.append(line("", "", "model", *(length(one) for _, one in pairs)))
            ratios = [f"{one / max(other, 1e-9):.2f}" for one, other in pairs]
            lines.append(line("", "", "measured / model", *ratios))
        return [*lines, "", *lock_model.table(self._costs)]


def best(name, values):
    return max(values) if name.endswith("a_second") else min(values)


def line(*cells):
    return f"| {' | '.join(map(str, cells))} |"


def length(seconds):
    for unit, many in (("s", 1), ("ms", 1e3)):
        if seconds * many >= 0.995 or not seconds:
            return f"{short(seconds * many)} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def short(value):
    """Round to two figures."""
    return f"{lock_model.two(value):,}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    main()
