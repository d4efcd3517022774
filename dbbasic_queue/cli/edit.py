"""The command that edits by hand: a copy of rows, your editor, and what became of what you typed.

No lock is held while the editor runs.  Nothing that was typed is lost: what cannot be applied is
kept in a file whose path is told.
"""

import os
import shutil
import signal
import threading

from .. import Queue
from ..errors import BadArgument
from ..kinds import Kinds
from ..redact import HIDDEN, paths_of
from .filters import choice_of, filtered
from .output import Output, numbered, tell
from .progress import bytes_moved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from ..byhand import Applied, Refused

SHOWN = ("type", "status", "run_at", "queue", "priority", "attempts")
_LONGEST = 60  # characters of a cell, where two are shown side by side


def edit(queue: Queue, given: "Namespace", out: Output) -> int:
    """Open an editor on a copy of jobs, and apply what was changed there."""
    import tempfile

    if given.ids and filtered(given):
        raise BadArgument("give ids or filters, one of the two")
    editors = list(_editors())
    folder = tempfile.mkdtemp(prefix="dbbasic-queue-")  # 0700
    try:
        return _edit(queue, given, out, os.path.join(folder, "jobs.tsv"), editors)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _edit(
    queue: Queue, given: "Namespace", out: Output, path: str, editors: "list[tuple[str, list[str]]]"
) -> int:
    from .. import byhand

    before = _copy(queue, given, path)
    if before is None:
        return 1
    ended = _run(editors, path)
    try:
        with open(path, "rb") as file:
            typed = file.read()
    except FileNotFoundError:
        typed = None
    if ended or typed is None:
        lost = "the editor left no file" if typed is None else ""
        kept = _kept(b"", typed) if typed not in (None, before) else None
        where = f"; what it saved is in {kept}" if kept else ""
        tell(f"{ended or lost}: nothing was applied{where}")
        return 2
    try:
        with out.progress("applying", bytes_moved("edit", queue.path)):
            done = byhand.apply(queue, before, typed)
    except BaseException:
        tell(f"what you typed is in {_kept(b'', typed)}")
        raise
    header = before.partition(b"\n")[0] + b"\n"
    texts = [one.text for one in done.refused if one.text]
    kept = _kept(header, b"".join(text + b"\n" for text in texts)) if texts else None
    _say(queue, out, done, kept)
    left_out = set(given.ids) - {row.split(b"\t", 1)[0].decode() for row in before.split(b"\n")}
    return 1 if done.refused or left_out else 0


def _copy(queue: Queue, given: "Namespace", path: str) -> bytes | None:
    """Write the chosen rows to a file and return them, None when there is nothing to edit."""
    from .. import byhand

    choice, kinds = choice_of(given), Kinds(queue)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        try:
            copied = byhand.copy(
                queue, file, ids=given.ids or None, wanted=lambda job: choice.matches(job, kinds)
            )
        except FileNotFoundError:
            tell(f"{queue.path}: there is no queue to edit")
            return None
    for id in copied.unknown:
        tell(f"no job has the id {id}")
    if copied.running:
        tell(f"{numbered(copied.running)} processing: left out")
    if not copied.rows and (given.ids or filtered(given)):
        if not copied.unknown and not copied.running:
            tell("no job is like that")
        return None
    with open(path, "rb") as file:
        return file.read()


# --- the editor


def _editors() -> "Iterator[tuple[str, list[str]]]":
    """Yield what to try, and its words: what the environment says, else what is usually there."""
    import shlex

    for name in ("VISUAL", "EDITOR"):
        text = os.environ.get(name, "")
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise BadArgument(f"${name} is {text!r:.80}, which has no end: {error}") from None
        if words:
            yield f"${name} {text!r:.80}", words
            return
    yield "editor", ["editor"]
    yield "vi", ["vi"]


def _run(editors: "list[tuple[str, list[str]]]", path: str) -> str:
    """Run the first editor that is there; return how it ended, "" when all is well."""
    import subprocess

    tried: list[str] = []
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if in_main and before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *given: None)  # Ctrl-C is the editor's own
    try:
        for name, words in editors:
            try:
                # a screen that is piped away is drawn on stderr
                status = subprocess.call([*words, path], stdout=None if os.isatty(1) else 2)
            except OSError as error:
                tried.append(f"{name} ({error.strerror})")
                continue
            if status < 0:
                return f"the editor was ended by signal {-status}"
            return f"the editor ended with status {status}" if status else ""
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
    names = " and ".join(tried)
    raise BadArgument(f"no editor can be started: tried {names}; set $VISUAL or $EDITOR to one")


def _kept(header: bytes, lines: bytes) -> str:
    """Keep lines in a file that only their author can read, and return its path."""
    import tempfile

    fd, path = tempfile.mkstemp(prefix="dbbasic-queue-", suffix=".tsv")
    with open(fd, "wb") as file:
        file.write(header + lines)
    return path


# --- what became of it


def _say(queue: Queue, out: Output, done: "Applied", kept: str | None) -> None:
    moves = {"changed": done.changed, "deleted": done.deleted, "added": done.added}
    if out.json:
        refused = [{"id": one.id, "line": one.line, "why": one.why} for one in done.refused]
        out.document({**moves, "refused": refused, "file": queue.path, "kept": kept})
    elif not any(moves.values()) and not done.refused:
        out.line(f"nothing changed in {queue.path}")
    for what, ids in () if out.json else moves.items():
        for id in ids:
            out.line(f"{what} {id}")
    for id in done.cancelled:
        tell(f"job {id} is cancelled now: it waited for one of these and can never run")
    for one in done.refused:
        _tell_refused(queue, one)
    if kept:
        tell(f"{numbered(sum(one.text != b'' for one in done.refused), 'line')} kept in {kept}")


def _tell_refused(queue: Queue, one: "Refused") -> None:
    job = queue.get(one.id)
    hides = job is None or bool(paths_of(job))  # a terminal is no place for what is sensitive
    where = [f"line {one.line}"] * bool(one.line) + [f"job {one.id}"] * bool(one.id)
    tell(f"{', '.join(where)}: not applied: {one.why}")
    for column, theirs, yours in one.cells:
        if hides and column not in SHOWN:
            theirs = yours = HIDDEN
        tell(f"    {column}: theirs {_short(theirs)} / yours {_short(yours)}", name="")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
