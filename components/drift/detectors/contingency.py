"""Rows by category on two sides: what the tests of categories have in common."""

from __future__ import annotations

import numpy as np

from components.drift.detectors.detector import Numbers

MIN_EXPECTED = 5.0
"""Categories with fewer expected rows on a side are taken together (Cochran 1954)."""


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
