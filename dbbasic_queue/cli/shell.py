"""Commands as jobs: what `enqueue -- …` adds, and the commands tail and wait."""

import os
import sys
import time

from .. import Queue, QueueError, shell
from ..errors import BadArgument
from ..output import last_lines, open_to_read
from ..redact import masked, redacted
from ..show import document, visible
from .output import Output, emit, emit_bytes, tell
from .values import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Mapping
    from typing import Any

    from .. import Job

_PAUSE = 0.1  # seconds between two looks of `tail -f`
TOO_LATE = 124  # as timeout(1)


def enqueue_command(queue: Queue, given: "Namespace", settings: "Mapping[str, Any]") -> str:
    """Add a command and return its id."""
    if given.type is not None:
        text = f"{given.type!r:.80} stands before --: give TYPE [JSON], or -- and a command"
        raise BadArgument(text)
    if not given.argv:
        raise BadArgument("no command stands after --")
    pairs = [one.partition("=") for one in given.env or ()]
    env = {name: value if equals else None for name, equals, value in pairs}
    more = {**settings, "max_attempts": settings["max_attempts"] or 1}
    return shell.enqueue_command(given.argv, env=env, queue_file=queue, **more)


def lines_of(queue: Queue, job: "Job", count: int = 10) -> "list[tuple[str, str]]":
    """Return what `show` says of a command: how it ended, and the last lines that it printed."""
    if job.type != shell.TYPE:
        return []
    found = [("command", masked(job, shell.command_line(job)))]
    if job.finished:
        found.append(("exit status", str(shell.exit_status(job))))
    fd = open_to_read(queue.file, job.id)
    if fd >= 0:
        try:
            text = last_lines(fd, count, most=1 << 26).decode(errors="replace").rstrip("\n")
        finally:
            os.close(fd)
        found.append(("output", masked(job, text)))
    return found


def tail(queue: Queue, given: "Namespace", out: Output) -> int:
    """Print what a command has printed, and follow it."""
    job = queue.get(given.id)
    if job is None:
        tell(f"{queue.path}: no job has the id {given.id}")
        return 1
    if given.lines is not None and given.lines < 0:
        raise BadArgument(f"-n {given.lines}: give a number of at least 0")
    if out.json:
        return _as_document(queue, queue.wait(job.id) if given.follow else job, given, out)
    at = _print_from(queue, given.id, None, given.lines)
    if not given.follow:
        if at is None:
            tell(f"job {given.id} is {job.status}, and has no output")
        return 1 if at is None else 0
    while not job.finished:
        time.sleep(_PAUSE)
        seen = queue.get(given.id)  # before its output: what it printed is then there
        at = _print_from(queue, given.id, at, None)
        if seen is None:
            tell(f"job {given.id} was deleted")
            return 1
        job = seen
    if job.status != "completed":
        tell(f"job {given.id} is {job.status}: {redacted(job).error or ''}")
    return shell.exit_status(job)


def _as_document(queue: Queue, job: "Job", given: "Namespace", out: Output) -> int:
    count = 1 << 62 if given.lines is None else given.lines
    found = {name.replace(" ", "_"): text for name, text in lines_of(queue, job, count)}
    out.document({"id": job.id, "status": job.status} | found)
    return shell.exit_status(job) if given.follow else 0 if "output" in found else 1


def _print_from(queue: Queue, id: str, at: int | None, lines: int | None) -> int | None:
    """Print the output from an offset on; return where it ends now, None when there is none."""
    fd = open_to_read(queue.file, id)
    if fd < 0:
        return at
    try:
        if at is None and lines is not None:
            data = last_lines(fd, lines)
            at = os.fstat(fd).st_size
            _print(data)
        at = at or 0
        while data := os.pread(fd, 1 << 16, at):
            _print(data)
            at += len(data)
        return at
    finally:
        os.close(fd)


def _print(data: bytes) -> None:
    """Print bytes as they are; to a terminal, without what could steer it."""
    if sys.stdout is None or not sys.stdout.isatty():
        emit_bytes(data)
        sys.stdout.flush()
        return
    text = data.decode(errors="replace")
    plain = "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))
    emit(plain, end="")
    sys.stdout.flush()


def wait(queue: Queue, given: "Namespace", out: Output) -> int:
    """Wait until jobs have finished."""
    until = None if given.timeout is None else time.monotonic() + given.timeout
    status, ended = 0, []
    for id in dict.fromkeys(given.ids):
        try:
            left = None if until is None else max(0.0, until - time.monotonic())
            job = queue.wait(id, left)
        except TimeoutError as problem:  # it names what was left of the time
            tell(f"{str(problem).rpartition(' after ')[0]} after {given.timeout:g} s")
            status = TOO_LATE
            continue
        except QueueError as problem:
            tell(str(problem))
            status = 1
            continue
        ended.append(document(job))
        if job.status != "completed":
            tell(f"job {id} is {job.status}: {redacted(job).error or ''}")
        status = shell.exit_status(job) or status
    if out.json:
        out.documents(ended)
    return status


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the commands tail and wait."""
    p = add(
        "tail", tail, "Print what a command has printed.",
        """tail 6474847126a6107c
           tail -f 6474847126a6107c
           tail -n 20 6474847126a6107c""",
        "With -f the status is that of the command: 128 and more for a signal, 124 when its time\n"
        "was over.",
    )  # fmt: skip
    p.add_argument("id", metavar="ID")
    until = "follow it until the job has finished"
    p.add_argument("-f", "--follow", action="store_true", help=until)
    p.add_argument("-n", "--lines", type=int, metavar="N", help="only the last N (default: all)")

    p = add(
        "wait", wait, "Wait until jobs have finished.",
        """wait 6474847126a6107c
           wait --timeout 10m $(dbbasic-queue enqueue -- make) && echo built""",
        "The status is 0 when all completed, else that of the last one that did not: of a command\n"
        "its own, of others 1, and 124 when the time is over.",
    )  # fmt: skip
    p.add_argument("ids", nargs="+", metavar="ID")
    p.add_argument(
        "--timeout", type=duration, metavar="TIME", help="at most so long (default: ever)"
    )
