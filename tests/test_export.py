"""Jobs for spreadsheets and programs: every cell arrives, and none is a formula there."""

import csv
import io
import json
import os
import re
import shlex
import stat
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from dbbasic_queue import cli
from dbbasic_queue.export import inert, read
from dbbasic_queue.tsv import COLUMNS

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"]
HOSTILE = "a\x1b[31mb\nc\td\re\x7ff\x9bg\u2028h\u0085i"
UNSAFE = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Answer(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capfd, queue):
    def run(words, *more):
        capfd.readouterr()
        status = cli.main(["--file", queue.path, *shlex.split(words), *map(str, more)])
        return Answer(status, *capfd.readouterr())

    return run


def table(text, delimiter=","):
    """The rows of a CSV text, as a spreadsheet reads them, by column."""
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def finish(queue, job_id, **cells):
    with queue.edit() as e:
        e.change(e.get(job_id), status="completed", finished_at=time.time(), **cells)


@pytest.mark.parametrize(("words", "delimiter"), [("", ","), ("--format tsv", "\t")])
def test_every_cell_arrives_as_it_stands_in_the_file(run, queue, words, delimiter):
    queue.enqueue("mail", {"to": 'a "b", c', "x": "Zürich\n"}, columns={"tenant": 'say "hi",\t;'})
    queue.enqueue("mail", "plain", priority=-5, timeout=2.5)

    answer = run(f"export {words}")

    lines = Path(queue.path).read_text(encoding="utf-8").split("\n")[:-1]
    header, *rows = (line.split("\t") for line in lines)
    found = table(answer.out, delimiter)
    assert (answer.status, answer.err) == (0, "")
    assert [list(row) for row in found] == [header] * 2
    assert [list(row.values()) for row in found] == [[inert(c) if c != "-5" else c for c in row]
                                                     for row in rows]  # fmt: skip


@pytest.mark.parametrize("form", ["csv", "tsv"])
@pytest.mark.parametrize("text", FORMULAS)
def test_p36_no_cell_is_a_formula_in_a_spreadsheet(run, queue, form, text):
    job_id = queue.enqueue("mail", text, columns={"tenant": text})
    finish(queue, job_id, error=text, result=text, priority=-7)
    number = queue.enqueue("mail", -5)
    before = Path(queue.path).read_bytes()

    answer = run(f"export --format {form}")

    assert Path(queue.path).read_bytes() == before
    first, second = table(answer.out, "," if form == "csv" else "\t")
    for cell in (*first.values(), *second.values(), *first):
        assert not cell.startswith(("=", "+", "@", "\t", "\r"))
        assert not cell.startswith("-") or cell == "-7"
    assert (first["priority"], second["payload"], second["id"]) == ("-7", "'-5", number)
    if text[0] in "=+-@":
        assert first["error"] == first["tenant"] == "'" + text
    assert first["payload"] == json.dumps(text)
    assert not UNSAFE.search(answer.out.replace("\t", "") if form == "tsv" else answer.out)


def test_p36_what_somebody_wrote_into_the_file_is_no_formula_either(run, queue):
    nine = "\t".join(COLUMNS[:9])
    Path(queue.path).parent.mkdir()
    Path(queue.path).write_text(
        f"{nine}\t=evil()\t@more\n=id\t+type\t{{}}\tpending\t1\t1\t0\t\r=x\t\x1b[2J\t=1\t-2\n"
    )

    (row,) = table(run("export").out)

    assert row == {**dict.fromkeys(COLUMNS[:9], ""), "id": "'=id", "type": "'+type",
                   "payload": "{}", "status": "pending", "created_at": "1", "run_at": "1",
                   "attempts": "0", "error": "'\\r=x", "result": "\\x1b[2J", "'=evil()": "'=1",
                   "'@more": "'-2"}  # fmt: skip


def test_json_and_jsonl_are_what_list_prints(run, queue):
    queue.enqueue("mail", {"to": "Zürich"}, columns={"tenant": HOSTILE})
    finish(queue, queue.enqueue("note", HOSTILE), result=[1, HOSTILE])

    documents = json.loads(run("list --json").out)

    assert json.loads(run("export --format json").out) == documents
    assert json.loads(run("export --json").out) == documents
    lines = run("export --format jsonl").out.splitlines()
    assert list(map(json.loads, lines)) == documents
    assert not UNSAFE.search("\n".join(lines))


@pytest.mark.parametrize(("form", "empty"), [("json", "[]\n"), ("jsonl", "")])
def test_an_export_of_nothing_answers_no(run, queue, form, empty):
    queue.enqueue("mail")

    answer = run(f"export --format {form} --type nobody")

    assert (answer.status, answer.out) == (1, empty)
    assert "no job is like that" in answer.err
    assert run("export --type nobody").out.count("\n") == 1


def test_export_chooses_as_list_does(run, queue):
    for status in ("pending", "completed", "failed"):
        job_id = queue.enqueue("mail", queue="high" if status == "failed" else "default")
        with queue.edit() as e:
            e.change(e.get(job_id), status=status, worker="me-1-a.1", created_at=5, run_at=5)
    queue.enqueue("note")

    for words in ("", "--status failed", "--type note", "--queue high", "--worker me",
                  "--older-than 1h --status pending"):  # fmt: skip
        chosen = [job["id"] for job in json.loads(run(f"list --json {words}").out)]
        assert [row["id"] for row in table(run(f"export {words}").out)] == chosen


def test_what_a_worker_has_finished_is_exported_as_finished(queue):
    before, seen = [], []

    def handler(payload):
        before.append(Path(queue.path).read_bytes().split(b"\n")[2])
        seen.append([(job.id, job.status) for job in read(queue)[1]])

    ids = queue.enqueue_many([("mail", n) for n in range(3)])
    queue.process_jobs({"mail": handler})

    assert b"\tprocessing\t" in before[2]  # the second one, whose end its worker's file has
    assert seen[2] == [(ids[0], "completed"), (ids[1], "completed"), (ids[2], "processing")]


def test_the_archive_comes_first_and_nothing_comes_twice(run, queue):
    old = queue.enqueue("mail", columns={"gone": "acme"})
    finish(queue, old)
    before = Path(queue.path).read_bytes()
    time.sleep(0.002)  # it finished before now, also when that is rounded to milliseconds
    queue.archive(0)
    assert run("export").status == 1
    Path(queue.path).write_bytes(before)  # as if the process had died before its rename
    new = queue.enqueue("note", columns={"tenant": "b"})

    assert [row["id"] for row in table(run("export").out)] == [old, new]
    assert [row["id"] for row in table(run("export --archived").out)] == [old, new]

    queue.purge(ids=[old])
    rows = table(run("export --archived").out)
    cells = [(row["id"], row["gone"], row["tenant"]) for row in rows]
    assert cells == [(old, "acme", ""), (new, "", "b")]
    assert [row["id"] for row in table(run("export --archived --type mail").out)] == [old]


# --- to a file


def test_a_file_is_written_whole_and_for_its_owner_alone(run, queue, tmp_path):
    queue.enqueue("mail", "Zürich")
    os.chmod(queue.path, 0o664)
    (tmp_path / "jobs.csv").write_text("old")
    os.symlink("jobs.csv", "link.csv")

    answer = run("export --out link.csv")

    file = tmp_path / "jobs.csv"
    assert answer == (0, f"1 job of {queue.path} written to {file}\n", "")
    assert os.path.islink("link.csv")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert table(file.read_text(encoding="utf-8"))[0]["payload"] == '"Zürich"'
    assert sorted(os.listdir()) == ["data", "jobs.csv", "link.csv"]


def test_a_file_and_a_summary_as_json(run, queue, tmp_path):
    queue.enqueue("mail")

    answer = run("--json export --format jsonl --out jobs.jsonl")

    target = str(tmp_path / "jobs.jsonl")
    assert json.loads(answer.out) == {"exported": 1, "file": queue.path, "out": target}
    assert json.loads(Path(target).read_text())["type"] == "mail"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("data/queue.tsv", "the queue's own"),
        ("./data/../data/queue.tsv", "the queue's own"),
        ("link.tsv", "the queue's own"),
        ("hard.tsv", "the queue's own"),
        ("data/queue.tsv.lock", "the queue's own"),
        ("data/queue.tsv.d/hint", "the queue's own"),
        ("data", "no regular file"),
        ("/dev/null", "no regular file"),
        ("missing/jobs.csv", "no such folder"),
    ],
)
def test_no_other_file_is_hurt(run, queue, tmp_path, target, says):
    queue.enqueue("mail")
    os.symlink("data/queue.tsv", "link.tsv")
    os.link(queue.path, "hard.tsv")
    before = os.stat(queue.path)

    answer = run("export --out", target)

    assert (answer.status, answer.out) == (2, "")
    assert says in answer.err
    assert os.stat(queue.path) == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_failure_in_the_middle_leaves_the_old_file(run, queue, tmp_path, monkeypatch):
    queue.enqueue("mail")
    (tmp_path / "jobs.csv").write_text("old")
    monkeypatch.setattr("os.fsync", lambda fd: os.write(fd, b"") / 0)

    assert run("export --out jobs.csv").status == 2

    assert (tmp_path / "jobs.csv").read_text() == "old"
    assert sorted(os.listdir()) == ["data", "jobs.csv"]


def test_without_a_queue_no_file_is_made(run, queue, tmp_path):
    answer = run("export --out jobs.csv")

    assert (answer.status, answer.out) == (1, "")
    assert "there is no queue" in answer.err
    assert os.listdir() == []


def test_json_and_another_format_are_not_both(run, queue):
    queue.enqueue("mail")

    assert "one of the two" in run("--json export --format csv").err


def test_the_locale_does_not_change_what_is_exported(run_python, queue):
    queue.enqueue("mail", "Zürich")

    child = run_python(
        f"from dbbasic_queue import cli; cli.main(['--file', {queue.path!r}, 'export'])",
        env={"PYTHONIOENCODING": "ascii:strict"},
        text=False,
    )

    assert "Zürich".encode() in child.communicate(timeout=60)[0]


@pytest.mark.soak
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells the peak")
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_memory_does_not_grow_with_the_file(run_python, queue, form):
    code = f"""
        import sys
        from dbbasic_queue import cli
        cli.main(["--file", {queue.path!r}, "export", "--format", {form!r}])
        sys.stderr.write(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
    """

    def peak():
        child = run_python(code, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return int(child.communicate(timeout=300)[1])  # KiB

    queue.enqueue_many(("mail", {"n": n, "x": "y" * 100}) for n in range(20_000))
    small = peak()
    queue.enqueue_many(("mail", {"n": n, "x": "y" * 100}) for n in range(150_000))

    assert peak() < small + 4096  # of the 24 MB that came to it
