"""This queue beside its peers: `python tests/benchmarks --venv FOLDER`; --quick for a short look.

Prints a table, and writes benchmark.txt, benchmark.json, benchmark.svg and growth.svg.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from chart import pictures
from measure import LIMIT, ROOT, Bench, make_venvs
from peers import SIDES
from record import short
from rows import ROWS


def main():
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    begun, found = time.time(), {}
    venv, seconds = options.venv and options.venv.resolve(), 0.3 if options.quick else 5.0
    if venv:
        make_venvs(venv)
    with Bench(options.out, venv, seconds) as bench:
        record = {
            "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "command": command(sys.argv[1:]),
            "quick": options.quick,
            "rounds": options.rounds,
            "machine": machine(bench),
            "left_out": bench.left_out,
            "failed": bench.failed,
            "records": [],
        }
        lines = heading(record)
        print("\n".join(lines), flush=True)
        for row in wanted_rows(options.only):
            at = time.time()
            if row.work:
                sides = [side for side in row.sides if takes_part(side, options, bench)]
                sizes = row.quick if options.quick else row.sizes
                found[row.id] = bench.run(row, sizes, options.rounds, sides)
            else:
                found[row.id] = found[row.sides[0]].derived(row)
            record["records"].append(as_record(row, found[row.id]))
            record["records"][-1]["seconds"] = round(time.time() - at)
            table = ["", *as_table(row, found[row.id], record["records"][-1])]
            table += [f"    took {record['records'][-1]['seconds']} s"] if row.work else []
            print("\n".join(table), flush=True)
            lines += table
            record["seconds"] = round(time.time() - begun)
            record["machine"]["load_at_end"] = os.getloadavg()
            save(options.out, record, lines)  # each time: a long run may be interrupted
    for where, problem in bench.failed.items():
        print(f"\nbroke down: {where}\n{problem}")
    print(f"\n{record['seconds']} s; the table, its JSON and two pictures are in {options.out}")


def save(folder, record, lines):
    write(folder / "benchmark.txt", "\n".join([*lines, ""]))
    text = json.dumps(record, indent=1, ensure_ascii=False)
    write(folder / "benchmark.json", text + "\n")
    for name, picture in pictures(json.loads(text)):
        write(folder / name, picture)


def arguments():
    name = "python tests/benchmarks"
    parser = argparse.ArgumentParser(description=__doc__, prog=name, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, a minute")
    parser.add_argument("--rounds", type=int, help="how often each is run (5; quick: 1)")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows with a word that begins so")
    parser.add_argument(
        "--peers", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; none: ours alone"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "benchmarks", metavar="FOLDER",
        help="for the results; the queues lie there too, so it says which disk (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--venv", type=Path, metavar="FOLDER", help="with the peers; pip installs what is missing"
    )
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.rounds = options.rounds or (1 if options.quick else 5)
    if options.peers and not set(options.peers) <= set(names()):
        parser.error(f"--peers: of {', '.join(names())}")
    if not wanted_rows(options.only):
        parser.error(f"--only: of {', '.join(row.id for row in ROWS)}")
    return options


def command(words):
    """The command as it is published: where the folders of this machine lie is left out."""
    folders = {"--venv": "FOLDER", "--out": "FOLDER"}
    said = [folders.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    said = [re.sub(r"^(--(?:venv|out))=.*", r"\1=FOLDER", word) for word in said]
    return shlex.join(["python", "tests/benchmarks", *said])


def names():
    return [*dict.fromkeys(side.split()[0] for side in SIDES if not side.startswith("ours"))]


def takes_part(side, options, bench):
    asked = options.peers is None or side.startswith("ours") or side.split()[0] in options.peers
    return asked and side not in bench.left_out


def wanted_rows(words):
    """Rows of that id, or else with a word that begins so; with the rows they are derived from."""
    wanted = [row for row in ROWS if words and row.id in words]
    words = words and tuple(set(words) - {row.id for row in wanted})
    for row in ROWS:
        names = [row.id, *row.id.split("-"), *row.workload.split()]
        if words is None or any(name.startswith(words) for name in names if words):
            wanted.append(row)
    sources = {row.sides[0] for row in wanted if not row.work}
    return [row for row in ROWS if row in wanted or row.id in sources]


def machine(bench):
    from dbbasic_queue.mount import mount_type

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    except (OSError, StopIteration):
        cpu = platform.processor()
    version = "import platform, sqlite3; print(platform.python_version(), sqlite3.sqlite_version)"
    told = subprocess.run([bench.python, "-c", version], capture_output=True, text=True, check=True)
    python, sqlite = told.stdout.split()
    commit = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": f"{platform.system()} {platform.release()}",
        "file_system": mount_type(str(bench.folder)),
        "load": os.getloadavg(),
        "python": python,
        "sqlite": sqlite,
        "commit": commit.stdout.strip(),
        "peers": bench.versions,
    }


# --- what was found


def as_record(row, found):
    """Return a row as the record of it, with the figures of the largest size in front."""
    first = next((row for row in ROWS if row.id == row.sides[0]), row)
    checks = []
    for check in row.checks:
        value = check.ask(found)
        met = None if value is None else bool(check.good(value))
        checks.append({"goal": check.text, "value": value, "met": met, "decides": check.decides})
    deciding = [check["met"] for check in checks if check["decides"]]
    return {
        "id": row.id,
        "workload": row.workload,
        "sizes": list(found.sizes),
        "unit": row.unit,
        "second": row.second,
        "ours": found.value(found.ours),
        "peers": {s: found.value(s) for s in found.figures if s not in (found.ours, LIMIT)},
        "limit": found.value(LIMIT),
        "limit_is": row.limit[0] if row.limit else first.limit and first.limit[0],
        "fair": [side for side in row.fair if side in found.figures],
        "goal": "; ".join(check.text for check in row.checks if check.decides),
        "met": all(deciding) if deciding and None not in deciding else None,
        "checks": checks,
        "figures": found.figures,
    }


def heading(record):
    of = record["machine"]
    peers = ", ".join(f"{name} {version}" for name, version in of["peers"].items())
    return [
        f"{record['date']}  {record['command']}",
        f"{of['cpu']}, {of['cores']} cores, {of['system']}, {of['file_system']}, "
        f"load {of['load'][0]:.1f}",
        f"Python {of['python']}, SQLite {of['sqlite']}, {peers}, ours {of['commit']}",
        f"rounds: {record['rounds']}, medians" + (", quick" if record["quick"] else ""),
        "The last column: how many times as quick (or as small) as that side ours is.",
        *(f"left out: {side} {reason}" for side, reason in record["left_out"].items()),
    ]


def as_table(row, found, record):
    """Return lines: the sizes across, the sides down, each beside ours; then the goals."""
    second = f" ({row.second})" if row.second else ""
    title = f"{row.workload}, {row.unit}{second}"
    lines = [f"{title:44}" + "".join(f"{size:>18,}" for size in found.sizes) + "      ours"]
    for side, sizes in found.figures.items():
        name = record["limit_is"] if side == LIMIT and record["limit_is"] else side
        cells = [cell(sizes.get(size), row.second) for size in found.sizes]
        ratio = ratio_to(found, side)
        lines.append(f"  {name:42}" + "".join(f"{text:>18}" for text in cells) + ratio)
    for check in record["checks"]:
        value = "" if check["value"] is None else f": {short(check['value'])}"
        verdict = {True: "met", False: "not met", None: "not measured"}[check["met"]]
        lines.append(f"    {check['goal']}{value}, {verdict}")
    return lines


def cell(figures, second):
    if not figures:
        return ""
    more = f" ({short(figures[second])})" if second in figures else ""
    fewer = f" of {figures['rows']:,}" if "rows" in figures else ""
    return short(figures["value"]) + more + fewer


def ratio_to(found, side):
    size = found.common(side)
    theirs, mine = found.value(side, size=size), found.value(found.ours, size=size)
    return f"   {short(theirs / mine)} ×" if side != found.ours and theirs and mine else ""


def write(path, text):
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(1, str(ROOT))
    main()
