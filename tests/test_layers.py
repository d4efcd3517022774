"""Who may import whom, read from the source: nothing here runs the modules."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dbbasic_queue"
OURS = PACKAGE.name

# The core in reading order: at the top of a module, imports go to the left only.
CORE = (
    "errors tsv log files mount beside flock lock disk job after new lookup hint add edit queue"
    " here layers journal recover run options seen outcome admit due claim turn stop held worker"
).split()
LEAVES = ("errors", "tsv")  # these know nothing of ours but errors
# Of what several features are made; they import the core, and of each other only to the left.
# `redact` is one, since whatever shows a job (show, export) hides the same fields by one rule.
SHARED = ("redact", "show", "group", "keys", "leave", "output", "kinds", "stats")
DOORS = ("cli", "__main__", "tasks", "metrics", "testing", "web", "contrib")

# Methods that are only a door to a later room import it when they are called; exactly these.
DEFERRED = {
    "lookup": {"journal"},
    "queue": {"recover", "options", "worker", "pool", "archive", "upkeep", "control"},
    "worker": {"loop"},
}

EXPORTS = (
    "enqueue process_jobs get_job cancel_job Queue Job current_job Snooze Retry Discard QueueError"
).split()
PUBLIC_IN_CORE = {"errors", "here", "layers"}  # else a door sees what the package exports

NEVER_AT_IMPORT = "json re logging dataclasses typing datetime pathlib filelock".split()
FEATURE_WORDS = (
    "batch chain unique rate schedule seal sealed crypt encrypt signature redact expiry tags"
    " permission audit celery flask django cronsim"
).split()
ROLE_WORDS = "manager helper service processor util base mixin".split()


def room_of(file):
    return file.split("/")[0].removesuffix(".py")


FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
ROOMS = {room_of(file) for file in FILES} - {"__init__"}
FEATURES = ROOMS - {*CORE, *DOORS}


class Import(NamedTuple):
    room: str  # of ours; "" is the package itself
    outside: str  # or the top name of anybody else's module
    name: str  # what is taken out of it; "" is all of it
    deferred: bool  # done when a function is called
    line: int


@functools.cache
def imports(path):
    """Every import in a file, except those which only a type checker reads."""
    return list(walk(ast.parse(path.read_bytes()), path.relative_to(ROOT).parent.parts, False))


def walk(node, package, deferred):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield found(alias.name.split("."), "", deferred, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            above = package[: len(package) - child.level + 1] if child.level else ()
            module = [*above, *filter(None, [child.module])]
            for alias in child.names:
                yield found(module, alias.name, deferred, child.lineno)
        else:
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from walk(child, package, deferred or function)


def found(module, name, deferred, line):
    if module[0] != OURS:
        return Import("", module[0], name, deferred, line)
    if module == [OURS] and name in ROOMS:
        module, name = [OURS, name], ""
    return Import(module[1] if len(module) > 1 else "", "", name, deferred, line)


def ours(path):
    return [found for found in imports(path) if not found.outside]


def files_of(rooms):
    return [file for file in FILES if room_of(file) in rooms]


def test_the_core_has_all_its_rooms():
    assert set(CORE) <= ROOMS


@pytest.mark.parametrize("room", CORE)
def test_the_core_imports_one_way(room):
    allowed = {"errors"} if room in LEAVES else set(CORE[: CORE.index(room)])

    wrong = [i for i in ours(PACKAGE / f"{room}.py") if not i.deferred and i.room not in allowed]

    assert wrong == []


def test_the_core_opens_later_rooms_only_where_the_table_says():
    opened = {}

    for place, room in enumerate(CORE):
        for i in ours(PACKAGE / f"{room}.py"):
            if i.deferred and i.room not in CORE[:place]:
                opened.setdefault(room, set()).add(i.room)

    assert opened == DEFERRED


@pytest.mark.parametrize("room", ["__init__", *CORE])
def test_the_core_needs_the_standard_library_and_filelock(room):
    outside = {i.outside for i in imports(PACKAGE / f"{room}.py")} - {""}

    assert outside <= sys.stdlib_module_names | {"filelock"}


def test_the_package_opens_its_rooms_when_they_are_used():
    found = ours(PACKAGE / "__init__.py")

    assert [i for i in found if not i.deferred or i.room not in CORE] == []


def test_a_feature_imports_the_core_and_no_other_feature_or_door():
    wrong = [
        (file, i)
        for file in files_of(FEATURES)
        for i in ours(FILES[file])
        if not (i.room in allowed_in(file) or (i.room == "" and i.name in EXPORTS))
    ]

    assert wrong == []


def allowed_in(file):
    """The rooms that a feature may open: the core's, its own, and what several are made of."""
    room = room_of(file)
    return {*CORE, room, *(SHARED[: SHARED.index(room)] if room in SHARED else SHARED)}


def test_a_door_imports_public_names_only():
    exported = {*EXPORTS, "__version__"}

    wrong = [
        (file, i)
        for file in files_of(DOORS)
        for i in ours(FILES[file])
        if i.room != room_of(file)
        and i.name not in exported
        and (i.name.startswith("_") or i.room in {"", *CORE} - PUBLIC_IN_CORE)
    ]

    assert wrong == []


def test_no_door_opens_another_but_the_shell_which_starts_them_and_flask_which_mounts_pages():
    wrong = [
        (file, i)
        for file in files_of({*DOORS} - {"cli", "__main__"})
        for i in ours(FILES[file])
        if i.room in DOORS and (room_of(file), i.room) not in ((i.room, i.room), ("contrib", "web"))
    ]

    assert wrong == []


@pytest.mark.parametrize("file", FILES)
def test_a_module_is_read_in_one_sitting(file):
    assert len(FILES[file].read_bytes().splitlines()) <= 350


@pytest.mark.parametrize("file", FILES)
def test_a_name_says_what_it_does_not_what_role_it_has(file):
    tree = ast.walk(ast.parse(FILES[file].read_bytes()))
    named = [
        node.name
        for node in tree
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    ]

    words = {name: re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name) for name in named}

    assert [n for n in named for w in words[n] if w.lower().removesuffix("s") in ROLE_WORDS] == []


@pytest.mark.parametrize("room", CORE)
def test_the_core_does_not_name_a_feature(room):
    source = (PACKAGE / f"{room}.py").read_text(encoding="utf-8")

    assert re.findall(rf"(?i)\b(?:{'|'.join(FEATURE_WORDS)})\b", source) == []


def test_importing_the_package_loads_next_to_nothing():
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); before = set(sys.modules); import {OURS}; "
        "print(*set(sys.modules) - before)"
    )

    # -S: no site-packages, whose .pth files may have loaded something before we look
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert OURS in loaded
    assert [name for name in loaded if name.split(".")[0] in NEVER_AT_IMPORT] == []
