"""Reseal: every row that is not under the first key gets there, in one edit, also the archived.

The work with the ciphers is done before the lock is taken; under it only cells that are still the
same are exchanged.
"""

import os

from ..beside import note, open_regular, unlink
from ..disk import unhurried
from ..edit import Edit
from ..errors import NotStored
from ..files import read_all, read_header, sync_folder
from ..here import queue_here
from ..job import Job
from ..keys import SIGNATURE, is_signature, keys_of, signature
from ..lookup import archive_jobs, archives, jobs
from ..tsv import row
from .token import NotOpened, columns_of, open_cell, parts, seal_cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..disk import QueueFile
    from ..keys import Given, Keys
    from ..queue import Queue

    # (id, type, column, cell) -> the cell under the first key
    Made = dict[tuple[bytes, bytes, str, bytes], bytes]


def reseal(keys: "Given" = None, *, queue_file: "Queue | None" = None) -> tuple[int, int]:
    """Seal what is under another key under the first one; return how many jobs were, and were left.

    Rows of every status but processing, in the queue and in its archive; those whose key is missing
    and those that cannot be opened are left, as is what runs.  A kill in the middle leaves each
    file as it was or as it is to be: call it again.  When none is left, the old key can go, as far
    as this file, and not a copy or a backup of it, is concerned.
    """
    known, queue = keys_of(keys), queue_here(queue_file)
    first = known.first
    made: Made = {}
    for job in jobs(queue.file):
        _new_cells(job, known, made)
    for path in archives(queue.file):
        for job in archive_jobs(path, b"sealed"):
            _new_cells(job, known, made)

    counted = [0, 0]

    def body() -> list[Job]:
        changed: list[Job] = []
        counted[1] = 0  # an archive that is done stays done when the edit starts again
        durable = queue.sync != "off"
        with Edit(queue.file, queue.lock_timeout, durable=durable, create=False) as e:
            for path in archives(queue.file):
                for at, count in enumerate(_reseal_archive(queue.file, path, known, made)):
                    counted[at] += count
            for job in e.rows((b"sealed",)):
                if _is_other(job, first.name):
                    cells = {} if job.status == "processing" else _new_cells(job, known, made)
                    new = e.set(job, cells) if cells else job
                    changed += [new] * bool(cells)
                    counted[1] += _is_other(new, first.name)
        return changed

    resealed = len(unhurried(body))
    return resealed + counted[0], counted[1]


def _is_other(job: Job, name: str) -> bool:
    """Whether a cell of a job is sealed with another key."""
    found = (parts(column, job.raw(column)) for column in columns_of(job))
    return any(one is not None and one[0] != name for one in found)


def _new_cells(job: Job, keys: "Keys", made: "Made") -> "dict[str, bytes]":
    """Return the cells of a job that are to be other ones."""
    new: dict[str, bytes] = {}
    for column in columns_of(job):
        cell = job.raw(column)
        found = parts(column, cell)
        if found is None or found[0] == keys.first.name:
            continue
        here = job.cells[0], job.cells[1], column, cell
        if here not in made:
            try:
                plain = open_cell(keys, job, column)
            except NotOpened:
                continue
            made[here] = seal_cell(keys.first, job.id, job.type, column, plain or b"")
        new[column] = made[here]
    if "payload" in new and (signed := _signed_anew(job, new["payload"], keys)):
        new[SIGNATURE] = signed
    return new


def _signed_anew(job: Job, payload: bytes, keys: "Keys") -> bytes:
    """Return the signature for another payload, where that of the old one is good."""
    cell = job.cell(SIGNATURE)
    key = keys.by_name.get(cell.partition(" ")[0])
    if key is None or not is_signature(cell, key, job.id, job.type, job.payload):
        return b""
    new = job.with_cells({"payload": payload})
    return signature(keys.first, job.id, job.type, new.payload).encode()


# --- the archive


def _reseal_archive(file: "QueueFile", path: str, keys: "Keys", made: "Made") -> tuple[int, int]:
    """Put an archive with other cells in the place of the old one; under the queue's lock."""
    try:
        fd = open_regular(path, os.O_RDONLY)
        try:
            header = read_header(fd, path)
            data = read_all(fd)
        finally:
            os.close(fd)
        if header is None:
            return 0, 0
        changed = stayed = 0
        lines = data.split(b"\n")
        for at, line in enumerate(lines[1:-1], start=1):
            cells = row(line, header) if b"sealed" in line else None
            if cells is None:
                continue
            new, left = _changed_line(Job(cells, header), keys, made)
            stayed += left
            if new:
                lines[at], changed = new, changed + 1
        if changed:
            unlink(path + ".tmp")
            note(path + ".tmp", b"\n".join(lines), file.real, durable=True)
            os.rename(path + ".tmp", path)
            sync_folder(os.path.dirname(path))
        return changed, stayed
    except OSError as error:
        raise NotStored(f"{path}: not resealed: {error.strerror}") from error


def _changed_line(job: Job, keys: "Keys", made: "Made") -> "tuple[bytes, bool]":
    """Return a row with its new cells, b"" where it has none; whether something is left."""
    cells = _new_cells(job, keys, made)
    new = job.with_cells(cells) if cells else job
    line = new.line(job.header)[:-1] if cells else b""
    return line, _is_other(new, keys.first.name)
