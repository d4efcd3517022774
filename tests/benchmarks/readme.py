"""The table of the README's section Numbers: `python tests/benchmarks/readme.py`.

A line for each row of the design's table of goals, made of the committed benchmark.json; a test
compares it with the README.  What the text around it says in figures has to stand there too.
"""

import json
import re
import sys
from pathlib import Path

from record import LIMIT, at, best, figure, ours, peers, quicker, short, value

RESULTS = Path(__file__).resolve().parent / "results"
HERE = "tests/benchmarks/results"
ROWS = (
    ("enqueue-off",), ("enqueue",), ("drain",), ("drain-full",), ("idle-tick",),
    ("get-job",), ("memory-idle", "memory-drain"), ("together",),
)  # fmt: skip
HEAD = "| median | ours | best peer, like for like | ratio | a quicker one | limit | goals met |"
UNITS = "µs|ms|MB|×|s"
FIGURE = re.compile(rf"(?<![\w.,])(\d[\d,]*(?:\.\d+)*) ?((?:{UNITS})\b|×)?")


def table(record):
    """Return what the README says: where it was measured, the picture, and the table."""
    of, found = record["machine"], {one["id"]: one for one in record["records"]}
    lines = [
        f"`{record['command']}` on {record['date'][:10]}: {of['cpu']}, {of['cores']} cores, "
        f"{of['file_system']}, Python {of['python']}, SQLite {of['sqlite']}. "
        f"[All of it]({HERE}/benchmark.txt); [how cost grows]({HERE}/growth.svg). "
        f"![Peers, as a multiple of what this queue takes]({HERE}/benchmark.svg)",
        "",
        HEAD,
        re.sub(r"[^|]+", "---", HEAD),
    ]
    for ids in ROWS:
        cells = zip(*(cells_of(found[id]) for id in ids if id in found), strict=True)
        line = " | ".join(" / ".join(cell) for cell in cells)
        lines += [f"| {line} |"] if line else []
    return "\n".join(lines)


def cells_of(one):
    side, sizes = ours(one)
    first, less = best(one), quicker(one)
    size = first[1] if first else max(sizes, key=int)
    rows = f", {int(size):,} rows" if int(size) else ""
    text = figure(value(one, side, size), one["unit"])
    for metric in ("p99", "lost", "doubled"):
        number = value(one, side, size, metric)
        if number is not None and (metric != "p99" or one["second"] == "p99"):
            text += f", {metric} {short(number)}"
    limit = at(one, LIMIT)
    deciding = [check["met"] for check in one["checks"] if check["decides"]]
    return (
        one["workload"] + rows,
        text,
        named(one, first),
        f"{short(first[2])} ×" if first else "–",
        named(one, less),
        figure(value(one, LIMIT, limit), one["unit"]) if limit else "–",
        f"{sum(map(bool, deciding))} of {len(deciding)}",
    )


def named(one, found):
    return f"{found[0]} {figure(value(one, *found[:2]), one['unit'])}" if found else "–"


def unknown_figures(text, record):
    """Return the numbers in a text that the record does not have.

    A number with a unit has to be a measured one, or a ratio or a check of one, rounded as the
    tables round it; one without a unit stands in the record's words, or is one of its sizes.
    """
    known, plain = set(), set(re.findall(r"\d[\d.]*\d|\d", words(record)))
    for one in record["records"]:
        for sizes in one["figures"].values():
            for size, figures in sizes.items():
                plain |= {size, f"{int(size):,}"}
                known |= {figure(number, one["unit"]) for number in figures.values()}
        known |= {figure(ratio, "×") for _, _, ratio in peers(one)}
        known |= {figure(1 / ratio, "×") for _, _, ratio in peers(one)}
        known |= {figure(check["value"], "×") for check in one["checks"] if check["value"]}
    text = re.sub(r"\]\([^)]*\)", "]", text)  # where links lead
    found = ((match[1].rstrip(","), match[2]) for match in FIGURE.finditer(text))
    return [
        f"{number} {unit or ''}".strip()
        for number, unit in found
        if (f"{number} {unit}" not in known if unit else number not in plain)
    ]


def words(record):
    """All that the record says in words, and the numbers beside the measured ones."""
    said = {name: record[name] for name in ("date", "command", "rounds", "machine", "seconds")}
    told = [(one["workload"], one["limit_is"], one["goal"]) for one in record["records"]]
    return json.dumps([said, told], ensure_ascii=False)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "benchmark.json"
    print(table(json.loads(path.read_text(encoding="utf-8"))))
