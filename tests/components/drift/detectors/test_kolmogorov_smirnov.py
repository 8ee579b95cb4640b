from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstwo

from components.drift.detectors.kolmogorov_smirnov import (
    EXACT_ROWS,
    kolmogorov_smirnov,
    ks_p_value,
)

# Few different values, so that most of them are ties.
SAMPLES = st.lists(
    st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=60
).map(np.array)


@given(SAMPLES, SAMPLES)
def test_equals_scipy_exactly_with_and_without_ties(reference, current):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = ks_2samp(reference, current)
    found = kolmogorov_smirnov(np.sort(reference), current)
    assert found.statistic == found.effect == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("discrete", [False, True])
def test_equals_scipys_approximation_of_large_samples(discrete):
    generator = np.random.default_rng(0)
    reference = generator.normal(size=EXACT_ROWS + 1)
    current = generator.normal(0.03, size=5000)
    if discrete:
        reference, current = np.round(reference, 1), np.round(current, 1)
    expected = ks_2samp(reference, current)
    found = kolmogorov_smirnov(np.sort(reference), current)
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


@given(SAMPLES, st.randoms(use_true_random=False))
def test_a_sample_has_no_distance_from_itself_in_any_order(sample, random):
    shuffled = sample.tolist()
    random.shuffle(shuffled)
    found = kolmogorov_smirnov(np.sort(sample), np.array(shuffled))
    assert (found.statistic, found.p_value) == (0.0, 1.0)


@given(SAMPLES, SAMPLES)
def test_samples_can_change_places(reference, current):
    there = kolmogorov_smirnov(np.sort(reference), current)
    back = kolmogorov_smirnov(np.sort(current), reference)
    assert there.statistic == pytest.approx(back.statistic, abs=1e-12)
    assert there.p_value == pytest.approx(back.p_value, rel=1e-9)


def test_disjoint_samples_are_as_far_apart_as_can_be():
    found = kolmogorov_smirnov(np.arange(50.0), np.arange(50.0) + 100)
    assert found.statistic == 1
    assert found.p_value < 1e-12


def test_fewer_independent_rows_make_the_same_distance_less_significant():
    reference, current = np.arange(400.0), np.arange(400.0) + 40
    alone = kolmogorov_smirnov(reference, current)
    grouped = kolmogorov_smirnov(reference, current, reference_rows=100, current_rows=80)
    assert grouped.statistic == alone.statistic
    assert grouped.p_value == ks_p_value(alone.statistic, 100, 80) > alone.p_value


@pytest.mark.parametrize("rows", [400, 2500, 60_000, 150_000])
@pytest.mark.parametrize("scale", [0.3, 1.0, 1.48, 1.49, 2.0, 4.0, 12.0, 18.0])
def test_the_approximation_is_scipys_from_certain_to_impossible(rows, scale):
    distance = scale / np.sqrt(rows)
    expected = kstwo.sf(distance, rows)
    assert ks_p_value(distance, 2 * rows, 2 * rows) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_empty_samples_are_refused():
    for reference, current in [(np.zeros(0), np.zeros(1)), (np.zeros(1), np.zeros(0))]:
        with pytest.raises(ValueError, match="both samples"):
            kolmogorov_smirnov(reference, current)
