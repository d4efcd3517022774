"""examples/transcript.md is what a terminal says: its commands are run again, and say the same.

`python tests/test_transcript.py > NEW` prints the page with what its commands say now.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "examples" / "transcript.md"
BLOCK = re.compile(r"(?ms)^```console\n(.*?)^```$")
ID = re.compile(r"\b[0-9a-f]{16}\b")


def pairs_of(block):
    """(command, what it printed) of each command of a block; a quote may go over several lines."""
    found = []
    for piece in re.split(r"(?m)^\$ ", block)[1:]:
        lines = piece.rstrip("\n").split("\n")
        end = 1
        while "\n".join(lines[:end]).count("'") % 2:
            end += 1
        found.append(("\n".join(lines[:end]), "\n".join(lines[end:])))
    return found


class Terminal:
    """A shell in a fresh folder, in which `dbbasic-queue` is this checkout's."""

    def __init__(self, folder):
        program = folder / "bin" / "dbbasic-queue"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dbbasic_queue "$@"\n')
        program.chmod(0o755)
        self.home = folder / "app"
        self.home.mkdir()
        path = f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {name: text for name, text in os.environ.items() if not name.startswith("DBBASIC_")}
        self.environment = own | {"PATH": path, "PYTHONPATH": str(ROOT), "TZ": "UTC", "LANG": "C"}
        self.ids = {}  # those of the page, and what they are now

    def run(self, command, shown):
        """Return what a command prints now; an id that the page has shown stands for ours."""
        for old, new in self.ids.items():
            command = command.replace(old, new)
        done = subprocess.run(
            ["bash", "-uo", "pipefail", "-c", command], cwd=self.home, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            timeout=60,
        )  # fmt: skip
        said = done.stdout.rstrip("\n").replace(str(self.home), "/app")
        said = said.replace(sys.executable, "/app/.venv/bin/python")
        self.ids.update(zip(ID.findall(shown), ID.findall(said), strict=False))
        return said


def plain(text):
    """What does not change from run to run."""
    text = re.sub(r"\bw-\d+-[0-9a-f]+(\.\d+)?", "WORKER", text)
    text = ID.sub("ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?([.,]\d+)?( ?[+-]\d{4}|Z)?", "TIME", text)
    text = re.sub(r"\b\d\d:\d\d(:\d\d)?\b", "TIME", text)
    text = re.sub(r"\b\d{10}(\.\d+)?\b", "UNIX", text)
    text = re.sub(r"\b\d+(\.\d+)?( ?(ms|s|m|h)\b)+( \d+[ms]\b)?", "SPAN", text)
    text = re.sub(r"pid \d+", "pid N", text)
    text = re.sub(r"\b\d+MB\b", "SIZE", text)
    return "\n".join(re.sub(r" +", " ", line).rstrip() for line in text.split("\n"))


@pytest.mark.soak
def test_the_transcript_says_what_the_shell_says(tmp_path):
    terminal = Terminal(tmp_path)

    for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        for command, shown in pairs_of(block):
            assert plain(terminal.run(command, shown)) == plain(shown), command


def page_now(folder):
    """Return the page with what its commands say now."""
    terminal = Terminal(folder)

    def again(match):
        told = []
        for command, shown in pairs_of(match[1]):
            said = terminal.run(command, shown)
            for old, new in terminal.ids.items():
                command = command.replace(old, new)
            told.append(f"$ {command}\n{said}".rstrip("\n") + "\n")
        return f"```console\n{''.join(told)}```"

    return BLOCK.sub(again, PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(page_now(Path(folder)), end="")
