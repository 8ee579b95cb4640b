"""The policy: what may start a retrain, and what the governor lets pass."""

from __future__ import annotations

import re
from datetime import datetime, time
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from components.settings import Section

Cause = Literal["manual", "drift", "performance", "volume", "schedule"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY, _TIME = "|".join(_DAYS), r"(?:[01]\d|2[0-3]):[0-5]\d|24:00"
_QUIET = re.compile(rf"(?:({_DAY})(?:-({_DAY}))?)?\s*(?:({_TIME})-({_TIME}))?")


def _quiet(text: str) -> str:
    if not text.strip() or _QUIET.fullmatch(text.strip().lower()) is None:
        raise ValueError("write it as 22:00-06:00, sat-sun, or mon-fri 09:00-18:00")
    return text.strip().lower()


QuietHours = Annotated[str, AfterValidator(_quiet)]
"""Days, hours or both, by the clock on the wall: ``mon-fri 09:00-18:00``."""


def is_quiet(hours: QuietHours, moment: datetime) -> bool:
    """Tell whether a moment lies in quiet hours.

    The clock on the wall decides: of an hour that a change of clocks skips nothing is
    quiet, and of one that comes twice both are. Hours that end before they begin run into
    the next day, and belong to the day on which they begin.

    Args:
        hours: when it is quiet.
        moment: in the project's time zone.

    Examples:
        >>> is_quiet("fri 22:00-06:00", datetime(2026, 1, 10, 5))  # a Saturday
        True
        >>> is_quiet("fri 22:00-06:00", datetime(2026, 1, 10, 6))
        False
    """
    found = _QUIET.fullmatch(hours)
    assert found is not None, f"{hours} was checked"
    first, last, begins, ends = found.groups()
    days = _days(first, last or first)
    if begins is None:
        return moment.weekday() in days
    start, end, now = _minutes(begins), _minutes(ends), _minutes_of(moment.time())
    if start < end:
        return moment.weekday() in days and start <= now < end
    yesterday = (moment.weekday() - 1) % 7
    return (moment.weekday() in days and now >= start) or (yesterday in days and now < end)


def _days(first: str | None, last: str | None) -> set[int]:
    if first is None or last is None:
        return set(range(7))
    begin, end = _DAYS.index(first), _DAYS.index(last)
    return {day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1)}


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _minutes_of(moment: time) -> int:
    return moment.hour * 60 + moment.minute


class ProbeConfig(Section):
    """A head on frozen features, fitted in seconds, tells whether a retrain could win."""

    min_rows: int = Field(default=200, ge=20)
    """With fewer new labelled rows it is not asked."""
    min_gain: float = Field(default=0.02, ge=0, lt=1)
    """Skip a retrain whose gain in accuracy is shown to be at most this."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """How sure it must be to skip: one-sided."""


class GovernorConfig(Section):
    """Section ``trigger.governor``: when a trigger that fired may start a retrain."""

    persistence: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1, le=50)]] = (1, 1)
    """``[k, n]``: drift or performance must have fired in k of the last n windows."""
    moved_unhurt: Literal["ignore", "label", "retrain"] = "ignore"
    """What to do when inputs moved and performance is known not to be hurt."""
    moved_unknown: Literal["ignore", "label", "retrain"] = "retrain"
    """What to do when inputs moved and nothing can tell whether performance is hurt."""
    min_labelled_rows: int = Field(default=0, ge=0)
    """So many labelled rows must have come that the champion was not trained on."""
    max_attempts: int = Field(default=3, ge=1)
    """How often one event may be tried, if its retrains die."""
    cooldown_hours: float = Field(default=24.0, ge=0)
    """Between two retrains, from decision to decision."""
    backoff: float = Field(default=2.0, ge=1, le=10)
    """Each retrain that did not replace the champion makes its cooldown so much longer."""
    device_hours_per_week: float | None = Field(default=None, gt=0)
    """Budget of the last seven days; None for no limit."""
    quiet_hours: tuple[QuietHours, ...] = ()
    """When nothing starts, in the project's time zone."""
    probe: ProbeConfig | None = ProbeConfig()
    """None never skips a retrain by a probe."""

    @model_validator(mode="after")
    def _k_of_n(self) -> GovernorConfig:
        if self.persistence[0] > self.persistence[1]:
            raise ValueError(
                f"persistence: {self.persistence[0]} of the last {self.persistence[1]} windows "
                "cannot be; write it as [k, n] with k at most n"
            )
        return self


class TriggerConfig(Section):
    """Section ``trigger``, which is a project's policy."""

    on: tuple[Cause, ...] = ("manual", "drift", "performance", "schedule")
    """What may start a retrain; the first that fires names the cause. Empty for nothing."""
    relative_drop: float = Field(default=0.05, gt=0, lt=1)
    """``performance`` fires when it fell by this share of what it was, and that hurts."""
    floor: float | None = Field(default=None, gt=0, le=1)
    """``performance`` fires when it is below this."""
    volume_rows: int = Field(default=1000, ge=1)
    """``volume`` fires when so many labelled rows are new."""
    schedule_days: float = Field(default=28.0, gt=0)
    """``schedule`` fires when the champion has learnt nothing of the last so many days."""
    lease_hours: float = Field(default=24.0, gt=0)
    """After so long without an end, a claimed retrain counts as dead."""
    governor: GovernorConfig = GovernorConfig()
