"""Does the challenger reach what a project asks for in absolute terms?"""

from __future__ import annotations

import math

from components.evaluate.check import Check, finite, skipped, title_of
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam
from components.evaluate.metrics import find_metric, score


def floors(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return one check for each floor; what was measured on the test rows decides."""
    wanted = config.reached(abstains=exam.abstains("challenger"))
    if not wanted:
        return [skipped("floors", "evaluate.floors names none")]
    answered = exam.scored("challenger", exam.of("test"))
    checks = []
    for metric, floor in wanted.items():
        measured = float(score(metric, answered, labels=exam.classes)[0])
        higher = find_metric(metric, exam.kind, exam.classes).higher_is_better
        reached = measured >= floor if higher else measured <= floor
        title, limit = title_of(metric), "at least" if higher else "at most"
        checks.append(
            Check(
                name=f"test {title} of {limit} {floor:g}",
                check="floors",
                verdict="passed" if reached else "failed",
                measured=finite(measured),
                threshold=floor,
                reason=f"{title} is {measured:.3f}, evaluate.floors asks for {limit} {floor:g}"
                if math.isfinite(measured)
                else f"the test rows give {title} no value",
            )
        )
    return checks
