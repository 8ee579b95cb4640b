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

_CHUNK_NUMBERS = 4_000_000


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
    # Only the combinations that occur take part: with many classes most of them do not.
    cells, cell_of = np.unique(
        (expected * classes + answers_a) * classes + answers_b, return_inverse=True
    )
    tables = _Tables.of(cells, classes)
    counts = np.bincount(cell_of, minlength=len(cells))
    names, group_of = np.unique(groups.astype(str), return_inverse=True)
    generator = np.random.default_rng(seed)
    grouped = len(names) < len(expected)
    by_group = np.zeros((len(names), len(cells)) if grouped else (0, 0))
    if grouped:
        np.add.at(by_group, (group_of, cell_of), 1.0)
    chunk = max(1, _CHUNK_NUMBERS // max(len(cells), len(names) if grouped else 1))
    differences = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        if grouped:
            share = np.full(len(names), 1 / len(names))
            drawn = generator.multinomial(len(names), share, size=size).astype(float) @ by_group
        else:
            share = counts / counts.sum()
            drawn = generator.multinomial(len(expected), share, size=size).astype(float)
        differences.append(tables.difference(drawn))
    low, high = np.quantile(np.concatenate(differences), [alpha, 1 - alpha])
    estimate = float(tables.difference(counts[None].astype(float))[0])
    return Difference(estimate, float(low), float(high), len(names))


@dataclass(frozen=True)
class _Tables:
    """Which class a combination of (label, answer A, answer B) counts for, ``[cells, classes]``."""

    expected: Counts
    answered_a: Counts
    answered_b: Counts

    @classmethod
    def of(cls, cells: Classes, classes: int) -> _Tables:
        one = np.eye(classes)
        return cls(one[cells // classes**2], one[cells // classes % classes], one[cells % classes])

    def difference(self, counts: Counts) -> Counts:
        """Return macro F1 of B minus that of A for counts ``[resamples, cells]``."""
        expected = counts @ self.expected
        return self._macro_f1(counts, expected, self.answered_b) - self._macro_f1(
            counts, expected, self.answered_a
        )

    def _macro_f1(self, counts: Counts, expected: Counts, answered: Counts) -> Counts:
        hits = counts @ (self.expected * answered)
        total = expected + counts @ answered
        f1: Counts = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
        return np.asarray(f1.mean(-1), dtype=np.float64)
