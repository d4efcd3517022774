"""Django's own tests of task back ends, of a release named here, run against ours.

They are fetched with pip and never stored in this repository; tests/django_own.py runs them.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

django = pytest.importorskip("django", reason="needs the extra django")

pytestmark = pytest.mark.soak

RELEASE = "6.1.3"
COUNT = 85  # tests in tests/tasks of that release
HERE = Path(__file__).resolve().parent

# The tests of what Dummy and Immediate cannot do, and ours can; and of a list that ours has not.
NOT_OURS = {
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result": (
        "alters an object in Dummy's list; a row is altered by a tick (test_django.py does it)"
    ),
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result_async": "as test_refresh_result",
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_get_result": (
        "Immediate keeps no results; ours does"
    ),
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_refresh_result": (
        "Immediate keeps no results; ours does"
    ),
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_pass_run_after": (
        "Immediate has no run_after; ours has"
    ),
}
# Where the framework itself is older than the tests: Django 6.0, and the back-port.
_PICKLE = "a Task of this framework cannot be pickled"
NOT_BEFORE_6_1 = {
    "test_tasks.TaskTestCase.test_pickle_task": _PICKLE,
    "test_tasks.TaskTestCase.test_pickle_task_result": _PICKLE,
    "test_tasks.TaskTestCase.test_unpickle_arbitrary_string": _PICKLE,
    "test_tasks.TaskTestCase.test_unpickle_non_task_object": _PICKLE,
    "test_tasks.TaskTestCase.test_run_after_in_decorator": "this framework says it otherwise",
}
_OWN_FIELDS = "@task of Django 6.0 takes no fields of a task class"
NOT_6_0 = {
    "test_custom_backend.CustomTaskTestCase.test_custom_task_with_custom_values": _OWN_FIELDS,
    "test_custom_backend.CustomTaskTestCase.test_custom_task_with_standard_and_custom_values": (
        _OWN_FIELDS
    ),
}
_WORDS = "the back-port writes `async tasks` with a small t"
NOT_THE_BACK_PORT = {
    "test_custom_backend.CustomBackendTestCase.test_enqueue_async_task_on_non_async_backend": (
        _WORDS
    ),
    "test_dummy_backend.DummyBackendTestCase.test_validate_disallowed_async_task": _WORDS,
}
NOT_BEFORE_PYTHON_3_12 = {
    "test_custom_backend.CustomBackendTestCase.test_no_enqueue": (
        "Python says otherwise what keeps an abstract class from being made"
    ),
}


def not_applying():
    found = dict(NOT_OURS)
    found |= NOT_BEFORE_6_1 if django.VERSION < (6, 1) else {}
    found |= NOT_6_0 if (6,) <= django.VERSION < (6, 1) else {}
    found |= NOT_THE_BACK_PORT if django.VERSION < (6,) else {}
    found |= NOT_BEFORE_PYTHON_3_12 if sys.version_info < (3, 12) else {}
    return found


@pytest.fixture(scope="module")
def own_tests(tmp_path_factory):
    """The folder `tasks` of Django's tests, from the release that pip has."""
    folder = tmp_path_factory.mktemp("django")
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "django",
         "--no-build-isolation", "--ignore-requires-python", "-d", folder, f"django=={RELEASE}"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if fetched.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"pip cannot fetch Django {RELEASE}: {fetched.stderr.strip()[-200:]}")
    assert fetched.returncode == 0, fetched.stderr
    with tarfile.open(folder / f"django-{RELEASE}.tar.gz") as archive:
        under = f"django-{RELEASE}/tests/tasks/"
        wanted = [one for one in archive.getmembers() if one.name.startswith(under)]
        archive.extractall(folder, wanted, filter="data")
    return folder / f"django-{RELEASE}" / "tests"


def test_our_back_end_passes_djangos_own_tests_but_for_those_in_the_table(own_tests, capsys):
    ran = subprocess.run(
        [sys.executable, HERE / "django_own.py", own_tests],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    found = {name.removeprefix("tasks."): what for name, what in told["tests"].items()}
    table = not_applying()
    passed = {name for name, what in found.items() if what == "passed"}
    about_us = [name for name in passed if not name.startswith("test_custom_backend.")]
    with capsys.disabled():
        print(
            f"\nDjango {RELEASE}'s tests/tasks on Django {told['django']}: {len(found)} ran, "
            f"{len(passed)} passed ({len(about_us)} not of back ends of their own), "
            f"{len(table)} do not apply"
        )
        for name, reason in table.items():
            print(f"  {name}: {reason}")
    assert len(found) == COUNT
    wrong = {name: what for name, what in found.items() if name not in passed | table.keys()}
    assert wrong == {}
    assert passed & table.keys() == set()  # a row of the table that is not needed
