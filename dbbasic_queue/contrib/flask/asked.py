"""What a request says, checked: who sent it, what stands in it."""

import json
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Request, request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST = 8 << 20  # bytes of a request; a payload of 1 MiB in ASCII JSON may be six times as long
LABEL = re.compile(r"[A-Za-z0-9_.-]{1,100}")
WORKER = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,100}")
_LONGEST = 250_000_000_000  # seconds of a delay
_PROXIED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")


class Refused(Exception):
    """A request that is not done."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


# --- who sent it


def is_from_here(asked: Request) -> bool:
    """Whether a request comes from this machine, addressed to it, by no proxy that says so."""
    try:
        local = ip_address(asked.remote_addr or "").is_loopback
    except ValueError:  # a Unix socket, whose other end may be anybody's proxy
        return False
    host = urlsplit(f"//{asked.host}").hostname
    named = host in ("localhost", "127.0.0.1", "::1")  # else a page whose name was pointed here
    return local and named and not any(name in asked.headers for name in _PROXIED)


def is_plain(asked: Request) -> bool:
    """Whether a request without a body was not sent by a page of another site.

    One with JSON needs no such look: a browser asks the application before it sends that.
    """
    site = asked.headers.get("Sec-Fetch-Site", "none")
    origin = asked.headers.get("Origin")
    ours = origin is None or urlsplit(origin).netloc == asked.host
    empty = not asked.content_length and not asked.mimetype
    return empty and ours and site in ("none", "same-origin")


# --- what stands in it


def body(*fields: str) -> "dict[str, Any]":
    """Return the JSON object that was sent; a field that the route does not have is refused."""
    if not request.content_length:
        raise Refused("send a JSON object: the body is empty")
    if request.content_length > LARGEST:
        raise Refused(f"the body is over the limit of {LARGEST} bytes", 413)
    try:
        found = json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(f"the body is no JSON: {why:.200}") from None
    if not isinstance(found, dict):
        raise Refused("send a JSON object")
    for name in found:
        if name not in fields:
            raise Refused(f"{name!r:.80} is no field of this: {', '.join(fields)}")
    return found


def label_in(given: "dict[str, Any]", name: str, pattern: re.Pattern[str] = LABEL) -> str | None:
    value = given.get(name)
    if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
        raise Refused(f"{name}={value!r:.80}: give 1 to 100 letters, digits, _ . or -")
    return value


def seconds_in(given: "dict[str, Any]", name: str, default: float) -> float:
    value = given.get(name, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _LONGEST:
        raise Refused(f"{name}={value!r:.80}: give seconds of at least 0")
    return float(value)


def limit_of(default: int | None) -> int | None:
    text = request.args.get("limit")
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise Refused(f"limit={text!r:.80}: give a number of at least 0")
    return int(text)
