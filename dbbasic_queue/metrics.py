"""The figures of a queue as Prometheus reads them: a text, a file, a collector.

    * * * * *  dbbasic-queue --file /app/data/queue.tsv metrics --out /var/lib/node_exporter/q.prom

All are gauges, also what a counter would be elsewhere: they are counted from the rows, and a row
can be retried or purged.  What cannot be told is left out.
"""

import os
import tempfile
import time
from typing import NamedTuple

from .errors import BadArgument, QueueError
from .here import queue_here
from .show import visible
from .stats import Figures, stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from . import Queue

    Labels = Mapping[str, str]
    Sample = tuple[Labels, float]
    Times = Mapping[str, Any] | None
    Untold = tuple[Labels, float | None]

PREFIX = "dbbasic_queue_"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_TAKEN = frozenset(("queue", "type", "status", "quantile", "worker"))
_KINDS = {
    "due": "jobs that a worker could start now",
    "scheduled": "jobs whose time has not come",
    "retrying": "jobs that wait for another attempt",
    "waiting": "jobs that wait for other jobs",
    "processing": "jobs that a worker has claimed",
    "stuck": "jobs whose worker lives no more: the next tick takes them in",
}
_QUANTILES = {"0.5": "p50", "0.95": "p95"}


class Family(NamedTuple):
    """One metric: its name without the prefix, what it says, and its samples."""

    name: str
    help: str
    samples: "list[Sample]"
    kind: str = "gauge"


def text(queue_file: "Queue | None" = None, *, labels: "Labels | None" = None) -> str:
    """Return the figures in the text format that Prometheus scrapes, version 0.0.4.

    `labels` stand at every sample: give one to each of several files that one server reads.
    """
    labels = _checked(labels)
    lines = []
    for family in families(stats(queue_file=queue_here(queue_file))):
        if family.samples:
            name = PREFIX + family.name
            lines += [f"# HELP {name} {family.help}.", f"# TYPE {name} {family.kind}"]
            for own, value in family.samples:
                lines.append(f"{name}{_braces({**labels, **own})} {value}")
    return "\n".join(lines) + "\n"


def write(
    path: "str | os.PathLike[str]",
    queue_file: "Queue | None" = None,
    *,
    labels: "Labels | None" = None,
) -> None:
    """Write the text to a file that others read: whole, by rename, readable by everybody.

    For the textfile collector of node_exporter the name ends in .prom.
    """
    data = text(queue_file, labels=labels).encode()
    path = os.path.abspath(os.fspath(path))
    folder, name = os.path.split(path)
    fd, new = tempfile.mkstemp(".tmp", f".{name}.", folder)  # no .prom: nobody reads it yet
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


class Collector:
    """What prometheus_client asks at each scrape; it reads only what has changed since the last.

    A file that cannot be read gives `dbbasic_queue_up 0`, and spoils no other collector's scrape.
    """

    def __init__(self, queue_file: "Queue | None" = None, labels: "Labels | None" = None) -> None:
        self._figures = Figures(queue_here(queue_file))
        self._labels = _checked(labels)

    def describe(self) -> "list[Any]":
        """Nothing: a collector can be registered before there is a queue."""
        return []

    def collect(self) -> "Iterator[Any]":
        """Yield the metrics of now."""
        from prometheus_client import Metric

        try:
            found = list(families(self._figures.look()))
        except (QueueError, OSError):
            found = [_up(0)]
        for family in found:
            metric = Metric(PREFIX + family.name, f"{family.help}.", family.kind)
            for labels, value in family.samples:
                own = {name: visible(text) for name, text in labels.items()}
                metric.add_sample(metric.name, {**self._labels, **own}, value)
            if family.samples:
                yield metric


def collector(queue_file: "Queue | None" = None, *, labels: "Labels | None" = None) -> Collector:
    """Return a collector: `prometheus_client.REGISTRY.register(collector())`.

    Needs the extra `metrics`: pip install 'dbbasic-queue[metrics]'.
    """
    import prometheus_client  # noqa: F401 (missing, it is missed here and not at a scrape)

    return Collector(queue_file, labels)


# --- which


def families(found: "dict[str, Any]") -> "Iterator[Family]":
    """Yield the metrics that the figures of `stats` make."""
    yield _up(1)
    yield _table("jobs", "jobs in the file, by queue and status", "queue", found["queues"])
    yield _table("type_jobs", "jobs in the file, by type and status", "type", found["types"])
    queues = found["by_queue"]
    for kind, what in _KINDS.items():
        yield _each(kind, what, "queue", {label: one[kind] for label, one in queues.items()})
    ages = {label: one["oldest_due_age"] or 0.0 for label, one in queues.items()}
    yield _each("oldest_due_age_seconds", "for how long the oldest due job is due", "queue", ages)
    paused = dict.fromkeys(found["paused"] or (), 1)
    yield _each("paused", "queues that no worker takes jobs of", "queue", paused)
    tick = found["last_tick_age"]
    yield _one("last_tick_age_seconds", "since a tick has ended", tick)
    at = None if tick is None else round(time.time() - tick, 3)
    yield _one("last_tick_timestamp_seconds", "when the last tick ended, as Unix time", at)
    yield _one("workers", "workers that live", found["workers"])
    yield _one("uptime_seconds", "for how long the oldest live worker lives", found["uptime"])
    yield _busy(found["by_worker"])
    words = "in the file and its archive; a retry or a purge lowers it"
    yield _one("processed_jobs", f"jobs that have completed or failed, {words}", found["processed"])
    yield _one("failed_jobs", f"jobs that have failed, {words}", found["failed_ever"])
    yield _one("archived_jobs", "jobs in the archive", found["archived"])
    yield _one("finished_per_minute", "jobs finished per minute in the last hour", found["rate"])
    of = f"of the jobs that finished in the last {found['window'] // 3600:.0f} hours"
    yield _summary("run_seconds", f"how long a run took, {of}", [({}, found["run_time"])])
    yield _summary("wait_seconds", f"from due to started, {of}", [({}, found["wait_time"])])
    for name, times in (("run", found["run_time"]), ("wait", found["wait_time"])):
        average = times and times["average"]
        yield _one(f"{name}_seconds_average", f"the average of {name}_seconds", average)
    types = found["by_type"]
    runs: list[tuple[Labels, Times]] = [({"type": type}, one) for type, one in types.items()]
    yield _summary("type_run_seconds", f"how long a run took by type, {of}", runs)
    yield _one("success_ratio", f"completed of completed and failed, {of}", found["success_rate"])
    rates = {type: one["success_rate"] for type, one in types.items()}
    yield _each("type_success_ratio", f"the success ratio by type, {of}", "type", rates)
    yield _one("bad_lines", "lines that are no rows: see doctor", found["bad_lines"])


def _up(value: int) -> Family:
    return Family("up", "1 when the queue file could be read", [({}, value)])


def _one(name: str, help: str, value: float | None) -> Family:
    return Family(name, help, _told([({}, value)]))


def _each(name: str, help: str, label: str, values: "Mapping[str, float | None]") -> Family:
    return Family(name, help, _told(({label: one}, value) for one, value in values.items()))


def _table(name: str, help: str, label: str, table: "Mapping[str, Mapping[str, int]]") -> Family:
    return Family(name, help, [
        ({label: one, "status": status}, count)
        for one, counts in table.items()
        for status, count in counts.items()
    ])  # fmt: skip


def _summary(name: str, help: str, of: "Iterable[tuple[Labels, Times]]") -> Family:
    return Family(name, help, _told(
        ({**labels, "quantile": quantile}, times[key])
        for labels, times in of
        if times
        for quantile, key in _QUANTILES.items()
    ), "summary")  # fmt: skip


def _busy(workers: "Iterable[Mapping[str, Any]]") -> Family:
    """Return the busy share by a worker's name: an id is new at each tick."""
    shares: dict[str, list[float]] = {}
    for worker in workers:
        shares.setdefault(worker["name"] or "", []).append(worker["busy"])
    averages = {name: sum(each) / len(each) for name, each in shares.items()}
    what = "the share of its life, 0 to 1, that a live worker has run jobs; the average by name"
    return _each("worker_busy_ratio", what, "worker", averages)


def _told(samples: "Iterable[Untold]") -> "list[Sample]":
    return [(labels, value) for labels, value in samples if value is not None]


# --- how they are written


def _checked(labels: "Labels | None") -> "dict[str, str]":
    for name, value in (labels or {}).items():
        good = name and _NAME.issuperset(name) and not name[0].isdigit() and name[:2] != "__"
        if not good or name in _TAKEN or not isinstance(value, str):
            raise BadArgument(f"labels={{{name!r:.80}: {value!r:.80}}}: no label of this name")
    return dict(labels or {})


def _braces(labels: "Labels") -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(value: str) -> str:
    """Return a label's value that ends neither the quotes nor the line, whatever is in it."""
    plain = visible(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return plain.encode(errors="replace").decode()
