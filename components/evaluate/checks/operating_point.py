"""Does the challenger reach, on rows that chose nothing, what its operating point is for?

The point was chosen on validation rows, which is why it looks best there. An aim that is
missed by no more than chance explains is undecided; bounds are exact for independent rows.
"""

from __future__ import annotations

import numpy as np

from components.evaluate.check import Check, Standing, skipped
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam
from components.proportion import lower_bound, upper_bound


def operating_point(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return a check of the recall or precision that is aimed at, and one of the accuracy."""
    rule = exam.rules.get("challenger")
    if rule is None:
        reason = "the challenger has none, or its labels are not those that are compared"
        found = skipped("operating_point", reason)
        is_asked = "operating_point" in config.required
        return [found.model_copy(update={"verdict": "undecided"}) if is_asked else found]
    aim, answered = rule.aim, exam.scored("challenger", exam.of("test"))
    right = answered.decisions == answered.targets
    checks = []
    if aim.aim in ("recall", "precision"):
        given = answered.targets if aim.aim == "recall" else answered.decisions
        among = given == exam.labels.index(aim.label)
        what = f"{aim.aim} of {aim.label!r}"
        checks.append(_check(what, right[among], aim.at_least, aim.confidence))
    if aim.answered_accuracy is not None:
        left = exam.abstained.get("challenger", np.zeros(len(exam.rows), dtype=bool))
        among = ~left[exam.of("test")]
        what = f"accuracy of the {among.mean():.1%} of rows that are answered"
        checks.append(_check(what, right[among], aim.answered_accuracy, aim.confidence))
    return checks or [skipped("operating_point", "finetune.operating_point asks for no share")]


def _check(what: str, right: np.ndarray, wanted: float, confidence: float) -> Check:
    hits, rows = int(right.sum()), len(right)
    name = f"test {what}"
    if rows == 0:
        reason = f"no test row gives the {what} a value"
        return Check(name=name, check="operating_point", verdict="undecided", reason=reason)
    measured, low, high = (
        hits / rows,
        float(lower_bound(hits, rows, confidence)),
        float(upper_bound(hits, rows, confidence)),
    )
    verdict: Standing = "passed"
    if measured < wanted:
        verdict = "failed" if high < wanted else "undecided"
    words = {
        "passed": "is reached",
        "failed": "is missed",
        "undecided": "is missed, perhaps by chance",
    }
    return Check(
        name=name,
        check="operating_point",
        verdict=verdict,
        measured=measured,
        low=low,
        high=high,
        threshold=wanted,
        reason=f"the aim {words[verdict]}: {what} is {measured:.3f} [{low:.3f}, {high:.3f}] on "
        f"{rows:,} rows, finetune.operating_point asks for {wanted:g}",
    )
