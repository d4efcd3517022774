"""The user's crontab: one line for a worker in it, put in and taken out; all others stay."""

import os
import shlex
import subprocess
import sys

from ..errors import BadArgument, QueueError
from ..show import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = b" # dbbasic-queue"  # for sh it is a comment
_LONGEST = 998  # characters of a command: what is longer, cron cuts off or refuses
_NONE_YET = ("no crontab", "No such file")


def command(
    folder: str, words: "Sequence[str]", log: str, variables: "dict[str, str]"
) -> tuple[bytes, bytes, bytes]:
    """Return the line for these words of Python's, and by what it is known again."""
    place = b"cd " + _quoted(folder) + b" && "
    runs = b"".join(b" " + _quoted(word) for word in words)
    names = b"".join(b"%b=%b " % (name.encode(), _quoted(v)) for name, v in variables.items())
    what = place + names + _quoted(_python()) + runs + b" >> " + _quoted(log) + b" 2>&1" + MARK
    if len(what) > _LONGEST:
        raise BadArgument(f"the line would have {len(what)} characters: cron takes {_LONGEST}")
    return b"* * * * * " + what, b" " + place, runs + b" >> "


def _python() -> str:
    if not os.path.isabs(sys.executable or ""):
        raise BadArgument(f"this Python is {sys.executable!r}: start it by its absolute path")
    return sys.executable


def _quoted(text: str) -> bytes:
    """Return a word as sh wants it, and cron before it.

    Cron ends a command at a % that has no \\ before it, and not every cron reads \\\\ the same.
    """
    if not text.isprintable():
        raise BadArgument(f"{visible(text)!r:.200}: no crontab can hold such a name")
    parts = text.split("\\")
    quoted = "\"$(printf '\\134')\"".join(shlex.quote(part) if part else "" for part in parts)
    return (quoted or "''").replace("%", "\\%").encode()


def with_line(text: bytes, line: bytes, place: bytes, what: bytes) -> bytes:
    """Return a crontab that has the line once, in the place of an older one for the same."""
    lines = text.splitlines(keepends=True)
    kept = [one for one in lines if not is_ours(one, place, what)]
    old = next((n for n, one in enumerate(lines) if is_ours(one, place, what)), len(lines))
    if old == len(lines) and lines and not lines[-1].endswith(b"\n"):
        kept[-1] += b"\n"
    return b"".join([*kept[:old], line + b"\n", *kept[old:]])


def without(text: bytes, place: bytes, what: bytes) -> bytes:
    """Return a crontab without what was put in for a folder, and for one worker in it."""
    lines = text.splitlines(keepends=True)
    return b"".join(one for one in lines if not is_ours(one, place, what))


def is_ours(line: bytes, place: bytes, what: bytes) -> bool:
    """Whether we have put a line in, for this folder, and for this worker unless `what` is b""."""
    line = line.rstrip(b"\n")
    return line.endswith(MARK) and not line.startswith(b"#") and place in line and what in line


def read() -> bytes:
    """Return the user's crontab, b"" when there is none; QueueError when it cannot be read."""
    done = _call("-l")
    problem = done.stderr.decode(errors="replace").strip()
    if done.returncode and not any(words in problem for words in _NONE_YET):
        raise QueueError(f"crontab -l: {visible(problem) or f'status {done.returncode}'}")
    return b"" if done.returncode else done.stdout


def write(text: bytes) -> None:
    """Put a crontab in the place of the user's, and look whether it is there."""
    done = _call("-", text=text) if text else _call("-r")
    if done.returncode:
        problem = visible(done.stderr.decode(errors="replace").strip())
        raise QueueError(f"crontab: {problem or f'status {done.returncode}'}; nothing was changed")
    if read() != text:
        raise QueueError("crontab has taken the lines, and lists others: look with `crontab -l`")


def _call(*words: str, text: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            ["crontab", *words],
            input=text,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        raise QueueError(
            "there is no program crontab here: install cron, or use a timer of systemd"
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise QueueError(f"crontab: {error}") from error
