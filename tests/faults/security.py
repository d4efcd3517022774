"""What somebody plants in the file or beside it must not reach anything else (P33 to P35).

Rows whose cells hold paths, shell words and escape codes; links, pipes and folders at each name
that we make; modes and owners of all that is made, looked at after each call that may change them.
"""

import asyncio
import contextlib
import fcntl
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from zlib import crc32

import dbbasic_queue.archive
import dbbasic_queue.control
import dbbasic_queue.held
import dbbasic_queue.loop
import dbbasic_queue.pool
import dbbasic_queue.worker
from dbbasic_queue import Queue, QueueError, choose, current_job, doctor, health
from dbbasic_queue.cli import main
from dbbasic_queue.stats import stats

from . import reader
from .children import Children, until
from .results import Result

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 60  # after which a call counts as hanging
WWW_DATA, NOBODY, SHARED = 33, 65534, 4711  # users, and a group
UNSAFE = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
COLUMNS = (
    "id type payload status created_at run_at attempts error result queue priority max_attempts"
    " timeout backoff worker after group started_at finished_at"
).split()


def campaign(bounded):
    """Yield a Result for each part; as root, since it is root who has something to lose."""
    quiet = logging.getLogger("dbbasic_queue")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL + 1)
    try:
        for part in PARTS.values():
            yield from part(bounded)
    finally:
        quiet.setLevel(level)


@contextlib.contextmanager
def a_folder():
    """A folder that every user may enter."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where a sync costs nothing
    with tempfile.TemporaryDirectory(prefix="dbbasic-queue-", dir=memory) as name:
        os.chmod(name, 0o755)
        yield Path(name)


def in_a_child(action, *args):
    """Call an action in a forked process; return the sentences that it says."""
    with Children() as children:
        child = children.start(action, *args)
        try:
            said = child.hear_all(SECONDS)
        except AssertionError:
            return [f"it hangs for {SECONDS} s"]
        status = child.wait(SECONDS)
    if "Traceback (most recent call last):" in said:
        at = said.index("Traceback (most recent call last):")
        places = [
            line.split('"')[1].rpartition("/")[2] + line.partition(",")[2]
            for line in said
            if line.startswith("  File")
        ]
        said = [*said[:at], f"{said[-1]} in {places[-3:]}"]
    return said if not status or said else [f"exit status {status}"]


def spread(judge, cases):
    """Return all that `judge(*case)` finds; several processes share the cases."""
    count = 3 * (os.cpu_count() or 1)
    with Children() as children:
        for part in range(count):
            children.start(do_all, judge, cases[part::count])
        return [json.loads(line) for one in children.all for line in one.hear_all(10 * SECONDS)]


def do_all(say, judge, cases):
    for case in cases:
        for text in judge(*case):
            say(json.dumps(text))


def snapshot(folder):
    """What is there, but for what the caller names: type, mode, owner, content of each entry."""
    found = {}
    for path in sorted(folder.rglob("*")):
        st = path.lstat()
        content = (st.st_mtime_ns, path.read_bytes()) if stat.S_ISREG(st.st_mode) else None
        found[str(path)] = st.st_mode, st.st_uid, st.st_gid, content
    return found


def differences(before, after):
    return [
        f"{Path(path).name}: {str(before.get(path))[:150]} became {str(after.get(path))[:150]}"
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path)
    ]


# --- P33, P35: hostile rows

HOSTILE = [
    "../../etc/x", "/etc/passwd", "..", ".", "../victim", "a/b", "-rf", "--help", "~root", "*",
    "$(touch pwned)", "`touch pwned`", "; touch pwned", "| touch pwned", "a\\nb", "%s%n%x",
    "{0.__class__.__init__.__globals__}", "os.system", "os:abort", "__import__('os').abort()",
    "\0", "a\0b", "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\x7f", "\x85", "\u2028",
    "x" * 10_000, "../" * 1000 + "etc/x", "any:../x", "ok:@../g", "ok:@%s", "\ufeff",
    "../victim.1", "w-1-abcdef." + "9" * 5000, "w-1-abcdef.٣", ".hidden.1", "w\0-1.1",
]  # fmt: skip
CELLS = ("id", "type", "payload", "error", "result", "queue", "backoff", "worker", "after", "group")
COMMANDS = """
    list; list --json; list --newest --limit 3; list --status processing; list --id X; list --type X
    list --queue X; list --worker X; show X; --json show X; stats; stats --json; stats --type X
    workers; workers --json; doctor; doctor --json; cancel X; retry X; retry --copy X
    retry --type X; purge --yes X; purge --yes --type X; stop X; run X H; enqueue X; enqueue t X
    enqueue t --id X; enqueue t --queue X; enqueue t --group X; enqueue t --after X
    enqueue t --backoff X; work X; work H --name X; work H --queue X; backup data/backup.tsv
    archive --older-than X; work H; archive --older-than 0s; retry --all; doctor --mend
    purge --yes --all
"""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
ONE_PATH = {"os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.truncate"}
TWO_PATHS = {"os.rename", "os.link", "os.symlink"}
NEVER = ("os.system", "os.exec", "os.posix_spawn", "socket.", "ctypes.", "shutil.", "pty.spawn")


def rows(bounded):
    """Yield what every command and every verb does over rows that somebody wrote by hand."""
    with a_folder() as folder:
        file = folder / "data" / "queue.tsv"
        file.parent.mkdir()
        victims(folder)
        write_rows(file)
        before = everything_but(folder, file)
        cases = len(HOSTILE) * len(CELLS) * 4
        violations = in_a_child(use_all, folder, file, 3 if bounded else 1)
        violations += differences(before, everything_but(folder, file))
        write_rows(file)
        violations += traced(folder, file)
        write_rows(file)
        violations += on_a_terminal(folder, file)
        violations += differences(before, everything_but(folder, file))
    yield Result("hostile rows", cases, violations)


def victims(folder):
    """Files that a path in a cell would lead to, from wherever it is joined."""
    (folder / "handlers.py").write_text("HANDLERS = {'t': str}\n")
    for place in ("", "data", "data/queue.tsv.d", "data/queue.tsv.d/workers"):
        (folder / place).mkdir(exist_ok=True)
        for name in ("victim", "victim.tsv", "x", "g", "a"):
            if (place[-7:], name[-4:]) != ("workers", ".tsv"):  # the file of a worker that died
                (folder / place / name).write_text("precious")
    (folder / "etc").mkdir()
    (folder / "etc" / "x").write_text("precious")


def write_rows(file):
    """A row for each hostile text in each cell in each status, and lines that are none."""
    shutil.rmtree(file.with_name("queue.tsv.d") / "archive", ignore_errors=True)
    lines, now = ["\t".join(COLUMNS)], int(time.time())
    for number, text in enumerate(HOSTILE):
        for cell in CELLS:
            for status in ("pending", "processing", "completed", "failed"):
                row = dict.fromkeys(COLUMNS, "")
                id = f"{(now - 9000) * 10**6 + len(lines):013x}{number:03x}"
                row |= {"id": id, "type": "t", "payload": "null", "status": status}
                row |= {"created_at": f"{now}", "run_at": f"{now}", "attempts": "0"}
                row |= {cell: text}
                lines.append("\t".join(row.values()))
    lines += HOSTILE
    file.write_bytes("\n".join(lines).encode() + b"\n")


def everything_but(folder, file):
    """A snapshot without the queue's own files."""
    ours = "queue.tsv queue.tsv.lock queue.tsv.d workers archive hint tick bad.tsv torn.tsv".split()
    ours += ["types", "broken"]
    ours += [file.name, "backup.tsv"]
    return {
        path: entry
        for path, entry in snapshot(folder).items()
        if Path(path).name not in ours and Path(path).parent.name != "archive"
    }


def use_all(say, folder, file, step):
    """In a child: use everything, first on a harmless file, and say what should not happen."""
    os.chdir(folder)
    harmless = folder / "harmless" / "queue.tsv"
    os.environ["HOME"] = str(folder)
    logs = io.StringIO()
    logging.basicConfig(stream=logs, format="%(message)s", level=logging.DEBUG, force=True)
    logging.getLogger("dbbasic_queue").setLevel(logging.DEBUG)
    ids = Queue(harmless).enqueue_many([("t", 1), ("fail", 2)])
    run_commands(harmless, [*ids, "x"], lambda *_: None)
    use_verbs(harmless, [*ids, "x"], lambda *_: None)
    modules, heard = set(sys.modules), []
    sys.addaudithook(lambda *event: heard.append(event))
    run_commands(file, HOSTILE, say, step)
    use_verbs(file, HOSTILE, say)
    events, new = list(heard), set(sys.modules) - modules
    if new:
        say(f"imported: {sorted(new)}")
    for sentence in dict.fromkeys(judge_events(events, folder)):
        say(sentence)
    bad = [line for line in logs.getvalue().split("\n") if UNSAFE.search(line)]
    if bad:
        say(f"{len(bad)} log lines with control characters: {bad[0]!r:.200}")
    shutil.rmtree(harmless.parent)


def run_commands(file, words, say, step=1):
    """Run every command, each with every word, or with each `step`-th."""
    for number, command in enumerate(re.split("[;\n]", COMMANDS.strip())):
        given = words[number % step :: step] if " X" in command else words[:1]
        for word in given:
            given = [one.replace("X", word) if one[:1] == "X" else one for one in command.split()]
            given = ["handlers:HANDLERS" if one == "H" else one for one in given]
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    status = main(["--file", str(file), *given])
                except BaseException as problem:
                    status = f"{type(problem).__name__}: {problem}"
            printed = out.getvalue() + err.getvalue()
            if status not in (0, 1, 2) or "Traceback" in printed:
                say(f"{command} {word[:40]!r}: {status} {printed[-300:]!r}")
            if found := UNSAFE.search(printed):
                say(f"{command} {word[:40]!r}: prints {found[0]!r} in {printed[:200]!r}")


def use_verbs(file, words, say):
    queue = Queue(file, lock_timeout=2)
    handlers = dict.fromkeys([*words, "t"], lambda payload: current_job().id)
    verbs = [
        queue.get, queue.get_job, queue.cancel, queue.retry, queue.kill, queue.stop,
        lambda word: queue.wait(word, 0), lambda word: list(queue.jobs(type=word)),
        lambda word: list(queue.jobs(queue=word)), lambda word: list(queue.jobs(worker=word)),
        lambda word: queue.purge(type=word), lambda word: queue.purge(ids=[word]),
        lambda word: queue.enqueue(word), lambda word: queue.enqueue("t", word),
        lambda word: queue.enqueue("t", id=word), lambda word: queue.enqueue("t", after=word),
        lambda word: queue.enqueue("t", group=word), lambda word: queue.enqueue("t", queue=word),
        lambda word: queue.enqueue("t", backoff=word),
        lambda word: queue.enqueue("t", columns={word: "x"}),
        lambda word: queue.enqueue("t", columns={"tenant": word}),
        lambda word: queue.process_jobs({}, name=word),
        lambda word: stats(type=word, queue_file=queue),
    ]  # fmt: skip
    every = [
        lambda: queue.process_jobs(handlers), lambda: queue.counts("type", "queue", "worker"),
        lambda: [job.as_dict() for job in queue.jobs() if job.payload_is_json()],
        lambda: queue.process_jobs(handlers, concurrency=3), lambda: queue.archive(0),
        queue.workers, lambda: doctor.mend(queue),
    ]  # fmt: skip
    calls = [(call, word) for word in words for call in verbs]
    for call, *given in [*calls[: len(calls) // 2], *map(lambda one: (one,), every), *calls]:
        try:
            call(*given)
        except (QueueError, TimeoutError):
            continue
        except BaseException as problem:
            place = problem.__traceback__
            while place.tb_next:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
            say(f"a verb with {given!r:.60}: {type(problem).__name__}: {problem!s:.200} at {where}")


def judge_events(events, folder):
    """Yield a sentence for each audited event that no row may cause."""
    inside, python = f"{folder}/data/", os.path.realpath(sys.executable)
    for event, args in events:
        if event == "open":
            path, _, flags = args
            path = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
            plain = os.path.normpath(os.path.join(folder, path))
            if flags & WRITING and not plain.startswith(inside) and plain != os.devnull:
                yield f"opens {path!r:.100} to write"
            if path and not plain.startswith((inside, "/proc/", "/dev/", sys.prefix, str(ROOT))):
                yield f"opens {path!r:.100}"
        elif event in ONE_PATH or event in TWO_PATHS:
            paths = args[: 1 + (event in TWO_PATHS)]
            for path in (path for path in paths if not isinstance(path, int)):
                plain = os.path.normpath(os.path.join(folder, os.fsdecode(path)))
                if not plain.startswith(inside):
                    yield f"{event} {path!r:.100}"
        elif event == "subprocess.Popen" and os.path.realpath(args[0]) != python:
            yield f"starts {args[0]!r:.100}"
        elif event.startswith(NEVER) or event in ("exec", "compile", "import"):
            if event == "import" and args[0] in sys.modules:
                continue
            yield f"{event} {args!r:.100}"


def traced(folder, file):
    """Let one whole tick go through strace: what it opens to write, and what it starts."""
    if not shutil.which("strace"):
        return ["strace is not installed"]
    log = folder.parent / f"{folder.name}.strace"
    command = [
        "strace", "-f", "-qq", "-s", "20000", "-e", "trace=%file,%process,%network", "-o", str(log),
        sys.executable, "-m", "dbbasic_queue", "--file", str(file), "work", "handlers:HANDLERS",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False)
        calls = log.read_text(errors="replace").splitlines()
    finally:
        log.unlink(missing_ok=True)
    found = [] if done.returncode == 0 else [f"work ends with {done.stderr[-300:]!r}"]
    changes = re.compile(
        r"\b(?:openat|open|creat)\(.*O_(?:WRONLY|RDWR|CREAT)|\b(?:unlink|rename|mkdir|rmdir|link"
        r"|f?chmod|f?chown|truncate|symlink)\w*\("
    )
    for call in calls:
        paths = re.findall(r'"((?:[^"\\]|\\.)*)"', call)
        if "execve(" in call and sys.executable not in call:
            found.append(f"starts {call[:200]}")
        if changes.search(call) and "ENOENT" not in call:
            outside = [path for path in paths if not path.startswith((f"{file.parent}/", "/dev/"))]
            found += [f"touches {path[:100]}: {call[:200]}" for path in outside]
    if not any(str(file) in call for call in calls):
        found.append("strace has seen nothing")
    return found


def on_a_terminal(folder, file):
    """On a terminal there may be colours, and no other escape code."""
    found = []
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "NO_COLOR": ""}
    for command in ("list", "stats", "workers", "doctor", "show ../../etc/x"):
        terminal, theirs = os.openpty()
        child = subprocess.Popen(
            [sys.executable, "-m", "dbbasic_queue", "--file", str(file), *command.split()],
            cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        printed = b""
        with contextlib.suppress(OSError):  # EIO at the end
            while block := os.read(terminal, 1 << 16):
                printed += block
        os.close(terminal)
        child.wait()
        text = re.sub("\x1b\\[[0-9;]*m", "", printed.decode(errors="replace")).replace("\r\n", "\n")
        if bad := UNSAFE.search(text):
            found.append(f"{command} on a terminal: {bad[0]!r} in {text[:200]!r}")
    return found


# --- P34: modes and owners

CHANGES = "open mkdir rename link unlink fchmod chmod fchown chown close ftruncate".split()
UMASKS, MODES = (0o000, 0o022, 0o077), (0o660, 0o640, 0o600)


def modes(bounded):
    """Yield what is seen of modes and owners, for root and for a user who is let in by a group."""
    owners = [(WWW_DATA, WWW_DATA), (0, 0), (NOBODY, SHARED)]
    cases = [(umask, mode, owner) for umask in UMASKS for mode in MODES for owner in owners]
    cases = cases[::2] if bounded else cases
    yield Result("modes and owners, by root", len(cases), spread(as_root, cases))
    cases = [(umask, folder) for umask in UMASKS for folder in (0o2770, 0o770)]
    cases = cases[1::2] if bounded else cases
    yield Result("modes and owners, by users of one group", len(cases), spread(as_users, cases))


def as_root(umask, mode, owner):
    with a_folder() as folder:
        file = folder / "data" / "queue.tsv"
        said = in_a_child(first_use, file, umask)
        for path in (file, file.with_name("queue.tsv.lock"), file.parent):
            os.chown(path, *owner)
        for path in (file, file.with_name("queue.tsv.lock")):
            path.chmod(mode)
        said += in_a_child(whole_life, file, umask)
        said += judge_all(file, mode, owner)
    return [f"umask {umask:03o}, mode {mode:o}, owner {owner}: {text}" for text in said]


def as_users(umask, folder_mode):
    with a_folder() as folder:
        file = folder / "data" / "queue.tsv"
        file.parent.mkdir()
        os.chown(file.parent, 0, SHARED)
        file.parent.chmod(folder_mode)
        Queue(file).enqueue("t")
        for path in (file, file.with_name("queue.tsv.lock")):
            os.chown(path, 0, SHARED)
            path.chmod(0o660)
        said = []
        for user in (NOBODY, WWW_DATA, 0):
            said += in_a_child(as_user, user, whole_life, file, umask)
        said += judge_all(file, 0o660, (None, SHARED))
    return [f"umask {umask:03o}, folder {folder_mode:o}: {text}" for text in said]


def as_user(say, user, action, *args):
    if user:
        os.setgroups([SHARED])
        os.setgid(user)
        os.setuid(user)
    action(say, *args)


def first_use(say, file, umask):
    os.umask(umask)
    wanted = 0o660 & ~umask
    look = watch(say, file.parent, lambda: wanted)
    Queue(file).enqueue("t")
    look()
    found = reader.modes(file)
    if set(found.values()) != {wanted}:
        say(f"a new queue: {found}, not {wanted:o}")


def whole_life(say, file, umask):
    """In a child: do everything that makes a file, and look after each call."""
    os.umask(umask)
    os.chdir(file.parent)
    dbbasic_queue.held.CUT_OFF = 0.1
    look = watch(say, file.parent, lambda: stat.S_IMODE(file.stat().st_mode))
    queue = Queue(file, sync="off")
    old = queue.enqueue("t")
    with file.open("ab") as torn:
        torn.write(b"torn")
    queue.enqueue("t", columns={"tenant": "a"})
    queue.process_jobs({"t": str})
    queue.archive(0)
    queue.retry(old)
    queue.enqueue_many([("t", 1), ("fail", 2), ("none", 3)])
    queue.process_jobs({"t": str, "fail": lambda payload: 1 / 0}, processes=2)
    die_with_damage(queue)
    one = queue.enqueue("deaf", timeout=0.1, max_attempts=1)
    queue.process_jobs({"deaf": deaf}, processes=1)
    if queue.get(one).status != "failed":
        say(f"a deaf handler: {queue.get(one)}")
    asked(say, queue)
    queue.enqueue_many([("big", None), ("small", 0)])
    queue.process_jobs({"big": big, "small": small}, concurrency=2)
    with file.open("ab") as bad:
        bad.write(b"no row\n")
    doctor.mend(queue)
    queue.enqueue("t", columns={"region": "b"})
    queue.process_jobs({"t": str})
    queue.archive(0)
    queue.backup(file.with_name("backup.tsv"))
    look()


def deaf(payload):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    time.sleep(60)


async def big(payload):
    """Make its worker's file so long that it is written anew."""
    for _ in range(40):
        current_job().record(note="x" * 50_000)
    await asyncio.sleep(0.3)


async def small(payload):
    queue = Queue(Path.cwd() / "queue.tsv", sync="off")
    if payload < 3:
        queue.enqueue("small", payload + 1)


def die_with_damage(queue):
    """Leave the file of a dead worker, with a spoilt line before a good one, and all beside it."""
    folder = Path(queue.file.make_side("workers"))
    path = folder / "w-1-0dead0.tsv"
    body = b"0\tworker\tw-1-0dead0\t0\t1.000\tpid=1\tname=\tqueues=\ttypes="
    line = b"%b\t%08x\n" % (body, crc32(body))
    for ending in ("tsv", "why", "kill", "stop"):
        name = path.with_suffix("." + ending)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, line + b"spoilt\n" + line if ending == "tsv" else b"")
        st = os.stat(queue.path)
        if os.geteuid() == 0 or os.fstat(fd).st_gid != st.st_gid:
            os.fchown(fd, -1 if os.geteuid() else st.st_uid, st.st_gid)
        os.fchmod(fd, stat.S_IMODE(st.st_mode))
        os.close(fd)


def asked(say, queue):
    """Ask a worker that lives to end a job, and to stop."""
    ids = queue.enqueue_many([("nap", 1), ("nap", 2)])
    with Children() as children:
        child = children.start(
            lambda _: queue.process_jobs(
                {"nap": lambda payload: time.sleep(60)}, run_for=60, max_workers=99
            )
        )
        for id in ids:
            until(lambda id=id: any(id in worker.jobs for worker in queue.workers()))
            if id == ids[-1]:
                queue.stop()
            queue.kill(id)
        child.wait()
    if queue.get(ids[1]).status != "cancelled":
        say(f"a job that was to end: {queue.get(ids[1])}")


def watch(say, folder, allowed):
    """Look at the modes in a folder after each call that may change one; return that look."""
    told = set()

    def tell(text):
        if text not in told:
            told.add(text)
            say(text)

    def look(after="all"):
        file = folder / "queue.tsv"
        try:
            st = file.stat()
        except FileNotFoundError:
            st = None
        mode = allowed() if st or after != "all" else 0
        for path in [folder / "queue.tsv.lock", *folder.rglob("*"), *folder.glob(".*")]:
            with contextlib.suppress(FileNotFoundError):
                judge_mode(path, path.lstat(), mode, st, lambda text: tell(f"{text} after {after}"))

    def wrap(name, real):
        def call(*args, **named):
            result = real(*args, **named)
            if sys._getframe(1).f_globals.get("__name__", "").startswith("dbbasic_queue"):
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    look(name)
            return result

        return call

    for name in CHANGES:
        setattr(os, name, wrap(name, getattr(os, name)))
    return look


def judge_mode(path, st, mode, queue, tell):
    """Say it when a file is open to more people than the queue is."""
    kind = re.sub(r"[0-9a-f-]{6,}|\d{4}-\d\d", "*", path.name)
    bits = stat.S_IMODE(st.st_mode)
    most = mode | 0o600
    if stat.S_ISDIR(st.st_mode):
        most |= 0o2700 | (most & 0o444) >> 2
    if bits & ~most:
        tell(f"{kind} has mode {bits:o}, the queue {mode:o}")
    if queue and st.st_gid != queue.st_gid and bits & 0o070:
        tell(f"{kind} has mode {bits:o} for group {st.st_gid}, and the queue's is {queue.st_gid}")


def judge_all(file, mode, owner):
    """Yield what is wrong with all that is left: exactly the queue's mode, owner and group."""
    for path in (file, *file.parent.glob("queue.tsv.*"), *file.parent.rglob("*")):
        st = path.stat()
        wanted = mode | (0o100 | (mode & 0o044) >> 2 if path.is_dir() else 0)
        seen = (None if owner[0] is None else st.st_uid, st.st_gid)
        bits = stat.S_IMODE(st.st_mode) & (0o777 if path.is_dir() else 0o7777)
        if (bits, seen) != (wanted, owner):
            yield f"{path.name}: {bits:o} {seen}, not {wanted:o} {owner}"
    if left := [name for name in reader.leftovers(file) if not known(name)]:
        yield f"left over: {left}"


def known(name):
    return name == "backup.tsv" or re.search(r"/(bad\.tsv|damaged-.*\.tsv)$", name)


# --- P33, P34: links, pipes and folders at the names that we make

DEAD = "w-1-0dead0"
MONTH = time.strftime("%Y-%m", time.gmtime())
NAMES = [
    "queue.tsv.lock", "queue.tsv.d", ".queue.tsv.1-0123abcd.tmp", "backup.tsv",
    *(f"queue.tsv.d/{name}" for name in (
        "workers", "archive", "hint", "hint.tmp", "tick", "types", "broken", "torn.tsv",
        "bad.tsv", "unsettled", f"damaged-{DEAD}.tsv", f"archive/{MONTH}.tsv",
        f"archive/{MONTH}.tsv.tmp",
        "workers/evil-1-abcdef.tsv", f"workers/{DEAD}.tsv", f"workers/{DEAD}.why",
        f"workers/{DEAD}.kill", f"workers/{DEAD}.stop", f"workers/{DEAD}.new",
    )),
]  # fmt: skip
LIVE = ("kill", "stop", "why", "new", "tsv")  # endings beside a worker that lives


def to_file(path, victim):
    path.symlink_to(victim / "file")


def to_nothing(path, victim):
    path.symlink_to(victim / "nothing")


def to_folder(path, victim):
    path.symlink_to(victim)


def to_itself(path, victim):
    path.symlink_to(path.name)


def to_zeros(path, victim):
    path.symlink_to("/dev/zero")


def hard_link(path, victim):
    os.link(victim / "file", path)


def hard_link_to_a_queue(path, victim):
    os.link(victim / "other.tsv", path)


def to_a_queue(path, victim):
    path.symlink_to(victim / "other.tsv")


def pipe(path, victim):
    os.mkfifo(path)


def a_socket(path, victim):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


def a_folder_of_theirs(path, victim):
    path.mkdir()
    (path / "theirs").write_text("x")


KINDS = [
    to_file, to_nothing, to_folder, to_itself, to_zeros, to_a_queue, hard_link,
    hard_link_to_a_queue, pipe, a_socket, a_folder_of_theirs,
]  # fmt: skip


def planted(bounded):
    """Yield what root's calls do where the owner of the folder has planted something."""
    folders = (0o777,) if bounded else (0o777, 0o1777, 0o2775)
    for names, act in ((NAMES, use), (LIVE, use_live), (["queue.tsv"], use_instead)):
        cases = [(n, kind, act, folder) for n in names for kind in KINDS for folder in folders]
        yield Result(f"planted things: {act.__name__}", len(cases), spread(one_plant, cases))


def one_plant(name, kind, act, folder_mode):
    with a_folder() as folder:
        file, victim = folder / "data" / "queue.tsv", folder / "victim"
        make_victim(victim)
        before = snapshot(victim)
        said = in_a_child(act, file, victim, name, kind, folder_mode)
        if folder.joinpath("pid").exists():
            os.kill(int(folder.joinpath("pid").read_text()), signal.SIGKILL)
        said += [f"the victim's {text}" for text in differences(before, snapshot(victim))]
    return [f"{name} {kind.__name__} {folder_mode:o}: {text}" for text in said]


def make_victim(victim):
    """What is root's alone: files, a queue, and a folder with the names that we look for."""
    victim.mkdir(0o700)
    other = Queue(victim / "other.tsv")
    other.enqueue("secret", "secret")
    (victim / "other.tsv.lock").unlink()
    for name in ("file", "tick", "hint", "torn.tsv", "unsettled", f"{MONTH}.tsv", "queue.tsv"):
        (victim / name).write_text("precious\n")
    for name in ("workers", "archive"):
        (victim / name).mkdir()
        (victim / name / f"{DEAD}.tsv").write_text("precious\n")
        (victim / name / f"{MONTH}.tsv").write_text("precious\n")
    for path in (victim, *victim.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def prepare(file, folder_mode):
    """The queue of www-data, with something to do for each name that we make."""
    file.parent.mkdir()
    queue = Queue(file, sync="off", lock_timeout=1)
    ids = queue.enqueue_many([("good", number) for number in range(4)])
    queue.enqueue("fail", max_attempts=1)
    for path in (file, file.with_name("queue.tsv.lock"), file.parent):
        os.chown(path, WWW_DATA, WWW_DATA)
    file.chmod(0o660)
    file.parent.chmod(folder_mode)
    return queue, ids


def plant(path, kind, victim):
    """Put a thing in a place, with the folders above it, as www-data has them."""
    for folder in reversed(path.parents):
        if folder.name in ("queue.tsv.d", "workers", "archive") and not folder.exists():
            folder.mkdir(0o770)
            os.chown(folder, WWW_DATA, WWW_DATA)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    kind(path, victim)
    if path.lstat().st_nlink == 1 or kind is a_folder_of_theirs:
        os.lchown(path, WWW_DATA, WWW_DATA)


def use(say, file, victim, name, kind, folder_mode):
    """In a child, as root: every verb, with the thing in its place; then without it."""
    queue, ids = prepare(file, folder_mode)
    os.chdir(file.parent)
    die_with_damage(queue)
    path = file.parent / name
    plant(path, kind, victim)
    ran = []
    handlers = {"good": ran.append, "fail": lambda payload: 1 / 0}
    for _ in range(2):
        with file.open("ab") as torn:
            torn.write(b"no row\ntorn")
        every_verb(say, queue, handlers)
    if path.is_dir() and not path.is_symlink() and kind is a_folder_of_theirs:
        if not (path / "theirs").exists():
            say("their folder was emptied")
        (path / "theirs").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.rmdir()  # if nothing of ours is in it
    elif path.is_symlink() or not path.is_file():
        path.unlink(missing_ok=True)
    elif path.stat().st_nlink > 1:
        path.unlink()
    go_on(say, queue, handlers, ids, ran)


def every_verb(say, queue, handlers):
    calls = {
        "get": lambda: queue.get("0123456789abcdef"),
        "jobs": lambda: list(queue.jobs()),
        "stats": lambda: stats(queue_file=queue),
        "health": lambda: health.check(queue),
        "a reason": lambda: health.note(queue, "work", "no such module"),
        "no reason": lambda: health.forget(queue, "work"),
        "page": lambda: choose.page(choose.Choice(text="x"), queue),
        "workers": queue.workers,
        "enqueue": lambda: queue.enqueue("late", run_at=4e9),
        "tick": lambda: queue.process_jobs(handlers, max_workers=99),
        "pool": lambda: queue.process_jobs({"none": str}, processes=1, max_workers=99),
        "loop": lambda: queue.process_jobs({"none": str}, concurrency=2, max_workers=99),
        "cancel": lambda: queue.cancel(queue.enqueue("late", run_at=4e9)),
        "retry": lambda: queue.retry(type="fail"),
        "archive": lambda: queue.archive(0),
        "get from the archive": lambda: [queue.get(job.id) for job in list(queue.jobs())],
        "backup": lambda: queue.backup(Path(queue.path).with_name("backup.tsv")),
        "stop": queue.stop,
        "mend": lambda: doctor.mend(queue),
        "look": lambda: look_at(queue),
        "idle tick": lambda: queue.process_jobs({}),
    }
    for name, call in calls.items():
        begun = time.monotonic()
        try:
            call()
        except QueueError:
            pass
        except BaseException as problem:
            say(f"{name}: {type(problem).__name__}: {problem}")
        if time.monotonic() - begun > SECONDS / 4:
            say(f"{name} takes {time.monotonic() - begun:.1f} s")


def look_at(queue):
    """The doctor's looks, but for those at cron, which start a Python each time."""
    seen = doctor.Lines()
    list(doctor.look_at_file(queue, seen))
    if seen.is_queue:
        list(doctor.look_at_permissions(queue))
        list(doctor.look_at_lock(queue, seen))
        list(doctor.look_at_workers(queue, seen))
        list(doctor.look_at_leftovers(queue))


def go_on(say, queue, handlers, ids, ran):
    """Without the thing the queue works, and nothing is lost or doubled."""
    new = queue.enqueue("good", 99)
    queue.process_jobs(handlers, max_workers=99)
    for id in (*ids, new):
        job = queue.get(id)
        if job is None or job.status != "completed":
            say(f"then a job is {job}")
    if sorted(ran) != [0, 1, 2, 3, 99]:
        say(f"ran: {ran}")


def use_live(say, file, victim, ending, kind, folder_mode):
    """In a child, as root: a thing beside the file of a worker that lives, whom others ask."""
    queue, _ = prepare(file, folder_mode)
    os.chdir(file.parent)
    dbbasic_queue.held.CUT_OFF = 0.1
    reader_end, writer_end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader_end)
        live(queue, victim, ending, kind, writer_end)
        os._exit(0)
    os.close(writer_end)
    (file.parent.parent / "pid").write_text(str(pid))
    os.read(reader_end, 1)  # it has planted
    for ask in (queue.workers, lambda: [queue.kill(job.id) for job in queue.jobs("processing")]):
        try:
            ask()
        except QueueError:
            pass
        except BaseException as problem:
            say(f"{ask}: {type(problem).__name__}: {problem}")
    every_verb(say, queue, {})
    end = time.monotonic() + SECONDS / 2
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            say("the worker hangs")
            break
        time.sleep(0.01)
    else:
        (file.parent.parent / "pid").unlink()


def live(queue, victim, ending, kind, writer):
    """A worker with a job that plants, records much, and outlives its time where that is asked."""

    async def run(payload):
        worker = current_job().worker.rpartition(".")[0]
        path = Path(queue.path + ".d", "workers", f"{worker}.{ending}")
        plant(path, kind, victim)
        os.write(writer, b"x")
        with contextlib.suppress(QueueError):
            await big(None)
        if ending == "why":
            time.sleep(60)

    queue.enqueue("run", priority=-1, timeout=1 if ending == "why" else None)
    queue.enqueue_many([("small", 0)] * 3)
    with contextlib.suppress(QueueError, KeyboardInterrupt):
        queue.process_jobs({"run": run, "small": small}, concurrency=2)


def use_instead(say, file, victim, name, kind, folder_mode):
    """In a child, as root: a thing in the place of the queue itself; nothing hangs."""
    file.parent.mkdir()
    os.chown(file.parent, WWW_DATA, WWW_DATA)
    file.parent.chmod(folder_mode)
    os.chdir(file.parent)
    if kind in (to_nothing, to_a_queue):
        return  # a queue may be a link, to where it is made or is
    if kind is hard_link_to_a_queue:
        return  # and has two names then
    plant(file, kind, victim)
    every_verb(say, Queue(file, sync="off", lock_timeout=1), {"good": str})
    fd = os.open(file.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


PARTS = {"rows": rows, "modes": modes, "planted": planted}
