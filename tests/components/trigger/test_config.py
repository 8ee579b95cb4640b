from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from components.trigger.config import GovernorConfig, TriggerConfig, is_quiet


@pytest.mark.parametrize(
    ("hours", "moment", "quiet"),
    [
        ("22:00-06:00", "2026-01-12T21:59", False),
        ("22:00-06:00", "2026-01-12T22:00", True),
        ("22:00-06:00", "2026-01-13T05:59", True),
        ("22:00-06:00", "2026-01-13T06:00", False),
        ("09:00-17:00", "2026-01-13T12:00", True),
        ("09:00-24:00", "2026-01-13T23:59", True),
        ("00:00-00:00", "2026-01-13T12:00", True),
        ("sat-sun", "2026-01-10T00:00", True),
        ("sat-sun", "2026-01-11T23:59", True),
        ("sat-sun", "2026-01-12T00:00", False),
        ("fri-mon", "2026-01-12T00:00", True),
        ("fri-mon", "2026-01-13T00:00", False),
        ("mon", "2026-01-12T12:00", True),
        ("fri 22:00-06:00", "2026-01-10T05:59", True),
        ("fri 22:00-06:00", "2026-01-09T05:59", False),
        ("mon-fri 09:00-18:00", "2026-01-10T12:00", False),
    ],
)
def test_quiet_hours(hours, moment, quiet):
    (checked,) = GovernorConfig(quiet_hours=(hours.upper(),)).quiet_hours
    assert is_quiet(checked, datetime.fromisoformat(moment)) is quiet


def test_quiet_hours_go_by_the_clock_on_the_wall_when_clocks_change():
    berlin = ZoneInfo("Europe/Berlin")

    def quiet_minutes(day):
        start = datetime.combine(day, time(), tzinfo=berlin).astimezone(UTC)
        moments = (start + timedelta(minutes=minute) for minute in range(24 * 60))
        return sum(is_quiet("02:00-03:00", moment.astimezone(berlin)) for moment in moments)

    assert quiet_minutes(date(2026, 3, 28)) == 60
    assert quiet_minutes(date(2026, 3, 29)) == 0  # there is no such hour
    assert quiet_minutes(date(2026, 10, 25)) == 120  # it comes twice


@pytest.mark.parametrize(
    "section",
    [
        {"quiet_hours": ["25:00-26:00"]},
        {"quiet_hours": ["at night"]},
        {"quiet_hours": [""]},
        {"persistence": [3, 2]},
        {"persistence": [0, 2]},
        {"cooldown_hours": -1},
        {"device_hours_per_week": 0},
        {"moved_unhurt": "panic"},
        {"cooldwon_hours": 3},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(section):
    with pytest.raises(ValidationError):
        GovernorConfig(**section)


def test_an_unknown_cause_is_refused():
    with pytest.raises(ValidationError):
        TriggerConfig(on=("boredom",))


@pytest.mark.parametrize("hours", [0.0, 8761.0, 1e300])
def test_a_lease_ends_within_a_year(hours):
    with pytest.raises(ValidationError, match="lease_hours"):
        TriggerConfig(lease_hours=hours)
