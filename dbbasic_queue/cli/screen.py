"""What `top` shows: the figures, the workers, and the jobs that run, are due, or failed last."""

import os
import time
from itertools import islice

from .. import Job, Queue
from ..choose import Choice
from ..choose import jobs as chosen
from ..kinds import Kinds
from ..redact import masked
from ..shell import command_line
from ..show import row, span, visible
from ..stats import Figures
from .terminal import BOLD, DIM, REVERSE, cut, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .terminal import Line

MOST = 200  # jobs of each kind that are read
_MAY_COME = 5  # seconds after which a job that was for later is looked for
_HEAD = ("ID", "STATUS", "TYPE", "QUEUE", "TRY", "WHEN", "ERROR OR PAYLOAD")
_LOOKS = {"processing": "33", "failed": "31", "completed": "32", "cancelled": DIM}
_WORKERS_SHOWN = 3  # of the rows, one in so many at most is a worker's


class Scene:
    """What was read of a queue, and when; read again only when something has changed."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.text = ""  # only jobs with this in their payload or error
        self.jobs: list[Job] = []
        self.found: dict[str, Any] = {}
        self.read_at = 0.0
        self.took = 0.0  # seconds of the last reading
        self._figures = Figures(queue)
        self._version: tuple[str, str] | None = None
        self._rows: list[Job] = []  # of those that no worker runs
        self._seen: object = None  # what they were read from

    def refresh(self) -> bool:
        """Read what has changed; whether anything had."""
        version = (self._figures.version(), self.text)
        if version == self._version and not self._comes_due():
            return False
        begun = time.perf_counter()
        self.found = self._figures.look()
        self.read_at = time.time()
        self.jobs = self._read()
        self._version = version
        self.took = time.perf_counter() - begun
        return True

    def forget(self) -> None:
        """Read everything at the next refresh."""
        self._version = self._seen = None

    def _comes_due(self) -> bool:
        """Whether time alone may have made a job due."""
        later = self.found.get("scheduled") or self.found.get("retrying")
        return bool(later) and time.time() - self.read_at > _MAY_COME

    def _read(self) -> "list[Job]":
        found = self.found
        running: dict[str, Job] = {}
        for worker in found["by_worker"]:
            for id in worker["running"]:
                job = self.queue.get(id)
                if job is not None and job.status == "processing":
                    running[id] = job
        wanted, kinds = Choice(text=self.text or None), Kinds(self.queue)
        now = [job for job in running.values() if wanted.matches(job, kinds)]
        return now + self._resting()

    def _resting(self) -> "list[Job]":
        """Return the jobs that no worker runs; the rows are read when they may be others."""
        found = self.found
        counts = (found["stuck"], found["due"], found["statuses"]["failed"])
        seen = (_stamp(self.queue.path), counts, self.text)
        if seen == self._seen:
            return self._rows
        jobs: list[Job] = []
        for kind, count, newest in (
            ("stuck", found["stuck"], False),
            ("due", found["due"], False),
            ("failed", found["statuses"]["failed"], True),
        ):
            if count:
                choice = Choice(status=kind, text=self.text or None)
                most = MOST if self.text else min(count, MOST)
                jobs += islice(chosen(choice, self.queue, newest=newest), most)
        self._seen, self._rows = seen, jobs
        return jobs

    # --- lines

    def lines(self, columns: int, rows: int, cursor: int | None) -> "list[Line]":
        """Return the whole screen but its last line; `cursor` is the place of a job."""
        now = time.time()
        head = self.header(columns, now)
        workers = self.workers(columns, now)
        room = max(1, rows // _WORKERS_SHOWN)
        if len(workers) > room:
            more = len(workers) - room + 1
            workers = [*workers[: room - 1], [(f"… and {more} more", DIM)]]
        top = [*head, *([[]] if workers else []), *workers, []]
        return [*top, *self.table(columns, rows - len(top), cursor, now)]

    def header(self, columns: int, now: float) -> "list[Line]":
        """Return the figures, in as many lines as they need."""
        found = self.found
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        path = cut(found["file"], max(columns - 10, 1))
        space = " " * max(1, columns - width(path) - len(clock))
        counts = [(name, found[name]) for name in ("due", "scheduled", "retrying", "waiting")]
        counts += [("running", found["statuses"]["processing"] - found["stuck"])]
        counts += [("stuck", found["stuck"])]
        counts += [(name, found["statuses"][name]) for name in ("completed", "failed", "cancelled")]
        looks = {"stuck": "31", "failed": "31", "running": "33"}
        parts = [
            (f"{name} {count}", looks.get(name, "") if count else DIM) for name, count in counts
        ]
        since = now - self.read_at
        age, tick = found["oldest_due_age"], found["last_tick_age"]
        live = "?" if found["workers"] is None else str(found["workers"])
        more = [
            ("oldest due " + ("-" if age is None else span(age + since)), ""),
            ("last tick " + ("never" if tick is None else f"{span(tick + since)} ago"), ""),
            (f"workers {live}", ""),
            (f"{found['rate']:.3g} a minute", ""),
        ]
        if found["paused"]:
            more.append((f"paused {', '.join(found['paused'])}", "33"))
        if self.text:
            more.append((f"filter /{self.text}", BOLD))
        return [
            [(path, BOLD), (space + clock, "")],
            *_flowed(parts, columns),
            *_flowed(more, columns),
        ]

    def workers(self, columns: int, now: float) -> "list[Line]":
        """Return a line for each live worker, under their head."""
        types = {job.id: job.type for job in self.jobs}
        rows = []
        for worker in self.found["by_worker"]:
            runs = [
                f"{types.get(id, '')} {id} for {span(now - since)}".strip()
                for id, since in worker["running"].items()
            ]
            queues = ",".join(worker["queues"]) or "all"
            age = span(now - worker["since"])
            rows.append([worker["id"], age, queues, ", ".join(runs) or "nothing"])
        return _table(("WORKER", "LIVES", "QUEUES", "RUNS"), rows, columns) if rows else []

    def table(self, columns: int, rows: int, cursor: int | None, now: float) -> "list[Line]":
        """Return the jobs around the cursor, under their head."""
        room = max(rows - 1, 1)
        first = 0
        if cursor is not None:
            first = min(max(0, cursor - room // 2), max(0, len(self.jobs) - room))
        shown = self.jobs[first : first + room]
        lines = _table(_HEAD, [_row(job, now) for job in shown], columns)
        if not shown:
            return [*lines, [("no job runs, is due or has failed", DIM)]]
        for at, job in enumerate(shown, start=first):
            line = lines[at - first + 1]
            if at == cursor:
                text = "".join(piece for piece, _ in line)
                lines[at - first + 1] = [(text + " " * (columns - width(text)), REVERSE)]
            else:
                lines[at - first + 1] = _coloured(line, job.status)
        return lines


def _stamp(path: str) -> tuple[int, ...]:
    try:
        st = os.stat(path)
    except OSError:
        return ()
    return st.st_ino, st.st_size, st.st_mtime_ns


def _row(job: "Job", now: float) -> list[str]:
    line = row(job, now)
    return line if job.error else [*line[:-1], masked(job, command_line(job)) or line[-1]]


def _coloured(line: "Line", word: str) -> "Line":
    text = line[0][0]
    at = text.find(f" {word} ") + 1
    if word not in _LOOKS or not at:
        return line
    return [(text[:at], ""), (word, _LOOKS[word]), (text[at + len(word) :], "")]


def _flowed(parts: "Line", columns: int) -> "list[Line]":
    """Return pieces side by side, on as many lines as they need."""
    lines: list[Line] = [[]]
    used = 0
    for text, look in parts:
        if used and used + 2 + width(text) > columns:
            lines.append([])
            used = 0
        gap = "  " if used else ""
        lines[-1] += [(gap, ""), (text, look)]
        used += len(gap) + width(text)
    return lines


def _table(head: tuple[str, ...], rows: "list[list[str]]", columns: int) -> "list[Line]":
    """Return rows under their head; each column but the last is as wide as it must be, to 32."""
    cells = [list(head), *([visible(cell) for cell in row] for row in rows)]
    widths = [min(max(map(width, column)), 32) for column in zip(*cells, strict=True)]
    lines: list[Line] = []
    for row_ in cells:
        *front, last = row_
        text = ""
        for cell, most in zip(front, widths, strict=False):
            fits = cut(cell, most)
            text += fits + " " * (most - width(fits) + 2)
        lines.append([(cut((text + last).rstrip(), columns), "" if lines else BOLD)])
    return lines
