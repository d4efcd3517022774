"""A server for one machine: the standard library's, on threads."""

import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ..errors import QueueError
from .app import dashboard

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from typing import Any

    from .. import Queue

_MOST = 32  # requests at once; more are hung up on
_TRIES = 50  # ports
_PATIENCE = 20  # seconds for a request to come, and for a client to take the answer


class Server(ThreadingMixIn, WSGIServer):
    """One thread for each request, and not too many."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: "tuple[str, int]", handler: "Any") -> None:
        self._room = threading.BoundedSemaphore(_MOST)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """As in the library, but without asking the DNS for a name."""
        import socketserver

        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: "Any", client_address: "Any") -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: "Any", client_address: "Any") -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: "Any", client_address: "Any") -> None:
        """Say nothing of a browser that has gone away."""


class _Server6(Server):
    import socket

    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, *given: "Any") -> None:
        """No line for each request: a token may stand in it."""

    def address_string(self) -> str:
        return str(self.client_address[0])


def listening(application: "Any", host: str, port: int, *, search: bool = True) -> Server:
    """Return a server that listens; where the port is taken, on the next free one."""
    kind = _Server6 if ":" in host else Server
    for tried in range(port, port + (_TRIES if search and port else 1)):
        try:
            server = kind((host, tried), _Handler)
        except (OSError, OverflowError) as error:
            problem = error
        else:
            server.set_app(_named(application))
            return server
    reason = getattr(problem, "strerror", None) or problem
    raise QueueError(f"{host}:{port}: cannot be listened on: {reason}")


def _named(application: "Any") -> "Any":
    """Return the application with a Server header that tells no versions."""

    def answer(environ: "dict[str, Any]", start_response: "Any") -> "Any":
        def start(status: str, headers: "list[tuple[str, str]]") -> "Any":
            return start_response(status, [*headers, ("Server", "dbbasic-queue")])

        return application(environ, start)

    return answer


def serve(
    queue_file: "Queue | str | os.PathLike[str] | None" = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    search: bool = True,
    ready: "Callable[[str], object] | None" = None,
    hosts: "Iterable[str]" = (),
    **given: "Any",
) -> None:
    """Serve the dashboard of a queue until Ctrl-C; the other arguments are those of `dashboard`.

    `ready` is called with the address once it can be opened.  With `search`, a port that is taken
    is no error: the next free one is used.
    """
    known = [host.lower(), f"[{host.lower()}]"] if host not in ("0.0.0.0", "::", "") else []
    application = dashboard(queue_file, hosts=[*known, *hosts], **given)
    server = listening(application, host, port, search=search)
    threading.Thread(target=application.warm, daemon=True).start()
    name = f"[{host}]" if ":" in host else host
    try:
        if ready is not None:
            ready(f"http://{name}:{server.server_address[1]}/")
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
