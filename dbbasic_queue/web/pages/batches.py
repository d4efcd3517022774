"""Batches and chains: how far they are, and what one of them consists of."""

from itertools import islice

from ...batch import Batch, batches, get_batch
from ...chain import Chain, chains, get_chain
from ...errors import UnknownJob
from ...group import rows as rows_of
from ...show import when
from ..html import Safe, el, join
from ..parts import job_link, section, shares, state, table
from .graph import graph_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...group import Group
    from ..view import View

_NEWEST = 50  # of each kind
_JOBS = 100  # of one, in its table
STATUSES = ("completed", "failed", "cancelled", "processing", "pending")


def page(view: "View") -> "tuple[str, Safe]":
    if label := view.query.get("id"):
        return _page_of(view, label)
    body = join(
        section("Batches", _list(view, batches(_NEWEST, queue_file=view.queue), "batch")),
        section("Chains", _list(view, chains(_NEWEST, queue_file=view.queue), "chain")),
    )
    return "Batches", body


def _list(view: "View", found: "list[Batch] | list[Chain]", kind: str) -> Safe:
    rows = [
        (
            el("a", {"href": view.url("batches", id=one.id)}, one.name or one.id),
            _progress(one),
            _verdict(one),
            *(getattr(one, name) for name in STATUSES),
            *([f"{one.current_step}: {one.current_type}"] if isinstance(one, Chain) else []),
        )
        for one in found
    ]
    head = (kind, "progress", "state", *STATUSES, *(["step"] if kind == "chain" else []))
    words = "Batches" if kind == "batch" else "Chains"
    text = table(words, head, rows, empty=f"The file has no {kind}.")
    if len(found) < _NEWEST:
        return text
    return join(text, el("p", {"class": "hint"}, f"The {_NEWEST} newest."))


def _progress(one: "Group") -> Safe:
    counted = {name: getattr(one, name) for name in STATUSES}
    return join(shares(counted), " ", f"{one.progress}%")


def _verdict(one: "Group") -> Safe:
    if not one.finished:
        return state("processing" if one.processing else "pending")
    if one.ok:
        return state("completed")
    return state("failed" if one.failed else "cancelled")


def _page_of(view: "View", label: str) -> "tuple[str, Safe]":
    get = get_chain if label.startswith("chain-") else get_batch
    one = get(label, queue_file=view.queue)
    if one is None:
        raise UnknownJob(f"no job is in the group {label[:120]!r}")
    jobs = list(islice(rows_of(view.queue, label), _JOBS + 1))
    facts = [
        ("id", el("code", one.id)),
        ("state", _verdict(one)),
        ("jobs", join(_progress(one), f", {one.processed:,} of {one.total:,} finished")),
    ]
    if one.allow_failures:
        facts.append(("may go wrong", Safe(one.allow_failures)))
    counted = [
        join(
            el("a", {"href": view.url("jobs", group=label, status=name)}, f"{number:,} {name}"), " "
        )
        for name in STATUSES
        if (number := getattr(one, name))
    ]
    facts.append(("of these", join(*counted)))
    shown = [join(el("dt", name), el("dd", text)) for name, text in facts]
    cancel = None
    if one.pending:
        words = f"Cancel the {one.pending:,} that have not begun"
        cancel = view.button("cancel_batch", words, id=label)
    rows = [
        (job_link(view, job.id), state(job.status), job.type, job.attempts, when(job, view.now),
         job.after or "")
        for job in jobs[:_JOBS]
    ]  # fmt: skip
    head = ("id", "status", "type", "attempts", "when", "after")
    more = None
    if len(jobs) > _JOBS:
        href = view.url("jobs", group=label)
        more = el(
            "p", {"class": "hint"}, f"The first {_JOBS}. ", el("a", {"href": href}, "All jobs")
        )
    kind = "Chain" if label.startswith("chain-") else "Batch"
    body = join(
        section(one.name or label, el("dl", {"class": "facts"}, *shown), cancel),
        section("What waits for what", graph_of(view, label)),
        section("Jobs", table("Its jobs", head, rows), more),
    )
    return f"{kind} {one.name or label}", body
