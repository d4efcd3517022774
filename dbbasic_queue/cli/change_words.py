"""The words of the commands that change the queue."""

from . import change, edit
from .filters import add_filters
from .values import duration, moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .arguments import Parser


def add_words(add: "Callable[..., Parser]") -> None:
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
    add_filters(p, "which of the failed jobs, or with --status cancelled of those", kinds=False)
    p.add_argument("--all", action="store_true", help="every failed job")
    p.add_argument("--copy", action="store_true", help="add new jobs like them instead")

    p = add(
        "cancel", change.cancel, "Cancel pending jobs, and print their ids.",
        """cancel 6474847126a6107c
           cancel --type report --older-than 1h
           cancel --queue slow --status scheduled""",
        "What can now never run, as it waits for one of them, is cancelled too, all in one edit.",
    )  # fmt: skip
    p.add_argument("ids", nargs="*", metavar="ID")
    add_filters(p, "which of the pending jobs")
    p.add_argument("--all", action="store_true", help="every pending job")

    p = add(
        "purge", change.purge, "Delete jobs for good, after asking.",
        """purge --older-than 30d
           purge --status failed --type send_email --yes
           purge 6474847126a6107c""",
        "Never one that is processing, nor one that an unfinished job waits for.",
    )  # fmt: skip
    p.add_argument("ids", nargs="*", metavar="ID")
    add_filters(p, "which of the finished jobs, or of those with --status", kinds=False)
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
    add_filters(p, "which jobs; all of these must hold (default: every job)")
