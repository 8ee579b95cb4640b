"""Do the labels have other shares than in the windows before?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.distribution import effective_category_rows
from components.validate.config import ValidateConfig
from components.validate.sample import Sample


def balance(sample: Sample, config: ValidateConfig) -> dict[str, str]:
    """Return that a label is gone, or that the shares of the labels moved."""
    current, earlier, task = sample.current, sample.earlier, sample.task
    if current.empty or earlier.empty:
        return {}
    now, then = (task.label_counts(each["label"]) for each in (current, earlier))
    names = sorted({*now, *then})
    counts = np.array([[side.get(name, 0) for name in names] for side in (now, then)], float)
    found = {}
    gone = [name for name in names if counts[0][names.index(name)] == 0]
    usual = {name: counts[1][names.index(name)] / counts[1].sum() for name in gone}
    # So many rows would have been expected that none is no accident.
    missed = [name for name in gone if usual[name] * counts[0].sum() > 10]
    if missed:
        found["label-gone"] = f"window {sample.window} has no row with {', '.join(missed)}"
    worth = []
    for side in (current, earlier):
        groups = np.unique(side["group"].fillna("").to_numpy(str), return_inverse=True)[1]
        rows = effective_category_rows(side["label"], groups) if task.label_names else len(side)
        worth.append(rows / len(side))
    change, p_value = moved(counts, np.array(worth))
    settings = config.balance
    if change >= settings.min_change and p_value < settings.max_p_value:
        shares = counts / counts.sum(1, keepdims=True)
        most = int(np.abs(shares[0] - shares[1]).argmax())
        found["balance"] = (
            f"{change:.0%} of the labels of window {sample.window} are other than before, most of "
            f"all {names[most]}: {shares[0][most]:.0%}, was {shares[1][most]:.0%} (p {p_value:.1e})"
        )
    return found


def moved(counts: NDArray[np.float64], worth: NDArray[np.float64]) -> tuple[float, float]:
    """Return the total variation distance of two sides, and how likely it is by chance.

    Pearson's chi-squared test of homogeneity, on counts scaled to independent rows (Rao &
    Scott 1981, first order).

    Args:
        counts: rows by side and label ``[2, k]``.
        worth: how many independent rows a row of each side is worth ``[2]``.
    """
    from scipy.stats import chi2_contingency

    shares = counts / counts.sum(1, keepdims=True)
    change = float(np.abs(shares[0] - shares[1]).sum() / 2)
    scaled = (counts * worth[:, None])[:, counts.sum(0) > 0]
    if scaled.shape[1] < 2:
        return change, 1.0
    return change, float(chi2_contingency(scaled, correction=False).pvalue)
