"""Does the challenger reach what a project asks for in absolute terms?"""

from __future__ import annotations

import math

from components.evaluate.check import Check, Standing, finite, skipped, title_of
from components.evaluate.config import CheckName, EvaluateConfig
from components.evaluate.exam import Exam
from components.evaluate.metrics import find_metric, score


def floors(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return one check for each floor; what was measured on the test rows decides."""
    wanted = config.reached(abstains=exam.abstains("challenger"))
    if not wanted:
        return [skipped("floors", "evaluate.floors names none")]
    return [
        reaches(exam, metric, floor, rows="test", check="floors", key="evaluate.floors")
        for metric, floor in wanted.items()
    ]


def reaches(
    exam: Exam, metric: str, floor: float, *, rows: str, check: CheckName, key: str
) -> Check:
    """Return whether a metric of the challenger reaches a floor; undecided without a value.

    Args:
        exam: all answers.
        metric: its name; where less is better it must not exceed the floor.
        floor: that was asked for.
        rows: the split to look at.
        check: the check that asks.
        key: of the project file, for people.
    """
    answered = exam.scored("challenger", exam.of(rows))
    measured = float(score(metric, answered, labels=exam.classes)[0])
    higher = find_metric(metric, exam.kind, exam.classes).higher_is_better
    reached = measured >= floor if higher else measured <= floor
    verdict: Standing = "passed" if reached else "failed"
    title, limit = title_of(metric), "at least" if higher else "at most"
    return Check(
        name=f"{rows} {title} of {limit} {floor:g}",
        check=check,
        verdict=verdict if math.isfinite(measured) else "undecided",
        measured=finite(measured),
        threshold=floor,
        reason=f"{title} is {measured:.3f} on {rows} rows, {key} asks for {limit} {floor:g}"
        if math.isfinite(measured)
        else f"the {rows} rows give {title} no value",
    )
