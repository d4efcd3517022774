"""The examples for systemd and for containers: read as systemd and Docker do, and run for real.

A unit's command is started in its folder and with its variables, another folder in the place of
/app, and stopped as the unit says. A container is what it is to the kernel: mounts and process ids
of its own; several of them share one folder.
"""

import configparser
import contextlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import dbbasic_queue
from dbbasic_queue import Queue, process_jobs
from dbbasic_queue.cli.arguments import duration, parser

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SERVICES = ["dbbasic-queue.service", "dbbasic-queue-worker.service"]
HANDLERS = """
import subprocess


def quick(payload):
    # in data, since a unit may write nowhere else
    with open("data/ran", "a") as ran:
        ran.write(f"{payload}\\n")


def long(payload):
    quick(payload)
    # a program of its own, as ffmpeg is, which SIGTERM is not meant for
    subprocess.run(["sh", "-c", "until [ -e data/go-on ]; do sleep 0.02; done"], check=True)


def outside(payload):
    open("written", "w").close()


HANDLERS = {"quick": quick, "long": long, "outside": outside}
"""


def example(name):
    return (EXAMPLES / name).read_text(encoding="utf-8")


def wait_until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class App:
    """The folder that the examples call /app, with the handlers above."""

    def __init__(self, path):
        self.path = path
        self.seen_as = path  # by the commands that are started
        self.queue = Queue(path / "data" / "queue.tsv")
        (path / "data").mkdir(parents=True)
        (path / "handlers.py").write_text(HANDLERS)
        shutil.copy(EXAMPLES / "worker.py", path)
        shutil.copy(EXAMPLES / "web.py", path)

    def as_here(self, text):
        """Put this folder, and this Python with this checkout, in the place of /app."""
        programs = {None: str(self.seen_as), "python": sys.executable}
        programs["dbbasic-queue"] = f"{sys.executable} -m dbbasic_queue"
        return re.sub(
            r"/app(?:/\.venv/bin/(python|dbbasic-queue))?\b", lambda app: programs[app[1]], text
        )

    def ran(self):
        """The payloads of the jobs that began, in their order."""
        try:
            return (self.path / "data" / "ran").read_text().split()
        except FileNotFoundError:
            return []

    def go_on(self):
        """Let the long jobs end."""
        (self.path / "data" / "go-on").touch()

    def jobs(self):
        return [(job.status, job.attempts) for job in self.queue.jobs()]


@pytest.fixture
def app(tmp_path):
    return App(tmp_path / "app")


@pytest.fixture
def processes():
    """The processes of a test; none outlives it."""
    started = []
    yield started
    for process in started:
        with process:  # closes its pipes and waits for it
            for pid in family(process.pid):
                with contextlib.suppress(ProcessLookupError):  # dead with its process 1
                    os.kill(pid, signal.SIGKILL)


def children_of(pid):
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def family(pid):
    """A process and all that it has started; a dead one that nobody has waited for is one too."""
    if not os.path.exists(f"/proc/{pid}"):
        return []
    return [pid, *(one for child in children_of(pid) for one in family(child))]


# --- systemd: read


def unit(name, app=None):
    """The directives of a unit, all sections together: no name stands in two of them."""
    read = configparser.RawConfigParser(delimiters=("=",))
    read.optionxform = str
    read.read_string(example(name).replace("\\\n", ""))
    pairs = {key: value for section in read.sections() for key, value in read[section].items()}
    return {key: app.as_here(value) for key, value in pairs.items()} if app else pairs


def variables_of(service):
    return dict(one.split("=", 1) for one in shlex.split(service["Environment"]))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_finds_nothing_to_say_about_the_units(app):
    names = ["dbbasic-queue.timer", *SERVICES]
    for name in names:
        (app.path / name).write_text(app.as_here(example(name)))

    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        cwd=app.path,
        capture_output=True,
        text=True,
    )

    assert (told.returncode, told.stderr) == (0, "")


def test_the_timer_ticks_each_minute_and_starts_the_service_of_its_name():
    timer = unit("dbbasic-queue.timer")

    assert (timer["OnCalendar"], timer["AccuracySec"]) == ("minutely", "1s")
    assert "Unit" not in timer
    assert unit("dbbasic-queue.service")["Type"] == "oneshot"


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_may_write_the_folder_of_the_queue_and_no_other(name):
    service = unit(name)
    folder = os.path.dirname(variables_of(service)["DBBASIC_QUEUE"])

    assert service["ProtectSystem"] == "strict"
    assert service["ReadWritePaths"] == folder
    assert f"install -d -o {service['User']} -g {service['Group']} -m 2770 {folder}\n" in example(
        name
    )


def given(command):
    """What our command line makes of a command: its arguments, or an error."""
    program, *words = command
    assert os.path.basename(program) == "dbbasic-queue"
    return parser().parse_args(words)


def megabytes(text):
    return int(re.fullmatch(r"(\d+)m", text.lower())[1])


def test_the_limits_of_the_unit_leave_room_for_those_of_the_workers():
    service = unit("dbbasic-queue-worker.service")
    work = given(shlex.split(service["ExecStart"]))

    assert int(service["TimeoutStopSec"]) > work.grace
    assert megabytes(service["MemoryMax"]) > work.memory * work.processes


# --- systemd: run


def start(service, processes, *before):
    """Start a unit's command as systemd does: its folder, its umask, its variables alone."""
    process = subprocess.Popen(
        [*before, *shlex.split(service["ExecStart"])],
        cwd=service["WorkingDirectory"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **variables_of(service)},
        umask=int(service["UMask"], 8),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    processes.append(process)
    return process


def stop(service, process):
    """Send SIGTERM to whom systemd sends it."""
    alone = service["KillMode"] in ("mixed", "process")
    for pid in [process.pid] if alone else family(process.pid):
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)  # the supervisor passes it on


def is_success(service, status):
    """Whether systemd counts an exit status as one."""
    return str(status) in ["0", *service.get("SuccessExitStatus", "").split()]


@pytest.mark.soak
def test_a_tick_that_is_stopped_ends_its_job_gives_back_the_rest_and_counts_as_success(
    app, processes
):
    tick = unit("dbbasic-queue.service", app)
    app.queue.enqueue_many(("long", n) for n in range(3))
    process = start(tick, processes)
    wait_until(app.ran)

    stop(tick, process)
    app.go_on()

    assert process.wait(30) == 143
    assert is_success(tick, 143)
    assert app.jobs() == [("completed", 1), ("pending", 0), ("pending", 0)]
    assert app.queue.workers() == []


@pytest.mark.soak
@pytest.mark.parametrize("how", ["systemctl stop", "dbbasic-queue stop"])
def test_workers_that_are_stopped_end_their_jobs_and_give_back_the_rest(app, processes, how):
    service = unit("dbbasic-queue-worker.service", app)
    app.queue.enqueue_many(("long", n) for n in range(6))
    process = start(service, processes)
    wait_until(lambda: len(app.ran()) == 4)

    if how == "systemctl stop":
        stop(service, process)
    else:
        app.queue.stop()
        time.sleep(0.5)  # they look each 0.1 s
    app.go_on()

    assert process.wait(30) == 0
    assert sorted(app.jobs()) == [("completed", 1)] * 4 + [("pending", 0)] * 2
    assert service["Restart"] == "always"


# $0 is the folder of the queue, below that of the unit; the rest is the command.
FENCE = """
app=$(dirname "$0")
mount --bind "$app" "$app"
mount --bind "$0" "$0"
mount -o remount,bind,ro "$app"
mount -o remount,bind,ro /
cd "$app" # the present one is that below the mount
exec setpriv --no-new-privs "$@"
"""


@pytest.mark.soak
@pytest.mark.parametrize("name", SERVICES)
def test_a_worker_whom_systemd_lets_write_nothing_but_that_folder_does_its_work(
    app, processes, namespaces, name
):
    service = unit(name, app)
    quick, outside = app.queue.enqueue_many([("quick", "a job"), ("outside", None)])
    fence = [*namespaces[:3], "sh", "-ec", FENCE, service["ReadWritePaths"]]

    process = start(service, processes, *fence)
    wait_until(lambda: app.queue.get(outside).error and app.queue.get(quick).finished)
    if name == "dbbasic-queue-worker.service":
        process.terminate()

    assert process.wait(30) == 0
    assert app.queue.get(quick).error is None
    assert "Read-only file system" in app.queue.get(outside).error
    assert (app.path / "data" / "ran").stat().st_mode & 0o777 == 0o660


# --- containers: read


def dockerfile():
    """The instructions in their order: a word, and what stands behind it."""
    lines = [line for line in example("Dockerfile").split("\n") if line and line[0] != "#"]
    instructions = "\n".join(lines).replace("\\\n", "").split("\n")
    return [(word, rest.strip()) for word, rest in (line.split(" ", 1) for line in instructions)]


def only(word):
    (found,) = [rest for one, rest in dockerfile() if one == word]
    return found


def environment():
    return dict(one.split("=", 1) for one in shlex.split(only("ENV")))


def services():
    """What compose.yaml says, in the YAML that it uses: indented names, JSON, plain text."""
    levels = [(-1, {})]
    for line in io.StringIO(example("compose.yaml")):
        line = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if not line:
            continue
        name, _, value = line.strip().partition(": ")
        depth = len(line) - len(line.lstrip())
        while levels[-1][0] >= depth:
            levels.pop()
        if line.endswith(":"):
            levels.append((depth, levels[-1][1].setdefault(name[:-1], {})))
        else:
            levels[-1][1][name] = json.loads(value) if value[0] in '["' else value
    return levels[0][1]["services"]


def test_the_image_has_the_files_that_its_commands_need():
    copied = [name for word, rest in dockerfile() if word == "COPY" for name in rest.split()[:-1]]

    assert [name for name in copied if not (EXAMPLES / name).is_file()] == []
    module, _, name = given(json.loads(only("CMD"))).handlers.partition(":")
    assert f"{module}.py" in copied
    assert name in runpy.run_path(str(EXAMPLES / f"{module}.py"))
    program, script = services()["web"]["command"]
    assert (program, script in copied) == ("python", True)


def test_the_image_installs_this_package_in_a_version_that_fits():
    [least] = re.findall(r"pip install .*'dbbasic-queue>=(\d+)'", example("Dockerfile"))

    assert int(least) == int(dbbasic_queue.__version__.split(".")[0])


def test_the_image_looks_after_its_queue_with_doctor():
    *_, check = only("HEALTHCHECK").partition("CMD ")

    assert check.endswith(" || exit 1")  # Docker reserves the status 2
    assert given(shlex.split(check.removesuffix(" || exit 1"))).call.__name__ == "doctor"


def test_the_user_of_the_image_is_nobody_special_and_owns_the_folder():
    user, group = only("USER").split(":")

    assert int(user) > 0
    made = ("RUN", f"groupadd --gid {group} app && useradd --uid {user} --gid {group}")
    assert made in [(word, rest.partition(" --home")[0]) for word, rest in dockerfile()]
    assert f"install -d -o {user} -g {group} -m 770 data\n" in example("compose.yaml")
    assert f"chown worker {user} /app/data" in example("compose.yaml")


def test_the_containers_share_the_folder_of_the_queue_and_not_the_file():
    folder, name = os.path.split(environment()["DBBASIC_QUEUE"])

    assert folder == only("WORKDIR") + "/data"
    assert {name: one["volumes"] for name, one in services().items()} == {
        "web": [f"./data:{folder}"],
        "worker": [f"./data:{folder}"],
    }
    assert f"{name} alone" in example("compose.yaml")


def test_the_container_gets_time_and_memory_for_what_its_workers_may_take():
    worker, work = services()["worker"], given(json.loads(only("CMD")))

    assert duration(worker["stop_grace_period"]) > work.grace
    assert megabytes(worker["mem_limit"]) > work.memory * work.processes
    assert work.run_for == float("inf")
    assert worker["init"] == services()["web"]["init"] == "true"


# --- the web application


@pytest.fixture
def ask():
    """Ask the application of web.py as a server does; return the status and the answer."""
    application = runpy.run_path(str(EXAMPLES / "web.py"))["application"]

    def ask(method, path, body=b""):
        said = []
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        answer = b"".join(application(environ, lambda status, headers: said.append(status)))
        return int(said[0].split()[0]), json.loads(answer)

    return ask


def test_the_application_answers_at_once_and_tells_the_result_later(ask):
    status, answer = ask("POST", "/greet", '{"name": "Zoë"}'.encode())
    before = ask("GET", f"/{answer['id']}")
    process_jobs({"greet": lambda payload: f"Hello, {payload['name']}!"})

    assert status == 202
    assert before == (200, {"status": "pending", "result": None})
    assert ask("GET", f"/{answer['id']}") == (200, {"status": "completed", "result": "Hello, Zoë!"})
    assert ask("DELETE", f"/{answer['id']}")[0] == 404


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"{}", b"\xff", b"7", b"null"])
def test_the_application_adds_no_job_for_what_it_cannot_read(ask, body):
    status, answer = ask("POST", "/greet", body)

    assert (status, [*answer]) == (400, ["error"])
    assert not os.path.exists("data")


@pytest.mark.parametrize(
    "method,path", [("GET", "/"), ("GET", "/../x"), ("POST", "/generate_report"), ("PUT", "/greet")]
)
def test_the_application_knows_nothing_else(ask, method, path):
    assert ask(method, path)[0] == 404


def test_the_application_does_not_say_stored_when_it_is_not(ask, capsys):
    Path("data").mkdir()
    Path("data/queue.tsv").write_text("this is no queue\n")

    status, answer = ask("POST", "/greet", b'{"name": "Ana"}')

    assert (status, [*answer]) == (503, ["error"])
    assert "data/queue.tsv" in capsys.readouterr().out


# --- containers: run

WORK = json.loads(only("CMD"))
TICK = WORK[:3]  # the words without those that make it stay

# $SHARED is a folder or a file on the host, $MOUNT where the image has it, $IMAGE the folder that
# this container alone sees as $APP; the rest is the command, which becomes process 1.
ENTER = """
mount --bind "$IMAGE" "$APP"
mount --bind "$SHARED" "$APP/$MOUNT"
cd "$APP"
exec "$@"
"""


@pytest.fixture
def namespaces():
    """A command before another one, which so gets mounts and process ids of its own."""
    command = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--mount-proc"]
    if os.geteuid() != 0:
        pytest.skip("needs root, for mounts and process ids of its own")
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces can be made here: {error}")
    return command


class Container:
    """A command in namespaces of its own, with its own copy of the image."""

    def __init__(self, process):
        self.process = process

    @property
    def first(self):
        """Its process 1, by the number that the host knows it by."""
        (pid,) = children_of(self.process.pid)
        return pid

    def send(self, number):
        os.kill(self.first, number)

    def wait(self):
        """Return the exit status, what was printed, and the errors."""
        printed, errors = self.process.communicate(timeout=60)
        return self.process.returncode, printed, errors


@pytest.fixture
def run(app, tmp_path, namespaces, processes):
    """Start a command of the image in a container on the shared folder, or on what `shared` is."""
    app.seen_as = tmp_path / "app in the container"
    app.seen_as.mkdir()

    def run(command, *, shared="data", **variables):
        image = tmp_path / f"image-{len(processes)}"
        shutil.copytree(app.path, image, ignore=lambda folder, names: ["data"])
        mount = image / shared
        if shared == "data":
            mount.mkdir()
        else:
            mount.parent.mkdir()
            mount.touch()
        words = shlex.split(app.as_here(f"/app/.venv/bin/{shlex.join(command)}"))
        processes.append(
            subprocess.Popen(
                [*namespaces, "sh", "-ec", ENTER, "sh", *words],
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "PYTHONPATH": str(ROOT),
                    **{key: app.as_here(value) for key, value in environment().items()},
                    **{"APP": str(app.seen_as), "IMAGE": str(image), "MOUNT": shared},
                    **{"SHARED": str(app.path / shared)},
                    **variables,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return Container(processes[-1])

    return run


@pytest.mark.soak
def test_jobs_from_the_web_container_run_in_the_worker_container(app, run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (app.path / "handlers.py").write_text(example("handlers.py"))
    run(services()["web"]["command"], PORT=str(port))
    worker = run(WORK)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: answers(url))

    with urllib.request.urlopen(f"{url}/greet", data=b'{"name": "Ana"}') as answer:
        job_id = json.load(answer)["id"]
    done = app.queue.wait(job_id, timeout=30)
    with urllib.request.urlopen(f"{url}/{job_id}") as answer:
        told = json.load(answer)
    worker.send(signal.SIGTERM)

    assert told == {"status": "completed", "result": {"greeting": "Hello, Ana!"}}
    assert done.attempts == 1
    assert worker.wait()[0] == 0


def answers(url):
    try:
        urllib.request.urlopen(url)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@pytest.mark.soak
def test_containers_that_share_the_folder_run_each_job_once(app, run):
    Path(app.queue.path).touch()  # as compose.yaml says
    two = run(WORK), run(WORK)
    wait_until(lambda: len(app.queue.workers()) == 2 * given(WORK).processes)

    for n in range(200):
        app.queue.enqueue("quick", n)
    wait_until(lambda: app.queue.counts() == {"completed": 200})
    healthy = run(["dbbasic-queue", "doctor"]).wait()
    for container in two:
        container.send(signal.SIGTERM)

    assert [container.wait()[0] for container in two] == [0, 0]
    assert sorted(map(int, app.ran())) == list(range(200))
    assert {job.attempts for job in app.queue.jobs()} == {1}
    assert healthy[0] == 0, healthy


@pytest.mark.soak
def test_the_job_of_a_container_that_is_killed_is_run_by_the_next_tick_of_another(app, run):
    app.queue.enqueue_many([("quick", "before"), ("long", "long"), ("quick", "after")])
    killed = run(TICK)
    wait_until(lambda: "long" in app.ran())

    killed.send(signal.SIGKILL)
    killed.process.wait()
    app.go_on()
    status, _, told = run(TICK).wait()

    assert status == 0, told
    assert app.jobs() == [("completed", 1), ("completed", 2), ("completed", 1)]
    assert app.ran().count("before") == 1
    assert "worker died" in told


@pytest.mark.soak
@pytest.mark.parametrize("paused", [False, True])
def test_a_container_that_lives_or_is_paused_keeps_its_job(app, run, paused):
    app.queue.enqueue("long", "long")
    alive = run(TICK)
    wait_until(app.ran)
    if paused:
        alive.send(signal.SIGSTOP)

    app.queue.enqueue("quick", "quick")
    other = run(TICK).wait()
    seen = app.jobs()
    alive.send(signal.SIGCONT)
    app.go_on()

    assert (other[0], alive.wait()[0]) == (0, 0)
    assert seen == [("processing", 1), ("completed", 1)]
    assert app.ran() == ["long", "quick"]
    assert app.jobs() == [("completed", 1), ("completed", 1)]


@pytest.mark.soak
def test_a_container_with_the_file_alone_says_that_the_folder_must_be_mounted(app, run, tmp_path):
    app.queue.enqueue_many([("quick", "one"), ("quick", "two")])
    before = Path(app.queue.path).read_bytes()

    status, _, told = run(TICK, shared="data/queue.tsv").wait()

    assert status == 2
    assert told.count("\n") == 1
    assert told.startswith(f"dbbasic-queue: {app.seen_as}/data/queue.tsv: not changed: ")
    assert told.endswith("; mount its folder instead\n")
    assert Path(app.queue.path).read_bytes() == before
    assert [*tmp_path.rglob("*.tmp")] == []
    assert run(TICK).wait()[0] == 0
    assert app.ran() == ["one", "two"]
