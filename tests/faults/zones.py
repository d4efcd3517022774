"""Schedules in every time zone that changes its clocks in a year, around each change.

First the slots themselves, against a walk over every minute.  Then eight processes tick at the same
moments of a clock that is moved: up to the change, over it, two hours back, and for another set of
schedules only after three days.  Each slot that is due then has run once, no other has run, and the
file has one unfinished row for each schedule.
"""

import collections
import multiprocessing
import os
import tempfile
import traceback
import zoneinfo
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import freezegun
from cronsim import CronSim

from dbbasic_queue import Queue, current_job, schedule
from dbbasic_queue.schedule.slots import Cron, zone_of

from .killed import MEMORY

UTC = timezone.utc
YEAR = 2026
MINUTE, HOUR, DAY = 60, 3600, 86400
WORKERS = 8
TOGETHER = 10  # zones that share a file
WHERE = ("default", "down")  # queues: the first is served all the time
# when the workers tick, in seconds from the change; at the end all queues
STEPS = (-HOUR, 0, 40 * MINUTE, -80 * MINUTE, 2 * HOUR, DAY + 5 * MINUTE)


class Change(NamedTuple):
    zone: str
    at: int  # the first second with the new offset
    by: int  # seconds that the clock jumps

    def crons(self):
        """A time of day in the gap or the doubled hour, one that most people mean, and hourly."""
        before = offset(self.at - 1, zone_of(self.zone))
        local = self.at + before + abs(self.by) // 2 + min(self.by, 0)
        inside = local % DAY // MINUTE
        return {
            "inside": f"{inside % 60} {inside // 60} * * *",
            "daily": "30 2 * * *",
            "hourly": "*/15 * * * *",
        }


class Tally(NamedTuple):
    zones: int
    changes: int
    slots: int
    runs: int
    violations: list


def offset(at, zone):
    return int(datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset().total_seconds())


def changes():
    """Every change of an offset in the year, of every zone there is."""
    begin = int(datetime(YEAR, 1, 1, tzinfo=UTC).timestamp())
    for name in sorted(zoneinfo.available_timezones() - {"localtime"}):
        zone, at = zone_of(name), begin
        while at < begin + 365 * DAY:
            if offset(at, zone) != offset(at + DAY, zone):
                low, high = at, at + DAY
                while high - low > 1:
                    middle = (low + high) // 2
                    if offset(middle, zone) == offset(at, zone):
                        low = middle
                    else:
                        high = middle
                yield Change(name, high, offset(high, zone) - offset(low, zone))
            at += DAY


# --- the slots


def wall(change, begin, end):
    """What the clock on the wall shows at each minute: (moment, its day, its minute of the day)."""
    zone = zone_of(change.zone)
    before, after = offset(begin, zone), offset(end, zone)
    assert offset(change.at - 1, zone) == before != after == offset(change.at, zone)
    for at in range(begin, end, MINUTE):
        local = at + (before if at < change.at else after)
        yield at, local // DAY, local % DAY // MINUTE


def walked(words, shown):
    """The slots of an expression, from what the clock shows."""
    minutes, hours = (field(text, top) for text, top in zip(words.split(), (60, 24), strict=False))
    if words.startswith("*"):
        return [at for at, _, minute in shown if minute % 60 in minutes and minute // 60 in hours]
    wanted, first = min(hours) * 60 + min(minutes), {}
    for at, day, minute in shown:
        if minute == wanted:  # the first one; where it does not come, the first after it
            first.setdefault(day, at)
    for day in {day for _, day, _ in shown} - first.keys():
        later = [at for at, its, minute in shown if (its, minute) > (day, wanted)]
        first.update({day: later[0]} if later else {})
    return sorted(first.values())


def field(text, top):
    if text.startswith("*/"):
        return range(0, top, int(text[2:]))
    return range(top) if text == "*" else [int(text)]


def check_slots(change, violations):
    """Compare the slots around a change, forward and backward, with the walk and with cronsim."""
    zone, count = zone_of(change.zone), 0
    begin, end = change.at - 2 * DAY, change.at + 2 * DAY
    walks, shown = {}, list(wall(change, begin - DAY, end + DAY))
    for name, words in change.crons().items():
        expected = [at for at in walked(words, shown) if begin <= at < end]
        walks[name] = expected
        cron, at, ahead, back = Cron(words, zone), begin - 1, [], []
        while (at := cron.after(at)) < end:
            ahead.append(at)
        at = end - 1
        while (at := cron.last(at, begin - 1)) >= begin:
            back.append(at)
            at -= 1
        theirs = []
        for local in CronSim(words, datetime.fromtimestamp(begin - DAY, UTC).astimezone(zone)):
            if local.timestamp() >= end:
                break
            theirs.append(int(local.timestamp()))
        theirs = [at for at in theirs if at >= begin]
        for who, found in ("ahead", ahead), ("back", back[::-1]), ("cronsim", theirs):
            if found != expected:
                wrong = sorted(set(found) ^ set(expected)) or found
                violations.append(f"{change.zone} {words} {who}: {list(map(utc, wrong))[:5]}")
        count += len(expected)
    return walks, count


def utc(at):
    return moment(at).isoformat()


# --- the runs


def groups(cases):
    """Changes that come at the same moment, at most TOGETHER: they share a file."""
    found = collections.defaultdict(list)
    for change in cases:
        found[change.at].append(change)
    for several in found.values():
        yield from (several[at : at + TOGETHER] for at in range(0, len(several), TOGETHER))


def name_of(change, kind, where):
    return f"{change.zone.replace('/', '.')}.{kind}.{where}"


def declare(change, queue):
    """Declare each kind twice: in the queue that is served all the time, and in the other."""
    for kind, words in [*change.crons().items(), ("every", None)]:
        how = {"cron": words} if words else {"every": 20 * MINUTE}
        for where in WHERE:
            schedule.add_schedule(
                name_of(change, kind, where), "note", tz=change.zone, queue=where,
                queue_file=queue, **how,
            )  # fmt: skip


def expected_runs(change, walks):
    """The slots that are to run at each kind: at a tick the last one that is due."""
    begin = change.at - 2 * DAY
    walks = {**walks, "every": list(range(begin + 20 * MINUTE, change.at + 2 * DAY, 20 * MINUTE))}
    found = collections.Counter()
    for kind, slots in walks.items():
        slots = [at for at in slots if at > begin]
        for where, steps in zip(WHERE, (STEPS, STEPS[-1:]), strict=True):
            done = begin
            for now in (change.at + step for step in steps):
                due = [at for at in slots if done < at <= now]
                if due:
                    found[name_of(change, kind, where), due[-1]] += 1
                    done = now
    return found


def work(cases, folder, barrier):
    """One of the workers: all cases, at each step together with the others."""
    with freezegun.freeze_time() as clock:
        for number, several in enumerate(cases):
            queue, at = Queue(folder / str(number) / "queue.tsv", sync="off"), several[0].at
            handlers = schedule.serving({"note": note_in(folder / str(number) / "effects")})
            clock.move_to(moment(at - 2 * DAY))
            if barrier.wait() == 0:
                for change in several:
                    declare(change, queue)
            for step in STEPS:
                barrier.wait()
                clock.move_to(moment(at + step))
                served = None if step == STEPS[-1] else ["default"]
                queue.process_jobs(handlers, queues=served, max_workers=99)


def note_in(effects):
    """The handler: it writes down its schedule, its slot and who it is."""

    def note(payload):
        name, at = current_job().cell("unique").split("@")[0], int(schedule.slot().timestamp())
        fd = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{name} {at} {os.getpid()}\n".encode())
        os.close(fd)

    return note


def moment(at):
    return datetime(1970, 1, 1) + timedelta(seconds=at)


def run_workers(cases, folder):
    """Fork the workers and wait for them; return what went wrong in them."""
    barrier = multiprocessing.get_context("fork").Barrier(WORKERS)
    children, wrong = [], []
    for _ in range(WORKERS):
        pid = os.fork()
        if pid:
            children.append(pid)
            continue
        status = 1
        try:
            work(cases, folder, barrier)
            status = 0
        except BaseException:
            (folder / f"error-{os.getpid()}").write_text(traceback.format_exc())
            barrier.abort()
        finally:
            os._exit(status)
    for pid in children:
        _, status = os.waitpid(pid, 0)
        if status:
            wrong.append(f"worker {pid} ended with {status}")
    return wrong + [path.read_text() for path in folder.glob("error-*")]


def check_group(several, folder, expected, violations):
    """Judge a file by what the handlers wrote down, and by its rows."""
    lines = [line.split() for line in (folder / "effects").read_text().splitlines()]
    ran = collections.Counter((name, int(at)) for name, at, _ in lines)
    for name, at in sorted((ran - expected) + (expected - ran)):
        how_often = f"ran {ran[name, at]} times, not {expected[name, at]}"
        violations.append(f"{name}: the slot {utc(at)} {how_often}")
    jobs = list(Queue(folder / "queue.tsv").jobs())
    cells = collections.Counter((job.type, job.cell("unique")) for job in jobs)
    left = sorted(
        job.payload["schedule"] for job in jobs if job.type == "schedule" and not job.finished
    )
    wanted = sorted(
        name_of(change, kind, where)
        for change in several
        for kind in (*change.crons(), "every")
        for where in WHERE
    )
    wrong = [cell for cell, count in cells.items() if count > 1]
    wrong += [job.id for job in jobs if job.status in ("failed", "cancelled", "processing")]
    if wrong or left != wanted:
        violations.append(f"{several[0].zone} {utc(several[0].at)}: {wrong} {left}")
    return sum(ran.values()), {pid for _, _, pid in lines}


def campaign():
    """Check all zones; return a tally."""
    violations, slots, runs, busy = [], 0, 0, set()
    cases = list(changes())
    expected = {}
    for change in cases:
        walks, count = check_slots(change, violations)
        slots += count
        expected[change] = expected_runs(change, walks)
    together = list(groups(cases))
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        for number in range(len(together)):
            (folder / str(number)).mkdir()
        violations += run_workers(together, folder)
        for number, several in enumerate(together):
            wanted = sum((expected[change] for change in several), collections.Counter())
            ran, pids = check_group(several, folder / str(number), wanted, violations)
            runs += ran
            busy |= pids
    if len(busy) < WORKERS:
        violations.append(f"only {len(busy)} of {WORKERS} workers ever ran a job")
    return Tally(len({one.zone for one in cases}), len(cases), slots, runs, violations)
