from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from components.operating_point import (
    ABSTAIN,
    OperatingPoint,
    OperatingPointConfig,
    decide,
    decide_all,
    sureness,
)

ANSWERS = np.array([[0.7, 0.2, 0.1], [0.45, 0.15, 0.4], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
LABELS = ("a", "b", "c")


def test_by_default_the_most_probable_label_is_answered():
    point = OperatingPoint(labels=LABELS)
    assert decide(ANSWERS, point).tolist() == [0, 0, 1, 2]
    assert decide(ANSWERS[:0], point).tolist() == []


def test_a_label_with_a_threshold_is_answered_from_it_on_else_the_best_other():
    point = OperatingPoint(aim="recall", labels=LABELS, label="c", threshold=0.3)
    assert decide(ANSWERS, point).tolist() == [0, 2, 2, 2]
    point = OperatingPoint(aim="precision", labels=LABELS, label="c", threshold=0.8)
    assert decide(ANSWERS, point).tolist() == [0, 0, 1, 1]


def test_the_answers_themselves_stay_as_they_are():
    before = ANSWERS.copy()
    decide(ANSWERS, OperatingPoint(aim="recall", labels=LABELS, label="c", threshold=0.3))
    assert np.array_equal(ANSWERS, before)


def test_the_least_expected_cost_is_answered():
    config = OperatingPointConfig(
        aim="cost", costs={"c": {"a": 10}, "a": {"c": 0.5}}, class_weights={"b": 3}
    )
    costs = config.cost_matrix(LABELS)
    assert costs == [[0, 1, 0.5], [3, 0, 3], [10, 1, 0]]
    point = OperatingPoint(aim="cost", labels=LABELS, costs=costs)
    expected = [
        int(np.argmin([sum(p * costs[i][j] for i, p in enumerate(row)) for j in range(3)]))
        for row in ANSWERS.tolist()
    ]
    assert decide(ANSWERS, point).tolist() == expected
    even = OperatingPointConfig(aim="cost").cost_matrix(LABELS)
    same = decide(ANSWERS, OperatingPoint(aim="cost", labels=LABELS, costs=even))
    assert same.tolist() == ANSWERS.argmax(1).tolist()


def test_unsure_rows_are_left_to_a_person():
    point = OperatingPoint(labels=LABELS, min_sureness=0.5)
    assert decide(ANSWERS, point).tolist() == [0, ABSTAIN, 1, 2]
    assert decide_all(ANSWERS, point).tolist() == [0, 0, 1, 2]
    assert point.band is None


def test_between_two_labels_the_unsure_rows_lie_in_a_band_around_the_threshold():
    point = OperatingPoint(
        aim="recall", labels=("no", "yes"), label="yes", threshold=0.2, min_sureness=0.25
    )
    assert point.band == pytest.approx((0.15, 0.4))
    score = np.array([0.0, 0.1499, 0.1501, 0.2, 0.3999, 0.4001, 1.0])
    answers = np.stack([1 - score, score], 1)
    assert decide(answers, point).tolist() == [0, 0, ABSTAIN, ABSTAIN, ABSTAIN, 1, 1]
    sure = sureness(answers, decide_all(answers, point), point)
    assert sure[[0, 3, 6]].tolist() == [1, 0, 1]


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_at_either_end_decides_too(threshold):
    point = OperatingPoint(aim="recall", labels=("no", "yes"), label="yes", threshold=threshold)
    answers = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert decide(answers, point).tolist() == ([1, 1] if threshold == 0 else [0, 1])
    assert np.isfinite(sureness(answers, decide(answers, point), point)).all()


def test_answers_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"are not \[n, 2\]"):
        decide(ANSWERS, OperatingPoint(labels=("a", "b")))


def test_a_point_travels_as_json():
    point = OperatingPoint(aim="cost", labels=LABELS, costs=[[0, 1, 1]] * 3, min_sureness=0.5)
    assert OperatingPoint.from_json(point.to_json()) == point


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"aim": "recall"}, "the aim recall needs a label"),
        ({"label": "a"}, "needs the aim recall or precision"),
        ({"costs": {"a": {"b": 2}}}, "need the aim cost"),
        ({"class_weights": {"a": 2}}, "need the aim cost"),
        ({"aim": "cost", "costs": {"a": {"b": -1}}}, "at least 0"),
        ({"aim": "cost", "class_weights": {"a": 0}}, "above 0"),
        ({"aim": "recall", "label": "a", "at_least": 1.0}, "less than 1"),
        ({"aim": "best"}, "most-probable"),
        ({"thresold": 0.5}, "Extra inputs"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        OperatingPointConfig.model_validate(keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"aim": "recall", "label": "d"},
        {"aim": "cost", "costs": {"d": {"a": 2}}},
        {"aim": "cost", "costs": {"a": {"d": 2}}},
        {"aim": "cost", "class_weights": {"d": 2}},
    ],
)
def test_labels_that_the_task_does_not_have_are_refused(keys):
    config = OperatingPointConfig.model_validate(keys)
    with pytest.raises(ValueError, match="names d; the task has a, b, c"):
        config.refuse_unknown_labels(LABELS)


def test_a_task_without_labels_has_nothing_to_decide():
    OperatingPointConfig().refuse_unknown_labels(())
    with pytest.raises(ValueError, match="answers are labels"):
        OperatingPointConfig(answered_accuracy=0.9).refuse_unknown_labels(())
