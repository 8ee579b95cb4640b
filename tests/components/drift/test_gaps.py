"""Does a kind of row that falls behind show, and is all quiet where none does?"""

from __future__ import annotations

import numpy as np
import pytest

from components.drift.gaps import MIN_ROWS, fallen_behind
from components.profile import errors_by_kind

KINDS = ("de", "fr", "jp")


def _rows(rates: dict[str, float], rows: int, generator: np.random.Generator):
    kinds = generator.choice(KINDS, rows).tolist()
    errors = (generator.random(rows) < [rates[kind] for kind in kinds]).astype(np.float64)
    return kinds, errors


@pytest.mark.parametrize("rise", [0.0, 0.3])
def test_gaps_that_stay_as_they_were_raise_no_more_alarms_than_said(rise):
    generator = np.random.default_rng(0)
    before = {"de": 0.1, "fr": 0.2, "jp": 0.3}
    now = {kind: rate + rise for kind, rate in before.items()}
    alarms = 0
    for _ in range(1000):
        then = errors_by_kind(*_rows(before, 600, generator))
        kinds, errors = _rows(now, 600, generator)
        found = fallen_behind(then, kinds, errors, np.arange(600))
        assert found is not None
        alarms += found[1].p_value <= 0.05
    # 1000 draws at 5 % exceed 6.6 % once in a hundred times.
    assert alarms <= 66


def test_the_kind_that_falls_behind_is_named():
    generator = np.random.default_rng(1)
    then = errors_by_kind(*_rows(dict.fromkeys(KINDS, 0.1), 900, generator))
    kinds, errors = _rows({"de": 0.1, "fr": 0.1, "jp": 0.35}, 900, generator)
    behind = fallen_behind(then, kinds, errors, np.arange(900))
    assert behind is not None
    kind, found = behind
    assert kind == "jp"
    assert found.effect == pytest.approx(0.25, abs=0.08)
    assert found.p_value < 1e-4


def test_rows_of_one_group_count_as_one():
    generator = np.random.default_rng(3)
    then = errors_by_kind(*_rows(dict.fromkeys(KINDS, 0.1), 900, generator))
    kinds, errors = ["jp"] * 45 + ["de"] * 855, np.array([1.0] * 45 + [0.0] * 855)
    groups = np.array([0] * 45 + list(range(1, 20)) * 45)
    assert fallen_behind(then, kinds, errors, groups) is None


def test_few_rows_say_nothing():
    then = {"de": (0.1, 500), "jp": (0.1, MIN_ROWS - 1)}
    kinds = ["de"] * 500 + ["jp"] * 100
    assert fallen_behind(then, kinds, np.zeros(600), np.arange(600)) is None
    assert fallen_behind({}, kinds, np.zeros(600), np.arange(600)) is None
