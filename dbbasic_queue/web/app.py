"""The WSGI application: from a request to a page, a page that says what is wrong, or a change.

GET changes nothing.  A change is a POST of one of our forms, by somebody who may, and is logged.
"""

import hashlib
import logging
import os

from .. import Queue, QueueError
from ..errors import BadArgument, NotStored, QueueBusy, UnknownJob
from ..here import queue_here
from ..show import visible
from ..stats import Figures
from .actions import act
from .html import Safe, join
from .layout import document, login, notice
from .pages import batches, confirm, job, jobs, metrics, overview, schedules, workers
from .request import Refused, Request
from .session import Door, Session
from .static import static
from .view import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Headers = list[tuple[str, str]]
    Answer = tuple[str, Headers, bytes]
    Application = Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]

log = logging.getLogger("dbbasic_queue")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SAFETY = [
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # not no-referrer: with it browsers say "Origin: null" of our own forms too
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
]
HTML = ("Content-Type", "text/html; charset=utf-8")
PAGES_OF: "dict[str, Any]" = {
    module.__name__.rpartition(".")[2]: module
    for module in (overview, jobs, job, confirm, batches, schedules, workers, metrics)
}
_TWICE = 30  # seconds after which a page that did not change is told anew: its "5m ago" did


def dashboard(
    queue_file: "Queue | str | os.PathLike[str] | None" = None,
    *,
    token: str | None = None,
    auth: "Callable[[dict[str, Any]], Any] | None" = None,
    hosts: "Iterable[str]" = (),
    read_only: bool = False,
    private: bool = False,
    title: str = "",
    secret: "str | bytes | None" = None,
) -> "Dashboard":
    """Return the dashboard of a queue as a WSGI application, which may be mounted anywhere.

    Without `token` and `auth` it only shows.  `auth(environ)` returns the name of who may look and
    change, or None, who then is shown nothing; without it everybody may look, unless `private`,
    and whoever has given the `token` may change.  `hosts`: names of this server besides localhost,
    "*" for any.  `secret` signs cookies and forms: give one where several processes serve, and
    there is no token.
    """
    door = Door(token, auth, secret, read_only=read_only, private=private)
    if isinstance(hosts, str):
        raise BadArgument(f"hosts={hosts!r:.80}: give a list of names")
    queue = queue_file
    if queue is None or isinstance(queue, Queue):
        queue = queue_here(queue)
    else:
        queue = Queue(queue)
    return Dashboard(queue, door, frozenset(host.lower() for host in hosts), title)


class Dashboard:
    """The application of one queue file."""

    def __init__(self, queue: Queue, door: Door, hosts: "frozenset[str]", title: str) -> None:
        self.queue = queue
        self.figures = Figures(queue)
        self._door = door
        self._hosts = hosts
        self._title = title

    def warm(self) -> None:
        """Read the queue once, so that the first page is as quick as the others."""
        try:
            self.figures.look()
        except (QueueError, OSError):
            pass  # the page will say it

    def __call__(self, environ: "dict[str, Any]", start_response: "Any") -> "list[bytes]":
        request = Request(environ)
        status, headers, body = self._safely(request)
        if not any(name == "Cache-Control" for name, _ in headers):
            headers.append(("Cache-Control", "no-store"))
        if not status.startswith("304"):
            headers.append(("Content-Length", str(len(body))))
        start_response(status, SAFETY + headers)
        return [] if request.method == "HEAD" or not body else [body]

    def _safely(self, request: Request) -> "Answer":
        """Answer; whatever goes wrong is a page too."""
        view = self._view(request, None)
        try:
            request.check_host(self._hosts)
            request.read_query()
            session = self._door.session(request)
            view = self._view(request, session)
            return self._answer(request, session, view)
        except Refused as no:
            return _said(view, no.status, str(no), *no.headers)
        except (QueueError, OSError) as error:
            return _said(view, *_meaning(error))
        except Exception:
            _log_bug(request)
            text = "Something is wrong with this page. The log of the dashboard says what."
            return _said(view, "500 Internal Server Error", text)

    def _view(self, request: Request, session: "Session | None") -> View:
        may_change = session is not None and self._door.may_change(session)
        return View(
            self.queue,
            self.figures,
            request.query,
            mount=request.mount,
            page=request.path or "overview",
            may_change=may_change,
            user=session.user if session else None,
            proof=self._door.proof(session) if session else "",
            title=self._title,
            can_sign_in=self._door.has_token,
        )

    # --- which page

    def _answer(self, request: Request, session: Session, view: View) -> "Answer":
        path = request.path
        if path.startswith("static/"):
            return _file(request, path.removeprefix("static/"))
        if path == "login":
            _check_method(request, "GET", "HEAD", "POST")
            return self._login(request, session, view)
        if path == "do":
            _check_method(request, "POST")
            return self._do(request, session, view)
        if path not in ("", *PAGES_OF) or path == "overview":
            self._door.check_may_see(session)
            return _said(view, "404 Not Found", "There is no such page.")
        _check_method(request, "GET", "HEAD")
        if "token" in request.query and self._door.has_token:
            given = {name: one for name, one in request.query.items() if name != "token"}
            return self._sign_in(request, session, view, view.url(view.page, **given))
        if request.environ.get("PATH_INFO") == "" and request.mount:
            return _to(view.url(**request.query))
        if session.user is None and self._door.has_token:
            try:
                self._door.check_may_see(session)
            except Refused:
                return _to(view.url("login"))
        self._door.check_may_see(session)
        return self._page(request, session, view)

    def _page(self, request: Request, session: Session, view: View) -> "Answer":
        tag = self._tag(request, session, view)
        said, headers = self._door.said(request)
        if not said and tag in request.environ.get("HTTP_IF_NONE_MATCH", ""):
            return "304 Not Modified", [("ETag", tag)], b""
        title, body = PAGES_OF[view.page].page(view)
        if not os.path.exists(self.queue.path):
            text = f"There is no queue at {self.queue.path} yet: the first job makes it."
            body = join(notice(text), body)
        headers = [HTML, ("ETag", tag), *headers]
        if session.is_new and view.may_change:
            headers.append(self._door.cookie(session, request, signed_in=False))
        return "200 OK", headers, document(view, title, body, said)

    def _tag(self, request: Request, session: Session, view: View) -> str:
        """Return what stays the same for as long as the page does."""
        parts = [
            self.figures.version(), request.environ.get("QUERY_STRING", ""), request.path,
            int(view.now // _TWICE), view.may_change, session.user,
            session.id if session.user is not None else "",
        ]  # fmt: skip
        if request.path == "job":
            job = self.queue.get(request.query.get("id", ""))
            parts.append(job.cells if job else None)
        text = repr(parts).encode(errors="replace")
        return f'W/"{hashlib.sha256(text).hexdigest()[:24]}"'

    # --- coming in

    def _login(self, request: Request, session: Session, view: View) -> "Answer":
        if not self._door.has_token:
            return _said(view, "404 Not Found", "There is no token to sign in with.")
        if request.method != "POST":
            if "token" in request.query:
                return self._sign_in(request, session, view, view.url())
            return "200 OK", [HTML], document(view, "Sign in", login(view))
        request.check_origin()
        request.query = request.form()
        return self._sign_in(request, session, view, view.url())

    def _sign_in(self, request: Request, session: Session, view: View, to: str) -> "Answer":
        """Give a cookie for the token; it leaves the address bar."""
        if not self._door.is_right(request.query.get("token", ""), request):
            log.warning("dashboard: a wrong token from %s", visible(request.address))
            page = document(view, "Sign in", login(view, wrong=True))
            return "403 Forbidden", [HTML], page
        fresh = Session(os.urandom(16).hex(), "token", is_new=True)
        return _to(to, self._door.cookie(fresh, request, signed_in=True))

    # --- changes

    def _do(self, request: Request, session: Session, view: View) -> "Answer":
        request.check_origin()
        fields = request.form()
        self._door.check_may_see(session)
        if fields.get("action") == "sign_out":
            self._door.check_proof(session, fields.get("proof", ""))
            fresh = Session(os.urandom(16).hex(), None, is_new=True)
            return _to(view.url(), self._door.cookie(fresh, request, signed_in=False))
        if not self._door.may_change(session):
            raise Refused("403 Forbidden", "You may look, but not change anything.")
        self._door.check_proof(session, fields.get("proof", ""))
        view.query = fields
        done = act(view, fields, f"{session.user} at {request.address}")
        if isinstance(done.body, Safe):  # it is to be asked again
            return "409 Conflict", [HTML], document(view, done.text, done.body)
        return _to(done.to, self._door.say(done.text, request))


# --- answers


def _file(request: Request, name: str) -> "Answer":
    _check_method(request, "GET", "HEAD")
    found = static(name)
    if found is None:
        raise Refused("404 Not Found", "There is no such file.")
    content, kind, tag = found
    headers = [("ETag", tag), ("Cache-Control", "max-age=0, must-revalidate")]
    if tag in request.environ.get("HTTP_IF_NONE_MATCH", ""):
        return "304 Not Modified", headers, b""
    return "200 OK", [*headers, ("Content-Type", kind)], content


def _check_method(request: Request, *allowed: str) -> None:
    if request.method not in allowed:
        text = "This cannot be done here."
        raise Refused("405 Method Not Allowed", text, ("Allow", ", ".join(allowed)))


def _to(url: str, *headers: "tuple[str, str]") -> "Answer":
    return "303 See Other", [("Location", url), HTML, *headers], b""


def _log_bug(request: Request) -> None:
    """Log what went wrong, each line escaped: none can be forged by a job."""
    import traceback

    lines = map(visible, traceback.format_exc().rstrip("\n").split("\n"))
    where = visible(f"{request.method:.20} /{request.path:.200}")
    log.error("dashboard: %s\n    %s", where, "\n    ".join(lines))


def _said(view: View, status: str, text: str, *headers: "tuple[str, str]") -> "Answer":
    title = status.partition(" ")[2]
    return status, [HTML, *headers], document(view, title, notice(text))


def _meaning(error: "QueueError | OSError") -> "tuple[str, str]":
    """Return the status and the words of an error of the queue."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        log.error("dashboard: %s", visible(repr(error)))
        return "500 Internal Server Error", f"{where}{error.strerror or type(error).__name__}"
    kinds = (
        (UnknownJob, "404 Not Found"),
        (BadArgument, "400 Bad Request"),
        (QueueBusy, "503 Service Unavailable"),
        (NotStored, "507 Insufficient Storage"),
    )
    status = next((one for kind, one in kinds if isinstance(error, kind)), "")
    return status or "500 Internal Server Error", str(error)
