"""The words of the command line: every command, what it takes, and how its help reads."""

import argparse
from functools import partial

from .. import __version__
from . import (
    change,
    change_words,
    completion,
    control,
    dashboard,
    export,
    figures,
    forward,
    health,
    live,
    look,
    metrics,
    schedule,
    sealed,
    setup,
    shell,
    watch,
    why,
    work_words,
)
from .filters import add_filters
from .output import PROGRAM
from .values import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from .. import Queue
    from .output import Output

    Command = Callable[[Queue, argparse.Namespace, Output], int]

STATUS_LINE = "Exit status: 0 yes or done, 1 no, nothing or not found, 2 wrong usage or an error."


class Usage(Exception):
    """The words given make no command."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors that can be caught, and examples at the end of each help."""

    def __init__(self, **settings: "Any") -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> "NoReturn":
        raise Usage(f"{message} (see {self.prog} --help)")


def parse(argv: "Sequence[str]") -> argparse.Namespace:
    """Return what a command line says; what follows `enqueue … --` or `cron … --` is for others."""
    before, dashes, command = argv, "", argv[:0]
    if "--" in argv and {"enqueue", "cron"} & {*argv[: argv.index("--")]}:
        at = argv.index("--")
        before, dashes, command = argv[:at], "--", argv[at + 1 :]
    given, unknown = parser().parse_known_args(before)
    if unknown:
        its = f"{PROGRAM} {given.command} --help"
        raise Usage(f"unrecognized arguments: {' '.join(unknown)} (see {its})")
    given.argv = list(command) if dashes else None
    return given


def parser() -> Parser:
    """Return the parser of the whole command line."""
    top = Parser(
        prog=PROGRAM,
        parents=[_everywhere(None, False)],
        description="A job queue that is one TSV file.",
        epilog=f"{PROGRAM} COMMAND --help tells more, with examples.\n\n{STATUS_LINE}",
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shared = _everywhere(argparse.SUPPRESS, argparse.SUPPRESS)

    def command(
        among: "Any", name: str, call: "Command | None", doc: str, examples: str, more: str = ""
    ) -> Parser:
        one: Parser = among.add_parser(
            name.rpartition(" ")[2],
            parents=[shared],
            help=doc,
            description=f"{doc}\n\n{more}".strip(),
            epilog=f"examples:\n{_indented(examples)}\n\n{STATUS_LINE}",
        )
        if call is not None:
            one.set_defaults(call=call)
        return one

    add = partial(command, commands)
    change_words.add_words(add)
    work_words.add_words(add)
    shell.add_words(add)
    _add_questions(add)
    for module in (figures, watch, dashboard, metrics, why, live):
        module.add_words(add)
    _add_upkeep(add)
    health.add_words(add)
    forward.add_words(add)
    setup.add_words(add)
    sealed.add_words(add)
    completion.add_words(add, parser)
    p = add(
        "schedule", None, "Jobs that come again: add, list, pause, resume, run, remove.",
        """schedule add nightly report --cron '30 2 * * *' --tz Europe/Berlin
           schedule add sync fetch '{"of": "stock"}' --every 15m
           schedule list
           schedule pause nightly""",
        "`work` runs them.  Each is a row of the type schedule, which waits for its next slot.",
    )  # fmt: skip
    schedule.add_words(p, command)
    return top


def _everywhere(file: "Any", json: "Any") -> Parser:
    """Return what may stand before and after the command."""
    shared = Parser(add_help=False)
    where = "the queue file (default: $DBBASIC_QUEUE, else data/queue.tsv in this folder)"
    shared.add_argument("--file", metavar="PATH", default=file, help=where)
    shared.add_argument("--json", action="store_true", default=json, help="print one JSON document")
    return shared


def _indented(examples: str) -> str:
    return "\n".join(f"  {PROGRAM} {line.strip()}" for line in examples.strip().splitlines())


def _add_questions(add: "Callable[..., Parser]") -> None:
    p = add(
        "list", look.list_jobs, "List jobs, in the order they were added.",
        """list --status failed
           list --newest --limit 20
           list --type send_email --older-than 1h --json""",
    )  # fmt: skip
    add_filters(p, "which jobs; all of these must hold")
    p.add_argument("--id", nargs="+", action="extend", metavar="ID", help="these jobs")
    p.add_argument("--newest", action="store_true", help="the last one first")
    p.add_argument("--limit", type=int, metavar="N", help="at most so many")

    p = add(
        "export", export.export, "Write jobs as CSV, TSV or JSON.",
        """export > jobs.csv
           export --status failed --format jsonl | jq .error
           export --archived --out /mnt/reports/jobs.csv""",
        "csv and tsv are for spreadsheets: a cell that would be a formula there gets a ' before\n"
        "it.  jsonl is one JSON document a line.",
    )  # fmt: skip
    add_filters(p, "which jobs; all of these must hold (default: every job)")
    sealed.add_plain(p)
    p.add_argument("--archived", action="store_true", help="the jobs in the archive too")
    p.add_argument("--format", choices=export.FORMATS, help="default csv; json with --json")
    where = "the file to write, readable by you alone; an old one is replaced (default: stdout)"
    p.add_argument("--out", metavar="FILE", help=where)

    p = add(
        "show", look.show, "Show everything about one job, an archived one too.",
        """show 6474847126a6107c
           show 6474847126a6107c --unseal""",
        "Fields that are sensitive are ***.  A sealed job is shown as it is in the file.",
    )  # fmt: skip
    p.add_argument("id", metavar="ID")
    sealed.add_plain(p)
    unseal = "open what is sealed, with the keys of $DBBASIC_QUEUE_KEY"
    p.add_argument("--unseal", action="store_true", help=unseal)

    add(
        "workers", look.workers, "List the workers that live, and what they run.",
        """workers
           workers --json""",
    )  # fmt: skip


def _add_upkeep(add: "Callable[..., Parser]") -> None:
    p = add(
        "archive", change.archive, "Move old finished jobs to the archive beside the queue.",
        """archive --older-than 7d""",
        "The status is 0 also when nothing is that old.",
    )  # fmt: skip
    age = "finished longer ago than this: 90, 90s, 5m, 2h, 7d"
    p.add_argument("--older-than", type=duration, required=True, metavar="TIME", help=age)

    p = add(
        "backup", change.backup, "Copy the queue, with all that workers have finished until now.",
        """backup /mnt/backup/queue.tsv""",
        "The lock is held meanwhile; a restored copy runs nothing a second time.",
    )  # fmt: skip
    p.add_argument("target", metavar="TARGET", help="the file to write; an old one is replaced")

    p = add(
        "pause", control.pause, "Let no worker claim a job of this queue, until `resume`.",
        """pause mail""",
        "What runs goes on; jobs can be added.  The status is 1 when it was paused already.",
    )  # fmt: skip
    p.add_argument("label", metavar="LABEL", help="the queue; `default` for jobs without a label")

    p = add(
        "resume", control.resume, "Let workers claim jobs of this queue again.",
        """resume mail""",
        "Workers that wait see it within a second.  The status is 1 when it was not paused.",
    )  # fmt: skip
    p.add_argument("label", metavar="LABEL", help="the queue")

    p = add(
        "stop", control.stop, "Ask the live workers to stop after their current jobs.",
        """stop
           stop mailer --wait 5m""",
        "The ids of those that have stopped are printed; who is left is told.",
    )  # fmt: skip
    p.add_argument("name", nargs="?", metavar="NAME", help="only workers with this name or id")
    _wait(p)

    p = add(
        "kill", control.kill, "End running jobs, and print the ids of those that have ended.",
        """kill 6474847126a6107c""",
        "They become cancelled.  `cancel` is for jobs that do not run yet.",
    )  # fmt: skip
    p.add_argument("ids", nargs="+", metavar="ID")
    _wait(p)

    p = add(
        "doctor", look.doctor, "Say what is wrong with the queue, and how to mend it.",
        """doctor
           doctor --mend
           doctor --file /app/data/queue.tsv --json""",
        "It looks at the file, its header, every line, the locks, the workers' files, the\n"
        "permissions, the mount, what crashes left, and cron's environment.\n"
        "The status is 1 when something is wrong, 2 when that cannot be told.",
    )  # fmt: skip
    steps = "move bad lines out, take in dead workers, remove what crashes left"
    p.add_argument("--mend", action="store_true", help=steps)


def _wait(p: Parser) -> None:
    how_long = "for the end, at most (default 10s)"
    p.add_argument("--wait", type=duration, default=10, metavar="TIME", help=how_long)
