"""The files that pages load: few, known by name, from this package."""

import hashlib
from functools import cache
from pathlib import Path

KINDS = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@cache
def static(name: str) -> "tuple[bytes, str, str] | None":
    """Return (content, type, ETag) of a file; None for any other name."""
    if name not in KINDS:
        return None
    content = (Path(__file__).parent / "static" / name).read_bytes()
    return content, KINDS[name], f'"{hashlib.sha256(content).hexdigest()[:20]}"'
