from __future__ import annotations

import pytest

from components.evaluate.checks.overfitting import overfitting
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(("train", "verdict"), [(0.82, "passed"), (0.99, "failed")])
def test_training_rows_that_are_answered_much_better_are_remembered(make_exam, train, verdict):
    right = {"challenger": {"test": 0.8, "guard": 0.8, "valid": 0.8, "train": train}}
    (found,) = overfitting(make_exam(right), EvaluateConfig())
    assert (found.verdict, found.threshold) == (verdict, 0.1)


def test_without_training_rows_nothing_is_asked(make_exam):
    exam = make_exam({"challenger": 0.9}, rows={"test": 50, "valid": 50})
    assert overfitting(exam, EvaluateConfig())[0].verdict == "skipped"
