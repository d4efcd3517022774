"""Schedules: declared once, run once a slot, kept as rows; the clock stands and is moved."""

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from freezegun import freeze_time

from dbbasic_queue import Discard, current_job
from dbbasic_queue import schedule as sut
from dbbasic_queue.cli import main
from dbbasic_queue.errors import BadArgument, UnknownJob

pytest.importorskip("cronsim")

UTC = timezone.utc
BERLIN = "Europe/Berlin"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def clock():
    with freeze_time("2026-06-01 12:00:00") as frozen:
        yield frozen


@pytest.fixture
def add(queue):
    """Declare a schedule on the queue of this test."""

    def call(name="often", job_type="note", payload=None, **how):
        return sut.add_schedule(name, job_type, payload, queue_file=queue, **how)

    return call


@pytest.fixture
def tick(queue):
    """Run ticks until nothing is due; return the slots that ran, as texts."""

    def call(functions=None, handlers=None):
        ran = []

        def note(payload):
            ran.append(f"{sut.slot():%d %H:%M:%S}")

        queue.process_jobs(sut.serving({"note": note} | (handlers or {}), functions))
        return ran

    return call


def rows(queue, **which):
    return list(queue.jobs(type="schedule", **which))


def only(queue):
    """The one schedule that there is."""
    [one] = sut.schedules(queue)
    return one


# --- what is declared


def test_a_schedule_is_a_pending_row_that_tells_all_of_it(queue, add, clock):
    row_id = add(
        "nightly", "report", {"of": "sales"}, cron="30 2 * * *", tz=BERLIN, max_count=10**30
    )

    [row] = rows(queue)
    assert (row.id, row.status, row.cell("unique")) == (
        row_id, "pending", "nightly@2026-06-02T00:30:00Z",
    )  # fmt: skip
    assert row.run_at == datetime(2026, 6, 2, 0, 30, tzinfo=UTC).timestamp()
    assert (row.max_attempts, row.backoff) == (2**31 - 1, "linear:60:3600")
    assert row.payload == {
        "slot": "2026-06-02T00:30:00Z", "count": 0, "cron": "30 2 * * *", "tz": BERLIN,
        "max_count": 10**30, "type": "report", "payload": {"of": "sales"}, "schedule": "nightly",
    }  # fmt: skip
    assert only(queue).max_count == 10**30


def test_the_same_declaration_again_writes_nothing(queue, add, clock):
    first = add(every=60, payload=("a", 1), timeout=5)
    before = os.stat(queue.path)
    clock.tick(30)

    again = add(every=timedelta(minutes=1), payload=["a", 1], timeout=5.0)

    assert again == first
    assert os.stat(queue.path).st_ino == before.st_ino
    assert os.stat(queue.path).st_size == before.st_size


def test_another_declaration_changes_the_row_and_keeps_its_count(queue, add, tick, clock):
    add(every=60)
    clock.tick(60)
    tick()

    changed = add(every=7200, priority=3, queue="slow")

    [row] = rows(queue, status="pending")
    assert (row.id, row.queue, row.priority) == (changed, "slow", 2)
    assert (only(queue).count, only(queue).spec) == (1, "every 2h")
    assert row.run_at == time.time() + 7200


def test_a_new_payload_leaves_the_slot_where_it_is(queue, add, clock):
    add(every=3600, payload=1)
    slot = rows(queue)[0].run_at
    clock.tick(1800)

    add(every=3600, payload=2)

    assert [row.run_at for row in rows(queue)] == [slot]


def test_a_slot_that_is_due_already_is_not_lost_by_a_new_declaration(add, tick, clock):
    add(every=3600)
    clock.tick(3700)

    add(every=7200)

    assert tick() == ["01 13:00:00"]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({}, "exactly one"),
        ({"cron": "* * * * *", "every": 5}, "exactly one"),
        ({"cron": "0 0 30 2 *"}, "cron='0 0 30 2 *' cannot fire"),
        ({"cron": "0 0 31 4,6 *"}, "cron='0 0 31 4,6 *' cannot fire"),
        ({"cron": "0 0 * 4 1#5", "max_count": 0}, "max_count=0"),
        ({"cron": "0 * * * * *"}, "has 6 fields"),
        ({"cron": "@reboot"}, "cron='@reboot'"),
        ({"cron": "61 * * * *"}, "cron='61 "),
        ({"cron": ""}, "cron=''"),
        ({"cron": 5}, "cron=5"),
        ({"cron": "@daily", "tz": "Europe/Atlantis"}, "tz='Europe/Atlantis'"),
        ({"cron": "@daily", "tz": "../etc/passwd"}, "tz='../etc/passwd'"),
        ({"cron": "@daily", "tz": "Europe"}, "tz='Europe'"),
        ({"cron": "@daily", "tz": 1}, "tz=1"),
        ({"cron": "@daily", "run_at": 5}, "run_at=5"),
        ({"every": 0}, "every=0"),
        ({"every": 0.5}, "every=0.5"),
        ({"every": 1.5}, "every=1.5"),
        ({"every": "1h"}, "every='1h'"),
        ({"every": 5, "run_at": "soon"}, "run_at='soon'"),
        ({"every": 5, "run_at": -5}, "run_at=-5"),
        ({"every": 5, "max_count": 0}, "max_count=0"),
        ({"every": 5, "max_count": True}, "max_count=True"),
        ({"every": 5, "catch_up": "all"}, "catch_up='all'"),
        ({"every": 5, "name": "a b"}, "name='a b'"),
        ({"every": 5, "name": "a@b"}, "name='a@b'"),
        ({"every": 5, "job_type": "schedule"}, "job_type='schedule'"),
        ({"every": 5, "job_type": "no good"}, "job_type='no good'"),
        ({"every": 5, "payload": {1}}, "payload"),
        ({"every": 5, "timeout": -1}, "timeout=-1"),
        ({"next": "month_end"}, "needs run_at"),
        ({"next": ""}, "next=''"),
    ],
)
def test_what_cannot_fire_is_refused_by_name_and_nothing_is_written(queue, add, how, says, clock):
    with pytest.raises(BadArgument, match="(?s)^.*" + says.translate({42: r"\*", 43: r"\+"})):
        add(**how)

    assert not os.path.exists(queue.path)


def test_without_cronsim_the_error_names_the_extra(add, monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)

    with pytest.raises(BadArgument, match=r"pip install 'dbbasic-queue\[cron\]'"):
        add(cron="@daily")


def test_the_machine_s_zone_is_kept_by_its_name(queue, add, monkeypatch, clock):
    monkeypatch.setenv("TZ", ":America/Lima")

    add(cron="@daily")

    assert only(queue).tz == "America/Lima"
    assert only(queue).next_run.isoformat() == "2026-06-02T00:00:00-05:00"


@pytest.mark.parametrize("tz", ["CET-1CEST", "/usr/share/zoneinfo/Asia/Tokyo", "Nowhere/At_All"])
def test_a_tz_that_is_no_name_gives_a_zone_that_there_is(monkeypatch, tz):
    from dbbasic_queue.schedule.slots import machine_zone, zone_of

    monkeypatch.setenv("TZ", tz)

    assert zone_of(machine_zone())
    assert ("Tokyo" in tz) == (machine_zone() == "Asia/Tokyo")


# --- one run a slot


def test_a_run_adds_the_job_and_the_row_of_the_next_slot(queue, add, tick, clock):
    add(every=60, payload={"a": 1}, queue="high", priority=5, max_attempts=7, timeout=9)
    clock.tick(60)

    assert tick() == ["01 12:01:00"]

    first, job, row = queue.jobs()
    assert first.result == {"job": job.id, "next": "2026-06-01T12:02:00Z"}
    assert (job.type, job.payload, job.queue, job.priority) == ("note", {"a": 1}, "high", 5)
    assert (job.max_attempts, job.timeout) == (7, 9)
    assert job.cell("unique") == "often@2026-06-01T12:01:00Z"
    assert (row.type, row.status, row.queue) == ("schedule", "pending", "high")
    assert row.cell("unique") == "often@2026-06-01T12:02:00Z"


def test_every_does_not_drift(add, tick, clock):
    add(every=60, run_at=datetime(2026, 6, 1, 12, 0, 5, tzinfo=UTC))
    ran = []

    for seconds in (6, 73, 60, 61, 59):
        clock.tick(seconds)
        ran += tick()

    assert ran == ["01 12:00:05", "01 12:01:05", "01 12:02:05", "01 12:03:05", "01 12:04:05"]


def test_a_first_slot_in_the_past_sets_the_grid_and_is_not_caught_up(queue, add, clock):
    add(every=86400, run_at=datetime(2026, 1, 1, 6, tzinfo=UTC))

    assert only(queue).next_run == datetime(2026, 6, 2, 6, tzinfo=UTC)


def test_once_is_one_job_for_all_slots_that_were_missed(queue, add, tick, clock):
    add(cron="*/15 * * * *", tz="UTC")
    clock.move_to("2026-06-04 07:07:00")

    assert tick() == ["04 07:00:00"]
    assert only(queue).next_run == datetime(2026, 6, 4, 7, 15, tzinfo=UTC)


@pytest.mark.parametrize(("late", "ran"), [(300, ["04 07:00:00"]), (301, [])])
def test_skip_leaves_out_what_is_more_than_five_minutes_late(queue, add, tick, clock, late, ran):
    add(cron="0 * * * *", tz="UTC", catch_up="skip")
    clock.move_to("2026-06-04 07:00:00")
    clock.tick(late)

    assert tick() == ran
    assert (only(queue).count, only(queue).next_run.hour) == (len(ran), 8)


def test_max_count_counts_runs_and_then_no_row_follows(queue, add, tick, clock):
    add(every=60, max_count=2)
    ran = []

    for _ in range(4):
        clock.tick(60)
        ran += tick()

    assert ran == ["01 12:01:00", "01 12:02:00"]
    assert sut.schedules(queue) == []
    assert queue.counts() == {"completed": 4}


def test_a_counted_run_is_noted_in_its_own_row_too_since_an_append_can_be_torn(
    queue, add, tick, clock
):
    add(every=60, max_count=9)
    clock.tick(60)

    tick()

    assert [row.payload.get("mark") for row in rows(queue)] == ["ended", None]
    assert only(queue).count == 1


def test_a_row_that_is_run_by_hand_before_its_time_takes_its_slot(queue, add, tick, clock):
    row_id = add(every=60, run_at=time.time())
    with queue.edit() as e:
        e.change(
            e.get(row_id), payload=queue.get(row_id).payload | {"slot": "2026-06-01T12:05:00Z"}
        )

    assert tick() == ["01 12:05:00"]
    assert only(queue).next_run.minute == 6


def test_a_schedule_that_was_ended_and_brought_back_beside_another_adds_nothing(
    queue, add, tick, clock
):
    row_id = add(every=60)
    queue.cancel(row_id)
    add(every=3600)

    queue.retry(row_id)

    assert tick() == []
    assert only(queue).spec == "every 1h"
    clock.tick(3600)
    assert tick() == ["01 13:00:00"]


def test_a_schedule_that_had_all_its_runs_is_not_begun_again_by_the_next_deploy(
    queue, add, tick, clock
):
    add(every=60, max_count=1)
    clock.tick(60)
    tick()

    add(every=60, max_count=1)
    assert sut.schedules(queue) == []

    add(every=60, max_count=5)
    assert only(queue).count == 0


def test_a_clock_set_back_repeats_no_slot(add, tick, clock):
    add(every=600)
    clock.tick(1200)
    ran = tick()

    clock.move_to("2026-06-01 10:00:00")
    ran += tick()
    clock.move_to("2026-06-01 12:30:00")
    ran += tick()

    assert ran == ["01 12:20:00", "01 12:30:00"]


def test_a_worker_without_serving_leaves_the_row_pending(queue, add, clock):
    add(every=60)
    clock.tick(60)

    queue.process_jobs({"note": len})

    assert queue.counts() == {"pending": 1}


def test_schedules_of_other_names_and_jobs_of_other_types_are_no_obstacle(queue, add, tick, clock):
    mark = "often@2026-06-01T12:01:00Z"
    queue.enqueue("other", columns={"unique": mark})
    queue.enqueue("other", {"schedule": "often"}, columns={"unique": mark})
    add("often-too", every=60)
    add(every=60)
    clock.tick(60)

    assert tick() == ["01 12:01:00"] * 2


def test_a_slot_whose_job_is_there_already_is_not_run_again(queue, add, tick, clock):
    queue.enqueue("note", columns={"unique": "often@2026-06-01T12:01:00Z"})
    add(every=60)
    clock.tick(60)

    assert len(tick()) == 1
    assert only(queue).count == 1


def test_a_row_that_runs_once_more_after_its_edit_adds_nothing(queue, add, tick, clock):
    row_id = add(every=60)
    clock.tick(60)
    tick()
    clock.tick(90)
    with queue.edit() as e:  # as if its worker had died before the outcome
        e.change(e.get(row_id), status="pending", worker=None)

    assert tick() == ["01 12:02:00"]
    assert len(rows(queue, status="pending")) == 1


def test_nor_when_the_row_that_it_has_added_has_ended_by_then(queue, add, tick, clock):
    slots = iter(["2026-06-01 12:02:00", None])

    def two(slot):
        text = next(slots, "2026-06-01 23:00:00")
        return text and datetime.fromisoformat(text).replace(tzinfo=UTC)

    row_id = add(next="two", run_at=timedelta(seconds=60))
    for _ in range(2):
        clock.tick(60)
        tick({"two": two})
    with queue.edit() as e:
        e.change(e.get(row_id), status="pending", worker=None)

    assert tick({"two": two}) == []
    assert sut.schedules(queue) == []


@pytest.mark.parametrize("last", [{"max_count": 1, "every": 60}, {"next": "no_more"}])
def test_the_last_row_does_not_either(queue, add, tick, clock, last):
    functions = {"no_more": lambda slot: None}
    row_id = add(**last, **({} if "every" in last else {"run_at": timedelta(seconds=60)}))
    clock.tick(60)
    assert len(tick(functions)) == 1
    clock.tick(90)
    with queue.edit() as e:
        e.change(e.get(row_id), status="pending", worker=None)

    assert tick(functions) == []
    assert rows(queue, status="pending") == []


def test_serving_leaves_a_mapping_of_another_kind_as_it_is():
    class Lazy(dict):
        def __missing__(self, job_type):
            return job_type

    served = sut.serving(Lazy(a=1))

    assert (served["a"], served["b"], set(served)) == (1, "b", {"a", "schedule"})


@pytest.mark.parametrize(
    ("given", "says"), [(({"schedule": len},), "schedule already"), (({}, {"f": 5}), "'f'")]
)
def test_serving_refuses_what_it_cannot_serve(given, says):
    with pytest.raises(BadArgument, match=says):
        sut.serving(*given)


def test_serving_imports_next_to_nothing():
    code = (
        "import sys; before = set(sys.modules); from dbbasic_queue.schedule import serving;"
        "serving({}); print(*set(sys.modules) - before)"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=True
    )

    assert sorted(done.stdout.split()) == ["dbbasic_queue", "dbbasic_queue.schedule"]


def test_slot_is_asked_for_in_a_job_of_a_schedule(queue):
    with pytest.raises(BadArgument, match="no job runs"):
        sut.slot()
    job_id = queue.enqueue("note")

    queue.process_jobs({"note": lambda payload: str(sut.slot())}, max_attempts=1)

    assert "added by no schedule" in queue.get(job_id).error


# --- when clocks change


@pytest.mark.parametrize(
    ("day", "cron", "slots"),
    [
        ("2026-03-29", "30 2 * * *", ["01:00"]),  # 02:30 is not there: 03:00 is
        ("2026-10-25", "30 2 * * *", ["00:30"]),  # 02:30 comes twice: the first
        ("2026-03-29", "0,30 2,3 * * *", ["01:00", "01:30"]),
        ("2026-10-25", "0 1-3 * * *", ["23:00", "00:00", "02:00"]),
        ("2026-03-29", "0 * * * *", [f"{hour % 24:02}:00" for hour in range(23, 46)]),
        ("2026-10-25", "0 * * * *", [f"{hour % 24:02}:00" for hour in range(22, 47)]),
        ("2026-10-25", "*/30 2 * * *", ["00:00", "00:30", "01:00", "01:30"]),
    ],
)
def test_a_day_on_which_the_clocks_change(queue, add, day, cron, slots):
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(BERLIN))
    with freeze_time(midnight - timedelta(seconds=1)):
        add(cron=cron, tz=BERLIN)

        runs = sut.next_runs("often", 30, queue_file=queue)

    found = [f"{at.astimezone(UTC):%H:%M}" for at in runs if at.date() == midnight.date()]
    assert found == slots


@pytest.mark.parametrize("tz", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"])
@pytest.mark.parametrize("hour", range(0, 24, 5))
def test_far_from_greenwich_the_next_slot_is_the_next(tz, hour):
    from dbbasic_queue.schedule.slots import Cron, zone_of

    for now in range(1_780_000_000, 1_780_086_400, 3600):
        cron = Cron(f"0 {hour} * * *", zone_of(tz))

        slot, before = cron.after(now), cron.last(now, 0)

        assert now < slot <= now + 86400
        assert datetime.fromtimestamp(slot, ZoneInfo(tz)).hour == hour
        assert before == slot - 86400


def test_a_slot_says_which_of_two_hours_it_is(queue, add):
    with freeze_time("2026-10-25 00:59:00"):
        add(cron="0 * * * *", tz=BERLIN)

        [first, second] = sut.next_runs("often", 2, queue_file=queue)

    assert (first.isoformat(), first.fold) == ("2026-10-25T02:00:00+01:00", 1)
    assert second.isoformat() == "2026-10-25T03:00:00+01:00"


@pytest.mark.parametrize("cron", ["* * * * *", "0 12 29 2 *", "* * 1 1 *", "30 2 * * *"])
def test_three_years_down_cost_a_moment(cron):
    from dbbasic_queue.schedule.slots import Cron

    slots, begun = Cron(cron, ZoneInfo(BERLIN)), time.perf_counter()
    now = int(datetime(2029, 5, 5, 5, 5, 5, tzinfo=UTC).timestamp())

    latest, following = slots.step(slots.after(now - 3 * 366 * 86400), now)

    assert latest <= now < following == slots.after(latest)
    assert time.perf_counter() - begun < 0.3


# --- next=


def month_end(slot):
    """18:00 on the last day of the month after the slot's."""
    first = slot.replace(day=1) + timedelta(days=63)
    return first.replace(day=1) - timedelta(days=1)


def test_next_is_asked_for_the_slot_after(queue, add, tick, clock):
    add(next="month_end", run_at=datetime(2026, 6, 30, 16, tzinfo=UTC), tz=BERLIN)
    clock.move_to("2026-09-05 12:00:00")

    assert tick({"month_end": month_end}) == ["31 16:00:00"]
    assert only(queue).next_run.isoformat() == "2026-09-30T18:00:00+02:00"


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda slot: slot, "is not later"),
        (lambda slot: slot.timestamp() - 5, "is not later"),
        (lambda slot: "soon", "next='f': run_at='soon'"),
        (lambda slot: slot.replace(tzinfo=None), "no time zone"),
        (lambda slot: timedelta(hours=1), "is not later"),
        (lambda slot: 1 / 0, "ZeroDivisionError"),
        (None, "no such function"),
    ],
)
def test_a_next_that_says_nothing_useful_is_tried_again_later(
    queue, add, tick, clock, function, says
):
    add(next="f", run_at=timedelta(seconds=60))
    clock.tick(60)

    tick({"f": function} if function else {})

    assert says in only(queue).error
    assert rows(queue)[0].run_at == time.time() + 60
    clock.tick(60)
    assert tick({"f": lambda slot: slot.timestamp() + 3600.5}) == ["01 12:01:00"]
    assert only(queue).error is None


def test_a_next_that_raises_discard_does_not_end_the_schedule(queue, add, tick, clock):
    def discard(slot):
        raise Discard("no more")

    add(next="f", run_at=timedelta(0))

    tick({"f": discard})

    assert "raised Discard: no more" in only(queue).error


# --- looking


def test_schedules_says_what_there_is(queue, add, clock):
    add("b", every=5400, run_at=timedelta(hours=1), tz="UTC")
    row_id = add("a", cron="@daily", tz=BERLIN, max_count=3)

    a, b = sut.schedules(queue)

    assert (a.name, a.type, a.spec, a.tz) == ("a", "note", "cron @daily", BERLIN)
    assert (a.count, a.max_count, a.paused, a.error, a.id) == (0, 3, False, None, row_id)
    assert a.next_run.isoformat() == "2026-06-02T00:00:00+02:00"
    assert (b.spec, b.next_run) == ("every 1h 30m", datetime(2026, 6, 1, 13, tzinfo=UTC))


def test_next_runs_knows_the_count_and_the_function(queue, add, clock):
    add("three", every=60, max_count=3)
    add("f", next="f", run_at=timedelta(minutes=1))
    functions = {"f": lambda slot: slot + timedelta(hours=1)}

    three = sut.next_runs("three", 9, queue_file=queue)
    one = sut.next_runs("f", queue_file=queue)
    two = sut.next_runs("f", 2, functions=functions, queue_file=queue)

    assert [at.minute for at in three] == [1, 2, 3]
    assert [at.hour for at in one] == [12]
    assert [at.hour for at in two] == [12, 13]


def test_a_spoilt_row_is_shown_and_mended_by_its_declaration(queue, add, tick, clock):
    row_id = add(every=60)
    with queue.edit() as e:
        e.change(e.get(row_id), payload={"often": "no"})
    clock.tick(60)
    assert tick() == []
    assert "describes no schedule" in only(queue).error

    assert add(every=60) == row_id
    clock.tick(60)

    assert tick() == ["01 12:02:00"]


@pytest.mark.parametrize(
    "cell",
    [
        {"slot": None}, {"since": None}, {"count": "2"}, {"max_count": "3"}, {"every": 0},
        {"every": -60}, {"every": None}, {"cron": "* * * * *"}, {"tz": None}, {"mark": 5},
        {"mark": "end"}, {"catch_up": "all"}, {"queue": "a b"}, {"priority": "high"},
        {"type": "schedule"}, {"every": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_edited_by_hand_to_nonsense_holds_only_its_own_schedule(
    queue, add, tick, clock, cell
):
    add("sound", every=60)
    row_id = add("spoilt", every=60)
    with queue.edit() as e:
        row = e.get(row_id)
        e.change(row, payload=row.payload | cell)

    clock.tick(60)
    assert tick() == ["01 12:01:00"]
    clock.tick(60)
    assert tick() == ["01 12:02:00"]

    shown = {one.name: one.error for one in sut.schedules(queue)}
    assert shown["sound"] is None and "describes no schedule" in shown["spoilt"]
    assert add("spoilt", every=60) == row_id
    assert [one.spec for one in sut.schedules(queue)] == ["every 1m"] * 2


def test_a_zone_that_this_machine_does_not_know_hides_no_other_schedule(queue, add, clock):
    add("sound", every=60)
    row_id = add("far", every=60)
    with queue.edit() as e:
        e.change(e.get(row_id), payload=e.get(row_id).payload | {"tz": "Mars/Olympus"})

    far, sound = sut.schedules(queue)

    assert (sound.spec, sound.error) == ("every 1m", None)
    assert "Mars/Olympus" in far.error


# --- pause, resume, run, remove


def test_a_paused_schedule_stays_visible_and_runs_nothing(queue, add, tick, clock):
    row_id = add(every=60)

    sut.pause_schedule("often", queue_file=queue)
    clock.tick(86400)

    assert tick() == []
    assert (only(queue).paused, only(queue).next_run, only(queue).id) == (True, None, row_id)
    assert sut.next_runs("often", queue_file=queue) == []


def test_a_resumed_schedule_goes_on_with_its_next_slot(queue, add, tick, clock):
    add(every=60)
    sut.pause_schedule("often", queue_file=queue)
    clock.tick(3630)

    sut.resume_schedule("often", queue_file=queue)

    assert tick() == []
    clock.tick(30)
    assert tick() == ["01 13:01:00"]


def test_a_resumed_next_goes_on_too(queue, add, tick, clock):
    functions = {"f": lambda slot: slot + timedelta(minutes=1)}
    add(next="f", run_at=timedelta(minutes=1))
    sut.pause_schedule("often", queue_file=queue)
    clock.tick(3630)

    sut.resume_schedule("often", queue_file=queue)

    assert tick(functions) == []
    clock.tick(30)
    assert tick(functions) == ["01 13:01:00"]


def test_a_declaration_leaves_a_paused_schedule_paused(queue, add, tick, clock):
    add(every=60)
    sut.pause_schedule("often", queue_file=queue)

    add(every=30)
    clock.tick(3600)

    assert tick() == []
    assert (only(queue).paused, only(queue).spec) == (True, "every 30s")


def test_run_now_adds_the_job_beside_the_slots(queue, add, tick, clock):
    add(every=60, payload=[1])

    job_id = sut.run_now("often", queue_file=queue)

    assert tick() == ["01 12:00:00"]
    assert queue.get(job_id).payload == [1]
    clock.tick(60)
    assert tick() == ["01 12:01:00"]
    assert only(queue).count == 1


def test_run_now_at_the_very_second_of_a_slot_does_not_take_its_place(queue, add, tick, clock):
    add(every=60)
    clock.tick(60)

    sut.run_now("often", queue_file=queue)

    assert tick() == ["01 12:01:00"] * 2


def test_a_removed_schedule_runs_no_more_and_can_be_declared_anew(queue, add, tick, clock):
    row_id = add(every=60)

    sut.remove_schedule("often", queue_file=queue)
    clock.tick(60)

    assert tick() == []
    assert (queue.get(row_id).status, queue.get(row_id).error) == ("cancelled", "removed")
    assert add(every=60) != row_id


@pytest.mark.parametrize(
    "call",
    [sut.pause_schedule, sut.resume_schedule, sut.run_now, sut.remove_schedule, sut.next_runs],
)
def test_an_unknown_name_is_said_and_makes_no_file(queue, call):
    with pytest.raises(UnknownJob, match="there is no schedule 'nobody'"):
        call("nobody", queue_file=queue)

    assert not os.path.exists(queue.path)


# --- at the moment when the row runs: the function of next= is called then


@pytest.fixture
def while_it_runs(queue, add, tick, clock):
    """Do something while a schedule's row is processing; return the slots that ran."""

    def call(does):
        done = []

        def following(slot):
            if not done:
                done.append(current_job().status)
                does()
            return slot + timedelta(minutes=1)

        add(next="f", run_at=timedelta(minutes=1))
        clock.tick(60)
        ran = tick({"f": following})
        assert done == ["processing"]
        return ran

    return call


def test_a_pause_while_the_row_runs_holds_from_that_slot_on(queue, while_it_runs, tick, clock):
    ran = while_it_runs(lambda: sut.pause_schedule("often", queue_file=queue))

    assert ran == []
    assert only(queue).paused
    assert [row.status for row in rows(queue)] == ["completed", "pending"]
    clock.tick(600)
    sut.resume_schedule("often", queue_file=queue)
    clock.tick(60)
    assert tick({"f": lambda slot: slot + timedelta(minutes=1)}) == ["01 12:12:00"]


def test_a_pause_and_its_end_while_the_row_runs_change_nothing(queue, while_it_runs):
    def both():
        sut.pause_schedule("often", queue_file=queue)
        sut.resume_schedule("often", queue_file=queue)

    assert while_it_runs(both) == ["01 12:01:00"]
    assert not only(queue).paused


def test_a_change_while_the_row_runs_holds_for_that_slot(queue, add, while_it_runs, clock):
    ran = while_it_runs(lambda: add(every=3600, payload="new"))

    assert ran == ["01 12:01:00"]
    assert [job.payload for job in queue.jobs(type="note")] == ["new"]
    assert only(queue).next_run.isoformat() == "2026-06-01T13:01:00+00:00"
    assert len(rows(queue, status="pending")) == 1


def test_a_pause_and_a_later_end_while_the_row_runs_leave_it_its_slot(queue, add, clock):
    def both(event, job):
        if event == "started" and job.type == "schedule":
            sut.pause_schedule("often", queue_file=queue)
            clock.tick(10)
            sut.resume_schedule("often", queue_file=queue)

    add(cron="0 * * * *", tz="UTC")
    clock.tick(3600)

    queue.process_jobs(sut.serving({"note": len}), listeners=[both])

    [job] = queue.jobs(type="note")
    assert job.cell("unique") == "often@2026-06-01T13:00:00Z"
    assert only(queue).next_run.hour == 14


def test_a_change_while_the_row_runs_and_the_clock_is_set_back(queue, add, while_it_runs, clock):
    def both():
        clock.move_to("2026-06-01 11:00:00")
        add(every=3600)

    assert while_it_runs(both) == ["01 12:01:00"]


def test_a_removal_while_the_row_runs_leaves_nothing(queue, while_it_runs):
    ran = while_it_runs(lambda: sut.remove_schedule("often", queue_file=queue))

    assert ran == []
    assert sut.schedules(queue) == []
    assert queue.counts() == {"completed": 1}


def test_a_removal_and_a_new_declaration_while_the_row_runs(queue, add, while_it_runs, clock):
    def both():
        sut.remove_schedule("often", queue_file=queue)
        add(every=60)

    assert while_it_runs(both) == []
    assert only(queue).spec == "every 1m"
    assert len(rows(queue, status="pending")) == 1


# --- the shell


@pytest.fixture
def ask(capsys, queue, monkeypatch):
    monkeypatch.setenv("DBBASIC_QUEUE", queue.path)

    def call(*words):
        status = main([*words])
        return status, capsys.readouterr().out.strip()

    return call


def test_the_shell_declares_what_the_function_does(ask, queue, clock):
    words = "--cron @daily --tz Europe/Berlin --max-count 3 --skip --queue q --priority 4".split()

    status, row_id = ask("schedule", "add", "often", "note", "[1]", *words)

    assert status == 0
    assert sut.add_schedule(
        "often", "note", [1], cron="@daily", tz=BERLIN, max_count=3, catch_up="skip", queue="q",
        priority=4, queue_file=queue,
    ) == row_id  # fmt: skip
    assert len(rows(queue)) == 1


def test_a_first_slot_from_now_stays_where_it_is_when_it_is_said_again(ask, queue, clock):
    words = ("schedule", "add", "often", "note", "--every", "1h", "--run-at", "+5m")
    ask(*words)
    clock.tick(60)

    ask(*words)

    assert only(queue).next_run.minute == 5


def test_the_shell_lists_and_changes(ask, queue, add, clock):
    add(every=60, tz="UTC", max_count=7)

    answers = [
        ask("schedule", "list"),
        ask("schedule", "pause", "often"),
        ask("schedule", "list", "--json"),
        ask("schedule", "resume", "often", "--json"),
        ask("schedule", "run", "often"),
        ask("schedule", "remove", "often"),
        ask("schedule", "list"),
        ask("schedule", "pause", "often"),
        ask("schedule", "add", "often", "note", "--cron", "0 0 30 2 *"),
    ]

    assert [status for status, _ in answers] == [0, 0, 0, 0, 0, 0, 1, 1, 2]
    line = answers[0][1].splitlines()[1]
    assert line.split() == "often note every 1m UTC 2026-06-01 12:01:00, in 1m 0 of 7".split()
    assert json.loads(answers[2][1])[0]["paused"] is True
    assert json.loads(answers[3][1]) == {"resumed": "often", "file": queue.path}
    assert queue.get(answers[4][1]).type == "note"


def test_work_serves_schedules_too(ask, queue, add, tmp_path, monkeypatch, clock):
    (tmp_path / "served_by_work.py").write_text("ALL = {'note': lambda payload: 5}\n")
    monkeypatch.syspath_prepend(tmp_path)
    add(every=60)
    clock.tick(60)

    assert ask("work", "served_by_work:ALL")[0] == 0

    assert queue.counts() == {"completed": 2, "pending": 1}


def test_a_schedule_declared_just_after_its_removal_and_its_run_stays(queue, add, clock):
    add(every=60)
    clock.tick(60)

    def after_the_run(job, call_next):
        result = call_next(job)
        if job.type == "schedule":  # its outcome is not in the file yet
            sut.remove_schedule("often", queue_file=queue)
            assert sut.schedules(queue) == []
            with pytest.raises(UnknownJob):
                sut.pause_schedule("often", queue_file=queue)
            add(every=60)
        return result

    queue.process_jobs(sut.serving({"note": print}), middleware=[after_the_run], max_jobs=1)

    assert [row.status for row in rows(queue)] == ["completed", "cancelled", "pending"]
    assert only(queue).spec == "every 1m"


def test_the_last_second_of_all_may_stand_for_never(queue, add, tick, clock):
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    add(next="never", run_at=time.time() + 60, tz=BERLIN)
    clock.tick(60)

    assert tick({"never": lambda slot: last}) == ["01 12:01:00"]
    assert (only(queue).error, only(queue).next_run) == (None, last)


def test_declaring_it_mends_a_schedule_that_ran_while_the_clock_was_far_ahead(
    queue, add, tick, clock
):
    add(every=60)
    clock.move_to("2027-06-01 12:00:00")
    tick()
    clock.move_to("2026-06-01 12:02:00")

    add(every=60)
    clock.tick(30)
    add(every=60)
    clock.tick(30)

    assert tick() == ["01 12:03:00"]
