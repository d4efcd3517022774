"""What is wrong with a back end, as `manage.py check` says it: settings, folder, file, crontab."""

import os
import time

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Warning

from ... import Queue, QueueError
from ...call import check_job
from ...errors import BadArgument
from ...show import span
from ...stats import SILENT, last_tick_age

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from django.core.checks import CheckMessage

    from .backend import TSVBackend

APP = "dbbasic_queue.contrib.django"
OPTIONS = "path sync modules enqueue_on_commit max_attempts timeout backoff".split()
_FOR_JOBS = ("max_attempts", "timeout", "backoff")
_LOOKS = 1000  # pending jobs that are looked at for one that is due


def check(backend: "TSVBackend") -> "Iterator[CheckMessage]":
    """Yield what is wrong, each with what to do about it."""
    where = f"TASKS[{backend.alias!r}]"
    wrong = list(_options(backend.options, where))
    yield from wrong
    if not apps.is_installed(APP):
        yield Warning(
            f"{APP} is not in INSTALLED_APPS: manage.py has no process_jobs",
            hint=f"Add {APP!r} to INSTALLED_APPS.",
            id="dbbasic_queue.W001",
        )
    if not wrong:
        yield from _file(backend, where)


def _options(options: "dict[str, Any]", where: str) -> "Iterator[CheckMessage]":
    for name in sorted(options.keys() - set(OPTIONS)):
        hint = f"The options are {', '.join(OPTIONS)}."
        yield _error(f"{where}: there is no option {name!r:.80}", hint, "E001")
    path = options.get("path", "")
    if not isinstance(path, (str, os.PathLike)):
        hint = 'Give a path such as BASE_DIR / "data" / "queue.tsv".'
        yield _error(f"{where}: path={path!r:.80} is no path", hint, "E002")
    modules = options.get("modules", ())
    if isinstance(modules, str) or not all(isinstance(name, str) for name in modules):
        hint = 'Give a list of names, as ["shop.mails"].'
        yield _error(f"{where}: modules={modules!r:.80} is no list of modules", hint, "E003")
    waits = options.get("enqueue_on_commit", False)
    if not (isinstance(waits, bool) or (isinstance(waits, str) and waits in settings.DATABASES)):
        hint = "Give True, for the default database, or the alias of one in DATABASES."
        yield _error(f"{where}: enqueue_on_commit={waits!r:.80} names no database", hint, "E004")
    given = {name: options[name] for name in _FOR_JOBS if name in options}
    try:
        check_job({"job_type": "check", **given})
        Queue("check", sync=options.get("sync"))
    except BadArgument as problem:
        yield _error(f"{where}: {problem}", "Leave it out for the default.", "E005")


def _error(text: str, hint: str, number: str) -> "CheckMessage":
    return Error(text, hint=hint, id=f"dbbasic_queue.{number}")


def _file(backend: "TSVBackend", where: str) -> "Iterator[CheckMessage]":
    path = backend.path
    if not os.path.isabs(backend.given):
        yield Warning(
            f"{where}: the path of the queue is relative: it is another file in each folder",
            hint='Give an absolute one, as BASE_DIR / "data" / "queue.tsv".',
            id="dbbasic_queue.W002",
        )
    folder = os.path.dirname(os.path.realpath(path))
    nearest = folder
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest) or not _may_write(nearest, os.W_OK | os.X_OK):
        hint = "The web server and cron's user must both be able to write there."
        yield _error(f"{where}: the folder {folder} cannot be written by this user", hint, "E006")
        return
    try:
        first = next(backend.queue.jobs(limit=1), None)
    except (QueueError, OSError) as problem:
        hint = "`dbbasic-queue doctor` says more; a path of its own makes a new file."
        yield _error(f"{where}: {problem}", hint, "E007")
        return
    if first is not None and not _may_write(path, os.W_OK):
        hint = "The web server and cron's user must both be able to write it."
        yield _error(f"{where}: {path} cannot be written by this user", hint, "E006")
    yield from _ticks(backend.queue, where)


def _may_write(path: str, how: int) -> bool:
    """Whether the user whose rights count may: root may do all, except on a read-only disk."""
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def _ticks(queue: Queue, where: str) -> "Iterator[CheckMessage]":
    """Tell of jobs that are due while nothing ticks."""
    age, now = last_tick_age(queue), time.time()
    if age is not None and age <= SILENT:
        return
    since = 0.0 if age is None else now - age
    due = (job for job in queue.jobs("pending", limit=_LOOKS) if job.is_due(now))
    waits = next((job for job in due if now - max(job.run_at, since) > SILENT), None)
    if waits is not None:
        last = "there was no tick yet" if age is None else f"the last tick was {span(age)} ago"
        yield Warning(
            f"{where}: jobs are due, and {last}",
            hint="Let cron run `manage.py process_jobs` each minute.",
            id="dbbasic_queue.W003",
        )
