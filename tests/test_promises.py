"""Every promise has a test that names it, in its name (p7) or its docstring (P7)."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "dbbasic_queue"
TEST = re.compile(r'^def (test_\w+)\([^)]*\):\n(?:    """(.*?)""")?', re.MULTILINE | re.DOTALL)


def promises(path):
    """Which promises the tests of a file name, read from the source."""
    for name, text in TEST.findall(path.read_text(encoding="utf-8")):
        yield from map(int, re.findall(r"(?<![a-z0-9])p(\d+)(?![a-z0-9])", name))
        yield from map(int, re.findall(r"\bP(\d+)\b", text))


NAMED = {number for path in HERE.rglob("test_*.py") for number in promises(path)}


@pytest.mark.parametrize("number", range(1, 37))
def test_a_promise_is_named_by_a_test(number):
    assert number in NAMED


def test_no_test_names_a_promise_that_was_never_made():
    assert sorted(NAMED - set(range(1, 38))) == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_p33_no_module_can_turn_content_into_code(path):
    words = set()

    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            words |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            words.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            words.add(node.func.id)

    code = "pickle marshal shelve dill jsonpickle yaml eval exec compile __import__".split()
    assert words.intersection(code) == set()
