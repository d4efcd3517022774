"""examples/how_far.md says what the model and the arithmetic say, and its commands run."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "examples" / "how_far.md").read_text(encoding="utf-8")
BENCHMARKS = ROOT / "tests" / "benchmarks"
COMMAND = re.search(r"(?m)^python3 (tests/benchmarks/lock_model\.py) (.*)$", PAGE)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("lock_model")
    sys.modules.pop("lock_model")


@pytest.fixture
def costs(model):
    """The parameters that stand in the page."""
    words = COMMAND[2].split()
    named = dict(zip(words[::2], map(float, words[1::2]), strict=True))
    return model.Costs(**{name[2:].replace("-", "_"): value for name, value in named.items()})


def table(start):
    """The rows of the page's one table whose head begins so, each a list of cells."""
    (text,) = re.findall(rf"(?m)^\| {re.escape(start)}.*\n\|[-|: ]*\n((?:\|.*\n)+)", PAGE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def number(cell):
    return float(re.match(r"[\d,.]+", cell)[0].replace(",", ""))


# --- the model


def test_a_job_alone_waits_for_the_next_look_and_one_edit(model):
    costs = model.Costs(enqueue=1, edit=10, edit_mb=2, edit_row=0.5)

    # a first edit until 0.05; the job is there at 0.061, seen at 0.15, claimed at 0.2005
    waiting = model.Model(costs, mb=20)
    waiting.run([waiting.producer([0.06]), waiting.worker(0.001, 1)])

    assert waiting.calls == pytest.approx([0.001])
    assert waiting.delays == pytest.approx([0.1405])


def test_a_call_in_the_middle_of_an_edit_waits_for_its_end_and_at_most_a_nap(model):
    costs = model.Costs(enqueue=1, edit=1000, edit_mb=0, edit_row=0)

    waiting = model.Model(costs, mb=20)
    waiting.run([waiting.worker(0.001, 1), waiting.producer([0.4])])

    (call,) = waiting.calls
    assert 0.601 <= call <= 0.601 + 0.0075


def test_the_same_parameters_give_the_same_figures_and_another_seed_others(model):
    one, same = (model.simulate(model.Costs(), 50, 5, jobs=100) for _ in range(2))
    other = model.simulate(model.Costs(), 50, 5, jobs=100, seed=1)

    assert one == same
    assert one != other
    assert len(one.calls) == len(one.delays) == 100


def test_a_larger_file_makes_each_job_wait_longer(model):
    delays = [
        model.percentile(model.simulate(model.Costs(), mb, 2, jobs=200).delays, 0.5)
        for mb in (1, 50, 200, 800)
    ]

    assert delays == sorted(delays)
    assert delays[-1] > 5 * delays[0]


# --- the page


def test_at_the_rates_of_the_page_the_slowest_hundredth_waits_about_a_second(model, costs):
    for row in table("kept | p99 of delays"):
        amount, unit = row[0].split()
        days = float(amount) / (24 if unit.startswith("hour") else 1)
        rate = number(row[1])

        found = model.simulate(costs, costs.mb(rate, days), rate)

        assert 0.8 < model.percentile(found.delays, 0.99) < 1.25, row


def test_the_outboxes_of_the_page_are_the_arithmetic(model, costs):
    for line in model.outbox_table(costs):
        assert line in PAGE


def test_the_measured_edits_of_the_page_are_about_its_formula(costs):
    for row in table("rows | MB | enqueue"):
        edit, unit = row[6].split()
        measured = float(edit) / {"s": 1, "ms": 1e3, "µs": 1e6}[unit]

        assert measured == pytest.approx(costs.edit_seconds(number(row[1]), 1), rel=0.5)


def test_the_page_stays_short_and_its_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", PAGE) if "://" not in link]

    assert len(PAGE.splitlines()) <= 160
    assert links
    assert [link for link in links if not (ROOT / "examples" / link).exists()] == []
    assert re.findall(r"/(?:root|work|tmp|home)\b", PAGE) == []


@pytest.mark.soak
def test_its_commands_run_and_the_model_prints_its_tables(tmp_path):
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, more in (("python3", ""), ("dbbasic-queue", " -m dbbasic_queue")):
        (bin / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{more} "$@"\n')
        (bin / name).chmod(0o755)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    path = {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", PAGE)

    printed = [
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            env={**os.environ, **path}, cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout
        for block in blocks
    ]  # fmt: skip

    (tables,) = [out for block, out in zip(blocks, printed, strict=True) if COMMAND[0] in block]
    assert tables.count("|\n") == 11
    assert [line for line in tables.splitlines() if line not in PAGE] == []


@pytest.mark.soak
def test_the_benchmark_runs_in_a_small_size_and_prints_each_table():
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "how_far.py", "--quick", "--out", "."],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    for start in ("rows | MB", "rows | producers", "a handler waits", "files", "kept | at most"):
        assert re.search(rf"(?m)^\| {re.escape(start)}.*\n\|[-|]*\n\| \w", done.stdout), start
    assert len(re.findall(r"(?m)^\| +\| +\| measured / model \|", done.stdout)) == 1
    assert os.listdir() == []
