"""The shell's door: `dbbasic-queue COMMAND …`, `python -m dbbasic_queue`, and `dbbasic queue:…`.

A command is a function (queue, what was given, where to print) -> exit status: 0 yes or done, 1 no,
nothing or not found, 2 wrong usage or an error, with one line on stderr that says which.
"""

import os
import sys

from .. import Queue, QueueError
from .arguments import Usage, parse
from .output import Output, Unwritten, flush, tell
from .progress import DOING, bytes_moved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run one command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # cron's locale has no ü, and a payload may
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _answer(argv)
        flush(sys.stdout)
        return status
    except Unwritten as problem:
        # let the rest go nowhere, so that Python does not try again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(problem.__cause__, BrokenPipeError):  # `| head` has seen enough
            return 0
        tell(f"the answer cannot be written: {getattr(problem.__cause__, 'strerror', '')}")
        return 2
    except KeyboardInterrupt:
        return 130


def _answer(argv: "Sequence[str] | None") -> int:
    try:
        given = parse(sys.argv[1:] if argv is None else argv)
        queue = Queue(given.file)
        out = Output(json=given.json)
        with out.progress(DOING.get(given.command, ""), bytes_moved(given.command, queue.path)):
            status: int = given.call(queue, given, out)
        return status
    except SystemExit as ended:  # --help and --version; a worker that SIGTERM has stopped
        return ended.code if isinstance(ended.code, int) else 0
    except (Usage, QueueError) as error:
        tell(str(error))
        return 2
    except Unwritten:
        raise
    except OSError as error:
        tell(f"{error.filename or 'the queue'}: {error.strerror}")
        return 2
    except Exception:  # a bug: 1 would read as "no"
        import traceback

        for line in traceback.format_exc().splitlines():
            tell(line, name="")
        return 2


# --- what dbbasic-cli finds here


def _command(doc: str, *words: str) -> "Callable[[list[str]], None]":
    def command(args: "list[str]") -> None:
        status = main([*words, *args])
        if status:
            raise SystemExit(status)

    command.__doc__ = doc
    return command


COMMANDS = {
    "queue:enqueue": _command("Add a job and print its id", "enqueue"),
    "queue:worker": _command("Run the jobs that are due: MODULE:HANDLERS", "work"),
    "queue:run": _command("Run one pending job in the foreground", "run"),
    "queue:tail": _command("Print what a command has printed, and follow it with -f", "tail"),
    "queue:wait": _command("Wait until jobs have finished", "wait"),
    "queue:list": _command("List jobs", "list"),
    "queue:failed": _command("Tell why jobs failed, by type and error", "failed"),
    "queue:show": _command("Show everything about one job", "show"),
    "queue:top": _command("Show the queue live, and steer it with keys", "top"),
    "queue:why": _command("Say why a job has not run, or not yet", "why"),
    "queue:watch": _command("Print a line for each change of a job, as it comes", "watch"),
    "queue:history": _command("Say what became of one job", "history"),
    "queue:stats": _command("Count jobs by status, queue and type", "stats"),
    "queue:metrics": _command("Print the figures for Prometheus", "metrics"),
    "queue:workers": _command("List the workers that live", "workers"),
    "queue:retry": _command("Make failed or cancelled jobs pending again", "retry"),
    "queue:cancel": _command("Cancel pending jobs", "cancel"),
    "queue:purge": _command("Delete jobs for good, after asking", "purge"),
    "queue:edit": _command("Change jobs in your editor", "edit"),
    "queue:export": _command("Write jobs as CSV, TSV or JSON", "export"),
    "queue:archive": _command("Move old finished jobs to the archive", "archive"),
    "queue:backup": _command("Copy the queue to a file", "backup"),
    "queue:pause": _command("Let no worker claim a job of a queue", "pause"),
    "queue:resume": _command("Let workers claim jobs of a paused queue again", "resume"),
    "queue:kill": _command("End running jobs", "kill"),
    "queue:stop": _command("Ask the live workers to stop", "stop"),
    "queue:schedule": _command("Jobs that come again: add, list, pause, resume", "schedule"),
    "queue:new-key": _command("Print a new key for sealed and signed jobs", "new-key"),
    "queue:reseal": _command("Seal what is sealed under the first key", "reseal"),
    "queue:dashboard": _command("Show the queue in a browser", "dashboard"),
    "queue:health": _command("Say whether the queue is healthy, as Nagios reads it", "health"),
    "queue:cron": _command("Print, install or remove the line of the crontab", "cron"),
    "queue:init": _command("Write a worker.py and its handlers", "init"),
    "queue:makefile": _command("Print targets for a Makefile", "makefile"),
    "queue:doctor": _command("Say what is wrong with the queue, and mend it", "doctor"),
}
