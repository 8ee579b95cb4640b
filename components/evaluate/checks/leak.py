"""Is the test score too good to be true, as if test rows had been trained on?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate.check import Check, skipped
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam

_ROUNDING = 1e-6


def leak(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return whether test rows are answered far better than validation rows."""
    test, valid = exam.of("test"), exam.of("valid")
    if not valid.any():
        return [skipped("leak", "there are no validation rows")]
    errors = exam.errors["challenger"]
    gap, p_value = better_than(errors[test], exam.groups(test), errors[valid], exam.groups(valid))
    settings = config.leak
    found = gap > settings.min_gap and p_value < settings.max_p_value
    scores = (
        f"test rows {1 - errors[test].mean():.3f}, validation rows {1 - errors[valid].mean():.3f}"
    )
    return [
        Check(
            name="leak",
            check="leak",
            verdict="failed" if found else "passed",
            measured=gap,
            threshold=settings.min_gap,
            reason=f"too good to be true, were test rows trained on? {scores}, p {p_value:.1e}"
            if found
            else f"no sign that test rows were trained on: {scores}",
        )
    ]


def better_than(
    errors: NDArray[np.float64],
    groups: NDArray[Any],
    other_errors: NDArray[np.float64],
    other_groups: NDArray[Any],
) -> tuple[float, float]:
    """Return by how much the mean error is below another one, and how likely that is by chance.

    Fisher's exact test (1935), for few rows of which hardly any is wrong are far from normal.
    A sample counts for as many independent rows, each right or wrong, as would tell as much:
    fewer if the rows of a group are alike (the design effect of cluster sampling, Kish 1965),
    more if errors vary less than wrong and right ones do. Fractions are rounded to the safe
    side. No group is in both samples.

    Args:
        errors: of the rows that may be too good ``[n]``.
        groups: of these ``[n]``.
        other_errors: of the others ``[m]``.
        other_groups: of the others ``[m]``.
    """
    from scipy.stats import hypergeom

    gap = float(other_errors.mean() - errors.mean())
    everything = np.concatenate([errors, other_errors])
    residuals = everything - everything.mean()
    names = [f"a{each}" for each in groups] + [f"b{each}" for each in other_groups]
    _, group_of = np.unique(names, return_inverse=True)
    squares = float(np.square(residuals).sum())
    if squares == 0:
        return gap, 1.0
    design = max(1.0, float(np.square(np.bincount(group_of, residuals)).sum()) / squares)
    mean = float(everything.mean())
    worth = len(everything) * mean * (1 - mean) / squares / design
    rows, others = (max(1, round(worth * len(each))) for each in (errors, other_errors))
    wrong = min(rows, math.ceil(worth * float(errors.sum()) - _ROUNDING))
    wrong_others = min(others, math.floor(worth * float(other_errors.sum()) + _ROUNDING))
    return gap, float(hypergeom.cdf(wrong, rows + others, wrong + wrong_others, rows))
