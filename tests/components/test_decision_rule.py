from __future__ import annotations

import numpy as np
import pytest

from components.calibration import Temperature
from components.decision_rule import DecisionRule
from components.operating_point import OperatingPointConfig

LABELS = ("no", "yes")
SOME = OperatingPointConfig(aim="recall", label="yes", at_least=0.9)
SURE = OperatingPointConfig(answered_accuracy=0.9)


def overconfident(rows, seed, times=3.0):
    """Probabilities whose log odds are so many times as large as they should be."""
    chance = np.random.default_rng(seed)
    odds = chance.normal(0, 1.5, rows)
    targets = (chance.random(rows) < 1 / (1 + np.exp(-odds))).astype(int)
    score = 1 / (1 + np.exp(-times * odds))
    return np.stack([1 - score, score], 1), targets


def fit(aim=None, *, rows=500, calibrate=True):
    answers, targets = overconfident(rows, 0)
    aim = aim or OperatingPointConfig()
    return DecisionRule.fit(answers, targets, LABELS, aim, calibrate=calibrate)


def log_loss(answers, targets):
    return -np.log(np.clip(answers[np.arange(len(targets)), targets], 1e-12, 1)).mean()


def test_an_overconfident_model_is_calibrated_on_rows_that_were_not_fitted_to():
    rule = fit(rows=2000)
    assert rule.temperature.value == pytest.approx(3, rel=0.2)
    answers, targets = overconfident(2000, 1)
    before, after = (log_loss(each, targets) for each in (answers, rule.calibrated(answers)))
    right = log_loss(overconfident(2000, 1, times=1.0)[0], targets)
    assert before > right + 0.2
    assert after == pytest.approx(right, abs=0.01)
    np.testing.assert_array_equal(rule.decided(rule.calibrated(answers)), answers.argmax(1))


def test_what_was_calibrated_can_be_taken_back():
    rule, (answers, _) = fit(), overconfident(300, 1, times=1.0)
    np.testing.assert_allclose(rule.uncalibrated(rule.calibrated(answers)), answers, atol=1e-9)


def test_without_a_temperature_and_an_aim_answers_are_the_same_bit_for_bit():
    rule = fit(calibrate=False)
    assert rule.temperature == Temperature()
    answers, _ = overconfident(300, 1)
    assert rule.calibrated(answers) is answers
    np.testing.assert_array_equal(rule.decided(answers), answers.argmax(1))
    assert not rule.abstained(answers).any()
    assert not rule.abstains


def test_the_point_is_chosen_on_calibrated_answers_and_applied_to_them():
    rule, uncalibrated = fit(SOME), fit(SOME, calibrate=False)
    answers, targets = overconfident(500, 0)
    decided = rule.decided(rule.calibrated(answers))
    assert rule.point.threshold != uncalibrated.point.threshold
    # A temperature keeps the order of two labels, and so what is called.
    np.testing.assert_array_equal(decided, uncalibrated.decided(answers))
    recall = (decided[targets == 1] == 1).mean()
    assert rule.point.recall is not None
    assert recall == rule.point.recall.measured >= 0.9
    assert (answers.argmax(1)[targets == 1] == 1).mean() < 0.9


def test_a_row_that_is_left_to_a_person_still_leans_to_a_label():
    rule, (answers, targets) = fit(SURE), overconfident(500, 0)
    calibrated = rule.calibrated(answers)
    left, decided = rule.abstained(calibrated), rule.decided(calibrated)
    assert rule.abstains
    assert left.mean() == pytest.approx(rule.point.abstained)
    np.testing.assert_array_equal(decided, answers.argmax(1))
    right = decided == targets
    assert right[~left].mean() >= 0.9 > right.mean() > right[left].mean()


def test_a_rule_travels_as_json():
    for aim in (SOME, SURE, OperatingPointConfig(aim="cost", costs={"no": {"yes": 5}})):
        rule = fit(aim)
        assert DecisionRule.from_json(rule.to_json()) == rule


@pytest.mark.parametrize(
    ("aim", "calibrate", "rows", "said"),
    [
        ({}, True, 500, "It answers with the most probable label: accuracy 0.7"),
        (
            {},
            True,
            500,
            "Its probabilities are scaled at temperature 2.43, which takes the log loss",
        ),
        ({}, False, 500, "Its probabilities are as the network gives them."),
        ({}, True, 20, "as the network gives them: 20 validation rows, 50 are needed."),
        ({}, True, 0, "most probable label. Its probabilities are as the network gives them: no"),
        (
            {"aim": "recall", "label": "yes", "at_least": 0.9},
            True,
            500,
            "for the best precision at a recall of 0.9: recall 0.9",
        ),
        (
            {"aim": "precision", "label": "yes", "at_least": 0.9},
            True,
            500,
            "for the best recall at a precision of 0.9: recall 0.",
        ),
        (
            {"aim": "recall", "label": "yes"},
            True,
            0,
            "It answers with the most probable label. The",
        ),
        (
            {"aim": "recall", "label": "yes", "at_least": 0.999, "by": "bound"},
            True,
            500,
            "The aim was not reached: 2",
        ),
        ({"aim": "cost"}, True, 500, "the least expected cost: 0.2"),
        ({"aim": "cost"}, True, 0, "the least expected cost. The aim was not reached: no"),
        ({"answered_accuracy": 0.9}, True, 500, "It leaves rows whose label has a probability"),
        ({"answered_accuracy": 0.1}, True, 500, "It leaves no row to a person, for an accuracy"),
        ({"answered_accuracy": 0.9}, True, 0, "It leaves no row to a person, for an accuracy"),
        (
            {"aim": "recall", "label": "yes", "at_least": 0.8, "answered_accuracy": 0.9},
            True,
            500,
            "It leaves rows with a probability of 'yes' from 0.",
        ),
    ],
)
def test_people_are_told_how_it_decides(aim, calibrate, rows, said):
    config = OperatingPointConfig.model_validate(aim)
    assert said in " ".join(fit(config, rows=rows, calibrate=calibrate).sentences)
