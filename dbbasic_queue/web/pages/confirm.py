"""The page that asks before something is done, with its number; and what then is done to many."""

import hashlib

from ... import Queue
from ...choose import cancel, jobs
from ...errors import BadArgument, UnknownJob
from ..actions import Done, counted, note, queue_for
from ..html import Safe, el
from .jobs import BULK, choice_of, chosen_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..view import View

WORDS = {
    "retry": ("Retry", "They become pending again, with no attempts."),
    "cancel": ("Cancel", "They do not run any more, nor do jobs that only wait for them."),
    "delete": ("Delete", "They are gone for good, with their payloads, results and errors."),
    "kill": ("Kill", "Its worker ends it within a second; it becomes cancelled."),
    "stop": ("Stop", "Its workers end their jobs and leave; cron or a supervisor starts others."),
    "cancel_batch": ("Cancel", "Jobs that have not begun are cancelled; what runs goes on."),
}
_VERBS = {"retry": "retried", "cancel": "cancelled", "delete": "deleted"}
_EVERY = "f" * 16


def page(view: "View") -> "tuple[str, Safe]":
    action = view.query.get("action", "")
    if action not in WORDS:
        raise BadArgument(f"action={action!r:.80}: nothing of this name is asked about")
    if action in BULK and "id" not in view.query:
        return _ask(view, action, chosen_words(view.query))
    fields = {name: one for name, one in view.query.items() if name in ("id", "name", "worker")}
    if action in (*BULK, "kill") and view.queue.get(fields.get("id", "")) is None:
        raise UnknownJob(f"{view.queue.path}: no job has the id {fields.get('id', '')!r:.80}")
    of = fields.get("id") or fields.get("name") or fields.get("worker") or ""
    what = {"stop": "the worker", "cancel_batch": ""}.get(action, "job")
    verb, more = WORDS[action]
    question = f"{verb} {what} {of}?".replace("  ", " ")
    one = more.replace("They become", "It becomes").replace("They do", "It does")
    one = one.replace("They are", "It is").replace("their", "its").replace("for them", "for it")
    back = view.url("job", id=of) if action in (*BULK, "kill") else view.url()
    if action == "stop":
        back = view.url("workers")
    elif action == "cancel_batch":
        back = view.url("batches", id=of)
    form = view.form(action, el("button", {"class": "sure"}, f"Yes: {verb.lower()}"), **fields)
    return question, _question(view, one, form, back)


def _question(view: "View", text: str, form: Safe, back: str) -> Safe:
    no = el("a", {"class": "button", "href": back}, "No, go back")
    if not view.may_change:
        form = el("p", {"class": "wrong"}, "You may look, but not change anything.")
    inside = el("div", {"class": "buttons"}, form, no)
    return el("section", {"class": "card", "data-still": True}, el("p", text), inside)


# --- many


def found_for(
    queue: Queue, action: str, words: "dict[str, str]", until: str = _EVERY
) -> "dict[str, list[str]]":
    """Return the ids, by status, of those jobs of a filter to which this can be done."""
    found: dict[str, list[str]] = {}
    for job in jobs(choice_of(words, until), queue):
        if job.status in BULK[action]:
            found.setdefault(job.status, []).append(job.id)
    return found


def _ask(
    view: "View", action: str, words: "dict[str, str]", changed: str = ""
) -> "tuple[str, Safe]":
    by_status = found_for(view.queue, action, words)
    ids = [id for some in by_status.values() for id in some]
    back = view.url("jobs", **words)
    verb, more = WORDS[action]
    if not ids:
        text = f"Nothing to {action}: no job of this filter can be {_VERBS[action]} now."
        link = el("a", {"class": "button", "href": back}, "Go back")
        return text, el("section", {"class": "card"}, el("p", changed) if changed else None, link)
    which = [
        el("div", el("dt", name), el("dd", value)) for name, value in words.items()
    ] or [el("div", el("dt", "which"), el("dd", "every job in the file"))]  # fmt: skip
    of = ", ".join(f"{len(some):,} {status}" for status, some in sorted(by_status.items()))
    said = el("p", {"class": "wrong", "role": "alert"}, changed) if changed else None
    text = f"{verb} {len(ids):,} job{'' if len(ids) == 1 else 's'}?"
    sure = el("button", {"class": "sure"}, f"Yes: {action} {len(ids):,}")
    form = view.form(action, sure, **words, count=len(ids), until=max(ids), set=mark_of(ids))
    inside = _question(view, more, form, back)
    facts = el("dl", {"class": "facts"}, *which, el("div", el("dt", "these are"), el("dd", of)))
    return text, el("div", {"data-still": True}, said, facts, inside)


def mark_of(ids: "list[str]") -> str:
    """Return what tells one set of jobs from another."""
    return hashlib.sha256(" ".join(sorted(ids)).encode()).hexdigest()[:24]


def act_on_many(view: "View", fields: "dict[str, str]", who: str) -> Done:
    """Do it to exactly the jobs that the page has named; ask again when they are others now."""
    action, words = fields["action"], chosen_words(fields)
    view.page = "confirm"
    by_status = found_for(view.queue, action, words, fields.get("until", ""))
    ids = [id for some in by_status.values() for id in some]
    if not ids or str(len(ids)) != fields.get("count") or mark_of(ids) != fields.get("set"):
        before = fields.get("count", "")
        changed = f"Nothing was done: there were {before[:20]} then, and they are others now."
        return Done(*_asked_again(view, action, words, changed))
    queue = queue_for(view.queue, who)
    if action == "retry":
        done = len(queue.retry(ids))
    elif action == "cancel":
        done = len(cancel(ids, queue))
    else:  # what has changed its status since it was counted stays
        done = sum(queue.purge(status=status, ids=some) for status, some in by_status.items())
    text = f"{counted(done, _VERBS[action])}."
    if action == "delete" and done < len(ids):
        text += f" {counted(len(ids) - done, 'stayed')}: unfinished jobs wait for them."
    elif done > len(ids):
        text += f" {done - len(ids):,} of them hung on the others."
    note(who, action, words, f"{text} ids {min(ids)} to {max(ids)}")
    return Done(text, view.url("jobs", **words))


def _asked_again(
    view: "View", action: str, words: "dict[str, str]", changed: str
) -> "tuple[str, str, Safe]":
    title, body = _ask(view, action, words, changed)
    return title, "", body
