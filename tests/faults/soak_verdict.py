"""The judge of a soak: it knows what each process was told, and what befell whom.

A job may run once more for each reason that it finds: its worker was killed in it, the file that
said what had ended was deleted, somebody saved an older file over it, it was retried.  A job may be
missing only where somebody was told to delete it, or saved a file without the lock that lacked it.
"""

import contextlib
import itertools
import time
from bisect import bisect_left
from collections import Counter, defaultdict

from . import reader

SLOW = 0.1  # seconds between the sending of a signal and its effect, at most


class Verdict:
    """What a soak has done, and what is wrong with what came of it."""

    def __init__(self, place):
        self.place = place
        self.violations = []
        self.kills = []  # (pid, when)
        self.asked = set()  # the pids that were asked to stop
        self.ended_on_request = set()  # ids
        self.robbed = Counter()  # by id: how often a deletion may have cost a run
        self.deletions = []  # (from, to)
        self.differing = {}  # by name of a save by hand: the ids of the rows that it put back
        self.cases = self.jobs = self.saves = self.lost_saves = self.busy = 0
        self.extra = Counter()  # runs more than were asked for, by their reason
        self.done = Counter()

    def __str__(self):
        done = ", ".join(f"{name} {count}" for name, count in sorted(self.done.items()) if count)
        extra = ", ".join(f"{count} by {name}" for name, count in self.extra.items() if count)
        return (
            f"{done}; {self.saves} saves by hand, {self.lost_saves} of which met the last look of"
            f" a rewrite; {self.busy} times busy; {self.jobs} jobs, extra runs: {extra or 0}"
        )

    @contextlib.contextmanager
    def deletion(self):
        """A deletion: what is claimed just before or just after may run once more."""
        begun, before = time.monotonic(), self.processing()
        self.place.note("chaos", "deletion begins")
        yield
        self.place.note("chaos", "deletion ends")
        self.robbed.update(before | self.processing())
        self.deletions.append((begun, time.monotonic()))

    def processing(self):
        if not self.place.file.exists():
            return set()
        rows = reader.by_id(self.place.file, torn=True)
        return {id for id, row in rows.items() if row["status"] == "processing"}

    def of(self, done):
        """Judge all that is there now."""
        self.done = done
        self.notes = [note for notes in self.place.notes().values() for note in notes]
        self.rows = reader.by_id(self.place.file)
        self.archived = self.archives()
        self.effects = self.place.effects()
        self.runs, self.runs_of = defaultdict(list), defaultdict(list)
        for id, pid, at in self.effects:
            self.runs[id].append(at)
            self.runs_of[pid].append((at, id))
        self.counts = Counter({id: len(runs) for id, runs in self.runs.items()})
        self.busy = len(self.what("busy", "raised"))
        self.told = {
            id: (kind, after, note)
            for note in self.what("told")
            for id, kind, after in note["jobs"]
        }
        self.shadows = self.judge_saves()
        self.judge_processes()
        self.judge_ids()
        self.judge_runs()
        self.judge_ends()
        self.judge_verbs()
        self.jobs = len(self.told)
        self.cases = sum(done.values()) + self.saves
        return self

    def what(self, *names):
        return [note for note in self.notes if note["what"] in names]

    def ids(self, *names):
        return {note["id"] for note in self.what(*names)}

    def wrong(self, text, ids):
        if ids:
            shown = ", ".join(sorted(map(str, ids))[:5])
            self.violations.append(f"{text}: {len(ids)}, such as {shown}")

    def open_tries(self, what):
        """Those after which somebody died, or had an error: perhaps it was done."""
        found = []
        for notes in self.place.notes().values():
            tries = [at for at, note in enumerate(notes) if note["what"].startswith("try")]
            for at, end in itertools.pairwise([*tries, len(notes)]):
                answers = {note["what"].partition(" ")[0] for note in notes[at:end]}
                if notes[at]["what"] == what and not answers & {"told", "busy", "did"}:
                    found.append(notes[at])
        return found

    def archives(self):
        """Every row that is in the archive, or was when the folder was deleted."""
        found = {}
        for month in [*self.place.path.glob("kept/*"), *self.place.side.glob("archive/*.tsv")]:
            header, *lines = month.read_bytes().split(b"\n")[:-1]
            names = header.decode().split("\t")
            for line in lines:
                row = dict(zip(names, line.decode().split("\t"), strict=True))
                found[row["id"]] = row
        return found

    # --- saves by hand

    def digest(self, older_than=10):
        """Compare what was read with what was replaced, once nobody writes there any more."""
        for replaced in self.place.path.glob("hand/*.replaced"):
            if time.time() - replaced.stat().st_mtime > older_than:
                read = replaced.with_suffix(".read")
                self.differing[replaced.stem] = differences(read, replaced)
                replaced.unlink()
                read.unlink()

    def judge_saves(self):
        """Count by id how often an older row was saved over a newer one.

        With the lock nobody may write in between.
        """
        self.digest(-1)
        saved = {note["name"]: note for note in self.what("saved")}
        for note in self.what("try save"):
            name = note["name"]
            beside = self.place.file.with_name(f"hand-{name}")
            if beside.exists():  # killed before it was put in the place of the queue, or after
                differing = differences(self.place.path / "hand" / f"{name}.read", beside)
                if differing != {note["id"]}:
                    self.differing[name] = differing
            if name in saved and saved[name]["locked"]:
                self.wrong(f"{name}: written while the lock was held", self.differing[name])
        for left in self.place.file.parent.glob("hand-*"):
            left.unlink()
        self.saves = len(self.differing)
        self.judge_what_was_saved(saved)
        return Counter(id for ids in self.differing.values() for id in ids)

    def judge_what_was_saved(self, saved):
        """P25: what was saved by hand is there, but where a rewrite had just looked."""
        last = {note["id"]: note for note in sorted(saved.values(), key=lambda note: note["at"])}
        for id, note in last.items():
            row = self.rows.get(id) or self.archived.get(id)
            if row and int(row["priority"] or 0) != note["number"]:
                self.lost_saves += 1
                if note["locked"]:
                    self.violations.append(f"{id}: saved by hand with the lock, and lost")
        if self.lost_saves > 2 + self.saves / 20:
            self.violations.append(f"{self.lost_saves} of {self.saves} saves by hand are lost")

    # --- what must hold

    def judge_processes(self):
        for note in self.what("broken"):
            self.violations.append(f"{note['who']}: {note['text']}")
        self.wrong("left over", set(reader.leftovers(self.place.file)))

    def judge_ids(self):
        """Each id that was told is somewhere; of the others there are as many as died untold."""
        there = set(self.rows) | set(self.archived)
        purged = self.ids("purged") | {note["id"] for note in self.open_tries("try purge")}
        gone = {id for id in set(self.told) - there - purged if not self.shadows[id]}
        unlocked = {
            id for note in self.what("told") if note.get("locked") is False
            for id, _, _ in note["jobs"]
        }  # fmt: skip
        self.wrong("lost", gone - unlocked)
        untold = (there | set(self.counts)) - set(self.told)
        room = sum(note["count"] for note in self.open_tries("try"))
        if len(untold) > room:
            self.wrong(f"there are rows of which nobody was told, but {room}", untold)
        refused = {
            note["id"]
            for notes in self.place.notes().values()
            for note, then in itertools.pairwise(notes)
            if note["what"] == "try" and then["what"] == "busy" and note["id"]
        }
        self.wrong("refused, and stored", refused & there)

    def judge_runs(self):
        """No run more than there are reasons for."""
        retried = Counter(note["id"] for note in self.what("retried"))
        maybe = len(self.open_tries("try retry"))
        killed = Counter()
        for pid, at in self.kills:
            ran = [id for when, id in self.runs_of[pid] if when <= at + SLOW]
            killed.update(ran[-1:])
        moments = sorted((at, id) for id, _, at in self.effects)
        for begun, ended in self.deletions:
            first, last = (bisect_left(moments, (at, "")) for at in (begun, ended))
            self.robbed.update({id for _, id in moments[first:last]})
        for id, count in self.counts.items():
            reasons = {
                "retry": retried[id] + maybe * (self.told.get(id, ("fail",))[0] == "fail"),
                "kill": killed[id],
                "deletion": self.robbed[id],
                "save by hand": self.shadows[id],
            }
            left = count - 1
            for name, most in reasons.items():
                self.extra[name] += min(left, most)
                left -= min(left, most)
            if left:
                self.violations.append(f"{id}: {count} runs, {reasons}: {self.story(id)}")
        del self.extra["retry"]

    def judge_ends(self):
        """Each job has ended, and as it could."""
        cancelled = self.ids("cancelled") | {note["id"] for note in self.open_tries("try cancel")}
        for id, row in (self.archived | self.rows).items():
            kind = row["type"]
            if row["status"] == "cancelled":
                by_graph = bool(row.get("after")) and row["error"].startswith("never ")
                on_request = row["error"] == "ended on request" and id in self.ended_on_request
                good = by_graph or on_request or id in cancelled
            elif kind == "effect":
                good = row["status"] == "completed" and self.counts[id] > 0
            else:
                died = row["error"].startswith("worker died")
                good = row["status"] == "failed" and (died or self.counts[id] > 0)
            if not good:
                text = f"{id}: {kind} {row['status']} {row['error']!r} after {self.counts[id]} runs"
                self.violations.append(f"{text}: {self.story(id)}")

    def judge_verbs(self):
        """What was told of a verb holds, where no older file was saved over it."""
        retried = self.ids("retried")
        for note in self.what("did cancel"):
            id, at = note["id"], note["at"]
            if not note["done"] or id in retried or self.shadows[id]:
                continue
            ran = any(when > at for when in self.runs[id])
            row = self.rows.get(id) or self.archived.get(id)
            if ran or (row and row["status"] != "cancelled"):
                self.violations.append(f"{id}: cancelled, and not: {self.story(id)}")
        moved = {id for id in self.ids("archived", "purged") if not self.shadows[id]}
        self.wrong("archived or purged, and still there", moved & set(self.rows))
        archived = self.ids("archived") - set(self.archived)
        self.wrong("archived, and not in the archive", archived)
        for id, (_, after, _) in self.told.items():
            runs, before = self.runs[id], self.runs[after]
            early = after and runs and before and min(runs) < min(before)
            if early and not self.shadows[id] and not self.shadows[after]:
                self.violations.append(f"{id}: ran before {after}, for which it waits")

    def story(self, id):
        """All that is known of one job, for who looks for the reason."""
        parts = [(at, f"runs in {pid}") for other, pid, at in self.effects if other == id]
        pids = {pid for other, pid, _ in self.effects if other == id}
        for note in self.notes:
            about = note.get("id") == id or id in note.get("text", "") or note.get("pid") in pids
            told = note["what"] == "told" and id in [one[0] for one in note["jobs"]]
            if about or told or note["what"].startswith("deletion"):
                text = note.get("text", "")[:200] or note.get("pid", "")
                parts.append((note["at"], f"{note['who']} {note['what']} {text}"))
        first, last = min(self.runs[id], default=0) - 2, max(self.runs[id], default=0) + 2
        return "; ".join(f"{at:.3f} {text}" for at, text in sorted(parts) if first < at < last)


def differences(one, other):
    """The ids of the rows that are not the same in two files."""
    first, second = (
        {line.split(b"\t")[0]: line for line in path.read_bytes().split(b"\n")[:-1]}
        for path in (one, other)
    )
    return {id.decode() for id in first.keys() | second.keys() if first.get(id) != second.get(id)}
