from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.drift.page_hinkley import page_hinkley


def by_the_book(values, delta, threshold, min_values, prior_mean, prior_count):
    """The test as Page's cumulative sum is usually written, one value after the other."""
    total = mean_of = lowest = 0.0
    count, statistic, alarm = prior_count, [], None
    mean_of = prior_mean
    for index, value in enumerate(values):
        count += 1
        mean_of += (value - mean_of) / count
        total += value - mean_of - delta
        lowest = total if index == 0 else min(lowest, total)
        statistic.append(total - lowest)
        if alarm is None and index + 1 >= min_values and statistic[-1] > threshold:
            alarm = index
    return alarm, statistic


@given(
    st.lists(st.floats(0, 1), max_size=120),
    st.floats(0, 0.3),
    st.floats(0.1, 10),
    st.integers(1, 50),
    st.floats(0, 1),
    st.integers(0, 100),
)
def test_equals_the_test_by_the_book(values, delta, threshold, min_values, prior_mean, prior_count):
    alarm, statistic = page_hinkley(
        np.array(values),
        delta=delta,
        threshold=threshold,
        min_values=min_values,
        prior_mean=prior_mean,
        prior_count=prior_count,
    )
    expected_alarm, expected = by_the_book(
        values, delta, threshold, min_values, prior_mean, prior_count
    )
    np.testing.assert_allclose(statistic, expected, atol=1e-9)
    if all(abs(each - threshold) > 1e-9 for each in expected):
        assert alarm == expected_alarm


def test_the_delay_is_threshold_over_the_rise_beyond_the_tolerance():
    # A prior that weighs so much does not move: each error adds 1 - 0.2 - 0.05.
    for threshold in (20, 40, 80):
        alarm, _ = page_hinkley(
            np.ones(300), delta=0.05, threshold=threshold, prior_mean=0.2, prior_count=10**9
        )
        assert alarm == max(29, int(threshold / 0.75) + 1)


def test_only_the_prior_shows_that_a_stream_was_bad_from_the_start():
    bad = np.tile([1.0, 0.0], 200)
    assert page_hinkley(bad, delta=0.05, threshold=20)[0] is None
    alarm, _ = page_hinkley(bad, delta=0.05, threshold=20, prior_mean=0.1, prior_count=300)
    assert alarm is not None


def test_a_falling_mean_raises_no_alarm():
    falling = np.concatenate([np.ones(200), np.zeros(200)])
    assert page_hinkley(falling, delta=0.05, threshold=5, prior_mean=1, prior_count=100)[0] is None


def test_no_alarm_comes_before_the_least_number_of_values():
    def alarm(min_values):
        return page_hinkley(
            np.ones(100),
            delta=0,
            threshold=2,
            min_values=min_values,
            prior_count=1000,
        )[0]

    assert alarm(1) == 3
    assert alarm(30) == 29


def test_an_empty_stream_is_quiet():
    alarm, statistic = page_hinkley(np.zeros(0), delta=0.05, threshold=20)
    assert alarm is None
    assert statistic.shape == (0,)


@pytest.mark.parametrize(("rate", "least", "most"), [(0.2, 0, 3), (0.4, 98, 100)])
def test_with_the_defaults_a_steady_stream_is_quiet_and_a_doubled_error_rate_is_seen(
    rate, least, most
):
    alarms = 0
    for seed in range(100):
        errors = (np.random.default_rng(seed).random(600) < rate).astype(float)
        alarm, _ = page_hinkley(errors, delta=0.05, threshold=20, prior_mean=0.2, prior_count=300)
        alarms += alarm is not None
    assert least <= alarms <= most
