"""What people and programs do to the files at the worst moment: it hurts only itself."""

import contextlib
import os
import shutil
import sys
import threading

import pytest

from dbbasic_queue import Queue, QueueError
from dbbasic_queue.new import new_job


def ticks(queue, handlers, count=3):
    for _ in range(count):
        queue.process_jobs(handlers)


def test_p11_a_queue_file_that_is_away_at_a_fold_makes_no_finished_job_run_again(queue):
    ran = []

    def moves_it_away(payload):
        ran.append(payload)
        os.rename(queue.path, queue.path + ".away")

    id = queue.enqueue("t", 1)
    queue.process_jobs({"t": moves_it_away})
    os.rename(queue.path + ".away", queue.path)
    ticks(queue, {"t": ran.append})

    assert ran == [1]
    assert queue.get(id).status == "completed"


def test_a_job_whose_parent_is_folded_by_an_edit_that_claims_nothing_runs_at_the_next_tick(queue):
    parent = queue.enqueue("t")
    child = queue.enqueue("t", after=parent)

    queue.process_jobs({"t": str}, max_jobs=1)
    queue.process_jobs({"t": str})

    assert queue.get(child).status == "completed"


def test_a_job_added_by_an_edit_that_also_changes_a_row_runs_at_the_next_tick(queue):
    far = queue.enqueue("t", run_at=4e9)
    ticks(queue, {"t": str})

    with queue.edit() as e:
        e.change(e.get(far), priority=3)
        new = e.add(new_job("t"))
    queue.process_jobs({"t": str})

    assert queue.get(new).status == "completed"


@pytest.mark.parametrize("column", [4, 5, 6, 10, 11])
def test_p19_a_number_of_many_digits_is_a_bad_line_and_stops_no_tick(queue, column):
    good = queue.enqueue("t")
    with open(queue.path, "rb") as file:
        cells = file.read().split(b"\n")[1].split(b"\t")
    cells[0], cells[column] = b"660d5fcf94d08615", b"9" * 5000
    with open(queue.path, "ab") as file:
        file.write(b"\t".join(cells) + b"\n")

    queue.process_jobs({"t": str})

    assert queue.get(good).status == "completed"
    assert queue.counts() == {"completed": 1}


@pytest.mark.parametrize("name", ["hint.tmp", "tick", "unsettled"])
def test_p34_a_link_in_the_side_folder_is_never_followed(queue, tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    queue.enqueue("t")
    os.makedirs(queue.path + ".d")
    os.symlink(victim, f"{queue.path}.d/{name}")

    try:
        queue.process_jobs({"t": str})
    except QueueError:
        assert name == "unsettled"

    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["hint.tmp", "tick", "torn.tsv", "unsettled"])
def test_p34_a_hard_link_in_the_side_folder_is_not_written_to(queue, tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    queue.enqueue("t")
    os.makedirs(queue.path + ".d")
    os.link(victim, f"{queue.path}.d/{name}")
    with open(queue.path, "ab") as file:
        file.write(b"torn")

    for call in (lambda: queue.process_jobs({"t": str}), lambda: queue.process_jobs({})):
        with contextlib.suppress(QueueError):
            call()

    assert victim.read_text() == "precious"


def test_p34_a_link_in_the_place_of_the_side_folder_is_not_followed(queue, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "unsettled").write_text("precious")
    queue.enqueue("t", run_at=4e9)
    os.symlink(theirs, queue.path + ".d")

    for call in (lambda: queue.process_jobs({}), lambda: queue.retry(), lambda: queue.enqueue("t")):
        with contextlib.suppress(QueueError):
            call()
    Queue(queue.path, sync="off").enqueue("t")

    assert [(path.name, path.read_text()) for path in theirs.iterdir()] == [
        ("unsettled", "precious")
    ]


@pytest.mark.parametrize("name", ["hint", "torn.tsv", "unsettled", "workers/w-1-a.tsv", "tick"])
@pytest.mark.parametrize("plant", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_p34_nobody_waits_for_a_pipe_or_falls_over_a_folder_beside_the_queue(queue, name, plant):
    queue.enqueue("t")
    os.makedirs(queue.path + ".d/workers")
    plant(f"{queue.path}.d/{name}")
    with open(queue.path, "ab") as file:
        file.write(b"torn")

    for call in (lambda: queue.process_jobs({"t": str}), queue.workers, lambda: [*queue.jobs()]):
        with contextlib.suppress(QueueError):
            call()
    with contextlib.suppress(FileNotFoundError):
        (os.rmdir if plant is os.mkdir else os.unlink)(f"{queue.path}.d/{name}")
    queue.process_jobs({"t": str})

    assert queue.counts() == {"completed": 1}


def test_p34_a_queue_that_is_a_pipe_is_refused_at_once(queue):
    os.makedirs(os.path.dirname(queue.path))
    os.mkfifo(queue.path)

    for call in (lambda: queue.get("0123456789abcdef"), lambda: queue.enqueue("t")):
        with pytest.raises(QueueError, match="regular file"):
            call()


def test_p32_beside_a_file_of_others_nothing_is_left(tmp_path):
    (tmp_path / "theirs.txt").write_text("precious\n")

    with pytest.raises(QueueError, match="not a queue"):
        Queue(tmp_path / "theirs.txt").enqueue("t")

    assert os.listdir(tmp_path) == ["theirs.txt"]


def test_p19_a_worker_with_a_number_of_many_digits_stops_no_tick(queue):
    good = queue.enqueue("t")
    with open(queue.path, "rb") as file:
        cells = file.read().split(b"\n")[1].split(b"\t")
    cells[0], cells[3], cells[13] = b"660d5fcf94d08615", b"processing", b"w-1-a." + b"9" * 5000
    with open(queue.path, "ab") as file:
        file.write(b"\t".join(cells) + b"\n")

    queue.process_jobs({"t": str})

    assert queue.get(good).status == "completed"
    assert queue.get("660d5fcf94d08615").status == "completed"


def test_p33_a_link_in_the_place_of_the_workers_folder_is_refused(queue, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "precious.tsv").write_text("a\tb\n")
    queue.enqueue("t")
    os.makedirs(queue.path + ".d")
    os.symlink(tmp_path / "theirs", queue.path + ".d/workers")

    with pytest.raises(QueueError, match="no folder"):
        queue.process_jobs({"t": str})

    assert (tmp_path / "theirs" / "precious.tsv").read_text() == "a\tb\n"


def test_p12_the_side_folder_deleted_under_a_worker_charges_no_job_that_never_ran(queue):
    ran = []

    def handler(payload):
        ran.append(payload)
        if payload == 20:
            shutil.rmtree(queue.path + ".d")

    queue.enqueue_many([("t", number) for number in range(60)])
    queue.process_jobs({"t": handler}, 1)
    ticks(queue, {"t": handler})

    assert queue.counts() == {"completed": 60}
    assert sorted(ran) == list(range(60))


def test_the_side_folder_deleted_at_the_end_of_an_edit_is_no_error(queue, monkeypatch):
    job_id, rename = queue.enqueue("note"), os.rename

    def rename_and_delete(*names):
        rename(*names)
        shutil.rmtree(queue.path + ".d")

    monkeypatch.setattr(os, "rename", rename_and_delete)
    assert queue.cancel(job_id)

    assert queue.get(job_id).status == "cancelled"


def test_p11_a_copied_line_runs_once_more_and_strands_nothing(queue):
    queue.enqueue("t", 1)
    with open(queue.path, "rb") as file:
        line = file.read().split(b"\n")[1]
    with open(queue.path, "ab") as file:
        file.write(line + b"\n")
    ran = []

    ticks(queue, {"t": ran.append}, 4)

    assert ran == [1, 1]
    assert queue.counts() == {"completed": 2}


def test_a_job_that_waits_for_any_end_of_one_that_is_deleted_runs_at_the_next_tick(queue):
    parent = queue.enqueue("t", run_at=4e9)
    child = queue.enqueue("t", after=f"any:{parent}")
    ticks(queue, {"t": str})

    with queue.edit() as e:
        e.remove(e.get(parent))
    queue.process_jobs({"t": str})

    assert queue.get(child).status == "completed"


def test_threads_that_share_a_fresh_queue_lose_and_double_nothing(tmp_path):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(20):
            queue = Queue(tmp_path / f"{number}.tsv", sync="off")
            start = threading.Barrier(6)

            def add(queue=queue, start=start):
                start.wait()
                queue.enqueue("t")

            threads = [threading.Thread(target=add) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert queue.counts() == {"pending": 6}
    finally:
        sys.setswitchinterval(interval)


def test_p11_p12_a_workers_file_whose_first_line_the_power_took_is_taken_in_all_the_same(
    queue, run_python
):
    ids = queue.enqueue_many([("quick", None)] * 3 + [("die", None)])
    child = run_python("""
        import os
        from dbbasic_queue import Queue
        handlers = {"quick": str, "die": lambda payload: os.kill(os.getpid(), 9)}
        Queue("data/queue.tsv").process_jobs(handlers)
    """)
    child.wait(timeout=20)
    (name,) = os.listdir(queue.path + ".d/workers")
    with open(f"{queue.path}.d/workers/{name}", "r+b") as file:
        head = file.readline()
        file.seek(0)
        file.write(bytes(len(head)))

    queue.process_jobs({"none": str})

    assert [queue.get(id).status for id in ids] == ["completed"] * 3 + ["pending"]
    assert [queue.get(id).attempts for id in ids] == [1] * 4
    assert not os.path.exists(queue.path + ".d/workers")
