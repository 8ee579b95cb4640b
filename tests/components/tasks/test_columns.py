from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from components.errors import SourceError
from components.tasks.columns import (
    MISSING,
    OTHER,
    PLACES,
    ColumnState,
    fields_of,
    number_in,
    record_of,
    records_of,
)

NUMBERS = np.random.default_rng(0).lognormal(size=2000)
STATE = ColumnState.of("number", [str(each) for each in NUMBERS])


def test_scaled_by_rank_numbers_are_normal_whatever_they_were():
    scaled = STATE.scaled(NUMBERS, "quantile")
    assert abs(np.median(scaled)) < 0.05
    assert scaled.std() == pytest.approx(1, abs=0.05)
    order = np.argsort(NUMBERS)
    assert (np.diff(scaled[order]) >= 0).all()


@pytest.mark.parametrize("scaling", ["quantile", "standard"])
def test_an_outlier_is_no_farther_out_than_the_edge_and_missing_stays_missing(scaling):
    far = STATE.scaled(np.array([1e30, -1e30, np.nan]), scaling)
    edge = STATE.scaled(np.array([NUMBERS.max(), NUMBERS.min()]), scaling)
    np.testing.assert_allclose(far[:2], edge)
    assert np.isnan(far[2])
    assert np.abs(edge).max() < 12


def test_without_outliers_standard_is_mean_and_deviation():
    values = np.arange(101.0)
    state = ColumnState.of("number", [str(each) for each in values])
    scaled = state.scaled(values[10:90], "standard")
    inner = values.clip(0.5, 99.5)
    np.testing.assert_allclose(scaled, (values[10:90] - inner.mean()) / inner.std())


def test_equal_numbers_scale_to_the_middle_of_their_ranks():
    state = ColumnState.of("number", ["0"] * 90 + ["1"] * 10)
    assert state.scaled(np.array([0.0]), "quantile")[0] == pytest.approx(-0.126, abs=0.02)


def test_the_commonest_categories_have_places_and_the_rest_share_one():
    values = [f"v{number % 100:02d}" for number in range(1000)] + ["v07"] * 5 + [None]
    state = ColumnState.of("category", values)
    assert state.place("v07") == 2
    assert len({state.place(f"v{number:02d}") for number in range(100)}) == PLACES - 1
    assert (state.place("new"), state.place(None)) == (OTHER, MISSING)


@pytest.mark.parametrize("learnt", ["1", "1.0"])
@pytest.mark.parametrize("asked", ["1", "1.0", "1.00"])
def test_a_whole_number_is_one_category_however_it_is_written(learnt, asked):
    state = ColumnState.of("category", ["7", learnt, learnt])
    assert state.place(asked) == 2
    # As a bundle has it that was made before.
    assert ColumnState(kind="category", values=[learnt]).place(asked) == 2
    assert state.place("1.5") == state.place("v1.0") == OTHER


@pytest.mark.parametrize("largest", [1e308, -1e308])
def test_one_enormous_number_does_not_end_a_column(largest):
    state = ColumnState.of("number", [*map(str, range(100)), repr(largest), repr(-largest)])
    assert np.isfinite([state.mean, state.deviation, *state.quantiles]).all()
    for scaling in ("quantile", "standard"):
        assert np.isfinite(state.scaled(np.array([1.0, largest, -largest]), scaling)).all()
    assert np.ptp(state.scaled(np.array([1.0, 98.0]), "quantile")) > 3


def test_before_anything_was_learnt_places_come_from_a_hash():
    blank = ColumnState(kind="category")
    assert blank.place("a") == blank.place("a") >= 2
    assert blank.place(None) == MISSING
    assert blank.place("\ud800") >= 2  # half of a character, as JSON may hold it
    np.testing.assert_allclose(
        ColumnState(kind="number").scaled(np.array([0.0, 1.0]), "quantile"), [0, np.arcsinh(1)]
    )


@pytest.mark.parametrize("text", [None, "", "old", "nan", "inf", "-1e999", "0x1f"])
def test_what_is_no_finite_number_is_none(text):
    assert np.isnan(number_in(text))


def test_a_table_gives_the_records_that_its_rows_would():
    frame = pd.DataFrame(
        {"b": ["1", " x ", None, 'é"\\', " "], "a": ["34.0", "", None, "1e5", "日"]}, dtype=object
    )
    assert records_of(frame) == [record_of(row) for row in frame.to_dict("records")]
    assert json.loads(records_of(frame)[1]) == {"a": None, "b": "x"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not a JSON object"),
        ("3", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"c": 1}', "no such column: 'c'; there are a, b"),
        ('{"a": [1]}', "'a' is no text, number or null"),
    ],
)
def test_what_is_no_record_says_why(content, says):
    with pytest.raises(SourceError, match=says):
        fields_of(content, ("a", "b"))


def test_numbers_and_texts_in_a_request_are_the_same_value():
    assert fields_of('{"a": 34, "b": "34.0 "}', ("a", "b")) == {"a": "34", "b": "34.0"}
    assert fields_of('{"a": 34.0}', ("a", "b")) == {"a": "34", "b": None}
