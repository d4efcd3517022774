"""The commands that set a queue up: init, cron, makefile."""

import os
import shlex
import sys

from .. import Queue
from ..errors import BadArgument
from . import crontab
from .output import Output, emit_bytes, tell
from .starters import FILES, MAKEFILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

_UNSAID = ("DBBASIC_QUEUE_KEY", "DBBASIC_QUEUE_REDACT")  # secrets
_NEXT = """\
dbbasic-queue enqueue greet '{"name": "Ana"}'
{python} worker.py
dbbasic-queue list
dbbasic-queue cron --install
dbbasic-queue dashboard"""


def init(queue: Queue, given: "Namespace", out: Output) -> int:
    """Write a worker.py and its handlers, where there are none."""
    written, kept = [], []
    for name, text in FILES.items():
        try:
            with open(name, "x", encoding="utf-8") as file:
                file.write(text)
            written.append(name)
        except FileExistsError:
            kept.append(name)
    python = shlex.quote(sys.executable or "python3")
    steps = _NEXT.replace("{python}", python).split("\n")
    if out.json:
        out.document({"folder": os.getcwd(), "written": written, "kept": kept, "next": steps})
    else:
        for name in written:
            out.line(f"written: {os.path.abspath(name)}")
        for name in kept:
            more = "; worker.py takes HANDLERS from it" if name == "handlers.py" and written else ""
            out.line(f"kept as it is: {os.path.abspath(name)}{more}")
        out.line()
        out.line("and now:")
        for step in steps:
            out.line(f"  {step}")
    return 0 if written else 1


def cron(queue: Queue, given: "Namespace", out: Output) -> int:
    """Print the line of the crontab, put it in, or take it out."""
    folder = os.getcwd()
    more = given.argv or []
    words = _words(given.what or "worker.py", more, folder, gone=given.remove)
    log = given.log
    variables = {}
    if os.environ.get("DBBASIC_QUEUE") or given.file:
        variables["DBBASIC_QUEUE"] = queue.path
    line, place, what = crontab.command(folder, words, log, variables)
    for name in _UNSAID:
        if os.environ.get(name) and not given.remove:
            tell(f"{name} is set here, and cron does not know it: set it in the crontab too")
    if not given.install and not given.remove:
        _print_line(out, line, log)
        return 0
    before = crontab.read()
    if given.remove:
        after = crontab.without(before, place, what if given.what or more else b"")
    else:
        after = crontab.with_line(before, line, place, what)
    if not given.dry_run:
        if given.install:
            os.makedirs(os.path.dirname(log) or ".", exist_ok=True)
        if after != before:
            crontab.write(after)
    old, new = before.split(b"\n"), after.split(b"\n")
    removed = [one for one in old if one not in new]
    added = [one for one in new if one not in old]
    if out.json:
        out.document({
            "line": _text(line),
            "added": list(map(_text, added)),
            "removed": list(map(_text, removed)),
            "dry_run": given.dry_run,
        })  # fmt: skip
    else:
        for sign, lines in ((b"- ", removed), (b"+ ", added)):
            for one in lines:
                emit_bytes(sign + one + b"\n")
        changed = added or removed
        if not changed:
            text = "has that line already" if given.install else "has no line for this folder"
            tell(f"the crontab {text}; nothing was changed")
        elif given.dry_run:
            tell("this is what would be changed")
    return 1 if given.remove and not removed else 0


def _text(line: bytes) -> str:
    return line.decode(errors="replace")


def _print_line(out: Output, line: bytes, log: str) -> None:
    folder = os.path.dirname(log)
    if out.json:
        out.document({"line": _text(line)})
        return
    emit_bytes(line + b"\n")
    if folder and not os.path.isdir(folder):
        tell(f"{folder} is missing, so that the line would fail: make it, or let --install do so")


def _words(what: str, more: "list[str]", folder: str, *, gone: bool) -> list[str]:
    """Return what Python is to run; BadArgument when that is not there."""
    if ":" not in what:
        path = os.path.abspath(what)
        if not gone and not os.path.isfile(path):
            raise BadArgument(f"{path}: there is no such file; `init` writes a worker.py")
        name = os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path
        return [f"./{name}" if name.startswith("-") else name, *more]
    from .arguments import parse

    parse(["work", what, *more])  # Usage, when `work` does not take them
    module = what.partition(":")[0]
    if not gone and not _is_module(module.partition(".")[0], folder):
        raise BadArgument(f"there is no module {module} in {folder}, nor elsewhere")
    return ["-m", "dbbasic_queue", "work", what, *more]


def _is_module(name: str, folder: str) -> bool:
    """Whether there is a module or a package of this name; nothing is imported."""
    import pkgutil

    there = any(name == one.name for one in pkgutil.iter_modules([folder, *sys.path]))
    return there or os.path.isdir(os.path.join(folder, name))


def makefile(queue: Queue, given: "Namespace", out: Output) -> int:
    """Print targets for a Makefile."""
    if out.json:
        out.document({"makefile": MAKEFILE})
    else:
        emit_bytes(MAKEFILE.encode())
    return 0


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the words of these commands."""
    add(
        "init", init, "Write a worker.py and its handlers into this folder.",
        """init""",
        "No file is overwritten.  The status is 1 when both are there.",
    )  # fmt: skip
    p = add(
        "cron", cron, "Print the crontab line of a worker, or put it into your crontab.",
        """cron
           cron --install
           cron handlers:HANDLERS --install -- --queue mail,default --name mailer
           cron --remove""",
        "The line starts this Python in this folder each minute: worker.py, or another file, or\n"
        "`work MODULE:HANDLERS` with what stands after --.  $DBBASIC_QUEUE and --file go into it.\n"
        "All other lines of the crontab stay as they are.  --remove without a file or handlers\n"
        "takes out every line that --install has put in for this folder; the status is 1 when\n"
        "there is none.",
    )  # fmt: skip
    text = "a file such as worker.py (the default), or handlers for `work`"
    p.add_argument("what", nargs="?", metavar="FILE|MODULE:HANDLERS", help=text)
    text = "where its output goes (default logs/queue.log in this folder)"
    p.add_argument("--log", default="logs/queue.log", metavar="FILE", help=text)
    does = p.add_mutually_exclusive_group()
    does.add_argument("--install", action="store_true", help="put it into your crontab")
    does.add_argument("--remove", action="store_true", help="take it out of your crontab")
    p.add_argument("--dry-run", action="store_true", help="only show what would be changed")
    add(
        "makefile", makefile, "Print make targets: queue-work, queue-stats, queue-failed and more.",
        """makefile > queue.mk""",
        "Then `include queue.mk` in your Makefile.  PYTHON, QUEUE and HANDLERS can be set there.",
    )  # fmt: skip
