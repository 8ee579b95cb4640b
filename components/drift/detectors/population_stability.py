"""Population stability index (PSI), the number that credit scoring watches."""

from __future__ import annotations

import numpy as np

from components.drift.detectors.contingency import contingency, p_value_of
from components.drift.detectors.detector import Comparison, Numbers


def population_stability(
    reference: Numbers,
    current: Numbers,
    *,
    reference_rows: float | None = None,
    current_rows: float | None = None,
) -> Comparison:
    """Return the population stability index, and how probable it is by chance.

    The index is an effect size: by custom 0.1 is worth a look and 0.25 a change. It is
    never read without its p-value, because of few rows it is large by chance: times the
    harmonic number of rows it is chi-squared with ``k - 1`` degrees of freedom.

    Parameters
    ----------
    reference, current
        Rows by category ``[k]``, or by ``binned`` values. Half a row is added to each, so
        that a category that is new or gone leaves the index finite.
    reference_rows, current_rows
        How many independent rows the samples are worth.

    Raises:
    ------
    ValueError
        A sample is empty.

    Examples:
    --------
    >>> found = population_stability(np.array([500.0, 500]), np.array([800.0, 200]))
    >>> round(found.effect, 2), found.p_value < 0.001
    (0.41, True)
    >>> population_stability(np.array([50.0, 50]), np.array([5.0, 5])).effect
    0.0

    References:
    ----------
    Yurdakul & Naranjo (2020), Statistical properties of the population stability index,
    Journal of Risk Model Validation 14.
    """
    table, _ = contingency(reference, current, reference_rows, current_rows)
    shares = (table + 0.5) / (table + 0.5).sum(1, keepdims=True)
    index = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    rows = table.sum(1).prod() / table.sum()
    return Comparison(index, index, p_value_of(index * rows, table))
