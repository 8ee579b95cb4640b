"""Can a classifier tell this window's embeddings from the reference's?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from components.drift.detectors.detector import Comparison, refuse_unlike

RIDGE = 1e-2


def domain_classifier(
    reference: NDArray[np.float32],
    current: NDArray[np.float32],
    *,
    reference_groups: NDArray[np.int64] | None = None,
    current_groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Comparison:
    """Return how well a linear classifier tells two samples apart, on rows it did not see.

    Fisher's discriminant learns from a random half of both and ranks the other half, so
    that the area under its ROC curve is 1/2 by chance. Its variance is the jackknife's, a group
    left out at a time, of where each row lies among those of the other side. The statistic is
    that area; the effect ``2 AUC - 1`` is 0 if nothing can be told apart, and 1 if everything can.
    Where one group is all that a side has, nothing can be told.

    Parameters
    ----------
    reference, current
        ``[n, d]`` and ``[m, d]``.
    reference_groups, current_groups
        Number of each row's group ``[n]`` and ``[m]``. A group is in one half only: a
        document that was learnt would be known by its other sentences.
    seed
        Of the halves.

    Raises:
    ------
    ValueError
        A sample has fewer than four rows, or the widths differ.

    Examples:
    --------
    >>> draw = np.random.default_rng(0).normal
    >>> found = domain_classifier(draw(size=(400, 8)), draw(size=(400, 8)))
    >>> abs(found.effect) < 0.2, found.p_value > 0.01
    (True, True)
    >>> found = domain_classifier(draw(size=(400, 8)), draw(0.5, size=(400, 8)))
    >>> found.effect > 0.5, found.p_value < 0.001
    (True, True)

    References:
    ----------
    Lopez-Paz & Oquab (2017), Revisiting classifier two-sample tests, ICLR;
    Obuchowski (1997), Nonparametric analysis of clustered ROC curve data, Biometrics 53;
    Welch (1947) and Satterthwaite (1946), for the degrees of freedom.
    """
    from scipy.special import comb
    from scipy.stats import rankdata
    from scipy.stats import t as student

    refuse_unlike(reference, current)
    generator = np.random.default_rng(seed)
    learnt, ranked, alike = [], [], []
    for side, groups in ((reference, reference_groups), (current, current_groups)):
        # Numbers that both sides share would share their fate: a group that is learnt on the one
        # side whenever it is ranked on the other.
        groups = np.unique(np.arange(len(side)) if groups is None else groups, return_inverse=True)[
            1
        ]
        place = generator.permutation(int(groups.max()) + 1)[groups]
        second = place > np.median(place)
        learnt.append(np.asarray(side, np.float64)[~second])
        ranked.append(np.asarray(side, np.float64)[second])
        alike.append(groups[second])
    if min(len(side) for side in ranked) == 0:  # one group is a side
        return Comparison(0.5, 0.0, 1.0)
    means = [side.mean(0) for side in learnt]
    apart = np.concatenate([side - mean for side, mean in zip(learnt, means, strict=True)])
    within = apart.T @ apart / len(apart)
    width = float(np.trace(within)) / len(within) or 1.0  # 0: each side repeats one row
    direction = np.linalg.solve(within + RIDGE * width * np.eye(len(within)), means[1] - means[0])
    scores = [side @ direction for side in ranked]
    ranks = rankdata(np.concatenate(scores))
    sizes = [len(side) for side in ranked]
    area = float((ranks[sizes[0] :].sum() / sizes[1] - (sizes[1] + 1) / 2) / sizes[0])
    # Where each row lies among the other side's: areas of single rows, so to speak.
    own = [rankdata(side) for side in scores]
    placed = [
        (ranks[: sizes[0]] - own[0]) / sizes[1],
        (ranks[sizes[0] :] - own[1]) / sizes[0],
    ]
    documents = [len(np.unique(groups)) for groups in alike]
    if min(documents) < 2:
        return Comparison(area, 2 * area - 1, 1.0)
    (then, then_freedom), (now, now_freedom) = map(_variance, placed, alike)
    variance = then + now
    # One way among all to part the documents so: no p-value is less.
    least = 1 / float(comb(sum(documents), documents[0]))
    if variance == 0:
        return Comparison(area, 2 * area - 1, least if area > 0.5 else 1.0)
    freedom = variance**2 / (then**2 / then_freedom + now**2 / now_freedom)
    z = (area - 0.5) / math.sqrt(variance)
    return Comparison(area, 2 * area - 1, max(least, float(student.sf(z, freedom))))


def _variance(placed: NDArray[np.float64], groups: NDArray[np.int64]) -> tuple[float, float]:
    """Return the variance of a mean of rows that are alike within groups, and its freedom.

    Groups of unequal sizes tell less of the variance than their number says.
    """
    _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    count, rows = len(sizes), len(placed)
    left_out = np.bincount(member, placed - placed.mean()) / (rows - sizes)
    variance = float(np.square(left_out).sum()) * (count - 1) / count
    return variance, max(1.0, rows**2 / float(np.square(sizes).sum()) - 1)
