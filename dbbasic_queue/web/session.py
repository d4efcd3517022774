"""Who asks: a token, a cookie that was given for it, and the proof that a form is one of ours.

Nothing is kept here but the times of wrong tokens: a cookie proves itself by a keyed hash.
"""

import hashlib
import hmac
import os
import threading
import time

from ..errors import BadArgument
from .request import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .request import Request

COOKIE = "dbbasic_queue"
SAID = "dbbasic_queue_said"
LASTS = 43200  # seconds
TRIES = 10  # wrong tokens of an address in a minute
_ADDRESSES = 1000


class Session:
    """One visitor: `user` is how the log calls them, None for one who only looks."""

    def __init__(self, id: str, user: "str | None", *, is_new: bool) -> None:
        self.id = id
        self.user = user
        self.is_new = is_new


class Door:
    """Who may come in, and who may change: decided for each request anew."""

    def __init__(
        self,
        token: "str | None",
        auth: "Callable[[dict[str, Any]], Any] | None",
        secret: "str | bytes | None",
        *,
        read_only: bool,
        private: bool,
    ) -> None:
        if token is not None and (len(token) < 8 or not token.isascii()):
            raise BadArgument("token: give at least 8 ASCII characters")
        if private and token is None and auth is None:
            raise BadArgument("private=True: give a token or auth, or nobody can look")
        if secret is None:
            secret = "token " + token if token is not None else os.urandom(32)
        if isinstance(secret, str):
            secret = secret.encode()
        self._key = hashlib.sha256(b"dbbasic-queue dashboard\0" + secret).digest()
        self._token = token
        self._auth = auth
        self._read_only = read_only
        self._private = private
        self._turn = threading.Lock()
        self._wrong: dict[str, list[float]] = {}

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def session(self, request: "Request") -> Session:
        """Return who asks; Refused for one whom `auth` does not know."""
        id, known = self._read(request.cookie(COOKIE + request.port))
        user: str | None = None
        if self._auth is not None:
            said = self._auth(request.environ)
            user = None if said is None or said is False else "somebody" if said is True else said
            if user is not None and not isinstance(user, str):
                raise BadArgument(f"auth returned {user!r:.80}: give a name, None or True")
        if user is None and known:
            user = "token"
        return Session(id or os.urandom(16).hex(), user, is_new=not id)

    def check_may_see(self, session: Session) -> None:
        """Refuse those who may not even look."""
        if session.user is None and (self._private or self._auth is not None):
            raise Refused("403 Forbidden", "Please come in first: this dashboard is not public.")

    def may_change(self, session: Session) -> bool:
        return not self._read_only and session.user is not None

    # --- tokens

    def is_right(self, token: str, request: "Request") -> bool:
        """Whether a token is the right one; Refused for an address that has guessed too often."""
        now = time.monotonic()
        with self._turn:
            wrong = [at for at in self._wrong.get(request.address, ()) if now - at < 60]
            if len(wrong) >= TRIES:
                text = "Too many wrong tokens: wait a minute."
                raise Refused("429 Too Many Requests", text, ("Retry-After", "60"))
            if self._token is not None and hmac.compare_digest(
                hashlib.sha256(token.encode(errors="replace")).digest(),
                hashlib.sha256(self._token.encode()).digest(),
            ):
                return True
            if len(self._wrong) >= _ADDRESSES:
                self._wrong.clear()
            self._wrong[request.address] = [*wrong, now]
        return False

    # --- cookies

    def cookie(self, session: Session, request: "Request", *, signed_in: bool) -> "tuple[str, str]":
        """Return the header that gives a visitor a cookie."""
        until = int(time.time()) + LASTS
        kind = "in" if signed_in else "out"
        text = f"{session.id}.{kind}.{until}"
        return self._set(COOKIE, f"{text}.{self._mac('cookie', text)}", request, LASTS)

    def _read(self, cookie: str) -> "tuple[str, bool]":
        """Return (id, whether it was given for the token) of a cookie of ours; ("", False)."""
        text, _, mac = cookie.rpartition(".")
        id, _, rest = text.partition(".")
        kind, _, until = rest.partition(".")
        if not self._is_mac(mac, "cookie", text) or not until.isdigit():
            return "", False
        if int(until) < time.time():
            return "", False
        return id, kind == "in" and self._token is not None

    def _set(self, name: str, value: str, request: "Request", age: int) -> "tuple[str, str]":
        more = "; Secure" if request.secure else ""
        path = f"{request.mount}/"
        words = f"Path={path}; Max-Age={age}; HttpOnly; SameSite=Strict{more}"
        return "Set-Cookie", f"{name}{request.port}={value}; {words}"

    # --- forms

    def proof(self, session: Session) -> str:
        """Return what a form must carry: it holds for this cookie and this user only."""
        return self._mac("form", f"{session.id} {session.user}")

    def check_proof(self, session: Session, given: str) -> None:
        if not self._is_mac(given, "form", f"{session.id} {session.user}"):
            raise Refused(
                "403 Forbidden", "This form is too old, or not ours: load the page again."
            )

    # --- what was done, told by the next page

    def say(self, text: str, request: "Request") -> "tuple[str, str]":
        words = text[:500].encode(errors="replace").hex()
        return self._set(SAID, f"{words}.{self._mac('said', words)}", request, 60)

    def said(self, request: "Request") -> "tuple[str, list[tuple[str, str]]]":
        """Return what was done, and the header that forgets it."""
        words, _, mac = request.cookie(SAID + request.port).partition(".")
        if not words:
            return "", []
        text = ""
        if self._is_mac(mac, "said", words):
            text = bytes.fromhex(words).decode(errors="replace")
        return text, [self._set(SAID, "", request, 0)]

    def _mac(self, what: str, text: str) -> str:
        message = f"{what}\0{text}".encode(errors="replace")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def _is_mac(self, given: str, what: str, text: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), self._mac(what, text).encode())
