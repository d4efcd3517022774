"""The commands that tell figures: stats, with bars at a terminal, and failed, by type and error."""

import time

from .. import Queue
from ..show import length, span
from ..stats import errors
from ..stats import stats as figures_of
from .output import Output, numbered, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from typing import Any

    from .arguments import Parser

_NAMES = 11  # characters of the names on the left
_LONGEST_BAR = 50
_KINDS = ("due", "scheduled", "retrying", "waiting")


def add_words(add: "Callable[..., Parser]") -> None:
    p = add(
        "stats", stats, "Tell counts, ages, rates and times, of all jobs, one queue or one type.",
        """stats
           stats --queue high
           stats --json | jq .by_type""",
        "Times and rates of success are of the last day: at most the 20,000 jobs that stand last\n"
        "in the file.  The archive is counted apart.",
    )  # fmt: skip
    p.add_argument("--queue")
    p.add_argument("--type")
    p = add(
        "failed", failed, "Tell why jobs failed: grouped by type and first line of the error.",
        """failed
           failed --type send_email
           failed --json""",
        "`list --status failed --type TYPE --text WORDS` shows the jobs, `retry` brings them back.",
    )  # fmt: skip
    p.add_argument("--type")
    p.add_argument("--queue")
    p.add_argument(
        "--limit", type=int, default=20, metavar="N", help="at most so many (default 20)"
    )


def stats(queue: Queue, given: "Namespace", out: Output) -> int:
    """Tell counts, ages, rates and times."""
    found = figures_of(queue=given.queue, type=given.type, queue_file=queue)
    out.place(queue.path)
    if out.json:
        out.document(found)
        return 0 if found["jobs"] else 1
    _tell_statuses(found, out)
    out.line()
    for name, text in _facts(found):
        out.lines(name, text, _NAMES)
    _tell_queues(found, out)
    _tell_types(found, out)
    _tell_workers(found, out)
    return 0 if found["jobs"] else 1


def _tell_statuses(found: "dict[str, Any]", out: Output) -> None:
    most = max(found["statuses"].values(), default=0)
    for status, count in found["statuses"].items():
        kinds = _KINDS if status == "pending" else ("stuck",) if status == "processing" else ()
        more = ", ".join(f"{found[kind]} {kind}" for kind in kinds if found[kind])
        text = f"{count:>8}  {out.bar(count, most, _LONGEST_BAR)}{more}"
        out.lines(status, text.rstrip(), _NAMES)


def _facts(found: "dict[str, Any]") -> "list[tuple[str, str]]":
    """Return names and what is to be said of them."""
    age, tick, live = found["oldest_due_age"], found["last_tick_age"], found["workers"]
    facts = [
        ("oldest due", "nothing is due" if age is None else f"for {span(age)}"),
        ("last tick", "none yet" if tick is None else f"{span(tick)} ago"),
        ("workers", "cannot be told" if live is None else str(live)),
    ]
    if found["paused"] or found["paused"] is None:
        labels = found["paused"]
        facts.append(("paused", "cannot be told" if labels is None else ", ".join(labels)))
    if found["rate"]:
        facts.append(("rate", f"{found['rate']:g} a minute, in the last hour"))
    for name, times in (("run time", found["run_time"]), ("wait time", found["wait_time"])):
        if times:
            facts.append((name, f"p50 {length(times['p50'])}, p95 {length(times['p95'])}"))
    if found["success_rate"] is not None:
        facts.append(("success", f"{found['success_rate']:.1%} in the last day"))
    if found["archived"]:
        facts.append(("archived", str(found["archived"])))
    if found["bad_lines"]:
        facts.append(("bad lines", f"{found['bad_lines']}: see dbbasic-queue doctor"))
    return facts


def _tell_queues(found: "dict[str, Any]", out: Output) -> None:
    if not found["queues"]:
        return
    most = max(told["due"] for told in found["by_queue"].values())
    rows = []
    for label, statuses in found["queues"].items():
        told = found["by_queue"][label]
        bar = out.bar(told["due"], most, 12).strip()
        rows.append([label, str(told["due"]), *map(str, statuses.values()), bar])
    head = ("QUEUE", "DUE", *map(str.upper, found["statuses"]), "")
    out.line()
    out.table(head, rows)


def _tell_types(found: "dict[str, Any]", out: Output) -> None:
    if not found["types"]:
        return
    rows = []
    for type, statuses in found["types"].items():
        told = found["by_type"].get(type)
        more = ["", "", ""]
        if told:
            rate = told["success_rate"]
            more = [f"{rate:.0%}", length(told["p50"]), length(told["p95"])]
        rows.append([type, *map(str, statuses.values()), *more])
    out.line()
    out.table(("TYPE", *map(str.upper, found["statuses"]), "SUCCESS", "P50", "P95"), rows)


def _tell_workers(found: "dict[str, Any]", out: Output) -> None:
    if not found["by_worker"]:
        return
    now = time.time()
    rows = [
        [
            one["id"],
            span(now - one["since"]),
            str(one["jobs"]),
            f"{one['busy']:.0%}",
            ", ".join(one["running"]) or "nothing",
        ]
        for one in found["by_worker"]
    ]
    out.line()
    out.table(("WORKER", "LIVES", "JOBS", "BUSY", "RUNS"), rows)


def failed(queue: Queue, given: "Namespace", out: Output) -> int:
    """Tell why jobs failed."""
    found = errors(queue=given.queue, type=given.type, limit=given.limit, queue_file=queue)
    out.place(queue.path)
    if out.json:
        out.document(found)
        return 0 if found else 1
    now = time.time()
    rows = [
        [
            one["type"], str(one["jobs"]), f"{span(now - one['first'])} ago",
            f"{span(now - one['last'])} ago", one["ids"][0], one["error"] or "(no text)",
        ]
        for one in found
    ]  # fmt: skip
    if not out.table(("TYPE", "JOBS", "FIRST", "LAST", "NEWEST", "ERROR"), rows):
        tell("no job has failed")
    elif len(found) == given.limit:
        tell(f"the first {numbered(given.limit, 'error')}: --limit N for more")
    return 0 if found else 1
