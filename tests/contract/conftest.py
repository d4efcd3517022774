"""What the pages of the usage guide take for granted: a shell, a machine, a package to install."""

import os
import shutil
import subprocess
import sys

import pytest

from .guide import ROOT
from .machine import PACKAGES, new_machine


@pytest.fixture
def shell(tmp_path):
    """Run lines of bash in the test's folder; return what they print."""

    def run(lines):
        done = subprocess.run(
            ["bash", "-c", lines],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "1000"},  # ps cuts its lines where there is no terminal
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"status {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def start_script(tmp_path):
    """Start a Python script as its own process; none outlives the test."""
    children = []

    def start(*arguments, env=None, **popen):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True, **popen}
        child = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PACKAGES), **(env or {})},
            **options,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        with child:
            child.kill()


@pytest.fixture
def run_script(start_script):
    """Run a Python script to its end; return its output and exit status."""

    def run(*arguments, **popen):
        child = start_script(*arguments, stderr=subprocess.STDOUT, **popen)
        output = child.communicate(timeout=60)[0]
        return output, child.returncode

    return run


@pytest.fixture
def machine(tmp_path):
    return new_machine(tmp_path / "machine")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A git repository with this checkout's files, as they are now, in one commit."""
    folder = tmp_path_factory.mktemp("source") / "dbbasic-queue"
    leave = shutil.ignore_patterns(
        ".*", "*.egg-info", "build", "dist", "__pycache__", "tests", "queue.tsv*"
    )
    shutil.copytree(ROOT, folder, ignore=leave)
    for command in (
        "init -q",
        "add -A",
        "-c user.name=Somebody -c user.email=somebody@example.com commit -q -m Everything",
    ):
        subprocess.run(["git", "-C", folder, *command.split()], check=True)
    return folder


@pytest.fixture(scope="session")
def wheels(tmp_path_factory, checkout):
    """A folder of wheels with which pip needs no network: ours, and what ours and pip ask for."""
    folder = tmp_path_factory.mktemp("wheels")
    source = shutil.copytree(checkout, tmp_path_factory.mktemp("build") / "dbbasic-queue")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "-w", folder]
    subprocess.run([*pip, source, "setuptools", "wheel"], check=True)
    return folder


@pytest.fixture(scope="session")
def fresh_python(tmp_path_factory):
    """The folder of a virtual environment with nothing but pip in it."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder
