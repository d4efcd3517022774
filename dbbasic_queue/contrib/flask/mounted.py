"""The dashboard under a path of a Flask application, behind the same question as its routes."""

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ...errors import BadArgument
from .asked import is_from_here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_WHO = "dbbasic_queue.who"  # no header of a client becomes this: theirs begin with HTTP_


def who(environ: "WSGIEnvironment") -> object:
    """Return the name that `auth` gave, True where it was none; None when it was not asked."""
    return environ.get(_WHO)


def mount(
    app: Flask, path: str, pages: "WSGIApplication", auth: "Callable[[Request], object] | None"
) -> None:
    """Serve `pages` under a path, and ask `auth` before each, in the application's context.

    It must not read the body of the request: that is the page's.
    """
    if not isinstance(path, str) or not path.strip("/") or path[0] != "/" or path[-1] == "/":
        raise BadArgument(f"dashboard={path!r:.80} is no path such as '/queue'")

    def guarded(environ: "WSGIEnvironment", start: "StartResponse") -> "Iterable[bytes]":
        # a copy: the names below the mount point are the dashboard's, not the application's
        with app.request_context(dict(environ)):
            try:
                allowed = is_from_here(request) if auth is None else auth(request)
            except HTTPException as refused:
                return refused(environ, start)
            if not allowed:
                return Response("not allowed\n", 403, mimetype="text/plain")(environ, start)
        environ[_WHO] = allowed if isinstance(allowed, str) else True
        return pages(environ, start)

    inner = app.wsgi_app
    app.wsgi_app = DispatcherMiddleware(inner, {path: guarded})  # type: ignore[method-assign]
