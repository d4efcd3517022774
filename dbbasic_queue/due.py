"""The order of the due rows: a ticket for each, one number that sorts by (queue rank, priority,
run_at, position), with the number of the row's kind, its type and queue, behind.
"""

from array import array
from bisect import bisect_left, bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Bits of a ticket: 33 of the priority and 40 of the run_at above these.
AT = 62  # of position and kind
KIND = 18  # of the kind, 0 for none
SPOT, KINDS = (1 << AT) - 1, (1 << KIND) - 1


class Due:
    """Tickets in order: sixteen bytes for each, where many have their run_at in common."""

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._spots = array("q")  # position and kind, less `_base`
        self._base = 0

    def __len__(self) -> int:
        return len(self._spots)

    def in_order(self) -> "Iterator[tuple[int, int]]":
        """Yield the key of each ticket, and its spot: position and kind."""
        return zip(self._keys, map(self._base.__add__, self._spots), strict=True)

    def add(self, tickets: list[int]) -> None:
        """Take in further tickets, which mostly are the last ones."""
        new = sorted(tickets)
        if new and self._base:
            self._spots, self._base = array("q", map(self._base.__add__, self._spots)), 0
        if new and self._keys and new[0] < self._keys[-1] << AT | self._spots[-1]:
            if len(new) == 1:
                at = self._index(new[0])
                self._keys.insert(at, new[0] >> AT)
                self._spots.insert(at, new[0] & SPOT)
                return
            new = sorted([*(key << AT | spot for key, spot in self.in_order()), *new])
            self._keys, self._spots = [], array("q")
        last = self._keys[-1] if self._keys else -1
        self._keys += [last := key if (key := ticket >> AT) != last else last for ticket in new]
        self._spots.extend([ticket & SPOT for ticket in new])

    def _index(self, ticket: int) -> int:
        key = ticket >> AT
        low = bisect_left(self._keys, key)
        high = bisect_right(self._keys, key, low)
        return bisect_left(self._spots, ticket & SPOT, low, high)

    def remove(self, gone: set[int], among: int) -> None:
        """Forget the tickets of these positions, which are all among the first so many."""
        base = self._base
        left = [at for at, s in enumerate(self._spots[:among]) if s + base >> KIND not in gone]
        self._spots[:among] = array("q", [self._spots[at] for at in left])
        self._keys[:among] = [self._keys[at] for at in left]

    def move(self, starts: list[int], shifts: list[int]) -> None:
        """Follow the rows: what follows each of `starts` has moved."""
        last, total = starts[-1], shifts[-1]
        if not self._spots or min(self._spots) + self._base >> KIND > last:
            self._base += total << KIND  # mostly the order is the file's
        else:
            shift = [one << KIND for one in shifts]
            moved = [s + shift[bisect_left(starts, s >> KIND)] for _, s in self.in_order()]
            self._spots, self._base = array("q", moved), 0
