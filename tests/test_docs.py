"""The README keeps its word: what it shows runs, what it names is there, what is there it names.

In the README and the long pages, `python` and `sh` blocks of one section are run in their order, in
one fresh folder.
A Python block whose first line is a comment such as `# worker.py` is written to that file; one
called `# test_….py` is given to pytest too. The other Python blocks of a section share their names.
"""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from test_layers import CORE, ROOMS

import dbbasic_queue
from dbbasic_queue import Queue, enqueue, errors, process_jobs
from dbbasic_queue.cli.arguments import parser

ROOT = Path(__file__).resolve().parent.parent
LONG_PAGES = ["examples/running.md", "examples/reference.md"]
PAGES = [
    "README.md",
    "dbbasic_queue/README.md",
    "examples/README.md",
    "examples/asgi.md",
    "examples/django_project.md",
    *LONG_PAGES,
]
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -q"
COMMANDS = [
    f"{INSTALL} . && .venv/bin/python examples/quickstart.py",
    f"{INSTALL} '.[test]' && .venv/bin/python -m pytest -q",
]
PROGRAMS = ("flock", "sqlite3")  # a block that calls one is left out where it is not installed

# Runs the blocks of one section, given as JSON on stdin; a failing one ends it with a traceback
# that has the README's line numbers.
DRIVER = """
import json, os, subprocess, sys
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed here
names = {"__name__": "readme"}
for kind, what, text in json.load(sys.stdin):
    if kind == "file":
        with open(what, "w") as file:
            file.write(text)
        if what.startswith("test_"):
            subprocess.run([sys.executable, "-m", "pytest", "-q", what], check=True)
    elif kind == "sh":
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)
    else:
        exec(compile("\\n" * what + text, "README.md", "exec"), names)
"""


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


README = page("README.md")


class Block(NamedTuple):
    section: str
    language: str
    line: int  # of the opening fence
    text: str

    def needs(self):
        """The programs and modules that this block cannot do without."""
        if self.language == "sh":
            return [name for name in PROGRAMS if re.search(rf"\b{name}\b", self.text)]
        if "cron=" in self.text:
            return ["cronsim"]
        imports = [node for node in ast.walk(ast.parse(self.text)) if isinstance(node, ast.Import)]
        return [alias.name for node in imports for alias in node.names]

    def is_there(self):
        return all(shutil.which(name) or find_spec(name) for name in self.needs())

    def step(self):
        """What the driver is to do with it."""
        name = re.match(r"# (\w+\.py)\n", self.text)
        if name:
            return "file", name[1], self.text
        return self.language, self.line, self.text


def blocks_of(text):
    found, section, opened = [], "", None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("```") and opened is None:
            opened, lines = (section, line[3:], number), []
        elif line.startswith("```"):
            found.append(Block(*opened, "\n".join(lines) + "\n"))
            opened = None
        elif opened is not None:
            lines.append(line)
        elif line.startswith("## "):
            section = line[3:]
    return found


BLOCKS = [block for name in ("README.md", *LONG_PAGES) for block in blocks_of(page(name))]
RUNNABLE = [block for block in BLOCKS if block.language in ("python", "sh")]
CHECKED = {"The first job", "Every day", "In a handler, and around it", "Upkeep"}  # by name
OTHERS = sorted({block.section for block in RUNNABLE} - CHECKED)


def section(name):
    """The text of one section, without its blocks."""
    text = README.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def only(blocks):
    (block,) = blocks
    return block


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A fresh folder, with this checkout as what python3 and dbbasic-queue mean."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, more in (("python3", ""), ("dbbasic-queue", " -m dbbasic_queue")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{more} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "fresh"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(text):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def drive(shell):
    def run(blocks):
        steps = json.dumps([block.step() for block in blocks if block.is_there()])
        done = subprocess.run(
            [sys.executable, "-c", DRIVER], input=steps, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


# --- what it shows


@pytest.mark.parametrize("name", OTHERS)
def test_the_blocks_of_a_section_run(drive, name):
    drive(section_blocks(name))


def section_blocks(name):
    return [block for block in RUNNABLE if block.section == name]


def test_the_file_that_is_shown_is_what_the_first_job_leaves(drive):
    shown = only(block.text for block in BLOCKS if block.language == "tsv")

    printed = drive(section_blocks("The first job"))

    assert without_times(printed) == without_times(shown)


def without_times(text):
    """What does not change from run to run: not ids, times, workers."""
    return re.sub(r"\bw-\d+-\w+|\b[0-9a-f]{16}\b|\b\d{10}(\.\d{3})?\b", "…", text)


def test_the_two_commands_stand_on_the_first_screen():
    assert [line for line in README.split("\n")[:25] if line in COMMANDS] == COMMANDS


def test_the_crontab_line_is_that_of_the_example():
    line = only(block.text for block in BLOCKS if block.language == "crontab")

    assert line in page("examples/crontab.example")


def test_every_day_prints_what_its_comments_say(drive):
    printed = drive(section_blocks("Every day"))

    assert printed.splitlines()[-3:] == ["pending", "True", "cancelled"]


def test_a_handler_ends_as_its_comments_say(drive):
    printed = drive(section_blocks("In a handler, and around it"))

    ends = [(job.status, job.attempts, job.error) for job in Queue().jobs()]
    assert ends[0] == ("completed", 1, None)
    assert ends[1] == ("pending", 0, None)
    assert ends[2][:2] == ("pending", 1)
    assert ends[3] == ("failed", 1, "no such page")
    assert printed == "begins fetch\n" * 4 + "failed: fetch no such page\n"


@pytest.mark.skipif(not shutil.which("flock"), reason="needs flock(1)")
def test_the_upkeep_restores_the_queue_and_renames_a_type(drive):
    drive(section_blocks("Upkeep"))

    assert [(job.type, job.status) for job in Queue().jobs()] == [("welcome", "pending")]


@pytest.fixture
def hostile(shell):
    """A queue with quotes and tabs in its cells, and a line of nine; type greet is pending."""
    queue = Queue("data/queue.tsv")
    queue.enqueue("text", '"')
    for name in ('quo"te', "tab\there", "new\nline", "a,b|c", "Zürich", "back\\slash", ""):
        queue.enqueue("greet", {"name": name})
    queue.enqueue("fails", '"unclosed', max_attempts=1)
    queue.process_jobs({"fails": lambda payload: 1 / 0, "text": len})
    with open(queue.path, "a") as file:
        file.write('760d646197b16c56\tgreet\t{"name": "nine"}\tpending\t1\t1\t0\t\t\n')
    return queue


def command(start):
    """The one command of the shell blocks that begins so."""
    lines = "\n".join(block.text for block in RUNNABLE if block.language == "sh")
    return only(re.findall(rf"(?m)^{re.escape(start)}(?:.*\\\n)*.*", lines))


def test_awk_counts_what_the_queue_counts(shell, hostile):
    printed = shell(command("awk -F'\\t' 'NR > 1"))

    counts = hostile.counts("type", "status")
    lines = {f"{number} {type} {status}" for (type, status), number in counts.items()}
    assert set(printed.splitlines()) == lines


def test_awk_finds_what_is_due(shell, hostile):
    printed = shell(command("awk -F'\\t' -v now="))

    pending = hostile.jobs(status="pending")
    assert printed.splitlines() == [f"{job.id} {job.type}" for job in pending]


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="needs sqlite3")
def test_sqlite_reads_every_payload(shell, hostile):
    printed = shell(command("sqlite3"))

    names = [job.payload["name"] for job in hostile.jobs(type="greet")]
    assert printed == "".join(f"pending\t{name}\n" for name in names)


def test_duckdb_and_pandas_read_every_cell(shell, hostile, run_python):
    pytest.importorskip("duckdb")
    pytest.importorskip("pandas")
    block = only(b for b in RUNNABLE if b.language == "python" and "duckdb" in b.needs())

    child = run_python(
        block.text + "import json\nprint(json.dumps(jobs.values.tolist()))", cwd=Path.cwd()
    )

    table, _, cells = child.communicate(timeout=60)[0].rstrip("\n").rpartition("\n")
    columns = Path(hostile.path).read_text(encoding="utf-8").split("\n")[0].split("\t")
    rows = [[job.raw(name).decode() for name in columns] for job in hostile.jobs()]
    assert json.loads(cells) == rows
    assert "│ text " in table  # what DuckDB printed: the one type with a completed job


# --- what it names

METHODS = [name for name, _ in inspect.getmembers(Queue, callable) if not name.startswith("_")]
RAISED = [
    name
    for name, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, BaseException)
]
ARGUMENTS = {
    name
    for call in (enqueue, process_jobs, Queue, Queue.jobs, Queue.retry, Queue.purge)
    for name in inspect.signature(call).parameters
}
COMMANDS_OF_THE_SHELL = sorted(parser()._subparsers._group_actions[0].choices)
VARIABLES = sorted(
    {
        name
        for path in (ROOT / "dbbasic_queue").rglob("*.py")
        for name in re.findall(r"\bDBBASIC_[A-Z_]+|\bNO_COLOR\b", path.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize("name", sorted({*dir(dbbasic_queue), *RAISED}))
def test_it_names_every_public_name(name):
    assert re.search(rf"\b{name}\b", README)


@pytest.mark.parametrize("name", METHODS)
def test_it_names_every_method_of_the_queue(name):
    assert re.search(rf"\.{name}\b", README)


@pytest.mark.parametrize("name", sorted(ARGUMENTS - {"self", "keep_by"}))
def test_it_names_every_argument(name):
    assert re.search(rf"\b{name}\b", README)


@pytest.mark.parametrize("name", VARIABLES)
def test_it_names_every_environment_variable(name):
    assert re.search(rf"\${name}\b", README)


def test_it_names_every_command_and_no_other():
    named = set(re.findall(r"\bdbbasic-queue ([a-z-]+)\b", README))

    assert sorted(named) == COMMANDS_OF_THE_SHELL


def test_it_names_every_option_that_it_uses_as_the_command_has_it():
    options = set()
    commands = list(parser()._subparsers._group_actions[0].choices.values())
    for command in commands:
        for action in command._actions:
            options.update(action.option_strings)
            commands += (action.choices or {}).values() if hasattr(action, "add_parser") else ()
    shown = "\n".join(block.text for block in BLOCKS if "dbbasic-queue" in block.text)

    assert set(re.findall(r"(?<![\w-])--[a-z-]+", shown)) <= options


def test_p37_it_says_that_payloads_are_plain_text():
    assert re.search("payloads are plain text", README, re.IGNORECASE)


@pytest.mark.parametrize("name", ["README.md", "dbbasic_queue/README.md"])
def test_it_names_the_modules_in_reading_order(name):
    text = page(name)
    text = text.split("in reading order", 1)[1] if "in reading order" in text else text

    named = [found for found in re.findall(r"`(\w+)`", text) if found in CORE]

    assert list(dict.fromkeys(named)) == CORE
    assert {room for room in ROOMS if f"`{room}`" in text} >= ROOMS - {"__main__"}


# --- its form


@pytest.mark.parametrize("name,limit", [("README.md", 400), ("dbbasic_queue/README.md", 150)])
def test_a_page_stays_short(name, limit):
    assert len(page(name).splitlines()) < limit


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    text, folder = page(name), (ROOT / name).parent
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    wrong = []
    for link in links:
        file, _, anchor = link.partition("#")
        there = folder / file if file else ROOT / name
        if not there.exists() or (anchor and anchor not in anchors_of(there)):
            wrong.append(link)
    assert wrong == []


def anchors_of(path):
    return {slug(title) for title in re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))}


def slug(title):
    """The anchor that a heading gets."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_no_machine_of_ours(name):
    assert re.findall(r"/(?:root|work|tmp|home)\b", page(name)) == []
