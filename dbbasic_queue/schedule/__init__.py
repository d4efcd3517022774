"""Jobs that come again: by a cron expression, every so many seconds, or when a function says.

A schedule is a row of type `schedule` that waits for its next slot.  When it runs it adds, in one
edit, the job and the row of the slot after that, both marked NAME@SLOT: nothing twice, nothing
lost.  Nothing is imported here before it is used, as each idle tick comes by.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..queue import Handlers
    from .declare import add_schedule as add_schedule
    from .declare import pause_schedule as pause_schedule
    from .declare import remove_schedule as remove_schedule
    from .declare import resume_schedule as resume_schedule
    from .declare import run_now as run_now
    from .fire import slot as slot
    from .look import Schedule as Schedule
    from .look import next_runs as next_runs
    from .look import schedules as schedules

_ROOMS = {
    "add_schedule": "declare",
    "pause_schedule": "declare",
    "remove_schedule": "declare",
    "resume_schedule": "declare",
    "run_now": "declare",
    "slot": "fire",
    "Schedule": "look",
    "next_runs": "look",
    "schedules": "look",
}


def __getattr__(name: str) -> "Any":
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def serving(
    handlers: "Handlers", functions: "Mapping[str, Callable[..., Any]] | None" = None
) -> "Handlers":
    """Return these handlers, and one for the rows of schedules: give it to `process_jobs`.

    A worker without it leaves such rows pending.  `functions`: what `next=` names stands for, each
    fn(slot) -> the slot after it, as an aware datetime or Unix seconds, or None when there is none.
    `slot` is an aware datetime in the schedule's zone.  BadArgument when there is a handler for the
    type `schedule` already.
    """
    if "schedule" in handlers:
        from ..errors import BadArgument

        raise BadArgument("handlers has a handler for the type schedule already")
    for name, function in (functions or {}).items():
        if not callable(function):
            from ..errors import BadArgument

            raise BadArgument(f"functions[{name!r}]={function!r:.80} is no function")
    known = dict(functions or {})

    def fire(payload: "Any") -> "Any":
        from .fire import fire

        return fire(known)

    own = {"schedule": fire}
    if type(handlers) is dict:
        return handlers | own
    from collections import ChainMap

    return ChainMap(own, handlers)  # type: ignore[arg-type]  # it writes into the first one only
