"""One thing that was found, and how bad it is."""

from ..tsv import visible

OK, NOTE, PROBLEM, UNKNOWN = "ok", "note", "problem", "unknown"


class Finding:
    """`about` is a word for the place; `line` is the number of a line of the file, else None."""

    __slots__ = ("about", "level", "line", "remedy", "text")

    def __init__(self, level: str, about: str, text: str, remedy: str, line: int | None) -> None:
        self.level = level
        self.about = about
        self.text = visible(text)
        self.remedy = visible(remedy)
        self.line = line

    def __repr__(self) -> str:
        return f"<Finding {self.level} {self.about}: {self.text}>"

    def as_dict(self) -> "dict[str, str | int | None]":
        return {name: getattr(self, name) for name in ("level", "about", "line", "text", "remedy")}


def ok(about: str, text: str) -> Finding:
    return Finding(OK, about, text, "", None)


def note(about: str, text: str, remedy: str = "") -> Finding:
    """Return what is worth knowing and hurts nobody."""
    return Finding(NOTE, about, text, remedy, None)


def problem(about: str, text: str, remedy: str, line: int | None = None) -> Finding:
    return Finding(PROBLEM, about, text, remedy, line)


def unknown(about: str, text: str, remedy: str = "") -> Finding:
    """Return what could not be looked at."""
    return Finding(UNKNOWN, about, text, remedy, None)
