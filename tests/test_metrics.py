"""The figures as Prometheus reads them, by its own parser, over HTTP and from a file."""

import json
import os
import re
import shutil
import stat
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from dbbasic_queue import Queue
from dbbasic_queue.cli import main
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.limits import pause
from dbbasic_queue.metrics import PREFIX, collector, text, write

ROOT = Path(__file__).resolve().parent.parent
PROMTOOL = shutil.which("promtool")
LINE = re.compile(r'(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)')


def samples(exposition):
    """{(name, labels as they stand): value}, read by the rules of the format, line for line."""
    found = {}
    for line in exposition.splitlines():
        if not line.startswith("#"):
            name, labels, value = LINE.fullmatch(line).groups()
            found[name.removeprefix(PREFIX), labels or ""] = float(value)
    return found


def parsed(exposition):
    parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus_client")
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(exposition)
        for sample in family.samples
    }


@pytest.fixture
def full(queue):
    """A queue with jobs in each place of their life; a tick has just ended."""
    queue.enqueue("mail", {"to": "ana"})
    queue.enqueue("mail", queue="high")
    queue.enqueue("fails", max_attempts=1)
    queue.enqueue("nobody", queue="low")
    queue.process_jobs({"mail": lambda payload: payload, "fails": lambda payload: 1 // 0})
    pause("low", queue)
    return queue


def test_the_figures_are_those_of_the_queue(full):
    found = samples(text(full))

    assert found["up", ""] == 1
    assert found["jobs", 'queue="default",status="completed"'] == 1
    assert found["jobs", 'queue="default",status="failed"'] == 1
    assert found["type_jobs", 'type="mail",status="completed"'] == 2
    assert found["due", 'queue="low"'] == 1
    assert found["due", 'queue="high"'] == 0
    assert found["paused", 'queue="low"'] == 1
    assert (found["processed_jobs", ""], found["failed_jobs", ""]) == (3, 1)
    assert (found["workers", ""], found["uptime_seconds", ""]) == (0, 0)
    assert found["success_ratio", ""] == pytest.approx(2 / 3, abs=0.001)
    assert found["type_success_ratio", 'type="fails"'] == 0
    assert 0 <= found["run_seconds", 'quantile="0.5"'] <= found["run_seconds", 'quantile="0.95"']
    assert found["type_run_seconds", 'type="mail",quantile="0.95"'] < 5
    assert 0 <= found["last_tick_age_seconds", ""] < 5
    assert abs(found["last_tick_timestamp_seconds", ""] - time.time()) < 5
    assert 0 <= found["oldest_due_age_seconds", 'queue="low"'] < 5
    assert found["bad_lines", ""] == 0


def test_what_is_archived_counts_on(full):
    before = samples(text(full))
    full.archive(0)

    found = samples(text(full))

    assert (found["processed_jobs", ""], found["archived_jobs", ""]) == (3, 3)
    assert found["failed_jobs", ""] == 1
    assert before["archived_jobs", ""] == 0
    assert found["jobs", 'queue="low",status="pending"'] == 1


def test_an_empty_queue_has_metrics_too_without_what_cannot_be_told(queue):
    found = samples(text(queue))

    assert found["up", ""] == 1
    assert found["processed_jobs", ""] == 0
    assert not {"last_tick_age_seconds", "success_ratio", "run_seconds"} & {n for n, _ in found}


def test_each_metric_has_one_help_and_one_type_before_its_samples(full):
    lines = text(full).splitlines()

    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    for at, line in enumerate(lines):
        if line.startswith("# TYPE"):
            assert lines[at - 1].startswith(f"# HELP {line.split()[2]} ")
            assert lines[at + 1].startswith(line.split()[2])
    assert text(full).endswith("\n")


HOSTILE = ['a"b', "a\\b", 'x"} 1\nevil_metric 2', "ü\u2028\u0085", "\\", '"', "{}", "a\x1b[31mb"]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_label_breaks_out_of_its_quotes(queue, name):
    by_hand = name.replace("\\", "\\\\").replace("\n", "\\n")  # as a row of the file has it
    queue.enqueue("mail")
    with open(queue.path, "ab") as file:
        row = ["f" * 16, by_hand, "{}", "pending", "1", "1", "0", "", "", by_hand, *[""] * 9]
        file.write("\t".join(row).encode() + b"\n")

    exposition = text(queue, labels={"app": name})

    found = samples(exposition)
    assert {n for n, _ in found} <= {
        line.split()[2][len(PREFIX) :]
        for line in exposition.splitlines()
        if line.startswith("# TYPE")
    }
    assert not re.search(r"(?m)^evil", exposition)
    assert sum(v for (n, _), v in found.items() if n == "jobs") == 2


def test_the_parser_of_prometheus_gives_back_the_same(full):
    exposition = text(full, labels={"app": 'sh"op\\'})

    found = parsed(exposition)

    assert len(found) == len(samples(exposition))
    key = (("app", 'sh"op\\'), ("queue", "default"), ("status", "failed"))
    assert found["jobs", key] == 1


@pytest.mark.parametrize("labels", [{"queue": "x"}, {"1a": "x"}, {"__a": "x"}, {"": "x"}, {"a": 1}])
def test_a_label_that_cannot_be_is_refused(queue, labels):
    with pytest.raises(BadArgument, match="label"):
        text(queue, labels=labels)


if PROMTOOL:  # of Debian's package `prometheus`, which CI does without

    def test_promtool_finds_nothing_to_say(full):
        done = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=text(full), capture_output=True, text=True
        )

        assert (done.returncode, done.stdout + done.stderr) == (0, "")


# --- the file


def test_a_file_is_written_whole_and_can_be_read_by_everybody(full, tmp_path):
    path = tmp_path / "node" / "queue.prom"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o600)
    before = os.stat(path).st_ino
    mask = os.umask(0o077)

    try:
        write(path, full, labels={"app": "shop"})
    finally:
        os.umask(mask)

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert os.stat(path).st_ino != before  # by rename: no reader sees half of it
    assert os.listdir(path.parent) == ["queue.prom"]
    assert samples(path.read_text())["up", 'app="shop"'] == 1


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(full, tmp_path):
    path = tmp_path / "queue.prom"
    path.mkdir()

    with pytest.raises(OSError, match="queue"):
        write(path, full)

    assert [name for name in os.listdir(tmp_path) if "prom" in name] == ["queue.prom"]


def test_a_queue_that_cannot_be_read_writes_no_file(tmp_path):
    (tmp_path / "queue.tsv").write_text("name\tage\n")

    status = main(["--file", str(tmp_path / "queue.tsv"), "metrics", "--out", "q.prom"])

    assert status == 2
    assert not Path("q.prom").exists()


# --- the shell


def test_the_command_prints_the_text_and_nothing_on_stderr(full, capfd):
    assert main(["--file", full.path, "metrics", "--label", "app=shop"]) == 0

    out, err = capfd.readouterr()
    assert err == ""
    assert samples(out)["jobs", 'app="shop",queue="high",status="completed"'] == 1


def test_the_command_writes_the_file_and_prints_nothing(full, capfd):
    assert main(["--file", full.path, "metrics", "--out", "queue.prom"]) == 0

    assert capfd.readouterr() == ("", "")
    assert samples(Path("queue.prom").read_text())["up", ""] == 1


def test_json_is_the_figures(full, capfd):
    assert main(["--file", full.path, "metrics", "--json"]) == 0

    assert json.loads(capfd.readouterr().out)["processed"] == 3


@pytest.mark.parametrize(
    "words", [["--label", "app"], ["--label", "queue=x"], ["--json", "--out", "x"]]
)
def test_words_that_cannot_be_are_told(full, words, capfd):
    assert main(["--file", full.path, "metrics", *words]) == 2

    assert capfd.readouterr().err.count("\n") == 1


# --- prometheus_client


def test_the_collector_gives_the_same_as_the_text(full):
    client = pytest.importorskip("prometheus_client", reason="needs the extra `metrics`")
    registry = client.CollectorRegistry()
    registry.register(collector(full, labels={"app": "shop"}))

    first = parsed(client.generate_latest(registry).decode())
    full.enqueue("mail", queue="high")
    second = parsed(client.generate_latest(registry).decode())

    wanted = parsed(text(full, labels={"app": "shop"}))
    assert second.keys() == wanted.keys()
    changing = {"last_tick_age_seconds", "oldest_due_age_seconds", "last_tick_timestamp_seconds"}
    for key in wanted.keys() - {key for key in wanted if key[0] in changing}:
        assert second[key] == wanted[key]
    high = (("app", "shop"), ("queue", "high"), ("status", "pending"))
    assert (first["jobs", high], second["jobs", high]) == (0, 1)


def test_a_queue_that_cannot_be_read_spoils_no_scrape(tmp_path):
    client = pytest.importorskip("prometheus_client", reason="needs the extra `metrics`")
    registry = client.CollectorRegistry()
    registry.register(collector(Queue(tmp_path / "queue.tsv")))
    client.Gauge("mine", "of the program", registry=registry).set(7)
    (tmp_path / "queue.tsv").write_text("name\tage\n")

    found = parsed(client.generate_latest(registry).decode())

    assert found == {("up", ()): 0, ("mine", ()): 7}


@pytest.mark.soak
def test_a_real_scrape_over_http_gets_what_is_now(run_python):
    pytest.importorskip("prometheus_client", reason="needs the extra `metrics`")
    source = (ROOT / "examples/prometheus_metrics.py").read_text()
    child = run_python(f"import sys\nsys.argv = ['x', '0']\n{source}")
    url = child.stdout.readline().strip()

    def scrape():
        with urllib.request.urlopen(url, timeout=20) as answer:
            return parsed(answer.read().decode())

    before = scrape()
    Queue().enqueue("greet", {"name": "Dora"}, queue="high")
    after = scrape()

    assert before["processed_jobs", ()] == 2
    assert before["due", (("queue", "default"),)] == 1
    assert after["due", (("queue", "high"),)] == 1
