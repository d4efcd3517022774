"""The core's files, copied alone into an empty folder, keep the contract."""

import os
import shutil
import subprocess
import sys

import pytest
from test_layers import CORE

from .guide import ROOT

KEPT = ("test_get_job.py", "test_in_our_words.py")
OURS = "not put_away and not clean_up"  # those show archive and purge, which the contract has not


@pytest.mark.soak
def test_the_core_files_alone_pass_the_contract(tmp_path):
    (tmp_path / "dbbasic_queue").mkdir()
    for room in ("__init__", *CORE):
        shutil.copy(ROOT / "dbbasic_queue" / f"{room}.py", tmp_path / "dbbasic_queue")
    for name in (".pytest.ini", "tests/conftest.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tests" / "contract", tmp_path / "tests" / "contract")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", OURS]
        + [f"tests/contract/{name}" for name in KEPT],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=80,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout.splitlines()[-1]
