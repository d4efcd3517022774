"""The frame of every page: head, navigation, what was just done, and the page in the middle."""

import re

from .html import Safe, el, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .view import View

PAGES = (
    ("overview", "Overview"),
    ("jobs", "Jobs"),
    ("batches", "Batches"),
    ("schedules", "Schedules"),
    ("workers", "Workers"),
    ("metrics", "Metrics"),
)
_PARENTS = {"job": "jobs", "confirm": "jobs"}
# Control characters, and those that change the direction of what follows; and lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def document(view: "View", title: str, body: Safe, said: str = "") -> bytes:
    """Return a whole page.  No control character leaves here, whatever a job says."""
    static = f"{view.mount}/static/"
    head = el(
        "head",
        el("meta", {"charset": "utf-8"}),
        el("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        el("meta", {"name": "color-scheme", "content": "light dark"}),
        el("title", f"{title} · {view.title}"),
        el("link", {"rel": "stylesheet", "href": static + "style.css"}),
        el("link", {"rel": "icon", "href": static + "icon.svg", "type": "image/svg+xml"}),
        el("script", {"src": static + "live.js", "defer": True}),
    )
    note = {"id": "said", "role": "status", "class": "note" if said else None}
    whole = el(
        "html",
        {"lang": "en"},
        head,
        el(
            "body",
            el("a", {"class": "skip", "href": "#main"}, "Skip to the page"),
            _header(view),
            el("div", note, said),
            el("main", {"id": "main", "tabindex": "-1"}, el("h1", title), body),
            _footer(view),
        ),
    )
    text = _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", whole)
    return b"<!doctype html>\n" + text.encode()


def _header(view: "View") -> Safe:
    here = _PARENTS.get(view.page, view.page)
    links = [
        el("li", el("a", {"href": view.url(name), "aria-current": name == here and "page"}, text))
        for name, text in PAGES
    ]
    name = el("a", {"class": "name", "href": view.url()}, view.title)
    return el("header", name, el("nav", {"aria-label": "Pages"}, el("ul", *links)), _who(view))


def _who(view: "View") -> Safe:
    if view.user is not None:
        words = view.user if view.user != "token" else "signed in"
        more = "" if view.may_change else ", read-only"
        out = view.form("sign_out", el("button", "Sign out")) if view.user == "token" else None
        return el("div", {"class": "who"}, el("span", words + more), out)
    sign_in = el("a", {"href": view.url("login")}, "Sign in") if view.can_sign_in else None
    return el("div", {"class": "who"}, el("span", "read-only"), sign_in)


def _footer(view: "View") -> Safe:
    live = el("span", {"id": "live", "class": "unseen"}, "")
    return el("footer", el("code", view.queue.path), live)


def notice(text: str, *more: "Safe | None") -> Safe:
    """Return a page that says one thing."""
    return el("section", {"class": "card notice"}, el("p", text), *more)


def login(view: "View", wrong: bool = False) -> Safe:
    """Return the page that asks for the token."""
    bad = el("p", {"class": "wrong", "role": "alert"}, "That is not the token.") if wrong else None
    field = {
        "type": "password", "name": "token", "id": "token", "required": True,
        "autocomplete": "current-password", "autofocus": True,
    }  # fmt: skip
    form = el(
        "form",
        {"method": "post", "action": view.url("login"), "class": "login"},
        el("label", {"for": "token"}, "Token"),
        el("input", field),
        el("button", "Sign in"),
    )
    hint = "It stands in the address that dbbasic-queue dashboard has printed."
    return el("section", {"class": "card"}, bad, join(form), el("p", {"class": "hint"}, hint))
