from __future__ import annotations

from components.evaluate.checks.loads import loads
from components.evaluate.config import EvaluateConfig


def test_a_model_that_answers_passes(make_exam):
    (found,) = loads(make_exam({"challenger": 0.9}, rows={"test": 50}), EvaluateConfig())
    assert (found.verdict, found.reason) == (
        "passed",
        "the challenger loads and answers all of 50 rows",
    )


def test_one_that_does_not_fails_with_the_reason(make_exam):
    exam = make_exam({"champion": 0.9}, broken="the challenger does not load: cut")
    (found,) = loads(exam, EvaluateConfig())
    assert (found.verdict, found.reason) == ("failed", "the challenger does not load: cut")
