"""Page-Hinkley test: does the mean of a stream rise?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def page_hinkley(
    values: NDArray[np.float64],
    *,
    delta: float,
    threshold: float,
    min_values: int = 30,
    prior_mean: float = 0.0,
    prior_count: int = 0,
) -> tuple[int | None, NDArray[np.float64]]:
    """Return the index of the first alarm, None without one, and the statistic over time.

    The statistic sums how far each value lies above the running mean plus a tolerance,
    and measures how far that sum has risen from its lowest point.

    Parameters
    ----------
    values
        The stream ``[n]`` in the order of time, such as errors (0 or 1).
    delta
        Rise of the mean that is tolerated.
    threshold
        Alarm when the statistic exceeds it. Higher means fewer false alarms and a
        longer delay.
    min_values
        No alarm before so many values.
    prior_mean, prior_count
        What is known from before: the running mean starts as if ``prior_count`` values
        of mean ``prior_mean`` had come already, so that a stream that is bad from its
        first value is seen as well. None by default, which is the classic test.

    Examples:
    --------
    >>> import numpy as np
    >>> calm = np.zeros(200)
    >>> page_hinkley(calm, delta=0.05, threshold=20)[0] is None
    True
    >>> page_hinkley(np.append(calm, np.ones(100)), delta=0.05, threshold=20)[0]
    222

    References:
    ----------
    Page (1954), Continuous inspection schemes, Biometrika 41.
    """
    if len(values) == 0:
        return None, np.zeros(0)
    count = np.arange(1, len(values) + 1)
    running_mean = (prior_mean * prior_count + np.cumsum(values)) / (prior_count + count)
    total = np.cumsum(values - running_mean - delta)
    statistic = total - np.minimum.accumulate(total)
    alarms = np.flatnonzero((statistic > threshold) & (count >= min_values))
    return (int(alarms[0]) if len(alarms) else None), statistic
