from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import distribution
from components.distribution import (
    Distribution,
    distributions_of,
    effective_category_rows,
    effective_rows,
)

VALUES = st.lists(st.floats(width=32) | st.integers(-3, 3).map(float), max_size=50).map(np.array)


@given(VALUES, VALUES)
def test_batches_and_merged_parts_give_the_values_of_the_whole(first, second):
    whole = Distribution(np.concatenate([first, second]))
    batches = Distribution(first)
    batches.update(second)
    merged = Distribution(first)
    merged.merge(Distribution(second))
    finite = np.isfinite(whole_values := np.concatenate([first, second]).astype(np.float64))
    for found in (whole, batches, merged):
        np.testing.assert_array_equal(found.values, np.sort(whole_values[finite]))
        assert (found.rows, found.missing) == (finite.sum(), (~finite).sum())
        assert found.rank_error == 0
        back = Distribution.from_tensor(found.to_tensor(), found.missing)
        np.testing.assert_array_equal(back.values, found.values)
        assert (back.rows, back.missing) == (found.rows, found.missing)


@pytest.fixture
def small_bound(monkeypatch):
    monkeypatch.setattr(distribution, "EXACT_VALUES", 1000)


def largest_rank_error(found, values):
    """How far the distribution function of a sketch is from that of its values."""
    places = np.searchsorted(np.sort(values), found.values, side="right") / len(values)
    return np.abs(places - (np.arange(len(places)) + 0.5) / len(places)).max()


@pytest.mark.parametrize("parts", [1, 7])
def test_above_the_bound_ranks_are_wrong_by_no_more_than_is_stated(small_bound, parts):
    values = np.random.default_rng(0).exponential(size=60_000)
    found = Distribution()
    for number, part in enumerate(np.array_split(values, parts)):
        if number % 2:
            found.merge(Distribution(part))
        else:
            found.update(part)
    assert found.rows == len(values)
    assert 0 < found.rank_error < 0.003
    assert largest_rank_error(found, values) <= found.rank_error + 1e-4
    assert len(found.to_tensor()) < 50_000
    back = Distribution.from_tensor(found.to_tensor())
    assert back.rows == found.rows
    np.testing.assert_array_equal(back.values, found.values)


def test_an_exact_distribution_takes_in_a_sketch_and_the_other_way_round(small_bound):
    few, many = np.arange(300.0), np.arange(300.0, 5300.0)
    for first, second in ((few, many), (many, few)):
        found = Distribution(first)
        found.merge(Distribution(second))
        assert found.rows == 5300
        assert largest_rank_error(found, np.arange(5300.0)) <= found.rank_error + 1e-4


def test_columns_are_read_from_parquet_in_batches(tmp_path):
    generator = np.random.default_rng(0)
    files, parts = [], []
    for number in range(2):
        part = {"a": generator.normal(size=500), "b": generator.integers(0, 5, 500)}
        table = pa.table({**part, "c": ["x"] * 500})
        pq.write_table(table, tmp_path / f"{number}.parquet")
        files.append(tmp_path / f"{number}.parquet")
        parts.append(part)
    found = distributions_of(files, ["a", "b"], batch_rows=128)
    for name in ("a", "b"):
        expected = np.sort(np.concatenate([part[name] for part in parts]))
        np.testing.assert_array_equal(found[name].values, expected)


def test_a_missing_number_in_parquet_is_counted(tmp_path):
    pq.write_table(pa.table({"a": [1.0, None, 3.0]}), tmp_path / "a.parquet")
    found = distributions_of([tmp_path / "a.parquet"], ["a"])["a"]
    assert (found.rows, found.missing) == (2, 1)


def test_rows_without_groups_are_all_independent():
    values = np.random.default_rng(0).normal(size=50)
    assert effective_rows(values, None) == effective_rows(values, np.arange(50)) == 50


def test_rows_of_one_group_are_worth_one():
    assert effective_rows(np.arange(20.0), np.zeros(20, np.int64)) == 1


def test_categories_are_worth_as_many_rows_as_documents_if_each_has_one():
    groups = np.repeat(np.arange(40), 5)
    kinds = np.random.default_rng(0).choice(["de", "en", "fr"], 40)[groups]
    assert effective_category_rows(kinds.tolist(), groups) == pytest.approx(40)
    assert effective_category_rows(kinds.tolist(), None) == 200
    assert effective_category_rows([], groups[:0]) == 0


@pytest.mark.parametrize(("within", "expected"), [(0.0, 1000), (0.5, 1000 / 5.5), (1.0, 100)])
def test_rows_are_worth_less_the_more_alike_a_group_is(within, expected):
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(100), 10)
    found = []
    for _ in range(20):
        common, own = generator.normal(size=100)[groups], generator.normal(size=1000)
        values = np.sqrt(within) * common + np.sqrt(1 - within) * own
        found.append(effective_rows(values, groups))
    assert np.mean(found) == pytest.approx(expected, rel=0.15)
