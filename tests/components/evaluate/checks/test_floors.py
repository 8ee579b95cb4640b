from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.evaluate.checks.floors import floors
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(
    ("metric", "floor", "verdict"),
    [
        ("accuracy", 0.8, "passed"),
        ("accuracy", 0.97, "failed"),
        ("log_loss", 0.9, "passed"),
        ("log_loss", 0.1, "failed"),
        ("recall:positive", 0.8, "passed"),
    ],
)
def test_what_is_asked_for_must_be_reached(make_exam, metric, floor, verdict):
    config = EvaluateConfig(floors={metric: floor})
    (found,) = floors(make_exam({"challenger": 0.9}), config)
    assert (found.verdict, found.threshold) == (verdict, floor)


@pytest.mark.parametrize(
    ("answered", "floor", "verdict"),
    [(0.7, None, "passed"), (0.3, None, "failed"), (0.3, 0.2, "passed"), (0.7, 0.8, "failed")],
)
def test_who_abstains_must_answer_half_unless_the_project_says_otherwise(
    make_exam, answered, floor, verdict
):
    exam = make_exam({"challenger": 0.9}, rows={"test": 400})
    exam.abstained["challenger"] = np.arange(400) >= 400 * answered
    config = EvaluateConfig(floors={} if floor is None else {"coverage": floor})
    (found,) = floors(exam, config)
    assert (found.verdict, found.measured) == (verdict, answered)
    assert found.name == f"test coverage of at least {floor or 0.5:g}"


def test_a_metric_without_a_value_shows_nothing(make_exam):
    exam = make_exam({"challenger": 0.9})
    exam = dataclasses.replace(exam, targets=np.zeros_like(exam.targets))
    (found,) = floors(exam, EvaluateConfig(floors={"recall:positive": 0.5}))
    assert (found.verdict, found.measured) == ("undecided", None)
    assert found.reason == "the test rows give recall:positive no value"


def test_without_floors_nothing_is_asked(make_exam):
    (found,) = floors(make_exam({"challenger": 0.9}), EvaluateConfig())
    assert found.verdict == "skipped"
