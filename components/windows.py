"""Windows of data: half-open intervals ``[start, end)`` in a project's time zone."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

from components.settings import Section


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"there is no such time zone: {name!r}") from error
    return name


def _day(text: str) -> str:
    day = date.fromisoformat(text)
    if not 1970 <= day.year <= 2200:
        raise ValueError(f"the year of {text} is not between 1970 and 2200")
    return day.isoformat()


ZoneName = Annotated[str, AfterValidator(_zone)]
"""Name of a time zone of the IANA database, such as ``Asia/Tokyo``."""

Day = Annotated[str, AfterValidator(_day)]
"""A calendar day, YYYY-MM-DD."""


class Window(Section):
    """A half-open interval of time, both ends ISO 8601 with an offset."""

    start: str
    end: str

    @classmethod
    def of_days(cls, first: date, days: int, zone: ZoneInfo) -> Self:
        """Return the window of ``days`` local calendar days that begins at midnight.

        Calendar days, not multiples of 24 hours: a week in which the clocks change
        has 167 or 169 hours.
        """
        start = datetime.combine(first, time(), zone)
        end = datetime.combine(first + timedelta(days=days), time(), zone)
        return cls(start=start.isoformat(), end=end.isoformat())

    @property
    def name(self) -> str:
        """The window's first day, or ``all`` for the window of a source without times."""
        return "all" if self == ALL_TIME else self.start[:10]

    @property
    def begins(self) -> datetime:
        """The first instant in the window."""
        return datetime.fromisoformat(self.start)

    @property
    def ends(self) -> datetime:
        """The first instant after the window."""
        return datetime.fromisoformat(self.end)


ALL_TIME = Window(start="0001-01-01T00:00:00+00:00", end="9999-12-31T00:00:00+00:00")
"""The one window of a project whose rows carry no time."""


def consecutive(first: date, days: int, zone: ZoneInfo, until: datetime) -> list[Window]:
    """Return every whole window from ``first`` that has ended at ``until``.

    Raises:
        ValueError: ``days`` is not positive or ``until`` has no offset.
    """
    if days < 1:
        raise ValueError("a window has at least one day")
    if until.tzinfo is None:
        raise ValueError("until needs an offset")
    windows = []
    while (window := Window.of_days(first, days, zone)).ends <= until:
        windows.append(window)
        first += timedelta(days=days)
    return windows
