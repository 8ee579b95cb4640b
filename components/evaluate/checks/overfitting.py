"""Are training rows answered much better than validation rows?"""

from __future__ import annotations

from components.evaluate.check import Check, skipped
from components.evaluate.checks.leak import better_than
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam


def overfitting(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return whether the gap is wide; one that may be chance is no finding."""
    train, valid = exam.of("train"), exam.of("valid")
    if not train.any() or not valid.any():
        return [skipped("overfitting", "no training rows were answered again")]
    errors, limit = exam.errors["challenger"], config.overfitting.max_gap
    gap, p_value = better_than(errors[train], exam.groups(train), errors[valid], exam.groups(valid))
    found = gap > limit and p_value < config.alpha
    return [
        Check(
            name="train-validation gap",
            check="overfitting",
            verdict="failed" if found else "passed",
            measured=gap,
            threshold=limit,
            reason=f"{'overfitted' if found else 'not overfitted'}: training rows "
            f"{1 - errors[train].mean():.3f}, validation rows {1 - errors[valid].mean():.3f}, "
            f"at most {limit:g} apart",
        )
    ]
