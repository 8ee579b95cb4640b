from __future__ import annotations

import pytest

from components.evaluate.checks.overfitting import overfitting
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(("train", "verdict"), [(0.82, "passed"), (0.99, "failed")])
def test_training_rows_that_are_answered_much_better_are_remembered(make_exam, train, verdict):
    right = {"challenger": {"test": 0.8, "guard": 0.8, "valid": 0.8, "train": train}}
    found, _ = overfitting(make_exam(right), EvaluateConfig())
    assert (found.name, found.verdict, found.threshold) == (
        "training-validation gap",
        verdict,
        0.1,
    )


@pytest.mark.parametrize(("valid", "verdict"), [(0.82, "passed"), (0.99, "failed")])
def test_a_model_that_was_trained_on_validation_rows_too_is_told(make_exam, valid, verdict):
    right = {"challenger": {"test": 0.8, "guard": 0.8, "valid": valid, "train": 0.99}}
    _, found = overfitting(make_exam(right), EvaluateConfig())
    assert (found.name, found.verdict) == ("validation-test gap", verdict)


def test_a_wide_gap_that_chance_explains_is_no_finding(make_exam):
    exam = make_exam({"challenger": 1.0}, rows={"train": 20, "valid": 20, "test": 20})
    exam.errors["challenger"][20:23] = 1
    found, _ = overfitting(exam, EvaluateConfig())
    assert found.verdict == "passed"
    assert found.model_dump()["measured"] > EvaluateConfig().overfitting.max_gap


def test_without_training_rows_nothing_is_asked(make_exam):
    exam = make_exam({"challenger": 0.9}, rows={"test": 50, "valid": 50})
    assert overfitting(exam, EvaluateConfig())[0].verdict == "skipped"
