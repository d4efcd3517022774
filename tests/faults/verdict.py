"""What must hold after a call went wrong.

The files are read with a reader that shares nothing with the package; then the queue must take and
run another job, by itself.  Each function yields a sentence for each thing that is wrong.
"""

import errno
import fcntl
import itertools
import json
import logging
import os
import shutil
import time
from collections import Counter

from . import reader

SYNCS = ("fsync", "fdatasync")
UNSURE = ("not known", "perhaps")  # words of an error that leaves open whether it was done
ONCE = dict.fromkeys(["run", "record", "fail", "discard", "schedule", "in_steps"], 1)
RUNS = ONCE | dict.fromkeys(["fail_first", "snooze_first", "die"], 2)
FAIL = ("fail", "discard")
GIVEN = "id type payload created_at queue max_attempts after group".split()  # once for all
LOOSE = {"backup", "link.tsv"}  # what scenes put beside a queue


def violations(folder, scene, outcome, *, kills, child=None):
    """Return all that is wrong after a fault, as sentences; then go on with the queue.

    A `child` that was not killed is still there meanwhile: nothing may depend on its end.
    """
    looks = {
        "at once": lambda: [*ended_well(folder, outcome), *scene.judge(folder, outcome)],
        "untouched": lambda: nothing_else(folder, scene, outcome),
        "in the end": lambda: and_goes_on(folder, scene, outcome, kills),
    }
    found = []
    for when, look in looks.items():
        try:
            found += [f"{when}: {text}" for text in look()]
        except Exception as problem:
            text = str(problem).partition("\n")[0][:300]
            found.append(f"{when}: {type(problem).__name__}: {text}")
    if child is not None and not outcome.killed and (text := child.go_on()):
        found.append(f"in the same process: {text}")
    return found


def dying(outcome):
    """Whether from then on nothing could be written, nor taken back, nor removed."""
    return outcome.errno == errno.EIO and outcome.lasting


def cannot_tidy(outcome):
    """Whether what is to be removed may have to stay for the next one."""
    looked = outcome.call in ("unlink", "rmdir", "opendir", "readdir", "stat", "lstat")
    return outcome.killed or dying(outcome) or (outcome.errno and looked)


def unsure(outcome):
    return outcome.raised and any(word in outcome.text for word in UNSURE)


# --- right after it


def ended_well(folder, outcome):
    """It did what it was asked for and said so, or raised an error of ours, or was killed."""
    if outcome.raised and "QueueError" not in outcome.raised:
        yield f"{outcome.raised[0]} is none of our errors: {outcome.text}"
    if not outcome.raised and not outcome.killed and not folder.noted("told"):
        yield "no error, and no answer"
    noted = outcome.raised or job_says(folder) or ".d/limits/" in str(outcome.struck)
    if outcome.errno and outcome.call in SYNCS and not noted:  # whose start is not noted is left
        yield "a sync failed, and no error"


def job_says(folder):
    """Whether a job that adds others says in its row what went wrong there."""
    rows = folder.rows(torn=True).values() if folder.file.exists() else ()
    return any("NotStored" in row["error"] for row in rows if row["type"] == "schedule")


def rows_after(folder, outcome):
    """Read the rows; the last line may be torn only where nobody could take it back."""
    left = folder.torn and (outcome.killed or outcome.raised)
    cut = outcome.cut and outcome.killed
    return folder.rows(torn=left or cut or dying(outcome))


def all_or_nothing(folder, outcome, done, undone):
    """`done` says whether it was done, `undone` whether all is as before: exactly one is true."""
    if done == undone:
        yield f"done in part: {folder.statuses()}"
    if folder.noted("told") and not done:
        yield "told that it was done"
    if outcome.raised and done and not unsure(outcome):
        yield f"done, and raised {outcome.text}"


def added(folder, outcome):
    """Who was told an id has his job; who got an exception has none."""
    rows, told = rows_after(folder, outcome), folder.noted("told")
    new = [id for id in rows if id not in folder.known.values()]
    if told and told != new:
        yield f"told {told}, added {new}"
    if outcome.raised and new and not unsure(outcome):
        yield f"raised {outcome.text}, and added {new}"
    if outcome.raised and new and not outcome.lasting and "changed, but" not in outcome.text:
        yield f"raised {outcome.text}, and one error kept it from being taken back: {new}"
    if len(new) not in (0, 1, 5) and not outcome.cut and not dying(outcome):
        yield f"added {len(new)}"
    if told and reader.beside(folder.file, "unsettled").exists():
        yield "told, and a rename before it is not known to be on the disk"


def edited(folder, outcome):
    rows = rows_after(folder, outcome)
    new = [id for id in rows if id not in folder.known.values()]
    second, third = (rows.get(folder.known[name], {}) for name in ("second", "third"))
    done = second.get("priority") == "5" and not third and len(new) == 1
    undone = second.get("priority") == "" and bool(third) and not new
    yield from all_or_nothing(folder, outcome, done, undone)


def cancelled(folder, outcome):
    states = folder.statuses()
    both = states.pop("second"), states.pop("child")
    yield from all_or_nothing(
        folder, outcome, both == ("cancelled", "cancelled"), both == ("pending", "pending")
    )


def retried(folder, outcome):
    states = folder.statuses()
    both = states["bad"], states["after"]
    yield from all_or_nothing(
        folder, outcome, both == ("pending", "pending"), both == ("failed", "cancelled")
    )


def purged(folder, outcome):
    gone = {name for name, status in folder.statuses().items() if not status}
    yield from all_or_nothing(folder, outcome, gone == {"first", "third"}, not gone)


def archived(folder, outcome):
    """A row is in the file or in the archive, and after the next archive() once in the archive."""
    old = {id for name, id in folder.known.items() if name != "fourth"}
    long_ago = set(folder.archived) - old
    here = set(folder.rows())
    yield from all_or_nothing(folder, outcome, not here & old, old <= here)
    if not (outcome.killed or outcome.raised) or here & old != old:
        there = {row["id"] for row in reader.archived(folder.file)}
        if lost := (set(folder.known.values()) | long_ago) - here - there:
            yield f"neither in the file nor in the archive: {lost}"

    folder.queue().archive(0)
    rows = reader.archived(folder.file)
    if lost := (old | long_ago) - {row["id"] for row in rows}:
        yield f"not in the archive after one more: {lost}"
    if folder.known["fourth"] not in folder.rows():
        yield "archived before it has ended"
    colours = {row["id"]: row["colour"] for row in rows if row.get("colour")}
    known = {folder.known[name]: name for name in ("fifth", "sixth") if name in folder.known}
    if colours != known:
        yield f"a column of its own was lost: {colours}"
    months = reader.beside(folder.file, "archive")
    if spare := [file.name for file in months.iterdir() if file.suffix != ".tsv"]:
        yield f"left in the archive: {spare}"


def copied(folder, outcome):
    """The backup is the old one or the new one, and holds what workers have finished."""
    rows = reader.by_id(folder.copied)
    done = set(rows) == set(folder.known.values())
    yield from all_or_nothing(folder, outcome, done, not rows)
    if done and rows[folder.known["finished"]]["status"] != "completed":
        yield "the backup would run a job again that has finished"
    spare = [file.name for file in folder.copied.parent.iterdir() if file != folder.copied]
    if spare and not cannot_tidy(outcome):
        yield f"left beside the backup: {spare}"

    folder.queue().backup(folder.copied)
    if spare := [file.name for file in folder.copied.parent.iterdir() if file != folder.copied]:
        yield f"left beside the backup for good: {spare}"
    if set(reader.by_id(folder.copied)) != set(folder.rows()):
        yield "the next backup is not complete"


def answered(folder, outcome):
    """Whoever got an answer got the right one; who asks changes nothing."""
    noted = reader.outcomes(folder.file)
    for id, row in folder.rows().items():
        status = noted.get((row["worker"], id), row["status"])
        for answer in folder.noted("told"):
            if json.loads(answer).get(id, status) != status:
                yield f"{id} is {status}, told {answer}"
    if folder.rows() != folder.before:
        yield "a question has changed the file"


def ticked(folder, outcome):
    """All jobs are there; a tick that raised nothing has left nothing half done."""
    rows = rows_after(folder, outcome)
    states = {name: rows[id]["status"] if id in rows else "" for name, id in folder.known.items()}
    if lost := {name for name, status in states.items() if not status}:
        yield f"lost: {lost}"
    if not outcome.raised and not outcome.killed:
        unseen = outcome.errno and outcome.call == "open"  # a worker's file: it may be alive
        stuck = {name for name, status in states.items() if status == "processing"}
        if stuck and not unseen:
            yield f"the tick has ended and left as processing: {stuck}"
        left = [name for name in reader.leftovers(folder.file) if name not in LOOSE]
        left = [name for name in left if not name.endswith(".d/workers")]  # perhaps empty
        if left and not cannot_tidy(outcome) and not unseen:
            yield f"the tick has ended and left {left}"


def cared(folder, outcome):
    """All jobs are there, here or in the archive, and no step ran again that was stored."""
    rows = rows_after(folder, outcome)
    if reader.beside(folder.file, "archive").exists():
        folder.queue().archive(0)  # tidies up what was cut off
    there = {*rows, *(row["id"] for row in reader.archived(folder.file))}
    if lost := [name for name, id in folder.known.items() if id not in there]:
        yield f"lost: {lost}"
    stored = set()
    for line in folder.noted("steps"):
        id, number, what = line.split()[:3]
        if what == "is":
            stored.add((id, number))
        elif (id, number) in stored:
            yield f"{id}: step {number} ran again"


def nothing_else(folder, scene, outcome):
    """What was not to change is as it was: rows, mode, owner, attributes; no file lies about."""
    if not folder.file.exists():
        if folder.before:
            yield "the file is gone"
        return
    rows = rows_after(folder, outcome)
    if lost := folder.before.keys() - rows.keys() - folder.ids(scene.takes):
        yield f"lost: {lost}"
    attributes = reader.attributes(folder.file)
    if folder.attributes not in (None, attributes):
        yield f"mode, owner, attributes were {folder.attributes}, now {attributes}"
    for id, row in folder.before.items():
        now = rows.get(id, row)
        given = [name for name in GIVEN if name not in scene.changes]
        if wrong := [name for name in given if now.get(name, "") != row.get(name, "")]:
            yield f"{id}: changed in {wrong}"
        retried = id in (folder.known.get("bad"), folder.known.get("after"))
        if row["status"] in reader.FINISHED and filled(now) != filled(row) and not retried:
            yield f"{id} had ended, and was changed to {now.line}"
    spare = [name for name in reader.leftovers(folder.file) if name.startswith(".")]
    if spare and not cannot_tidy(outcome):
        yield f"left over: {spare}"


def filled(row):
    """The cells that hold something; a wider file gives a row empty ones."""
    return {name: cell for name, cell in row.items() if cell}


# --- in the end


def and_goes_on(folder, scene, outcome, kills):
    """Take another job and run all that is left: nothing that was finished runs again.

    There may be one extra run for each kill, and for an outcome that no disk took.
    """
    mishaps = kills + dying(outcome)
    finished = reader.finished(folder.file, torn=True) if folder.file.exists() else set()
    before = folder.effects()
    another = folder.queue().enqueue("run", {"name": "another"})
    for _ in range(3):
        folder.tick()
        rows = folder.rows()
        odd = [
            row.line for row in rows.values() if row["status"] not in possible_ends(row, mishaps)
        ]
        if not odd:
            break

    effects = folder.effects()
    runs = Counter({id: effects[id] for id in rows})
    attempts = Counter({id: int(row["attempts"]) for id, row in rows.items()})
    usual = Counter({id: RUNS.get(row["type"], 0) for id, row in rows.items()})
    free = Counter(id for id, row in rows.items() if row["type"] == "snooze_first")
    if "after" in folder.known and folder.known["bad"] not in finished:  # it was retried
        usual[folder.known["bad"]] += 1
        free[folder.known["bad"]] += 1
    if lost := set(folder.known.values()) - rows.keys() - folder.ids(scene.takes):
        yield f"lost in the end: {lost}"
    if odd:
        yield f"not as it should end: {odd[:2]}"
    if rows[another]["status"] != "completed":
        yield "it runs no other job"
    if again := {id for id in finished if runs[id] > before[id]}:
        yield f"finished, and run again: {again}"
    if idle := [id for id, row in rows.items() if row["status"] == "completed" and not runs[id]]:
        yield f"completed without a run: {idle}"
    if (extra := (runs - usual).total()) > mishaps:
        yield f"{extra} extra runs"
    if (charged := (attempts - runs).total()) > mishaps:
        yield f"{charged} attempts are charged for which no job ran"
    if uncharged := runs - attempts - free:
        yield f"runs for which no attempt is charged: {uncharged}"
    if left := [name for name in reader.leftovers(folder.file) if name not in LOOSE]:
        yield f"left over for good: {left}"
    if folder.file.stat().st_nlink > 1:
        yield "a second name of the file is left for good"
    mode = (folder.attributes or (0o640,))[0]
    if wide := {n: oct(m) for n, m in reader.modes(folder.file).items() if m & ~mode}:
        yield f"more open than the queue, {mode:o}: {wide}"


def possible_ends(row, mishaps):
    if row["type"] == "nobody-runs-this" or int(row["run_at"]) > time.time() + 1000:
        return ("pending",)
    if row["type"] == "schedule":
        return ("completed", "pending")  # after an error it is tried again in a minute
    if row["error"].startswith("whether it has run cannot be seen"):
        return ("pending",)  # uncharged, for a minute
    if row["status"] == "cancelled":
        return ("cancelled",) if row["after"] or not row["error"] else ()
    if row["type"] in FAIL:
        return ("failed",)
    if mishaps and row["max_attempts"] == "1" and row["error"].startswith("worker died"):
        return ("failed",)
    return ("completed",)


# --- in the process in which it happened


def lives_on(folder):
    """Raise when this process holds more than it should, or cannot use the same queue again."""
    kept = [str(folder.file), f"{folder.file} (deleted)"]  # from one append to the next
    held = held_open(folder)
    assert len(held) < 2 and set(held) <= set(kept), f"it keeps open: {held}"
    for path in (folder.file, folder.file.with_name("queue.tsv.lock")):
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it has it locked
    queue = folder.last or folder.queue()
    id = queue.enqueue("run", {"name": "another one"})
    queue.process_jobs(folder.handlers(), middleware=folder.layers)
    row = folder.rows()[id]
    assert row["status"] == "completed", f"it runs nothing any more: {row.line}"
    assert not held_open(folder), f"it keeps open for good: {held_open(folder)}"


def held_open(folder):
    """The names of the queue's files that this process has open, but for the lock."""
    data = f"{folder.file.parent}/"
    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    names = [os.readlink(fd) for fd in fds if os.path.lexists(fd)]
    return [name for name in names if name.startswith(data) and not name.endswith(".lock")]


# --- the first call goes wrong, the second, and so on: seen from Python


def problems_of(name, mode, path, *, every=1):
    """Let each call of a scene, or `every` so many-th, go wrong in turn.

    Return how many went wrong, and all that was wrong then.
    """
    from . import calls, scenes

    scene = scenes.SCENES[name]
    base = scenes.Folder(path / "base")
    base.path.mkdir()
    problems = []
    logger = logging.getLogger("dbbasic_queue")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # its workers fail and die by the dozen
    try:
        scene.prepare(base)
        base.look()
        for turn in itertools.count():
            number = 1 + turn * every
            folder = base.copy(path / str(number))
            outcome = calls.attempt(lambda: scene.act(folder), mode, number)  # noqa: B023
            if not outcome.struck:
                assert not outcome.raised, f"without a fault: {outcome}"
                return turn, problems
            found = violations(folder, scene, outcome, kills=int(outcome.killed))
            problems += [f"{outcome.struck}, {outcome.text}: {text}" for text in found]
            shutil.rmtree(folder.path)
    finally:
        logger.setLevel(level)
