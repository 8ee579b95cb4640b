"""Windows of data: half-open intervals ``[start, end)`` in a project's time zone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, model_serializer, model_validator

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

    def slices(self, count: int) -> list[Window]:
        """Return the window cut into equal lengths of time, to the microsecond and in order.

        Where there are fewer instants than slices, some of them are empty.

        >>> [
        ...     each.start
        ...     for each in Window(
        ...         start="2026-01-05T00:00+09:00", end="2026-01-07T00:00+09:00"
        ...     ).slices(2)
        ... ]
        ['2026-01-04T15:00:00+00:00', '2026-01-05T15:00:00+00:00']
        """
        begins, length = self.begins.astimezone(UTC), self.ends - self.begins
        cuts = [(begins + length * number // count).isoformat() for number in range(count + 1)]
        return [type(self)(start=start, end=end) for start, end in pairwise(cuts)]


ALL_TIME = Window(start="0001-01-01T00:00:00+00:00", end="9999-12-31T00:00:00+00:00")
"""The one window of a project whose rows carry no time."""


_QUERY = re.compile(
    r"last (?P<last>[1-9]\d{0,4}) (?P<unit>day|window)s?"
    r"(?:, skip the last (?P<skip>\d{1,4})(?: (?P=unit)s?)?)?"
    r"(?:, at least (?P<rows>\d[\d,]{0,14}) rows)?"
)


class TrainingQuery(Section):
    """Which windows a model learns from, written as ``last 90 days, skip the last 1 day``.

    ``at least 2,000 rows`` at its end takes earlier windows until there are so many. Days are
    counted back from the end of the newest window, and what is only partly inside of them is
    taken as a whole.
    """

    last: int
    unit: str
    skip: int
    min_rows: int

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        found = _QUERY.fullmatch(" ".join(given.lower().split()))
        if found is None:
            raise ValueError(
                "should be like: last 90 days, skip the last 1 day, at least 2,000 rows "
                "(or windows instead of days; the second and the third part may be missing)"
            )
        return {
            "last": int(found["last"]),
            "unit": found["unit"],
            "skip": int(found["skip"] or 0),
            "min_rows": int((found["rows"] or "0").replace(",", "")),
        }

    @model_serializer
    def _as_written(self) -> str:
        return self.written

    @property
    def written(self) -> str:
        """The query as a sentence.

        >>> TrainingQuery.model_validate("Last 9 windows, skip the last 1").written
        'last 9 windows, skip the last 1 windows, at least 0 rows'
        """
        return (
            f"last {self.last} {self.unit}s, skip the last {self.skip} {self.unit}s, "
            f"at least {self.min_rows} rows"
        )

    def choose(self, windows: Sequence[Window], rows: Callable[[int], int]) -> list[Window]:
        """Return the windows that are meant, in order; none where none is left or rows lack.

        Args:
            windows: all that have ended, in order.
            rows: how many rows the window at a place has.
        """
        if not windows:
            return []
        if self.unit == "window":
            end = len(windows) - self.skip
            start = max(0, end - self.last)
        else:
            # By the calendar: a day in which the clocks change has 23 or 25 hours.
            ends = [date.fromisoformat(window.end[:10]) for window in windows]
            until = ends[-1] - timedelta(days=self.skip)
            end = sum(each <= until for each in ends)
            start = sum(each <= until - timedelta(days=self.last) for each in ends)
        if end <= start:
            return []
        found = sum(rows(place) for place in range(start, end))
        while found < self.min_rows and start > 0:
            start -= 1
            found += rows(start)
        return list(windows[start:end]) if found >= self.min_rows else []


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
