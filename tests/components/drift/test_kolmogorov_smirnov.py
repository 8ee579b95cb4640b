from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from components.drift.kolmogorov_smirnov import kolmogorov_smirnov

# Few different values, so that most of them are ties.
SAMPLES = st.lists(
    st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6), min_size=2, max_size=60
).map(np.array)


@given(SAMPLES, SAMPLES)
def test_equals_scipy_with_and_without_ties(reference, current):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = ks_2samp(reference, current, method="asymp")
    distance, p_value = kolmogorov_smirnov(np.sort(reference), current)
    assert distance == pytest.approx(expected.statistic, abs=1e-12)
    assert p_value == pytest.approx(expected.pvalue, abs=1e-9)


@given(SAMPLES, st.randoms(use_true_random=False))
def test_a_sample_has_no_distance_from_itself_in_any_order(sample, random):
    shuffled = sample.tolist()
    random.shuffle(shuffled)
    assert kolmogorov_smirnov(np.sort(sample), np.array(shuffled)) == (0.0, 1.0)


@given(SAMPLES, SAMPLES)
def test_samples_can_change_places(reference, current):
    there = kolmogorov_smirnov(np.sort(reference), current)
    back = kolmogorov_smirnov(np.sort(current), reference)
    assert there == pytest.approx(back, abs=1e-12)


def test_disjoint_samples_are_as_far_apart_as_can_be():
    distance, p_value = kolmogorov_smirnov(np.arange(50.0), np.arange(50.0) + 100)
    assert distance == 1
    assert p_value < 1e-12


def test_a_small_p_value_is_as_rare_as_it_says():
    generator = np.random.default_rng(0)
    p_values = np.array(
        [
            kolmogorov_smirnov(np.sort(generator.normal(size=200)), generator.normal(size=150))[1]
            for _ in range(600)
        ]
    )
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=0.03)


def test_empty_samples_are_refused():
    for reference, current in [(np.zeros(0), np.zeros(1)), (np.zeros(1), np.zeros(0))]:
        with pytest.raises(ValueError, match="both samples"):
            kolmogorov_smirnov(reference, current)
