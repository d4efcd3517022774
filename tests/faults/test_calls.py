"""Every call of every scene goes wrong in every way, below Python."""

import json
import re
import shutil
import subprocess

import pytest

from . import campaign, preload, scenes

pytestmark = pytest.mark.faults

# How the kernel calls what libc has another name for.
NAMES = {
    "open": "openat", "create": "openat", "opendir": "openat", "close_ro": "close",
    "readdir": "getdents64", "pread": "pread64", "pwrite": "pwrite64", "overwrite": "pwrite64",
    "posix_fallocate": "fallocate", "rename": "renameat2", "link": "linkat", "unlink": "unlinkat",
    "rmdir": "unlinkat", "mkdir": "mkdirat", "readlink": "readlinkat", "stat": "newfstatat",
    "lstat": "newfstatat", "chmod": "fchmodat", "chown": "fchownat",
    "futimens": "utimensat",
}  # fmt: skip
HARMLESS = {"lseek", "ioctl", "fcntl"}  # no disk is asked


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    return preload.build(tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize("name", scenes.SCENES)
def test_p3_p12_p18_p21_p22_p29_p30_p31_each_call_of(name, library, request):
    """P3, P12, P18, P21, P22, P29, P30, P31: an error is an error, the old content is intact, all
    goes on.
    """
    (result,) = campaign.campaign(not request.config.getoption("--all-faults"), [name])

    print(result.name, result.cases, "cases")
    assert result.violations == []


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("scene", scenes.SCENES)
def test_the_library_meets_every_call_that_the_kernel_is_asked_for_in(scene, library, tmp_path):
    words, environment = campaign.command(library, ["--calls", f"--scene={scene}"])
    trace = tmp_path / "trace"
    options = ["-f", "-y", "-qq", "-s0", "-e", "trace=file,desc", "-o", str(trace)]

    said = subprocess.check_output(["strace", *options, *words], env=environment)

    found = json.loads(said)
    met = [kind for _, kind, *_ in found["calls"]]
    assert asked(trace.read_text(), found["folder"]) == [NAMES.get(kind, kind) for kind in met]


def asked(trace, folder):
    """Return the names of the calls about a folder while its process was watched."""
    above = folder.rpartition("/")[0]
    about = re.compile(rf"[<\"]({re.escape(folder)}[/>\"]|{re.escape(above)}[>\"])")
    names, watched, listed = [], None, False
    for line in trace.splitlines():
        pid, _, call = line.partition(" ")
        name = call.strip().partition("(")[0]
        if "/faults/arm" in call:
            watched = pid
        elif "/faults/disarm" in call:
            return names
        elif pid == watched and about.search(call) and name not in HARMLESS:
            again = name == "getdents64" and listed  # the first look counts
            inside = "AT_EMPTY_PATH" in call  # in libc's opendir
            listed = name == "getdents64"
            if not again and not inside:
                names.append(name)
    raise AssertionError("it was never armed, or never ended")
