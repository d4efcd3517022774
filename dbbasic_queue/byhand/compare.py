"""What was typed: two texts compared line by line, before any lock is taken.

A line belongs to the row whose id it begins with; the order of the lines says nothing.
"""

from bisect import bisect_left, bisect_right

from ..errors import BadArgument
from ..tsv import CONTRACT, parse_header, visible
from .cells import changed_cells, new_row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..job import Job
    from ..tsv import Header


class Refused:
    """Something that was typed and not applied: the job's id, the line's number, and why.

    `text` is the line; `line` is None for a row whose line was deleted.  `cells` are, for a row
    that was changed meanwhile, (column, as the queue has it, as it was typed) where the two differ.
    """

    __slots__ = ("cells", "id", "line", "text", "why")

    def __init__(self, id: bytes, line: int | None, text: bytes, why: str) -> None:
        self.id = visible(id.decode(errors="replace"))
        self.line = line
        self.text = text
        self.why = why
        self.cells: list[tuple[str, str, str]] = []


class Change:
    """A row of the copy that is to have other cells, or (without a line) is to go."""

    __slots__ = ("before", "cells", "line", "text")

    def __init__(
        self, before: list[bytes], line: int | None, text: bytes, cells: dict[str, bytes]
    ) -> None:
        self.before = before  # its cells as the copy had them
        self.line = line
        self.text = text
        self.cells = cells  # those that differ, by column

    def refused(self, why: str) -> Refused:
        return Refused(self.before[0], self.line, self.text, why)


class Typed:
    """What is asked for, and what was refused without a look at the queue."""

    def __init__(self, header: "Header") -> None:
        self.header = header
        self.changed: list[Change] = []
        self.deleted: list[Change] = []
        self.new: list[tuple[int, bytes, Job]] = []  # number and text of the line, the job
        self.refused: list[Refused] = []


class _Lines:
    """The lines after the header, by whose they are."""

    def __init__(self, header: "Header", before: bytes, after: bytes) -> None:
        self.typed = Typed(header)
        self.rows: dict[bytes, bytes] = {}
        self.twice: dict[bytes, set[bytes]] = {}  # the rows of an id that the queue has twice
        for line in before.split(b"\n")[1:-1]:
            id = line.partition(b"\t")[0]
            if id in self.rows:
                self.twice.setdefault(id, {self.rows[id]}).add(line)
            self.rows[id] = line
        self.places: dict[bytes, list[tuple[int, bytes]]] = {}  # by id: number and text
        self.order: list[bytes] = []  # ids as the lines come, b"" for a line that is nobody's
        lines = after.split(b"\n")
        self.cut_off = lines[-1] != b""
        if self.cut_off and any(
            row[: len(lines[-1])] == lines[-1] != row for row in self.rows.values()
        ):
            self._lose(lines.pop(), len(lines) + 1, "is cut off")
        for number, line in enumerate(lines[1:], start=2):
            self._place(number, line)

    def _place(self, number: int, line: bytes) -> None:
        id = line.partition(b"\t")[0]
        if line.endswith(b"\r") and line != self.rows.get(id):  # an editor's line end
            line = line[:-1]
        if not line:
            return
        header = self.typed.header
        cells = line.split(b"\t")
        if len(cells) != header.width and (id or len(cells) != len(CONTRACT)):
            why = f"has {len(cells)} cells, where the header has {header.width}"
            self._lose(line, number, why + ": tabs between them, no spaces")
        elif not id:
            try:
                self.typed.new.append((number, line, new_row(header, cells)))
            except BadArgument as error:
                self._refuse(b"", number, line, str(error))
        elif id not in self.rows:
            why = "the copy has no row with this id: an id stays as it is, and a new job has none"
            self._refuse(id, number, line, why)
            self.order.append(b"")
        else:
            self.order.append(id)
            self.places.setdefault(id, []).append((number, line))

    def _lose(self, line: bytes, number: int, why: str) -> None:
        """Refuse a line that is no row; where its first word is an id, that row stays."""
        id = (line.split(None, 1) or [b""])[0]
        self._refuse(id, number, line, why)
        if id in self.rows:
            self.places.setdefault(id, [])
        self.order.append(id if id in self.rows else b"")

    def _refuse(self, id: bytes, number: int | None, line: bytes, why: str) -> None:
        self.typed.refused.append(Refused(id, number, line, why))

    def compare(self) -> Typed:
        for id, places in self.places.items():
            if id in self.twice or len(places) > 1:
                self._refuse_doubled(id, places)
            elif places and places[0][1] != self.rows[id]:
                self._change(id, *places[0])
        self._delete()
        return self.typed

    def _change(self, id: bytes, number: int, line: bytes) -> None:
        before = self.rows[id].split(b"\t")
        try:
            cells = changed_cells(self.typed.header, before, line.split(b"\t"))
            self.typed.changed.append(Change(before, number, line, cells))
        except BadArgument as error:
            self._refuse(id, number, line, str(error))

    def _refuse_doubled(self, id: bytes, places: list[tuple[int, bytes]]) -> None:
        """Of lines with one id that which is as it was is the row; the others are nobody's."""
        left = self.twice.get(id, {self.rows[id]}).copy()
        for number, line in places:
            if line in left:
                left.discard(line)
            else:
                self._refuse(id, number, line, "its id stands on several lines; a new job has none")

    def _delete(self) -> None:
        """A row without a line goes, unless a line that is nobody's may be its own."""
        at = {id: number for number, id in enumerate(self.rows)}
        missing = [id for id in self.rows if id not in self.places and id not in self.twice]
        kept = self._suspects([at[id] for id in missing], [at.get(id, -1) for id in self.order])
        for id in missing:
            if self.cut_off:
                self._refuse(id, None, b"", "not deleted: the last line has no end, was it cut?")
            elif at[id] in kept:
                why = "not deleted: a line whose id cannot be told may be its own"
                self._refuse(id, None, b"", why)
            else:
                self.typed.deleted.append(Change(self.rows[id].split(b"\t"), None, b"", {}))

    def _suspects(self, missing: list[int], order: list[int]) -> set[int]:
        """Return those missing rows that lay where now a line is nobody's (-1 in `order`)."""
        known = [at for at in order if at >= 0]
        if known != sorted(known):  # the lines were put in another order
            return set(missing) if -1 in order else set()
        found: set[int] = set()
        last, passed = -1, 0
        for at in order:
            if at >= 0:
                last, passed = at, passed + 1
                continue
            next = known[passed] if passed < len(known) else len(self.rows)
            found.update(missing[bisect_right(missing, last) : bisect_left(missing, next)])
        return found


def compare(before: bytes, after: bytes, path: str) -> Typed:
    """Return what differs; BadArgument, with nothing applied, when the header does."""
    head, typed = (text.partition(b"\n")[0] for text in (before, after))
    if typed.removesuffix(b"\r") != head:
        raise BadArgument("line 1 is not the header of the copy any more: nothing was applied")
    return _Lines(parse_header(head, path), before, after).compare()
