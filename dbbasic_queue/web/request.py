"""What a browser has asked for, bounded and checked: nothing here looks at the queue."""

import urllib.parse
from http.cookies import CookieError, SimpleCookie

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

LOCAL = ("localhost", "127.0.0.1", "[::1]")
LONGEST_QUERY = 4096  # characters
LONGEST_VALUE = 1000
LARGEST_BODY = 1 << 16
_MOST_FIELDS = 40
_COOKIES = 8192


class Refused(Exception):
    """A request that is not answered with what it asks for."""

    def __init__(self, status: str, text: str, *headers: "tuple[str, str]") -> None:
        super().__init__(text)
        self.status = status
        self.headers = list(headers)


class Request:
    """One request.  `path` is below the mount point, without its slash; `mount` may be ""."""

    def __init__(self, environ: "dict[str, Any]") -> None:
        self.environ = environ
        self.method = environ["REQUEST_METHOD"]
        name = environ.get("SCRIPT_NAME", "").encode("latin-1", "replace").strip(b"/")
        self.mount = "/" + urllib.parse.quote(name) if name else ""
        self.path: str = environ.get("PATH_INFO", "")[1:]
        self.query: dict[str, str] = {}
        self.secure = environ.get("wsgi.url_scheme") == "https"

    def read_query(self) -> None:
        """Read the first value of each name; Refused where it is longer than any of ours."""
        text = self.environ.get("QUERY_STRING", "")
        if len(text) > LONGEST_QUERY:
            raise Refused("414 URI Too Long", "The address is too long.")
        self.query = fields_of(text)

    def check_host(self, hosts: "Iterable[str]") -> None:
        """Refuse names that this server is not known by: another's, that was made to mean it."""
        given = self.environ.get("HTTP_HOST", "")
        name = host_of(given)
        if not name or (name not in LOCAL and name not in hosts and "*" not in hosts):
            text = f"The host name {name[:80]!r} is not one of this dashboard."
            raise Refused("421 Misdirected Request", f"{text}  (hosts=, or --allow)")

    def check_origin(self) -> None:
        """Refuse a change that another site's page has sent."""
        site = self.environ.get("HTTP_SEC_FETCH_SITE", "same-origin")
        origin = self.environ.get("HTTP_ORIGIN")
        if site != "same-origin":
            raise Refused("403 Forbidden", "This came from another site.")
        if origin is not None:
            host = origin.partition("://")[2]
            if not host or host.lower() != self.environ.get("HTTP_HOST", "").lower():
                raise Refused("403 Forbidden", "This came from another site.")

    def form(self) -> "dict[str, str]":
        """Return the fields of a form that was sent."""
        kind = self.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise Refused("415 Unsupported Media Type", "Only forms are taken here.")
        length = self.environ.get("CONTENT_LENGTH") or ""
        if not length:
            raise Refused("411 Length Required", "The length of the form is not given.")
        if not (length.isascii() and length.isdigit()):
            raise Refused("400 Bad Request", "The length of the form is no number.")
        if len(length) > 9 or int(length) > LARGEST_BODY:
            raise Refused("413 Content Too Large", "The form is too large.")
        body = self.environ["wsgi.input"].read(int(length))
        if len(body) < int(length):
            raise Refused("400 Bad Request", "The form is cut off.")
        return fields_of(body.decode("latin-1"))

    def cookie(self, name: str) -> str:
        """Return a cookie, "" where there is none."""
        text = self.environ.get("HTTP_COOKIE", "")
        try:
            found = SimpleCookie(text if len(text) <= _COOKIES else "").get(name)
        except CookieError:
            return ""
        return found.value if found else ""

    @property
    def port(self) -> str:
        """The port that the browser has asked, "" for the usual one: cookies do not tell ports."""
        port = self.environ.get("HTTP_HOST", "").rpartition(":")[2]
        return port if port.isascii() and port.isdigit() else ""

    @property
    def address(self) -> str:
        return str(self.environ.get("REMOTE_ADDR", ""))


def fields_of(text: str) -> "dict[str, str]":
    """Return the first value of each name in a query or a form; Refused for too many, too long."""
    try:
        pairs = urllib.parse.parse_qsl(
            text, keep_blank_values=True, errors="replace", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise Refused("400 Bad Request", "There are too many fields.") from None
    if any(len(value) > LONGEST_VALUE or len(name) > 40 for name, value in pairs):
        raise Refused("400 Bad Request", "A value is too long.")
    return dict(reversed(pairs))


def host_of(given: str) -> str:
    """Return the name in a Host header, without the port; "" for what is none."""
    if len(given) > 260 or any(letter in given for letter in "/@\\ ?#,"):
        return ""
    begin, colon, port = given.rpartition(":")
    name = begin if colon and port.isdigit() else given
    return name.rstrip(".").lower()
