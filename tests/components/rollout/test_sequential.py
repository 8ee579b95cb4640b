from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from components.rollout.sequential import (
    LEAST_SAMPLES,
    Moments,
    excess_evidence,
    is_alarm,
    share_evidence,
)

ALPHA, LIMIT = 0.05, 0.02


def alarmed_share(rate: float, runs: int, length: int) -> float:
    """Return the share of streams that raise an alarm when looked at after every event."""
    draw = np.random.default_rng(5)
    alarms = 0
    for _ in range(runs):
        events = np.flatnonzero(draw.random(length) < rate)
        # The evidence grows at events only, so these are all the looks that can matter.
        alarms += any(
            is_alarm(share_evidence(count, int(place) + 1, LIMIT), ALPHA)
            for count, place in enumerate(events, 1)
        )
    return alarms / runs


def moments(values):
    return Moments(len(values), float(values.sum()), float((values**2).sum()))


def slow_share(slowdown: float, runs: int, length: int) -> tuple[float, float]:
    """Return the share of runs with an alarm, and the median look at which it came."""
    draw = np.random.default_rng(6)
    seen = []
    for _ in range(runs):
        ours = np.log(draw.lognormal(2 + math.log(slowdown), 0.5, length))
        peer = np.log(draw.lognormal(2, 0.5, length))
        sums = [np.cumsum(each**power) for each in (ours, peer) for power in (1, 2)]
        for end in range(LEAST_SAMPLES, length, 10):
            a, a2, b, b2 = (float(each[end]) for each in sums)
            arms = Moments(end + 1, a, a2), Moments(end + 1, b, b2)
            if is_alarm(excess_evidence(*arms, math.log(1.5), math.log(1.25)), ALPHA):
                seen.append(end)
                break
    return len(seen) / runs, float(np.median(seen)) if seen else math.inf


def test_the_evidence_of_a_share_is_the_mixture_that_it_says_it_is():
    def mixed(count, total, limit):
        def density(share):
            return share ** (count - 0.5) * (1 - share) ** (total - count - 0.5)

        weight = quad(lambda share: share**-0.5 * (1 - share) ** -0.5, limit, 1)[0]
        null = limit**count * (1 - limit) ** (total - count)
        return quad(density, limit, 1)[0] / weight / null

    for count, total, limit in [(0, 5, 0.1), (3, 10, 0.2), (9, 10, 0.5)]:
        expected = math.log(mixed(count, total, limit))
        assert share_evidence(count, total, limit) == pytest.approx(expected, rel=1e-6)


def test_the_evidence_of_a_slowdown_is_the_mixture_that_it_says_it_is():
    draw = np.random.default_rng(0)
    ours, peer = moments(draw.normal(1.2, 1, 200)), moments(draw.normal(0, 1, 300))
    limit, scale = 1.0, 0.3
    variance = ours.variance / 200 + peer.variance / 300
    found = ours.mean - peer.mean

    def density(excess):
        likelihood = norm.pdf(found, limit + excess, math.sqrt(variance))
        return likelihood * 2 * norm.pdf(excess, 0, scale)

    expected = quad(density, 0, 5)[0] / norm.pdf(found, limit, math.sqrt(variance))
    assert excess_evidence(ours, peer, limit, scale) == pytest.approx(math.log(expected), abs=1e-3)


def test_looking_after_every_request_keeps_false_alarms_of_errors_below_alpha():
    assert alarmed_share(LIMIT, runs=250, length=800) <= ALPHA
    assert alarmed_share(LIMIT / 2, runs=250, length=800) <= ALPHA


@pytest.mark.parametrize("spread", ["alike", "skewed", "narrow"])
def test_requests_of_many_rows_keep_false_alarms_of_disagreement_below_alpha(spread):
    limit, draw, alarms, runs, length = 0.25, np.random.default_rng(5), 0, 600, 150
    looks = np.arange(1, length + 1)
    for _ in range(runs):
        rows = draw.integers(1, 257, length)
        if spread == "alike":  # all rows of a request are answered otherwise, or none
            shares = (draw.random(length) < limit).astype(float)
        elif spread == "skewed":
            shares = draw.binomial(rows, draw.beta(0.1, 0.3, length)) / rows
        else:
            shares = draw.binomial(rows, limit) / rows
        sums = np.cumsum(shares)
        # Only what grows and lies above the limit can be evidence.
        alarms += any(
            is_alarm(share_evidence(float(sums[each]), int(looks[each]), limit), ALPHA)
            for each in np.flatnonzero((shares > limit) & (sums > limit * looks))
        )
    assert alarms / runs <= ALPHA


def test_error_rates_above_the_limit_are_found():
    assert alarmed_share(2.5 * LIMIT, runs=60, length=1200) >= 0.95
    assert alarmed_share(10 * LIMIT, runs=60, length=150) >= 0.95


def test_looking_often_keeps_false_alarms_of_latency_below_alpha():
    assert slow_share(1.5, runs=80, length=500)[0] <= ALPHA
    assert slow_share(1.0, runs=20, length=300)[0] == 0


def test_slowdowns_above_the_limit_are_found_soon():
    found, looks = slow_share(2.0, runs=30, length=500)
    assert found == 1
    assert looks < 150
    assert slow_share(3.0, runs=30, length=500)[1] < looks


def test_without_requests_there_is_no_evidence():
    assert share_evidence(0, 0, 0.01) == 0
    assert excess_evidence(Moments(0, 0, 0), Moments(0, 0, 0), 0.1, 0.1) == 0
    few = moments(np.full(LEAST_SAMPLES - 1, 100.0))
    assert excess_evidence(few, moments(np.zeros(1000)), 0.1, 0.1) == 0


def test_extremes_stay_numbers_that_can_be_compared():
    assert share_evidence(0, 10**7, 0.5) < 0
    assert share_evidence(10**6, 10**6, 0.001) > 1e6
    alike = moments(np.full(1000, 2.0))
    assert excess_evidence(alike, alike, 0.1, 0.2) < 0
    assert is_alarm(excess_evidence(moments(np.full(1000, 3.0)), alike, 0.1, 0.2), 1e-6)


@pytest.mark.parametrize(
    ("count", "total", "limit"), [(3, 2, 0.1), (-1, 2, 0.1), (1, 2, 0), (1, 2, 1)]
)
def test_what_cannot_be_is_refused(count, total, limit):
    with pytest.raises(ValueError, match="cannot be"):
        share_evidence(count, total, limit)
