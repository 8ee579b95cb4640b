from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from components.drift.performance import estimated, measured, of_errors, reconciled
from components.profile import Answers


def answered(rows, seed, *, sure=2.0, stated=1.0, drift=0.0, classes=2):
    """Draw answers of a calibrated classifier.

    ``sure`` spreads the log odds; ``stated`` multiplies what is said and not what is so;
    ``drift`` turns so many answers wrong whatever they say.
    """
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, classes)) * sure
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    said = np.exp(stated * logits) / np.exp(stated * logits).sum(1, keepdims=True)
    targets = (true.cumsum(1) < generator.random((rows, 1))).sum(1)
    flipped = generator.random(rows) < drift
    targets = np.where(flipped, (said.argmax(1) + 1) % classes, targets)
    return Answers(said, said.argmax(1), targets, np.arange(rows))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("score", ["accuracy", "macro_f1"])
def test_what_is_measured_is_the_score_of_scikit_learn(score, classes):
    before, now = answered(500, 0, classes=classes), answered(400, 1, sure=1, classes=classes)
    found = measured(before, now, score, 0.05)
    peer = {"accuracy": accuracy_score, "macro_f1": lambda *a: f1_score(*a, average="macro")}[score]
    assert found.before == pytest.approx(peer(before.targets, before.decided))
    assert found.now == pytest.approx(peer(now.targets, now.decided))
    assert found.drop == pytest.approx((found.before - found.now) / found.before)
    assert (found.source, found.score, found.rows) == ("measured", score, 400)
    assert found.low < found.now < found.high


@pytest.mark.parametrize("score", ["accuracy", "macro_f1"])
@pytest.mark.parametrize("stated", [0.6, 1.0, 1.6])
def test_without_labels_the_performance_is_estimated_whatever_the_model_thinks_of_itself(
    score, stated
):
    """Inputs become harder to tell apart, and what they mean stays: CBPE's own case."""
    before = answered(2000, 0, stated=stated)
    held = []
    for seed, sure in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0)):
        now = answered(2000, seed, sure=sure, stated=stated)
        truth = measured(before, now, score, 0.05)
        found = estimated(before, now, score, 0.05)
        assert found.now == pytest.approx(truth.now, abs=0.035)
        assert found.source == "estimated"
        held.append(found.low <= truth.now <= found.high)
        assert found.hurts == (sure < 2)
    assert sum(held) >= 3


def test_an_estimate_does_not_look_at_the_labels():
    before, now = answered(500, 0), answered(500, 1, sure=1)
    turned = Answers(now.probabilities, now.decided, 1 - now.targets, now.groups)
    assert estimated(before, now, "accuracy", 0.05) == estimated(before, turned, "accuracy", 0.05)


def test_estimates_are_laid_beside_the_truth_which_shows_when_concepts_changed():
    before = answered(2000, 0)
    calm = reconciled("2026-01-12", before, answered(2000, 1, sure=1), "accuracy")
    assert calm.held
    assert calm.low <= calm.estimated <= calm.high
    other = reconciled("2026-01-19", before, answered(2000, 2, drift=0.3), "accuracy")
    assert not other.held
    assert other.measured < other.low


def test_nothing_hurts_where_nothing_changed():
    harms = [
        measured(answered(500, 2 * seed), answered(1000, 2 * seed + 1), "accuracy", 0.05).hurts
        for seed in range(40)
    ]
    assert harms.count(True) <= 2


def test_few_rows_leave_it_open():
    before, now = answered(60, 0), answered(25, 3)
    found = measured(before, now, "accuracy", 0.05)
    assert found.drop_high - found.drop_low > 0.1
    assert found.hurts is None


def test_rows_of_one_group_say_less():
    before, now = answered(500, 0), answered(500, 1)
    together = Answers(now.probabilities, now.decided, now.targets, np.repeat(np.arange(10), 50))
    alone, grouped = (measured(before, each, "accuracy", 0.05) for each in (now, together))
    assert alone.now == grouped.now
    alike = Answers(
        np.repeat(now.probabilities[:10], 50, 0),
        np.repeat(now.decided[:10], 50),
        np.repeat(now.targets[:10], 50),
        together.groups,
    )
    copied = measured(before, alike, "accuracy", 0.05)
    assert copied.high - copied.low > 2 * (alone.high - alone.low)


def test_errors_of_any_kind_are_measured_too():
    generator = np.random.default_rng(0)
    errors, groups = generator.beta(2, 8, size=1000), np.arange(1000)
    calm = of_errors(0.2, 500, errors, groups, 0.05)
    assert calm.hurts is False
    assert calm.before == 0.8
    assert calm.now == pytest.approx(1 - errors.mean())
    worse = of_errors(0.1, 500, errors, groups, 0.05)
    assert worse.hurts is True
    assert worse.drop == pytest.approx((errors.mean() - 0.1) / 0.9)


@pytest.mark.parametrize("score", ["accuracy", "macro_f1"])
def test_classes_that_a_window_lacks_do_not_hurt(score):
    before, now = answered(3000, 0, classes=30), answered(3000, 1, classes=30)
    few = (now.targets < 10) & (now.decided < 10)
    some = Answers(now.probabilities[few], now.decided[few], now.targets[few], now.groups[few])
    found = measured(before, some, score, 0.05)
    peer = f1_score(some.targets, some.decided, average="macro")
    assert found.now == pytest.approx(
        {"accuracy": accuracy_score(some.targets, some.decided), "macro_f1": peer}[score]
    )
    assert found.hurts is False


def test_resamples_are_the_same_however_they_are_batched(monkeypatch):
    before, now = answered(300, 0), answered(200, 1)
    whole = measured(before, now, "accuracy", 0.05)
    monkeypatch.setattr("components.drift.performance.BATCH_VALUES", 1000)
    assert measured(before, now, "accuracy", 0.05) == whole


def test_an_estimate_that_is_right_is_said_to_have_held():
    held = [
        reconciled("w", answered(300, 2 * seed), answered(100, 2 * seed + 1), "accuracy").held
        for seed in range(60)
    ]
    # At 95 %; one in a thousand has fewer by chance.
    assert sum(held) >= 51
