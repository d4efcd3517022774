"""grep, tail, ls, chmod and the archive recipe on the real file: the numbers, and life after it."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from dbbasic_queue import cancel_job, enqueue, get_job, process_jobs

FILE = Path("data/queue.tsv")
ARCHIVE = """
cp data/queue.tsv kept.bak
head -1 data/queue.tsv > data/fresh
grep -E "pending|processing" data/queue.tsv >> data/fresh
mv data/fresh data/queue.tsv
"""


def fail(payload):
    raise ValueError("the door is locked")


def die(payload):
    os.kill(os.getpid(), 9)


def ids(lines):
    return [line.split("\t")[0] for line in lines.splitlines()]


@pytest.fixture
def mixed():
    """The ids by status of a queue that has some of all kinds but no running job."""
    jobs = {
        "completed": [enqueue("note", {}) for _ in range(4)],
        "failed": [enqueue("bad", {}) for _ in range(2)],
    }
    process_jobs({"note": lambda payload: None, "bad": fail}, max_attempts=1)
    again = enqueue("bad", {})
    process_jobs({"bad": fail}, max_attempts=3)
    jobs["cancelled"] = [enqueue("note", {})]
    cancel_job(jobs["cancelled"][0])
    later = enqueue("note", {}, run_at=2**32)
    jobs["pending"] = [again, later, *(enqueue("note", {}) for _ in range(4))]
    return jobs


def test_grep_counts_the_pending_jobs_the_scheduled_and_the_tried_ones_too(mixed, shell):
    assert int(shell("cat data/queue.tsv | grep pending | wc -l")) == len(mixed["pending"]) == 6


@pytest.mark.parametrize("status", ["pending", "completed", "failed", "cancelled"])
def test_grep_finds_the_rows_of_a_status_and_no_others(mixed, shell, status):
    assert ids(shell(f"cat data/queue.tsv | grep {status}")) == mixed[status]


def test_grep_finds_a_running_job(shell):
    seen = []

    def look(payload):
        seen.append(shell("grep processing data/queue.tsv"))

    job_id = enqueue("look", {})
    process_jobs({"look": look})

    assert [ids(lines) for lines in seen] == [[job_id]]


def test_a_job_that_killed_its_worker_is_no_failed_job_for_grep(run_python, shell):
    job_id = enqueue("die", {})
    tick = """
        import os
        from dbbasic_queue import process_jobs
        process_jobs({"die": lambda payload: os.kill(os.getpid(), 9)}, max_attempts=3)
    """

    for _ in range(2):
        run_python(tick).wait(timeout=60)
    process_jobs({})
    before = shell("grep -c failed data/queue.tsv || true").strip()
    run_python(tick).wait(timeout=60)
    process_jobs({})

    assert before == "0"
    assert ids(shell("grep failed data/queue.tsv")) == [job_id]


def test_tail_shows_the_ten_newest_jobs_in_order(shell):
    jobs = [enqueue("note", {"number": number}) for number in range(15)]

    process_jobs({"note": lambda payload: None})

    assert ids(shell("tail -10 data/queue.tsv")) == jobs[-10:]


def test_a_search_for_a_word_in_a_payload_finds_it_as_it_is_written(shell):
    job_id = enqueue("note", {"city": "Zürich", "sign": "日本"})
    enqueue("note", {"city": "Bern"})

    assert ids(shell("grep Zürich data/queue.tsv | grep 日本")) == [job_id]


def test_cut_and_awk_read_the_columns(mixed, shell):
    by_cut = shell("tail -n +2 data/queue.tsv | cut -f4 | sort | uniq -c").split()
    by_awk = shell("awk -F'\\t' 'NR > 1 && $7 > 0 {n++} END {print n}' data/queue.tsv")

    counted = dict(zip(by_cut[1::2], map(int, by_cut[::2]), strict=True))
    assert counted == {status: len(jobs) for status, jobs in mixed.items()}
    assert int(by_awk) == 4 + 2 + 1


def test_archiving_by_hand_keeps_what_is_not_finished(mixed, shell):
    shell(ARCHIVE)

    assert ids(FILE.read_text())[1:] == mixed["pending"]
    assert len(ids(Path("kept.bak").read_text())) == 1 + sum(map(len, mixed.values()))


def test_after_archiving_by_hand_the_queue_goes_on_in_the_same_process(mixed, shell):
    shell(ARCHIVE)
    after = enqueue("note", {"after": True})

    process_jobs({"note": lambda payload: "done"})

    assert get_job(mixed["completed"][0]) is None
    assert get_job(after)["result"] == "done"
    assert len(ids(shell("grep completed data/queue.tsv"))) == 5
    assert ids(shell("cat data/queue.tsv"))[1:] == [*mixed["pending"], after]


def test_after_archiving_by_hand_the_queue_goes_on_in_another_process(mixed, shell, run_python):
    shell(ARCHIVE)

    run_python("""
        from dbbasic_queue import enqueue, process_jobs
        enqueue("note", {})
        process_jobs({"note": lambda payload: None})
    """).wait(timeout=60)

    assert len(ids(shell("grep completed data/queue.tsv"))) == 5
    assert len(ids(shell("grep pending data/queue.tsv"))) == 2


def test_archiving_by_hand_while_a_job_runs_loses_neither_it_nor_its_result(shell, run_python):
    enqueue("wait", {"number": 1})
    worker = run_python(
        """
        from dbbasic_queue import process_jobs
        process_jobs({"wait": lambda payload: [print("begun", flush=True), input()] and "done"})
        """,
        stdin=subprocess.PIPE,
    )

    worker.stdout.readline()
    shell(ARCHIVE)
    worker.communicate("\n", timeout=60)

    (row,) = FILE.read_text().splitlines()[1:]
    assert (row.split("\t")[3], json.loads(row.split("\t")[8])) == ("completed", "done")


def test_ls_shows_the_mode_that_was_set_by_hand_after_every_kind_of_change(shell):
    enqueue("note", {})
    shell("chmod 664 data/queue.tsv")

    enqueue("note", {})
    process_jobs({"note": lambda payload: None})
    cancel_job(enqueue("note", {}))

    assert shell("ls -la data/queue.tsv").startswith("-rw-rw-r-- 1 ")


def test_the_files_beside_the_queue_are_open_to_nobody_whom_the_queue_shuts_out(shell):
    enqueue("note", {})
    FILE.chmod(0o660)

    process_jobs({"note": lambda payload: enqueue("note", {}, run_at=2**32) and None})

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in FILE.parent.rglob("*")}
    assert len(modes) >= 2
    assert not any(mode & 0o007 for mode in modes.values())


# The steps of the guide's permission recipe, then two real users on the file in turn.
TWO_USERS = """
import os, stat, sys
from dbbasic_queue import cancel_job, enqueue, process_jobs

def as_user(name, act):
    import grp, pwd
    reader, writer = os.pipe()
    if os.fork() == 0:
        user = pwd.getpwnam(name)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        try:
            text = str(act())
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    print(os.read(reader, 4096).decode().replace(chr(10), " "))

def show():
    file = os.stat("data/queue.tsv")
    print(oct(stat.S_IMODE(file.st_mode)), file.st_uid == owner.st_uid, file.st_gid == owner.st_gid)

def rehearse():
    # All that is imported late is imported now: www-data may be shut out of this Python's folders.
    os.environ["DBBASIC_QUEUE"] = "/rehearsal/queue.tsv"
    cancel_job(enqueue("note", {}))
    cancel_job(enqueue("note", {}))
    process_jobs({"note": print})
    try:
        enqueue("", {})
    except Exception:
        pass
    del os.environ["DBBASIC_QUEUE"]

rehearse()
owner = os.stat("data/queue.tsv")
ACT
"""
RECIPE = """
mkdir -p /app/data
touch /app/data/queue.tsv
chmod 664 /app/data/queue.tsv
chown www-data:www-data /app/data/queue.tsv
"""


@pytest.mark.engine
def test_www_data_enqueues_into_its_file_in_roots_folder_and_root_runs(machine):
    act = """if True:
        as_user("www-data", lambda: enqueue("note", {"n": 1}))
        process_jobs({"note": lambda payload: payload["n"]})
        show()
        as_user("www-data", lambda: enqueue("note", {"n": 2}))
        process_jobs({"note": lambda payload: payload["n"]})
        show()
    """

    machine.shell(RECIPE)
    output = machine.python(TWO_USERS.replace("ACT", act), folder="/app").splitlines()

    table = [line.split("\t") for line in machine.read("/app/data/queue.tsv").splitlines()[1:]]
    assert [row[0] for row in table] == [output[0], output[2]]
    assert [(row[3], row[8]) for row in table] == [("completed", "1"), ("completed", "2")]
    assert output[1] == output[3] == "0o664 True True"


@pytest.mark.engine
def test_an_edit_by_www_data_in_roots_folder_is_refused_with_the_folders_name(machine):
    act = """if True:
        as_user("www-data", lambda: cancel_job(enqueue("note", {"n": 1})))
        show()
    """

    machine.shell(RECIPE)
    refused, shown = machine.python(TWO_USERS.replace("ACT", act), folder="/app").splitlines()

    assert refused.startswith("QueueError: /app/data")
    assert shown == "0o664 True True"
    assert machine.read("/app/data/queue.tsv").count("\tpending\t") == 1


@pytest.mark.engine
def test_two_users_of_one_group_share_a_folder_of_that_group(machine):
    act = """if True:
        as_user("www-data", lambda: enqueue("note", {"n": 1}))
        as_user("www-data", lambda: process_jobs({"note": lambda payload: payload["n"]}))
        process_jobs({"note": lambda payload: payload["n"]})
        enqueue("note", {"n": 2})
        as_user("www-data", lambda: process_jobs({"note": lambda payload: payload["n"]}))
        show()
    """

    machine.shell(RECIPE + "chown www-data:www-data /app/data")
    output = machine.python(TWO_USERS.replace("ACT", act), folder="/app").splitlines()

    table = [line.split("\t") for line in machine.read("/app/data/queue.tsv").splitlines()[1:]]
    assert [(row[3], row[8]) for row in table] == [("completed", "1"), ("completed", "2")]
    assert output[1:] == ["None", "None", "0o664 True True"]
