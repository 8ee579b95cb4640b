"""Are there far fewer or far more rows than in the windows before?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from components.validate.config import ValidateConfig
from components.validate.sample import Sample


def row_count(sample: Sample, config: ValidateConfig) -> dict[str, str]:
    """Return that the current window is unusually small or large."""
    settings = config.row_count
    earlier = sample.earlier["window"].value_counts()
    current = len(sample.current)
    if len(earlier) < settings.min_windows or current == 0:
        return {}
    usual, p_value = unusual(current, earlier.tolist())
    change = current / usual - 1
    if p_value >= settings.max_p_value or abs(change) < settings.min_change:
        return {}
    return {
        "row-count": f"window {sample.window} has {current:,} good rows, where {usual:,.0f} are "
        f"usual ({change:+.0%}, p {p_value:.1e} against {len(earlier)} windows)"
    }


def unusual(count: int, earlier: Sequence[int]) -> tuple[float, float]:
    """Return the usual number of rows, and how likely one as far from it is by chance.

    A prediction interval for one more value (Hahn & Meeker 1991, Statistical Intervals) on
    logarithms, because counts vary by factors; they never vary less than those of rows that
    come independently, whose logarithm has the variance ``1 / count``.

    Args:
        count: of the window in question.
        earlier: counts of at least two other windows.
    """
    from scipy.stats import t

    logs = np.log(np.asarray(earlier, dtype=np.float64))
    usual = math.exp(logs.mean())
    variance = max(float(logs.var(ddof=1)), 1 / usual)
    error = math.sqrt(variance * (1 + 1 / len(logs)))
    distance = abs(math.log(count) - logs.mean()) / error
    return usual, float(2 * t.sf(distance, len(logs) - 1))
