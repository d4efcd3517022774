"""A call of a function as a payload, `{"args": [...], "kwargs": {...}}`, and back.

What JSON would give back as something else is refused before anything is written, by the name of
the argument; what does not fit the function any more ends the job when it runs.
"""

import inspect
from inspect import BoundArguments, Parameter, Signature

from .errors import BadArgument, Discard
from .new import new_job
from .tsv import check_plain, dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

LONGEST_KEY = 200  # characters; a longer one is digested


def signature_of(function: "Callable[..., Any]") -> Signature:
    """Return what a function takes; BadArgument where it does not say."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as problem:
        raise BadArgument(f"{function!r:.80} cannot be a task: {problem}") from None


def check_job(job: "Mapping[str, Any]") -> None:
    """Raise BadArgument when `enqueue(**job)` would, whatever the file."""
    new_job(**job)


def as_payload(
    task: str, signature: Signature, args: "tuple[Any, ...]", kwargs: "Mapping[str, Any]"
) -> "dict[str, Any]":
    """Return a call as a payload; BadArgument that names the task and what is wrong with it."""
    for name, value in bind(task, signature, args, kwargs).items():
        _check_json(value, f"task {task}: its argument {name}")
    return {"args": list(args), "kwargs": dict(kwargs)}


def bind(
    task: str, signature: Signature, args: "tuple[Any, ...]", kwargs: "Mapping[str, Any]"
) -> "dict[str, Any]":
    """Return the arguments of a call by name, those of `*args` as one list.

    Of `**kwargs` a name that is a parameter's too, which a positional one allows, gets two stars.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as problem:
        raise BadArgument(f"task {task}: {problem}") from None
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is Parameter.VAR_KEYWORD:
            for one, its_value in value.items():
                named[f"**{one}" if one in signature.parameters else one] = its_value
        else:
            named[name] = list(value) if kind is Parameter.VAR_POSITIONAL else value
    return named


def _check_json(value: "Any", what: str) -> None:
    check_plain(value, what)
    back = load(dump(value, what))
    if back != value:
        raise BadArgument(f"{what} is {value!r:.80}, which JSON gives back as {back!r:.80}")


def key_of(task: str, signature: Signature, payload: "Mapping[str, Any]") -> str:
    """Return a text that is the same for the same arguments, however they are given."""
    import json

    named = bind(task, signature, payload["args"], payload["kwargs"])
    for name, parameter in signature.parameters.items():
        default = parameter.default
        if name in named and type(named[name]) is type(default) and named[name] == default:
            del named[name]
    text = json.dumps(named, sort_keys=True, ensure_ascii=False)
    if len(text) <= LONGEST_KEY:
        return text
    from hashlib import sha256

    return sha256(text.encode(errors="surrogatepass")).hexdigest()


def from_payload(task: str, signature: Signature, payload: "Any") -> BoundArguments:
    """Return the arguments of the call that a payload holds; Discard where it holds none.

    Without a payload it is a call without arguments.
    """
    payload = {} if payload is None else payload
    good = isinstance(payload, dict) and payload.keys() <= {"args", "kwargs"}
    args, kwargs = (payload.get("args", []), payload.get("kwargs", {})) if good else ([], {})
    if not good or not isinstance(args, list) or not isinstance(kwargs, dict):
        text = 'the payload is no call: a task takes {"args": [...], "kwargs": {...}}'
        raise Discard(f"task {task}: {text}")
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as problem:
        raise Discard(f"task {task}: {problem}") from None
