from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.sources import cuts, kept, open_source
from components.sources.cuts import cut
from components.sources.files import ColumnNames, FilesConfig, Part
from components.windows import Window

WEEK = Window.of_days(date(2026, 1, 5), 7, ZoneInfo("Asia/Tokyo"))


@pytest.fixture
def small_cuts(monkeypatch):
    monkeypatch.setattr(cuts, "CUT_ROWS", 10)


def at(share):
    """The moment after a share of the week."""
    return WEEK.begins + (WEEK.ends - WEEK.begins) * share


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.integers(1, 4_000_000)), max_size=8
    )
)
def test_parts_follow_each_other_and_hold_every_row(spans):
    given_ = [(at(min(pair)), at(max(pair)), rows) for *pair, rows in spans]
    parts = cut(WEEK, given_)
    for earlier, later in pairwise(parts):
        assert earlier.ends <= later.begins
    inside = [m for first, last, _ in given_ for m in (first, last) if WEEK.begins <= m < WEEK.ends]
    for moment in inside:
        assert sum(part.begins <= moment < part.ends for part in parts) == 1


def test_a_small_window_is_not_cut_and_a_large_one_into_parts_of_about_as_many_rows():
    week = (WEEK.begins, WEEK.ends - timedelta(microseconds=1))
    assert cut(WEEK, [(*week, cuts.CUT_ROWS)]) == [WEEK]
    assert len(cut(WEEK, [(*week, 4 * cuts.CUT_ROWS)])) == 4
    in_order = [(at(n / 40), at((n + 1) / 40), cuts.CUT_ROWS // 10) for n in range(40)]
    assert 4 <= len(cut(WEEK, in_order)) <= 8


def test_rows_of_one_instant_stay_together():
    [only] = cut(WEEK, [(at(0.3), at(0.3), 10**9)])
    assert only.ends - only.begins <= timedelta(microseconds=1)
    assert cut(WEEK, []) == []


@pytest.mark.parametrize("order", [1, -1, 7])
def test_cuts_do_not_change_what_is_known_of_a_window(order, small_cuts, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "GROUP_ROWS", 16)
    times = [(WEEK.begins + timedelta(minutes=37 * n)).isoformat() for n in range(70)]
    rows = [f"text {n},x,{times[n * order % 70]}" for n in range(70)]
    lines = [*rows, f"text,x,{WEEK.end}", f"twice,x,{times[3]}", f"twice,x,{times[3]}"]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label,when", *lines]))
    config = FilesConfig(
        root=str(tmp_path), files=[Part(path="rows.csv")], columns=ColumnNames(time="when")
    )
    source = open_source(config)
    facts = source.facts(WEEK)
    assert facts.rows == 72
    assert len(source._cuts(WEEK)) > 4
    assert facts.fingerprint == source.read(WEEK).fingerprint()
    monkeypatch.setattr(cuts, "CUT_ROWS", 10**6)
    assert open_source(config).facts(WEEK) == facts
    assert datetime.fromisoformat(source.read(WEEK).frame["time"].iloc[0]) == WEEK.begins
