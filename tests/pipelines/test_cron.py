"""Six fields, as the scheduler of Kubeflow reads them, from one wall clock to another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.cron import Cron, Schedule, SchedulesConfig, converted, unsayable

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("0 30 3 * * MON", "2026-11-21T12:00", "2026-11-23T03:30"),
        ("0 0 0 1 * ?", "2026-11-21T12:00", "2026-12-01T00:00"),
        ("0 0/20 9-10 * * *", "2026-11-21T09:41", "2026-11-21T10:00"),
        ("5,10 0 0 * JAN sun", "2026-11-21T12:00", "2027-01-03T00:00:05"),
        # Two restricted fields of days: either will do.
        ("0 0 0 13 * FRI", "2026-11-21T12:00", "2026-11-27T00:00"),
        ("0 0 0 29 2 *", "2026-11-21T12:00", "2028-02-29T00:00"),
    ],
)
def test_it_fires_when_the_scheduler_would(text, after, expected):
    found = Cron.parse(text).next_after(datetime.fromisoformat(after))
    assert found == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("30 3 * * MON", "write '0 30 3 * * MON'"),
        ("@weekly", "six fields"),
        ("0 0 3 * * 7", "Sunday is 0 or SUN"),
        ("0 60 3 * * *", "minute, which goes from 0 to 59"),
        ("0 0 3 * FEBRUARY *", "no month, such as JAN"),
        ("0 0 3 L * *", "no day of the month"),
        ("0 0 5-3 * * *", "no hour"),
        ("0 0 */0 * * *", "no hour"),
        ("0 0 3 30 2 *", "never fires"),
        ("0 0 3 * * MON-", "no day of the week"),
        ("0 0 3 */2 * MON", "name the days"),
        ("0 0 3 1 * */2", "name the days"),
    ],
)
def test_what_the_scheduler_would_misread_is_refused(text, said):
    with pytest.raises(ValueError, match=said.replace("*", r"\*")):
        Cron.parse(text)


def test_all_days_by_number_are_not_a_star():
    # With a star the scheduler wants a day that suits both fields: Mondays only.
    assert str(Cron.parse("0 0 3 30-31,1-29 * MON")).split()[3].count(",") == 30
    assert str(Cron.parse("0 0 3 1 * SUN-SAT")) == "0 0 3 1 * 0,1,2,3,4,5,6"
    assert str(Cron.parse("0 0 3 ? * MON")) == "0 0 3 * * 1"


WORDS = st.tuples(
    st.just("0"),
    st.sampled_from(["0", "30", "15,45", "*/20"]),
    st.sampled_from(["3", "*", "0-6", "23", "9-17/4"]),
    st.sampled_from(["*", "?", "1", "2,15", "28", "1-31"]),
    st.sampled_from(["*", "JAN", "3-9"]),
    st.sampled_from(["*", "MON", "SAT,SUN", "1-5", "SUN-SAT"]),
)


@settings(max_examples=150, deadline=None)
@given(WORDS, st.integers(-14 * 4, 14 * 4), st.integers(0, 1_000_000))
def test_a_shifted_expression_fires_that_much_later(words, quarters, minutes):
    cron, delay = Cron.parse(" ".join(words)), timedelta(minutes=15 * quarters)
    try:
        shifted = cron.shifted(15 * quarters)
    except ValueError:
        assume(False)
    start = datetime(2026, 1, 1) + timedelta(minutes=minutes)
    for _ in range(5):
        fires = cron.next_after(start)
        assert shifted.next_after(start + delay) == fires + delay
        assert Cron.parse(str(shifted)).next_after(start + delay) == fires + delay
        start = fires
    assert str(Cron.parse(str(shifted))) == str(shifted)


@pytest.mark.parametrize(
    ("text", "minutes", "said"),
    [
        ("0 0 0,12 * * MON", -60, "make it two schedules"),
        ("0 0 0 1 * *", -60, "another month"),
        ("0 0 23 28 * *", 60, "another month"),
        ("0 0 23 * 6 *", 60, "another month"),
        ("0 0,45 3 * * *", 30, "differ from hour to hour"),
    ],
)
def test_what_one_expression_cannot_say_is_refused(text, minutes, said):
    with pytest.raises(ValueError, match=said):
        Cron.parse(text).shifted(minutes)


def test_a_wall_clock_with_summer_time_says_when_it_changes():
    found = converted(Schedule(cron="0 0 3 * * MON"), "Europe/Berlin", "UTC", NOW)
    assert (found.cron, found.then) == ("0 0 2 * * 1", "0 0 1 * * 1")
    assert found.fires == datetime(2026, 11, 23, 3, tzinfo=ZoneInfo("Europe/Berlin"))
    assert "2027-03-28" in found.explanation and "must run again" in found.explanation


def test_a_wall_clock_without_summer_time_holds_for_ever():
    found = converted(Schedule(cron="0 0 3 * * MON"), "Asia/Tokyo", "UTC", NOW)
    assert found.cron == "0 0 18 * * 0" and found.until is None
    assert found.explanation == "next at 2026-11-23 03:00 JST"


def test_the_offset_is_that_of_the_next_time_it_fires():
    before_the_change = datetime(2027, 3, 26, 12, tzinfo=UTC)
    found = converted(Schedule(cron="0 0 3 * * MON"), "Europe/Berlin", "UTC", before_the_change)
    assert found.cron == "0 0 1 * * 1"


def test_a_cluster_that_keeps_the_projects_time_needs_no_conversion():
    found = converted(Schedule(cron="0 0 3 1 * *"), "Asia/Tokyo", "Asia/Tokyo", NOW)
    assert found.cron == "0 0 3 1 * *" and found.until is None


def test_a_schedule_that_only_summer_cannot_say_is_refused_in_winter_too():
    # Midnight in London is midnight in UTC in winter, and 23:00 of the month before in summer.
    assert "another month" in unsayable(Schedule(cron="0 0 0 1 * *"), "Europe/London", "UTC")
    assert unsayable(Schedule(cron="0 0 1 1 * *"), "Europe/London", "UTC") == ""


def test_only_the_graphs_with_a_schedule_have_one():
    section = SchedulesConfig.model_validate({"training": {"cron": "0 0 3 * * MON"}})
    assert list(section.by_graph) == ["training"] and section.cluster_timezone == "UTC"
