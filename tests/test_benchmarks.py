"""The benchmarks run, and answer for each row of the design's table of goals."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"
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
    for id, one in found.items():
        assert one["ours"] is not None, id
        assert one["peers"]["sqlite FULL" if id in ("enqueue", "drain-full") else "sqlite NORMAL"]
    assert record["failed"] == {}
    together = found["together"]["figures"]["ours off"]["100"]
    assert (together["lost"], together["doubled"]) == (0, 0)
    assert record["machine"]["python"] and record["machine"]["file_system"]
    assert all(one["workload"] in output for one in found.values())
    assert [path.name for path in Path("results").iterdir() if path.is_dir()] == []


@pytest.mark.engine
def test_the_picture_is_an_svg_with_a_line_for_each_workload():
    record, _ = run("--quick", "--only", "get", "enqueue_many", "--peers", "sqlite")

    picture = ElementTree.parse("results/benchmark.svg").getroot()

    texts = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert [one["id"] for one in record["records"]] == ["bulk", "get-job"]
    assert {one["workload"] for one in record["records"]} <= texts


@pytest.mark.engine
def test_peers_that_are_not_installed_are_named_with_how_to_get_them():
    record, output = run("--quick", "--only", "import", "--peers")

    assert "1.0.0" in record["left_out"]
    assert "left out: 1.0.0 needs dbbasic-queue==1.0.0 (--venv FOLDER installs it" in output
