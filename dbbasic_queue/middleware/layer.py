"""A layer, plain and `async def`, made of one piece of code."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

    from ..job import Job
    from ..queue import Layer

    Around = Callable[[Job], AbstractContextManager[object]]


def layer_of(around: "Around") -> "Layer":
    """Return a layer that runs each job inside `with around(job):`.

    `around` is mostly a function with one `yield` under `contextlib.contextmanager`: what stands
    before it runs before the handler, and what a handler raises comes up at it.
    """

    def layer(job: "Job", call_next: "Callable[[Job], Any]") -> "Any":
        with around(job):
            return call_next(job)

    async def awaiting(job: "Job", call_next: "Callable[[Job], Any]") -> "Any":
        with around(job):
            return await call_next(job)

    layer.awaiting = awaiting  # type: ignore[attr-defined]
    return layer
