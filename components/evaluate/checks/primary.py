"""Is the challenger better than the champion, in the metric that counts, on the test rows?"""

from __future__ import annotations

import numpy as np

from components.evaluate.check import Check, of_difference, skipped, title_of
from components.evaluate.comparison import superiority
from components.evaluate.config import CheckName, EvaluateConfig
from components.evaluate.exam import Exam


def primary(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return whether it is better; an equal one is undecided."""
    if not exam.has_champion:
        return [skipped("primary", "there is no champion; the baselines decide")]
    return [better(exam, config, "champion", "champion", "primary")]


def better(
    exam: Exam, config: EvaluateConfig, model: str, opponent: str, check: CheckName
) -> Check:
    """Return whether the challenger is better on the test rows than another model.

    Args:
        exam: all answers.
        config: of the gate.
        model: which other, as the exam knows it.
        opponent: what people call it.
        check: the check that asks.
    """
    rows = exam.of("test")
    difference = exam.differences(model, rows, [exam.metric], config)[exam.metric]
    name = f"test {title_of(exam.metric)} against {opponent}"
    words = {
        "passed": f"better than {opponent}",
        "failed": f"worse than {opponent}",
        "undecided": f"not told apart from {opponent}",
    }
    found = of_difference(name, check, difference, superiority(difference), words, config)
    if exam.classes and len(np.unique(exam.targets[rows])) < 2:
        label = exam.labels[int(exam.targets[rows][0])]
        reason = f"all test rows are {label!r}: they cannot tell models apart"
        return found.model_copy(
            update={"verdict": "undecided", "reason": reason, "more_rows": None}
        )
    return found
