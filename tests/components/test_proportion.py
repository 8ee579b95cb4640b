from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from components.proportion import lower_bound, upper_bound


@given(st.integers(1, 300), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_bounds_are_scipys_exact_interval(rows, data, confidence):
    hits = data.draw(st.integers(0, rows))
    both_sides = 2 * confidence - 1
    exact = binomtest(hits, rows).proportion_ci(confidence_level=both_sides, method="exact")
    assert lower_bound(hits, rows, confidence) == pytest.approx(exact.low, abs=1e-9)
    assert upper_bound(hits, rows, confidence) == pytest.approx(exact.high, abs=1e-9)


def test_a_bound_is_missed_no_more_often_than_stated():
    for share in (0.02, 0.3, 0.97):
        for rows in (5, 40, 200):
            hits = np.arange(rows + 1)
            missed = lower_bound(hits, rows, 0.95) > share
            assert binom.pmf(hits[missed], rows, share).sum() <= 0.05


def test_without_rows_nothing_is_known():
    assert lower_bound(0, 0, 0.95) == 0
    assert upper_bound(0, 0, 0.95) == 1
