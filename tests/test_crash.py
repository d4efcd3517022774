"""A process dies, or the disk fails, at any system call: the file is the old one or the new one.

What is done is in tests/faults/scenes.py, what must hold in verdict.py; every call and every error
are beside them, in campaign.py: here is what the plain run can afford, and what was found there.
"""

import contextlib
import fcntl
import os

import pytest
from faults import calls, reader, scenes, verdict

from dbbasic_queue import Queue, QueueError, errors, lock
from dbbasic_queue.errors import DuplicateId
from dbbasic_queue.tsv import HEADER

# Scenes of many calls: here every so many-th goes wrong, each one in tests/faults/test_calls.py.
EVERY = {"archive": 6, "tick": 11, "recovery": 11}


@pytest.fixture
def jobs(tmp_path):
    """A queue with three jobs, in a folder that scenes know how to work on."""
    folder = scenes.Folder(tmp_path)
    scenes.three_jobs(folder)
    return folder


SCENES = [*scenes.QUICK, *(pytest.param(one, marks=pytest.mark.faults) for one in scenes.NEXT)]


def unsettled(folder):
    return folder.file.with_name("queue.tsv.d") / "unsettled"


@pytest.mark.parametrize("scene", SCENES)
def test_p1_p4_p6_p10_p11_p12_p27_p31_a_kill_before_the_calls_of(scene, tmp_path):
    """P1, P4, P6, P10, P11, P12, P27, P31: none is lost, none that is finished runs again."""
    every = EVERY.get(scene, 1)

    count, problems = verdict.problems_of(scene, "killed before", tmp_path, every=every)

    assert not problems, "\n".join(problems)
    assert count >= 2


@pytest.mark.parametrize("scene", ["enqueue", "enqueue_many", "cancel", "tick"])
def test_p1_p4_a_kill_in_the_middle_of_the_writes_of(scene, tmp_path):
    """P1, P4: half of what was to be written is there."""
    every = EVERY.get(scene, 1)

    count, problems = verdict.problems_of(scene, "killed in the middle of", tmp_path, every=every)

    assert not problems, "\n".join(problems)
    assert count >= 1


@pytest.mark.parametrize(
    "scene", ["first use of a folder", "enqueue", "enqueue_many", "cancel", "tick"]
)
def test_p2_p3_p29_a_sync_that_fails_is_an_error_at_the_syncs_of(scene, tmp_path):
    """P2, P3, P29: nothing is reported as stored of which it is not known."""
    every = EVERY.get(scene, 1)

    count, problems = verdict.problems_of(scene, "sync error at", tmp_path, every=every)

    assert not problems, "\n".join(problems)
    assert count >= 1


@pytest.mark.parametrize("scene", ["first use of a folder", "enqueue", "enqueue_many", "cancel"])
def test_p3_p21_the_disk_is_full_from_each_call_on_of(scene, tmp_path):
    """P3, P21: an exception, no job, no file left over, and all goes on when there is room."""
    count, problems = verdict.problems_of(scene, "no space from", tmp_path)

    assert not problems, "\n".join(problems)
    assert count >= 1


def interrupt_before(real, name, args):
    raise KeyboardInterrupt


def interrupt_after(real, name, args):
    real(*args)
    raise KeyboardInterrupt


@pytest.mark.parametrize("strike", [interrupt_before, interrupt_after, calls.io_error])
def test_p3_a_retry_with_the_same_id_stores_the_job_once_whatever_went_wrong_at_each_call(
    strike, tmp_path
):
    """P3: an exception out of a signal handler, at any call; an error of any sync.  The first one
    is taken back.
    """
    base, id = scenes.Folder(tmp_path / "base"), "0123456789abcdef"
    base.path.mkdir()
    scenes.three_jobs(base)
    counts = calls.syncs if strike is calls.io_error else calls.changes

    for number in range(1, 100):
        folder = base.copy(tmp_path / str(number))
        mode = calls.Mode("struck at", False, counts, strike)
        outcome = calls.attempt(lambda f=folder: f.queue().enqueue("run", id=id), mode, number)
        if not outcome.struck:
            break
        before = set(folder.rows()) - set(folder.known.values())
        with contextlib.suppress(DuplicateId):
            folder.queue().enqueue("run", id=id)

        assert outcome.raised
        assert not before, outcome
        assert set(folder.rows()) == {*folder.known.values(), id}

    assert number > 1


@pytest.mark.parametrize("strike", [interrupt_before, interrupt_after])
def test_p8_an_exception_out_of_a_signal_handler_at_any_call_leaves_nothing_locked(strike, jobs):
    def enqueue_and_look():
        queue = jobs.queue(lock_timeout=0.2)
        try:
            queue.enqueue("run")
        except KeyboardInterrupt:
            for path in (jobs.file, jobs.file.with_name("queue.tsv.lock")):
                with path.open() as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            queue.enqueue("run")
            raise

    for number in range(1, 100):
        mode = calls.Mode("struck at", False, lambda *_: True, strike)
        outcome = calls.attempt(enqueue_and_look, mode, number)
        if not outcome.struck:
            break

        assert outcome.raised[:1] in [("KeyboardInterrupt",), ()], outcome  # none in a __del__
    assert number > 9


@pytest.mark.parametrize("scene", SCENES)
def test_p20_a_reader_at_each_call_sees_whole_lines_and_every_job_of(scene, tmp_path):
    """P20: before and after each system call; only the very last line may be incomplete."""
    prepare, act, *_ = scenes.SCENES[scene]
    folder = scenes.Folder(tmp_path)
    prepare(folder)
    known, versions = set(folder.rows(torn=True)), set()

    def look():
        versions.add(frozenset(known & set(folder.rows(torn=True))))
        assert len(versions) == 1 or (scene in ("purge", "archive") and len(versions) == 2)

    def read_around(real, name, args):
        look()
        result = real(*args)
        look()
        return result

    everywhere = calls.Mode("read around", True, lambda *_: True, read_around)
    outcome = calls.attempt(lambda: act(folder), everywhere, 1)

    assert outcome.struck
    assert not outcome.raised, outcome.text


# --- what is on the disk before a verb returns


def test_p2_enqueue_returns_after_its_row_is_synced(jobs):
    made = calls.made_by(lambda: scenes.enqueue(jobs))

    assert made[-2:] == ["write queue.tsv", "fdatasync queue.tsv"]


def test_p2_the_first_enqueue_syncs_the_file_its_name_and_the_row(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.nothing(folder)

    made = calls.made_by(lambda: scenes.enqueue(folder))

    linked = next(at for at, call in enumerate(made) if call.startswith("link "))
    assert made[linked - 1].startswith("fdatasync .queue.tsv.")
    assert made.index("fsync data") > linked
    assert made[-1] == "fdatasync queue.tsv"


def test_p2_a_new_folder_is_synced_into_the_one_above_it(tmp_path):
    folder = scenes.Folder(tmp_path)

    made = calls.made_by(lambda: scenes.enqueue(folder))

    assert made.index(f"fsync {tmp_path.name}") > made.index("mkdir data")


def test_p2_every_new_folder_above_the_first_file_is_synced(tmp_path):
    queue = Queue(tmp_path / "one" / "two" / "queue.tsv")

    made = calls.made_by(lambda: queue.enqueue("run"))

    linked = next(at for at, call in enumerate(made) if call.startswith("link "))
    for name in (tmp_path.name, "one", "two"):
        assert f"fsync {name}" in made[linked:], name


@pytest.mark.parametrize("call", ["link", "unlink"])
def test_p2_t12_after_a_first_use_that_was_killed_the_next_append_syncs_the_folder(tmp_path, call):
    folder = scenes.Folder(tmp_path)
    how = calls.finish_and_die if call == "link" else calls.die
    fault = calls.Mode("killed at", False, lambda name, args, room: name == call, how)
    outcome = calls.attempt(lambda: scenes.enqueue(folder), fault, 1)

    made = calls.made_by(lambda: scenes.enqueue(folder))

    assert outcome.killed
    assert made.index("fsync data") < made.index("fdatasync queue.tsv")
    assert f"fsync {tmp_path.name}" in made
    assert len(folder.rows()) == 1
    assert not reader.leftovers(folder.file)
    assert "fsync data" not in calls.made_by(lambda: scenes.enqueue(folder))


def test_p2_p29_t12_a_first_use_whose_folder_cannot_be_synced_is_settled_by_the_next(tmp_path):
    folder = scenes.Folder(tmp_path)
    fault = calls.Mode("sync error at", False, lambda name, *_: name == "fsync", calls.io_error)
    outcome = calls.attempt(lambda: scenes.enqueue(folder), fault, 1)

    made = calls.made_by(lambda: scenes.enqueue(folder))

    assert "NotStored" in outcome.raised
    assert made.index("fsync data") < made.index("fdatasync queue.tsv")
    assert not reader.leftovers(folder.file)


def test_p2_an_edit_is_synced_before_its_rename_and_the_folder_after_it(jobs):
    made = calls.made_by(lambda: scenes.cancel(jobs))

    renamed = next(at for at, call in enumerate(made) if call.startswith("rename .queue.tsv."))
    temporary = made[renamed].split()[1]
    written = max(at for at, call in enumerate(made) if call.endswith(f"write {temporary}"))
    assert written < made.index(f"fsync {temporary}") < renamed
    assert "fsync data" in made[renamed:]
    assert made.index("unlink unsettled") > made.index("fsync data", renamed)


def test_p2_without_sync_an_append_is_one_write_and_an_edit_is_synced_all_the_same(jobs):
    appended = calls.made_by(lambda: jobs.queue(sync="off").enqueue("run"))
    edited = calls.made_by(lambda: jobs.queue(sync="off").cancel(jobs.known["second"]))

    assert appended[-1] == "write queue.tsv"
    assert not [call for call in appended if "sync" in call]
    assert "fsync data" in edited


@pytest.mark.parametrize("call", ["rename", "unlink"])
def test_p2_t12_after_a_rename_that_was_not_settled_the_next_append_syncs_the_folder(jobs, call):
    name = "queue.tsv" if call == "rename" else "unsettled"
    fault = calls.at(call, name, calls.finish_and_die if call == "rename" else calls.die)
    outcome = calls.attempt(lambda: scenes.cancel(jobs), fault, 1)

    assert outcome.killed
    assert unsettled(jobs).exists()
    without = calls.made_by(lambda: jobs.queue(sync="off").enqueue("run"))
    assert "fsync data" not in without
    assert unsettled(jobs).exists()
    made = calls.made_by(lambda: scenes.enqueue(jobs))
    assert "fsync data" in made
    assert made.index("unlink unsettled") > made.index("fsync data")
    assert "fsync data" not in calls.made_by(lambda: scenes.enqueue(jobs))


def test_p2_p29_t12_a_folder_that_cannot_be_synced_lets_no_append_through(jobs):
    calls.attempt(
        lambda: scenes.cancel(jobs), calls.at("rename", "queue.tsv", calls.finish_and_die), 1
    )
    before = jobs.file.read_bytes()

    outcome = calls.attempt(lambda: scenes.enqueue(jobs), "sync error from", 1)

    assert "NotStored" in outcome.raised
    assert "not known to be stored" in outcome.text
    assert jobs.file.read_bytes() == before
    assert unsettled(jobs).exists()


def test_p2_full_syncs_each_start_and_outcome_before_the_next_job(jobs):
    def tick():
        jobs.queue(sync="full").process_jobs(jobs.handlers())

    made = calls.made_by(tick)

    _first_line, *appends = [at for at, call in enumerate(made) if call.startswith("pwrite w-")]
    assert len(appends) > 3
    assert all(made[at + 1].startswith("fdatasync w-") for at in appends)


def test_p2_a_worker_file_is_on_the_disk_before_a_row_names_it(jobs):
    made = calls.made_by(jobs.tick)

    named = next(at for at, call in enumerate(made) if call.startswith("rename .queue.tsv."))
    assert made.index("fsync workers") < named


def test_p11_t12_a_folder_of_workers_by_one_who_died_is_synced_before_a_row_names_a_worker(jobs):
    """Till then a power cut could take the folder, and with it what has finished."""

    def makes_it(name, args, room):
        return name == "mkdir" and args[0].endswith("workers")

    fault = calls.Mode("killed after", False, makes_it, calls.finish_and_die)
    outcome = calls.attempt(jobs.tick, fault, 1)

    made = calls.made_by(jobs.tick)

    named = next(at for at, call in enumerate(made) if call.startswith("rename .queue.tsv."))
    assert outcome.killed
    assert "mkdir workers" not in made[:named]
    assert made.index("fsync queue.tsv.d") < named


def test_p2_t12_an_archive_is_on_the_disk_with_all_its_folders_before_a_row_is_taken_out(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.finished_jobs(folder)
    folder.file.with_name("queue.tsv.d").joinpath("archive").mkdir()

    made = calls.made_by(lambda: scenes.archive(folder))

    renamed = next(at for at, call in enumerate(made) if call.startswith("rename .queue.tsv."))
    for name in ("archive", "queue.tsv.d", "data"):
        assert f"fsync {name}" in made[:renamed], name


# --- what a power cut may leave


@pytest.mark.parametrize("size", [0, 1, 60])
def test_p6_a_header_of_which_only_zeros_reached_the_disk_is_written_again(tmp_path, size):
    file = tmp_path / "queue.tsv"
    whole = HEADER.line + b"\n"
    file.write_bytes(whole[:size] + bytes(len(whole) - size))

    id = Queue(file).enqueue("run")

    assert list(reader.by_id(file)) == [id]


def test_p32_zeros_that_are_no_header_of_ours_are_not_touched(tmp_path):
    file = tmp_path / "image"
    file.write_bytes(bytes(4096))

    with pytest.raises(errors.ForeignFile):
        Queue(file).enqueue("run")

    assert file.read_bytes() == bytes(4096)


def test_p4_a_row_of_which_a_part_is_zeros_is_no_job_and_is_left_as_it_is(jobs):
    line = reader.read(jobs.file)[0].line
    torn = bytes(8) + line[8:] + b"\n"
    with jobs.file.open("ab") as file:
        file.write(torn)

    jobs.tick()

    assert set(jobs.effects()) == set(jobs.known.values())
    assert torn in jobs.file.read_bytes()


def test_p27_a_second_name_of_the_hint_or_of_an_archive_goes_and_its_content_stays(tmp_path):
    """A rename of which only the new name reached the disk."""
    folder = scenes.Folder(tmp_path)
    scenes.finished_jobs(folder)
    folder.queue().archive(0)
    folder.queue().enqueue("run")
    folder.tick()
    side = folder.file.with_name("queue.tsv.d")
    month = next(side.joinpath("archive").iterdir())
    for path in (side / "hint", month):
        path.with_name(path.name + ".tmp").hardlink_to(path)
    archived = reader.by_id(month)
    folder.queue().enqueue("run")
    folder.tick()

    folder.queue().archive(0)

    assert archived.items() < reader.by_id(month).items()
    assert not reader.leftovers(folder.file)


# --- a last line that is cut off


@pytest.mark.parametrize("cells", range(1, 19))
def test_p4_a_line_torn_at_any_cell_is_no_job_and_swallows_none(jobs, cells):
    whole = reader.read(jobs.file)[-1].line.split(b"\t")
    torn = b"\t".join(whole[:cells]).replace(whole[0], b"ffff000000000000")
    with jobs.file.open("ab") as file:
        file.write(torn)

    seen = {job.id for job in jobs.queue().jobs()}
    new = jobs.queue().enqueue("run")

    assert seen == set(jobs.known.values())
    assert list(jobs.rows()) == [*jobs.known.values(), new]
    assert torn in jobs.file.with_name("queue.tsv.d").joinpath("torn.tsv").read_bytes()


def test_p4_a_row_that_lacks_only_its_newline_is_a_job_once_the_next_one_is_there(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.an_open_line(folder)

    before = {job.id for job in folder.queue().jobs()}
    new = folder.queue().enqueue("run")

    assert folder.known["open"] not in before
    assert list(folder.rows()) == [*folder.known.values(), new]


# --- one call that fails, and is not to be taken for another answer


def fails(folder, act, call, target, strike=calls.io_error):
    """Do it with one call that fails; return how it ended."""
    outcome = calls.attempt(lambda: act(folder), calls.at(call, target, strike), 1)
    assert outcome.struck
    return outcome


def test_p3_a_close_that_fails_when_the_row_is_stored_is_no_error_and_leaves_no_lock(
    jobs, monkeypatch
):
    monkeypatch.setattr(lock, "_SMALL", 0)  # as a long file it is closed each time

    def enqueue_and_look(folder):
        scenes.enqueue(folder)
        with folder.file.with_name("queue.tsv.lock").open() as neighbour:
            fcntl.flock(neighbour, fcntl.LOCK_EX | fcntl.LOCK_NB)

    outcome = fails(jobs, enqueue_and_look, "close", "queue.tsv")

    assert not outcome.raised, outcome.text
    assert jobs.noted("told") == list(jobs.rows())[3:]


def test_p2_t12_an_append_that_cannot_see_whether_a_rename_is_settled_is_an_error(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.an_unsettled_rename(folder)

    outcome = fails(folder, scenes.enqueue, "stat", "unsettled")

    assert "NotStored" in outcome.raised
    assert len(folder.rows()) == 3


def test_p21_a_header_that_does_not_fit_leaves_the_file_empty(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.an_empty_file(folder)

    outcome = fails(folder, scenes.enqueue, "write", "queue.tsv", calls.half_and_no_space)

    assert "NotStored" in outcome.raised
    assert folder.file.read_bytes() == b""


def test_p23_an_edit_that_cannot_keep_the_attributes_changes_nothing(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.a_long_file(folder)
    if not reader.attributes(folder.file)[3]:
        pytest.skip("a file system without extended attributes")

    outcome = fails(folder, scenes.edit, "setxattr", "user.note", calls.no_space)

    assert "NotStored" in outcome.raised
    assert folder.statuses()["third"] == "pending"
    assert reader.attributes(folder.file)[3] == {"user.note": b"ours"}


def test_p3_a_hint_that_cannot_be_read_makes_no_error_of_an_edit_that_is_done(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.finished_jobs(folder)

    outcome = fails(folder, scenes.retry, "read", "hint")

    assert not outcome.raised, outcome.text
    assert folder.statuses()["bad"] == "pending"


@pytest.mark.parametrize("call", ["close", "rename"])
def test_p21_a_hint_that_cannot_be_stored_leaves_nothing(jobs, call):
    never = calls.at(call, "hint.tmp", calls.no_space)._replace(lasting=True)

    outcome = calls.attempt(jobs.tick, never, 1)

    assert outcome.struck
    assert not outcome.raised, outcome.text
    assert not reader.leftovers(jobs.file)


def test_p22_an_archive_that_cannot_be_looked_up_is_not_taken_for_a_new_one(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.an_archive(folder)
    before = reader.archived(folder.file)
    (month,) = reader.beside(folder.file, "archive").iterdir()

    outcome = fails(folder, scenes.archive, "open", month.name)

    assert "NotStored" in outcome.raised
    assert reader.archived(folder.file) == before
    assert folder.statuses()["fifth"] == "completed"


def test_p22_a_link_that_cannot_be_read_is_an_error_not_another_queue(tmp_path, monkeypatch):
    folder = scenes.Folder(tmp_path)
    scenes.a_link(folder)
    monkeypatch.setattr(os, "readlink", lambda *_, **__: calls.io_error(None, "", ()))

    with pytest.raises(QueueError, match="cannot be looked up: Input/output error"):
        folder.queue()


def test_p21_a_new_file_beside_the_queue_that_cannot_be_dressed_is_removed_and_closed(jobs):
    outcome = fails(jobs, scenes.cancel, "fchmod", "unsettled")

    assert "NotStored" in outcome.raised
    assert not unsettled(jobs).exists()
    assert not reader.leftovers(jobs.file)


def test_p22_a_worker_file_that_cannot_be_read_is_an_error_of_ours_to_who_asks(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.a_dead_worker(folder)
    worker = folder.rows()[folder.known["finished"]]["worker"].partition(".")[0] + ".tsv"

    def get(folder):
        folder.queue().get(folder.known["finished"])

    assert "QueueError" in fails(folder, get, "open", worker).raised
    assert "QueueError" in fails(folder, lambda f: list(f.queue().jobs()), "pread", worker).raised
    assert "QueueError" in fails(folder, scenes.ask, "listdir", "workers").raised


# --- a backup


def test_p27_what_a_killed_backup_has_left_goes_with_the_next_one(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.an_old_backup(folder)
    old = folder.copied.read_bytes()
    foreign = folder.copied.with_name("queue.tsv.notes.tmp")
    foreign.touch()

    outcome = fails(folder, scenes.backup, "rename", "queue.tsv", calls.die)

    assert outcome.killed
    assert folder.copied.read_bytes() == old
    assert len(list(folder.copied.parent.iterdir())) == 3
    folder.queue().backup(folder.copied)
    assert sorted(folder.copied.parent.iterdir()) == [folder.copied, foreign]


def test_p3_a_backup_whose_target_cannot_be_looked_up_is_not_made(tmp_path, monkeypatch):
    folder = scenes.Folder(tmp_path)
    scenes.an_old_backup(folder)
    old = folder.copied.read_bytes()
    monkeypatch.setattr(os.path, "samefile", lambda *_: calls.io_error(None, "", ()))

    with pytest.raises(errors.NotStored, match="no backup was made: Input/output error"):
        folder.queue().backup(folder.copied)

    assert folder.copied.read_bytes() == old


def test_p3_a_backup_that_is_there_is_not_said_to_have_failed(tmp_path):
    folder = scenes.Folder(tmp_path)
    scenes.an_old_backup(folder)

    outcome = fails(folder, scenes.backup, "fsync", "backup")

    assert "NotStored" in outcome.raised
    assert "made, but not known to be on the disk" in outcome.text
    assert len(reader.read(folder.copied)) == 6
