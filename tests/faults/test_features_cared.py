"""Sealed jobs in steps, and a retention, while all who add and work are killed."""

import pytest

pytestmark = pytest.mark.faults


def test_no_step_runs_twice_nothing_leaks_and_nothing_is_lost_when_all_are_killed(tmp_path):
    pytest.importorskip("cryptography")
    from . import features_cared

    result = features_cared.run(50, tmp_path)

    assert result.violations == []
    assert (result.cases, result.killed > 500) == (50, True)


def test_the_judge_sees_a_step_that_ran_again_and_a_job_that_is_lost(tmp_path):
    pytest.importorskip("cryptography")
    from dbbasic_queue import Queue

    from . import features_cared

    (tmp_path / "told").write_text("0123456789abcdef\n")
    (tmp_path / "steps").write_text("0123456789abcdef 1 stored\n0123456789abcdef 1 begun\n")
    queue = Queue(tmp_path / "queue.tsv")
    queue.enqueue("steps", features_cared.SECRET)

    found = features_cared.leaks(tmp_path) + list(features_cared.judge(queue, tmp_path))

    assert [text.partition(" ")[2] for text in found][:3] == [
        "holds the secret", "step 1 ran again after it was stored", "is lost",
    ]  # fmt: skip
