from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.finetune.batches import (
    Examples,
    class_weights,
    epoch_rows,
    prefetched,
    step_rows,
)

lengths_of_rows = st.lists(st.integers(1, 30), min_size=1, max_size=80)


@given(lengths_of_rows, st.integers(1, 9), st.integers(0, 9))
def test_every_row_is_in_one_step(lengths, batch_rows, seed):
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(lengths))
    steps = step_rows(order, np.array(lengths), batch_rows, None, chance)
    assert all(0 < len(rows) <= batch_rows for rows in steps)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))


@given(lengths_of_rows, st.integers(16, 64), st.integers(0, 9))
def test_a_step_holds_as_many_rows_as_fit_into_its_tokens(lengths, batch_tokens, seed):
    chance = np.random.default_rng(seed)
    lengths = np.array(lengths)
    steps = step_rows(chance.permutation(len(lengths)), lengths, 1, batch_tokens, chance)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    for rows in steps:
        assert len(rows) * lengths[rows].max() <= batch_tokens or len(rows) == 1


def test_rows_of_like_length_share_a_step():
    lengths = np.random.default_rng(0).integers(1, 100, 512)
    chance = np.random.default_rng(0)
    steps = step_rows(chance.permutation(512), lengths, 16, None, chance)
    padded = sum(len(rows) * lengths[rows].max() for rows in steps)
    assert padded < 1.25 * lengths.sum()
    widths = [int(lengths[rows].max()) for rows in steps]
    assert widths != sorted(widths), "length says nothing about the order"
    assert widths != sorted(widths, reverse=True)


TARGETS = np.array([0] * 60 + [1] * 30 + [2] * 10)


@pytest.mark.parametrize(("balance", "count"), [("over", 60), ("under", 10)])
def test_sampling_makes_classes_as_many(balance, count):
    rows = epoch_rows(TARGETS, balance, np.random.default_rng(0))
    assert np.bincount(TARGETS[rows]).tolist() == [count] * 3
    if balance == "over":
        assert set(rows.tolist()) == set(range(100)), "no row is lost"
    else:
        assert len(set(rows.tolist())) == len(rows), "no row comes twice"


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_without_sampling_every_row_comes_once(balance):
    rows = epoch_rows(TARGETS, balance, np.random.default_rng(0))
    assert sorted(rows.tolist()) == list(range(100))


def test_weighted_classes_weigh_the_same_and_a_row_one_on_average():
    weights = class_weights(TARGETS, "weights")
    totals = [weights[each == TARGETS].sum() for each in range(3)]
    np.testing.assert_allclose(totals, 100 / 3, rtol=1e-6)
    assert weights.mean() == pytest.approx(1)
    assert class_weights(TARGETS, "none").tolist() == [1] * 100


def test_chosen_rows_stay_together():
    rows = Examples(list("abc"), [np.array([i]) for i in range(3)], np.array([5, 6, 7]))
    few = rows.where(np.array([True, False, True]))
    assert (few.contents, few.targets.tolist(), len(few)) == (["a", "c"], [5, 7], 2)
    assert [int(each[0]) for each in few.examples] == [0, 2]


def test_what_is_loaded_ahead_comes_in_order_and_errors_come_through():
    assert list(prefetched(iter(range(20)), lambda number: number * 2)) == list(range(0, 40, 2))

    def fails(number):
        if number == 3:
            raise RuntimeError("no more")
        return number

    with pytest.raises(RuntimeError, match="no more"):
        list(prefetched(iter(range(9)), fails))
