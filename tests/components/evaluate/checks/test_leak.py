from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from components.evaluate.checks.leak import better_than, leak
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(
    ("test", "valid", "verdict"),
    [(0.8, 0.8, "passed"), (0.8, 0.9, "passed"), (0.99, 0.8, "failed"), (1.0, 0.98, "passed")],
)
def test_test_rows_far_better_than_validation_rows_are_suspicious(make_exam, test, valid, verdict):
    right = {"challenger": {"test": test, "valid": valid, "guard": 1, "train": 1}}
    (found,) = leak(make_exam(right), EvaluateConfig())
    assert found.verdict == verdict
    if verdict == "failed":
        assert "trained on" in found.reason and found.model_dump()["measured"] > 0.05


def test_a_wide_gap_that_chance_explains_is_no_sign(make_exam):
    exam = make_exam({"challenger": 1.0}, rows={"test": 40, "valid": 40})
    exam.errors["challenger"][40:43] = 1
    (found,) = leak(exam, EvaluateConfig())
    assert found.verdict == "passed"
    assert found.model_dump()["measured"] > EvaluateConfig().leak.min_gap


def test_chance_is_not_suspicious():
    draw = np.random.default_rng(0)
    p_values = []
    for _ in range(1000):
        a, b = (draw.random(200) < 0.2).astype(float), (draw.random(150) < 0.2).astype(float)
        p_values.append(better_than(a, np.arange(200), b, np.arange(150))[1])
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert min(p_values) > 1e-4


@pytest.mark.parametrize("valid", [3, 10, 20, 50])
@pytest.mark.parametrize("accuracy", [0.97, 0.99])
def test_a_sound_model_is_not_blocked_by_an_error_among_few_validation_rows(valid, accuracy):
    errors, rows = np.arange(2000) >= 2000 * accuracy, np.arange(2000)
    risk = 0.0
    for wrong in range(1, valid + 1):
        others = np.arange(valid) < wrong
        gap, p_value = better_than(errors.astype(float), rows, others.astype(float), rows[:valid])
        if gap > 0.05 and p_value < 1e-4:
            risk += binom.pmf(wrong, valid, 1 - accuracy)
    assert risk < 1e-4


def test_errors_of_numbers_are_judged_by_how_much_they_vary():
    draw = np.random.default_rng(0)
    alike, better = (draw.normal(mean, 0.05, 400).clip(0, 1) for mean in (0.2, 0.14))
    rows, yes_no = np.arange(400), (np.arange(400) < 80).astype(float)
    assert better_than(better, rows, alike, rows)[1] < 1e-10
    assert better_than(draw.permutation(alike), rows, alike, rows)[1] > 0.3
    # Wrong and right ones vary more: as small a difference is nothing among them.
    assert better_than((np.arange(400) < 56).astype(float), rows, yes_no, rows)[1] > 1e-3


def test_rows_of_a_group_are_no_independent_evidence():
    errors, others = np.zeros(100), np.ones(100) * (np.arange(100) < 30)
    alone = better_than(errors, np.arange(100), others, np.arange(100))[1]
    together = better_than(errors, np.arange(100) // 10, others, np.arange(100) // 10)[1]
    assert alone < 1e-4 < together


def test_models_without_errors_say_nothing(make_exam):
    (found,) = leak(make_exam({"challenger": 1.0}), EvaluateConfig())
    assert (found.verdict, found.measured) == ("passed", 0)
    (found,) = leak(make_exam({"challenger": 1.0}, rows={"test": 50}), EvaluateConfig())
    assert found.verdict == "skipped"
