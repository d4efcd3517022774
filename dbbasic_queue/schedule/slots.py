"""Slots: the moments at which a schedule is to run, in whole Unix seconds, and the zones' names.

A cron expression means what Debian's cron makes of it where clocks change: a time of day that does
not exist comes as the first minute after the gap, one that exists twice comes the first time, and
where the minute or the hour begins with `*`, all that the clock shows counts.  The slots of a local
day are computed as a whole, so they do not depend on where one begins to look.
"""

import os
from datetime import date, datetime, timedelta, timezone
from math import ceil

from ..errors import BadArgument
from ..new import unix_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo
    from typing import Any

    Step = tuple[int, int | None]

NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
DAY = 86400
_EPOCH = date(1970, 1, 1).toordinal()
_LAST = date.max.toordinal() - 3
_FARTHEST = 50 * 366  # days: what has no slot in them has none


# --- zones and texts


def zone_of(name: str) -> "tzinfo":
    """Return the time zone of an IANA name; BadArgument when there is none."""
    if name == "UTC":
        return timezone.utc
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError, TypeError):
        raise BadArgument(
            f"tz={name!r:.80} is no time zone here: give a name such as Europe/Berlin"
            " (where the system has no time zones, `pip install tzdata` brings them)"
        ) from None


def machine_zone() -> str:
    """Return the name of this machine's zone: $TZ, /etc/localtime, /etc/timezone, else UTC."""
    names = [os.environ.get("TZ", "").lstrip(":")]
    try:
        names.append(os.readlink("/etc/localtime"))
    except OSError:
        pass
    try:
        with open("/etc/timezone", encoding="utf-8") as file:
            names.append(file.readline())
    except (OSError, ValueError):
        pass
    for name in names:
        name = name.rpartition("zoneinfo/")[2].strip()
        try:
            if name:
                zone_of(name)
                return name
        except BadArgument:
            continue
    return "UTC"


def text_of(slot: int) -> str:
    """Return a slot as it stands in a row: 2026-03-29T01:00:00Z."""
    return f"{datetime_of(slot, timezone.utc):%Y-%m-%dT%H:%M:%S}Z"


def slot_of(text: str) -> int:
    """Return the slot of such a text; ValueError when it is none."""
    at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    return (at.toordinal() - _EPOCH) * DAY + at.hour * 3600 + at.minute * 60 + at.second


def datetime_of(slot: int, zone: "tzinfo") -> datetime:
    """Return a slot as an aware datetime, with its `fold`, which a frozen clock's would lack.

    It is in UTC where the zone's own year is beyond 9999 already.
    """
    try:
        return zone.fromutc(datetime(1970, 1, 1, tzinfo=zone) + timedelta(seconds=slot))
    except OverflowError:
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=slot)


# --- the three kinds


class Cron:
    """The slots of a cron expression of five fields in a zone."""

    def __init__(self, words: str, zone: "tzinfo") -> None:
        try:
            from cronsim import CronSim, CronSimError
        except ImportError:
            raise BadArgument(
                f"cron={words!r:.80} needs cronsim: pip install 'dbbasic-queue[cron]'"
            ) from None
        fields = NAMED.get(words, words).split()
        if len(fields) != 5:
            raise BadArgument(
                f"cron={words!r:.80} has {len(fields)} fields, not five: minute, hour, day, month,"
                " weekday (for seconds there is every=)"
            )
        try:
            self._days = CronSim(" ".join(fields), datetime(2000, 1, 1))
        except CronSimError as problem:
            raise BadArgument(f"cron={words!r:.80} cannot fire: {problem}") from None
        self._zone = zone
        self._times = [h * 60 + m for h in self._days.hours for m in self._days.minutes]
        self._times.sort()
        self._known: dict[int, list[int]] = {}
        self._all = fields[0].startswith("*") or fields[1].startswith("*")

    def after(self, at: int) -> int | None:
        """Return the first slot after a moment, None when there is none in fifty years."""
        first = at // DAY + _EPOCH - 2
        for ordinal in range(first, min(first + _FARTHEST, _LAST)):
            for slot in self._slots(ordinal):
                if slot > at:
                    return slot
        return None

    def last(self, at: int, since: int) -> int:
        """Return the last slot until a moment, but none before `since`, which is one."""
        for ordinal in range(at // DAY + _EPOCH + 2, since // DAY + _EPOCH - 2, -1):
            for slot in reversed(self._slots(ordinal)):
                if slot <= at:
                    return max(slot, since)
        return since

    def step(self, slot: int, now: int) -> "Step":
        latest = self.last(now, slot)
        return latest, self.after(max(now, latest))

    def _slots(self, ordinal: int) -> list[int]:
        """Return the slots of a local day, rising."""
        day = date.fromordinal(ordinal)
        if day.month not in self._days.months or not self._days.match_day(day):
            return []
        if ordinal not in self._known:
            if len(self._known) > 8:
                self._known.clear()
            self._known[ordinal] = self._of_day(ordinal)
        return self._known[ordinal]

    def _of_day(self, ordinal: int) -> list[int]:
        midnight = (ordinal - _EPOCH) * DAY
        offset = self._offset(ordinal, 0)
        if offset == self._offset(ordinal, 0, 1) == self._offset(ordinal + 1, 0):
            return [midnight + minute * 60 - offset for minute in self._times]
        found = set()
        for minute in self._times:
            before, then = self._offset(ordinal, minute), self._offset(ordinal, minute, 1)
            if before >= then:
                found.add(midnight + minute * 60 - before)
            if before > then and self._all:  # the clock shows it twice
                found.add(midnight + minute * 60 - then)
            if before < then and not self._all:  # the clock does not show it
                while self._offset(ordinal, minute) < self._offset(ordinal, minute, 1):
                    minute += 1
                found.add(midnight + minute * 60 - self._offset(ordinal, minute))
        return sorted(found)

    def _offset(self, ordinal: int, minute: int, fold: int = 0) -> int:
        """Return the seconds that the zone is ahead; with fold 1, after a change of the clock."""
        day = date.fromordinal(ordinal + minute // 1440)
        hour, minute = divmod(minute % 1440, 60)
        at = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self._zone, fold=fold)
        offset: Any = self._zone.utcoffset(at)
        return int(offset.total_seconds())


class Every:
    """A slot every so many seconds from a first one on."""

    def __init__(self, seconds: int, first: int) -> None:
        self._seconds = seconds
        self._first = first

    def after(self, at: int) -> int:
        if at < self._first:
            return self._first
        return at + self._seconds - (at - self._first) % self._seconds

    def step(self, slot: int, now: int) -> "Step":
        latest = slot
        if now >= self._first:
            latest = max(slot, now - (now - self._first) % self._seconds)
        return latest, self.after(max(now, latest))


class Called:
    """Slots of which each is what the user's function says to the one before."""

    def __init__(self, name: str, function: "Callable[..., Any]", zone: "tzinfo") -> None:
        self._name = name
        self._function = function
        self._zone = zone

    def after(self, slot: int) -> int | None:
        """Return the slot after another; BadArgument when the function's answer is none."""
        said = self._function(datetime_of(slot, self._zone))
        if said is None:
            return None
        try:
            following = ceil(unix_time(said)) if not hasattr(said, "total_seconds") else slot
        except BadArgument as problem:
            raise BadArgument(f"next={self._name!r}: {problem}") from None
        if following <= slot:
            raise BadArgument(
                f"next={self._name!r} said {said!r:.80} for the slot {text_of(slot)}, which is not"
                " later: it is to return an aware datetime or Unix seconds after it, or None"
            )
        return following

    def step(self, slot: int, now: int) -> "Step":
        while (following := self.after(slot)) is not None and following <= now:
            slot = following
        return slot, following
