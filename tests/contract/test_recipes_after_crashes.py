"""The guide's admin page and clean-up, which know nothing of locks, after every kind of crash.

Each recipe is here in our own code; where the usage guide is at hand, its own text is run too.
"""

import itertools
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import cancel_job, enqueue, get_job, process_jobs

from . import guide

FILE = Path("data/queue.tsv")
TORN = Path("data/queue.tsv.d/torn.tsv")
STATUSES = ("pending", "processing", "completed", "failed")
BOTH = ["ours", pytest.param("printed", marks=guide.needs_document)]


@pytest.fixture(autouse=True)
def not_waiting_for_the_disk(monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE_SYNC", "off")


def count_by_hand():
    with open(FILE) as file:
        found = Counter(line.split("\t")[3] for line in file.readlines()[1:])
    return {status: found[status] for status in STATUSES}


def clean_up_by_hand():
    with open(FILE) as file:
        header, *lines = file.readlines()
    with open(FILE, "w") as file:
        file.write(header)
        for line in lines:
            cells = line.split("\t")
            unfinished = cells[3] in ("pending", "processing")
            if unfinished or int(cells[4]) > time.time() - 7 * 86400:
                file.write(line)


class Application:
    """So much of a web application that the printed view can be defined without Flask."""

    def route(self, _path):
        return lambda view: view


@pytest.fixture(params=BOTH)
def admin(request):
    """The recipe that counts jobs by status."""
    if request.param == "ours":
        return count_by_hand
    return guide.run(22, app=Application(), jsonify=dict)["queue_status"]


@pytest.fixture(params=BOTH)
def clean_up(request):
    """The recipe that rewrites the file in place without old finished jobs."""
    return clean_up_by_hand if request.param == "ours" else guide.run(30)["cleanup_old_jobs"]


@pytest.fixture(params=BOTH)
def archive(request, shell):
    """The recipe that puts a copy aside and moves a shorter file into place."""
    ours = """
        cp data/queue.tsv kept.bak
        (head -1 data/queue.tsv; grep -E "pending|processing" data/queue.tsv) > data/fresh
        mv data/fresh data/queue.tsv
    """
    return lambda: shell(ours if request.param == "ours" else guide.block(29))


def ids():
    return [line.split("\t")[0] for line in FILE.read_text().splitlines()[1:]]


def counts(**given):
    return {**dict.fromkeys(STATUSES, 0), **given}


def fail(payload):
    raise ValueError("no such address")


HANDLERS = {"note": lambda payload: "done", "bad": fail, "die": lambda payload: "survived"}


def die_in_a_worker(run_python):
    """Run a worker whose handler is killed in mid-job, as by the kernel when memory is short."""
    worker = run_python("""
        import os
        from dbbasic_queue import process_jobs
        process_jobs({"die": lambda payload: os.kill(os.getpid(), 9)})
    """)
    assert worker.wait(timeout=60) == -9


def torn_files(every=1):
    """Write the file anew for each byte at which its last row can be cut; yield what was cut.

    Or for every so many-th, and the last.
    """
    with freeze_time("2025-10-01"):
        old = enqueue("note", {"text": "old"})
        process_jobs(HANDLERS)
    kept = [enqueue("note", {"text": "first"}), enqueue("note", {"text": "second"})]
    before = FILE.read_bytes()
    last = enqueue("note", {"text": "Käse", "number": 17})
    row = FILE.read_bytes().removeprefix(before)
    for size in [*range(0, len(row) - 1, every), len(row) - 1]:
        FILE.write_bytes(before + row[:size])
        yield old, kept, last if row[:size].count(b"\t") == row.count(b"\t") else None, row[:size]


def test_a_file_torn_at_any_byte_is_counted_right_after_the_next_enqueue(admin):
    for old, kept, whole, tail in torn_files():
        new = enqueue("note", {"text": "after"})

        expected = [old, *kept, *filter(None, [whole]), new]
        assert ids() == expected, tail
        assert admin() == counts(pending=len(expected) - 1, completed=1), tail


def test_a_file_torn_at_any_byte_is_cleaned_up_right_after_the_next_enqueue(clean_up):
    for _, kept, whole, tail in torn_files():
        new = enqueue("note", {"text": "after"})
        clean_up()

        assert ids() == [*kept, *filter(None, [whole]), new], tail


def test_what_was_torn_off_is_kept_beside_the_queue():
    for _, _, whole, tail in torn_files():
        TORN.unlink(missing_ok=True)
        enqueue("note", {})

        if tail and not whole:
            assert tail in TORN.read_bytes()
        else:
            assert not TORN.exists()


def test_a_torn_file_is_counted_right_after_the_next_tick_that_runs_a_job(admin):
    for _, kept, whole, tail in torn_files(every=5):
        process_jobs(HANDLERS)

        ran = 1 + len(kept) + bool(whole)
        assert admin() == counts(completed=ran), tail


def test_a_torn_file_is_counted_right_after_the_next_cancel(admin):
    for _, kept, whole, tail in torn_files(every=3):
        assert cancel_job(kept[0])

        assert admin() == counts(pending=1 + bool(whole), completed=1), tail


def test_a_torn_file_that_is_archived_after_the_next_enqueue_goes_on(archive):
    for _, kept, whole, tail in itertools.islice(torn_files(), 5, None, 25):
        new = enqueue("note", {"text": "after"})
        archive()
        process_jobs(HANDLERS)

        assert ids() == [*kept, *filter(None, [whole]), new], tail
        assert {get_job(job_id)["status"] for job_id in ids()} == {"completed"}, tail


def test_the_job_of_a_killed_worker_is_counted_as_running_and_then_as_completed(admin, run_python):
    job_id = enqueue("die", {})

    die_in_a_worker(run_python)
    between = admin()
    process_jobs(HANDLERS)

    assert between == counts(processing=1)
    assert admin() == counts(completed=1)
    assert get_job(job_id)["attempts"] == 2


def test_a_clean_up_after_a_kill_leaves_the_job_to_the_next_worker(clean_up, run_python):
    with freeze_time("2025-10-01"):
        enqueue("note", {})
        process_jobs(HANDLERS)
        dying = enqueue("die", {})

    die_in_a_worker(run_python)
    clean_up()
    between = ids()
    process_jobs(HANDLERS)

    assert between == [dying]
    assert (get_job(dying)["status"], get_job(dying)["result"]) == ("completed", "survived")


def test_archiving_after_a_kill_leaves_the_job_to_the_next_worker(archive, run_python):
    done = enqueue("note", {})
    process_jobs(HANDLERS)
    dying, waiting = enqueue("die", {}), enqueue("note", {})

    die_in_a_worker(run_python)
    archive()
    new = enqueue("note", {})
    process_jobs(HANDLERS)

    assert ids() == [dying, waiting, new]
    assert {get_job(job_id)["status"] for job_id in ids()} == {"completed"}
    assert get_job(done) is None


# Notes each run in a file; the killer kills its worker, once.
NOTING_WORKER = """
    import os
    from dbbasic_queue import process_jobs

    def run(payload):
        with open("ran.log", "a") as log:
            print(payload["name"], file=log)
        if payload["name"] == "killer" and os.path.exists("armed"):
            os.unlink("armed")
            os.kill(os.getpid(), 9)
        return payload["name"]

    process_jobs({"run": run})
"""


def run_around_a_kill(run_python, recipe):
    """Run four jobs, of which the third kills the worker; the recipe; a worker again."""
    Path("armed").touch()
    jobs = [enqueue("run", {"name": name}) for name in ("one", "two", "killer", "three")]
    run_python(NOTING_WORKER).wait(timeout=60)
    recipe()
    run_python(NOTING_WORKER).wait(timeout=60)
    return jobs, Counter(Path("ran.log").read_text().split())


def test_what_finished_before_a_kill_is_not_run_again_after_a_clean_up(run_python, clean_up):
    jobs, ran = run_around_a_kill(run_python, clean_up)

    assert ran == {"one": 1, "two": 1, "killer": 2, "three": 1}
    assert [get_job(job_id)["result"] for job_id in jobs] == ["one", "two", "killer", "three"]


def test_what_finished_before_a_kill_is_not_run_again_after_archiving(run_python, archive):
    jobs, ran = run_around_a_kill(run_python, archive)

    assert ran == {"one": 1, "two": 1, "killer": 2, "three": 1}
    assert [get_job(job_id)["status"] for job_id in jobs[2:]] == ["completed"] * 2


def test_a_clean_up_while_a_job_runs_does_not_take_its_result_away(clean_up, run_python):
    job_id = enqueue("wait", {})
    worker = run_python(
        """
        from dbbasic_queue import process_jobs
        process_jobs({"wait": lambda payload: [print("begun", flush=True), input()] and "done"})
        """,
        stdin=subprocess.PIPE,
    )

    worker.stdout.readline()
    clean_up()
    new = enqueue("note", {})
    worker.communicate("\n", timeout=60)

    assert ids() == [job_id, new]
    assert get_job(job_id)["result"] == "done"


def test_a_row_that_says_processing_with_no_worker_behind_it_is_run(admin, clean_up):
    job_id = enqueue("note", {})
    FILE.write_bytes(FILE.read_bytes().replace(b"\tpending\t", b"\tprocessing\t"))

    clean_up()
    between = admin()
    process_jobs(HANDLERS)

    assert between == counts(processing=1)
    assert admin() == counts(completed=1)
    assert get_job(job_id)["result"] == "done"


def test_a_killed_producer_leaves_whole_rows(admin, run_python):
    producer = run_python("""
        from dbbasic_queue import enqueue
        while True:
            print(enqueue("note", {"text": "x" * 500}), flush=True)
    """)

    known = [producer.stdout.readline().strip() for _ in range(20)]
    os.kill(producer.pid, 9)
    producer.wait(timeout=60)
    known += producer.stdout.read().split()
    new = enqueue("note", {})

    found = ids()
    assert found[:20] == known[:20]
    assert set(found) >= {id for id in known if len(id) == 16} | {new}
    assert admin() == counts(pending=len(found))
