"""Another reader of the file: it knows the format, and shares no code with the package."""

from collections import Counter

CONTRACT = "id type payload status created_at run_at attempts error result".split()
STATUSES = "pending processing completed failed cancelled".split()
KEPT = {"hint", "tick", "types", "torn.tsv"}  # what may stay beside a queue that nobody works on


class Row(dict):
    """The cells of one line by column; `line` is its bytes without the newline."""

    line = b""


def read(path, *, torn=False):
    """Return the rows in order; every line must be whole, the last may be cut off where `torn`."""
    *lines, tail = path.read_bytes().split(b"\n")
    assert lines, f"no header: {tail!r}"
    assert torn or not tail, f"the last line is cut off: {tail!r}"
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


def leftovers(path):
    """Return the names of files beside a queue that should not be there when nobody works on it."""
    side = path.with_name(path.name + ".d")
    found = [entry.name for entry in path.parent.iterdir()]
    found = [name for name in found if name not in (path.name, path.name + ".lock", side.name)]
    for entry in side.rglob("*") if side.is_dir() else ():
        name = str(entry.relative_to(side))
        kept = name in KEPT or name.partition("/")[0] == "archive"
        if not kept or entry.name.endswith(".tmp"):
            found.append(f"{side.name}/{name}")
    return found


def modes(path):
    """Return the permission bits of the queue and of each file beside it."""
    files = [path, path.with_name(path.name + ".lock")]
    side = path.with_name(path.name + ".d")
    files += [entry for entry in side.rglob("*") if entry.is_file()] if side.is_dir() else []
    return {file.name: file.stat().st_mode & 0o7777 for file in files if file.exists()}
