"""Is the challenger good on trusted rows that no source can write to?"""

from __future__ import annotations

from components.evaluate.check import Check, of_difference, skipped, title_of
from components.evaluate.checks.floors import reaches
from components.evaluate.comparison import non_inferiority
from components.evaluate.config import EvaluateConfig, HoldoutConfig
from components.evaluate.exam import Exam


def holdout(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return whether it is no worse than the champion there, and reaches the floor."""
    settings = config.holdout
    if settings is None:
        return [skipped("holdout", "evaluate.holdout names no file")]
    if not exam.of("holdout").any():
        reason = "the file holds no rows with labels that both models know"
        return [Check(name="hold-out", check="holdout", verdict="undecided", reason=reason)]
    checks = []
    if exam.has_champion:
        checks.append(_against_the_champion(exam, settings, config))
    if settings.floor is not None:
        key = "evaluate.holdout.floor"
        checks.append(
            reaches(exam, exam.metric, settings.floor, rows="holdout", check="holdout", key=key)
        )
    reason = "there is no champion, and evaluate.holdout.floor is not given"
    return checks or [skipped("holdout", reason)]


def _against_the_champion(exam: Exam, settings: HoldoutConfig, config: EvaluateConfig) -> Check:
    rows = exam.of("holdout")
    difference = exam.differences("champion", rows, [exam.metric], config)[exam.metric]
    words = {
        "passed": "not worse than the champion on the trusted rows",
        "failed": "worse than the champion on the trusted rows",
        "undecided": "perhaps worse than the champion on the trusted rows",
    }
    name = f"hold-out {title_of(exam.metric)} against champion"
    outcome = non_inferiority(difference, settings.margin)
    return of_difference(name, "holdout", difference, outcome, words, config, rows="trusted")
