from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.windows import ALL_TIME, Window, consecutive

ZONES = st.sampled_from(
    # Havana's clocks go back at one to midnight, Cairo's go forward at midnight,
    # Apia once left out a day, Kiritimati is 14 hours ahead.
    ["UTC", "Europe/Berlin", "Asia/Tokyo", "America/Havana", "Africa/Cairo", "Pacific/Apia",
     "Pacific/Kiritimati"]
)  # fmt: skip
DAYS = st.dates(date(1990, 1, 1), date(2035, 1, 1))


@given(DAYS, st.integers(1, 40), ZONES, st.integers(0, 12))
@example(date(2000, 4, 28), 1, "Africa/Cairo", 0)  # midnight was skipped
def test_consecutive_windows_leave_no_gap_and_never_overlap(first, days, zone, count):
    until = Window.of_days(first, days * (count + 1), ZoneInfo(zone)).ends
    windows = consecutive(first, days, ZoneInfo(zone), until)
    assert len(windows) == count + 1
    # In UTC: datetimes in a gap of the clocks are equal to none of another zone.
    midnight = datetime(first.year, first.month, first.day, tzinfo=ZoneInfo(zone))
    assert windows[0].begins.astimezone(UTC) == midnight.astimezone(UTC)
    for earlier, later in pairwise(windows):
        assert earlier.ends == later.begins
        assert earlier.end == later.start
    assert all(window.begins < window.ends for window in windows)
    assert len({window.name for window in windows}) == len(windows)


@given(DAYS, st.integers(1, 40), ZONES, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_only_windows_that_have_ended_are_whole(first, days, zone, later):
    until = datetime(first.year, first.month, first.day, tzinfo=UTC) + later
    windows = consecutive(first, days, ZoneInfo(zone), until)
    assert all(window.ends <= until for window in windows)
    following = Window.of_days(first + timedelta(days=days * len(windows)), days, ZoneInfo(zone))
    assert following.ends > until


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 23), 167), ((2026, 10, 19), 169)])
def test_a_week_in_which_the_clocks_change_is_an_hour_off(day, hours):
    window = Window.of_days(date(*day), 7, ZoneInfo("Europe/Berlin"))
    assert window.ends - window.begins == timedelta(hours=hours)


def test_a_window_is_whole_at_the_instant_of_its_end():
    end = datetime(2026, 1, 8, tzinfo=UTC)
    assert len(consecutive(date(2026, 1, 1), 7, ZoneInfo("UTC"), end)) == 1
    just_before = end - timedelta(microseconds=1)
    assert consecutive(date(2026, 1, 1), 7, ZoneInfo("UTC"), just_before) == []


def test_a_window_is_named_by_its_first_local_day():
    assert Window.of_days(date(2026, 1, 5), 7, ZoneInfo("Asia/Tokyo")).name == "2026-01-05"
    assert ALL_TIME.name == "all"


@given(DAYS, ZONES, st.integers(1, 1000))
def test_slices_of_a_window_leave_no_gap_never_overlap_and_are_as_long(first, zone, count):
    window = Window.of_days(first, 7, ZoneInfo(zone))
    slices = window.slices(count)
    assert len(slices) == count
    assert (slices[0].begins, slices[-1].ends) == (window.begins, window.ends)
    for earlier, later in pairwise(slices):
        assert earlier.end == later.start
    lengths = {each.ends - each.begins for each in slices}
    assert max(lengths) - min(lengths) <= timedelta(microseconds=1)


def test_of_more_slices_than_instants_some_are_empty():
    two = Window(start="2026-01-05T00:00:00+00:00", end="2026-01-05T00:00:00.000002+00:00")
    slices = two.slices(5)
    assert [each.begins.microsecond for each in slices] == [0, 0, 0, 1, 1]
    assert [each.ends.microsecond for each in slices] == [0, 0, 1, 1, 2]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="at least one day"):
        consecutive(date(2026, 1, 1), 0, ZoneInfo("UTC"), datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="needs an offset"):
        consecutive(date(2026, 1, 1), 1, ZoneInfo("UTC"), datetime(2026, 1, 1))
