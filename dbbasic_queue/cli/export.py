"""The command that exports: jobs as CSV, TSV or JSON, to stdout or to a file."""

import os
from itertools import chain

from .. import Queue
from ..errors import BadArgument, NotStored
from ..export import copy_target, inert, read, spreadsheet_row
from ..kinds import Kinds
from ..show import as_json, document
from .filters import choice_of, filtered
from .output import Output, emit_bytes, numbered, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

    from .. import Job
    from ..tsv import Header

FORMATS = ("csv", "tsv", "json", "jsonl")


def export(queue: Queue, given: "Namespace", out: Output) -> int:
    """Write jobs as CSV, TSV or JSON."""
    form = given.format or ("json" if out.json and not given.out else "csv")
    if out.json and not given.out and form != "json":
        raise BadArgument(f"--json and --format {form}: one of the two, or --out FILE")
    target = copy_target(given.out, os.path.realpath(queue.path)) if given.out else None
    try:
        header, every = read(queue, archived=given.archived)
    except FileNotFoundError:
        tell(f"{queue.path}: there is no queue to export")
        return 1
    choice, kinds = choice_of(given), Kinds(queue)
    jobs = _Counted(job for job in every if choice.matches(job, kinds))
    write = _json if form.startswith("json") else _table
    lines = write(form, header, jobs, plain=given.plain)
    if target is None:
        for line in lines:
            emit_bytes(line.encode())
    else:
        _write(lines, target, os.stat(queue.path).st_mode & 0o600)
        if out.json:
            out.document({"exported": jobs.count, "file": queue.path, "out": target})
        else:
            out.line(f"{numbered(jobs.count)} of {queue.path} written to {target}")
    if not jobs.count:
        tell("no job is like that" if filtered(given) else "there are no jobs")
    return 0 if jobs.count else 1


class _Counted:
    """Jobs, and how many of them have passed."""

    def __init__(self, jobs: "Iterable[Job]") -> None:
        self._jobs = jobs
        self.count = 0

    def __iter__(self) -> "Iterator[Job]":
        for job in self._jobs:
            self.count += 1
            yield job


class _Echo:
    """What csv.writer takes for a file: `writerow` then returns the line."""

    def write(self, text: str) -> str:
        return text


def _table(form: str, header: "Header", jobs: "Iterable[Job]", *, plain: bool) -> "Iterator[str]":
    import csv

    tab = "\t" if form == "tsv" else ","
    writer = csv.writer(_Echo(), delimiter=tab, lineterminator="\n")  # quotes too are for a reason:
    head = map(inert, header.columns)  # a JSON text "=1+1" without them is a formula again
    for row in chain([head], (spreadsheet_row(job, header, plain=plain) for job in jobs)):
        yield writer.writerow(row)


def _json(form: str, header: "Header", jobs: "Iterable[Job]", *, plain: bool) -> "Iterator[str]":
    begin, between, end = ("[", ",\n", "]\n") if form == "json" else ("", "\n", "\n")
    count = 0
    for count, job in enumerate(jobs, start=1):
        yield (between if count > 1 else begin) + as_json(document(job, plain=plain))
    if count:
        yield end
    elif form == "json":
        yield "[]\n"


# --- to a file


def _write(lines: "Iterable[str]", target: str, mode: int) -> None:
    """Write a neighbour, sync it, and put it in the place of the old file."""
    import tempfile

    folder, name = os.path.split(target)
    neighbour = ""
    try:
        fd, neighbour = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)  # 0600
        with open(fd, "wb") as file:
            for line in lines:
                file.write(line.encode())
            file.flush()
            os.fsync(fd)
            os.fchmod(fd, mode)
        os.rename(neighbour, target)
    except BaseException as error:
        if neighbour:
            os.unlink(neighbour)
        if isinstance(error, OSError):
            raise NotStored(f"{target}: not written: {error.strerror}") from error
        raise
