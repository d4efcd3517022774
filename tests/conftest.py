"""What every test stands on: a folder of its own, a queue, real child Pythons; slow tests apart."""

import itertools
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import freezegun
import pytest

ROOT = Path(__file__).resolve().parent.parent
SLOW = {
    "cron": "starts the system's real cron",
    "faults": "kills or fails a process at call after call",
    "browser": "drives a browser",
    "engine": "runs another queue engine beside ours",
    "soak": "runs for long, or with a lot of data",
}
LEFT_OUT = pytest.StashKey[int]()
FOLDERS = itertools.count()
MEMORY = "/dev/shm"
# With -S a Python starts in a third of the time: what .pth files import is none of our business.
PACKAGES = f"import sys; sys.path += {[path for path in sys.path if 'site-packages' in path]}"
if "COVERAGE_PROCESS_CONFIG" in os.environ:  # tests/covered.py counts these children too
    PACKAGES += "; import coverage; coverage.process_startup()"

# filelock's time-outs would otherwise never end while the clock is frozen.
freezegun.configure(extend_ignore_list=["filelock"])


@pytest.fixture(scope="session", autouse=True)
def quick_disk(tmp_path_factory, pytestconfig):
    """Do not wait for the disk in a plain run: no test cuts the power.

    The tests' folders lie in memory where it has room; elsewhere, too, a sync returns at once.
    With --all they lie on the disk, and every sync is real.
    """
    if everything(pytestconfig):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        if memory_has_room() and "PYTEST_DEBUG_TEMPROOT" not in os.environ:
            patch.setenv("PYTEST_DEBUG_TEMPROOT", MEMORY)
        tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, os.fstat, raising=False)  # still an error for a bad descriptor
        yield


def memory_has_room():
    if not os.access(MEMORY, os.W_OK):
        return False
    found = os.statvfs(MEMORY)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > 1 << 30


@pytest.fixture
def tmp_path(request, tmp_path_factory):
    """As pytest's own, but without a look through the folders of all other tests for a name."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.mktemp(f"{name}{next(FOLDERS)}", numbered=False)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Run each test in its own empty folder, whatever queue the caller's environment names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DBBASIC_QUEUE", raising=False)
    monkeypatch.delenv("DBBASIC_QUEUE_SYNC", raising=False)


@pytest.fixture
def queue(tmp_path):
    from dbbasic_queue import Queue

    return Queue(tmp_path / "data" / "queue.tsv", sync="off")


@pytest.fixture
def run_python(tmp_path):
    """Start child Pythons that import this checkout; none outlives the test."""
    children = []

    def run(code, *, cwd=tmp_path, env=None, **popen):
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True, **popen}
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", f"{PACKAGES}\n{textwrap.dedent(code)}"],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
            **options,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        with child:  # closes its pipes and waits for it
            child.kill()


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the slow tests too")
    parser.addoption("--all-faults", action="store_true", help="let each call meet each error")


def pytest_configure(config):
    for name, what in SLOW.items():
        config.addinivalue_line("markers", f"{name}: {what}; runs with --all")
    if sys.dont_write_bytecode and hasattr(config, "cache"):
        keep_bytecode(config.cache.mkdir("bytecode"))


def keep_bytecode(folder):
    """Where no bytecode may lie beside the code, let it lie here: for us and for child Pythons."""
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(folder)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


def everything(config):
    """Whether the slow tests run too."""
    return bool(config.getoption("--all") or config.getoption("markexpr"))


def pytest_collection_modifyitems(config, items):
    if everything(config):
        return
    slow, quick = [], []
    for item in items:
        (slow if any(map(item.get_closest_marker, SLOW)) else quick).append(item)
    config.stash[LEFT_OUT] = len(slow)
    config.hook.pytest_deselected(items=slow)
    items[:] = quick


def pytest_sessionfinish(session):
    if forbidden_skips(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if config.stash.get(LEFT_OUT, 0):
        names = ", ".join(SLOW)
        terminalreporter.line(
            f"{config.stash[LEFT_OUT]} slow tests left out ({names}); to run them: pytest --all"
        )
    for report in forbidden_skips(config):
        terminalreporter.line(f"ERROR: skipped, but CI runs everything: {report.nodeid}", red=True)


def forbidden_skips(config):
    """The reports of skipped tests where none may be: with --all in CI."""
    if not (config.getoption("--all") and os.environ.get("CI")):
        return []
    return config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped", [])
