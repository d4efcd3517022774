"""Completion at a prompt, as the shells themselves answer."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dbbasic_queue import Queue, cli
from dbbasic_queue.cli import completion
from dbbasic_queue.cli.arguments import parser

COMPLETE = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_dbbasic_queue
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A command of the name, as an installed one is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    one = folder / "dbbasic-queue"
    root = str(Path(__file__).resolve().parent.parent)
    one.write_text(
        f"#!{sys.executable} -S\nimport sys\nsys.path += {[root, *sys.path]!r}\n"
        "from dbbasic_queue.cli import main\nsys.exit(main())\n"
    )
    one.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return one


@pytest.fixture(
    params=["bash", *(pytest.param(name, marks=pytest.mark.soak) for name in ("zsh", "fish"))]
)
def complete(request, tmp_path, program):
    """Return what a shell offers after some words, of which the last is being typed."""
    shell = request.param
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(completion.script(shell, parser()))

    def run(words, last=""):
        before = ["dbbasic-queue", *words.split()]
        if shell == "bash":
            typed = " ".join([*before, last or "''"])
            lines = [COMPLETE.format(script=script, words=typed)]
        elif shell == "zsh":
            lines = [f"source {script}; _dbbasic_queue_words {' '.join(before)}"]
        else:
            lines = [f"source {script}; complete -C '{' '.join([*before, last])}'"]
        options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        done = subprocess.run(
            [shell, *options, "-c", *lines],
            capture_output=True, text=True, timeout=60, cwd=tmp_path,
        )  # fmt: skip
        assert done.stderr == ""
        return {line.split("\t")[0] for line in done.stdout.splitlines()}

    run.shell = shell
    return run


def test_the_commands_come_first(complete):
    found = complete("")

    assert {"enqueue", "list", "why", "completion", "schedule"} <= found
    assert "nightly" not in found


def test_an_option_is_completed_and_then_its_choices(complete):
    assert {"--status", "--type", "--json"} <= complete("list", "--")
    statuses = {"pending", "processing", "completed", "failed", "cancelled"}
    assert statuses <= complete("list --newest --status")
    assert "--plain" not in complete("list", "--")


def test_the_words_of_schedule_are_its_own(complete):
    assert {"add", "list", "pause", "remove"} <= complete("schedule")
    assert "--cron" in complete("schedule add", "--")
    assert "--cron" not in complete("schedule pause", "--")


@pytest.mark.soak
def test_queues_and_types_are_those_of_the_file(complete, tmp_path):
    queue = Queue(tmp_path / "data" / "queue.tsv", sync="off")
    queue.enqueue("send_email", queue="mail")
    queue.enqueue("report")
    other = Queue(tmp_path / "other.tsv", sync="off")
    other.enqueue("fetch")

    assert {"default", "mail"} <= complete("list --queue")
    assert {"report", "send_email"} <= complete("list --type")
    if complete.shell != "fish":  # it asks the default queue
        assert complete("--file other.tsv list --type") == {"fetch"}


def test_what_a_shell_would_act_on_is_never_offered(complete, tmp_path):
    queue = Queue(tmp_path / "data" / "queue.tsv", sync="off")
    queue.enqueue("good")
    with open(queue.path, "ab") as file:
        file.write(b"0\t$(touch${IFS}hacked)\t{}\tpending\t1\t1\t0\t\t\n")
        file.write(b"1\t`touch hacked`\t{}\tpending\t1\t1\t0\t\t\n")

    found = complete("list --type")

    assert found == {"good"}
    assert not (tmp_path / "hacked").exists()


def test_bash_offers_what_begins_like_the_word(program, tmp_path):
    script = tmp_path / "script"
    script.write_text(completion.script("bash", parser()))
    (tmp_path / "a file.tsv").touch()

    def run(words):
        code = COMPLETE.format(script=script, words=words)
        return subprocess.check_output(["bash", "-c", code], text=True, cwd=tmp_path).splitlines()

    assert run("dbbasic-queue list --status c") == ["completed", "cancelled"]
    assert run("dbbasic-queue wh") == ["why"]
    assert run("dbbasic-queue backup a") == ["a file.tsv"]
    assert run("dbbasic-queue --file a") == ["a file.tsv"]
    assert run("dbbasic-queue cancel 64") == [""]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_script_is_one_that_its_shell_reads(shell, program, tmp_path, capsys):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")

    status = cli.main(["completion", shell])

    (tmp_path / "script").write_text(capsys.readouterr().out)
    done = subprocess.run([shell, "-n", "script"], cwd=tmp_path, capture_output=True, text=True)
    assert (status, done.returncode, done.stderr) == (0, 0, "")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_command_and_option_stands_in_each_script(shell):
    text = completion.script(shell, parser())

    for name, one in completion.every(parser()):
        assert name.rpartition(" ")[2] in text
        for action in one._actions:
            for option in action.option_strings:
                assert option.lstrip("-") in text


@pytest.mark.parametrize("words", [[], ["bash", "--words", "types"], ["tcsh"]])
def test_what_is_no_shell_is_wrong_usage(words, capsys):
    assert cli.main(["completion", *words]) == 2
    assert capsys.readouterr().out == ""


def test_a_large_file_is_not_read_while_somebody_waits(queue, capsys, monkeypatch):
    queue.enqueue("good")
    monkeypatch.setattr(completion, "LARGEST", 10)

    status = cli.main(["completion", "--words", "types", "--file", queue.path])

    assert (status, capsys.readouterr().out) == (1, "")
