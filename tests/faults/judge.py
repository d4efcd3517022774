"""Whether one possible disk keeps what was promised: read as it is, then worked on for real."""

from collections import Counter

from dbbasic_queue import Queue, current_job

from . import reader
from .power_scenes import HANDLERS

IDENTITY = (
    "id type payload created_at queue priority max_attempts timeout backoff after group".split()
)
HINT = "queue.tsv.d/hint"


def rows_in(data):
    """Return the rows of a queue or archive, with what is no row left out; None without a header.

    As the documents say: a row ends in a newline, has as many cells as the header, or nine, and no
    control characters.
    """
    header, *lines = data.split(b"\n")
    columns = header.decode(errors="replace").split("\t")
    if not lines or columns[:9] != reader.CONTRACT:
        return None
    rows = []
    for line in lines[:-1]:
        cells = line.decode(errors="replace").split("\t")
        whole = len(cells) in (9, len(columns)) and b"\0" not in line
        if whole and cells[3] in reader.STATUSES:
            rows.append(dict(zip(columns, cells + [""] * len(columns), strict=False)))
    return rows


def identity(row):
    """Return what never changes of a job."""
    return tuple(row.get(column, "") for column in IDENTITY)


class Promised:
    """What holds at a point of a log by its marks, and what may or may not be seen."""

    def __init__(self, known, marks):
        said = {}
        for what, *values in marks:
            said.setdefault(what, []).extend(values)
        self.began = Counter(said.get("began", ()))
        self.finished = set(said.get("finished", ())) - set(said.get("retrying", ()))
        self.cancelled = set(said.get("cancelled", ()))
        self.perhaps_cancelled = set(said.get("cancelling", ()))
        self.purged = set(said.get("purged", ()))
        self.perhaps_purged = set(said.get("purging", ()))
        self.archived = "archiving" in said
        self.backed_up = "backed up" in said
        self.told = {*known, *said.get("told", ())}
        self.key = (
            frozenset(self.began.items()),
            *map(frozenset, (self.finished, self.cancelled, self.perhaps_cancelled, self.purged)),
            *map(frozenset, (self.perhaps_purged, self.told)),
            self.archived,
            self.backed_up,
        )


class Judge:
    """Judges the disks of one log."""

    def __init__(self, place, written, ends, backups):
        self.place = place
        self.name = str(place.file.relative_to(place.root))
        self.written = written  # identities of all rows that were ever whole in a file
        self.ends = ends  # id -> how a job ends, when not as its type says
        self.backups = backups  # what the backup ever held

    # --- as it is

    def problems_in(self, tree, promised):
        """Return what is wrong with the files."""
        data = tree.data(self.name)
        if data is None:
            return ["the queue file is gone"] if promised.told else []
        rows = rows_in(data)
        if rows is None:
            return [f"the header is {data[:20]!r}"] if promised.told else []
        counts = Counter(row["id"] for row in rows)
        archived = self.archived(tree)
        problems = [f"{id} stands twice" for id, count in counts.items() if count > 1]
        lost = promised.told - promised.perhaps_purged - set(counts)
        lost -= set(archived)
        problems += [f"{id} is lost" for id in sorted(lost)]
        problems += [f"{id} was purged" for id in sorted(promised.purged & set(counts))]
        for row in [*rows, *archived.values()]:
            if identity(row) not in self.written:
                problems.append(f"a row that nobody wrote: {row}")
        for row in rows:
            if row["id"] in promised.cancelled and row["status"] != "cancelled":
                problems.append(f"{row['id']} was cancelled and is {row['status']}")
        if tree.data("backups/queue.tsv") not in self.backups[promised.backed_up]:
            problems.append("the backup is neither the old nor the new one")
        return problems

    def archived(self, tree):
        """Return the rows of the archive by id."""
        rows = {}
        for path in tree.files:
            if path.startswith(f"{self.name}.d/archive/") and path.endswith(".tsv"):
                rows |= {row["id"]: row for row in rows_in(tree.data(path)) or ()}
        return rows

    # --- and what comes of it

    def problems_after(self, tree, root, promised):
        """Make the disk in an empty folder; return what is wrong when the queue goes on there."""
        inodes = tree.make(root)
        hint = root / f"{self.name}.d" / "hint"
        if hint.exists():  # it names an inode, which is another one here
            inode, *others = hint.read_bytes().split(b" ")
            if inode.isdigit() and int(inode) in inodes:
                hint.write_bytes(b" ".join([b"%d" % inodes[int(inode)], *others]))
        ran = Counter()
        try:
            new = self.go_on(root, ran, promised)
            return self.problems_at_the_end(root, ran, promised, new)
        except Exception as problem:
            return [f"{type(problem).__name__}: {problem}"]

    def go_on(self, root, ran, promised):
        """A tick, another job, and ticks to the end; return that job's id."""

        def counted(does):
            def handler(payload):
                ran[current_job().id] += 1
                return does(payload)

            return handler

        handlers = {name: counted(does) for name, does in HANDLERS.items()}
        handlers["die_first"] = handlers["slow"] = handlers["run"]
        queue = Queue(root / self.name, sync=self.place.sync, lock_timeout=5)
        unseen = [id for id in promised.told - promised.perhaps_purged if not queue.get(id)]
        assert not unseen, f"get_job does not know {unseen}"
        queue.process_jobs(handlers)
        new = queue.enqueue("run", {"name": "another"})
        queue.process_jobs(handlers)
        if queue.counts().get("pending"):
            queue.process_jobs(handlers)
        if promised.archived:
            queue.archive(0)
        return new

    def problems_at_the_end(self, root, ran, promised, new):
        path = root / self.name
        rows = {row["id"]: row for row in rows_in(path.read_bytes()) or ()}
        problems = [f"left over: {name}" for name in self.leftovers(path)]
        listed = [
            row
            for month in (root / f"{self.name}.d" / "archive").glob("*.tsv")
            for row in rows_in(month.read_bytes()) or ()
        ]
        both = [id for id, count in Counter(row["id"] for row in listed).items() if count > 1]
        problems += [f"{id} is archived twice" for id in both]
        problems += [f"{row['id']} is in both files" for row in listed if row["id"] in rows]
        rows |= {row["id"]: row for row in listed}
        lost = {*promised.told, new} - promised.perhaps_purged - set(rows)
        problems += [f"{id} is lost afterwards" for id in sorted(lost)]
        for id, row in rows.items():
            if id != new and identity(row) not in self.written:
                problems.append(f"a row that nobody wrote: {row}")
            if row["status"] not in self.ends_of(row, promised):
                problems.append(f"{id} {row['type']} is {row['status']} in the end")
            least = promised.began[id] + ran[id]
            if self.place.sync == "full" and int(row["attempts"]) < least:
                problems.append(f"{id} has {row['attempts']} attempts after {least} runs")
        unknown = set(ran) - {row[0] for row in self.written} - {new}
        problems += [f"{id!r} ran, and nobody added it" for id in sorted(unknown)]
        again = {id for id in promised.finished | promised.cancelled if ran[id]}
        problems += [f"{id} was finished, and ran again" for id in sorted(again)]
        return problems

    def leftovers(self, path):
        """Return what should not lie there; a damaged worker's file is kept, and reported."""
        found = reader.leftovers(path)
        kept = [name for name in found if "/damaged-" in name]
        return [name for name in found if name not in kept]

    def ends_of(self, row, promised):
        """Return the statuses in which a job may be when all is done."""
        id = row["id"]
        if id in promised.cancelled:
            return {"cancelled"}
        end = self.ends.get(id) or ("failed" if row["type"] in ("fail", "discard") else "completed")
        return {end, "cancelled"} if id in promised.perhaps_cancelled else {end}
