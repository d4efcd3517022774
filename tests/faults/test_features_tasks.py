"""`failed` is called for each job that ends as failed, and for no other, whoever is killed."""

import os
import time

import pytest

from dbbasic_queue import Queue
from dbbasic_queue.tasks import Tasks

from . import cases, features_tasks

pytestmark = pytest.mark.faults


def test_failed_is_called_for_each_job_that_failed_when_workers_are_killed(tmp_path):
    result = features_tasks.run(50, tmp_path)

    assert result.violations == []
    assert (result.cases, result.killed > 300) == (50, True)


def test_failed_is_called_when_the_time_limit_ends_the_process(tmp_path):
    queue, tasks = Queue(tmp_path / "queue.tsv", sync="off"), Tasks()

    @tasks.task(timeout=0.2, max_attempts=1, queue_file=queue)
    class Stubborn:
        def handle(self):
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    continue

        def failed(self, error):
            (tmp_path / "told").write_text(error)

    id = Stubborn.enqueue()
    child = cases.start(features_tasks.work, queue, tasks)
    _, status = os.waitpid(child, 0)
    queue.process_jobs(tasks)

    assert os.waitstatus_to_exitcode(status) == 75
    assert queue.get(id).status == "failed"
    assert (tmp_path / "told").read_text() == queue.get(id).error
