"""A key is never held twice, and never by nobody, whoever is killed."""

import os

import pytest

from dbbasic_queue import Queue
from dbbasic_queue.unique import enqueue_unique

from . import features_unique

pytestmark = pytest.mark.faults


def test_no_key_is_held_twice_or_leaks_when_adders_and_workers_are_killed(tmp_path):
    result = features_unique.run(50, tmp_path)

    assert result.violations == []
    assert (result.cases, result.killed > 300) == (50, True)


def together(count, function):
    """Call a function in so many processes at once, and return what each one returned."""
    gate, go = os.pipe()
    hear, say = os.pipe()
    children = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            try:
                os.close(go)
                os.read(gate, 1)  # until all of them are there
                os.write(say, f"{function()}\n".encode())
            finally:
                os._exit(0)
        children.append(pid)
    for fd in (go, gate, say):
        os.close(fd)
    with open(hear) as pipe:
        said = pipe.read().splitlines()
    for pid in children:
        os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize("sync", ["normal", "off"])
def test_fifty_processes_that_add_the_same_keys_at_once_get_the_same_ids(tmp_path, sync):
    queue = Queue(tmp_path / "queue.tsv", sync=sync)
    rounds = []

    def add():
        mine = Queue(queue.path, sync=sync)
        return [enqueue_unique("one", key=key, queue_file=mine) for key in range(10)]

    for _ in range(5):
        said = together(50, add)
        rounds.append((len(said), len(set(said)), queue.counts("status").get("pending")))
        queue.process_jobs({"one": str})

    assert rounds == [(50, 1, 10)] * 5
    assert queue.counts("status") == {"completed": 50}
