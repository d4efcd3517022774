"""The usage guide's code blocks, read from the document where it stands beside the project."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT.parent / "shared" / "seeds" / "002_4ad68e1823420e4f.txt"
COUNT = 30

needs_document = pytest.mark.skipif(
    not DOCUMENT.is_file(), reason="the usage guide is not beside the project"
)


class Patch(NamedTuple):
    why: str
    old: str
    new: str


ABRIDGED = Patch("a dict that is cut short by dots", ", ...}", "}")

# All that is changed in the printed blocks: by number, the first `old` becomes `new`.
PATCHES = {
    4: Patch("no import of time", "import smtplib\n", "import smtplib\nimport time\n"),
    9: ABRIDGED,
    13: Patch("no import of time", "import smtplib\n", "import smtplib\nimport time\n"),
    14: Patch("no import of time", "import subprocess\n", "import subprocess, time\n"),
    15: Patch("a time left open", "...", "int(time.time()) // 86400 * 86400 + 86400"),
    28: ABRIDGED,
}


class Block(NamedTuple):
    language: str
    text: str


def printed():
    """Every fenced block of the document by its number, from 1, as it stands there."""
    fenced = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", DOCUMENT.read_text("utf-8"), re.M | re.S)
    return {
        number: Block(language, textwrap.dedent(text))
        for number, (_, language, text) in enumerate(fenced, start=1)
    }


def block(number):
    """The text of one block, patched where it must be."""
    text = printed()[number].text
    if number in PATCHES:
        patch = PATCHES[number]
        assert patch.old in text, f"block {number} has no {patch.old!r} to patch"
        text = text.replace(patch.old, patch.new, 1)
    return text


def run(number, **names):
    """Run a Python block among `names`, which the pages before it have set; return them all."""
    names.setdefault("__name__", f"block_{number}")
    exec(compile(block(number), f"<block {number} of the guide>", "exec"), names)
    return names
