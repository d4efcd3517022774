"""Commands as jobs: real processes, what they print, how they end, and that none is left behind."""

import contextlib
import json
import math
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dbbasic_queue import Queue, cli, shell
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.shell import enqueue_command, exit_status, handlers, quiet
from dbbasic_queue.shell.log import Log

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def add(queue):
    """Add a command; one text is a line for sh."""

    def enqueue(*argv, **arguments):
        argv = ["sh", "-c", argv[0]] if len(argv) == 1 else argv
        return enqueue_command(argv, queue_file=queue, **arguments)

    return enqueue


@pytest.fixture
def done(queue, add):
    """Run a command and return its job."""

    def run(*argv, **arguments):
        job_id = add(*argv, **arguments)
        queue.process_jobs(handlers)
        return queue.get(job_id)

    return run


@pytest.fixture
def start(tmp_path):
    """Start the real program on the default queue; what is left of it is killed."""
    children = []

    def run(words, **popen):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        options |= {"stderr": subprocess.PIPE, "text": True, "cwd": tmp_path, **popen}
        child = subprocess.Popen(
            [sys.executable, "-m", "dbbasic_queue", *shlex.split(words)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            **options,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        with child:
            child.kill()


@pytest.fixture
def default():
    return Queue(sync="off")


def printed(queue, job):
    text = Path(queue.path + f".d/output/{job.id}.log").read_bytes()
    return b"\n".join(line for line in text.split(b"\n") if not line.startswith(b"--- "))


def until(condition, seconds=20):
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def lives(pid_file):
    """Whether the process whose number stands in a file lives; it may have to be written first."""
    until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    try:
        with open(f"/proc/{int(pid_file.read_text())}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- how it ends


def test_a_command_that_succeeds_completes_its_job(queue, done):
    job = done("echo out; echo err >&2; echo end")

    assert (job.status, job.result["exit"], exit_status(job)) == ("completed", 0, 0)
    assert 0 <= job.result["seconds"] < 20
    assert printed(queue, job) == b"out\nerr\nend\n"


@pytest.mark.parametrize(
    ("argv", "error", "status"),
    [
        (["echo so far; echo no such target >&2; exit 3"], "exit status 3: no such target", 3),
        (["exit 255"], "exit status 255", 255),
        (["kill -9 $$"], "signal 9", 137),
        (["kill -TERM $$"], "signal 15", 143),
        (["no-such-program", "-v"], "exit status 127: no-such-program: command not found", 127),
        (["/etc/passwd", ""], "exit status 126: /etc/passwd: Permission denied", 126),
    ],
)
def test_another_end_is_an_attempt_that_did_not_succeed(queue, done, argv, error, status):
    job = done(*argv)

    assert (job.status, job.error, exit_status(job)) == ("failed", error, status)
    assert job.attempts == 1


def test_a_command_is_repeated_only_when_that_is_asked_for(queue, done):
    job = done("echo more; exit 1", max_attempts=2, backoff="none")
    queue.process_jobs(handlers)

    assert (job.status, job.attempts) == ("pending", 1)
    assert queue.get(job.id).status == "failed"
    assert printed(queue, job) == b"more\nmore\n"


def test_a_folder_that_is_gone_is_said(tmp_path, done):
    job = done("true", "", cwd=tmp_path / "gone")

    assert job.error == f"exit status 126: its folder {tmp_path}/gone: No such file or directory"


def test_a_command_that_deletes_its_folder_ends_as_any_other(tmp_path, done):
    (tmp_path / "here").mkdir()

    assert done("rm -r ../here && exit 4", cwd=tmp_path / "here").error == "exit status 4"


def test_without_its_handler_a_command_stays_pending(queue, add):
    job_id = add("true")

    queue.process_jobs({"mail": str})

    assert queue.get(job_id).status == "pending"


# --- what it is given


def test_the_words_arrive_as_they_are(queue, done):
    words = ["a b", "'\"$HOME`", "", "two\nlines\tand a tab", b"no \xff\xfe utf-8", "ü\u2028"]

    job = done(sys.executable, "-Sc", "import os, sys; os.write(1, repr(list(map(os.fsencode, "
               "sys.argv[1:]))).encode())", *words)  # fmt: skip

    assert printed(queue, job) == repr([os.fsencode(word) for word in words]).encode() + b"\n"


def test_the_folder_is_kept_and_the_input_is_empty(queue, done, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")

    job = done("pwd; echo $PWD; cat; echo $DBBASIC_QUEUE_JOB $DBBASIC_QUEUE")

    assert printed(queue, job).decode().split() == [
        f"{tmp_path}/deep", f"{tmp_path}/deep", job.id, queue.path,
    ]  # fmt: skip


def test_of_the_environment_only_what_was_chosen_is_kept(queue, add, monkeypatch):
    monkeypatch.setenv("SECRET", "s3cret")
    monkeypatch.setenv("LANG", "tlh")
    job_id = add('echo "$LANG:$MINE"', env={"LANG": None, "MINE": "a b"})
    monkeypatch.setenv("LANG", "C")

    queue.process_jobs(handlers)

    assert b"s3cret" not in Path(queue.path).read_bytes()
    assert set(queue.get(job_id).payload["env"]) == {"PATH", "LANG", "MINE"}
    assert printed(queue, queue.get(job_id)) == b"tlh:a b\n"


@pytest.mark.parametrize(
    ("argv", "arguments", "said"),
    [
        ("ls -l", {}, "for a line of the shell"),
        ([], {}, "no command"),
        ([""], {}, "no command"),
        (["a\0b"], {}, "no command"),
        (["\ud800"], {}, "no command"),
        ([3], {}, "argv="),
        (["ls"], {"env": {"DBBASIC_NO_SUCH": None}}, "no such variable"),
        (["ls"], {"env": {"A=B": "c"}}, "no name"),
        (["ls"], {"env": {"A": 3}}, "no mapping"),
    ],
)
def test_what_is_no_command_is_refused(queue, argv, arguments, said):
    with pytest.raises(BadArgument, match=said):
        enqueue_command(argv, queue_file=queue, **arguments)

    assert not os.path.exists(queue.path)


@pytest.mark.parametrize("payload", [None, 3, {}, {"argv": "ls"}, {"argv": ["ls"], "cwd": "here"}])
def test_a_payload_that_is_no_command_fails_at_once(queue, payload):
    job_id = queue.enqueue("shell", payload)

    queue.process_jobs(handlers)

    assert queue.get(job_id).status == "failed"
    assert exit_status(queue.get(job_id)) == 1


# --- what it prints


def test_bytes_are_kept_as_they_are(queue, done):
    assert printed(queue, done(r"printf '\000\377\033[31m'")) == b"\0\xff\x1b[31m\n"


def test_the_beginning_and_the_end_of_long_output_are_kept_and_the_cut_is_marked(queue, add):
    job_id = add("echo first; yes | head -c 300000; echo last; exit 5")

    queue.process_jobs(shell.handlers_with(output=100_000))

    text = Path(queue.path + f".d/output/{job_id}.log").read_bytes()
    assert 100_000 < len(text) < 170_000
    assert text.split(b"\n")[1] == b"first" and b"\nlast\n--- attempt 1 ended" in text
    assert b"--- cut here" in text and b" bytes were left out\n" in text
    assert queue.get(job_id).error == "exit status 5: last"


@pytest.mark.soak
def test_a_gigabyte_of_output_costs_little_memory_and_disk(queue, add, run_python):
    job_id = add("yes | head -c 1000000000")

    child = run_python(f"""
        import resource
        from dbbasic_queue import Queue
        from dbbasic_queue.shell import handlers
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        Queue({queue.path!r}).process_jobs(handlers)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)

    assert int(child.communicate()[0]) < 12_000
    assert queue.get(job_id).status == "completed"
    assert os.path.getsize(queue.path + f".d/output/{job_id}.log") < 17 << 20


def test_a_line_of_the_commands_words_is_safe_in_the_file(queue, done):
    job = done("true", "\x1b[2J\n--- attempt 9")

    head = Path(queue.path + f".d/output/{job.id}.log").read_bytes().split(b"\n")
    assert b"\x1b" not in head[0]
    assert len(head) == 3


def test_the_output_is_as_open_as_the_queue_and_no_link_is_followed(queue, add, tmp_path, caplog):
    first = add("echo one")
    os.chmod(queue.path, 0o640)
    queue.process_jobs(handlers)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    second = add("echo two")
    os.symlink(precious, queue.path + f".d/output/{second}.log")

    queue.process_jobs(handlers)

    assert os.stat(queue.path + f".d/output/{first}.log").st_mode & 0o777 == 0o640
    assert precious.read_text() == "mine"
    assert queue.get(second).status == "completed"  # what cannot be kept costs no job
    assert "is not kept" in caplog.text


def test_purge_removes_the_output_and_archive_keeps_it(queue, done):
    first, second = done("echo one"), done("echo two")

    queue.archive(0)
    kept = printed(queue, first), printed(queue, second)
    third = done("echo three")
    queue.purge()

    assert kept == (b"one\n", b"two\n")
    assert sorted(os.listdir(queue.path + ".d/output")) == [f"{first.id}.log", f"{second.id}.log"]
    assert queue.get(third.id) is None


def test_a_daemon_that_keeps_the_output_open_holds_nobody(queue, done, tmp_path):
    job = done(f"sleep 60 & echo $! > {tmp_path}/pid; echo started")

    assert job.status == "completed" and job.result["seconds"] < 10
    assert printed(queue, job) == b"started\n"
    assert lives(tmp_path / "pid")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


# --- how it is ended


@pytest.mark.parametrize("processes", [pytest.param(0, marks=pytest.mark.soak), 1])
def test_a_command_whose_time_is_over_is_ended_with_all_it_has_started(
    queue, add, tmp_path, run_python, processes
):
    line = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/inner; echo $$ > {tmp_path}/outer"
    job_id = add(f"{line}; wait; sleep 60", timeout=0.2)

    code = f"""
        from dbbasic_queue import Queue
        from dbbasic_queue.shell import handlers
        Queue({queue.path!r}).process_jobs(handlers, processes={processes})
    """
    run_python(code, stderr=subprocess.DEVNULL).wait(30)

    job = queue.get(job_id)
    assert (job.status, job.error, exit_status(job)) == ("failed", "timed out after 0.2 s", 124)
    assert not lives(tmp_path / "outer") and not lives(tmp_path / "inner")


@pytest.mark.soak
def test_a_command_whose_time_is_over_while_it_starts_is_ended_too(queue, done, monkeypatch):
    started = []

    class Slow(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self.pid)
            time.sleep(0.25)  # its time is over meanwhile

    monkeypatch.setattr(subprocess, "Popen", Slow)

    assert done("sleep 60", timeout=0.01).error == "timed out after 0.01 s"
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


@pytest.mark.soak
def test_what_a_command_says_when_it_is_ended_is_kept(queue, done):
    job = done("trap 'echo bye; exit 9' TERM; while :; do sleep 0.01; done", timeout=0.2)

    assert job.error == "timed out after 0.2 s"
    assert printed(queue, job).endswith(b"bye\n")


@pytest.mark.soak
def test_a_command_is_ended_in_a_thread_too(queue, add):
    job_id = add("sleep 60", timeout=0.2)

    thread = threading.Thread(target=queue.process_jobs, args=(handlers,))
    thread.start()
    thread.join(30)

    assert exit_status(queue.get(job_id)) == 124


@pytest.mark.soak
def test_a_command_that_has_stopped_itself_is_ended_too(queue, done):
    assert done("kill -STOP $$", timeout=0.2).error == "timed out after 0.2 s"


@pytest.mark.soak
def test_kill_ends_the_command(queue, add, run_python, tmp_path):
    job_id = add(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    child = run_python(f"""
        from dbbasic_queue import Queue
        from dbbasic_queue.shell import handlers
        Queue({queue.path!r}).process_jobs(handlers)
    """)
    assert lives(tmp_path / "pid")

    until(lambda: queue.kill(job_id))
    child.wait(30)

    assert (queue.get(job_id).status, exit_status(queue.get(job_id))) == ("cancelled", 1)
    assert not lives(tmp_path / "pid")


@pytest.mark.soak
def test_a_second_signal_puts_the_job_back_and_ends_the_command(queue, add, run_python, tmp_path):
    job_id = add(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    child = run_python(f"""
        from dbbasic_queue import Queue
        from dbbasic_queue.shell import handlers
        Queue({queue.path!r}).process_jobs(handlers)
    """)
    assert lives(tmp_path / "pid")

    child.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    still = lives(tmp_path / "pid")
    child.send_signal(signal.SIGTERM)
    child.wait(30)

    assert still
    assert (queue.get(job_id).status, queue.get(job_id).attempts) == ("pending", 0)
    assert not lives(tmp_path / "pid")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_command_does_not_outlive_its_killed_worker_beside_its_second_run(
    queue, add, run_python, tmp_path
):
    line = f"echo $$ > {tmp_path}/outer; sleep 60 & echo $! > {tmp_path}/inner; wait"
    job_id = add(f"test -e {tmp_path}/inner || {{ {line}; }}", max_attempts=2)
    child = run_python(f"""
        from dbbasic_queue import Queue
        from dbbasic_queue.shell import handlers
        Queue({queue.path!r}).process_jobs(handlers)
    """)
    assert lives(tmp_path / "outer") and lives(tmp_path / "inner")

    child.kill()
    child.wait()
    until(lambda: not lives(tmp_path / "outer"))  # the kernel's work
    inner = lives(tmp_path / "inner")
    queue.process_jobs(handlers)

    assert inner and not lives(tmp_path / "inner")
    assert (queue.get(job_id).status, queue.get(job_id).attempts) == ("completed", 2)


def test_what_an_attempt_that_ended_has_left_is_not_touched(queue, done, tmp_path):
    job = done(f"sleep 60 & echo $! >> {tmp_path}/pids; exit 1")

    queue.retry(job.id)
    queue.process_jobs(handlers)

    pids = (tmp_path / "pids").read_text().split()
    left = []
    for pid in pids:
        (tmp_path / pid).write_text(f"{pid}\n")
        left.append(lives(tmp_path / pid))
        os.kill(int(pid), signal.SIGKILL)
    assert left == [True, True]


def test_a_command_inherits_no_descriptor_of_the_worker(queue, done):
    job = done("ls /proc/$$/fd")

    assert printed(queue, job).split() == [b"0", b"1", b"2"]


def test_where_sigchld_is_ignored_the_exit_status_is_known_all_the_same(queue, done):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert done("exit 3").error == "exit status 3"
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.soak
def test_a_thousand_commands_survive_workers_that_are_killed(queue, add, run_python, tmp_path):
    ids = [add(f"echo {n} >> {tmp_path}/ran", max_attempts=99) for n in range(1000)]
    code = f"""
        from dbbasic_queue import Queue
        from dbbasic_queue.shell import handlers
        Queue({queue.path!r}, sync="off").process_jobs(handlers)
    """
    for pause in range(6):
        children = [run_python(code, stderr=subprocess.DEVNULL) for _ in range(2)]
        time.sleep(0.3 + pause / 10)
        for child in children:  # as when the power is cut
            child.kill()

    queue.process_jobs(handlers, max_workers=9)

    assert queue.counts() == {"completed": 1000}
    ran = [int(n) for n in (tmp_path / "ran").read_text().split()]
    assert set(ran) == set(range(1000))
    assert len(ran) <= 1000 + 12  # one more for each worker that died
    assert len(ids) == 1000


# --- the load


def test_commands_wait_while_the_machine_is_busy(queue, add, monkeypatch):
    job_id, other = add("true"), queue.enqueue("mail")
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0, 0))

    queue.process_jobs({**handlers, "mail": str}, admit=[quiet(1.5)])
    busy = queue.get(job_id).status, queue.get(other).status
    monkeypatch.setattr(os, "getloadavg", lambda: (1.4, 9, 9))
    queue.process_jobs(handlers, admit=[quiet(1.5)])

    assert busy == ("pending", "completed")
    assert queue.get(job_id).status == "completed"


@pytest.mark.parametrize("load", [0, -1, "2", True, math.nan])
def test_a_load_that_is_none_is_refused(load):
    with pytest.raises(BadArgument, match="load="):
        quiet(load)


# --- the command line


def ask(capfd, words, *more):
    capfd.readouterr()
    status = cli.main([*shlex.split(words), *more])
    return status, *capfd.readouterr()


def test_enqueue_takes_a_command_after_two_dashes(default, capfd, monkeypatch):
    monkeypatch.setenv("MINE", "here")

    status, out, _ = ask(
        capfd, "enqueue --priority 5 --env MINE --env A=b=c -- make -j4 --file x -- all"
    )

    job = default.get(out.strip())
    assert (status, job.type, job.priority, job.max_attempts) == (0, "shell", 5, 1)
    assert job.payload["argv"] == ["make", "-j4", "--file", "x", "--", "all"]
    assert (job.payload["env"]["MINE"], job.payload["env"]["A"]) == ("here", "b=c")
    assert job.payload["cwd"] == os.getcwd()
    assert "make -j4 --file x -- all" in ask(capfd, "list")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("enqueue mail -- make", "stands before --"),
        ("enqueue --", "no command"),
        ("enqueue --env A mail", "--env is for a command"),
        ("enqueue --env NO_SUCH_NAME -- make", "no such variable"),
        ("enqueue", "give a type"),
        ("work", "which handlers?"),
        ("work --load 2 json:__dict__", "give --shell too"),
        ("work --shell --load 0", "load=0.0"),
        ("work --shell --keep 7d", "STATUS=TIME"),
        ("work --shell --keep done=7d", "'done'"),
        ("work --shell --keep failed=7x", "keep['failed']='7x'"),
        ("work --shell --options options:UNKNOWN", "no argument 'colour'"),
        ("work --shell --name a --options options:NAMED", "says name too"),
    ],
)
def test_wrong_words_are_said_in_one_line(capfd, tmp_path, words, said):
    (tmp_path / "options.py").write_text("UNKNOWN = {'colour': 1}\nNAMED = {'name': 'b'}\n")
    sys.modules.pop("options", None)

    status, out, err = ask(capfd, words)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_work_takes_what_process_jobs_takes(default, capfd, tmp_path):
    (tmp_path / "options.py").write_text(
        "told = []\n"
        "OPTIONS = {'listeners': [lambda event, job: told.append(event)], 'name': 'mine',\n"
        "           'admit': [lambda job, counts: None]}\n"
    )
    sys.modules.pop("options", None)
    enqueue_command(["true"], queue_file=default)

    status, out, _ = ask(capfd, "--json work --shell --load 999 --options options:OPTIONS")

    assert (status, json.loads(out)) == (0, {"started": 1, "completed": 1})
    assert sys.modules["options"].told == ["started", "completed"]


def test_work_keeps_jobs_for_a_time(default, capfd):
    job_id = enqueue_command(["true"], queue_file=default)
    ask(capfd, "work --shell")
    os.utime(default.path + ".d/output")

    ask(capfd, "work --shell --keep completed=0s --keep-by purge")

    assert default.get(job_id) is None
    assert os.listdir(default.path + ".d/output") == []


def test_show_has_the_end_of_the_output_and_nothing_that_steers_a_terminal(default, capfd):
    job_id = enqueue_command(["sh", "-c", r"printf 'a\033[2J\nb\n'; exit 3"], queue_file=default)
    ask(capfd, "work --shell")

    status, out, _ = ask(capfd, f"show {job_id}")
    document = json.loads(ask(capfd, f"--json show {job_id}")[1])

    assert status == 0
    assert r"a\x1b[2J" in out and "\x1b" not in out
    assert re.search(r"^ *exit status +3$", out, re.MULTILINE)
    assert document["exit_status"] == "3" and "\nb\n" in document["output"]


def test_tail_prints_the_bytes_and_the_last_lines(default, capfdbinary):
    job_id = enqueue_command(["printf", r"one\ntwo\377\n"], queue_file=default)
    cli.main(["work", "--shell"])
    capfdbinary.readouterr()

    cli.main(["tail", job_id])
    whole = capfdbinary.readouterr().out
    cli.main(["tail", "-n", "2", job_id])
    last = capfdbinary.readouterr().out

    assert whole.split(b"\n")[1:3] == [b"one", b"two\xff"]
    assert last.startswith(b"two\xff\n--- attempt 1 ended with exit status 0")


@pytest.mark.soak
def test_tail_shows_a_terminal_nothing_that_steers_it(default, start):
    job_id = enqueue_command(["printf", r"\033[2J\ta\n"], queue_file=default)
    cli.main(["work", "--shell"])
    terminal, theirs = pty.openpty()

    start(f"tail {job_id}", stdout=theirs).wait(30)

    shown = os.read(terminal, 1 << 16)
    os.close(terminal)
    os.close(theirs)
    assert b"\\x1b[2J\ta" in shown and b"\x1b" not in shown


@pytest.mark.soak
def test_tail_follows_until_the_end_and_has_the_commands_status(default, start, tmp_path):
    line = f"echo one; until test -e {tmp_path}/go; do sleep 0.01; done; echo two; exit 7"
    job_id = enqueue_command(["sh", "-c", line], queue_file=default)
    follower, waiter = start(f"tail -f {job_id}"), start(f"wait {job_id}")
    start("work --shell")

    while follower.stdout.readline() != "one\n":
        pass
    (tmp_path / "go").touch()
    out, err = follower.communicate(timeout=30)

    assert out.startswith("two\n")
    assert (follower.returncode, waiter.wait(30)) == (7, 7)
    assert "exit status 7: two" in err


def test_wait_says_when_it_is_too_late_and_what_is_unknown(default, capfd):
    pending = enqueue_command(["true"], queue_file=default)

    late = ask(capfd, f"wait --timeout 0 {pending}")
    unknown = ask(capfd, "wait 0123456789abcdef")

    assert (late[0], unknown[0]) == (124, 1)
    assert late[2].endswith("is pending after 0 s\n")
    assert "no job has the id" in unknown[2]


def test_a_schedule_adds_commands(default, capfd):
    ask(capfd, "schedule add nightly shell", json.dumps({"argv": ["echo", "hi"]}), "--every", "1h")
    status = ask(capfd, "schedule run nightly")[0]

    ask(capfd, "work --shell")

    assert status == 0
    assert [job.status for job in default.jobs(type="shell")] == ["completed"]


def test_an_output_that_cannot_be_written_costs_no_job(queue, add, caplog):
    job_id = add("echo; true")
    Path(queue.path + ".d").mkdir(exist_ok=True)
    Path(queue.path + ".d/output").write_text("no folder")

    queue.process_jobs(handlers)

    assert queue.get(job_id).status == "completed"
    assert "is not kept" in caplog.text


def test_no_name_is_made_of_an_id_that_is_none(queue, caplog):
    class Hostile:
        id, attempts = "../../../tmp/x", 1

    queue.enqueue("mail")
    Log(queue, Hostile, "true", 1).close("nothing")

    assert "is not kept" in caplog.text
    with contextlib.suppress(FileNotFoundError):
        assert os.listdir(queue.path + ".d/output") == []
