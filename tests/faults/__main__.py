"""The whole campaign with one command: `python tests/faults` prints a table, and stores it with
--out FILE; --bounded is what CI runs.  The status is 1 when there is a violation.
"""

import argparse
import importlib
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "campaign": "Call by call: each file operation of each verb is killed, cut short or refused",
    "cuts": "Power cuts: every state that two models allow, at every point",
    "true_cut": "True power cuts: ext4 on a loop file, shut down without a flush",
    "machine": "Random verbs, ticks, kills and clocks against a dict",
    "roundtrips": "Texts, JSON, torn rows, any bytes",
    "hell": "Handlers from hell: each beside good jobs, in one process, a pool and an event loop",
    "security": "Rows, modes and owners, links and pipes that others plant",
    "safeguards": "Proof that it notices: one safeguard at a time is taken away",
    "features": "Features under kills, by themselves and together; every graph of four; time zones",
    "soak": "Many at once: producers, workers, kills, stops, hand edits, deletions",
}


def main():
    words = argparse.ArgumentParser(prog="python tests/faults", description=__doc__)
    words.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} (default: all)")
    words.add_argument("--bounded", action="store_true", help="only as much as CI runs")
    words.add_argument("--out", type=Path, help="where to store the table too")
    given = words.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)  # ours; what the processes log is not read
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    lines, bad = [], 0
    for part in given.parts or PARTS:
        begun, cases, violations = time.monotonic(), 0, []
        print(f"{PARTS[part]} ({part})", flush=True)
        for result in importlib.import_module(f"faults.{part}").campaign(given.bounded):
            print(f"  {result.name:<72} {result.cases:>9,} {len(result.violations):>5}", flush=True)
            for violation in result.violations:
                print(f"    {violation}", flush=True)
            cases += result.cases
            violations += result.violations
        seconds = time.monotonic() - begun
        lines.append(f"| {PARTS[part]} | {cases:,} | {len(violations)} | {seconds:.0f} s |")
        bad += len(violations)
    how = f"python tests/faults {' '.join(sys.argv[1:])}".split(" --out")[0].strip()
    table = "\n".join(
        [
            f"`{how}` on {time.strftime('%Y-%m-%d')}, {machine()}:\n",
            "| part | cases | violations | time |",
            "|---|--:|--:|--:|",
            *lines,
            "",
        ]
    )
    print(table)
    if given.out:
        given.out.write_text(table)
    return 1 if bad else 0


def machine():
    """Return what was measured on: processors, kernel, Python."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python " + (
        platform.python_version()
    )


if __name__ == "__main__":
    sys.exit(main())
