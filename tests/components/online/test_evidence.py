"""Does evidence keep its level however often one looks, and grow where there is a gain?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.online.evidence import Evidence


def _looked_at_always(gains):
    evidence = Evidence()
    for gain in gains:
        evidence = evidence.after(gain)
    return evidence


@pytest.mark.parametrize("disagreeing", [0.02, 0.2, 1.0])
def test_without_a_gain_it_is_wrong_no_more_often_than_said_over_all_looks(disagreeing):
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        moved = generator.random(1000) < disagreeing
        gains = np.where(moved, generator.choice([-1.0, 1.0], 1000), 0.0)
        wrong += _looked_at_always(gains.tolist()).p_value <= 0.05
    # 400 draws at 5 % exceed 7.8 % once in a hundred times.
    assert wrong <= 31


def test_a_gain_of_ten_points_shows_within_a_thousand_records():
    generator = np.random.default_rng(1)
    shown = 0
    for _ in range(50):
        gains = generator.choice([1.0, -1.0, 0.0], 1000, p=[0.2, 0.1, 0.7])
        shown += _looked_at_always(gains.tolist()).p_value <= 0.05
    assert shown >= 45


@given(st.lists(st.floats(-1, 1), max_size=200))
def test_capital_is_never_lost_and_a_p_value_is_one(gains):
    evidence = _looked_at_always(gains)
    assert np.isfinite(evidence.log_capital)
    assert 0 < evidence.p_value <= 1
    assert Evidence.from_json(evidence.to_json()) == evidence


def test_with_restarts_a_late_gain_shows_and_without_one_alarms_are_as_rare_as_said():
    generator = np.random.default_rng(2)
    alarms, threshold = 0, np.log(1000)
    for _ in range(20):
        evidence = Evidence()
        for gain in generator.choice([-1.0, 1.0], 3000).tolist():
            evidence = evidence.after(gain, restarts=True)
            if evidence.highest >= threshold:
                alarms, evidence = alarms + 1, Evidence()
    # 60,000 records hold 60 alarms at the most that is said.
    assert alarms <= 60
    evidence = Evidence()
    for gain in [-1.0] * 2000 + [1.0] * 60:
        evidence = evidence.after(gain, restarts=True)
    assert evidence.highest >= threshold
