"""Every promise has a test that names it, in its name (p7) or its docstring (P7).

`python tests/test_promises.py > tests/faults/PROMISES.md` writes the table of them.
"""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "dbbasic_queue"
TABLE = HERE / "faults" / "PROMISES.md"
COMMAND = "python tests/test_promises.py > tests/faults/PROMISES.md"
SHOWN = 6  # tests of one promise in the table
TEST = re.compile(r'^def (test_\w+)\([^)]*\):\n(?:    """(.*?)""")?', re.MULTILINE | re.DOTALL)
PROMISES = {
    1: "an id that enqueue has returned is never lost, whatever is killed when",
    2: "nor after a power cut, unless sync is off",
    3: "when enqueue raises, the job is not stored, or the error says perhaps; a retry with the"
    " same id is harmless",
    4: "a torn last line is no job, and swallows none",
    5: "many producers, workers and readers at once lose, double and mix nothing",
    6: "many may be the first to use a queue; it has one header",
    7: "a payload comes back equal, on one line, or is refused before a write",
    8: "a call from a signal handler, thread, fork or handler neither hangs nor harms",
    9: "a job runs in one place while its worker lives, however long, whatever the clock does",
    10: "the job of a dead worker is run by the next tick, without a time-out",
    11: "a finished job is never run again; with sync=full nor after a power cut",
    12: "at least once: one extra run for a death, of the job that ran; others lose no attempt",
    13: "a job that kills its worker ends as failed, and the others run",
    14: "no exception of a handler stops the tick; KeyboardInterrupt gives back uncharged",
    15: "ticks may overlap; one with nothing to do writes nothing to the queue",
    16: "SIGTERM gives back what was not begun, uncharged",
    17: "a child that a handler forks keeps no dead worker alive and frees no live one",
    18: "a full disk makes no finished job run again; without room none is begun",
    19: "a line that is no row is kept byte for byte, reported, and stops nothing",
    20: "a reader sees whole lines of one version at any instant",
    21: "no room, a quota, a limit, an I/O error: the old file is intact, nothing is left over",
    22: "a read error is no empty queue; no worker makes a missing file again",
    23: "an edit keeps mode, owner, group, attributes and links, or refuses",
    24: "no question shows a finished job as running",
    25: "what is saved by hand in the middle of an edit is not lost",
    26: "a deleted lock file breaks nothing",
    27: "what the dead leave is cleaned up; nothing grows without bound",
    28: "a clock that jumps moves only jobs with a time of their own",
    29: "after a failed sync nothing is reported as stored",
    30: "a network file system is refused; a missing lock is an error",
    31: "recovery may itself be killed, at any point, any number of times",
    32: "a foreign file is not touched; columns of others are kept",
    33: "content is data: nothing is imported, run or used as a path because a row says so",
    34: "a new queue is for owner and group; nothing beside it is more open than it is",
    35: "no control character reaches the file, a log or a terminal",
    36: "an export holds no formula, and leaves the queue as it is",
    37: "payloads are plain text, and the README says so",
}


def promises():
    """Yield (file::test, the numbers of the promises that it names), read from the source."""
    for path in sorted(HERE.rglob("test_*.py")):
        for name, text in TEST.findall(path.read_text(encoding="utf-8")):
            numbers = re.findall(r"(?<![a-z0-9])p(\d+)(?![a-z0-9])", name)
            for first, last in re.findall(r"\bP(\d+)(?: to P(\d+))?", text):
                numbers += range(int(first), int(last or first) + 1)
            yield f"{path.relative_to(HERE)}::{name}", {int(number) for number in numbers}


NAMED = dict(promises())


def named_by(number):
    """Return the tests that name a promise, those first that name the fewest others."""
    return sorted(
        (one for one, numbers in NAMED.items() if number in numbers),
        key=lambda one: len(NAMED[one]),
    )


def table():
    """Return the page: a row for each promise."""
    lines = [
        "# The promises, and the tests that name them\n",
        f"Written by `{COMMAND}`, and held to the source by a test.",
        f"Of each promise the most direct tests come first, at most {SHOWN}. Those under",
        "`faults/`, and a few others, run with `--all`.",
        "\n| | promise | tests |\n|--:|---|---|",
    ]
    for number, text in PROMISES.items():
        tests = named_by(number)
        shown = [f"`{one}`" for one in tests[:SHOWN]]
        more = [f"and {len(tests) - SHOWN} more"] * (len(tests) > SHOWN)
        lines.append(f"| P{number} | {text} | {'<br>'.join(shown + more)} |")
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("number", range(1, 38))
def test_a_promise_is_named_by_a_test(number):
    assert named_by(number)


def test_no_test_names_a_promise_that_was_never_made():
    assert set().union(*NAMED.values()) == set(PROMISES) == set(range(1, 38))


def test_the_table_is_as_the_source_has_it():
    assert TABLE.read_text(encoding="utf-8") == table(), f"to write it again: {COMMAND}"


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

    code = "pickle marshal shelve dill jsonpickle yaml eval exec compile __import__ runpy".split()
    by_name = {"__init__", "work"}  # they import what the caller names: our own modules, handlers
    code += [] if path.stem in by_name else ["importlib"]
    assert words.intersection(code) == set()


if __name__ == "__main__":
    print(table(), end="")
