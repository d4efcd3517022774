"""The power fails at any point: no acknowledged job is gone, and the queue goes on by itself."""

import pytest

from . import cuts, power, record, true_cut
from .disk import Disk
from .power_scenes import SCENES, Scene, a_folder, three_jobs

EVERY = [(name, sync) for name, scene in SCENES.items() for sync in scene.syncs]


@pytest.mark.faults
@pytest.mark.parametrize(("name", "sync"), EVERY)
def test_p1_p2_p4_p6_p10_p11_p29_t12_a_power_cut_at_any_point_of(name, sync):
    """P1, P2, P4, P6, P10, P11, P29: in each state that either model allows."""
    for result in cuts.results(name, sync, cuts.BOUNDED):
        assert not result.violations, "\n".join([result.name, *result.violations[:20]])
        assert result.cases >= 4


@pytest.mark.faults
def test_p1_p2_p11_t14_a_true_power_cut(tmp_path):
    """P1, P2, P11: ext4 on a loop file, shut down without a flush; where the machine allows it."""
    found = list(true_cut.campaign(bounded=True))

    for result in found:
        assert not result.violations, "\n".join([result.name, *result.violations[:20]])
    assert all(result.cases for result in found) or true_cut.refused(tmp_path)


# --- the log and the models


def recorded(path, act, before=a_folder):
    path.mkdir()
    return cuts.Recording(Scene(before, (act,)), "normal", path)


@pytest.mark.faults
def test_the_replay_of_a_log_gives_the_real_folder_and_misses_no_call(tmp_path):
    def enqueue(place):
        place.told(place.queue().enqueue("run"))

    def past_the_recorder(place):
        enqueue(place)
        (place.root / "more").write_bytes(b"written by C code")

    exact = recorded(tmp_path / "1", enqueue, three_jobs)
    missing = recorded(tmp_path / "2", past_the_recorder)

    assert exact.is_exact()
    assert exact.entries()
    assert not missing.is_exact()


def trees(model, entries, path="new"):
    """Return what may be at a path after a cut: b"…", or None for no such file."""
    chosen = Disk([("mkdir", ".", 1), ("create", "old", 2), ("write", 2, 0, 0, b"old")])
    for entry in entries:
        chosen.follow(entry)
    return {tree.data(path) for tree in power.MODELS[model](chosen, 1000, None)}


CREATED = [("create", "new", 3), ("write", 3, 0, 0, b"data")]


def test_what_was_not_synced_may_be_lost_in_any_part():
    assert trees("posix", CREATED) == {None, b"", bytes(4), b"data"}
    assert trees("posix", [*CREATED, ("fsync", 3)]) == {None, b"data"}
    assert trees("posix", [*CREATED, ("fsync", 1)]) == {b"", bytes(4), b"data"}
    assert trees("posix", [*CREATED, ("fsync", 3), ("fsync", 1)]) == {b"data"}


def test_ext4_leaves_no_zeros_and_takes_names_with_a_sync():
    assert trees("ext4", CREATED) == {None, b"", b"data"}
    assert trees("ext4", [*CREATED, ("fdatasync", 3)]) == {b"data"}
    assert trees("ext4", [*CREATED, ("fsync", 1)]) == {b"", b"data"}


def test_a_rename_over_a_file_waits_for_the_data_on_ext4_only():
    renamed = [*CREATED, ("rename", "new", "old")]

    assert trees("posix", renamed, "old") == {b"old", b"", bytes(4), b"data"}
    assert trees("ext4", renamed, "old") == {b"old", b"data"}


def test_a_long_write_may_be_torn_at_each_sector():
    data = b"".join(bytes([65 + number]) * 512 for number in range(3))
    found = trees("posix", [("write", 2, 0, 3, data), ("fsync", 1)], "old")

    assert b"old" + data[:509] in found
    assert b"old" + data[:509] + bytes(len(data) - 509) in found
    assert b"old" + bytes(509) + data[509:] in found
    assert b"old" + data[:1021] in found


def test_of_reserved_room_a_page_may_be_late_on_ext4():
    data = b"x" * 4096 + b"y" * 100
    reserved = [("allocate", 2, 0, 8192), ("fsync", 2)]

    found = trees("ext4", [*reserved, ("write", 2, 0, 0, data)], "old")

    assert b"old" + bytes(4093) + b"y" * 100 + bytes(8192 - 4196) in found


@pytest.mark.faults
def test_the_same_log_gives_the_same_states(tmp_path):
    def tick(place):
        place.tick()

    recording = recorded(tmp_path / "1", tick, three_jobs)
    twice = [cuts.states(recording, "posix", cuts.BOUNDED, "seed") for _ in range(2)]

    keys = [[(point, tree.key()) for point, _, tree in found] for found in twice]
    assert keys[0] == keys[1]
    assert len(keys[0]) > 100


def test_a_snapshot_keeps_second_names(tmp_path):
    tmp_path.joinpath("one").write_bytes(b"x")
    tmp_path.joinpath("two").hardlink_to(tmp_path / "one")

    tree = Disk(record.snapshot(tmp_path)).tree()

    assert tree.files["one"][0] is tree.files["two"][0]
