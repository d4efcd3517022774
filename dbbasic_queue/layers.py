"""Layers around a call: `layer(job, call_next)` calls `call_next(job)`, or not; what is async."""

from .errors import BadArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from .job import Job
    from .queue import Layer

CALL = "__call__"


def check_layers(layers: "Sequence[Layer]") -> None:
    """BadArgument for what is no list of layers, as a function that was to be called first."""
    if not hasattr(layers, "__iter__") or not all(map(callable, layers)):
        raise BadArgument(f"middleware={layers!r:.80} is no list of functions")
    for layer in layers:
        code = getattr(layer, "__code__", None)  # of plain functions; methods and objects pass
        if code is None or hasattr(layer, "__self__") or code.co_flags & 0x04:  # CO_VARARGS
            continue
        takes, usual = code.co_argcount, len(layer.__defaults__ or ())
        if takes < 2 or takes - usual > 2 or takes == usual:
            name = getattr(layer, "__name__", "it")
            raise BadArgument(
                f"middleware has {layer!r:.80}, which does not take (job, call_next): is {name}(…)"
                " meant?"
            )


def inside(layers: "Sequence[Layer]", call: "Callable[[Job], Any]") -> "Callable[[Job], Any]":
    """Return a call inside its layers, the first one outermost."""
    for layer in reversed(layers):
        call = _around(layer, call)
    return call


def _around(layer: "Layer", call: "Callable[[Job], Any]") -> "Callable[[Job], Any]":
    """Give an `async def` layer something to await, any other one a result."""

    async def awaited(job: "Job") -> "Any":
        result = call(job)
        return await result if hasattr(result, "__await__") else result

    if is_async(layer):
        return lambda job: layer(job, awaited)
    return lambda job: layer(job, lambda job: result_of(call(job)))


def layer_of(around: "Callable[[Job], AbstractContextManager[object]]") -> "Layer":
    """Return a layer that runs each job, plain or async, inside `with around(job):`.

    `around` is mostly a function with one `yield` under `contextlib.contextmanager`: what stands
    before it runs before the handler, and what a handler raises comes up at it.
    """

    def layer(job: "Job", call_next: "Callable[[Job], Any]") -> "Any":
        with around(job):
            return call_next(job)

    async def layer_awaiting(job: "Job", call_next: "Callable[[Job], Any]") -> "Any":
        with around(job):
            return await call_next(job)

    layer.__doc__ = around.__doc__
    return with_twin(layer, layer_awaiting)


def with_twin(layer: "Layer", awaiting: "Layer") -> "Layer":
    """Return a plain layer, with the `async def` one that takes its place where handlers are."""
    layer.awaiting = awaiting  # type: ignore[attr-defined]
    return layer


def awaiting(layer: "Layer") -> "Layer":
    """Return the `async def` twin that a layer has, else the layer itself."""
    return getattr(layer, "awaiting", layer)


def result_of(result: "Any") -> "Any":
    """Return a result; of a coroutine what it returns, run in a loop of its own."""
    if not hasattr(result, "__await__"):
        return result
    import asyncio

    async def finish() -> "Any":
        return await result

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(finish())
    if hasattr(result, "close"):
        result.close()
    raise BadArgument(
        "something async was started inside a running loop, by a layer that is no `async def` or by"
        " a call of process_jobs in a coroutine"
    )


def is_async(function: "Any") -> bool:
    """Whether a function, or an object's call, is an `async def`."""
    for one in (getattr(function, "__func__", function), getattr(type(function), CALL, None)):
        if getattr(getattr(one, "__code__", None), "co_flags", 0) & 0x80:  # CO_COROUTINE
            return True
    return False
