"""One job: what became of it, why, what it was given and what it gave, and what can be done."""

import json
import pprint

from ...errors import BadRow, QueueError, UnknownJob
from ...middleware import kept_traceback
from ...redact import masked, redacted
from ...show import document, json_cell, when
from ...steps import progress_of
from ...why import why
from ..html import Safe, el, join
from ..parts import ago, section, state
from .graph import around, timeline_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ... import Job
    from ..view import View

_LONGEST = 20_000  # characters of a text that are shown
_KEPT = ("sensitive", "tags", "keep")  # columns that a copy has too
_BOUND = ("signature",)  # what holds for one id only
_PLAIN = frozenset(
    "id type payload status created_at run_at attempts error result queue priority max_attempts"
    " timeout backoff worker after group started_at finished_at progress steps traceback".split()
)


def page(view: "View") -> "tuple[str, Safe]":
    id = view.query.get("id", "")
    job = view.queue.get(id)
    if job is None:
        raise UnknownJob(f"{view.queue.path}: no job has the id {id!r:.80}")
    seen = redacted(job)
    graph = around(view, job)
    return f"{seen.type} {seen.id}", join(
        _now(view, seen),
        _error(job),
        section("Timeline", timeline_of(view, job)),
        section("Chain or batch" if job.group else "Waits for", graph) if graph else None,
        _json(seen, "payload"),
        _json(seen, "result"),
        _steps(seen),
        _facts(view, seen),
        _as_python(job),
    )


def _now(view: "View", job: "Job") -> Safe:
    more = when(job, view.now)
    pieces: list[Any] = [el("p", state(job.status), f" {more}")]
    reasons = _reasons(view, job)
    if reasons:
        pieces.append(el("ul", {"class": "why"}, *(el("li", text) for text in reasons)))
    pieces += _progress(job)
    pieces.append(el("div", {"class": "buttons"}, *_buttons(view, job)))
    return section("Now", *pieces)


def _reasons(view: "View", job: "Job") -> "list[str]":
    try:
        told = why(job.id, view.queue)
        for_here = [text for text in told if not text.startswith("`")]  # not what to type
        return [masked(job, text) for text in for_here]
    except (QueueError, OSError):
        return []


def _progress(job: "Job") -> "list[Safe]":
    try:
        found = progress_of(job)
    except QueueError as error:
        return [el("p", {"class": "hint"}, str(error))]
    if found is None:
        return []
    words = f"{found.done:g}"
    if found.total is not None:
        words += f" of {found.total:g}, {found.percent}%"
    bar = {"value": found.done, "max": found.total, "aria-label": "progress"}
    shown = el("progress", bar) if found.total else None
    return [el("p", shown, " ", words, " ", found.message)]


def _buttons(view: "View", job: "Job") -> "list[Safe]":
    made = []
    if job.status in ("failed", "cancelled"):
        made.append(view.button("retry", "Retry", id=job.id))
    if job.status == "pending":
        made.append(view.button("cancel", "Cancel…", id=job.id))
    if job.status == "processing":
        made.append(view.button("kill", "Kill…", id=job.id))
    if arguments_of(job) is not None:
        made.append(view.button("copy", "Copy as a new job", id=job.id))
    if job.finished:
        made.append(view.button("delete", "Delete…", id=job.id))
    return made


def _error(job: "Job") -> "Safe | None":
    error = redacted(job).error
    if not error:
        return None
    trace = kept_traceback(redacted(job))
    text = f"{error}\n\n{trace}" if trace else error
    return section("Error", _pre(text, "bad"), kind="error")


def _pre(text: str, kind: "str | None" = None) -> Safe:
    cut = None
    if len(text) > _LONGEST:
        cut = el("p", {"class": "hint"}, f"The first {_LONGEST:,} of {len(text):,} characters.")
    shown = {"class": kind, "tabindex": "0"}
    return join(el("pre", shown, text[:_LONGEST]), cut)


def _json(job: "Job", column: str) -> "Safe | None":
    raw = job.raw(column)
    if not raw:
        return None
    value, text = json_cell(job, column)
    if text is not None:
        return section(column.capitalize(), el("p", {"class": "hint"}, "not JSON"), _pre(text))
    if is_sealed(job, column):
        hint = el("p", {"class": "hint"}, "Sealed: who has the key reads it with",
                  " ", el("code", f"dbbasic-queue show --unseal {job.id}"))  # fmt: skip
        return section(column.capitalize(), hint)
    return section(column.capitalize(), _pre(json.dumps(value, indent=2, ensure_ascii=False)))


def _steps(job: "Job") -> "Safe | None":
    text = job.cell("steps")
    if not text:
        return None
    try:
        found = json.loads(text)
        steps = found.get("steps") if isinstance(found, dict) else None
    except ValueError:
        steps = None
    if not isinstance(steps, dict):
        return section("Steps", _pre(text))
    rows = [
        el("div", el("dt", name), el("dd", json.dumps(one, ensure_ascii=False)[:300]))
        for name, one in steps.items()
    ]
    return section("Steps", el("dl", {"class": "facts"}, *rows))


def _facts(view: "View", job: "Job") -> Safe:
    def link(page: str, text: str, **query: str) -> Safe:
        return el("a", {"href": view.url(page, **query)}, text)

    facts: list[tuple[str, Any]] = [
        ("id", el("code", job.id)),
        ("type", link("jobs", job.type, type=job.type)),
        ("queue", link("jobs", job.queue, queue=job.queue)),
        ("added", ago(job.created_at, view.now)),
        ("not before", ago(job.run_at, view.now) if job.run_at > job.created_at else None),
        ("begun", ago(job.started_at, view.now) if job.started_at else None),
        ("finished", ago(job.finished_at, view.now) if job.finished_at else None),
        ("attempts", f"{job.attempts} of {job.max_attempts}" if job.max_attempts else job.attempts),
        ("priority", job.priority or None),
        ("time limit", f"{job.timeout:g} s" if job.timeout else None),
        ("backoff", job.backoff),
        ("worker", job.worker),
        ("waits for", job.after),
        ("group", link("batches", job.group, id=job.group) if job.group else None),
    ]
    for name, value in document(job).items():
        if name not in _PLAIN and not name.endswith("_text") and value not in (None, ""):
            facts.append((name, str(value)[:2000]))
    shown = [join(el("dt", name), el("dd", one)) for name, one in facts if one is not None]
    return section("Row", el("dl", {"class": "facts"}, *shown))


# --- the same again


def is_sealed(job: "Job", column: str = "payload") -> bool:
    """Whether a cell can be read by who has the key alone."""
    try:
        value = getattr(job, column)
    except BadRow:
        return False
    return isinstance(value, dict) and value.keys() >= {"sealed", "key"}


def arguments_of(job: "Job") -> "dict[str, Any] | None":
    """Return the arguments of enqueue for a job like this one, due at once and waiting for none;
    None for one that holds for its id only, or cannot be read.
    """
    value, text = json_cell(job, "payload")
    if text is not None or is_sealed(job) or any(job.cell(name) for name in _BOUND):
        return None
    settings = {
        "queue": job.queue if job.queue != "default" else None,
        "priority": job.priority or None,
        "max_attempts": job.max_attempts,
        "timeout": job.timeout,
        "backoff": job.backoff,
        "columns": {name: job.cell(name) for name in _KEPT if job.cell(name)} or None,
    }
    given = {name: one for name, one in settings.items() if one is not None}
    return {"job_type": job.type, "payload": value, **given}


def call_of(job: "Job") -> "str | None":
    """Return the text of the call that adds such a job: Python that can be run."""
    arguments = arguments_of(job)
    if arguments is None:
        return None
    arguments["payload"] = redacted(job).payload
    type, payload = arguments.pop("job_type"), arguments.pop("payload")
    more = [f"{name}={one!r}" for name, one in arguments.items()]
    shown = pprint.pformat(payload, width=90, sort_dicts=False)
    one_line = f"enqueue({', '.join([repr(type), shown, *more])})"
    if "\n" not in shown and len(one_line) <= 96:
        return one_line
    shown = shown.replace("\n", "\n    ")
    return "enqueue(\n" + "".join(f"    {one},\n" for one in (repr(type), shown, *more)) + ")"


def _as_python(job: "Job") -> "Safe | None":
    text = call_of(job)
    if text is None:
        return None
    hidden = "***" in text and redacted(job) is not job
    hint = el("p", {"class": "hint"}, "What is hidden stands as *** in it.") if hidden else None
    return section("As enqueue(…)", hint, _pre(text))
