"""Pearson's chi-squared test: do categories come as often as before?"""

from __future__ import annotations

import numpy as np

from components.drift.detectors.detector import Comparison, Numbers

MIN_EXPECTED = 5.0
"""Categories with fewer expected rows on a side are taken together (Cochran 1954)."""


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


def contingency(
    reference: Numbers, current: Numbers, reference_rows: float | None, current_rows: float | None
) -> tuple[Numbers, Numbers]:
    """Return observed and expected counts ``[2, k]`` of independent rows, rare ones together.

    Without two categories left ``k`` is 1, and nothing can be told.
    """
    if min(reference.sum(), current.sum()) <= 0:
        raise ValueError("both samples need rows")
    table = np.stack(
        [
            reference / reference.sum() * (reference_rows or reference.sum()),
            current / current.sum() * (current_rows or current.sum()),
        ]
    )
    table = table[:, table.sum(0) > 0]
    order = np.argsort(-table.sum(0), kind="stable")
    table = table[:, order]
    share = table.sum(1) / table.sum()
    rare = table.sum(0) * share.min() < MIN_EXPECTED
    if rare.any():
        table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], axis=1)
        if table.shape[1] > 1 and table[:, -1].sum() * share.min() < MIN_EXPECTED:
            table = np.concatenate([table[:, :-2], table[:, -2:].sum(1, keepdims=True)], axis=1)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    return table, expected


def p_value_of(statistic: float, table: Numbers) -> float:
    """Return how probable so large a chi-squared of a table ``[2, k]`` is by chance."""
    from scipy.stats import chi2

    freedom = table.shape[1] - 1
    return float(chi2.sf(statistic, freedom)) if freedom else 1.0


def total_variation(reference: Numbers, current: Numbers) -> float:
    """Return half the sum of the differences of shares, 0 to 1."""
    return float(np.abs(reference / reference.sum() - current / current.sum()).sum() / 2)
