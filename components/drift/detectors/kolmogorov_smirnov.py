"""Two-sample Kolmogorov-Smirnov test against a sorted reference."""

from __future__ import annotations

import warnings

import numpy as np

from components.drift.detectors.detector import Comparison, Numbers

FEW_ROWS = 1000
EXACT_ROWS = 10_000
"""Up to so many rows on each side the p-value is exact, as scipy's ``method="auto"`` has it."""


def kolmogorov_smirnov(
    reference: Numbers,
    current: Numbers,
    *,
    reference_rows: float | None = None,
    current_rows: float | None = None,
) -> Comparison:
    """Return the largest distance between two distribution functions, and its p-value.

    The distance is an effect size by itself, from 0 (the same) to 1 (disjoint). The
    p-value is scipy's: exact for small samples without ties, Hodges' approximation for
    large ones, and conservative with ties.

    Only the current values are sorted, and looked up in the reference: between two of
    them their own distribution function does not change, so that the distance is largest
    at one of them or just before it.

    Parameters
    ----------
    reference
        Sorted values ``[n]``.
    current
        Values ``[m]`` in any order.
    reference_rows, current_rows
        How many independent rows the samples are worth, for the p-value.

    Raises:
    ------
    ValueError
        A sample is empty.

    Examples:
    --------
    >>> found = kolmogorov_smirnov(np.arange(100.0), np.arange(100.0))
    >>> found.statistic, found.p_value
    (0.0, 1.0)
    >>> found = kolmogorov_smirnov(np.arange(100.0), np.arange(100.0) + 30)
    >>> round(found.effect, 2), found.p_value < 0.001
    (0.3, True)

    References:
    ----------
    Hodges (1958), The significance probability of the Smirnov two-sample test,
    Arkiv för Matematik 3.
    """
    n, m = len(reference), len(current)
    distance = ks_distance(reference, current)
    known = (reference_rows or n), (current_rows or m)
    if known == (n, m) and max(n, m) <= EXACT_ROWS:
        p_value = _exact(reference, current)
    else:
        p_value = ks_p_value(distance, *known)
    return Comparison(distance, distance, p_value)


def ks_distance(reference: Numbers, current: Numbers) -> float:
    """Return the largest distance alone, see ``kolmogorov_smirnov``."""
    n, m = len(reference), len(current)
    if n == 0 or m == 0:
        raise ValueError("both samples need values")
    current = np.sort(current)
    upto = np.searchsorted(reference, current, side="right")
    tied = (reference.take(upto - 1, mode="wrap") == current).any()
    before = np.searchsorted(reference, current, side="left") if tied else upto
    # In whole numbers, n m times the distance, so that nothing is rounded.
    own = np.arange(0, n * m, n)
    below = int((before * m - own).max())
    upto *= m
    own -= upto
    above = int(own.max()) + n
    return max(0, above, below) / (n * m)


def ks_p_value(distance: float, reference_rows: float, current_rows: float) -> float:
    """Return the approximate p-value of a distance between so many independent rows."""
    from scipy.stats import kstwo

    rows = max(1, round(reference_rows * current_rows / (reference_rows + current_rows)))
    # From here on scipy doubles Smirnov's one-sided sum as well, term by term, which takes a
    # hundred milliseconds of a hundred thousand rows.
    if rows > FEW_ROWS and 2.2 <= rows * distance**2 < 300 and distance < 0.5:
        return min(1.0, 2 * _smirnov(rows, distance))
    return float(np.clip(kstwo.sf(distance, rows), 0, 1))


def _smirnov(rows: int, distance: float) -> float:
    """Return how probable a one-sided distance is, to nine digits.

    Birnbaum & Tingey (1951), One-sided confidence contours for probability distribution
    functions, Annals of Mathematical Statistics 22.
    """
    from scipy.special import gammaln

    at = np.arange(int(rows * (1 - distance)) + 1, dtype=np.float64)
    above = distance + at / rows
    at, above = at[above < 1], above[above < 1]
    choices = gammaln(rows + 1) - gammaln(at + 1) - gammaln(rows - at + 1)
    terms = choices + (at - 1) * np.log(above) + (rows - at) * np.log1p(-above)
    return float(distance * np.exp(terms).sum())


def _exact(reference: Numbers, current: Numbers) -> float:
    from scipy.stats import ks_2samp

    with warnings.catch_warnings():
        # Where the exact sum overflows, scipy says so and approximates.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ks_2samp(reference, current).pvalue)
