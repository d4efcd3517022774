"""The benchmarks run, and answer for each row of the design's table of goals; the README tells what
the committed run has found, and nothing else."""

import importlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"
RESULTS = BENCHMARKS / "results" / "benchmark.json"
README = BENCHMARKS.parents[1] / "README.md"
GOALS = (
    "enqueue-off enqueue bulk drain drain-full idle-tick get-job memory-idle memory-drain together"
    " beside"
).split()


def run(*arguments):
    """Run the benchmarks with what this Python has, and return their record and their output."""
    path = os.pathsep.join(filter(None, [str(BENCHMARKS.parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, BENCHMARKS, "--out", "results", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(Path("results/benchmark.json").read_text()), done.stdout


@pytest.mark.engine
def test_a_quick_run_has_a_record_of_each_goal():
    record, output = run("--quick")

    found = {one["id"]: one for one in record["records"]}
    assert found.keys() >= set(GOALS)
    for id in GOALS:
        one = found[id]
        assert one["ours"] is not None, id
        assert one["peers"]["sqlite FULL" if id in ("enqueue", "drain-full") else "sqlite NORMAL"]
    assert record["failed"] == {}
    together = found["together"]["figures"]["ours off"]["100"]
    assert (together["lost"], together["doubled"]) == (0, 0)
    assert record["machine"]["python"] and record["machine"]["file_system"]
    assert all(one["workload"] in output for one in found.values())
    assert len(re.findall(r"took \d+ s", output)) == len(found) - 2  # memory is part of others
    assert [path.name for path in Path("results").iterdir() if path.is_dir()] == []


@pytest.mark.engine
def test_the_pictures_are_svgs_with_a_line_for_each_workload():
    record, _ = run("--quick", "--only", "get", "import", "--peers", "sqlite")

    assert [one["id"] for one in record["records"]] == ["get-job", "import"]
    assert texts_of("results/benchmark.svg") >= {
        "get_job by id, 1k",
        "a new process that imports the package",
    }
    assert "get_job by id" in texts_of("results/growth.svg")


def texts_of(path):
    picture = ElementTree.parse(path).getroot()
    return {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}


@pytest.mark.engine
def test_peers_that_are_not_installed_are_named_with_how_to_get_them():
    record, output = run("--quick", "--only", "import", "--peers")

    assert "1.0.0" in record["left_out"]
    assert "left out: 1.0.0 needs dbbasic-queue==1.0.0 (--venv FOLDER installs it" in output


# --- the README


@pytest.fixture
def readme(monkeypatch):
    """The program that makes the README's table."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("readme")
    for name in ("readme", "record"):
        sys.modules.pop(name)


@pytest.fixture
def small_record():
    """A run of one row, by hand."""
    sides = {
        "ours off": {"value": 30.04, "p99": 90},
        "sqlite NORMAL opened": {"value": 360.4},
        "sqlite NORMAL": {"value": 9.85},
        "limit": {"value": 20},
    }
    goals = [
        {"met": True, "decides": True, "value": 12.0},
        {"met": False, "decides": True, "value": 61},
        {"met": True, "decides": False, "value": 61},
    ]
    one = {
        "id": "get-job", "workload": "get_job by id", "unit": "µs", "second": "p99", "goal": "",
        "limit_is": "open, 27 preads, close", "fair": ["sqlite NORMAL opened"], "checks": goals,
        "figures": {side: {"1000": found} for side, found in sides.items()},
    }  # fmt: skip
    machine = {"cpu": "Chip 7", "cores": 2, "file_system": "ext4", "python": "3.11.7"}
    return {
        "date": "2026-11-22 12:00:00 +0000", "command": "python tests/benchmarks --rounds 3",
        "machine": {**machine, "sqlite": "3.40.1"}, "rounds": 3, "seconds": 900, "records": [one],
    }  # fmt: skip


def test_a_line_of_the_table_has_ours_the_best_like_for_like_and_a_quicker_one(
    readme, small_record
):
    lines = readme.table(small_record).splitlines()

    assert "on 2026-11-22: Chip 7, 2 cores, ext4, Python 3.11.7, SQLite 3.40.1." in lines[0]
    assert lines[4:] == [
        "| get_job by id, 1,000 rows | 30 µs, p99 90 | sqlite NORMAL opened 360 µs | 12 × "
        "| sqlite NORMAL 9.85 µs | 20 µs | 1 of 2 |"
    ]


@pytest.mark.parametrize(
    "text,unknown",
    [
        ("It takes 30 µs, 12 × less than 360 µs; with 1,000 rows, in 3 rounds.", []),
        ("[Two](https://example.com/77) on Python 3.11.7, on 2026-11-22.", []),
        ("It takes 31 µs, 11 × less; with 2,000 rows.", ["31 µs", "11 ×", "2,000"]),
        ("It takes 30 ms, and 30.0 µs: not as it is printed.", ["30 ms", "30.0 µs"]),
    ],
)
def test_a_figure_that_was_not_measured_is_found_out(text, unknown, readme, small_record):
    assert readme.unknown_figures(text, small_record) == unknown


def test_the_readme_has_the_table_and_the_figures_of_the_committed_run(readme):
    text = README.read_text(encoding="utf-8").split("\n## Numbers\n", 1)[1].split("\n## ", 1)[0]
    if not RESULTS.exists():  # not measured yet: then it shows no results
        assert readme.HERE not in text
        return

    record = json.loads(RESULTS.read_text(encoding="utf-8"))

    table = readme.table(record)
    assert table in text, "python tests/benchmarks/readme.py prints it"
    assert readme.unknown_figures(text.replace(table, ""), record) == []


def test_the_committed_files_are_of_one_complete_run(readme):
    if not RESULTS.exists():
        assert not RESULTS.parent.exists()
        return
    record = json.loads(RESULTS.read_text(encoding="utf-8"))

    assert {one["id"] for one in record["records"]} >= set(GOALS)
    assert (record["quick"], record["failed"], record["left_out"]) == (False, {}, {})
    assert sorted(path.name for path in RESULTS.parent.iterdir()) == [
        "benchmark.json", "benchmark.svg", "benchmark.txt", "growth.svg",
    ]  # fmt: skip
    report = RESULTS.with_suffix(".txt").read_text(encoding="utf-8")
    assert report.startswith(f"{record['date']}  {record['command']}\n")
