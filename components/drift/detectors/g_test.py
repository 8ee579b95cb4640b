"""The G test: the likelihood ratio, where chi-squared is its approximation."""

from __future__ import annotations

from components.drift.detectors.contingency import contingency, p_value_of, total_variation
from components.drift.detectors.detector import Comparison, Numbers


def g_test(
    reference: Numbers,
    current: Numbers,
    *,
    reference_rows: float | None = None,
    current_rows: float | None = None,
) -> Comparison:
    """Return the G test of homogeneity of two rows of counts; see ``chi_squared``.

    Parameters
    ----------
    reference, current
        Rows by category ``[k]``.
    reference_rows, current_rows
        How many independent rows the samples are worth.

    Raises:
    ------
    ValueError
        A sample is empty.

    Examples:
    --------
    >>> import numpy as np
    >>> found = g_test(np.array([50.0, 50]), np.array([80.0, 20]))
    >>> round(found.statistic, 2), round(found.effect, 2), found.p_value < 0.001
    (20.27, 0.3, True)

    References:
    ----------
    Woolf (1957), Annals of Human Genetics 21; Sokal & Rohlf (1981), Biometry.
    """
    from scipy.special import xlogy

    table, expected = contingency(reference, current, reference_rows, current_rows)
    statistic = float(max(0.0, 2 * xlogy(table, table / expected).sum()))
    effect = total_variation(reference, current)
    return Comparison(statistic, effect, p_value_of(statistic, table))
