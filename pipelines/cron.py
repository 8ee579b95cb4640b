"""Section ``schedules`` of a project file, and the cron expressions in it.

Kubeflow Pipelines reads cron with six fields, seconds first, by the rules of
``robfig/cron`` version 1, in one time zone for the whole cluster, UTC as it comes. Five
fields it takes as well, and misreads; here they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

from components.settings import Section
from components.windows import ZoneName

_FIELDS = (
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 6),
)
_MONTHS = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"
_WEEKDAYS = "SUNMONTUEWEDTHUFRISAT"
_NAMES = {
    "month": {_MONTHS[3 * number : 3 * number + 3]: number + 1 for number in range(12)},
    "day of the week": {_WEEKDAYS[3 * number : 3 * number + 3]: number for number in range(7)},
}
_RANGE = re.compile(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?")
_MINUTES_A_DAY = 24 * 60
_DAYS_TO_A_CHANGE = 400
_DAYS_AHEAD = 4 * 366 + 1
"""Within so many days, every cron expression that ever fires does."""


@dataclass(frozen=True)
class Cron:
    """A cron expression of six fields.

    Attributes:
        seconds, minutes, hours, days, months, weekdays: when it fires; Sunday is 0.
        any_day, any_weekday: the field is ``*`` or ``?``. If both are restricted, a day
            that suits either of them will do.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    any_day: bool
    any_weekday: bool

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Parse an expression such as ``0 30 3 * * MON``.

        Raises:
            ValueError: it is none, or never fires; the message says what to write instead.
        """
        words = text.split()
        if len(words) == 5:
            raise ValueError(
                f"{text!r} has five fields, but Kubeflow reads six, seconds first: "
                f"write '0 {' '.join(words)}'"
            )
        if len(words) != 6:
            raise ValueError(
                f"{text!r} is no cron expression of six fields: second, minute, hour, "
                "day of the month, month, day of the week; such as '0 30 3 * * MON'"
            )
        fields = zip(words, _FIELDS, strict=True)
        seconds, minutes, hours, days, months, weekdays = (
            _parsed(word, *field) for word, field in fields
        )
        cron = cls(
            seconds,
            minutes,
            hours,
            days,
            months,
            weekdays,
            any_day=words[3] in "*?",
            any_weekday=words[5] in "*?",
        )
        if cron.either and any("*/" in each or "?/" in each for each in (words[3], words[5])):
            raise ValueError(
                f"{text!r} restricts both kinds of days, one by a step: some schedulers then want "
                "a day that suits both, others one that suits either; name the days"
            )
        if next(cron._moments(datetime(2024, 1, 1)), None) is None:
            raise ValueError(f"{text!r} never fires: no such month has such a day")
        return cron

    def __str__(self) -> str:
        """Return the expression, with all names as numbers."""
        numbers = (
            self.seconds,
            self.minutes,
            self.hours,
            self.days,
            self.months,
            self.weekdays,
        )
        # All days by name are no star: with one, a day would have to suit both fields.
        return " ".join(
            ",".join(map(str, each))
            if len(each) < last - first + 1 or (self.either and name.startswith("day"))
            else "*"
            for each, (name, first, last) in zip(numbers, _FIELDS, strict=True)
        )

    @property
    def either(self) -> bool:
        """Whether both kinds of days are restricted, so that a day may suit either."""
        return not self.any_day and not self.any_weekday

    def next_after(self, moment: datetime) -> datetime:
        """Return when it fires next by a wall clock in the time zone of ``moment``."""
        local = moment.replace(tzinfo=None)
        found = next(each for each in self._moments(local) if each > local)
        return found.replace(tzinfo=moment.tzinfo)

    def _moments(self, start: datetime) -> Iterator[datetime]:
        """Yield when it fires from the midnight before ``start`` on."""
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
        for number in range(_DAYS_AHEAD):
            day = midnight + timedelta(days=number)
            if not self._on(day):
                continue
            for hour in self.hours:
                for minute in self.minutes:
                    for second in self.seconds:
                        yield day.replace(hour=hour, minute=minute, second=second)

    def _on(self, day: datetime) -> bool:
        by_day = day.day in self.days
        by_weekday = day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (
            (by_day or by_weekday) if self.either else (by_day and by_weekday)
        )

    def shifted(self, minutes: int) -> Cron:
        """Return the expression that fires so many minutes later.

        Args:
            minutes: between -1 and 1 day.

        Raises:
            ValueError: no single expression does; the message says why.
        """
        fires: dict[int, set[tuple[int, int]]] = {}
        for hour in self.hours:
            for minute in self.minutes:
                carry, rest = divmod(hour * 60 + minute + minutes, _MINUTES_A_DAY)
                fires.setdefault(carry, set()).add(divmod(rest, 60))
        every_day = self.any_day and self.any_weekday and len(self.months) == 12
        if len(fires) > 1 and not every_day:
            raise ValueError(
                "some of its hours fall on another day than others; make it two schedules"
            )
        (carry, *_), times = fires, set().union(*fires.values())
        hours = tuple(sorted({hour for hour, _ in times}))
        past = tuple(sorted({minute for _, minute in times}))
        if len(hours) * len(past) != len(times):
            raise ValueError("its minutes would differ from hour to hour; name one minute")
        days, weekdays = self.days, self.weekdays
        if carry and not every_day:
            if len(self.months) != 12:
                raise ValueError("it falls on another day, which may be in another month")
            if not self.any_day:
                days = tuple(day + carry for day in days)
                if not (min(self.days) > (carry < 0) and max(self.days) <= 28 - (carry > 0)):
                    raise ValueError("it falls on another day, which may be in another month")
            weekdays = tuple(sorted({(day + carry) % 7 for day in weekdays}))
        return Cron(
            self.seconds,
            past,
            hours,
            days,
            self.months,
            weekdays,
            self.any_day,
            self.any_weekday,
        )


def _parsed(text: str, field: str, first: int, last: int) -> tuple[int, ...]:
    numbers: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise ValueError(f"{part!r} is no {field}")
        begin, end, step = found[1], found[2], int(found[3] or 1)
        if begin in "*?":
            low, high = first, last
            if end is not None:
                raise ValueError(f"{part!r} is no {field}")
        else:
            low = _number(begin, field)
            high = _number(end, field) if end else (last if found[3] else low)
        if step < 1 or not first <= low <= high <= last:
            sunday = "; Sunday is 0 or SUN" if field == "day of the week" else ""
            raise ValueError(f"{part!r} is no {field}, which goes from {first} to {last}{sunday}")
        numbers.update(range(low, high + 1, step))
    return tuple(sorted(numbers))


def _number(text: str, field: str) -> int:
    named = _NAMES.get(field, {}).get(text.upper())
    if named is None and not text.isdecimal():
        known = f", such as {next(iter(_NAMES[field]))}" if field in _NAMES else ""
        raise ValueError(f"{text!r} is no {field}{known}")
    return int(text) if named is None else named


def _cron(text: str) -> str:
    Cron.parse(text)
    return " ".join(text.split())


CronText = Annotated[str, AfterValidator(_cron)]
"""A cron expression of six fields, seconds first."""


class Schedule(Section):
    """When one of the graphs starts by itself."""

    cron: CronText
    """By the wall clock of ``schedules.timezone``."""
    enabled: bool = True
    """False keeps the recurring run, but it does not fire."""


class SchedulesConfig(Section):
    """Section ``schedules``: the recurring runs that ``tokiwa apply`` keeps."""

    training: Schedule | None = None
    monitoring: Schedule | None = None
    timezone: ZoneName | None = None
    """The project's own, ``resolve.timezone``, by default."""
    cluster_timezone: ZoneName = "UTC"
    """Of the cluster's scheduler, ``CRON_SCHEDULE_TIMEZONE`` of ml-pipeline-scheduledworkflow."""

    @property
    def by_graph(self) -> dict[str, Schedule]:
        """The schedules there are, by graph."""
        both = {"training": self.training, "monitoring": self.monitoring}
        return {graph: schedule for graph, schedule in both.items() if schedule is not None}


@dataclass(frozen=True)
class Conversion:
    """A schedule in the time zone of the cluster.

    Attributes:
        cron: six fields by the cluster's clock.
        fires: the next time.
        until: a first time of day by which the clocks have changed, and the conversion with
            them; None for never.
        then: what the expression is afterwards, empty if there is none.
    """

    cron: str
    fires: datetime
    until: datetime | None
    then: str

    @property
    def explanation(self) -> str:
        """Both clocks, and what the next change of them does."""
        said = f"next at {self.fires:%Y-%m-%d %H:%M} {self.fires.tzname()}"
        if self.until is None:
            return said
        after = f"it is {self.then!r}" if self.then else "there is no such expression"
        return (
            f"{said}; the clocks will have changed by {self.until:%Y-%m-%d %H:%M}: "
            f"from then on {after}, and `tokiwa apply` must run again"
        )


def converted(schedule: Schedule, zone: str, cluster_zone: str, now: datetime) -> Conversion:
    """Translate a schedule from one time zone's wall clock to another's.

    The offset between both is the one at the next time it fires. Cron cannot follow
    daylight-saving time, so the result says until when it holds.

    Args:
        schedule: by the wall clock of ``zone``.
        zone: of the project.
        cluster_zone: of the cluster's scheduler.
        now: the present, with an offset.

    Raises:
        ValueError: no single expression fires at those times in the cluster's zone.
    """
    cron, here, there = Cron.parse(schedule.cron), ZoneInfo(zone), ZoneInfo(cluster_zone)
    fires = cron.next_after(now.astimezone(here))
    shift = _difference(fires, here, there)
    text = str(cron.shifted(shift))
    for days in range(_DAYS_TO_A_CHANGE):
        moment = fires + timedelta(days=days)
        if (later := _difference(moment, here, there)) != shift:
            try:
                then = str(cron.shifted(later))
            except ValueError:
                then = ""
            return Conversion(text, fires, None if then == text else moment, then)
    return Conversion(text, fires, None, "")


def unsayable(schedule: Schedule, zone: str, cluster_zone: str) -> str:
    """Say why the cluster's clock cannot follow a schedule, in summer or in winter, or nothing."""
    for month in (1, 7):
        try:
            converted(schedule, zone, cluster_zone, datetime(2026, month, 1, tzinfo=UTC))
        except ValueError as error:
            return f"cannot be said by the cluster's clock, {cluster_zone}: {error}"
    return ""


def _difference(moment: datetime, here: ZoneInfo, there: ZoneInfo) -> int:
    """Return by how many minutes a clock there is ahead of one here."""
    ours, theirs = moment.astimezone(here).utcoffset(), moment.astimezone(there).utcoffset()
    assert ours is not None and theirs is not None
    return int((theirs - ours) / timedelta(minutes=1))
