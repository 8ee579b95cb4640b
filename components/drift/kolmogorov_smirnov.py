"""Two-sample Kolmogorov-Smirnov test against a sorted reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import distributions


def kolmogorov_smirnov(
    reference: NDArray[np.float64], current: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the largest distance between two distribution functions, and its p-value.

    The distance is an effect size by itself, from 0 (the same) to 1 (disjoint). The
    p-value is asymptotic and, with ties, conservative.

    Parameters
    ----------
    reference
        Sorted values ``[n]``.
    current
        Values ``[m]`` in any order.

    Raises:
    ------
    ValueError
        A sample is empty.

    Examples:
    --------
    >>> import numpy as np
    >>> kolmogorov_smirnov(np.arange(100.0), np.arange(100.0))
    (0.0, 1.0)
    >>> distance, p = kolmogorov_smirnov(np.arange(100.0), np.arange(100.0) + 30)
    >>> round(distance, 2), p < 0.001
    (0.3, True)

    References:
    ----------
    Hodges (1958), The significance probability of the Smirnov two-sample test,
    Arkiv för Matematik 3.
    """
    n, m = len(reference), len(current)
    if n == 0 or m == 0:
        raise ValueError("both samples need values")
    current = np.sort(current)
    both = np.concatenate([reference, current])
    below_reference = np.searchsorted(reference, both, side="right") / n
    below_current = np.searchsorted(current, both, side="right") / m
    distance = float(np.abs(below_reference - below_current).max())
    p_value = float(distributions.kstwo.sf(distance, np.round(n * m / (n + m))))
    return distance, min(1.0, max(0.0, p_value))
