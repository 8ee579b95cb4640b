"""Do probabilities mean what they say?"""

from __future__ import annotations

from components import calibration as curves
from components.evaluate.check import Check, skipped
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam


def calibration(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return whether the calibration error is small, or no more than chance makes it."""
    if exam.kind != "classification":
        return [skipped("calibration", "answers are no probabilities of labels")]
    test = exam.of("test")
    confidence, right = curves.confidences(exam.answers["challenger"][test], exam.targets[test])
    measured = curves.calibration_error(confidence, right)
    by_chance = curves.calibration_error_by_chance(confidence, seed=config.seed)
    limit = max(config.calibration.max_ece, by_chance)
    good = measured <= limit
    sure = f"sure of {confidence.mean():.3f}, right in {right.mean():.3f}"
    rule = exam.rules.get("challenger")
    if rule is not None and rule.temperature.value != 1:
        before = rule.uncalibrated(exam.answers["challenger"][test])
        raw = curves.calibration_error(*curves.confidences(before, exam.targets[test]))
        sure += f"; {raw:.3f} before it was scaled at temperature {rule.temperature.value:.3g}"
    return [
        Check(
            name="calibration error",
            check="calibration",
            verdict="passed" if good else "failed",
            measured=measured,
            threshold=limit,
            reason=f"{'calibrated' if good else 'not calibrated'}: ECE {measured:.3f}, of which "
            f"chance alone makes up to {by_chance:.3f}; {sure}",
        )
    ]
