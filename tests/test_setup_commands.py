"""cron, init and makefile: what they print, what they write, and that it runs."""

import ast
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dbbasic_queue import Queue, cli
from dbbasic_queue.cli import starters
from dbbasic_queue.cli.arguments import parser

ROOT = Path(__file__).resolve().parent.parent
OTHERS = b'# mine\nMAILTO=""\n0 5 * * *  /usr/bin/backup --tag 100\\%  \n\n@daily x # dbbasic-queue'
HANDLERS = "HANDLERS = {'greet': lambda payload: payload}\n"
# a crontab as Debian's: it keeps a file, says when there is none, and refuses what has no \n
CRONTAB = """#!/bin/sh
case $1 in
-l) if [ -f "$TABLE" ]; then cat "$TABLE"; else echo "no crontab for me" >&2; exit 1; fi;;
-r) rm "$TABLE";;
-) cat > "$TABLE.new"; [ -z "$(tail -c1 "$TABLE.new")" ] || { echo "no newline" >&2; exit 1; }
   mv "$TABLE.new" "$TABLE";;
esac
"""


@pytest.fixture
def ask(capfd):
    """Run a command line in this process."""

    def run(words, *more):
        capfd.readouterr()
        status = cli.main([*shlex.split(words), *map(str, more)])
        return SimpleNamespace(status=status, **capfd.readouterr()._asdict())

    return run


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A crontab of our own; this is the file behind it."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "crontab").write_text(CRONTAB)
    (programs / "crontab").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TABLE", str(tmp_path / "table"))
    return tmp_path / "table"


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A folder with a worker.py that says where and how it was started."""
    folder = tmp_path / "app"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "worker.py").write_text(
        "import os, sys; print(os.getcwd(), sys.argv, os.environ.get('DBBASIC_QUEUE'))\n"
    )
    (folder / "handlers.py").write_text(HANDLERS)
    return folder


def started_by(line, cwd="/"):
    """Run a line of a crontab as cron does."""
    command = line.split(" ", 5)[5]
    text, at = "", 0
    while at < len(command):  # cron ends it at a bare %, and takes the \\ from before another
        if command[at] == "%":
            break
        at += command.startswith("\\%", at)
        text += command[at]
        at += 1
    env = {"HOME": "/", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(["/bin/sh", "-c", text], cwd=cwd, env=env).returncode


# --- cron


def test_cron_prints_the_line(ask, app):
    answer = ask("cron")

    assert answer.status == 0
    assert answer.out == (
        f"* * * * * cd {app} && {sys.executable} worker.py >> logs/queue.log 2>&1 # dbbasic-queue\n"
    )
    assert "logs is missing" in answer.err


def test_cron_prints_a_line_for_handlers(ask, app):
    answer = ask("cron handlers:HANDLERS --log /var/log/q.log -- --queue mail --run-for 55s")

    assert answer.out == (
        f"* * * * * cd {app} && {sys.executable} -m dbbasic_queue work handlers:HANDLERS"
        " --queue mail --run-for 55s >> /var/log/q.log 2>&1 # dbbasic-queue\n"
    )


@pytest.mark.parametrize("name", ["plain", "a b", "50%", "it's", 'q"$(x)`', "Zürich", "a\\b\\\\%c"])
def test_the_line_starts_the_worker_in_any_folder(ask, app, tmp_path, monkeypatch, name):
    folder = tmp_path / name
    shutil.copytree(app, folder)
    monkeypatch.chdir(folder)
    (folder / "logs").mkdir()
    monkeypatch.setenv("DBBASIC_QUEUE", "data/50% of 'it'.tsv")

    line = ask("cron worker.py -- 'one %' two").out.rstrip("\n")

    assert started_by(line) == 0
    wanted = f"{folder} {['worker.py', 'one %', 'two']} {folder}/data/50% of 'it'.tsv\n"
    assert (folder / "logs" / "queue.log").read_text() == wanted


@pytest.mark.soak
def test_the_line_for_handlers_runs_a_job(ask, app):
    os.mkdir("logs")
    job_id = Queue(sync="off").enqueue("greet", "hi")

    line = ask("cron handlers:HANDLERS").out.rstrip("\n")

    assert started_by(line) == 0
    assert Queue().get(job_id).result == "hi"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("cron nothing.py", "there is no such file; `init` writes"),
        ("cron nowhere:HANDLERS", "there is no module nowhere"),
        ("cron handlers:HANDLERS -- --frob", "unrecognized arguments: --frob"),
        ("cron --install --remove", "not allowed with"),
        ("cron 'a\nb.py'", "there is no such file"),
        ("cron --log 'a\nb'", "no crontab can hold"),
        (f"cron --log {'x' * 1000}", "cron takes 998"),
    ],
)
def test_cron_refuses_what_would_not_run(ask, app, words, says):
    answer = ask(words)

    assert (answer.status, answer.out) == (2, "")
    assert says in answer.err


def test_cron_without_the_program_crontab(ask, app, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    answer = ask("cron --install")

    assert answer.status == 2
    assert "there is no program crontab here" in answer.err


@pytest.mark.soak
@pytest.mark.parametrize("before", [None, OTHERS, OTHERS + b"\n", b"one\r\ntwo\xff\n"])
def test_install_and_remove_keep_every_other_line(ask, app, table, before):
    if before is not None:
        table.write_bytes(before)
    line = ask("cron").out.encode()
    others = (before or b"").removesuffix(b"\n") + b"\n" if before else b""

    installed = ask("cron --install")
    after = table.read_bytes()
    again = ask("cron --install")
    still = table.read_bytes()
    removed = ask("cron --remove")
    rest = table.read_bytes() if table.exists() else b""
    nothing = ask("cron --remove")

    assert [one.status for one in (installed, again, removed, nothing)] == [0, 0, 0, 1]
    assert after == still == others + line
    assert rest == others
    assert installed.out.encode() == b"+ " + line
    assert again.out == ""
    assert "has that line already" in again.err
    assert removed.out.encode() == b"- " + line
    assert (app / "logs").is_dir()


def test_another_python_or_log_replaces_the_line_where_it_stands(ask, app, table, monkeypatch):
    ask("cron --install")
    table.write_bytes(table.read_bytes() + b"0 0 * * * later\n")
    monkeypatch.setattr(sys, "executable", "/opt/python")

    answer = ask("cron --install --log other.log")

    lines = table.read_bytes().splitlines()
    assert len(lines) == 2
    assert b"/opt/python worker.py >> other.log" in lines[0]
    assert [line[:1] for line in answer.out.splitlines()] == ["-", "+"]


def test_each_worker_of_a_folder_has_its_line_and_remove_takes_them_all(ask, app, table):
    ask("cron --install")
    ask("cron handlers:HANDLERS --install -- --queue mail")
    ask("cron handlers:HANDLERS --install -- --queue mail,default")
    three = table.read_bytes().splitlines()

    one = ask("cron handlers:HANDLERS --remove -- --queue mail")
    two = ask("cron --remove")

    assert len(three) == 3
    assert (len(one.out.splitlines()), len(two.out.splitlines())) == (1, 2)
    assert not table.exists()


def test_the_lines_of_other_folders_stay(ask, app, table, tmp_path, monkeypatch):
    ask("cron --install")
    before = table.read_bytes()
    other = tmp_path / "app2"
    shutil.copytree(app, other)
    monkeypatch.chdir(other)

    ask("cron --install")
    ask("cron --remove")

    assert table.read_bytes() == before


def test_a_line_is_removed_though_its_worker_is_gone(ask, app, table):
    ask("cron --install")
    os.unlink("worker.py")

    assert ask("cron --remove worker.py").status == 0


def test_a_dry_run_changes_nothing(ask, app, table):
    table.write_bytes(OTHERS)

    answer = ask("cron --install --dry-run")

    assert answer.out.startswith("+ * * * * * cd ")
    assert table.read_bytes() == OTHERS
    assert not os.path.exists("logs")


def test_a_crontab_that_cannot_be_read_is_not_written(ask, app, table):
    program = shutil.which("crontab")
    with open(program, "w") as file:
        file.write('#!/bin/sh\n[ "$1" = -l ] || rm -f "$TABLE"\necho "not allowed" >&2; exit 1\n')
    table.write_bytes(OTHERS)

    answer = ask("cron --install")

    assert answer.status == 2
    assert "crontab -l: not allowed" in answer.err
    assert table.read_bytes() == OTHERS


def test_a_secret_of_the_environment_is_named_and_not_written(ask, app, monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE_KEY", "sesame")

    answer = ask("cron")

    assert "DBBASIC_QUEUE_KEY is set here, and cron does not know it" in answer.err
    assert "sesame" not in answer.out + answer.err


def test_cron_as_json(ask, app, table):
    line = ask("cron").out.rstrip("\n")

    assert json.loads(ask("cron --json").out) == {"line": line}
    assert json.loads(ask("cron --json --install").out) == {
        "line": line, "added": [line], "removed": [], "dry_run": False
    }  # fmt: skip


def test_the_line_at_a_terminal_is_the_same(app):
    terminal, theirs = pty.openpty()

    subprocess.run(
        [sys.executable, "-m", "dbbasic_queue", "cron"], stdout=theirs, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=True,
    )  # fmt: skip
    os.close(theirs)
    out = os.read(terminal, 1 << 16).decode()
    os.close(terminal)

    assert out.startswith(f"* * * * * cd {app} && ")
    assert "\x1b" not in out


# --- init


def test_what_init_writes_runs_at_once(ask, tmp_path):
    answer = ask("init")
    job_id = Queue(sync="off").enqueue("greet", {"name": "Ana"})

    done = subprocess.run(
        [sys.executable, "worker.py"], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert answer.status == 0
    assert answer.out == (
        f"written: {tmp_path}/worker.py\nwritten: {tmp_path}/handlers.py\n\nand now:\n"
        '  dbbasic-queue enqueue greet \'{"name": "Ana"}\'\n'
        f"  {sys.executable} worker.py\n  dbbasic-queue list\n  dbbasic-queue cron --install\n"
        "  dbbasic-queue dashboard\n"
    )
    assert done.returncode == 0, done.stderr
    assert Queue().get(job_id).result == {"greeting": "Hello, Ana!"}


def test_init_overwrites_nothing(ask, tmp_path):
    (tmp_path / "handlers.py").write_text(HANDLERS)
    os.symlink("elsewhere.py", "worker.py")

    answer = ask("init")
    os.unlink("worker.py")
    half = ask("init --json")

    assert answer.status == 1
    assert not (tmp_path / "elsewhere.py").exists()
    assert (tmp_path / "handlers.py").read_text() == HANDLERS
    found = json.loads(half.out)
    assert (half.status, found["written"], found["kept"]) == (0, ["worker.py"], ["handlers.py"])


def test_the_worker_of_init_is_the_one_of_the_examples():
    def code(text):
        return ast.dump(ast.Module(ast.parse(text).body[1:], []))

    example = (ROOT / "examples" / "worker.py").read_text(encoding="utf-8")

    assert code(starters.WORKER) == code(example)


# --- makefile


TARGETS = (
    "queue-work queue-work-emails queue-stats queue-failed queue-retry-failed queue-clear"
    " queue-dashboard queue-metrics queue-health queue-top queue-list queue-flush queue-workers"
    " queue-stop queue-doctor"
).split()


@pytest.fixture
def make(ask, tmp_path):
    """Run make on what is printed, in a folder that init has set up."""
    if not shutil.which("make"):
        pytest.skip("there is no make")
    ask("init")
    (tmp_path / "Makefile").write_text(ask("makefile").out, encoding="utf-8")

    def run(*words):
        return subprocess.run(
            ["make", f"PYTHON={sys.executable}", *words], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


def commands():
    (action,) = (one for one in parser()._actions if isinstance(one.choices, dict))
    return action.choices


def test_each_target_of_the_sources_is_there(make):
    done = make("-n", *TARGETS)

    assert done.returncode == 0, done.stderr
    for word in "worker.py stats failed dashboard metrics health top".split():
        assert f" {word}" in done.stdout
    assert "work 'handlers:HANDLERS' --queue 'emails'" in done.stdout


@pytest.mark.soak
def test_the_targets_do_what_they_say(make):
    queue = Queue(sync="off")
    mail = queue.enqueue("greet", {"name": "Ana"}, queue="emails")
    bad = queue.enqueue("greet", max_attempts=1)

    emails = make("queue-work-emails")
    after = queue.get(mail).status, queue.get(bad).status
    work = make("queue-work")
    failed = queue.get(bad).status
    retry = make("queue-retry", f"ID={bad}")

    assert [one.returncode for one in (emails, work, retry)] == [0, 0, 0], emails.stderr
    assert after == ("completed", "pending")
    assert (failed, queue.get(bad).status) == ("failed", "pending")
    assert make("queue-clear").returncode != 0  # nobody was there to say yes
    assert make("queue-clear", "YES=1").returncode == 0
    assert queue.counts("status") == {"completed": 1}


@pytest.mark.soak
@pytest.mark.parametrize("target", ["stats", "list", "workers", "retry-failed", "flush", "failed"])
def test_nothing_to_show_is_no_error_of_make(make, target):
    if target not in commands() and target == "failed":
        pytest.skip("there is no such command yet")

    done = make(f"queue-{target}", "YES=1")

    assert done.returncode == 0, done.stderr


@pytest.mark.soak
def test_a_target_says_which_queue_is_meant_and_health_its_status(make, tmp_path):
    Queue(tmp_path / "other.tsv", sync="off").enqueue("greet")

    there = make("queue-health", "QUEUE=other.tsv")
    missing = make("queue-health")
    retry = make("queue-retry")

    assert (there.returncode, missing.returncode, retry.returncode) == (0, 2, 2)
    assert there.stdout.startswith("OK - no tick yet, 1 due")
    assert "which job?" in retry.stderr


def test_makefile_as_json(ask):
    assert json.loads(ask("makefile --json").out) == {"makefile": starters.MAKEFILE}
