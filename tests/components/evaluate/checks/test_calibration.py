from __future__ import annotations

import dataclasses

import pytest

from components.calibration import Temperature
from components.decision_rule import DecisionRule
from components.evaluate.checks.calibration import calibration
from components.evaluate.config import EvaluateConfig
from components.operating_point import OperatingPoint, OperatingPointConfig


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


def test_the_error_before_scaling_is_told(make_exam):
    point = OperatingPoint(labels=("negative", "positive"))
    rule = DecisionRule(
        calibrate=True,
        aim=OperatingPointConfig(),
        temperature=Temperature(value=2.0),
        point=point,
    )
    exam = make_exam({"challenger": 0.8}, rules={"challenger": rule})
    (found,) = calibration(exam, EvaluateConfig())
    raw = rule.uncalibrated(exam.answers["challenger"]).max()  # 0.94: odds of 4 squared
    assert raw == pytest.approx(16 / 17)
    right = (exam.decided["challenger"] == exam.targets)[exam.of("test")].mean()
    assert f"{abs(raw - right):.3f} before it was scaled at temperature 2" in found.reason
