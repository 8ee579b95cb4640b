"""Is nearly every test row answered rightly, as if contents told the label?

A leak that is in the rows themselves (a label written into the text, a file name in the
image) is in training, validation and test rows alike, so that no gap between them shows it.
"""

from __future__ import annotations

import numpy as np

from components.evaluate.check import Check
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam
from components.proportion import upper_bound


def suspicious(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return whether errors are shown to be fewer than rows of this world usually have.

    A group of rows counts once, so that it takes some three hundred without any error.
    """
    test = exam.of("test")
    errors, limit = exam.errors["challenger"][test], config.leak.suspicious_score
    measured = 1 - float(errors.mean())
    groups = len(np.unique(exam.groups(test).astype(str)))
    low = 1 - float(upper_bound(float(errors.mean()) * groups, groups, 1 - config.alpha))
    found = low > limit
    return [
        Check(
            name="suspicious",
            check="suspicious",
            verdict="failed" if found else "passed",
            measured=measured,
            low=low,
            threshold=limit,
            reason=f"too good to be true, do contents tell the label? test rows {measured:.4f}"
            if found
            else f"test rows {measured:.3f}: not suspiciously good",
        )
    ]
