"""The pictures of the dashboard: what they draw, and what they say to those who do not see them."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from dbbasic_queue.show import length
from dbbasic_queue.web.html import Safe
from dbbasic_queue.web.svg import Node, bars, graph, lines, share, strip, timeline
from dbbasic_queue.web.svg.scale import number, times, top_of

NOW = 1_700_000_040  # 22:14 in UTC, the begin of a minute
HOSTILE = "</title><script>alert(1)</script>\"'&"


@pytest.fixture(autouse=True)
def in_utc(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def parsed(picture):
    """The picture as a tree; it must be well formed, and hold no style for the CSP to refuse."""
    assert isinstance(picture, Safe)
    tree = ET.fromstring(str(picture))
    for one in tree.iter():
        assert "style" not in one.attrib
        assert not [name for name in one.attrib if name.startswith("on")]
        assert one.tag not in ("script", "style")
        for value in one.attrib.values():
            assert "nan" not in value.split() and "inf" not in value.split()
    return tree


def marks(tree, tag, name=""):
    return [one for one in tree.iter(tag) if name in one.get("class", "").split() or not name]


def said(tree):
    return next(tree.iter("desc")).text


# --- scales


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (2.5, "2.5"),
        (950, "950"),
        (999.6, "1k"),
        (1234, "1.23k"),
        (35_000, "35k"),
        (999_999, "1M"),
        (4_100_000, "4.1M"),
        (10**15, "1000T"),
        (math.inf, "?"),
    ],
)
def test_a_number_is_short(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-5, "0s"),
        (0.0123, "12.3ms"),
        (0.9999, "1s"),
        (3.14, "3.1s"),
        (59.6, "1m"),
        (7500, "2h 5m"),
        (math.nan, "?"),
    ],
)
def test_a_duration_has_parts_of_a_second_while_it_is_short(seconds, text):
    assert length(seconds) == text


@pytest.mark.parametrize(
    ("values", "top"), [([], 1), ([0, 0], 1), ([3], 5), ([5], 5), ([17], 20), ([99_999], 100_000)]
)
def test_a_scale_ends_at_a_round_number(values, top):
    assert top_of(values) == top


@pytest.mark.parametrize(
    ("values", "top"), [([0], 0.01), ([0.3], 0.5), ([1.5], 2), ([70], 120), ([90_000], 172_800)]
)
def test_a_scale_of_seconds_ends_at_a_round_time(values, top):
    assert top_of(values, seconds=True) == pytest.approx(top)


def test_the_times_below_a_picture_are_round_and_few():
    assert [text for _, text in times(NOW - 3600, NOW)] == ["21:15", "21:30", "21:45", "22:00"]
    assert [text for _, text in times(NOW, NOW + 86400)] == ["Wed", "06:00", "12:00", "18:00"]
    assert times(math.nan, NOW)[0][1] == "nan"


# --- bars and lines


def test_bars_stand_on_each_other_and_reach_their_share_of_the_scale():
    tree = parsed(bars([(NOW, 3, 1), (NOW + 60, 5, 0)], title="T", names=("completed", "failed")))

    first, second = marks(tree, "rect", "s1")
    (failed,) = marks(tree, "rect", "s2")
    assert (first.get("y"), first.get("height")) == ("40", "60")
    assert (failed.get("y"), failed.get("height")) == ("20", "20")
    assert (second.get("y"), second.get("height")) == ("0", "100")
    assert [one.text for one in marks(tree, "text", "scale")] == ["5"]  # and no half of a job
    assert said(tree) == "8 completed, 1 failed"
    assert first.find("title").text == "Tue 22:14: completed 3, failed 1"


def test_a_small_bar_beside_a_huge_one_can_still_be_seen():
    tree = parsed(bars([(NOW, 1), (NOW + 60, 10**9)], title="T"))

    small, huge = marks(tree, "rect", "s1")
    assert float(small.get("height")) >= 1
    assert huge.get("height") == "100"
    assert "1G" in [one.text for one in marks(tree, "text", "scale")]


@pytest.mark.parametrize("draw", [bars, lines])
@pytest.mark.parametrize("points", [[], [None, None]])
def test_where_nothing_is_known_the_picture_says_so(draw, points):
    tree = parsed(draw(points, title="T"))

    assert said(tree) == "nothing yet"
    assert [one.text for one in marks(tree, "text", "nothing")] == ["nothing yet"]


@pytest.mark.parametrize("draw", [bars, lines])
@pytest.mark.parametrize("value", [0, math.nan, math.inf, -3])
def test_all_zeros_and_what_is_no_number_lie_on_the_ground(draw, value):
    tree = parsed(draw([(NOW, value), (NOW + 60, value)], title="T"))

    assert marks(tree, "rect", "s1") == []
    assert [one.get("points") for one in marks(tree, "polyline")] in ([], ["0.5,100 1.5,100"])


def test_a_line_of_one_point_can_be_seen():
    (line,) = marks(parsed(lines([(NOW, 1)], title="T")), "polyline")

    assert line.get("points") == "0,0 1,0"


def test_a_gap_breaks_the_line():
    points = [(NOW, 1, 2), (NOW + 60, 1, 2), None, (NOW + 180, 2, 2)]

    tree = parsed(lines(points, title="T", names=("p50", "p95"), seconds=True))

    assert [one.get("points") for one in marks(tree, "polyline", "l1")] == [
        "0.5,50 1.5,50",
        "3,0 4,0",
    ]
    assert said(tree) == "p50 2s, p95 2s at last; 2s at most"
    assert [one.text for one in marks(tree, "text", "scale")] == ["2s", "1s"]


def test_times_stand_where_their_points_are_though_the_first_is_not_known():
    tree = parsed(lines([None, *[(NOW + 60 * n, 1) for n in range(1, 60)]], title="T"))

    assert [(one.text, one.get("x")) for one in marks(tree, "text", "time")] == [
        ("22:15", "1.67%"),
        ("22:30", "26.67%"),
        ("22:45", "51.67%"),
        ("23:00", "76.67%"),
    ]


def test_the_numbers_are_there_as_a_table_too():
    tree = parsed(bars([(NOW, 3), (NOW + 60, 0), (NOW + 120, 2)], title="T", names=("jobs",)))

    cells = [[cell.text for cell in row] for row in tree.iter("tr")]
    assert cells == [["time", "jobs"], ["Tue 22:14", "3"], ["Tue 22:16", "2"]]


@pytest.mark.parametrize("draw", [bars, lines])
def test_hostile_names_stay_text(draw):
    tree = parsed(draw([(NOW, 3)], title=HOSTILE, names=(HOSTILE,)))

    assert next(tree.iter("title")).text == HOSTILE
    assert marks(tree, "script") == []


# --- the strip of minutes


def test_the_strip_tells_ticks_that_ran_jobs_idle_ones_and_none():
    ticks = [(NOW - 240, 0), (NOW - 180, 4), (NOW - 120, 0), (NOW - 90, 2), (NOW - 86_000, 9)]

    tree = parsed(strip(ticks, NOW + 5, minutes=5))

    cells = marks(tree, "rect", "tick")
    assert [one.get("class") for one in cells] == [
        "tick idle",
        "tick ran",
        "tick ran",
        "tick gap",
        "tick now",
    ]
    assert len({one.get("height") for one in cells}) == 3
    assert cells[1].find("title").text == "22:11 4 jobs run"
    assert said(tree) == ("Of the last 5 minutes: jobs run in 2, nothing to do in 1, no tick in 1.")


def test_the_strip_of_a_queue_without_ticks_is_gaps():
    tree = parsed(strip([], NOW, minutes=120))

    assert len(marks(tree, "rect", "gap")) == 119
    assert "no tick in 119" in said(tree)


# --- shares


def test_shares_fill_the_bar_and_the_smallest_can_be_seen():
    tree = parsed(share([("completed", 999_999), ("failed", 1), ("pending", 0)]))

    cells = marks(tree, "rect")
    assert [one.get("class") for one in cells] == ["completed", "failed"]
    assert float(cells[1].get("width")) >= 1
    assert sum(float(one.get("width")) for one in cells) == pytest.approx(100, abs=0.02)
    assert tree.find("title").text == "1M completed, 1 failed"


@pytest.mark.parametrize("parts", [[], [("failed", 0)], [("failed", math.nan)], [("failed", -1)]])
def test_shares_of_nothing_are_an_empty_bar(parts):
    tree = parsed(share(parts))

    assert marks(tree, "rect") == []


# --- a job's timeline


def test_a_timeline_says_how_long_each_stretch_took():
    tree = parsed(
        timeline(
            [
                ("added", NOW - 7500, "scheduled", ""),
                ("due", NOW - 60, "waited", ""),
                ("attempt 1", None, "", HOSTILE),
                ("began", NOW - 45.5, "ran", ""),
                ("completed", NOW, "", ""),
            ],
            NOW,
        )
    )

    assert [one.text for one in marks(tree, "span", "took")] == [
        "scheduled 2h 4m",
        "waited 14s",
        "ran 46s",
    ]
    assert tree.find(".//svg/title").text == "scheduled 2h 4m, waited 14s, ran 46s"
    assert [one.text for one in marks(tree, "span", "more")] == [HOSTILE]


def test_what_runs_has_run_until_now_and_what_lies_ahead_says_in_how_long():
    tree = parsed(timeline([("added", NOW - 5, "", ""), ("began", NOW - 4, "ran", "")], NOW))
    ahead = parsed(
        timeline([("added", NOW, "scheduled", ""), ("due", NOW + 90, "waited", "")], NOW)
    )

    assert [one.text for one in marks(tree, "span", "took")] == ["1s", "ran 4s until now"]
    assert marks(ahead, "time")[1].text == "2023-11-14 22:15:30 +0000 (in 1m)"


def test_a_clock_that_went_back_gives_no_length_below_nothing():
    tree = parsed(timeline([("added", NOW, "waited", ""), ("began", NOW - 9, "", "")], NOW))

    assert marks(tree, "span", "took") == []
    assert marks(tree, "svg") == []


# --- graphs


def boxes(tree):
    """{name: (x, y)}"""
    found = {}
    for one in marks(tree, "g", "box"):
        name = [text.text for text in one.iter("text")][1]
        shape = one.find("rect")
        found[name] = int(shape.get("x")), int(shape.get("y"))
    return found


def test_each_box_stands_behind_all_that_it_waits_for():
    tree = parsed(
        graph(
            [
                Node("d", "last", "pending", "/d", ("b", "c")),
                Node("a", "first", "completed", "/a"),
                Node("b", "left", "failed", "/b", ("a",)),
                Node("c", "right", "processing", "/c", ("a",), is_here=True),
            ]
        )
    )

    at = boxes(tree)
    assert at["first"][0] < at["left"][0] == at["right"][0] < at["last"][0]
    assert at["left"][1] != at["right"][1]
    assert len(marks(tree, "g", "arrow")) == 4
    assert [one.get("href") for one in tree.iter("a")] == ["/d", "/a", "/b"]
    assert said(tree) == "4 jobs: 1 completed, 1 failed, 1 pending, 1 processing"


def test_an_arrow_to_a_later_column_goes_around_the_boxes_between():
    tree = parsed(
        graph(
            [
                Node("a", "first", "completed"),
                Node("b", "between", "pending", after=("a",)),
                Node("c", "last", "pending", after=("a", "b")),
            ]
        )
    )

    at = boxes(tree)
    assert at["between"][1] != at["first"][1]
    ways = [one.find("path").get("d") for one in marks(tree, "g", "arrow")]
    (long,) = [way for way in ways if "H" in way]
    level = int(re.search(r" (\d+)H", long)[1])  # of the stretch that is straight
    assert not at["between"][1] <= level <= at["between"][1] + 44


def test_a_status_is_told_by_a_sign_and_a_word_and_not_by_colour_alone():
    statuses = ["pending", "processing", "completed", "failed", "cancelled"]

    tree = parsed(graph([Node(str(n), "t", status) for n, status in enumerate(statuses)]))

    signs = [one.text for one in marks(tree, "text", "sign")]
    assert len(set(signs)) == 5
    assert [one.text for one in marks(tree, "text", "state")] == statuses


def test_many_that_are_alike_are_one_box_with_their_number():
    many = [Node(str(n), "resize", "completed") for n in range(1000)]
    last = Node("x", "report", "pending", "/x", tuple(str(n) for n in range(1000)))

    tree = parsed(graph([*many, last]))

    assert [one.text for one in marks(tree, "text", "state")] == ["completed × 1000", "pending"]
    assert len(marks(tree, "g", "arrow")) == 1
    assert said(tree) == "1001 jobs: 1000 completed, 1 pending"


def test_too_many_different_ones_are_told_in_words():
    picture = graph([Node(str(n), f"type{n}", "pending") for n in range(61)])

    assert picture == '<p class="said">61 jobs: 61 pending. Too many to be drawn.</p>'
    assert "No jobs." in graph([])


def test_jobs_that_wait_for_each_other_or_for_none_that_is_there_do_no_harm():
    tree = parsed(
        graph(
            [
                Node("a", "a", "pending", after=("b", "a")),
                Node("b", "b", "pending", after=("a",)),
                Node("c", "c", "pending", after=("gone",)),
            ]
        )
    )

    assert len(boxes(tree)) == 3


def test_hostile_types_and_links_of_boxes_stay_text():
    tree = parsed(graph([Node("a", HOSTILE, "<b>", '/"><script>')]))

    assert marks(tree, "script") == []
    assert next(tree.iter("a")).get("href") == '/"><script>'
    assert HOSTILE in next(tree.iter("g")).find("title").text
