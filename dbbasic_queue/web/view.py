"""What a page is given: the queue, its figures, what was asked for, and who asks."""

import time
from urllib.parse import urlencode

from .html import Safe, el

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .. import Queue
    from ..stats import Figures

# What these do cannot be taken back, or stops something: a page asks first.
ASKED = frozenset(("cancel", "delete", "kill", "stop", "cancel_batch"))


class View:
    """One look of one visitor.  `query` has the first value of each name; `page` is this page's
    name; `now` is Unix time.
    """

    def __init__(
        self,
        queue: "Queue",
        figures: "Figures",
        query: "Mapping[str, str]" = {},  # noqa: B006 (never changed)
        *,
        mount: str = "",
        page: str = "overview",
        may_change: bool = False,
        user: "str | None" = None,
        proof: str = "",
        title: str = "",
        can_sign_in: bool = False,
    ) -> None:
        self.queue = queue
        self.figures = figures
        self.query = query
        self.mount = mount
        self.page = page
        self.may_change = may_change
        self.user = user
        self.proof = proof
        self.title = title or "dbbasic-queue"
        self.can_sign_in = can_sign_in
        self.now = time.time()

    def url(self, page: str = "overview", **query: "str | int | None") -> str:
        """Return the address of a page; None and "" leave a word out."""
        words = {name: one for name, one in query.items() if one is not None and one != ""}
        path = f"{self.mount}/{'' if page == 'overview' else page}"
        return f"{path}?{urlencode(words, errors='replace')}" if words else path

    def here(self, **query: "str | int | None") -> str:
        """Return this page's address with other words in its query."""
        return self.url(self.page, **{**self.query, **query})

    def button(self, action: str, text: str, **fields: "Any") -> Safe:
        """Return a form with one button that does something; "" for who may not.

        What cannot be taken back leads to a page that asks.
        """
        if not self.may_change:
            return Safe("")
        pairs = [(name, str(value)) for name, value in fields.items() if value is not None]
        if action in ASKED:
            inside = _hidden([("action", action), *pairs])
            attributes = {"method": "get", "action": self.url("confirm"), "class": "act"}
            return el("form", attributes, inside, el("button", {"class": "asks"}, text))
        return self.form(action, el("button", text), **fields)

    def form(self, action: str, *inside: "Any", **fields: "Any") -> Safe:
        """Return a form that does something at once, with what is to be in it."""
        pairs = [(name, str(value)) for name, value in fields.items() if value is not None]
        hidden = _hidden([("action", action), *pairs, ("proof", self.proof)])
        attributes = {"method": "post", "action": self.url("do"), "class": "act"}
        return el("form", attributes, hidden, *inside)


def _hidden(pairs: "list[tuple[str, str]]") -> "list[Safe]":
    return [el("input", {"type": "hidden", "name": name, "value": text}) for name, text in pairs]
