"""Jobs: tabs by status and kind, filters, and pages of a file that is never read whole for them."""

from ...choose import Choice
from ...choose import page as page_of
from ...redact import redacted
from ...show import row
from ..html import Safe, el
from ..parts import job_link, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ... import Job
    from ..view import View

STATUSES = ("pending", "processing", "completed", "failed", "cancelled")
KINDS = ("due", "scheduled", "retrying", "waiting", "stuck")
FILTERS = ("type", "queue", "tag", "text", "group", "worker")
_SIZE = 50
_LARGEST = 200
# What can be done to the jobs of which tabs; what else is in the tab is left alone.
BULK = {
    "retry": ("failed", "cancelled"),
    "cancel": ("pending", "due", "scheduled", "retrying", "waiting"),
    "delete": ("completed", "failed", "cancelled"),
}


def page(view: "View") -> "tuple[str, Safe]":
    status = view.query.get("status") or None
    choice = choice_of(view.query)
    before, after = view.query.get("before") or None, view.query.get("after") or None
    found = page_of(choice, view.queue, before=before, after=after, limit=_size(view))
    body = el(
        "section",
        {"class": "card jobs"},
        _tabs(view, status),
        _filter(view, status),
        _bulk(view, status),
        _table(view, found.jobs),
        _pager(view, found.older, found.newer),
    )
    return "Jobs", body


def choice_of(query: "Mapping[str, str]", until: str | None = None) -> Choice:
    """Return which jobs a query means; empty words ask nothing."""
    given = {name: query[name] for name in ("status", *FILTERS) if query.get(name)}
    return Choice(
        status=given.get("status"), type=given.get("type"), queue=given.get("queue"),
        worker=given.get("worker"), tag=given.get("tag"), text=given.get("text"),
        group=given.get("group"), until=until,
    )  # fmt: skip


def chosen_words(query: "Mapping[str, str]") -> "dict[str, str]":
    """Return the words of a query that choose jobs."""
    return {name: query[name] for name in ("status", *FILTERS) if query.get(name)}


def _size(view: "View") -> int:
    given = view.query.get("limit", "")
    is_size = given.isascii() and given.isdigit() and len(given) < 9
    return min(max(int(given), 1), _LARGEST) if is_size else _SIZE


def _tabs(view: "View", status: "str | None") -> Safe:
    figures = view.figures.look()
    counts = {**figures["statuses"], **{name: figures[name] for name in KINDS}}
    filters = {name: view.query.get(name) for name in FILTERS}
    tells = not any(filters.values())  # the figures are those of the whole file
    tabs = [_tab(view, "all", None, figures["jobs"] if tells else None, status, filters)]
    for name in (*STATUSES, *KINDS):
        tabs.append(_tab(view, name, name, counts[name] if tells else None, status, filters))
    return el("nav", {"aria-label": "Status"}, el("ul", {"class": "tabs"}, *tabs))


def _tab(
    view: "View",
    text: str,
    status: "str | None",
    count: "int | None",
    here: "str | None",
    filters: "dict[str, str | None]",
) -> Safe:
    kind = "kind" if status in KINDS else ""
    shown = [" ", el("b", f"{count:,}")] if count is not None else []
    attributes = {
        "href": view.url("jobs", **{**filters, "status": status}),
        "aria-current": status == here and "page",
        "class": "none" if count == 0 else None,
    }
    return el("li", {"class": kind or None}, el("a", attributes, text, *shown))


def _filter(view: "View", status: "str | None") -> Safe:
    fields = []
    for name in FILTERS:
        value = view.query.get(name, "")
        if name in ("group", "worker") and not value:
            continue
        label = "text in payload or error" if name == "text" else name
        kind = {"type": "search", "name": name, "value": value, "maxlength": 200}
        fields.append(el("label", label, el("input", kind)))
    kept = el("input", {"type": "hidden", "name": "status", "value": status}) if status else None
    clear = None
    if any(view.query.get(name) for name in FILTERS):
        clear = el("a", {"class": "button", "href": view.url("jobs", status=status)}, "Clear")
    return el(
        "form",
        {"class": "filter", "method": "get", "action": view.url("jobs"), "role": "search"},
        kept,
        *fields,
        el("button", "Filter"),
        clear,
    )


def _bulk(view: "View", status: "str | None") -> "Safe | None":
    if not view.may_change:
        return None
    words = chosen_words(view.query)
    offered = [name for name, statuses in BULK.items() if status is None or status in statuses]
    links = [
        el(
            "a",
            {"class": "button asks" if name != "retry" else "button",
             "href": view.url("confirm", action=name, **words)},
            f"{name.capitalize()} all of these…",
        )
        for name in offered
    ]  # fmt: skip
    return el("div", {"class": "buttons"}, *links) if links else None


def _table(view: "View", jobs: "list[Job]") -> Safe:
    if not jobs:
        return el("p", {"class": "empty"}, "No job is like that.")
    head = ("id", "status", "type", "queue", "attempts", "when", "error, progress or payload")
    titles = [el("th", {"scope": "col"}, name) for name in head]
    rows = [_row(view, job) for job in jobs]
    around = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Jobs"}
    whole = el("table", el("caption", {"class": "unseen"}, "Jobs, the newest first"),
               el("thead", el("tr", *titles)), el("tbody", *rows))  # fmt: skip
    return el("div", around, whole)


def _row(view: "View", job: "Job") -> Safe:
    _, _, type, queue, attempts, when, last = row(job, view.now)
    seen = redacted(job)
    kind = "text error" if seen.error and last == seen.error else "text"
    return el(
        "tr",
        el("th", {"scope": "row"}, job_link(view, job.id)),
        el("td", state(job.status)),
        el("td", el("a", {"href": view.url("jobs", type=type)}, type)),
        el("td", el("a", {"href": view.url("jobs", queue=queue)}, queue)),
        el("td", {"class": "number"}, attempts),
        el("td", when),
        el("td", {"class": kind}, last.partition("\n")[0][:300]),
    )


def _pager(view: "View", older: "str | None", newer: "str | None") -> Safe:
    def link(words: str, rel: str, **cursor: "str | None") -> Safe:
        return el("a", {"class": "button", "rel": rel, "href": view.here(**cursor)}, words)

    left = right = newest = None
    if newer:
        newest = link("⇤ Newest", "first", before=None, after=None)
        left = link("← Newer", "prev", after=newer, before=None)
    if older:
        right = link("Older →", "next", before=older, after=None)
    return el(
        "nav",
        {"class": "pager", "aria-label": "Other jobs"},
        el("span", newest, " ", left),
        el("span", right),
    )
