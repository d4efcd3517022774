"""examples/other_tools.md: each block is run by its tool, on a file that tries to break it."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest

from dbbasic_queue import Discard, Queue

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "examples/other_tools.md"
NASTY = 'say "hi", \\ back\tslash\nand\r \u2028 Zürich \x1b[31m ; | \'one\' `two` $HOME %s \\n \\"'
NEEDS = {
    "awk": "awk", "sqlite3": "sqlite3", "DuckDB": "duckdb", "pandas": "pandas",
    "polars": "polars", "Miller": "mlr", "VisiData": "vd", "jq": "jq", "grep and the rest": "grep",
}  # fmt: skip
SLOW = {"DuckDB", "pandas", "polars", "VisiData", "jq"}  # half a second and more
TOOLS = {"Unescaped", *NEEDS}


def sections():
    text = PAGE.read_text(encoding="utf-8")
    for title, body in re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", text):
        for kind, code in re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", body):
            yield title, kind, code


BLOCKS = {title: (kind, code) for title, kind, code in sections()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a queue that has quotes everywhere, and a short line; what is true of it."""
    folder = tmp_path_factory.mktemp("tools")
    queue = Queue(folder / "data" / "queue.tsv", sync="off")
    mails = queue.enqueue_many([("mail", {"to": NASTY, 'k"ey': '\\"'})] * 2)
    failed = [queue.enqueue("fails", '"x', max_attempts=1) for _ in range(2)]
    done = queue.enqueue("quote", '"')
    words = iter([NASTY, '"'])

    def fails(payload):
        raise Discard(next(words))

    queue.process_jobs({"mail": lambda payload: payload, "fails": fails, "quote": lambda p: p})
    queue.enqueue("later", {"a": '"'}, timedelta(hours=1))
    queue.enqueue_many([("nobody", '"'), ("nobody", [NASTY, '"'])])
    with queue.edit() as e:
        for id, seconds in ((mails[0], 1.5), (mails[1], 2.5), (done, 0.25)):
            e.change(e.get(id), started_at=1000.0, finished_at=1000.0 + seconds)
    with open(queue.path, "a") as file:  # as the page of the format allows: nine cells
        at = int(time.time()) - 9999
        file.write(f"ffffffffffffffff\tby_hand\t{{}}\tpending\t{at}\t{at}\t0\t\t\n")
    return queue, failed, at


def is_there(name):
    beside = os.access(Path(sys.executable).with_name(name), os.X_OK)
    return bool(shutil.which(name) or beside or find_spec(name))


def answers(title, folder):
    """What the block of a tool prints, by question."""
    kind, code = BLOCKS[title]
    if kind == "sh":
        code = re.sub(r"(?m)^# (\w+)$", r"echo '## \1'", code)
        command = ["bash", "-euo", "pipefail", "-c", code]
    else:
        code = re.sub(r"(?m)^# (\w+)$", r"print('## \1')", code)
        command = [sys.executable, "-c", code]
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    ours = programs / "dbbasic-queue"
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dbbasic_queue "$@"\n')
    ours.chmod(0o755)
    places = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    done = subprocess.run(
        command,
        cwd=folder,
        env={
            **os.environ,
            "PATH": os.pathsep.join(places),
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.split(r"(?m)^## (\w+)\n", done.stdout)
    return dict(zip(found[1::2], found[2::2], strict=True))


def numbers_in(text, words):
    """The number that stands after (or before) each of these words, on its line or in its pair."""
    found = {}
    for word in words:
        after = re.search(rf"\b{word}\b[^\w\n]+([\d.]+)", text)
        before = re.search(rf"([\d.]+) +{word}\b", text)
        found[word] = float((after or before)[1]) if after or before else None
    return found


def test_every_tool_of_the_page_is_run_here():
    assert set(BLOCKS) == TOOLS


@pytest.mark.parametrize(
    "title",
    [pytest.param(one, marks=pytest.mark.soak) if one in SLOW else one for one in NEEDS],
)
def test_a_tool_gives_the_right_answers(title, world):
    if not is_there(NEEDS[title]):
        pytest.skip(f"needs {NEEDS[title]}")
    queue, failed, at = world
    folder = Path(queue.path).parent.parent

    said = answers(title, folder)

    assert numbers_in(said["count"], ["pending", "completed", "failed"]) == {
        "pending": 4, "completed": 3, "failed": 2,
    }  # fmt: skip
    texts = [queue.get(id).error for id in failed]
    cells = [queue.get(id).cells[7].decode() for id in failed]
    assert all(id in said["failed"] for id in failed)
    assert cells[0] in said["failed"] or json.dumps(texts[0], ensure_ascii=False) in said["failed"]
    assert "ffffffffffffffff" in said["oldest"] and str(at) in said["oldest"]
    assert len(re.findall(r"\b[0-9a-f]{16}\b", said["oldest"])) == 1
    if title != "grep and the rest":
        mean = re.sub(r"(?m)^(\w+\t)\d+\t", r"\1", said["mean"])  # VisiData counts first
        assert numbers_in(mean, ["mail", "quote"]) == {"mail": 2.0, "quote": 0.25}
    if "payload" in said:
        assert said["payload"].count("Zürich") == 2


def test_what_the_page_says_undoes_the_escapes(world):
    queue, failed, _ = world
    names = {}
    exec(BLOCKS["Unescaped"][1], names)

    job = queue.get(failed[0])

    assert names["unescaped"](job.cells[7].decode()) == job.error == NASTY


def test_a_reader_that_believes_in_quotes_would_lose_lines(world):
    """The file does try to break it: without the flags of the page the answers are wrong."""
    path = world[0].path

    with open(path, encoding="utf-8", newline="") as file:
        quoted = list(csv.reader(file, delimiter="\t"))
    with open(path, encoding="utf-8", newline="") as file:
        plain = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))

    assert len(plain) == 10
    assert len(quoted) != 10 or [len(row) for row in quoted] != [len(row) for row in plain]
