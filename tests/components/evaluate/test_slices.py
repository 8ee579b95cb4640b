from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluate.slices import column_slices, known_slices


def sizes(slices):
    return {each.name: len(each) for each in slices}


def test_each_value_with_enough_rows_is_a_slice_and_so_are_missing_ones():
    values = ["web"] * 5 + ["app"] * 3 + ["fax"] + [None, pd.NA, float("nan")]
    slices = column_slices("source", values, min_rows=2)
    assert sizes(slices) == {"source = app": 3, "source = web": 5, "source is missing": 3}
    assert slices[1].rows.tolist() == [True] * 5 + [False] * 7
    assert {each.found for each in slices} == {"column"}


def test_numbers_are_cut_into_ranges_by_quantiles():
    numbers = [each / 10 for each in range(100)] + [None] * 20
    slices = column_slices("price", numbers, min_rows=10)
    assert sizes(slices) == {
        "price 0 to 2.475 (part 1 of 4)": 25,
        "price 2.475 to 4.95 (part 2 of 4)": 25,
        "price 4.95 to 7.425 (part 3 of 4)": 25,
        "price 7.425 to 9.9 (part 4 of 4)": 25,
        "price is missing": 20,
    }


def test_a_text_that_reads_as_a_number_is_a_value():
    codes = ["01067", "01069", "80331", "80333", "20095"] * 20
    assert sizes(column_slices("postcode", codes, min_rows=10)) == {
        f"postcode = {code}": 20 for code in sorted(set(codes))
    }


def test_numbers_that_hardly_differ_have_slices_of_their_own_still():
    numbers = (1_700_000_000 + np.arange(100)).tolist()
    assert list(sizes(column_slices("time", numbers, min_rows=10)).values()) == [25] * 4


def test_missing_numbers_and_dates_are_told_too():
    numbers = [*range(20), pd.NA, None]
    assert sizes(column_slices("x", numbers, min_rows=2))["x is missing"] == 2
    days = [pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02"), pd.NaT] * 4
    assert [len(each) for each in column_slices("day", days, min_rows=2)] == [4, 4, 4]


def test_few_different_numbers_are_values():
    slices = column_slices("stars", [1, 2, 2, 3] * 5, min_rows=5)
    assert sizes(slices) == {"stars = 1": 5, "stars = 2": 10, "stars = 3": 5}


def test_a_number_that_is_an_edge_belongs_to_the_range_above_it():
    assert list(sizes(column_slices("stars", [0, 1, 2, 3, 4] * 10, min_rows=5)).values()) == [
        *(10, 10, 10),
        20,
    ]


def test_all_rows_are_no_slice():
    assert column_slices("source", ["web"] * 10, min_rows=1) == []
    assert column_slices("source", [None] * 10, min_rows=1) == []
    assert column_slices("source", [], min_rows=1) == []


@given(
    st.lists(st.none() | st.floats(allow_nan=False) | st.integers(0, 9), max_size=60),
    st.integers(1, 10),
)
def test_slices_of_a_column_share_no_row_and_are_large_enough(values, min_rows):
    slices = column_slices("x", values, min_rows=min_rows)
    assert (
        sum((each.rows.astype(int) for each in slices), np.zeros(len(values), int)).max(initial=0)
        <= 1
    )
    assert all(min_rows <= len(each) < len(values) for each in slices)
    assert len({each.name for each in slices}) == len(slices)


def test_known_slices_are_columns_windows_lengths_and_languages():
    frame = pd.DataFrame(
        {
            "text": ["the film was " + "very " * (row % 7) for row in range(40)]
            + ["とても" * (1 + row % 7) for row in range(40)],
            "window": ["2026-W01"] * 60 + ["2026-W02"] * 20,
            "shop": ["north", "south"] * 40,
        }
    )
    slices = known_slices(frame, ["shop"], "text", min_rows=10)
    names = sizes(slices)
    assert names["shop = north"] == 40
    assert names["window = 2026-W02"] == 20
    assert names["guessed language = ja"] == names["guessed language = en"] == 40
    assert sum(each.found == "length" for each in slices) == 4
    frame["source"] = ["web", "shop"] * 30 + [None] * 20
    frame["weekday"] = frame["shop"]
    names = sizes(known_slices(frame, ["shop", "weekday"], "image", min_rows=10))
    assert names["source = web"] == 30
    # The same rows under another name are no second slice.
    assert names.keys().isdisjoint({"weekday = north", "window = 2026-W02"})
    only_columns = known_slices(frame, ["shop"], "image", min_rows=10)
    assert {each.found for each in only_columns} == {"column"}


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no column shop to slice by"):
        known_slices(pd.DataFrame({"text": ["a"]}), ["shop"], "text", min_rows=1)
