"""`retrying`: what becomes of a job by the type of what its handler raised."""

from contextlib import contextmanager

from ..errors import BadArgument, Discard, Retry, Snooze, in_seconds
from ..layers import layer_of
from ..log import warn
from ..new import check_attempts, parse_backoff
from ..outcome import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ..job import Job
    from ..queue import Layer

    Rule = tuple[Callable[[int], float] | None, int | None]  # None: no further attempt

_WORDS = (Snooze, Retry, Discard)


def retrying(rules: "Mapping[type[Exception], Any]") -> "Layer":
    """Return a layer that says for each type of exception when its job is tried again.

    A rule is backoff in words ("exponential:5:600"), seconds or a timedelta, a function attempts ->
    seconds, or `Discard`: not at all.  `(rule, n)` is that for at most n attempts, fewer than the
    job has.  Of several types the most derived one holds; what has no rule goes its usual way, as
    do Snooze, Retry and Discard, a time-out and a kill.  BadArgument names what is no rule.
    """
    if not hasattr(rules, "items"):
        raise BadArgument(f"retrying({rules!r:.80}): give a mapping of exceptions to rules")
    known = {_kind(kind): _rule(kind, rule) for kind, rule in rules.items()}

    @contextmanager
    def around(job: "Job") -> "Iterator[None]":
        try:
            yield
        except _WORDS:
            raise
        except Exception as failure:
            found = next((known[kind] for kind in type(failure).__mro__ if kind in known), None)
            if found is None:
                raise
            wait, most = found
            text = text_of(failure)[0]
            if wait is None or (most is not None and job.attempts >= most):
                raise Discard(text) from failure
            try:
                after = in_seconds(wait(job.attempts))
            except Exception as problem:  # the user's function
                warn("job %s: its rule raised %s; its backoff is taken", job.id, repr(problem))
                raise failure from None
            raise Retry(text, after=after) from failure

    return layer_of(around)


def _kind(kind: object) -> type[Exception]:
    good = isinstance(kind, type) and issubclass(kind, Exception)
    if not good or issubclass(kind, _WORDS):  # type: ignore[arg-type]
        raise BadArgument(f"retrying({{{kind!r:.80}: …}}): that is no type of Exception")
    return kind  # type: ignore[return-value]


def _rule(kind: type[Exception], rule: "Any") -> "Rule":
    most = None
    if isinstance(rule, tuple):
        if len(rule) != 2:
            raise BadArgument(f"retrying({{{kind.__name__}: {rule!r:.80}}}): give (rule, attempts)")
        rule, most = rule[0], check_attempts(rule[1])
    if rule is Discard:
        return None, most
    if isinstance(rule, str) or (callable(rule) and not isinstance(rule, type)):
        return parse_backoff(rule), most
    try:
        seconds = in_seconds(rule)
    except BadArgument:
        raise BadArgument(
            f"retrying({{{kind.__name__}: {rule!r:.80}}}): a rule is backoff in words, seconds, a"
            " function attempts -> seconds, Discard, or (rule, attempts)"
        ) from None
    return lambda attempts: seconds, most
