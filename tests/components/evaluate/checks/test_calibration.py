from __future__ import annotations

import dataclasses

import pytest

from components.evaluate.checks.calibration import calibration
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(("sure", "verdict"), [(0.8, "passed"), (0.99, "failed"), (0.6, "failed")])
def test_who_is_too_sure_or_not_sure_enough_is_not_calibrated(make_exam, sure, verdict):
    (found,) = calibration(make_exam({"challenger": 0.8}, sure=sure), EvaluateConfig())
    assert found.verdict == verdict
    assert found.measured == pytest.approx(abs(sure - 0.8), abs=0.05)


def test_what_few_rows_do_by_chance_is_no_finding(make_exam):
    exam = make_exam({"challenger": 0.8}, rows={"test": 30}, sure=0.9)
    (found,) = calibration(exam, EvaluateConfig())
    assert found.verdict == "passed" and found.model_dump()["measured"] > 0.05


def test_distances_are_no_probabilities(make_exam):
    exam = dataclasses.replace(make_exam({"challenger": 0.8}), kind="anomaly")
    (found,) = calibration(exam, EvaluateConfig())
    assert found.verdict == "skipped"
