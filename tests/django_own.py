"""Run Django's own tests of its task back ends with ours in the place of its two.

python tests/django_own.py FOLDER      the folder that holds `tasks` of the tests of a Django

Dummy, which stores a task and never runs it, becomes our back end; Immediate becomes ours with a
tick after each `enqueue`.  Where this Django has no `django.tasks`, the back-port takes its name.
Prints a JSON object: for each test "passed", or what went wrong.
"""

import importlib
import io
import json
import logging
import os
import sys
import tempfile
import types
import unittest
from pathlib import Path

import django
from django.conf import settings

APP = "dbbasic_queue.contrib.django"
ROOMS = "base exceptions signals checks backends backends.base"


def alias_back_port():
    """Let `django.tasks` mean the back-port; names and words that differ are Django's."""
    import django_tasks

    sys.modules["django.tasks"] = django.tasks = django_tasks
    for room in ROOMS.split():
        sys.modules[f"django.tasks.{room}"] = importlib.import_module(f"django_tasks.{room}")
    django_tasks.Task = sys.modules["django.tasks.base"].Task
    exceptions = sys.modules["django.tasks.exceptions"]
    exceptions.InvalidTask = exceptions.InvalidTaskError
    exceptions.InvalidTaskBackend = exceptions.InvalidTaskBackendError
    sys.modules["django.tasks.signals"].logger = logging.getLogger("django.tasks")


def replace_back_ends():
    """Put ours where Dummy and Immediate stand."""
    from dbbasic_queue.contrib.django import TSVBackend
    from dbbasic_queue.contrib.django.running import work

    class DummyBackend(TSVBackend):
        @property
        def results(self):
            return [self.get_result(job.id) for job in self.queue.jobs()]

        def clear(self):
            self.queue.purge(ids=[job.id for job in self.queue.jobs()])

    class ImmediateBackend(TSVBackend):
        def enqueue(self, task, args, kwargs):
            result = super().enqueue(task, args, kwargs)
            work(self)
            return self.get_result(result.id)

    for name, one in (("dummy", DummyBackend), ("immediate", ImmediateBackend)):
        module = types.ModuleType(f"django.tasks.backends.{name}")
        setattr(module, one.__name__, one)
        one.__module__ = module.__name__
        sys.modules[module.__name__] = module


class Outcomes(unittest.TestResult):
    """What became of each test; each has a queue file of its own."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.by_test = Path(folder), {}

    def startTest(self, test):
        super().startTest(test)
        os.environ["DBBASIC_QUEUE"] = str(self.folder / f"{self.testsRun}.tsv")
        self.by_test[test.id()] = "passed"

    def addSubTest(self, test, subtest, error):
        if error:
            self._note(test, error)

    def addError(self, test, error):
        self._note(test, error)

    addFailure = addError

    def addSkip(self, test, reason):
        self.by_test[test.id()] = f"skipped: {reason}"

    def _note(self, test, error):
        self.by_test[test.id()] = self._exc_info_to_string(error, test)


def main(folder):
    sys.path.insert(0, folder)
    if django.VERSION < (6,):
        alias_back_port()
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    default = {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend", "QUEUES": []}
    settings.configure(
        USE_TZ=True, SECRET_KEY="own", INSTALLED_APPS=[APP], DATABASES={"default": database},
        TASKS={"default": default}, LOGGING_CONFIG=None,
    )  # fmt: skip
    replace_back_ends()
    django.setup()
    logging.getLogger("dbbasic_queue").addHandler(logging.NullHandler())
    from django.test.runner import DiscoverRunner
    from django.test.utils import setup_test_environment

    setup_test_environment()
    runner = DiscoverRunner(verbosity=0, interactive=False)
    suite = runner.build_suite(["tasks"])
    databases = runner.setup_databases()
    with tempfile.TemporaryDirectory() as queues:
        outcomes = Outcomes(queues)
        stdout, sys.stdout = sys.stdout, io.StringIO()
        suite.run(outcomes)
        sys.stdout = stdout
    runner.teardown_databases(databases)
    print(json.dumps({"django": django.__version__, "tests": outcomes.by_test}))


if __name__ == "__main__":
    main(sys.argv[1])
