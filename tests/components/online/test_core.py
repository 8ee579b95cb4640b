"""Does a head learn, serve once it has won, and fall back once it has lost?"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from components.online.core import OnlineConfig, Progress, Records, follow
from components.online.head import Head

WIDTH = 12


def _errors(targets, outputs):
    return (outputs.argmax(1) != targets).astype(np.float64)


def _world(seed, rows, turned=False):
    """Records of three classes around three places, which may have changed names."""
    generator = np.random.default_rng(seed)
    places = np.random.default_rng(99).normal(size=(3, WIDTH))
    targets = generator.integers(0, 3, rows)
    features = places[targets] + 0.7 * generator.normal(size=(rows, WIDTH))
    return features, (targets + 1) % 3 if turned else targets


@pytest.fixture(scope="module")
def champion():
    model = LogisticRegression(max_iter=500).fit(*_world(0, 2000))
    return Head.copy_of(model.coef_, model.intercept_)


def _followed(champion, *worlds, learnable=True, **config):
    head, progress = Head.copy_of(champion.weights, champion.bias), Progress()
    for features, targets in worlds:
        records = Records(features, targets, np.full(len(targets), learnable))
        progress = follow(head, champion, progress, records, _errors, OnlineConfig(**config))
    return head, progress


def test_a_head_that_is_no_better_seldom_serves(champion):
    served = [_followed(champion, _world(seed, 1500))[1].serves for seed in range(1, 41)]
    assert sum(served) <= 3


def test_a_head_serves_once_the_concept_has_turned_and_errs_less_from_then(champion):
    _, progress = _followed(champion, _world(1, 500), _world(2, 2000, turned=True))
    assert progress.serves
    assert [each.to for each in progress.changes] == ["head"]
    assert 500 < progress.changes[0].row < 1000
    assert progress.served_error < 0.6 * progress.champion_error
    assert progress.rows == progress.learnt == 2500


def test_a_head_falls_back_and_begins_as_the_champion_when_the_world_turns_back(champion):
    head, config = Head.copy_of(champion.weights, champion.bias), OnlineConfig()
    progress = Progress()
    # What is not learnt from cannot be learnt anew, as if the head were too slow.
    for world, learnable in ((_world(2, 2000, turned=True), True), (_world(3, 100), False)):
        features, targets = world
        records = Records(features, targets, np.full(len(targets), learnable))
        progress = follow(head, champion, progress, records, _errors, config)
    assert [each.to for each in progress.changes] == ["head", "champion"]
    assert progress.changes[1].row < 2050
    assert not progress.serves
    np.testing.assert_array_equal(head.weights, champion.weights)


def test_a_head_that_is_as_good_as_the_champion_goes_on_serving(champion):
    head = Head.copy_of(champion.weights, champion.bias)
    features, targets = _world(7, 3000)
    records = Records(features, targets, np.full(3000, True))
    progress = follow(head, champion, Progress(serves=True), records, _errors, OnlineConfig())
    assert progress.changes == ()


def test_how_records_are_parted_changes_nothing(champion):
    features, targets = _world(5, 900, turned=True)
    whole = _followed(champion, (features, targets))
    parts = _followed(
        champion, *((features[at : at + 7], targets[at : at + 7]) for at in range(0, 900, 7))
    )
    np.testing.assert_array_equal(whole[0].weights, parts[0].weights)
    assert whole[1].changes == parts[1].changes
    assert whole[1].champion_error == pytest.approx(parts[1].champion_error)


def test_rows_that_may_not_be_learnt_from_are_answered_only(champion):
    head, progress = _followed(champion, _world(6, 300, turned=True), learnable=False)
    np.testing.assert_array_equal(head.weights, champion.weights)
    assert (progress.rows, progress.learnt, progress.serves) == (300, 0, False)
