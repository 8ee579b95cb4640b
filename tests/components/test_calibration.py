from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from components.calibration import (
    HOTTEST,
    Temperature,
    brier,
    calibration_error,
    calibration_error_by_chance,
    confidences,
    fit_temperature,
    reliability,
    scaled,
)


def softmax(logits):
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def drawn(rows, classes, sharpness, seed):
    """Answers that state ``sharpness`` times the true log odds, and labels by the true ones."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 2, (rows, classes))
    true = softmax(logits)
    targets = (true.cumsum(1) < chance.random((rows, 1))).sum(1)
    return softmax(sharpness * logits), targets


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("sharpness", [0.4, 1.2, 3.0])
def test_the_temperature_is_the_one_that_made_the_answers_too_sure(classes, sharpness):
    fitted = fit_temperature(*drawn(20_000, classes, sharpness, 0))
    assert fitted.value == pytest.approx(sharpness, rel=0.05)
    assert fitted.rows == 20_000
    assert fitted.reason == ""


@pytest.mark.parametrize("classes", [2, 5])
def test_scaling_mends_the_calibration_of_other_rows(classes):
    fitted = fit_temperature(*drawn(1000, classes, 3.0, 0))
    answers, targets = drawn(10_000, classes, 3.0, 1)
    mended = scaled(answers, fitted.value)
    for equal_mass in (True, False):
        before = calibration_error(*confidences(answers, targets), equal_mass=equal_mass)
        after = calibration_error(*confidences(mended, targets), equal_mass=equal_mass)
        assert before > 0.1
        assert after < 0.02
    assert brier(mended, targets) < brier(answers, targets)
    assert log_loss(targets, mended) < log_loss(targets, answers)


def test_it_mends_the_scores_of_an_anomaly_detector():
    chance = np.random.default_rng(0)
    anomalous = chance.random(4000) < 0.1
    distance = np.exp(chance.normal(np.where(anomalous, 0.4, -0.4), 0.5))
    answers = np.stack([1 / (1 + distance), distance / (1 + distance)], 1)
    fitted = fit_temperature(answers, anomalous.astype(int))
    assert fitted.log_loss_after < fitted.log_loss_before
    mended = scaled(answers, fitted.value)
    assert np.array_equal(mended.argmax(1), answers.argmax(1)), "the threshold stays a half"
    assert np.array_equal(np.argsort(mended[:, 1]), np.argsort(answers[:, 1]))


ANSWERS = st.integers(2, 4).flatmap(
    lambda classes: st.lists(
        st.tuples(
            st.lists(st.integers(0, 20), min_size=classes, max_size=classes),
            st.integers(0, classes - 1),
        ),
        min_size=1,
        max_size=60,
    )
)


@settings(deadline=None)
@given(ANSWERS)
def test_the_log_loss_never_gets_worse_and_no_decision_changes(rows):
    parts, targets = np.array([row for row, _ in rows], float), np.array([row[1] for row in rows])
    parts[parts.sum(1) == 0] = 1
    answers = parts / parts.sum(1, keepdims=True)
    fitted = fit_temperature(answers, targets, min_rows=1)
    mended = scaled(answers, fitted.value)
    assert fitted.log_loss_after <= fitted.log_loss_before
    said = np.clip(mended[np.arange(len(targets)), targets], 1e-12, 1)
    assert -np.log(said).mean() <= fitted.log_loss_before + 1e-9
    assert mended.sum(1) == pytest.approx(1)
    best = np.isclose(answers, answers.max(1, keepdims=True))
    assert best[np.arange(len(best)), mended.argmax(1)].all()


@pytest.mark.parametrize(
    ("rows", "targets", "reason"),
    [
        (0, [], "no validation rows"),
        (10, [0, 1] * 5, "10 validation rows, 50 are needed"),
        (60, [1] * 60, "one label"),
        (60, [0] * 30 + [1] * 30, "nothing says how unsure"),
    ],
)
def test_rows_that_cannot_tell_leave_answers_as_they_are(rows, targets, reason):
    sure = np.tile([0.8, 0.2], (rows, 1))
    sure[np.array(targets) == 1] = [0.2, 0.8]
    fitted = fit_temperature(sure, np.array(targets, dtype=int))
    assert fitted.value == 1
    assert reason in fitted.reason
    assert scaled(sure, fitted.value) is sure


def test_calibrated_answers_are_left_alone():
    fitted = [fit_temperature(*drawn(200, 3, 1.0, seed)) for seed in range(200)]
    changed = [each for each in fitted if each.value != 1]
    # 10 of 200 are expected; 21 or more come once in a thousand times.
    assert len(changed) <= 20
    assert all("as calibrated as" in each.reason for each in fitted if each.value == 1)


def test_answers_that_know_nothing_become_unsure_and_stay_finite():
    chance = np.random.default_rng(0)
    certain = np.eye(3)[chance.integers(0, 3, 500)]
    fitted = fit_temperature(certain, chance.integers(0, 3, 500))
    assert HOTTEST * 0.9 < fitted.value <= HOTTEST
    assert scaled(certain, fitted.value).max() < 0.7


def test_the_same_rows_give_the_same_temperature_which_travels_as_json():
    rows = drawn(300, 3, 2.0, 0)
    fitted = fit_temperature(*rows)
    assert fit_temperature(*rows) == fitted
    assert Temperature.from_json(fitted.to_json()) == fitted


@pytest.mark.parametrize("classes", [2, 4])
def test_brier_is_scikit_learns(classes):
    answers, targets = drawn(200, classes, 2.0, 0)
    if classes == 2:
        expected = brier_score_loss(targets, answers[:, 1])
    else:
        expected = brier_score_loss(targets, answers, labels=range(classes), scale_by_half=False)
    assert brier(answers, targets) == pytest.approx(expected)


def test_calibration_error_by_hand():
    confidence = np.array([0.1, 0.15, 0.9, 0.95])
    right = np.array([False, True, True, True])
    points = reliability(confidence, right, bins=2)
    assert [(p.rows, p.accuracy) for p in points] == [(2, 0.5), (2, 1.0)]
    assert [p.confidence for p in points] == pytest.approx([0.125, 0.925])
    assert calibration_error(confidence, right, bins=2) == pytest.approx(0.5 * (0.375 + 0.075))
    wide = reliability(confidence, right, bins=5, equal_mass=False)
    assert [p.rows for p in wide] == [2, 2]
    at_the_edge = reliability(confidence, right, bins=10, equal_mass=False)
    assert [p.rows for p in at_the_edge] == [1, 1, 1, 1], "an edge belongs to the bin below"


@pytest.mark.parametrize("equal_mass", [True, False])
def test_equal_confidences_share_a_bin_in_whatever_order_rows_come(equal_mass):
    chance = np.random.default_rng(0)
    confidence = chance.choice([0.5, 0.7, 1.0], 300)
    right = chance.random(300) < confidence
    points = reliability(confidence, right, equal_mass=equal_mass)
    assert [p.confidence for p in points] == pytest.approx([0.5, 0.7, 1.0])
    assert sum(p.rows for p in points) == 300
    mixed = chance.permutation(300)
    again = reliability(confidence[mixed], right[mixed], equal_mass=equal_mass)
    assert [p.rows for p in again] == [p.rows for p in points]


def test_bins_of_equal_mass_hold_as_many_rows():
    chance = np.random.default_rng(0)
    confidence = chance.beta(8, 1, 1500)
    rows = [p.rows for p in reliability(confidence, chance.random(1500) < confidence)]
    assert len(rows) == 15
    assert max(rows) - min(rows) <= 1


def test_a_label_of_its_own_can_be_looked_at():
    answers, targets = drawn(5000, 3, 1.0, 0)
    stated, is_so = confidences(answers, targets, label=2)
    assert np.array_equal(stated, answers[:, 2])
    assert np.array_equal(is_so, targets == 2)
    assert calibration_error(stated, is_so) < 0.03


def test_chance_explains_the_error_of_calibrated_answers_as_often_as_stated():
    exceeded = 0
    for seed in range(300):
        stated, right = confidences(*drawn(200, 2, 1.0, seed))
        by_chance = calibration_error_by_chance(stated, resamples=200, seed=seed)
        exceeded += calibration_error(stated, right) > by_chance
    # 15 of 300 are expected; 27 or more come once in 500 times.
    assert 5 <= exceeded <= 26
    stated, right = confidences(*drawn(200, 2, 3.0, 0))
    assert calibration_error(stated, right) > calibration_error_by_chance(stated)


def test_without_rows_there_is_no_error():
    nothing = np.zeros(0)
    assert calibration_error(nothing, nothing.astype(bool)) == 0
    assert calibration_error_by_chance(nothing) == 0
    assert reliability(nothing, nothing.astype(bool)) == []


@pytest.mark.parametrize(
    ("answers", "targets", "message"),
    [
        ([[0.5, 0.5]], [0, 1], "1 rows of probabilities, 2 targets"),
        ([[1.0]], [0], "k of at least 2"),
        ([[0.5, 0.6]], [0], "sum to one"),
        ([[np.nan, 1.0]], [0], "finite"),
        ([[-0.5, 1.5]], [0], "between 0 and 1"),
        ([[0.5, 0.5]], [2], "no index"),
        ([[0.5, 0.5]], [-1], "no index"),
    ],
)
def test_what_makes_no_sense_is_refused(answers, targets, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(np.array(answers), np.array(targets))
