"""Pearson's chi-squared test: do categories come as often as before?"""

from __future__ import annotations

import numpy as np

from components.drift.detectors.contingency import contingency, p_value_of, total_variation
from components.drift.detectors.detector import Comparison, Numbers


def chi_squared(
    reference: Numbers,
    current: Numbers,
    *,
    reference_rows: float | None = None,
    current_rows: float | None = None,
) -> Comparison:
    """Return the chi-squared test of homogeneity of two rows of counts.

    The effect is the total variation distance: the share of rows that would have to
    change their category, from 0 (the same) to 1 (disjoint).

    Parameters
    ----------
    reference, current
        Rows by category ``[k]``, the same categories on both sides. A category that is
        new, or gone, has a count of 0 on one of them.
    reference_rows, current_rows
        How many independent rows the samples are worth.

    Raises:
    ------
    ValueError
        A sample is empty.

    Examples:
    --------
    >>> found = chi_squared(np.array([50.0, 50]), np.array([80.0, 20]))
    >>> round(found.statistic, 2), round(found.effect, 2), found.p_value < 0.001
    (19.78, 0.3, True)
    >>> chi_squared(np.array([50.0, 50]), np.array([5.0, 5])).p_value
    1.0

    References:
    ----------
    Pearson (1900), Philosophical Magazine 50; Cochran (1954), Biometrics 10.
    """
    table, expected = contingency(reference, current, reference_rows, current_rows)
    statistic = float((np.square(table - expected) / expected).sum())
    effect = total_variation(reference, current)
    return Comparison(statistic, effect, p_value_of(statistic, table))
