"""A sign of life for who watches from outside: one GET, as healthchecks.io wants it."""

from urllib.parse import urlsplit

from ..errors import BadArgument
from ..show import visible

PATIENCE = 5  # seconds


def checked(url: str) -> str:
    """Return a URL that can be asked; BadArgument for another."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = None
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise BadArgument("--ping wants a URL that begins with http:// or https://")
    return url


def ping(url: str) -> str:
    """Ask for a URL; return "" when that went well, else what went wrong, without its secret."""
    from urllib import request  # here, since it takes long to import

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler, request.UnknownHandler, request.HTTPHandler,
        request.HTTPSHandler, request.HTTPDefaultErrorHandler, request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    place = urlsplit(url).hostname
    try:
        with opener.open(url, timeout=PATIENCE) as answer:
            answer.read(1 << 16)
    except Exception as error:  # http.client and ssl have many
        return visible(f"the ping to {place} did not arrive: {type(error).__name__}: {error}")
    return ""
