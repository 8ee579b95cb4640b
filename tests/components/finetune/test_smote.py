from __future__ import annotations

import numpy as np
import pytest
import torch

from components.finetune.config import FinetuneConfig
from components.finetune.core import finetune
from components.finetune.history import Silent
from components.finetune.smote import NEIGHBOURS, blended, neighbours, synthetic_share

TARGETS = np.array([0] * 40 + [1] * 8 + [2])
FEATURES = torch.from_numpy(np.random.default_rng(0).normal(size=(49, 3)).astype(np.float32))


def test_neighbours_are_the_nearest_of_the_same_class():
    near = neighbours(FEATURES, TARGETS)
    for row in range(48):
        same = [other for other in np.flatnonzero(TARGETS[row] == TARGETS) if other != row]
        by_distance = sorted(
            same, key=lambda other: float((FEATURES[row] - FEATURES[other]).norm())
        )
        assert near[row].tolist() == by_distance[:NEIGHBOURS]
    assert near[48].tolist() == [48] * NEIGHBOURS


def test_few_rows_of_a_class_repeat_as_neighbours():
    near = neighbours(FEATURES[:3], np.array([0, 0, 0]))
    assert set(near[0].tolist()) == {1, 2}


def test_new_rows_lie_between_two_of_a_rare_class_and_the_commonest_stays():
    near, share = neighbours(FEATURES, TARGETS), synthetic_share(TARGETS)
    assert share[[0, 40, 48]].tolist() == [0.0, 0.8, 0.975]
    rows = np.resize(np.arange(40, 48), 4000)
    made = blended(FEATURES.__getitem__, rows, near, share, np.random.default_rng(1))
    moved = [not torch.equal(each, FEATURES[row]) for each, row in zip(made, rows, strict=True)]
    assert np.mean(moved) == pytest.approx(0.8, abs=0.03)
    low, high = FEATURES[40:48].min(0).values, FEATURES[40:48].max(0).values
    assert all(bool(((each >= low) & (each <= high)).all()) for each in made)
    common = blended(FEATURES.__getitem__, np.arange(40), near, share, np.random.default_rng(1))
    assert torch.equal(torch.stack(common), FEATURES[:40])


def test_smote_needs_features_that_rest():
    with pytest.raises(ValueError, match="use weights or over with method full"):
        FinetuneConfig(balance="smote")


def test_a_head_learns_from_new_rows_and_the_same_twice(toy, tmp_path):
    config = toy.training.model_copy(update={"method": "head", "balance": "smote"})
    reports = [
        finetune(toy.first, toy.start, None, tmp_path / name, toy.task, config, {}, Silent())
        for name in ("a", "b")
    ]
    assert reports[0].bundle == reports[1].bundle
    assert reports[0].scores["accuracy"] > 0.8
    plain = config.model_copy(update={"balance": "none"})
    other = finetune(toy.first, toy.start, None, tmp_path / "c", toy.task, plain, {}, Silent())
    assert other.bundle != reports[0].bundle
