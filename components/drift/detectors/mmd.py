"""Maximum mean discrepancy (MMD) of embeddings, in a time linear in the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.distribution import effective_rows
from components.drift.detectors.detector import Comparison, refuse_unlike

BANDWIDTH_ROWS = 200
LOOKED_AT = 16
"""So many components tell how alike the rows of a group are."""


def mmd(
    reference: NDArray[np.float32],
    current: NDArray[np.float32],
    *,
    reference_groups: NDArray[np.int64] | None = None,
    current_groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Comparison:
    """Return the squared maximum mean discrepancy with a Gaussian kernel.

    It sees any change of the joint distribution, where tests of single components see
    each by itself. Every row is used in one of ``min(n, m) / 2`` terms, which are
    independent, so that their mean is normal. The width of the kernel is the median
    distance between rows of both samples that differ.

    Parameters
    ----------
    reference, current
        ``[n, d]`` and ``[m, d]``.
    reference_groups, current_groups
        Number of each row's group ``[n]`` and ``[m]``; rows of a group count as fewer.
    seed
        Of the pairing.

    Raises:
    ------
    ValueError
        A sample has fewer than four rows, or the widths differ.

    Examples:
    --------
    >>> draw = np.random.default_rng(0).normal
    >>> found = mmd(draw(size=(400, 8)), draw(size=(400, 8)))
    >>> abs(found.effect) < 0.05, found.p_value > 0.05
    (True, True)
    >>> found = mmd(draw(size=(400, 8)), draw(0.5, size=(400, 8)))
    >>> found.effect > 0.05, found.p_value < 0.001
    (True, True)

    References:
    ----------
    Gretton et al. (2012), A kernel two-sample test, Journal of Machine Learning Research
    13, section 6.
    """
    from scipy.spatial.distance import pdist
    from scipy.stats import norm

    refuse_unlike(reference, current)
    generator = np.random.default_rng(seed)
    x, y = (
        np.asarray(side, np.float64)[generator.permutation(len(side))]
        for side in (reference, current)
    )
    apart = pdist(np.concatenate([x[:BANDWIDTH_ROWS], y[:BANDWIDTH_ROWS]]))
    if not apart.any():  # all rows are the same
        return Comparison(0.0, 0.0, 1.0)
    # Rows that come again and again are no scale to measure by.
    width = float(np.median(apart[apart > 0]))
    half = min(len(x), len(y)) // 2

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.exp(-np.square(a - b).sum(1) / (2 * width**2)))

    x1, x2, y1, y2 = x[:half], x[half : 2 * half], y[:half], y[half : 2 * half]
    terms = kernel(x1, x2) + kernel(y1, y2) - kernel(x1, y2) - kernel(x2, y1)
    discrepancy = float(terms.mean())
    worth = min(_worth(reference, reference_groups), _worth(current, current_groups))
    error = float(terms.std(ddof=1)) / np.sqrt(worth * half)
    if error == 0:  # each side repeats one row
        return Comparison(discrepancy, discrepancy, 0.0 if discrepancy > 0 else 1.0)
    return Comparison(discrepancy, discrepancy, float(norm.sf(discrepancy / error)))


def _worth(vectors: NDArray[np.float32], groups: NDArray[np.int64] | None) -> float:
    """Return the share of rows that count as independent: the mean over some components."""
    if groups is None:
        return 1.0
    chosen = vectors[:, :: max(1, vectors.shape[1] // LOOKED_AT)].astype(np.float64)
    return float(np.mean([effective_rows(each, groups) for each in chosen.T])) / len(vectors)
