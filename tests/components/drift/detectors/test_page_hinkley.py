from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.drift.detectors.page_hinkley import PageHinkley


def by_the_book(values, test):
    """The test as Page's cumulative sum is usually written, one value after the other."""
    alarms, statistic = [], []
    count = 0
    for index, value in enumerate(values):
        if count == 0:
            mean, rise, fall, least, most = test.prior_mean, 0.0, 0.0, np.inf, -np.inf
        count += 1
        mean += (value - mean) / (count + test.prior_count)
        rise = test.alpha * rise + value - mean - test.delta
        fall = test.alpha * fall + value - mean + test.delta
        least, most = min(least, rise), max(most, fall)
        sides = {"up": rise - least, "down": most - fall}
        sides["both"] = max(sides.values())
        statistic.append(sides[test.direction])
        if count >= test.min_values and statistic[-1] > test.threshold:
            alarms.append(index)
            count = 0
    return alarms, statistic


TESTS = st.builds(
    PageHinkley,
    delta=st.floats(0, 0.3),
    threshold=st.floats(0.1, 10),
    min_values=st.integers(1, 50),
    alpha=st.sampled_from([1.0, 0.9999, 0.9]),
    direction=st.sampled_from(["up", "down", "both"]),
    prior_mean=st.floats(0, 1),
    prior_count=st.integers(0, 100),
)


@settings(deadline=None)  # the first example imports scipy.signal
@given(st.lists(st.floats(0, 1), max_size=300), TESTS)
def test_equals_the_test_by_the_book(values, test):
    again = PageHinkley.restore(test.state())
    alarms, statistic = test.look(np.array(values))
    expected_alarms, expected = by_the_book(values, test)
    if all(abs(each - test.threshold) > 1e-9 for each in expected):
        np.testing.assert_allclose(statistic, expected, atol=1e-9)
        assert alarms == expected_alarms
        assert again.update_many(np.array([values]))[0] == expected_alarms


@pytest.mark.parametrize("direction", ["up", "down", "both"])
@pytest.mark.parametrize(("threshold", "alpha"), [(50, 1 - 0.0001), (5, 0.99)])
def test_raises_alarms_where_river_does(direction, threshold, alpha):
    from river.drift import PageHinkley as Peer

    streams = np.random.default_rng(0).normal(size=(10, 1000))
    streams[:, 500:] += np.linspace(-2, 2, 10)[:, None]
    expected = []
    for stream in streams:
        peer = Peer(threshold=threshold, alpha=alpha, mode=direction)
        alarms = []
        for index, value in enumerate(stream):
            peer.update(value)
            if peer.drift_detected:
                alarms.append(index)
        expected.append(alarms)
    assert sum(map(len, expected)) > 3
    parameters = {"threshold": threshold, "alpha": alpha, "direction": direction}
    assert PageHinkley(**parameters, streams=10).update_many(streams) == expected
    assert [PageHinkley(**parameters).update(stream) for stream in streams] == expected


@given(st.lists(st.floats(0, 1), min_size=2, max_size=200), st.integers(1, 199))
def test_carries_on_where_an_earlier_window_ended(values, cut):
    cut = min(cut, len(values))
    whole = PageHinkley(threshold=1.7, delta=0.013, min_values=10)
    first = PageHinkley(threshold=1.7, delta=0.013, min_values=10)
    before = first.update(np.array(values[:cut]))
    second = PageHinkley.restore(json.loads(json.dumps(first.state())))
    after = second.update(np.array(values[cut:]))
    assert [*before, *(cut + alarm for alarm in after)] == whole.update(np.array(values))
    many = PageHinkley(threshold=1.7, delta=0.013, min_values=10, streams=3)
    both = [many.update_many(np.array([part] * 3)) for part in (values[:cut], values[cut:])]
    assert both == [[before] * 3, [after] * 3]


def first_alarm(values, **parameters):
    return next(iter(PageHinkley(**parameters).update(values)), None)


def test_the_delay_is_threshold_over_the_rise_beyond_the_tolerance():
    # A prior that weighs so much does not move: each error adds 1 - 0.2 - 0.05.
    for threshold in (20, 40, 80):
        alarm = first_alarm(
            np.ones(300), delta=0.05, threshold=threshold, prior_mean=0.2, prior_count=10**9
        )
        assert alarm == max(29, int(threshold / 0.75) + 1)


def test_only_the_prior_shows_that_a_stream_was_bad_from_the_start():
    bad = np.tile([1.0, 0.0], 200)
    assert first_alarm(bad, delta=0.05, threshold=20) is None
    assert first_alarm(bad, delta=0.05, threshold=20, prior_mean=0.1, prior_count=300) is not None


def test_a_falling_mean_raises_no_alarm_unless_it_is_looked_for():
    falling = np.concatenate([np.ones(200), np.zeros(200)])
    known = {"delta": 0.05, "threshold": 5, "prior_mean": 1, "prior_count": 100}
    assert first_alarm(falling, **known) is None
    for direction in ("down", "both"):
        assert first_alarm(falling, **known, direction=direction) > 200


def test_no_alarm_comes_before_the_least_number_of_values():
    for min_values, expected in ((1, 3), (30, 29)):
        found = first_alarm(
            np.ones(100), delta=0, threshold=2, min_values=min_values, prior_count=1000
        )
        assert found == expected


def test_an_empty_stream_is_quiet():
    alarms, statistic = PageHinkley().look(np.zeros(0))
    assert alarms == []
    assert statistic.shape == (0,)


def test_streams_that_are_too_many_or_too_few_are_refused():
    with pytest.raises(ValueError, match="values of 2 streams are needed, not 3"):
        PageHinkley(streams=2).update_many(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="update_many"):
        PageHinkley(streams=2).update(np.zeros(4))


@pytest.mark.parametrize(("rate", "least", "most"), [(0.2, 0, 3), (0.4, 98, 100)])
def test_with_the_defaults_a_steady_stream_is_quiet_and_a_doubled_error_rate_is_seen(
    rate, least, most
):
    streams = np.stack([np.random.default_rng(seed).random(600) < rate for seed in range(100)])
    test = PageHinkley(delta=0.05, threshold=20, prior_mean=0.2, prior_count=300, streams=100)
    assert least <= sum(map(bool, test.update_many(streams))) <= most
