"""Permissions: what a job needs stands in its column `needs`, what a worker may is told to it.

They keep a job away from a worker that is not meant for it, not from somebody who writes the file.
"""

from contextlib import contextmanager
from types import FunctionType

from ..after import is_label
from ..errors import BadArgument, Discard
from ..layers import layer_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..admit import Counts
    from ..job import Job
    from ..queue import Admit, Layer


def needs(*permissions: str) -> dict[str, str]:
    """Return columns for enqueue: a worker has to have all of these permissions.

    A permission is 1 to 100 letters, digits, _ . or -.  BadArgument names one that is not.
    """
    words = _checked(permissions)
    return {"needs": " ".join(words)} if words else {}


def authorized(*permissions: str, check: "Callable[[Job], bool] | None" = None) -> "Layer":
    """Return a layer for a worker with these permissions: a job that needs more fails at once, and
    its error says what.

    So does one of which `check(job)` is not true.
    """
    has = frozenset(_checked(permissions))
    if check is not None and not callable(check):
        raise BadArgument(f"check={check!r:.80} is no function")

    @contextmanager
    def around(job: "Job") -> "Iterator[None]":
        lacks = [word for word in job.cell("needs").split() if word not in has]
        if lacks:
            raise Discard(f"not authorized: it needs {', '.join(lacks)}")
        if check is not None and not check(job):
            raise Discard(f"not authorized: refused by {getattr(check, '__name__', repr(check))}")
        yield

    return layer_of(around)


def permitted(*permissions: str) -> "Admit":
    """Return an `admit` function: jobs that need more than these are left for another worker.

    BadArgument where it is called as a layer: there it would run no job at all.
    """
    has = frozenset(_checked(permissions))

    def admit(job: "Job", counts: "Counts") -> bool | None:
        if isinstance(counts, FunctionType):  # the `call_next` of a layer
            raise BadArgument("permitted(…) is for admit=[…]; the layer is authorized(…)")
        return None if has.issuperset(job.cell("needs").split()) else False

    return admit


def _checked(permissions: tuple[str, ...]) -> list[str]:
    for word in permissions:
        if not is_label(word):
            raise BadArgument(f"{word!r:.80} is no permission: 1 to 100 letters, digits, _ . or -")
    return list(dict.fromkeys(permissions))
