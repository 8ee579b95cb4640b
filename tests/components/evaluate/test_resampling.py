"""Swapped models: exact for few groups, and silent about none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from components.evaluate.resampling import permutation_test


def test_permutations_are_those_of_all_signs():
    added = np.array([3.0, -1, 0.5, 2, 0, -0.25, 1])
    sums = [np.dot(signs, added) for signs in itertools.product((1, -1), repeat=7)]
    (above,), (below,) = permutation_test(added[:, None], seed=0)
    assert above == pytest.approx(np.mean(np.array(sums) >= added.sum()), abs=0.012)
    assert below == pytest.approx(np.mean(np.array(sums) <= added.sum()), abs=0.012)


def test_without_contributions_nothing_is_shown():
    above, below = permutation_test(np.zeros((5, 2)), seed=0)
    assert above.tolist() == below.tolist() == [1, 1]
