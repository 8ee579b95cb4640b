"""Does the challenger answer rows that it may have learnt from much better than others?"""

from __future__ import annotations

from components.evaluate.check import Check, skipped
from components.evaluate.checks.leak import better_than
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam

_NAMES = {"train": "training", "valid": "validation", "test": "test"}


def overfitting(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return whether training rows are, and validation rows; what may be chance is no finding.

    Validation rows choose the epoch, the temperature and the threshold. A model that was
    trained on them chose them by what it knew.
    """
    if not exam.of("train").any() or not exam.of("valid").any():
        return [skipped("overfitting", "no training rows were answered again")]
    return [_gap(exam, "train", "valid", config), _gap(exam, "valid", "test", config)]


def _gap(exam: Exam, known: str, other: str, config: EvaluateConfig) -> Check:
    one, two = exam.of(known), exam.of(other)
    errors, limit = exam.errors["challenger"], config.overfitting.max_gap
    gap, p_value = better_than(errors[one], exam.groups(one), errors[two], exam.groups(two))
    found = gap > limit and p_value < config.alpha
    return Check(
        name=f"{_NAMES[known]}-{_NAMES[other]} gap",
        check="overfitting",
        verdict="failed" if found else "passed",
        measured=gap,
        threshold=limit,
        reason=f"{'overfitted' if found else 'not overfitted'}: {_NAMES[known]} rows "
        f"{1 - errors[one].mean():.3f}, {_NAMES[other]} rows {1 - errors[two].mean():.3f}, "
        f"at most {limit:g} apart",
    )
