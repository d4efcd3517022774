"""The words of the command line: every command, what it takes, and how its help reads."""

import argparse
from functools import partial

from .. import __version__
from . import (
    change,
    completion,
    control,
    dashboard,
    edit,
    export,
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
from .output import PROGRAM
from .values import duration, moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from .. import Queue
    from .output import Output

    Command = Callable[[Queue, argparse.Namespace, Output], int]

STATUSES = ("pending", "processing", "completed", "failed", "cancelled")
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
    _add_moves(add)
    work_words.add_words(add)
    shell.add_words(add)
    _add_questions(add)
    for module in (watch, dashboard, metrics, why, live):
        module.add_words(add)
    _add_upkeep(add)
    health.add_words(add)
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


def _add_moves(add: "Callable[..., Parser]") -> None:
    p = add(
        "enqueue", change.enqueue, "Add a job, or after -- a command, and print its id.",
        """enqueue send_email '{"to": "ada@example.com"}'
           enqueue report --run-at +2h --priority -5
           enqueue report --run-at 2030-01-31T06:00
           enqueue send_email - < payload.json
           enqueue --priority 5 --timeout 2h --env LANG -- make -j4 all
           enqueue --run-at +5m -- sh -c 'make && make install'""",
        "When the id is printed, the job is stored.  A command is kept with this folder and PATH,\n"
        "its words as they are; `work --shell` runs it, once unless --max-attempts says more.",
    )  # fmt: skip
    p.add_argument("type", nargs="?", help="which handler runs it")
    p.add_argument("payload", nargs="?", metavar="JSON", help="its data; - reads it from stdin")
    when = "not before: Unix seconds, ISO 8601 (local time without a zone), +30s +5m +2h +1d"
    p.add_argument("--run-at", type=moment, metavar="TIME", help=when)
    p.add_argument(
        "--queue", default="default", metavar="LABEL", help="the label that workers choose by"
    )
    p.add_argument(
        "--priority", type=int, default=0, metavar="N", help="lower runs first (default 0)"
    )
    p.add_argument("--max-attempts", type=int, metavar="N", help="how often it is started at most")
    p.add_argument(
        "--timeout",
        type=duration,
        metavar="TIME",
        help="how long one attempt may take: 90, 90s, 5m",
    )
    words = "none, linear:BASE:CAP or exponential:BASE:CAP[:jitter]"
    p.add_argument("--backoff", metavar="WORDS", help=words)
    first = "a job that must complete first, or a condition as any:ID or ok:@GROUP"
    p.add_argument("--after", action="append", metavar="ID", help=first)
    p.add_argument("--group", metavar="LABEL", help="a label that jobs share")
    p.add_argument("--id", help="an id of your own: 16 lower-case hex characters")
    variable = "a variable for a command, with its value here or another"
    p.add_argument("--env", action="append", metavar="NAME[=VALUE]", help=variable)

    p = add(
        "retry", change.retry, "Make failed or cancelled jobs pending again, and print their ids.",
        """retry 6474847126a6107c
           retry --type send_email --older-than 1h
           retry --all
           retry --copy 6474847126a6107c""",
        "What was cancelled only because of them comes back too.",
    )  # fmt: skip
    p.add_argument("ids", nargs="*", metavar="ID")
    _filters(p, "which of the failed jobs, or with --status cancelled of those")
    p.add_argument("--all", action="store_true", help="every failed job")
    p.add_argument("--copy", action="store_true", help="add new jobs like them instead")

    p = add(
        "cancel", change.cancel, "Cancel pending jobs, and print their ids.",
        """cancel 6474847126a6107c
           cancel $(dbbasic-queue list --json --type report | jq -r '.[].id')""",
        "What can now never run, since it waits for one of them, is cancelled too.",
    )  # fmt: skip
    p.add_argument("ids", nargs="+", metavar="ID")

    p = add(
        "purge", change.purge, "Delete jobs for good, after asking.",
        """purge --older-than 30d
           purge --status failed --type send_email --yes
           purge 6474847126a6107c""",
        "Never one that is processing, nor one that an unfinished job waits for.",
    )  # fmt: skip
    p.add_argument("ids", nargs="*", metavar="ID")
    _filters(p, "which of the finished jobs, or of those with --status")
    p.add_argument("--all", action="store_true", help="every finished job")
    p.add_argument("--yes", action="store_true", help="do not ask")

    p = add(
        "edit", edit.edit, "Change jobs in your editor: $VISUAL, else $EDITOR.",
        """edit --status failed --type send_email
           edit 6474847126a6107c""",
        "You edit a copy, and hold up nobody.  It is plain: sensitive fields stand there as they\n"
        "are.  A line is applied while its job is still as it was in the copy.  To delete a line\n"
        "deletes the job; a line with an empty id adds one.  What runs is left out.  Lines that\n"
        "cannot be applied are kept in a file that is named.  When the editor ends with a status\n"
        "other than 0, nothing is applied.  One that returns at once needs its word for waiting,\n"
        "as in EDITOR='code --wait'.",
    )  # fmt: skip
    p.add_argument("ids", nargs="*", metavar="ID")
    _filters(p, "which jobs; all of these must hold (default: every job)")


def _add_questions(add: "Callable[..., Parser]") -> None:
    p = add(
        "list", look.list_jobs, "List jobs, in the order they were added.",
        """list --status failed
           list --newest --limit 20
           list --type send_email --older-than 1h --json""",
    )  # fmt: skip
    _filters(p, "which jobs; all of these must hold")
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
    _filters(p, "which jobs; all of these must hold (default: every job)")
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

    p = add(
        "stats", look.stats, "Count jobs by status, queue and type; say what is due and who works.",
        """stats
           stats --queue high
           stats --json | jq .oldest_due_age""",
    )  # fmt: skip
    p.add_argument("--queue", help="only this queue")
    p.add_argument("--type", help="only this type")

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


def _filters(p: Parser, doc: str) -> None:
    group = p.add_argument_group("filters", doc)
    group.add_argument("--status", choices=STATUSES)
    group.add_argument("--type")
    group.add_argument("--queue")
    group.add_argument("--worker", help="a worker's id or its name")
    group.add_argument("--tag", help="a word in its column `tags`")
    age = "finished, or else added, longer ago than this: 90s, 5m, 2h, 7d"
    group.add_argument("--older-than", type=duration, metavar="TIME", help=age)
