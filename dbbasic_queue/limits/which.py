"""Which jobs a limit is for, and by which value each has a limit of its own."""

from ..after import is_label
from ..errors import BadArgument
from ..job import Job
from ..new import TYPE_CHARS
from ..tsv import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Texts = str | Iterable[str] | None
    Key = str | Callable[[Any], Any] | None

_LONGEST = 100  # characters of a key that are stored as they are


class Which:
    """`type` and `queue`: a text or several, None is any."""

    def __init__(self, type: "Texts", queue: "Texts", key: "Key") -> None:
        self.types = _texts("type", type)
        self.queues = _texts("queue", queue)
        for one in self.types:
            if not (TYPE_CHARS.issuperset(one) and 0 < len(one) <= 100):
                text = "a type is 1 to 100 letters, digits, _ . : or -"
                raise BadArgument(f"type={one!r:.80}: {text}")
        for one in self.queues:
            if not is_label(one):
                text = "a queue is 1 to 100 letters, digits, _ . or -"
                raise BadArgument(f"queue={one!r:.80}: {text}")
        if not (key is None or callable(key) or (isinstance(key, str) and key)):
            raise BadArgument(f"key={key!r:.80} is neither a field of the payload nor a function")
        self.key = key
        self._types = frozenset(one.encode() for one in self.types)
        self._queues = frozenset(one.encode() for one in self.queues)

    def has(self, job: Job) -> bool:
        """Whether the limit is for this job."""
        if self._types and job.cells[1] not in self._types:
            return False
        return not self._queues or (job.raw("queue") or b"default") in self._queues

    def key_of(self, job: Job) -> bytes:
        """Return the value that has its limit with others of the same value; b"" without `key`.

        It is JSON; None, also where the payload has no such field.
        """
        if self.key is None:
            return b""
        payload = job.payload
        if callable(self.key):
            value = self.key(payload)
        else:
            value = _field(payload, self.key)
        text = dump(value, f"the key of job {job.id}")
        if len(text) <= _LONGEST:
            return text
        from hashlib import sha256

        return b"#" + sha256(text).hexdigest().encode()

    def key_of_running(self, job: Job) -> bytes:
        """Return the key of a job that another worker has let start, perhaps without this limit."""
        try:
            return self.key_of(job)
        except Exception:  # the user's function; whoever has no key is limited together
            return b"null"

    def words(self) -> str:
        """Return the arguments that made this, as they stand in a call after others."""
        text = ""
        for name, several in (("type", self.types), ("queue", self.queues)):
            if several:
                text += f", {name}={(several[0] if len(several) == 1 else several)!r}"
        if callable(self.key):
            text += f", key={getattr(self.key, '__qualname__', 'function')}"
        elif self.key:
            text += f", key={self.key!r}"
        return text

    def name(self) -> str:
        """Return a text that these words have in common with no others; BadArgument for a function
        without a name of its own.
        """
        key = self.key or ""
        if callable(self.key):
            key = f"{self.key.__module__}.{getattr(self.key, '__qualname__', '<')}"
            if "<" in key:  # <lambda>, <locals>
                raise BadArgument(f"key={self.key!r:.80} has no name: give name= too")
        from hashlib import sha256

        words = repr((sorted(self.types), sorted(self.queues), callable(self.key), key))
        plain = "+".join([*self.types, *self.queues]).replace(":", "_")[:60] or "all"
        return f"{plain}-{sha256(words.encode()).hexdigest()[:8]}"


def _field(payload: "Any", name: str) -> "Any":
    """Return a field of a payload; of a call of a task, the argument given by that name."""
    if (
        isinstance(payload, dict)
        and name not in payload
        and isinstance(payload.get("kwargs"), dict)
    ):
        payload = payload["kwargs"]
    return payload.get(name) if isinstance(payload, dict) else None


def _texts(what: str, given: "Texts") -> list[str]:
    if given is None:
        return []
    several = [given] if isinstance(given, str) else given
    try:
        texts = list(dict.fromkeys(several))
    except TypeError:
        texts = []
    if not texts or not all(isinstance(one, str) for one in texts):
        raise BadArgument(f"{what}={given!r:.80} is no text, nor several")
    return texts
