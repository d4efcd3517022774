"""The command that serves the dashboard: it shows without a token, and changes with one."""

import os
import stat
import sys

from .. import Queue
from .output import Output, flush, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

VARIABLE = "DBBASIC_QUEUE_TOKEN"
PORT = 8000
_LOCAL = ("127.0.0.1", "localhost", "::1")


def dashboard(queue: Queue, given: "Namespace", out: Output) -> int:
    """Serve the dashboard until Ctrl-C, and print its address."""
    from ..web import serve  # here, since no other command needs it

    private = given.host not in _LOCAL or not _may_others_read(queue.path)
    own = given.token or os.environ.get(VARIABLE) or None
    token = own
    if token is None and (private or not given.read_only):
        import secrets

        token = secrets.token_urlsafe(24)

    def ready(url: str) -> None:
        out.place(queue.path)
        # one's own token is known already; it need not stand on a screen, or in a log
        key = f"?token={token}" if token and own is None else ""
        if out.json:
            out.document({"url": url + key, "file": queue.path})
        else:
            out.line(url + key)
        flush(sys.stdout)
        if private:
            tell("nothing is shown to who has not signed in")
        elif token and not given.read_only:
            tell(f"to look is free at {url}; to change something takes the token")
        else:
            tell("read-only; Ctrl-C ends it")

    serve(
        queue, host=given.host, port=PORT if given.port is None else given.port,
        search=given.port is None, ready=ready, hosts=given.allow, token=token,
        read_only=given.read_only, private=private, title=given.title,
    )  # fmt: skip
    return 0


def _may_others_read(path: str) -> bool:
    """Whether every user of this machine may read the queue anyway."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except FileNotFoundError:
        umask = os.umask(0o077)
        os.umask(umask)
        return not umask & stat.S_IROTH
    except OSError:
        return False


def add_words(add: "Callable[..., ArgumentParser]") -> None:
    """Add the words of this command."""
    p = add(
        "dashboard", dashboard, "Show the queue in a browser, until Ctrl-C.",
        """dashboard
           dashboard --read-only
           dashboard --port 9000 --title orders
           dashboard --host 0.0.0.0 --allow queue.example.com""",
        "Open the address that it prints: the token in it lets you retry, cancel and delete.\n"
        "Without the token it only shows, and where others may not read the file, not even that.\n"
        "Over a network use ssh -L 8000:127.0.0.1:8000 HOST, or a proxy with TLS.",
    )  # fmt: skip
    p.add_argument("--host", default="127.0.0.1", help="the address to listen at (%(default)s)")
    free = f"the port (default: {PORT}, or the next free one; 0: any)"
    p.add_argument("--port", type=int, metavar="N", help=free)
    p.add_argument("--token", help=f"your own token (default: ${VARIABLE}, else a new one)")
    p.add_argument("--read-only", action="store_true", help="let nobody change anything")
    name = "another name of this server; may be given several times"
    p.add_argument("--allow", action="append", default=[], metavar="HOST", help=name)
    p.add_argument("--title", default="", help="what stands on top of each page")
