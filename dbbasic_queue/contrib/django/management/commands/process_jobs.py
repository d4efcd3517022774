"""`manage.py process_jobs`: one tick, which cron starts each minute."""

import argparse
import logging
import math

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ..... import QueueError
from .....errors import BadArgument, seconds_of
from ...backend import TSVBackend
from ...framework import DEFAULT, task_backends
from ...running import work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN = (
    "run_for max_jobs processes memory max_attempts name timeout backoff max_workers grace keep_by"
).split()


def _duration(text: str) -> float:
    try:
        return seconds_of(text)
    except BadArgument as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _processes(text: str) -> "int | tuple[int, int]":
    least, dash, most = text.partition("-")
    return (int(least), int(most)) if dash else int(least)


def _age(text: str) -> tuple[str, str]:
    status, equals, how_long = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not STATUS=TIME, as in completed=7d")
    return status, how_long


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    help = "Run the tasks that are due, and return.  Let cron start it each minute."
    requires_system_checks = ()  # each minute: `manage.py check` is for people

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        which = "the alias in TASKS (default: the one whose back end is a TSVBackend)"
        add("--backend", metavar="ALIAS", help=which)
        add("--queue", metavar="A,B", help="only these queues, in this order of precedence")
        long = parser.add_mutually_exclusive_group()
        long.add_argument("--run-for", "--for", type=_duration, metavar="TIME",
                          help="look for new jobs so long: 55s")  # fmt: skip
        long.add_argument("--forever", dest="run_for", action="store_const", const=math.inf,
                          help="look for new jobs until a signal")  # fmt: skip
        add("--max-jobs", type=int, metavar="N", help="stop after so many")
        many = "fork N workers, or from LEAST to MOST by what waits (default: run in this process)"
        add("--processes", type=_processes, default=0, metavar="N|LEAST-MOST", help=many)
        add("--memory", type=int, metavar="MB", help="what each of these may use")
        own = "default: the option of the back end, else 1: Django tries nothing again"
        add("--max-attempts", type=int, metavar="N", help=own)
        add("--timeout", type=_duration, metavar="TIME", help="how long a task may run: 90s, 5m")
        add("--backoff", metavar="WORDS", help="until the next attempt, as linear:60:3600")
        add("--name", help="leads this worker's id")
        add("--max-workers", type=int, metavar="N", help="leave when so many live already")
        add("--grace", type=_duration, metavar="TIME", help="for the current job after SIGTERM")
        keep = "how long finished jobs stay, as completed=7d; once an hour the older ones go"
        add("--keep", type=_age, action="append", metavar="STATUS=TIME", help=keep)
        where = "where they go: to the archive (default), or nowhere"
        add("--keep-by", choices=("archive", "purge"), default="archive", help=where)

    def handle(self, *args: "Any", **given: "Any") -> None:
        """Work, and say in one line what is wrong with the words or the settings."""
        log = logging.getLogger("dbbasic_queue")
        if given["verbosity"] > 1 and not log.hasHandlers():
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        if given["keep_by"] == "purge" and not given["keep"]:
            raise CommandError("--keep-by purge says where, --keep STATUS=TIME what: give both")
        options = {name: given[name] for name in _PLAIN}
        queues = given["queue"] and [label.strip() for label in given["queue"].split(",")]
        try:
            backend = _backend(given["backend"])
            log.info("queue %s", backend.path)
            work(backend, queues=queues, keep=dict(given["keep"] or ()) or None, **options)
        except (QueueError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error


def _backend(alias: str | None) -> TSVBackend:
    """Return the back end that is meant."""
    ours = [one for one in task_backends if isinstance(task_backends[one], TSVBackend)]
    if alias is None and len(ours) != 1 and DEFAULT not in ours:
        text = f"which? --backend {' or '.join(ours)}" if ours else "no back end is a TSVBackend"
        raise CommandError(f"TASKS: {text}")
    chosen = alias or (DEFAULT if DEFAULT in ours else ours[0])
    backend = task_backends[chosen]
    if not isinstance(backend, TSVBackend):
        raise CommandError(f"TASKS[{chosen!r}]: its back end is no TSVBackend")
    return backend
