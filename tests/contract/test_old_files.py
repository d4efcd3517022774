"""A file of nine columns, as dbbasic-queue 1.0.0 wrote it, is read, run and widened."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, cancel_job, enqueue, get_job, process_jobs

FILE = Path("data/queue.tsv")
OLD = "id type payload status created_at run_at attempts error result".split()
OURS = (
    "queue priority max_attempts timeout backoff worker after group started_at finished_at"
).split()
THEN = 1696886400
NOW = "2023-10-10 12:00:00"
random_ids = random.Random(1)


def old_row(type, payload, status="pending", run_at=THEN, attempts=0, error="", result=None):
    """The cells of one row, the way that 1.0.0 made them."""
    return [
        f"{random_ids.getrandbits(64):016x}",
        type,
        json.dumps(payload),
        status,
        str(THEN),
        str(run_at),
        str(attempts),
        error,
        json.dumps(result) if result else "",
    ]


def write(rows):
    FILE.parent.mkdir(exist_ok=True)
    with open(FILE, "w") as file:
        for row in [OLD, *rows]:
            file.write("\t".join(row) + "\n")


def table():
    return [line.split("\t") for line in FILE.read_text("utf-8").removesuffix("\n").split("\n")]


HANDLERS = {"note": lambda payload: payload.get("text"), "bad": lambda payload: 1 / 0}


@pytest.fixture
def old():
    """A row of each kind by name, in a file where the ids are in no order."""
    with freeze_time(NOW):
        rows = {
            "due": old_row("note", {"text": "Zürich"}),
            "due by a fraction": old_row("note", {"text": "b"}, run_at=1696886400.123),
            "scheduled": old_row("note", {}, run_at=1697000000.5),
            "tried": old_row("note", {}, run_at=THEN + 240, attempts=1, error="timed out"),
            "abandoned": old_row("note", {"text": "c"}, status="processing"),
            "completed": old_row("note", {}, status="completed", attempts=1, result={"sent": 1}),
            "without result": old_row("note", {}, status="completed", attempts=2),
            "failed": old_row("bad", {}, status="failed", attempts=3, error="division by zero"),
            "cancelled": old_row("note", {}, status="cancelled", error="Cancelled by user"),
        }
    write(rows.values())
    ids = [row[0] for row in rows.values()]
    assert ids != sorted(ids)
    return rows


def test_every_row_is_read_as_1_0_0_meant_it(old):
    jobs = {name: get_job(row[0]) for name, row in old.items()}

    assert jobs["due"]["payload"] == {"text": "Zürich"}
    assert {name: job["status"] for name, job in jobs.items()} == {
        name: row[3] for name, row in old.items()
    }
    assert [jobs[name]["result"] for name in ("completed", "without result")] == [{"sent": 1}, None]
    assert [jobs[name]["error"] for name in ("due", "failed")] == [None, "division by zero"]
    assert [job["attempts"] for job in jobs.values()] == [0, 0, 0, 1, 0, 1, 2, 3, 0]


def test_a_fraction_in_run_at_is_read_as_a_whole_second(old):
    early, late = (get_job(old[name][0])["run_at"] for name in ("due by a fraction", "scheduled"))

    assert (early - THEN in (0, 1), late) == (True, 1697000001)
    assert type(early) is int


def test_reading_changes_nothing(old):
    before = FILE.read_bytes()

    list(Queue().jobs())
    Queue().counts("status")
    for row in old.values():
        get_job(row[0])

    assert FILE.read_bytes() == before


def test_what_is_due_is_run_and_the_rest_is_kept(old):
    with freeze_time(NOW):
        process_jobs(HANDLERS)

    ran = "due", "due by a fraction", "tried", "abandoned"
    assert {name: get_job(row[0])["status"] for name, row in old.items()} == {
        name: "completed" if name in ran else row[3] for name, row in old.items()
    }
    assert [get_job(old[name][0])["result"] for name in ran] == ["Zürich", "b", None, "c"]


def test_what_was_scheduled_by_a_fraction_does_not_run_early(old):
    with freeze_time(NOW) as clock:
        clock.move_to("2023-10-11 04:53:20.4")
        process_jobs(HANDLERS)
        before = get_job(old["scheduled"][0])["status"]
        clock.move_to("2023-10-11 04:53:21")
        process_jobs(HANDLERS)

    assert before == "pending"
    assert get_job(old["scheduled"][0])["status"] == "completed"


def test_the_first_edit_widens_header_and_rows(old):
    cancel_job(old["due"][0])

    header, *rows = table()
    assert header == [*OLD, *OURS]
    assert {len(row) for row in rows} == {len(header)}
    assert [row[0] for row in rows] == [row[0] for row in old.values()]


def test_widening_leaves_the_nine_cells_of_the_other_rows_as_they_are(old):
    cancel_job(old["due"][0])

    untouched = [row for name, row in old.items() if name != "due"]
    assert [row[:9] for row in table()[2:]] == untouched


def test_a_plain_enqueue_adds_nine_cells_and_touches_nothing_else(old):
    before = FILE.read_bytes()

    job_id = enqueue("note", {"text": "new"})

    assert FILE.read_bytes().startswith(before)
    assert [len(row) for row in table()] == [9] * 11
    assert get_job(job_id)["payload"] == {"text": "new"}


def test_an_enqueue_that_needs_a_new_column_widens(old):
    job_id = enqueue("note", {}, queue="high")

    header, *rows = table()
    assert header == [*OLD, *OURS]
    assert (rows[-1][0], rows[-1][9]) == (job_id, "high")
    assert [row[:9] for row in rows[:-1]] == list(old.values())


def test_old_and_new_rows_run_together(old):
    new = enqueue("note", {"text": "new"})
    urgent = enqueue("note", {"text": "urgent"}, priority=-1)
    order = []

    with freeze_time("2030-01-01"):
        process_jobs({"note": lambda payload: order.append(payload.get("text"))})

    assert order[0] == "urgent"
    assert {get_job(job_id)["status"] for job_id in (new, urgent)} == {"completed"}
    assert Queue().counts("status") == {"completed": 9, "failed": 1, "cancelled": 1}


def test_an_old_job_is_cancelled_or_retried_by_its_random_id(old):
    cancelled = cancel_job(old["scheduled"][0])

    retried = Queue().retry(old["failed"][0])

    assert (cancelled, list(retried)) == (True, [old["failed"][0]])
    assert get_job(old["failed"][0])["status"] == "pending"
    assert get_job(old["scheduled"][0])["status"] == "cancelled"


@pytest.mark.parametrize("last", ["f" * 16, "fffffffffffffffe", "0" * 16, "fa83cc1129de0047"])
def test_an_old_id_at_either_end_of_the_range_stops_no_enqueue(last):
    write([[last, *old_row("note", {})[1:]]])

    new = [enqueue("note", {"text": number}) for number in range(3)]

    assert len({last, *new}) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", job_id) for job_id in new)
    assert [get_job(job_id)["payload"] for job_id in new] == [{"text": n} for n in range(3)]
    assert get_job(last)["payload"] == {}


def test_an_old_id_does_not_push_the_ids_of_other_files_ahead(run_python):
    write([["fa83cc1129de0047", *old_row("note", {})[1:]]])

    child = run_python("""
        from dbbasic_queue import Queue, enqueue
        enqueue("note", {})
        print(Queue("other.tsv").enqueue("note", {}))
    """)
    job_id = child.stdout.readline().strip()

    assert abs(int(job_id[:13], 16) / 1e6 - time.time()) < 60


def test_an_error_of_several_lines_broke_old_rows_and_blocks_no_other():
    broken = old_row("bad", {}, attempts=1, error="first line")[:8]
    remains = ["second line", *[""] * 8]
    write([old_row("note", {"text": "a"}), broken, remains, old_row("note", {"text": "b"})])
    lines = FILE.read_bytes().splitlines()[2:4]

    process_jobs(HANDLERS)

    assert [row[3] for row in table()[1:] if row[1:2] == ["note"]] == ["completed"] * 2
    assert FILE.read_bytes().splitlines()[2:4] == lines


def test_an_old_file_without_jobs_is_a_queue():
    write([])

    job_id = enqueue("note", {"text": "first"})
    process_jobs(HANDLERS)

    assert get_job(job_id)["result"] == "first"


# Run by 1.0.0 itself: one job of each kind.
WRITER = """
import time, dbbasic_queue
from dbbasic_queue import enqueue, process_jobs, cancel_job

assert dbbasic_queue.__version__ == "1.0.0"

def fail(payload):
    raise ValueError("no such address")

def die(payload):
    raise KeyboardInterrupt

ids = [enqueue("good", {"text": "Zürich"}), enqueue("failing", {})]
process_jobs({"good": lambda payload: {"sent": True}, "failing": fail}, max_attempts=1)
ids.append(enqueue("retried", {}))
process_jobs({"retried": fail})
ids.append(enqueue("note", {"text": "cancelled"}))
cancel_job(ids[-1])
ids.append(enqueue("killed", {"text": "killed"}))
try:
    process_jobs({"killed": die})
except KeyboardInterrupt:
    pass
ids.append(enqueue("note", {"text": "due"}))
ids.append(enqueue("note", {"text": "later"}, run_at=time.time() + 3600.5))
print(*ids)
"""


@pytest.fixture(scope="module")
def version_1(tmp_path_factory):
    """A folder with the package 1.0.0 as the index has it."""
    folder = tmp_path_factory.mktemp("version_1")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder]
    done = subprocess.run([*pip, "dbbasic-queue==1.0.0"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"dbbasic-queue 1.0.0 cannot be had: {done.stderr.strip()[-200:]}")
    return folder


@pytest.mark.engine
def test_a_file_that_1_0_0_itself_wrote_is_read_and_run(version_1, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(version_1)}
    output = subprocess.check_output(
        [sys.executable, "-c", WRITER], cwd=tmp_path, env=environment, text=True
    )
    good, failing, retried, cancelled, killed, due, later = output.split()
    header = table()[0]
    before = {job_id: get_job(job_id)["status"] for job_id in output.split()}

    process_jobs({name: lambda payload: payload["text"] for name in ("note", "killed")})

    assert header == OLD
    assert table()[0] == [*OLD, *OURS]
    assert list(before.values()) == [
        *("completed", "failed", "pending", "cancelled", "processing", "pending", "pending")
    ]
    assert get_job(good)["result"] == {"sent": True}
    assert "no such address" in get_job(failing)["error"] and get_job(failing)["attempts"] == 1
    assert (get_job(retried)["status"], get_job(retried)["attempts"]) == ("pending", 1)
    assert get_job(cancelled)["status"] == "cancelled"
    assert [get_job(job_id)["result"] for job_id in (killed, due, later)] == ["killed", "due", None]
