"""Whether some kind of row fell behind the others: a country, an age, a product.

The gate looks at fairness before a champion is promoted; this looks at it since. A model whose
errors rise for all is seen by its performance. One that gets worse for a few is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from components.distribution import effective_rows
from components.drift.detectors.detector import Comparison

GAP = "fairness-gap"
MIN_ROWS = 30
"""Of a kind, then and now, and of all others; fewer say nothing about an error rate."""


def fallen_behind(
    then: Mapping[str, tuple[float, int]],
    kinds: Sequence[str],
    errors: NDArray[np.float64],
    groups: NDArray[np.int64],
) -> tuple[str, Comparison] | None:
    """Return the kind of row that fell behind all others most surely.

    The gap of a kind is its mean error minus that of all others; what is tested is that the gap
    grew. Errors lie between 0 and 1, so that their variance is at most that of a share; with
    one right and one wrong row added on each side (Agresti & Caffo 2000,
    https://doi.org/10.1080/00031305.2000.10474560). The p-value is one-sided and counts, by
    Bonferroni, that the worst of several kinds was picked.

    Args:
        then: mean error and number of validation rows of each kind.
        kinds: of each labelled row since ``[n]``.
        errors: of each of them ``[n]``, 0 to 1.
        groups: number of the group of each ``[n]``; rows of a group are alike.

    Returns:
        The kind, and by how much its gap grew; None where no kind has rows enough.
    """
    from scipy.special import ndtr

    named = np.asarray(kinds, dtype=object)
    worth = effective_rows(errors, groups) / max(1, len(errors))
    every = [(mean * rows, rows) for mean, rows in then.values()]
    wrong_then, rows_then = (sum(side) for side in zip(*every, strict=True)) if every else (0, 0)
    tested = []
    for kind, (mean, rows) in then.items():
        inside = named == kind
        sides = (
            (mean * rows, rows),
            (wrong_then - mean * rows, rows_then - rows),
            (float(errors[inside].sum()) * worth, float(inside.sum()) * worth),
            (float(errors[~inside].sum()) * worth, float((~inside).sum()) * worth),
        )
        if min(count for _, count in sides) < MIN_ROWS:
            continue
        rates = [(wrong + 1) / (count + 2) for wrong, count in sides]
        of_then, of_others_then, of_now, of_others_now = rates
        growth = (of_now - of_others_now) - (of_then - of_others_then)
        variances = (p * (1 - p) / (n + 2) for p, (_, n) in zip(rates, sides, strict=True))
        tested.append((growth / math.sqrt(sum(variances)), growth, kind))
    if not tested:
        return None
    z, growth, kind = max(tested)
    p_value = min(1.0, len(tested) * float(ndtr(-z)))
    return kind, Comparison(statistic=z, effect=max(0.0, growth), p_value=p_value)
