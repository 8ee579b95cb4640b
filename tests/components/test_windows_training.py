from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from components.windows import TrainingQuery, consecutive

BERLIN = ZoneInfo("Europe/Berlin")
DAYS = consecutive(date(2026, 3, 1), 1, BERLIN, datetime(2026, 4, 10, tzinfo=UTC))


def chosen(query, windows=DAYS, rows=lambda place: 100):
    found = TrainingQuery.model_validate(query).choose(windows, rows)
    return (found[0].name, found[-1].name, len(found)) if found else ()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("last 3 days", ("2026-04-07", "2026-04-09", 3)),
        ("last 3 days, skip the last 1", ("2026-04-06", "2026-04-08", 3)),
        ("Last 3 windows, skip the last 2 windows", ("2026-04-05", "2026-04-07", 3)),
        ("last 2 days, at least 500 rows", ("2026-04-05", "2026-04-09", 5)),
        ("last 999 days", ("2026-03-01", "2026-04-09", 40)),
        ("last 20 days", ("2026-03-21", "2026-04-09", 20)),  # the clocks change on March 29
        ("last 2 days, skip the last 90 days", ()),
        ("last 2 days, at least 9,999 rows", ()),
    ],
)
def test_a_sentence_chooses_windows(query, found):
    assert chosen(query) == found


def test_a_window_of_a_week_is_taken_if_its_end_is_inside():
    weeks = consecutive(date(2026, 3, 2), 7, BERLIN, datetime(2026, 4, 10, tzinfo=UTC))
    assert chosen("last 10 days", weeks) == ("2026-03-23", "2026-03-30", 2)
    assert chosen("last 10 days, skip the last 1 day", weeks) == ("2026-03-23", "2026-03-23", 1)


@pytest.mark.parametrize(
    "query",
    ["", "90 days", "last 0 days", "last 90 days, skip", "last 9 days, skip the last 1 window", 90],
)
def test_a_sentence_that_is_none_is_refused_with_an_example(query):
    with pytest.raises(ValidationError):
        TrainingQuery.model_validate(query)


def test_a_query_travels_as_a_sentence():
    query = TrainingQuery.model_validate("last 90 days, skip the last 1, at least 2,000 rows")
    assert TrainingQuery.from_json(query.to_json()) == query
    assert "2000 rows" in query.to_json()
