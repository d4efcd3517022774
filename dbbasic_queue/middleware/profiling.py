"""`profiled`: where each run spends its time, as a file for `pstats`."""

import os
from types import coroutine

from ..layers import with_twin
from ..log import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from cProfile import Profile
    from typing import Any

    from ..job import Job
    from ..queue import Layer


def profiled(folder: "str | os.PathLike[str]") -> "Layer":
    """Return a layer that writes a profile of each run to `folder/ID-ATTEMPT.prof`.

    Also when the run raised; `python -m pstats FILE` reads it.  Side by side each job has only its
    own turns of the event loop in it.  Where another profiler is on, or the folder cannot be
    written, that is logged and the job runs as ever.
    """
    where = os.path.abspath(os.fspath(folder))

    def profile(job: "Job", call_next: "Callable[[Job], Any]") -> "Any":
        from cProfile import Profile

        found = Profile()
        is_on = _on(found, job)
        try:
            return call_next(job)
        finally:
            if is_on:
                found.disable()
                _write(found, where, job)

    async def awaiting(job: "Job", call_next: "Callable[[Job], Any]") -> "Any":
        from cProfile import Profile

        found = Profile()
        try:
            return await _turn_by_turn(found, job, call_next(job))
        finally:
            _write(found, where, job)

    return with_twin(profile, awaiting)


@coroutine
def _turn_by_turn(profile: "Profile", job: "Job", made: "Any") -> "Generator[Any, Any, Any]":
    """Await something, with the profile on only while it runs."""
    turns, failure, sent = made.__await__(), None, None
    while True:
        is_on = _on(profile, job)
        try:
            waits = turns.send(sent) if failure is None else turns.throw(failure)
        except StopIteration as end:
            return end.value
        finally:
            if is_on:
                profile.disable()
        failure = sent = None
        try:
            sent = yield waits
        except BaseException as thrown:
            failure = thrown


def _on(profile: "Profile", job: "Job") -> bool:
    try:
        profile.enable()
    except ValueError as problem:
        warn("job %s is not profiled: %s", job.id, str(problem))
        return False
    return True


def _write(profile: "Profile", folder: str, job: "Job") -> None:
    path = os.path.join(folder, f"{job.id}-{job.attempts}.prof")
    try:
        os.makedirs(folder, exist_ok=True)
        profile.dump_stats(path)
    except (OSError, TypeError) as problem:  # TypeError: nothing ran while it was on
        warn("%s: not written: %s", path, str(problem))
