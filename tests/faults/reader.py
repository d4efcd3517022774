"""Another reader of the files: it knows the formats, and shares no code with the package."""

import os
from collections import Counter
from zlib import crc32

CONTRACT = "id type payload status created_at run_at attempts error result".split()
STATUSES = "pending processing completed failed cancelled".split()
FINISHED = "completed failed cancelled".split()
# What may stay beside a queue that nobody works on.
KEPT = {"hint", "tick", "types", "upkeep", "torn.tsv"}


class Row(dict):
    """The cells of one line by column; `line` is its bytes without the newline."""

    line = b""


def read(path, *, torn=False):
    """Return the rows in order; every line must be whole, the last may be cut off where `torn`."""
    data = path.read_bytes()
    if not data:
        return []  # touched, and not used yet
    *lines, tail = data.split(b"\n")
    assert lines or torn, f"no header: {tail!r}"
    assert torn or not tail, f"the last line is cut off: {tail!r}"
    if not lines:
        return []
    header = lines[0].decode().split("\t")
    assert header[:9] == CONTRACT, header
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.decode().split("\t")
        assert len(cells) in (9, len(header)), f"line {number} has {len(cells)} cells: {line!r}"
        row = Row(zip(header, cells + [""] * len(header), strict=False))
        row.line = line
        assert row["status"] in STATUSES, f"line {number}: {line!r}"
        rows.append(row)
    twice = [id for id, count in Counter(row["id"] for row in rows).items() if count > 1]
    assert not twice, f"rows that stand twice: {twice}"
    return rows


def by_id(path, *, torn=False):
    """Return the rows by their id."""
    return {row["id"]: row for row in read(path, torn=torn)}


def beside(path, *names):
    """Return the path of something in the folder beside a queue."""
    return path.with_name(path.name + ".d").joinpath(*names)


def lines(path):
    """Return what workers have noted: by (claim, job) a list of (event, attempt, cells)."""
    found = {}
    for file in beside(path, "workers").glob("*.tsv"):
        for line in file.read_bytes().rstrip(b"\0").split(b"\n")[:-1]:
            body, _, crc = line.rpartition(b"\t")
            if crc == b"%08x" % crc32(body):
                k, event, id, attempt, _, *cells = body.decode().split("\t")
                named = dict(cell.partition("=")[::2] for cell in cells)
                noted = event, int(attempt), named
                found.setdefault((f"{file.stem}.{k}", id), []).append(noted)
    return found


def outcomes(path):
    """Return how each run has ended whose end stands in a worker's file, by (claim, job)."""
    return {
        run: cells["status"]
        for run, noted in lines(path).items()
        for event, _, cells in noted
        if event == "end"
    }


def finished(path, *, torn=False):
    """Return the ids of the jobs that have ended, by the file or by what a worker has noted."""
    rows, noted = read(path, torn=torn), outcomes(path)
    return {
        row["id"]
        for row in rows
        if row["status"] in FINISHED or noted.get((row.get("worker"), row["id"])) in FINISHED
    }


def archived(path):
    """Return the rows of all months of the archive, in order; none may stand there twice."""
    months = sorted(beside(path, "archive").glob("*.tsv"))
    rows = [row for month in months for row in read(month)]
    assert len({row["id"] for row in rows}) == len(rows), "a row stands twice in the archive"
    return rows


def same_file(one, other):
    return one.exists() and other.exists() and one.samefile(other)


def leftovers(path):
    """Return the names of files beside a queue that should not be there when nobody works on it."""
    side = beside(path)
    found = [entry.name for entry in path.parent.iterdir()]
    found = [name for name in found if name not in (path.name, path.name + ".lock", side.name)]
    # a second name of the queue tells of a first use whose folder is not synced yet
    found = [name for name in found if not same_file(path, path.with_name(name))]
    for entry in side.rglob("*") if side.is_dir() else ():
        name = str(entry.relative_to(side))
        kept = name in KEPT or name.partition("/")[0] in ("archive", "limits")
        if not kept or entry.name.endswith(".tmp"):
            found.append(f"{side.name}/{name}")
    return found


def modes(path):
    """Return the permission bits of the queue and of each file beside it."""
    files = [path, path.with_name(path.name + ".lock")]
    side = beside(path)
    files += [entry for entry in side.rglob("*") if entry.is_file()] if side.is_dir() else []
    return {file.name: file.stat().st_mode & 0o7777 for file in files if file.exists()}


def attributes(path):
    """Return what a file has beside its content: mode, owner, group, extended attributes."""
    st = path.stat()
    names = os.listxattr(path) if hasattr(os, "listxattr") else ()
    return st.st_mode & 0o7777, st.st_uid, st.st_gid, {n: os.getxattr(path, n) for n in names}
