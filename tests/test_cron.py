"""The system's real cron runs examples/worker.py, each minute, from lines as the README has them.

Runs only when asked for (DBBASIC_QUEUE_TEST_CRON=1), since it puts lines into the user's crontab
for two or three minutes and starts the daemon where none runs. Both are put back at the end.
Three folders share those minutes: a plain one, one where a tick is killed in mid-job, and one
where two ticks overlap. Whether a job ran is judged from a file that the handlers append to.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dbbasic_queue import Queue

pytestmark = [
    pytest.mark.cron,
    pytest.mark.skipif(
        os.environ.get("DBBASIC_QUEUE_TEST_CRON") != "1", reason="needs DBBASIC_QUEUE_TEST_CRON=1"
    ),
]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
TWO_TICKS = 130  # seconds: the longest wait for what the second tick brings about

HANDLERS = """
import os
import time

from dbbasic_queue import current_job


def begin(payload):
    # noted where the test looks, not in the queue
    with open("ran", "a") as ran:
        ran.write(f"{payload} {os.getpid()}\\n")


def quick(payload):
    begin(payload)
    time.sleep(0.02)
    return {"cwd": os.getcwd(), "home": os.environ["HOME"]}


def slow(payload):
    # until the file go-on is there, at most four minutes
    begin(payload)
    end = time.monotonic() + 240
    while not os.path.exists("go-on") and time.monotonic() < end:
        time.sleep(0.05)
    return current_job().attempts


HANDLERS = {"quick": quick, "slow": slow}
"""

ENQUEUE = """
import json, sys
from dbbasic_queue import Queue
print(*Queue(sys.argv[1]).enqueue_many([(*job,) for job in json.load(sys.stdin)]))
"""


class Folder:
    """A folder as the README tells to make one: worker.py, handlers.py, data, logs."""

    def __init__(self, path, *, lines=1, handlers=None):
        self.path = path
        path.mkdir()
        (path / "logs").mkdir()
        shutil.copy(EXAMPLES / "worker.py", path)
        if handlers:
            (path / "handlers.py").write_text(handlers)
        else:
            shutil.copy(EXAMPLES / "handlers.py", path)
        self.queue = Queue(path / "data" / "queue.tsv")
        here, python = shlex.quote(str(path)), shlex.quote(sys.executable)
        self.lines = lines * [f"* * * * * cd {here} && {python} worker.py >> logs/queue.log 2>&1"]

    def enqueue(self, *jobs):
        """Add the jobs from another process, and return their ids."""
        added = subprocess.run(
            [sys.executable, "-c", ENQUEUE, self.path / "data" / "queue.tsv"],
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            input=json.dumps(jobs),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return added.stdout.split()

    def ran(self):
        """Return (payload, pid) of each run that began, in their order."""
        try:
            lines = (self.path / "ran").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(payload, int(pid)) for payload, pid in map(str.split, lines)]

    def log(self):
        try:
            return (self.path / "logs" / "queue.log").read_text()
        except FileNotFoundError:
            return ""

    def go_on(self):
        """Let the slow jobs end."""
        (self.path / "go-on").touch()

    def wait(self, condition, seconds=TWO_TICKS):
        """Wait for what a tick brings about; when it does not, show the tick's log."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not in {seconds} s; the log is:\n{self.log()}"
            time.sleep(0.1)


def install(text):
    subprocess.run(["crontab", "-"], input=text, text=True, check=True)


def start_cron():
    """Start the daemon in the foreground, as our child; None when one runs already."""
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    cron = subprocess.Popen(
        [shutil.which("cron", path=path) or "cron", "-f"], stderr=subprocess.PIPE, text=True
    )
    try:
        _, why = cron.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        return cron
    assert "can't lock" in why, f"cron did not start: {why}"
    return None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The three folders, with a line of the crontab for each, two for the overlapping one."""
    base = tmp_path_factory.mktemp("cron")
    made = {
        "plain": Folder(base / "a plain one"),
        "killed": Folder(base / "killed", handlers=HANDLERS),
        "overlapping": Folder(base / "overlapping", handlers=HANDLERS, lines=2),
    }
    listed = subprocess.run(["crontab", "-l"], capture_output=True, text=True)
    lines = ['MAILTO=""', "LANG=C", f'PYTHONPATH="{ROOT}"']
    lines += [line for folder in made.values() for line in folder.lines]
    cron = None
    try:
        install("\n".join(lines) + "\n")
        cron = start_cron()
        yield made
    finally:
        if listed.returncode == 0:
            install(listed.stdout)
        else:
            subprocess.run(["crontab", "-r"], check=True)
        if cron:
            cron.terminate()
            cron.communicate()
        for folder in made.values():
            folder.go_on()


@pytest.fixture(scope="module")
def waiting(folders):
    """Jobs in all three folders before the first minute comes, so that they share it."""
    return {
        "plain": folders["plain"].enqueue(
            ("check_disk", {"path": "/", "limit": 100}),
            ("check_disk", {"path": "/no/Zürich", "limit": 100}),
            ("nobody_handles_this", None),
        ),
        "killed": folders["killed"].enqueue(
            ("quick", "before"),
            ("slow", "slow"),
            ("quick", "after"),
        ),
        "overlapping": folders["overlapping"].enqueue(
            *(("quick", f"first-{n}") for n in range(60)),
            ("slow", "slow"),
            *(("quick", f"second-{n}") for n in range(60)),
        ),
    }


def test_the_result_is_in_the_file_after_the_next_minute(folders, waiting):
    folder, [good, bad, unknown] = folders["plain"], waiting["plain"]

    folder.wait(lambda: "Queue worker finished" in folder.log())

    lines = (folder.path / "data" / "queue.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[3] for line in lines[1:]] == ["completed", "pending", "pending"]
    assert folder.queue.get(good).result["used_percent"] <= 100
    assert "/no/Zürich" in folder.queue.get(bad).error
    assert folder.queue.get(unknown).attempts == 0
    assert " - INFO - Starting queue worker\n" in folder.log()


@pytest.fixture(scope="module")
def killed(folders, waiting):
    """Kill a tick in mid-job, as soon as one runs, and see to it that the next one can end."""
    folder = folders["killed"]
    folder.wait(lambda: "slow" in dict(folder.ran()))
    os.kill(dict(folder.ran())["slow"], signal.SIGKILL)
    folder.go_on()
    return folder


def test_a_tick_killed_in_mid_job_leaves_what_it_finished(killed, waiting):
    [before, slow, _] = waiting["killed"]

    assert killed.queue.get(before).status == "completed"
    assert killed.queue.get(slow).status == "processing"
    assert "Queue worker finished" not in killed.log()


def test_overlapping_ticks_run_each_job_once_and_let_the_running_one_be(folders, waiting):
    folder, first = folders["overlapping"], waiting["overlapping"]
    slow = first[60]
    folder.wait(lambda: len(folder.ran()) == len(first))

    later = folder.enqueue(*(("quick", f"later-{n}") for n in range(20)))
    folder.wait(lambda: completed(folder.queue, later))
    assert folder.queue.get(slow).status == "processing"
    folder.go_on()
    folder.wait(lambda: completed(folder.queue, [*first, *later]))

    runs = [payload for payload, _ in folder.ran()]
    assert len(runs) == len(set(runs)) == 141
    assert len({pid for _, pid in folder.ran()}) >= 3  # two in one minute, then another one
    assert folder.queue.get(slow).result == 1


def test_the_next_tick_runs_what_the_killed_one_was_at(killed, waiting):
    killed.wait(lambda: "Queue worker finished" in killed.log())

    runs = [payload for payload, _ in killed.ran()]
    assert sorted(runs) == ["after", "before", "slow", "slow"]
    before, slow, after = map(killed.queue.get, waiting["killed"])
    assert [(job.status, job.attempts) for job in (before, slow, after)] == [
        ("completed", 1),
        ("completed", 2),
        ("completed", 1),
    ]
    assert slow.result == 2
    assert after.result == {"cwd": str(killed.path), "home": str(Path.home())}
    assert not [*killed.path.glob("data/queue.tsv.d/workers/*")]


# --- what `init` and `cron --install` set up, and what `health` says of it


class SetUp(Folder):
    """A folder set up by our commands alone, with a line for worker.py or for handlers."""

    def __init__(self, path, *words):
        self.path = path
        path.mkdir()
        self.queue = Queue(path / "data" / "queue.tsv")
        assert self.ask("init")[0] == 0
        assert self.ask("cron", *words, "--install")[0] == 0

    def ask(self, *words):
        """Run a command line there; return its status and what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "dbbasic_queue", *words],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.returncode, done.stdout

    def tick_was(self, seconds):
        """Say that the last tick was so long ago."""
        at = time.time() - seconds
        os.utime(self.path / "data" / "queue.tsv.d" / "tick", (at, at))


@pytest.fixture(scope="module")
def set_up(folders, tmp_path_factory):
    base = tmp_path_factory.mktemp("set up")
    made = {
        "worker": SetUp(base / "50% of 'it' \\ $HOME"),
        "module": SetUp(base / "module", "handlers:HANDLERS"),
    }
    ids = {name: folder.enqueue(("greet", {"name": name})) for name, folder in made.items()}
    for name, folder in made.items():
        folder.wait(lambda folder=folder, name=name: completed(folder.queue, ids[name]))
    return made


def test_what_the_commands_set_up_runs_and_is_healthy(set_up):
    for folder in set_up.values():
        status, text = folder.ask("health", "--log", "logs/queue.log")

        assert (status, text.split(" ago")[0][:12]) == (0, "OK - last ti"), text


def test_handlers_that_cannot_be_imported_are_red_with_the_reason(set_up):
    for folder in set_up.values():
        (folder.path / "handlers.py").write_text("import nothing_like_it\n")
    worker, module = set_up["worker"], set_up["module"]
    worker.wait(lambda: "nothing_like_it" in worker.log())
    module.wait(lambda: module.ask("health")[0] == 2)
    worker.tick_was(181)

    status, text = worker.ask("health", "--log", "logs/queue.log")
    also, reason = module.ask("health")

    assert (status, also) == (2, 2)
    assert text.startswith("CRITICAL - no tick since ")
    words = "ModuleNotFoundError: No module named 'nothing_like_it'"
    assert f"logs/queue.log: {words}" in text.splitlines()[0]
    assert f"handlers:HANDLERS: cannot import handlers: {words}" in reason.splitlines()[0]


def test_mended_it_is_green_again(set_up):
    for folder in set_up.values():
        (folder.path / "handlers.py").write_text("HANDLERS = {'greet': lambda payload: payload}\n")

    for folder in set_up.values():
        folder.wait(lambda folder=folder: folder.ask("health")[0] == 0)


def test_without_cron_it_is_red_within_three_ticks(set_up):
    folder = set_up["worker"]
    status, text = folder.ask("cron", "--remove")
    folder.tick_was(175)

    before = folder.ask("health")[0]
    folder.wait(lambda: folder.ask("health")[0] == 2, seconds=20)

    assert (status, text[:2], before) == (0, "- ", 0)
    assert folder.ask("health", "--log", "logs/queue.log")[1].startswith("CRITICAL - no tick since")
    assert (
        str(folder.path.name)[:3]
        not in subprocess.run(["crontab", "-l"], capture_output=True, text=True).stdout
    )


def completed(queue, ids):
    return all(queue.get(job_id).status == "completed" for job_id in ids)
