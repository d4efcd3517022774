"""What is in the repository and in the distribution, and nothing else."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import types
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import dbbasic_queue
from dbbasic_queue import Queue

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"setup.py", "dbbasic_queue", "tests", "examples", "data", "README.md", "LICENSE"}
HEADER = (
    "id type payload status created_at run_at attempts error result queue priority max_attempts "
    "timeout backoff worker after group started_at finished_at"
).split()
STATUSES = ("pending", "processing", "completed", "failed", "cancelled")


@pytest.fixture(scope="module")
def setup_arguments():
    """What setup.py hands to setuptools, which need not be installed for it."""
    given = {}
    setuptools = types.ModuleType("setuptools")
    setuptools.setup = given.update
    setuptools.find_packages = lambda include: include
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", setuptools)
        runpy.run_path(str(ROOT / "setup.py"))
    return given


@pytest.fixture(scope="module")
def sample():
    text = (ROOT / "data" / "sample.tsv").read_text(encoding="utf-8")
    header, *rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    return header, rows


@pytest.fixture
def git():
    def run(*arguments):
        return subprocess.run(
            ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True
        ).stdout.splitlines()

    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no git checkout, or git is not installed")
    return run


def test_the_top_level_shows_the_fixed_names_only(git):
    names = {path.split("/")[0] for path in git("ls-files")}

    visible = {name for name in names if not name.startswith(".")}

    assert visible <= TOP_LEVEL


def test_git_ignores_the_queue_but_not_the_sample(git):
    files = ["data/queue.tsv", "data/queue.tsv.lock", "data/queue.tsv.d/hint"]

    assert git("check-ignore", *files, "data/sample.tsv") == files


def test_filelock_is_the_only_requirement(setup_arguments):
    assert setup_arguments["install_requires"] == ["filelock>=3.30"]


def test_the_tests_need_pytest_and_freezegun(setup_arguments):
    assert setup_arguments["extras_require"]["test"] == ["pytest", "freezegun"]


def test_the_version_is_told_once(setup_arguments):
    assert setup_arguments["version"] == dbbasic_queue.__version__


def test_wheel_and_sdist_ship_the_type_marker(tmp_path):
    try:
        release = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        release = "0"
    if tuple(map(int, re.findall(r"\d+", release)[:2])) < (70, 1):
        pytest.skip("no setuptools here that builds a wheel by itself (70.1)")
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copytree(ROOT / "dbbasic_queue", tmp_path / "dbbasic_queue")

    subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "bdist_wheel"],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        check=True,
    )

    (wheel,) = Path("dist").glob("*.whl")
    (sdist,) = Path("dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        assert "dbbasic_queue/py.typed" in archive.namelist()
    with tarfile.open(sdist) as archive:
        root = f"dbbasic_queue-{dbbasic_queue.__version__}"
        assert f"{root}/dbbasic_queue/py.typed" in archive.getnames()


def test_the_sample_has_the_documented_columns(sample):
    header, rows = sample

    assert header == HEADER
    assert {len(row) for row in rows} == {len(HEADER)}


def test_the_sample_has_ids_in_order(sample):
    ids = [row[0] for row in sample[1]]

    assert all(re.fullmatch("[0-9a-f]{16}", id) for id in ids)
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("status", STATUSES)
def test_grep_counts_the_sample(sample, status):
    rows = sample[1]
    found = [row for row in rows if status in "\t".join(row)]

    assert found
    assert found == [row for row in rows if row[3] == status]


def test_the_sample_is_a_queue(tmp_path, sample):
    shutil.copy(ROOT / "data" / "sample.tsv", tmp_path / "queue.tsv")

    jobs = Queue(tmp_path / "queue.tsv").jobs()

    assert [(job.id, job.status) for job in jobs] == [(row[0], row[3]) for row in sample[1]]
