"""The wait for the lock of one queue file, as a model: `python tests/benchmarks/lock_model.py`.

Events in order of time, seeded arrivals, no sleeping: the same parameters print the same table.
Producers append under the lock; one worker folds and claims in edits that cost the whole file.
"""

import argparse
import heapq
import math
import random
from typing import NamedTuple

NAP, LARGEST_CLAIM = 0.1, 20_000  # of an idle worker; as in worker.py
DAY = 86400
HOUR = 1 / 24  # of a day
ABOVE = 1.0  # seconds, the bound that is asked for
MOST = 10_000.0  # jobs a second: no further is looked


class Costs(NamedTuple):
    """What how_far.py measures, in ms; MB are 10**6 bytes."""

    enqueue: float = 0.3
    edit: float = 3.0
    edit_mb: float = 2.0  # for each MB of the file
    edit_row: float = 0.01  # for each row that is changed
    row: float = 200.0  # bytes
    message: float = 0.5  # to hand one job to an engine

    def edit_seconds(self, mb, changed=0):
        return (self.edit + self.edit_mb * mb + self.edit_row * changed) / 1000

    def mb(self, rate, days):
        return rate * DAY * days * self.row / 1e6


class Found(NamedTuple):
    calls: list  # seconds of each enqueue, in order of length
    delays: list  # from the call to the start of the job
    edits: float  # share of the time that an edit has the lock


class Model:
    """One lock, and processes that are generators: they yield a time, LOCK or NEWS."""

    LOCK, NEWS = "lock", "news"

    def __init__(self, costs, mb, seed=0):
        self.costs, self.mb = costs, mb
        self.random = random.Random(seed)
        self.now, self.events, self.number = 0.0, [], 0
        self.free, self.waiting, self.idle = True, [], []
        self.due, self.calls, self.delays, self.edits = [], [], [], 0.0

    def run(self, processes):
        for process in processes:
            self._go_on(process)
        while self.events:
            self.now, _, process, waits_since = heapq.heappop(self.events)
            if waits_since is None or self.free:
                self.free = self.free and waits_since is None
                self._go_on(process)
            else:
                self.waiting.append((waits_since, process))

    def _go_on(self, process):
        """Run a process up to where it waits for something."""
        wants = next(process, None)
        if wants is Model.LOCK and not self.free:
            self.waiting.append((self.now, process))
        elif wants is Model.LOCK:
            self.free = False
            self._at(self.now, process)
        elif wants is Model.NEWS:
            self.idle.append((self.now, process))
        elif wants is not None:
            self._at(wants, process)

    def _at(self, when, process, waits_since=None):
        self.number += 1
        heapq.heappush(self.events, (when, self.number, process, waits_since))

    def _release(self):
        """Who waits looks again after its nap: 0.2 ms, doubled each time up to 5 ms, ± a half."""
        self.free = True
        for since, process in self.waiting:
            nap = min(0.005, max(0.0002, (self.now - since) / 2)) * self.random.uniform(0.5, 1.5)
            self._at(self.now + self.random.random() * nap, process, since)
        self.waiting = []

    def _tell(self):
        """A worker that has nothing to do looks each 0.1 s whether the file is another one."""
        for since, process in self.idle:
            self._at(since + NAP * math.ceil((self.now - since) / NAP + 1e-9), process)
        self.idle = []

    def producer(self, arrivals):
        for arrival in arrivals:
            if arrival > self.now:
                yield arrival
            begun = self.now
            yield Model.LOCK
            yield self.now + self.costs.enqueue / 1000
            self.calls.append(self.now - begun)
            self.due.append(begun)
            self._release()
            self._tell()

    def worker(self, handler, jobs):
        size, finished = 1, 0
        while len(self.delays) < jobs:
            yield Model.LOCK
            claimed, self.due = self.due[:size], self.due[size:]
            took = self.costs.edit_seconds(self.mb, len(claimed) + finished)
            self.edits += took
            yield self.now + took
            self._release()
            began, finished = self.now, len(claimed)
            for call in claimed:
                self.delays.append(self.now - call)
                yield self.now + handler
            if claimed:
                spent = max(self.now - began, 1e-6)
                grown = size * 64 if spent < 0.1 else LARGEST_CLAIM
                size = max(1, min(grown, int(finished / spent / 2), LARGEST_CLAIM))
            elif not self.due and len(self.delays) < jobs:
                yield Model.NEWS


def arrivals(rate, jobs, producers, seed=0):
    """Return for each producer when its calls are to begin: together they come at `rate`."""
    times, at, chance = [[] for _ in range(producers)], 0.0, random.Random(seed)
    for number in range(jobs):
        at += chance.expovariate(rate)
        times[number % producers].append(at)
    return times


def simulate(costs, mb, rate, *, jobs=2000, producers=32, handler=0.001, seed=0):
    """Return the calls and delays of `jobs` jobs that come at `rate` a second."""
    model = Model(costs, mb, seed)
    times = arrivals(rate, jobs, producers, seed)
    model.run([*map(model.producer, times), model.worker(handler, jobs)])
    return Found(sorted(model.calls), sorted(model.delays), model.edits / max(model.now, 1e-9))


def percentile(values, share):
    return values[min(len(values) - 1, int(share * len(values)))]


def most_rate(costs, days, of="calls", *, share=0.99, handler=0.001):
    """Return the least jobs a second at which the p99 of `calls` or `delays` is above a second.

    From small edits upwards: above it there may be rates that do better again, in batches.
    """

    def is_above(rate):
        found = simulate(costs, costs.mb(rate, days), rate, handler=handler)
        return percentile(getattr(found, of), share) > ABOVE

    rate = 0.05 / costs.edit_seconds(costs.mb(1, days))  # an edit takes some 50 ms
    while is_above(rate):
        rate /= 2
    while rate < MOST and not is_above(rate * 1.1):
        rate *= 1.1
    least, most = rate, rate * 1.1
    for _ in range(4):
        rate = (least + most) / 2
        least, most = (least, rate) if is_above(rate) else (rate, most)
    return least


def outbox(costs, days, batch):
    """Return the jobs a second that one file hands on, when each row is kept for so long.

    Each edit takes in a batch that has ended, and claims another, which is then sent.  The file
    grows with the rate, and an edit with the file.
    """
    least, most = 0.0, 1e6
    for _ in range(60):
        rate = (least + most) / 2
        edit = costs.edit_seconds(costs.mb(rate, days), 2 * batch)
        seconds = edit + batch * costs.message / 1000
        least, most = (rate, most) if batch / seconds > rate else (least, rate)
    return least


def outbox_table(costs, all_days=(HOUR, 1, 7), batch=1000):
    """Return lines of Markdown: how many jobs go through one outbox to other machines."""
    lines = ["| kept | at most | MB | one edit | 10 machines, each | 1,000 machines, each |"]
    lines.append("|---" * 6 + "|")
    for days in all_days:
        rate = outbox(costs, days, batch)
        mb, a_day = costs.mb(rate, days), rate * DAY
        cells = [
            kept(days), f"{two(rate):,} jobs/s", f"{two(mb):,}",
            f"{costs.edit_seconds(mb, 2 * batch):.2f} s",
            f"{two(a_day / 10):,} a day", f"{two(a_day / 1000):,} a day",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def table(costs, all_days=(HOUR, 1, 7, 30)):
    """Return lines of Markdown: for how long rows are kept, what one file and worker carry."""
    lines = [
        "| kept | p99 of delays is 1 s at | jobs a day | rows | MB | one edit"
        " | p99 of calls is 1 s at | of delays, handlers of 20 ms |",
        "|---" * 8 + "|",
    ]
    for days in all_days:
        rate, calls = most_rate(costs, days, "delays"), most_rate(costs, days)
        slower = most_rate(costs, days, "delays", handler=0.02)
        mb, rows = costs.mb(rate, days), rate * DAY * days
        cells = [
            kept(days), f"{rate:.3g} jobs/s", f"{two(rate * DAY):,}", f"{two(rows):,}",
            f"{two(mb):,}", f"{costs.edit_seconds(mb):.2f} s", f"{calls:.3g} jobs/s",
            f"{slower:.3g} jobs/s",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def kept(days):
    number, unit = (days, "day") if days >= 1 else (days * 24, "hour")
    return f"{number:g} {unit}{'s' * (number > 1)}"


def two(value):
    """Round to two figures: the model is no better than that."""
    return int(round(value, 1 - math.floor(math.log10(value)))) if value >= 1 else value


def main():
    told = "python tests/benchmarks/lock_model.py"
    parser = argparse.ArgumentParser(description=__doc__, prog=told, allow_abbrev=False)
    for name, value in Costs()._asdict().items():
        unit = "bytes" if name == "row" else "ms"
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value, help=unit)
    costs = Costs(**vars(parser.parse_args()))
    print("\n".join([*table(costs), "", *outbox_table(costs)]))


if __name__ == "__main__":
    main()
