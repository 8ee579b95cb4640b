"""Wasserstein distance: how far values would have to be carried."""

from __future__ import annotations

import numpy as np

from components.drift.detectors.detector import Comparison, Numbers

CELLS = 256
"""Steps in which the distribution by chance is summed."""


def wasserstein(
    reference: Numbers,
    current: Numbers,
    *,
    reference_rows: float | None = None,
    current_rows: float | None = None,
) -> Comparison:
    """Return the Wasserstein distance, and how probable it is by chance.

    The effect is the distance in standard deviations of the reference, so that it means
    the same for lengths and for shares. Without a change it is the area under a Brownian
    bridge that follows the pooled distribution; for the p-value an inverse Gaussian takes
    the mean and the variance of that area.

    Parameters
    ----------
    reference
        Sorted values ``[n]``.
    current
        Values ``[m]`` in any order.
    reference_rows, current_rows
        How many independent rows the samples are worth.

    Raises:
    ------
    ValueError
        A sample is empty.

    Examples:
    --------
    >>> found = wasserstein(np.arange(100.0), np.arange(100.0) + 30)
    >>> round(found.statistic, 6), round(found.effect, 2), found.p_value < 0.001
    (30.0, 1.04, True)
    >>> found = wasserstein(np.arange(100.0), np.arange(100.0))
    >>> found.statistic, found.p_value > 0.9
    (0.0, True)

    References:
    ----------
    Johnson & Killeen (1983), An explicit formula for the c.d.f. of the L1 norm of the
    Brownian bridge, Annals of Probability 11; Ramdas, Garcia Trillos & Cuturi
    (2017), On Wasserstein two-sample testing, Entropy 19.
    """
    from scipy.stats import invgauss

    n, m = len(reference), len(current)
    if n == 0 or m == 0:
        raise ValueError("both samples need values")
    both = np.concatenate([reference, current]).astype(np.float64)
    # Within -1 and 1, exactly, so that no power of huge or tiny values overflows or vanishes.
    exponent = int(np.frexp(np.abs(both).max())[1])
    both = np.ldexp(both, -exponent)
    order = np.argsort(both, kind="stable")
    gaps = np.diff(both[order])
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    distance = float(np.abs(np.cumsum(weights[order])[:-1]) @ gaps)
    width = float(gaps.sum())
    if width == 0:  # all values are the same
        return Comparison(0.0, 0.0, 1.0)
    mean, variance = _by_chance(gaps / width)
    scale = np.sqrt(1 / (reference_rows or n) + 1 / (current_rows or m))
    by_chance = invgauss(variance / mean**2, scale=mean**3 / variance)
    p_value = by_chance.sf(distance / width / scale)
    spread = float(both[:n].std()) or float(both.std())
    return Comparison(float(np.ldexp(distance, exponent)), distance / spread, float(p_value))


def _by_chance(gaps: Numbers) -> tuple[float, float]:
    """Return mean and variance of the area under the absolute value of a Brownian bridge.

    Two places of a bridge are normal with a known correlation r, and the expectation of the
    product of two absolute standard normal values is 2 / pi (sqrt(1 - r^2) + r asin r).

    Args:
        gaps: between pooled values in order, the widths of the steps ``[n + m - 1]``.
    """
    cells = np.array_split(np.arange(len(gaps)), min(CELLS, len(gaps)))
    starts = np.array([cell[0] for cell in cells], np.int64)
    share = np.arange(1, len(gaps) + 1) / (len(gaps) + 1)
    spreads = np.add.reduceat(gaps * np.sqrt(share * (1 - share)), starts)
    at = share[np.minimum(starts + np.diff(np.append(starts, len(gaps))) // 2, len(gaps) - 1)]
    earlier, later = np.minimum.outer(at, at), np.maximum.outer(at, at)
    together = np.sqrt(earlier * (1 - later) / (later * (1 - earlier)))
    together = np.minimum(together, 1.0)
    excess = np.sqrt(1 - together**2) + together * np.arcsin(together) - 1
    mean = float(np.sqrt(2 / np.pi) * spreads.sum())
    variance = float(2 / np.pi * spreads @ excess @ spreads)
    return mean, variance
