"""The words of `work` and `run`."""

import math

from . import work
from .values import age, duration, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

_IMPORT = "module and name of the mapping from type to function, as in handlers:HANDLERS"
_SHELL = "run the commands that `enqueue -- …` has added"


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the commands that run jobs."""
    p = add(
        "work", work.work, "Run the jobs that are due, and return: one tick.",
        """work handlers:HANDLERS
           work handlers:HANDLERS --queue high,default --run-for 55s
           work shop.jobs:HANDLERS --forever -v
           work --shell --processes 2 --forever
           work --shell --load 1.5 --keep completed=7d --keep failed=30d""",
        "SIGTERM and Ctrl-C end it after the current job; a second one puts that job back.",
    )  # fmt: skip
    p.add_argument("handlers", nargs="?", metavar="MODULE:HANDLERS", help=_IMPORT)
    p.add_argument("--shell", action="store_true", help=_SHELL)
    load = "start a command only while the load average is below this"
    p.add_argument("--load", type=float, metavar="N", help=load)
    size = "what is kept of a command's output, in MB (default 16)"
    p.add_argument("--output", type=int, metavar="MB", help=size)
    p.add_argument("--queue", metavar="A,B", help="only these queues, in this order of precedence")
    p.add_argument("--max-attempts", type=int, default=3, metavar="N", help="default 3")
    p.add_argument(
        "--timeout", type=duration, metavar="TIME", help="for jobs that have none: 90, 90s, 5m"
    )
    p.add_argument("--backoff", metavar="WORDS", help="for jobs that have none")
    long = p.add_mutually_exclusive_group()
    long.add_argument("--run-for", type=duration, metavar="TIME", help="look for new jobs so long")
    ever = "look for new jobs until a signal or `stop`"
    long.add_argument("--forever", dest="run_for", action="store_const", const=math.inf, help=ever)
    p.add_argument("--max-jobs", type=int, metavar="N", help="stop after so many")
    many = "fork N workers, or from LEAST to MOST by what waits (default: run in this process)"
    p.add_argument("--processes", type=processes, default=0, metavar="N|LEAST-MOST", help=many)
    p.add_argument("--memory", type=int, metavar="MB", help="what each of these may use")
    beside = "how many `async def` handlers run side by side in a worker (default 1)"
    p.add_argument("--concurrency", type=int, default=1, metavar="N", help=beside)
    p.add_argument("--name", help="leads this worker's id")
    p.add_argument("--max-workers", type=int, metavar="N", help="leave when so many live already")
    grace = "what the current job gets after SIGTERM (default: as long as it takes)"
    p.add_argument("--grace", type=duration, metavar="TIME", help=grace)
    keep = "how long finished jobs stay, as completed=7d; once an hour the older ones go"
    p.add_argument("--keep", type=age, action="append", metavar="STATUS=TIME", help=keep)
    where = "where they go: to the archive (default), or nowhere"
    p.add_argument("--keep-by", choices=("archive", "purge"), default="archive", help=where)
    more = "a mapping of further arguments of process_jobs, such as middleware and settings"
    p.add_argument("--options", metavar="MODULE:NAME", help=more)
    sign = "ask for this URL after a good tick, as healthchecks.io wants it"
    p.add_argument("--ping", metavar="URL", help=sign)
    p.add_argument("-v", "--verbose", action="store_true", help="log each job on stderr")
    lines = "log on stderr as JSON, a document a line"
    p.add_argument("--log-json", action="store_true", help=lines)

    p = add(
        "run", work.run, "Run one pending job here and now, in the foreground.",
        """run 6474847126a6107c handlers:HANDLERS
           run 6474847126a6107c --shell""",
        "It runs in this process, on this terminal, so that breakpoint() works.  Its result or\n"
        "its traceback is printed, and kept as with any other run.",
    )  # fmt: skip
    p.add_argument("id", metavar="ID")
    p.add_argument("handlers", nargs="?", metavar="MODULE:HANDLERS", help=_IMPORT)
    p.add_argument("--shell", action="store_true", help=_SHELL)
    p.add_argument("-v", "--verbose", action="store_true", help="log on stderr")
