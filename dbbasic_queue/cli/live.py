"""The command that shows a queue live on the whole terminal, and steers it with keys."""

import time

from .. import Queue, QueueError, limits
from ..show import document, page, visible
from .output import Output
from .values import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from .. import Job
    from .screen import Scene
    from .terminal import Line, Terminal

_ONCE = 20  # jobs that are printed
_BUSY = 5  # seconds of rest for each second of reading
_LOCK = 5.0  # seconds that a key waits for the lock
_KEYS = """\
up down j k      the job before or after
enter            all about the job, and why it is where it is
r                retry it, when it failed or was cancelled
c                cancel it; end it, when it runs
p                pause its queue, or resume it
/                only jobs with a text in their payload or error; empty: all
q Ctrl-C         leave

Before anything is changed you are asked; y is yes.
""".splitlines()
_FOOT = "enter show  r retry  c cancel  p pause  / filter  ? help  q quit"


def top(queue: Queue, given: "Namespace", out: Output) -> int:
    """Show the queue live; one screen of text where there is no terminal."""
    from .screen import Scene  # here, since no other command needs them
    from .terminal import Terminal, usable

    scene = Scene(Queue(queue.path, lock_timeout=_LOCK))
    if given.once or out.json or not usable():
        return _print(scene, out)
    with Terminal() as terminal:
        _Live(scene, terminal, given.interval).run()
    return 0


def _print(scene: "Scene", out: Output) -> int:
    scene.refresh()
    if out.json:
        jobs = [document(job) for job in scene.jobs]
        out.document({"figures": scene.found, "jobs": jobs})
    else:
        for line in scene.lines(out.width, _ONCE + 9 + len(scene.found["by_worker"]), None):
            out.line("".join(text for text, _ in line).rstrip())
    return 0 if scene.found["jobs"] else 1


class _Live:
    """The screen, the job under the cursor, and what the next key means."""

    def __init__(self, scene: "Scene", terminal: "Terminal", interval: float) -> None:
        self._scene = scene
        self._queue = scene.queue
        self._terminal = terminal
        self._interval = interval
        self._id = ""  # of the job under the cursor
        self._at = 0
        self._said = ""  # what the last key did
        self._typed: str | None = None  # of a filter
        self._asked: tuple[str, Callable[[], str]] | None = None
        self._page: list[str] | None = None  # a text that covers the screen
        self._scroll = 0
        self._next = 0.0

    def run(self) -> None:
        """Show and obey, until q."""
        self._terminal.draw([[(f"reading {self._queue.path} …", "2")]])
        while True:
            self._refresh()
            self._terminal.draw(self._lines())
            key = self._terminal.key(min(1.0, max(0.05, self._next - time.monotonic())))
            if key and not self._obey(key):
                return

    def _refresh(self) -> None:
        if time.monotonic() < self._next:
            return
        try:
            self._scene.refresh()
        except QueueError as problem:
            self._said = str(problem)
            if not self._scene.found:
                raise
        self._next = time.monotonic() + max(self._interval, _BUSY * self._scene.took)
        self._find()

    def _find(self) -> None:
        """Keep the cursor on its job, else on its line."""
        ids = [job.id for job in self._scene.jobs]
        self._at = ids.index(self._id) if self._id in ids else min(self._at, len(ids) - 1)
        self._at = max(self._at, 0)
        self._id = ids[self._at] if ids else ""

    @property
    def _job(self) -> "Job | None":
        return self._scene.jobs[self._at] if self._id else None

    # --- what is shown

    def _lines(self) -> "list[Line]":
        columns, rows = self._terminal.size()
        foot = self._foot()
        if self._page is not None:
            body = _wrapped(self._page, columns)
            self._scroll = max(0, min(self._scroll, len(body) - rows + 1))
            lines: list[Line] = [[(text, "")] for text in body[self._scroll :][: rows - 1]]
        else:
            lines = self._scene.lines(columns, rows - 1, self._at if self._id else None)
        lines = lines[: rows - 1]
        return [*lines, *([[]] * (rows - 1 - len(lines))), foot]

    def _foot(self) -> "Line":
        if self._asked:
            return [(f"{self._asked[0]} [y/N] ", "1")]
        if self._typed is not None:
            return [(f"/{self._typed}_", "1")]
        if self._said:
            return [(self._said, "1")]
        if self._page is not None:
            return [("up down  q back", "2")]
        return [(_FOOT, "2")]

    # --- keys

    def _obey(self, key: str) -> bool:
        """Do what a key says; False at the end."""
        if self._asked:
            self._answer(key)
        elif self._typed is not None:
            self._type(key)
        elif self._page is not None:
            self._turn(key)
        elif key == "q":
            return False
        else:
            self._said = ""
            self._command(key)
        return True

    def _answer(self, key: str) -> None:
        do = self._asked[1] if self._asked else str
        self._asked = None
        if key not in ("y", "Y"):
            self._said = "nothing was changed"
            return
        try:
            self._said = do()
        except (QueueError, OSError) as problem:
            self._said = str(problem)
        self._again()

    def _again(self) -> None:
        self._scene.forget()
        self._next = 0.0

    def _type(self, key: str) -> None:
        if key == "enter":
            self._scene.text, self._typed = self._typed or "", None
            self._again()
        elif key == "escape":
            self._typed = None
        elif key == "backspace":
            self._typed = (self._typed or "")[:-1]
        elif len(key) == 1:
            self._typed = ((self._typed or "") + key)[:200]

    def _turn(self, key: str) -> None:
        rows = self._terminal.size()[1]
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": 2 - rows, "page down": rows - 2}
        steps |= {" ": rows - 2, "home": -1 << 30, "end": 1 << 30}
        if key in steps:
            self._scroll += steps[key]
        elif key in ("q", "enter", "escape"):
            self._page = None

    def _command(self, key: str) -> None:
        half = self._terminal.size()[1] // 2
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -half, "page down": half}
        steps |= {"home": -1 << 30, "end": 1 << 30}
        does = {"enter": self._show, "r": self._retry, "c": self._cancel, "p": self._pause}
        if key in steps and self._scene.jobs:
            self._at = max(0, min(self._at + steps[key], len(self._scene.jobs) - 1))
            self._id = self._scene.jobs[self._at].id
        elif key in ("?", "h"):
            self._page, self._scroll = list(_KEYS), 0
        elif key == "/":
            self._typed = self._scene.text
        elif key == "redraw":
            self._terminal.forget()
        elif key in does:
            job = self._job
            if job is None:
                self._said = "there is no job here"
            else:
                {"enter": self._show, "r": self._retry, "c": self._cancel, "p": self._pause}[key](
                    job
                )

    # --- what they do

    def _show(self, job: "Job") -> None:
        now = self._queue.get(job.id)
        if now is None:
            self._said = f"no job has the id {job.id} any more"
            return
        from ..why import why

        try:
            reasons = why(job.id, self._queue)
        except QueueError as problem:
            reasons = [str(problem)]
        named = [("why", "\n".join(reasons)), *page(now, time.time())]
        self._page, self._scroll = [], 0
        most = max(len(name) for name, _ in named)
        for name, text in named:
            first, *more = text.split("\n")
            self._page += [f"{name:<{most}}  {first}", *(" " * most + f"  {one}" for one in more)]

    def _retry(self, job: "Job") -> None:
        if job.status not in ("failed", "cancelled"):
            self._said = f"job {job.id} is {job.status}: only failed and cancelled jobs are retried"
            return

        def do() -> str:
            done = self._queue.retry(job.id)
            return f"job {job.id} is pending again" if done else f"job {job.id} has changed"

        self._asked = (f"retry {job.id} {job.type}?", do)

    def _cancel(self, job: "Job") -> None:
        if job.finished:
            self._said = f"job {job.id} is {job.status} already"
            return
        if job.status == "processing":
            self._asked = (f"{job.id} {job.type} runs: end it?", lambda: self._end(job))
            return

        from ..choose import cancel

        def do() -> str:
            gone = cancel([job.id], self._queue)
            if not gone:
                return f"job {job.id} has changed"
            more = f", and {len(gone) - 1} that waited for it" if len(gone) > 1 else ""
            return f"job {job.id} is cancelled{more}"

        self._asked = (f"cancel {job.id} {job.type}?", do)

    def _end(self, job: "Job") -> str:
        if self._queue.kill(job.id):
            return f"the worker of job {job.id} was asked to end it"
        return f"job {job.id} has no live worker, or has ended"

    def _pause(self, job: "Job") -> None:
        label = job.queue
        if label in limits.paused(self._queue):
            self._asked = (f"resume queue {label}?", lambda: self._switch(label, pausing=False))
        else:
            self._asked = (f"pause queue {label}?", lambda: self._switch(label, pausing=True))

    def _switch(self, label: str, *, pausing: bool) -> str:
        changed = (limits.pause if pausing else limits.resume)(label, self._queue)
        word = "paused" if pausing else "resumed"
        return f"queue {label} is {word}" + ("" if changed else " already")


def _wrapped(lines: "list[str]", columns: int) -> list[str]:
    """Return lines that are no longer than the screen is wide."""
    from .terminal import width

    found = []
    for line in map(visible, lines):
        piece, used = "", 0
        for char in line:
            step = width(char)
            if used + step > columns:
                found.append(piece)
                piece, used = "", 0
            piece += char
            used += step
        found.append(piece)
    return found


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the words of this command."""
    p = add(
        "top", top, "Show the queue live on the whole terminal, and steer it with keys.",
        """top
           top --interval 5s
           top --once
           top --json | jq .figures.due""",
        "Keys: arrows or j k, enter shows a job, r retries, c cancels, p pauses its queue,\n"
        "/ filters by text, ? help, q leaves.  It asks before it changes anything.  With --once\n"
        "or into a pipe one screen is printed; then the status is 1 when there are no jobs.",
    )  # fmt: skip
    how_often = "between two looks, at least (default 1s); what has not changed is not read again"
    p.add_argument("--interval", type=duration, default=1, metavar="TIME", help=how_often)
    p.add_argument("--once", action="store_true", help="print one screen, and end")
