"""The figures, kept from look to look, say what a fresh look says; whatever happens to the file."""

import random
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from freezegun import freeze_time

from dbbasic_queue import Discard, Snooze
from dbbasic_queue.errors import BadArgument
from dbbasic_queue.stats import Figures, errors, stats, ticks
from dbbasic_queue.stats.summary import Summary

NOW = "2026-11-22 12:00:00"


def handlers():
    def flaky(payload):
        raise ValueError(f"no {payload}\nand more")

    def later(payload):
        raise Snooze(500)

    def gone(payload):
        raise Discard("gone")

    return {"good": lambda payload: payload, "flaky": flaky, "later": later, "gone": gone}


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 30))]
)
def test_figures_that_are_kept_say_what_fresh_ones_say(seed, queue):
    chance = random.Random(seed)
    with freeze_time(NOW, auto_tick_seconds=0) as clock:
        kept = Figures(queue)
        for _ in range(25):
            clock.tick(timedelta(seconds=chance.choice((0, 1, 70, 4000))))
            play(queue, chance)

            assert kept.look() == stats(queue_file=queue)
            assert kept.errors() == errors(queue_file=queue)


def play(queue, chance):
    """One move: of the verbs, of a worker, or by hand."""
    ids = [job.id for job in queue.jobs()]
    some = chance.sample(ids, min(len(ids), 3))
    move = chance.choice("add add tick tick cancel retry purge archive hand".split())
    if move == "add" or not ids:
        types = chance.choices("good flaky later gone nobody".split(), k=chance.randrange(400))
        queue.enqueue_many(
            {"job_type": one, "payload": n % 7, "queue": chance.choice(("default", "mail")),
             "run_at": timedelta(seconds=chance.choice((0, 0, 90, 7200))),
             "after": some[:1] if chance.random() < 0.1 else None}
            for n, one in enumerate(types)
        )  # fmt: skip
    elif move == "tick":
        queue.process_jobs(handlers(), max_attempts=2, max_jobs=chance.choice((1, 50, 500)))
    elif move == "cancel":
        for id in some:
            queue.cancel(id)
    elif move == "retry":
        queue.retry(type="flaky")
    elif move == "purge":
        queue.purge(ids=some)
    elif move == "archive":
        queue.archive(100)
    else:
        by_hand(queue, chance)


def by_hand(queue, chance):
    with open(queue.path, "rb+") as file:
        lines = file.readlines()
        at = chance.randrange(1, len(lines))
        other = lines[at].replace(b"\tgood\t", b"\tfine\t")
        lines[at] = chance.choice((b"no row at all\n", other, b""))
        file.seek(0)
        file.truncate()
        file.writelines(lines)


def test_every_job_is_of_one_kind(queue):
    with freeze_time(NOW):
        first = queue.enqueue("good")
        queue.enqueue("good", run_at=timedelta(hours=1))
        queue.enqueue("good", after=first)
        queue.enqueue("flaky", 1)
        queue.process_jobs({"flaky": handlers()["flaky"]})

        found = stats(queue_file=queue)

    assert {kind: found[kind] for kind in ("due", "scheduled", "waiting", "retrying", "stuck")} == {
        "due": 1, "scheduled": 1, "waiting": 1, "retrying": 1, "stuck": 0,
    }  # fmt: skip


def test_a_job_whose_worker_is_gone_is_stuck(queue):
    id = queue.enqueue("good")
    with queue.edit() as e:
        e.change(e.get(id), status="processing", worker="w-1-abc.1")

    found = stats(queue_file=queue)

    assert (found["stuck"], found["by_queue"]["default"]["processing"]) == (1, 0)


def test_processed_counts_the_archive_too(queue):
    with freeze_time(NOW) as clock:
        queue.enqueue_many([("good", 1), ("good", 2), ("gone", 3)])
        queue.process_jobs(handlers())
        clock.tick(timedelta(hours=2))
        queue.archive(3600)
        queue.enqueue("good", 4)
        queue.process_jobs(handlers())

        found = stats(queue_file=queue)

    assert (found["processed"], found["failed_ever"], found["archived"]) == (4, 1, 3)


def test_times_and_rates_are_those_of_the_last_day(queue):
    with freeze_time(NOW) as clock:
        queue.enqueue_many([("good", n) for n in range(3)])
        clock.tick(timedelta(seconds=30))
        queue.process_jobs({"good": lambda payload: clock.tick(timedelta(seconds=2)) and None})
        queue.enqueue("gone", 1)
        queue.process_jobs(handlers())

        found = stats(queue_file=queue)

    assert found["run_time"] == {"average": 1.5, "p50": 2.0, "p95": 2.0}
    assert found["wait_time"]["p95"] == 34.0
    assert found["success_rate"] == 0.75
    assert found["by_type"]["good"]["success_rate"] == 1.0
    assert found["rate"] == round(4 / 60, 3)


def test_the_wait_of_a_job_for_at_once_is_not_rounded_to_its_second(queue):
    soon = datetime.fromtimestamp(int(time.time()) + 100.9, timezone.utc)  # later than any id here
    with freeze_time(soon) as clock:
        queue.enqueue("good")
        clock.tick(timedelta(milliseconds=50))
        queue.process_jobs(handlers())

        assert stats(queue_file=queue)["wait_time"]["p50"] == pytest.approx(0.05, abs=0.001)


def test_failed_jobs_are_grouped_by_type_and_first_line(queue):
    with freeze_time(NOW) as clock:
        ids = queue.enqueue_many([("flaky", 1), ("flaky", 1), ("flaky", 2), ("gone", 1)])
        queue.process_jobs(handlers(), max_attempts=1)
        clock.tick(timedelta(minutes=1))

        first, *others = errors(queue_file=queue)

    assert (first["type"], first["error"], first["jobs"]) == ("flaky", "ValueError: no 1", 2)
    assert set(first["ids"]) == set(ids[:2])
    assert len(others) == 2


def test_series_are_of_minutes_and_hours(queue):
    with freeze_time(NOW) as clock:
        queue.enqueue_many([("good", 1), ("good", 2)])
        queue.enqueue("good", run_at=timedelta(hours=3))
        clock.tick(timedelta(minutes=2))
        queue.process_jobs(handlers())
        now = int(time.time())
        figures = Figures(queue)

        assert figures.throughput(3) == [(now - 120, 0, 0), (now - 60, 0, 0), (now, 2, 0)]
        assert figures.waiting(3) == [(now - 120, 2), (now - 60, 2), (now, 0)]
        assert figures.waits(2) == [None, (now, 120.0, 120.0)]
        assert [count for _, count in figures.load(4)] == [0, 0, 0, 1]


def test_jobs_of_some_values_are_counted_without_reading_rows(queue):
    queue.enqueue_many([("good", 1), ("gone", 2), {"job_type": "good", "queue": "mail"}])
    queue.process_jobs(handlers(), queues=["default"])
    figures = Figures(queue)

    assert [figures.count(), figures.count(type="good"), figures.count("failed")] == [3, 2, 1]
    assert figures.count("completed", "good", "default") == 1
    assert figures.count(queue="mail") == 1


def test_a_kind_is_no_status_to_count_by(queue):
    with pytest.raises(BadArgument, match="due"):
        Figures(queue).count("due")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_worker_that_is_killed_changes_the_version(queue, run_python):
    queue.enqueue("long")
    child = run_python(f"""
        import time
        from dbbasic_queue import Queue
        def long(payload):
            print("runs", flush=True)
            time.sleep(60)
        Queue({queue.path!r}).process_jobs({{"long": long}})
    """)
    child.stdout.readline()
    figures = Figures(queue)
    before = figures.version(), figures.look()["workers"]

    child.kill()
    child.wait()

    assert figures.version() != before[0]
    assert (before[1], figures.look()["workers"], figures.look()["stuck"]) == (1, 0, 1)


def test_ticks_are_the_minutes_in_which_one_ran(queue):
    with freeze_time(NOW) as clock:
        queue.enqueue("good")
        queue.process_jobs(handlers())
        clock.tick(timedelta(minutes=3))
        queue.process_jobs(handlers())
        now = int(time.time())

        assert ticks(queue) == [(now - 180, 1), (now, 0)]


def test_without_a_file_all_is_none_and_nothing(queue):
    found = stats(queue_file=queue)

    assert (found["jobs"], found["oldest_due_age"], found["run_time"]) == (0, None, None)


def test_a_look_reads_only_what_has_changed(queue, monkeypatch):
    queue.enqueue_many(("good", n) for n in range(20_000))
    figures = Figures(queue)
    figures.look()
    read, whole = [], Summary.read

    def noted(self, data, header):
        read.append(len(data))
        return whole(self, data, header)

    monkeypatch.setattr(Summary, "read", noted)

    queue.cancel(next(iter(queue.jobs())).id)

    assert figures.look()["statuses"]["cancelled"] == 1
    assert 0 < sum(read) < 600_000


def change_by_hand(queue, number, /, **cells):
    """Give a row other cells, by hand."""
    with open(queue.path, "rb+") as file:
        lines = file.readlines()
        columns, row = (lines[at].rstrip(b"\n").split(b"\t") for at in (0, number))
        for name, cell in cells.items():
            row[columns.index(name.encode())] = cell
        lines[number] = b"\t".join(row) + b"\n"
        file.seek(0)
        file.truncate()
        file.writelines(lines)


@pytest.mark.parametrize("run_at", [b"9" * 19, b"9" * 20])
def test_a_time_beyond_all_numbers_is_the_far_future(queue, run_at):
    queue.enqueue("good")
    change_by_hand(queue, 1, run_at=run_at)

    found = stats(queue_file=queue)

    assert (found["jobs"], found["scheduled"]) == (1, 1)


@pytest.mark.parametrize("attempts", [b"00", b"0.0"])
def test_no_attempt_written_in_another_way_is_none(queue, attempts):
    queue.enqueue("good", run_at=timedelta(hours=1))
    change_by_hand(queue, 1, attempts=attempts)

    found = stats(queue_file=queue)

    assert (found["scheduled"], found["retrying"]) == (1, 0)


@pytest.mark.parametrize("status", [b"pending", b"processing"])
def test_a_queue_that_is_written_with_escapes_has_one_name(queue, status):
    queue.enqueue("good", queue="mail")
    change_by_hand(queue, 1, queue=rb"a\\b", status=status)

    found = stats(queue_file=queue)

    assert list(found["queues"]) == list(found["by_queue"]) == ["a\\b"]
    assert stats(queue="a\\b", queue_file=queue)["jobs"] == 1
    assert Figures(queue).count(queue="a\\b") == 1


def test_the_newest_ids_of_an_error_are_those_wherever_they_stand(queue):
    with freeze_time(NOW):
        ids = queue.enqueue_many([("gone", n) for n in range(4)])
        queue.process_jobs(handlers())
        for number, at in enumerate((30, 10, 20, 25), 1):
            change_by_hand(queue, number, finished_at=b"%d" % (time.time() + at))

        (group,) = errors(queue_file=queue)

    assert group["ids"] == [ids[0], ids[3], ids[2]]


def test_a_clock_that_was_set_back_brings_its_day_back(queue):
    with freeze_time(NOW) as clock:
        kept = Figures(queue)
        queue.enqueue("good")
        queue.process_jobs(handlers())
        clock.tick(timedelta(days=2))
        assert kept.look()["success_rate"] is None
        clock.tick(timedelta(days=-2))

        assert kept.look()["success_rate"] == 1.0


def test_a_job_that_was_cancelled_before_it_came_due_hides_no_other(queue):
    with freeze_time(NOW) as clock:
        early = queue.enqueue("good", run_at=timedelta(seconds=600))
        queue.enqueue("good")
        clock.tick(timedelta(seconds=120))
        queue.cancel(early)

        assert [waiting for _, waiting in Figures(queue).waiting(2)] == [1, 1]


def test_a_job_whose_worker_ends_during_the_look_is_not_stuck(queue, monkeypatch):
    id = queue.enqueue("good")
    with queue.edit() as e:
        e.change(e.get(id), status="processing", worker="w-1-abc.1")
    known = queue.workers

    def ended():
        with queue.edit() as e:
            if e.get(id).status == "processing":
                e.change(e.get(id), status="completed", finished_at=time.time())
        return known()

    monkeypatch.setattr(queue, "workers", ended)

    found = Figures(queue).look()

    assert (found["stuck"], found["statuses"]["completed"]) == (0, 1)
