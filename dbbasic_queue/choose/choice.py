"""What is asked of a job."""

import json
import time

from ..after import is_id
from ..errors import BadArgument
from ..kinds import KINDS, STUCK, Kinds
from ..redact import redacted
from ..tsv import STATUSES, dump, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..job import Job

_LONGEST = 1000  # characters of a text


class Choice:
    """All that is given must hold; None asks nothing.

    `status`: one of the five, or due, scheduled, retrying, waiting, stuck; several are one of
    these.  `worker`: a worker's id or name.  `text`: stands in the payload, as JSON, or in the
    error, in capitals or not, and not in what is hidden.  `older_than`: seconds since it finished,
    or else was added.  `ids`: one of these.  `until`: no job with a greater id.
    """

    def __init__(
        self,
        *,
        status: "str | Iterable[str] | None" = None,
        type: str | None = None,
        queue: str | None = None,
        worker: str | None = None,
        tag: str | None = None,
        text: str | None = None,
        group: str | None = None,
        older_than: float | None = None,
        ids: "Iterable[str] | None" = None,
        until: str | None = None,
    ) -> None:
        self.statuses = (status,) if isinstance(status, str) else tuple(status or ())
        for one in self.statuses:
            if one not in (*STATUSES, *KINDS):
                known = ", ".join((*STATUSES, *KINDS))
                raise BadArgument(f"status={one!r:.80} is none of {known}")
        if text is not None and len(text) > _LONGEST:
            raise BadArgument(f"text={text[:80]!r}…: more than {_LONGEST} characters")
        if until is not None and not is_id(until):
            raise BadArgument(f"until={until!r:.80} is no id: 16 lower-case hex characters")
        self.type = type
        self.queue = queue
        self.worker = worker
        self.tag = tag
        self.text = text or None
        self.group = group
        self.older_than = older_than
        self.ids = None if ids is None else tuple(dict.fromkeys(ids))
        self.until = until
        self._ids = frozenset(self.ids or ())
        self._forms = _forms(text) if text else ()

    @property
    def given_any(self) -> bool:
        """Whether anything is asked at all."""
        asked = (
            self.type, self.queue, self.worker, self.tag, self.text, self.group, self.older_than,
            self.ids, self.until,
        )  # fmt: skip
        return bool(self.statuses) or any(one is not None for one in asked)

    @property
    def asks_kinds(self) -> bool:
        """Whether the answer needs more than the row."""
        return any(one in KINDS for one in self.statuses)

    def matches(self, job: "Job", kinds: Kinds) -> bool:
        """Whether a job, as it is now, is one of these."""
        return self._matches_row(job) and self._matches_status(job, kinds)

    def _matches_row(self, job: "Job") -> bool:
        starts = (f"{self.worker}.", f"{self.worker}-")
        before = None if self.older_than is None else time.time() - self.older_than
        return (
            self.type in (None, job.type)
            and self.queue in (None, job.queue)
            and (self.until is None or job.id <= self.until)
            and (self.ids is None or job.id in self._ids)
            and self.group in (None, job.group)
            and (self.worker is None or (job.worker or "").startswith(starts))
            and (self.tag is None or self.tag in job.cell("tags").split())
            and (before is None or (job.finished_at or job.created_at) < before)
            and (self.text is None or self._has_text(job))
        )

    def _matches_status(self, job: "Job", kinds: Kinds) -> bool:
        if not self.statuses or job.status in self.statuses:
            return True
        return self.asks_kinds and kinds.of(job) in self.statuses

    def _has_text(self, job: "Job") -> bool:
        seen = redacted(job)
        for column in ("payload", "error"):
            cell = seen.raw(column).decode(errors="replace").lower()
            if any(form in cell for form in self._forms):
                return True
        return False

    # --- for a look that leaves out most rows without reading them

    def needles(self, *, running: bool) -> "tuple[bytes, ...]":
        """Return bytes of which each row of the choice holds one; () where there are none.

        `running`: rows that say processing may have another status by now.
        """
        if self.group is not None:
            return (b"\t%b\t" % escape(self.group).encode(),)
        if self.statuses and not {"completed", "pending"} & {*self.statuses}:
            stored = {_stored(one) for one in self.statuses}
            stored |= {"processing"} if running else set()
            return tuple(b"\t%b\t" % one.encode() for one in sorted(stored))
        if self.type is not None:
            return (b"\t%b\t" % escape(self.type).encode(),)
        if self.worker or self.tag:
            word = b"\t%b" % escape(self.worker).encode() if self.worker else b""
            word = word or escape(self.tag or "").encode()
            return (word, b"\tprocessing\t") if running else (word,)
        if self.statuses:
            stored = {_stored(one) for one in self.statuses}
            stored |= {"processing"} if running else set()
            return tuple(b"\t%b\t" % one.encode() for one in sorted(stored))
        return ()

    def lowered(self) -> "tuple[bytes, ...]":
        """Return bytes of which the lower case of each row holds one; () where there are none."""
        forms = self._forms if self.text and self.text.isascii() else ()
        return tuple(form.encode() for form in forms)


def _stored(status: str) -> str:
    """Return the status in the file of the jobs of a kind."""
    return status if status in STATUSES else "processing" if status == STUCK else "pending"


def _forms(text: str) -> "tuple[str, ...]":
    """Return how a text may stand in a cell: as it is, in JSON in three manners, and escaped."""
    forms = [
        text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1], escape(text)
    ]  # fmt: skip
    try:
        forms.append(dump(text, "text").decode()[1:-1])
    except BadArgument:  # halves of a character side by side
        pass
    return tuple(dict.fromkeys(form.lower() for form in forms))
