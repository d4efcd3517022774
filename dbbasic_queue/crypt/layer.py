"""The layer that opens a sealed job for its handler, and seals what comes out of it.

Nothing that the handler returns, raises or records gets out in plain: its exception ends here, and
another one, whose text is the sealed one, goes on.
"""

from contextvars import ContextVar

from ..errors import BadArgument, Discard, JobTimeout, Killed, Retry, Snooze, Stopped
from ..here import queue_here, running
from ..job import encode
from ..keys import PAUSE, Keys, keys_of, refuse_twice
from ..layers import with_twin
from ..outcome import text_of
from ..tsv import dump, escape, load
from .token import CipherMissing, KeyMissing, NotOpened, columns_of, open_cell, parts, seal_cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..job import Job
    from ..keys import Given
    from ..queue import Layer

RECORDED = ("steps", "checkpoint", "progress")  # never plain in a sealed job: they steer its run
LONGEST = 1200  # bytes of an error: sealed, it has to fit the error of a row
_opened: "ContextVar[str]" = ContextVar("dbbasic_queue_opened")
_AS_THEY_ARE = (JobTimeout, Killed, Stopped, KeyboardInterrupt, GeneratorExit)


class SealedError(Exception):
    """What a handler raised: its text is sealed, `crypt.opened(job).error` tells it."""


SealedError.__module__ = __package__ or ""


def unsealing(
    keys: "Given" = None, *, queues: "Iterable[str] | None" = None, all: bool = False
) -> "Layer":
    """Return a layer in which handlers see sealed jobs in plain; their outcomes are sealed again.

    `keys`: all of them open, the first one seals; None takes $DBBASIC_QUEUE_KEY.  A job whose key
    is missing goes back uncharged, and its `error` names the key; so does any sealed job where the
    package `cryptography` is not installed.  Without this layer a handler gets the sealed payload
    as it is in the file, and its job completes.  One that was changed, or sealed
    for another place, or whose id another row has, fails at once and keeps its payload.  `queues`:
    in these a plain job is refused, so that none can be put in the place of a sealed one; a worker
    of only these queues is what makes that sure.  `all=True`: every plain job.
    """
    given = None if keys is None else keys_of(keys)
    labels = frozenset([queues] if isinstance(queues, str) else queues or ())

    def open_for_run(job: "Job") -> "Unsealed | None":
        if _opened.get("") == job.id:
            return None  # a layer around this one has opened it
        return _opened_for(job, given, refuses_plain=all or job.queue in labels)

    # The handler's exception is dropped before another one is raised: else that would hold it.
    def unseal(job: "Job", call_next: "Callable[[Job], Any]") -> "Any":
        run = open_for_run(job)
        if run is None:
            return call_next(job)
        try:
            with run:
                result = call_next(job)
        except BaseException as failure:
            caught = failure
        else:
            return run.sealed_result(result)
        ended = run.instead_of(caught)
        del caught
        raise ended

    async def awaiting(job: "Job", call_next: "Callable[[Job], Any]") -> "Any":
        run = open_for_run(job)
        if run is None:
            return await call_next(job)
        try:
            with run:
                result = await call_next(job)
        except BaseException as failure:
            caught = failure
        else:
            return run.sealed_result(result)
        ended = run.instead_of(caught)
        del caught
        raise ended

    return with_twin(unseal, awaiting)


def _opened_for(job: "Job", given: "Keys | None", *, refuses_plain: bool) -> "Unsealed | None":
    """Return a sealed job opened, None for a plain one; Snooze or Discard where it may not run."""
    if parts("payload", job.cells[2]) is None:
        if refuses_plain:
            raise Discard("its payload is plain, and here only sealed jobs run")
        return None
    try:
        keys = keys_of(given)
    except BadArgument as problem:
        raise Snooze(PAUSE, str(problem)) from None
    try:
        plain = {name: cell for name in columns_of(job) if (cell := _plain(keys, job, name))}
    except (KeyMissing, CipherMissing) as missing:
        raise Snooze(PAUSE, str(missing)) from None
    except NotOpened as refused:
        raise Discard(str(refused)) from None
    refuse_twice(queue_here().file, job)
    return Unsealed(job, keys, plain)


def _plain(keys: Keys, job: "Job", column: str) -> bytes | None:
    try:
        plain = open_cell(keys, job, column)
    except NotOpened:
        if column in ("error", "result"):  # of a run before: nothing depends on them
            return None
        raise
    if plain is None and column in RECORDED:
        raise NotOpened(f"its {column} are plain: they were put there by hand")
    return plain


class Unsealed:
    """A sealed job while it runs: plain for its handler, sealed for everybody else."""

    def __init__(self, job: "Job", keys: Keys, plain: "dict[str, bytes]") -> None:
        self._key, self._id, self._type = keys.first, job.id, job.type
        self._attempt = running.get(None)
        payload = load(plain.pop("payload"))
        jobs = [job] if self._attempt is None else [job, self._attempt.job]
        self._before = [(one, one.copy()) for one in {id(one): one for one in jobs}.values()]
        self._sealed = {name: job.raw(name) for name in plain}
        for one, before in self._before:
            one.alter(plain)
            one.run_with(payload, self._recording(before))
        if self._attempt is not None:
            self._attempt.payload = payload
        self._inside = _opened.set(job.id)

    def __enter__(self) -> None:
        """Its layers and its handler come now."""

    def __exit__(self, *error: object) -> None:
        """Let the job be as its row is again."""
        _opened.reset(self._inside)
        for one, before in self._before:
            one.alter(self._sealed)
            one.run_with(before.payload, before.record)
        if self._attempt is not None:
            self._attempt.payload = self._before[0][1].payload
            _alone(self._attempt.ending)

    def _recording(self, before: "Job") -> "Callable[..., None]":
        def record(**cells: "Any") -> None:
            sealed = {name: self._cell(name, encode(name, cells[name])) for name in cells}
            before.record(**{name: cell.decode() for name, cell in sealed.items()})

        return record

    def _cell(self, column: str, cell: bytes) -> bytes:
        return seal_cell(self._key, self._id, self._type, column, cell)

    def sealed_result(self, result: "Any") -> "Any":
        """Return a result sealed, as the JSON value of its cell."""
        return load(self._cell("result", dump(result, "the result")))

    def instead_of(self, failure: BaseException) -> BaseException:
        """Return what is to be raised in the place of what came out of the handler."""
        text = text_of(failure)[0].encode(errors="backslashreplace")[:LONGEST]
        cell = escape(text.decode(errors="ignore")).encode()
        sealed = self._cell("error", cell or b" ").decode()
        if isinstance(failure, Snooze):
            return Snooze(failure.seconds, sealed if failure.reason else "")
        if isinstance(failure, Retry):
            return Retry(sealed, after=failure.after)
        if isinstance(failure, Discard):
            return Discard(sealed)
        if isinstance(failure, SystemExit):
            plain = failure.code is None or isinstance(failure.code, int)
            return SystemExit(failure.code if plain else sealed)
        if type(failure).__name__ == "CancelledError":
            return type(failure)()
        for kind in _AS_THEY_ARE:
            if isinstance(failure, kind):
                ours = self._attempt is not None and failure is self._attempt.ending
                return _alone(failure) if ours or not failure.args else kind(sealed)
        return SealedError(sealed)


def _alone(failure: BaseException) -> BaseException:
    """Take from an exception what it was raised after, which the log would tell too."""
    failure.__context__ = failure.__cause__ = None
    if hasattr(failure, "__notes__"):
        del failure.__notes__
    return failure
