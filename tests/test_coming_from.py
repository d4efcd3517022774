"""The pages for those who come from elsewhere keep their word: each right side runs, and does it.

In the column "here" of their tables every cell of code is run, those of one row one after the
other, in a folder of its own with the queue that examples/coming_from/README.md describes.
"""

import ast
import builtins
import contextlib
import io
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from dbbasic_queue import Queue, errors
from dbbasic_queue.cli import main
from dbbasic_queue.cli.arguments import parser

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "coming_from"
SOURCES = {
    "horton.md": ("H", 107),
    "horus.md": ("R", 29),
    "usage_guide.md": ("D", 57),
    "laravel.md": ("L", 119),
    "queuerpy.md": ("Q", 75),
}
RIVALS = ("celery.md", "rq.md", "huey.md", "task_spooler.md")
PAGES = sorted(path.name for path in FOLDER.glob("*.md"))
TABLES = [name for name in PAGES if name != "README.md"]
OTHERS = {*TABLES} - {"usage_guide.md"}  # the contract's page runs in each plain run
LEAST = 250  # names of others that run through what stands to their right
WORDS = ("refused:", "not in this version")


def slowly(name):
    return pytest.param(name, marks=pytest.mark.soak)


class Row(NamedTuple):
    page: str
    line: int
    number: str
    source: str
    here: str

    def cells(self):
        """The code on the right side."""
        found = re.findall(r"(?<!`)`([^`]+)`(?!`)", self.here)
        return [cell.strip().replace("\\|", "|") for cell in found]

    def is_there(self):
        """Whether what it needs beside this package is installed."""
        sealed = re.search(r"dbbasic_queue\.(crypt|sign)\b", self.here)
        return (not sealed or find_spec("cryptography")) and (
            not self.wants_flask() or find_spec("flask")
        )

    def wants_flask(self):
        """Whether it stands on the application that its page makes."""
        return re.search(r"\b(?:client\.|app\.|init_app\()", " ".join(self.cells()))

    def names(self):
        """What the left side calls by name."""
        return re.findall(r"`([^`]+)`", self.source) or [self.source]


def text_of(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def rows_of(name):
    found, columns = [], None
    for line, text in enumerate(text_of(name).split("\n"), start=1):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", text)[1:-1]]
        if not cells:
            columns = None
        elif columns is None:
            columns = cells
        elif "here" in columns and not set(cells[0]) <= set("-:"):
            assert len(cells) == len(columns), f"{name}:{line} has {len(cells)} cells"
            at = columns.index("here")
            number = cells[0] if columns[0] == "no." else ""
            found.append(Row(name, line, number, cells[at - 1], cells[at]))
    return found


def blocks_of(name):
    """(line, language, text) of each fenced block."""
    found = re.finditer(r"(?ms)^```(\w*)\n(.*?)^```$", text_of(name))
    return [(text_of(name)[: m.start()].count("\n") + 1, m[1], m[2]) for m in found]


def slug(title):
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


# --- running


class World:
    """A folder with the queue of the README, a copy for each row, and the names that it has."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch, self.count = folder, monkeypatch, 0
        imports, self.handlers, state = [text for _, kind, text in blocks_of("README.md")]
        self.names = {"__name__": "coming_from"}
        exec(imports, self.names)
        self.model = folder / "model"
        self.model.mkdir()
        (self.model / "handlers.py").write_text(self.handlers)
        monkeypatch.chdir(self.model)
        monkeypatch.setattr(sys, "path", sys.path[:])
        monkeypatch.setenv("DBBASIC_QUEUE_SYNC", "off")
        names = dict(self.names)
        exec(self.handlers + state, names)
        self.ids = {name: names[name] for name in ("id", "done", "failed")}
        for name, id in self.ids.items():
            monkeypatch.setenv(name.upper(), id)
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name, more in (("python3", ""), ("dbbasic-queue", " -m dbbasic_queue")):
            (self.programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{more} "$@"\n')
            (self.programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{self.programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def fresh(self):
        """Go to a new copy; return the names of a row."""
        self.count += 1
        folder = self.folder / str(self.count)
        shutil.copytree(self.model, folder)
        os.chdir(folder)
        names = {**self.names, **self.ids, "queue": Queue()}
        exec(self.handlers, names)
        return names


@pytest.fixture
def world(tmp_path, monkeypatch):
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    yield World(tmp_path, monkeypatch)
    sys.modules.pop("handlers", None)
    root.setLevel(before[0])  # a command that works says what it logs
    root.handlers[:] = before[1]


def run(cell, names):
    """Run one cell; AssertionError when it does something else than it says."""
    code, _, status = cell.partition("# exits ")
    code, _, wanted = code.partition("# → ")
    code, _, raised = code.partition("# raises ")
    if code.startswith("$ "):
        printed = run_shell(code[2:].strip(), int(status or 0))
        assert not wanted or fnmatchcase(printed.strip(), pattern(wanted)), f"printed {printed!r}"
        return
    try:
        value = run_python(code, names)
    except tuple(filter(None, [error_named(raised.strip(), names)])):
        return
    assert not raised, f"raised no {raised}"
    if "…" in wanted:
        assert fnmatchcase(value, pattern(ast.literal_eval(wanted))), f"is {value!r}"
    elif wanted:
        assert value == eval(wanted, names), f"is {value!r}"


def pattern(wanted):
    return wanted.strip().replace("[", "[[]").replace("…", "*")


def error_named(name, names):
    return name and (names.get(name) or getattr(errors, name, None) or getattr(builtins, name))


def run_python(code, names):
    """Run statements; return the value of the last one, if it is an expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last else None


def run_shell(line, status):
    words = os.path.expandvars(line)
    if line.startswith("dbbasic-queue ") and not re.search(r"[|<>;&`*]|\$\(", words):
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with contextlib.redirect_stdout(printed):
            ended = main(shlex.split(words)[1:])
        text = printed.buffer.getvalue().decode()
        assert ended == status, f"exits {ended}: {text}"
        return text
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, timeout=30,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == status, f"exits {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


# --- what the pages promise


@pytest.mark.parametrize("name", ["usage_guide.md", *map(slowly, sorted(OTHERS))])
def test_each_right_side_does_what_it_says(name, world, capsys):
    wrong, ran = [], 0
    for row in rows_of(name):
        if not row.cells() or not row.is_there():
            continue
        names = world.fresh()
        if row.wants_flask():
            exec(next(text for _, _, text in blocks_of(name) if "flask" in text), names)
        for cell in row.cells():
            try:
                run(cell, names)
            except BaseException as problem:
                if isinstance(problem, KeyboardInterrupt):
                    raise
                where = f"{name}:{row.line} {row.number} `{cell}`"
                text = "".join(traceback.format_exception_only(type(problem), problem)).strip()
                wrong.append(f"{where}: {text[:600]}")
                break
        ran += 1

    assert not wrong, "\n".join(wrong)
    assert ran


@pytest.mark.parametrize("name", ["usage_guide.md", *map(slowly, sorted(OTHERS))])
def test_each_block_of_a_page_runs(name, world):
    wrong = []
    for line, language, text in blocks_of(name):
        needs = [n for n in ("flask", "django") if f"import {n}" in text or f"from {n}" in text]
        if not all(map(find_spec, needs)):
            continue
        names = world.fresh()
        try:
            run_shell(text, 0) if language == "sh" else exec(compile(text, name, "exec"), names)
        except Exception:
            wrong.append(f"{name}:{line}: {traceback.format_exc(limit=-2)}")

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", SOURCES)
def test_each_line_of_a_source_has_one_row(name):
    letter, count = SOURCES[name]

    numbers = [row.number for row in rows_of(name)]

    assert Counter(numbers) == Counter(f"{letter}{n}" for n in range(1, count + 1))


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_has_rows_enough_to_move_with(name):
    assert len(rows_of(name)) >= 30


@pytest.mark.parametrize("name", TABLES)
def test_no_row_is_empty(name):
    empty = [
        f"{name}:{row.line}"
        for row in rows_of(name)
        if not row.source
        or not (row.cells() or "](" in row.here or any(word in row.here for word in WORDS))
    ]

    assert empty == []


@pytest.mark.parametrize("name", TABLES)
def test_what_is_called_missing_is_missing(name):
    called = re.findall(r"not in this version: ([a-z]+(?:, [a-z]+)*);", text_of(name))
    commands = set(parser()._subparsers._group_actions[0].choices)

    assert commands.isdisjoint(", ".join(called).split(", "))


def test_names_enough_run_through_their_right_sides(record_property):
    names = {
        (row.page, name)
        for page in TABLES
        for row in rows_of(page)
        if row.cells()
        for name in row.names()
    }

    record_property("left-hand names", len(names))
    print(f"{len(names)} left-hand names run through their right-hand side")
    assert len(names) >= LEAST


def test_every_page_is_named_in_the_readme():
    assert [name for name in TABLES if f"({name})" not in text_of("README.md")] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    text = text_of(name)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    anchors = {f"#{slug(title)}" for title in re.findall(r"(?m)^#+ (.*)$", text)}

    lost = [
        one for one in links if one not in anchors and not (FOLDER / one.split("#")[0]).exists()
    ]

    assert lost == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_no_machine_of_ours(name):
    assert re.findall(r"/(?:root|work|tmp|home)\b", text_of(name)) == []
