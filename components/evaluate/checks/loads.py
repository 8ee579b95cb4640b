"""Does the challenger load, and answer every row with finite numbers?"""

from __future__ import annotations

from components.evaluate.check import Check
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam


def loads(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return that it does, or what went wrong."""
    asked = len(exam.rows)
    reason = exam.broken or f"the challenger loads and answers all of {asked:,} rows"
    verdict = "failed" if exam.broken else "passed"
    return [Check(name="loads", check="loads", verdict=verdict, reason=reason)]
