"""Exact confidence bounds of a share: so many hits in so many rows.

The bounds of Clopper & Pearson (1934, https://doi.org/10.1093/biomet/26.4.404) hold for
any number of rows, also where no row or every row is a hit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def lower_bound(hits: ArrayLike, rows: ArrayLike, confidence: float) -> NDArray[np.float64]:
    """Return what a share exceeds with a confidence, one-sided; 0 without hits.

    Args:
        hits: ``[...]``, not more than ``rows``; a fraction of a row is allowed, for rows
            that count less because they resemble each other.
        rows: ``[...]``.
        confidence: probability that the true share is at least the bound, 0 to 1.
    """
    from scipy.stats import beta

    hits, rows = np.asarray(hits, float), np.asarray(rows, float)
    found = hits > 0
    bound = beta.ppf(1 - confidence, np.where(found, hits, 1), rows - hits + 1)
    return np.where(found, bound, 0.0)


def upper_bound(hits: ArrayLike, rows: ArrayLike, confidence: float) -> NDArray[np.float64]:
    """Return what a share stays below with a confidence, one-sided; see ``lower_bound``."""
    hits, rows = np.asarray(hits, float), np.asarray(rows, float)
    return 1 - lower_bound(rows - hits, rows, confidence)
