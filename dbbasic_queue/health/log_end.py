"""The end of a log: what a worker that could not begin has said last."""

import os
import re

from ..beside import open_regular
from ..tsv import visible

_TAIL = 1 << 16  # bytes that are read
_LONGEST = 300  # characters that are shown
# how Python names what ended it, at the beginning of a line: a handler's traceback is set in
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Group)(?::.*)?")


def last_words(path: str) -> str:
    """Return the last line of the last traceback in a log, else its last line; "" when empty.

    It is read from its end, and what is returned has no control character.  OSError when it cannot
    be read.
    """
    fd = open_regular(os.path.realpath(path), os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, _TAIL, max(0, size - _TAIL))
    finally:
        os.close(fd)
    lines = [line.rstrip() for line in data.decode(errors="replace").split("\n")]
    lines = [line for line in lines if line]
    for at in range(len(lines) - 1, -1, -1):
        if _RAISED.fullmatch(lines[at]):
            return _shown(lines[at])
        if lines[at].startswith("Traceback (most recent call last)"):
            raised = [line for line in lines[at + 1 :] if not line.startswith((" ", "\t"))]
            return _shown(raised[0] if raised else lines[-1])
    return _shown(lines[-1]) if lines else ""


def _shown(line: str) -> str:
    text = visible(line.strip())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
