"""Paired bootstrap of the difference of macro F1 between two models.

Both models answered the same rows, so a resample is a resample of rows, or of whole
groups where rows of a group are not independent. Macro F1 depends on the rows only
through how often each (label, answer A, answer B) occurs; resampling those counts is
the same experiment and needs no loop over rows.
Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 8 and 13.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class Difference:
    """Macro F1 of B minus that of A, and the bounds of its two-sided interval."""

    estimate: float
    low: float
    high: float
    groups: int
    """Groups that were resampled; the interval of a few means little."""


def f1_difference(
    expected: Classes,
    answers_a: Classes,
    answers_b: Classes,
    groups: npt.NDArray[np.object_],
    *,
    classes: int,
    alpha: float,
    resamples: int,
    seed: int,
) -> Difference:
    """Return macro F1 of B minus macro F1 of A with a percentile interval.

    Args:
        expected: true classes ``[n]``, from 0.
        answers_a: classes that A answers ``[n]``.
        answers_b: classes that B answers ``[n]``.
        groups: the group of each row ``[n]``; groups are resampled whole.
        classes: number of classes.
        alpha: each bound is exceeded with this probability, so that the interval
            covers ``1 - 2 alpha`` and one side tests at level ``alpha``.
        resamples: number of bootstrap resamples.
        seed: of the random numbers.

    Raises:
        ValueError: there are no rows.
    """
    if len(expected) == 0:
        raise ValueError("no rows to compare")
    cells = (expected * classes + answers_a) * classes + answers_b
    names, group_of = np.unique(groups.astype(str), return_inverse=True)
    generator = np.random.default_rng(seed)
    counts = np.bincount(cells, minlength=classes**3).astype(float)
    estimate = float(_difference(counts[None], classes)[0])
    if len(names) == len(expected):
        drawn = generator.multinomial(len(expected), counts / counts.sum(), size=resamples)
        differences = _difference(drawn.astype(float), classes)
    else:
        by_group = np.zeros((len(names), classes**3))
        np.add.at(by_group, (group_of, cells), 1.0)
        used = counts > 0
        parts = []
        for start in range(0, resamples, step := max(1, _CHUNK_CELLS // len(names))):
            size = min(step, resamples - start)
            weights = generator.multinomial(
                len(names), np.full(len(names), 1 / len(names)), size=size
            )
            resampled = np.zeros((size, classes**3))
            resampled[:, used] = weights.astype(float) @ by_group[:, used]
            parts.append(_difference(resampled, classes))
        differences = np.concatenate(parts)
    low, high = np.quantile(differences, [alpha, 1 - alpha])
    return Difference(estimate, float(low), float(high), len(names))


def _difference(counts: Counts, classes: int) -> Counts:
    """Return macro F1 of B minus that of A for counts ``[resamples, classes ** 3]``."""
    cube = counts.reshape(-1, classes, classes, classes)
    return _macro_f1(cube.sum(2)) - _macro_f1(cube.sum(3))


def _macro_f1(confusion: Counts) -> Counts:
    """Return macro F1 for confusion matrices ``[..., expected, answered]``."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(-1) + confusion.sum(-2)
    f1: Counts = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    return np.asarray(f1.mean(-1), dtype=np.float64)
