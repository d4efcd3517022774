"""HTML that cannot be injected into: whatever is not marked safe is escaped.

el("td", {"class": "id"}, job.id, el("b", "…"))  -> Safe.  Text among the children is escaped; None
and False are left out; an iterable gives all of its elements.
"""

import html

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_VOID = frozenset(("br", "hr", "img", "input", "link", "meta"))


class Safe(str):
    """A text that is HTML already."""

    __slots__ = ()


def el(tag: str, *inside: "Any") -> Safe:
    """Return an element; a mapping first gives its attributes: None and False leave one out."""
    attributes: Mapping[str, Any] = {}
    if inside and isinstance(inside[0], dict):
        attributes, *rest = inside
        inside = tuple(rest)
    begin = tag
    for name, value in attributes.items():
        if value is True:
            begin += f" {name}"
        elif value is not None and value is not False:
            begin += f' {name}="{html.escape(str(value))}"'
    return Safe(f"<{begin}>") if tag in _VOID else Safe(f"<{begin}>{join(*inside)}</{tag}>")


def join(*parts: "Any") -> Safe:
    """Return the parts one after the other, what is not safe escaped."""
    return Safe("".join(map(_text, parts)))


def _text(part: "Any") -> str:
    if part is None or part is False:
        return ""
    if isinstance(part, Safe):
        return part
    if isinstance(part, (str, int, float)):
        return html.escape(str(part))
    return join(*part)
