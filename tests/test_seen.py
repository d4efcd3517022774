"""What each worker served at its last tick, in `queue.tsv.d/types`."""

import os
import stat
import time
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Queue, limits, seen

NOW = 1760000000


@pytest.fixture(autouse=True)
def clock():
    with freeze_time("2025-10-09 08:53:20") as clock:
        yield clock


def tick(queue, handlers=None, **options):
    """A tick that is not idle: a job is due, of a type that nobody handles."""
    if not os.path.exists(queue.path):
        queue.enqueue("nobody")
    queue.process_jobs({"mail": print} if handlers is None else handlers, **options)


def types(queue):
    return Path(queue.path + ".d/types")


def lines(queue):
    return [line.split("\t") for line in types(queue).read_text().splitlines()]


def test_a_line_is_name_queues_types_time_and_limits(queue):
    tick(queue, {"mail": print, "fetch": print}, name="anna", queues=["high", "low"],
         admit=[limits.rate(2, 60, type="mail", name="mail"), limits.concurrency(1)])  # fmt: skip

    asked = "rate(2, 60, type='mail', name='mail')\\nconcurrency(1)"
    assert lines(queue) == [["anna", "high,low", "mail,fetch", str(NOW), asked]]
    [one] = seen.seen(queue.file)
    assert (one.name, one.queues, one.types) == ("anna", ["high", "low"], ["mail", "fetch"])
    assert one.limits == asked.split("\\n")


def test_a_worker_has_one_line_by_its_name_or_else_by_its_queues(queue):
    tick(queue, name="anna")
    tick(queue, name="anna", queues=["high"])
    tick(queue)
    tick(queue, queues=["high"])
    tick(queue, {"fetch": print})

    front = [line[:3] for line in lines(queue)]
    wanted = [["", "", "fetch"], ["", "high", "mail"], ["anna", "high", "mail"]]
    assert sorted(front) == wanted


def test_it_is_written_only_when_it_says_something_new_or_is_an_hour_old(queue, clock):
    tick(queue)
    os.utime(types(queue), (1, 1))
    clock.tick(3599)
    tick(queue)
    assert types(queue).stat().st_mtime == 1

    clock.tick(1)
    tick(queue)

    assert lines(queue) == [["", "", "mail", str(NOW + 3600), ""]]


def test_an_idle_tick_leaves_it_alone(queue, tmp_path):
    queue.enqueue("mail", run_at=NOW + 3600)
    tick(queue)
    types(queue).unlink()

    tick(queue, name="anna")

    assert not types(queue).exists()


def test_a_line_that_nobody_writes_any_more_goes_after_a_week(queue, clock):
    tick(queue, name="anna")
    clock.tick(7 * 86400 - 1)
    tick(queue, name="bert")
    assert [line[0] for line in lines(queue)] == ["anna", "bert"]

    clock.tick(1)
    assert [one.name for one in seen.seen(queue.file)] == ["bert"]
    tick(queue, name="carl")

    assert [line[0] for line in lines(queue)] == ["bert", "carl"]


def test_names_that_are_new_each_time_do_not_pile_up(queue, clock):
    for number in range(seen.MOST + 5):
        tick(queue, name=f"w{number}")
        clock.tick(1)

    names = [line[0] for line in lines(queue)]
    assert names == [f"w{number}" for number in range(5, seen.MOST + 5)]


def test_a_mapping_that_says_yes_to_anything_is_a_star(queue):
    class Everything(dict):
        def __contains__(self, type):
            return True

    tick(queue, Everything())

    assert lines(queue)[0][2] == "*"
    assert seen.seen(queue.file)[0].handles("anything")


def test_a_function_without_a_text_of_its_own_is_named(queue):
    class Broken:
        def __call__(self, job, counts):
            return None

        def __repr__(self):
            raise ValueError

    tick(queue, admit=[lambda job, counts: None, Broken()])

    here = f"{__name__}.test_a_function_without_a_text_of_its_own_is_named.<locals>"
    [one] = seen.seen(queue.file)
    assert one.limits == [f"{here}.<lambda>", f"{__name__}.{Broken.__qualname__}"]


def test_hostile_words_stay_one_line(queue):
    tick(queue, {"a\tb\nc\x1b": print}, queues=["x\ty"])

    assert len(lines(queue)) == 1
    [one] = seen.seen(queue.file)
    assert (one.queues, one.types) == (["x\ty"], ["a\tb\nc\x1b"])


@pytest.mark.parametrize(
    "spoilt", [b"\0\xff\n", b"a\tb\n", b"a\tb\tc\tx\t\n", b"a\tb\tc\t99999999999\t\n", b"a\tb"]
)
def test_what_is_spoilt_is_left_out_and_goes_with_the_next_line(queue, spoilt):
    queue.enqueue("nobody")
    queue.file.make_side()
    types(queue).write_bytes(spoilt)

    assert seen.seen(queue.file) == []
    tick(queue)

    assert lines(queue) == [["", "", "mail", str(NOW), ""]]


@pytest.mark.parametrize("place", ["a link", "a folder", "a pipe"])
def test_what_stands_in_its_place_is_not_touched_and_the_tick_goes_on(queue, tmp_path, place):
    queue.enqueue("mail")
    queue.file.make_side()
    other = tmp_path / "other"
    other.write_text("mine")
    if place == "a link":
        types(queue).symlink_to(other)
    elif place == "a folder":
        types(queue).mkdir()
    else:
        os.mkfifo(types(queue))

    tick(queue, {"mail": lambda payload: None})

    assert queue.counts() == {"completed": 1}
    assert seen.seen(queue.file) == []
    assert other.read_text() == "mine"


def test_it_is_as_open_as_the_queue(queue):
    queue.enqueue("nobody")
    os.chmod(queue.path, 0o640)

    tick(queue)

    assert stat.S_IMODE(types(queue).stat().st_mode) == 0o640


def test_a_worker_that_lives_long_says_it_when_it_begins(queue, run_python):
    queue.enqueue("mail")
    child = run_python(f"""
        from dbbasic_queue import Queue
        def mail(payload):
            print("runs", flush=True)
            input()
        Queue({queue.path!r}).process_jobs({{"mail": mail}}, name="anna", run_for=1)
    """)

    assert child.stdout.readline() == "runs\n"

    assert lines(queue)[0][:3] == ["anna", "", "mail"]


def test_a_tick_that_says_nothing_new_pays_little(tmp_path):
    """A generous bound, for a noisy machine: the median was measured at about 12 µs."""
    queue = Queue(tmp_path / "queue.tsv", sync="off")
    tick(queue)
    options = queue_options()
    said = seen.said_by(options)
    taken = []

    for _ in range(100):
        begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        seen.note(queue.file, said)
        taken.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - begun)

    print(f"{sorted(taken)[50] / 1000:.1f} µs")
    assert len(lines(queue)) == 1
    assert sorted(taken)[50] < 120_000


def queue_options():
    from types import SimpleNamespace

    return SimpleNamespace(name=None, queues=None, handlers={"mail": print}, admit=())
