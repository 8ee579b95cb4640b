"""Is the challenger no worse on trusted rows that no source can write to?"""

from __future__ import annotations

from components.evaluate.check import Check, of_difference, skipped, title_of
from components.evaluate.comparison import non_inferiority
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam


def holdout(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return whether it is worse than the champion by less than the margin, or by more."""
    if config.holdout is None:
        return [skipped("holdout", "evaluate.holdout names no file")]
    if not exam.has_champion:
        return [skipped("holdout", "there is no champion")]
    rows = exam.of("holdout")
    if not rows.any():
        return [skipped("holdout", "the file holds no rows with labels that both models know")]
    difference = exam.differences("champion", rows, [exam.metric], config)[exam.metric]
    words = {
        "passed": "not worse than the champion on the trusted rows",
        "failed": "worse than the champion on the trusted rows",
        "undecided": "perhaps worse than the champion on the trusted rows",
    }
    name = f"hold-out {title_of(exam.metric)} against champion"
    outcome = non_inferiority(difference, config.holdout.margin)
    return [of_difference(name, "holdout", difference, outcome, words, config)]
