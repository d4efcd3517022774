"""A command as a payload: `{"argv": ["make", "-j4"], "cwd": "/src", "env": {"PATH": "/usr/bin"}}`.

Bytes that are no UTF-8 stand in it as Python has them in `sys.argv`, and come back as they were.
"""

import os
import shlex

from ..errors import BadArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Text = str | bytes | os.PathLike[str]

KEPT = ("PATH",)  # of the environment, unasked: what was found here is to be found there


class Command:
    """What is run, where, and what is added to the worker's environment."""

    __slots__ = ("argv", "cwd", "env")

    def __init__(self, argv: list[str], cwd: str, env: dict[str, str]) -> None:
        self.argv = argv
        self.cwd = cwd
        self.env = env


def as_payload(
    argv: "Iterable[Text]", cwd: "Text | None", env: "Mapping[str, str | None] | None"
) -> "dict[str, Any]":
    """Return the payload of a command; BadArgument when it is none."""
    if isinstance(argv, (str, bytes)) or not hasattr(argv, "__iter__"):
        text = "give a list of words; for a line of the shell ['sh', '-c', line]"
        raise BadArgument(f"argv={argv!r:.80}: {text}")
    try:
        words = [os.fsdecode(word) for word in argv]
        folder = os.path.abspath(os.fsdecode(cwd)) if cwd is not None else os.getcwd()
    except (TypeError, FileNotFoundError) as error:
        raise BadArgument(f"argv={argv!r:.80}, cwd={cwd!r:.80}: {error}") from None
    chosen = {name: os.environ[name] for name in KEPT if name in os.environ}
    for name, value in (env or {}).items():
        found = os.environ.get(name) if value is None else value
        if found is None:
            raise BadArgument(f"env={name!r:.80}: there is no such variable here")
        chosen[name] = found
    payload = {"argv": words, "cwd": folder, "env": chosen}
    read(payload)
    return payload


def read(payload: "Any") -> Command:
    """Return the command that a payload says; BadArgument when it says none."""
    given = payload if isinstance(payload, dict) else {}
    argv, cwd, env = given.get("argv"), given.get("cwd", "/"), given.get("env", {})
    if not isinstance(argv, list) or not argv or not all(map(_is_word, argv)) or not argv[0]:
        raise BadArgument(f"{argv!r:.80} is no command: argv is a list of words without NUL")
    if not _is_word(cwd) or not os.path.isabs(cwd):
        raise BadArgument(f"cwd={cwd!r:.80} is no absolute path")
    if not isinstance(env, dict) or not all(map(_is_word, (*env, *env.values()))):
        raise BadArgument(f"env={env!r:.80} is no mapping of names to texts without NUL")
    if bad := [name for name in env if not name or "=" in name]:
        raise BadArgument(f"env has {bad[0]!r:.80}, which is no name")
    return Command(argv, cwd, env)


def _is_word(value: object) -> bool:
    """Whether the kernel can take it as bytes."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a character
        return False
    return True


def line_of(payload: "Any") -> str:
    """Return a command as a line that a shell would read, "" when it is none."""
    try:
        return shlex.join(read(payload).argv)
    except BadArgument:
        return ""
