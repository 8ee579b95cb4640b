"""Paired bootstrap of the difference of macro F1 or R² between two models.

Both models answered the same rows, so a resample is a resample of rows, or of whole
groups where rows of a group are not independent. Macro F1 depends on the rows only
through how often each (label, answer A, answer B) occurs, and R² only through five sums
over rows; resampling those is the same experiment and needs no loop over rows.
Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 8 and 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

Values = npt.NDArray[np.float64]

_CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Difference:
    """Score of B minus that of A, and the bounds of its two-sided interval."""

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
    if len(names) < len(expected):
        by_group = np.zeros((len(names), len(cells)))
        np.add.at(by_group, (group_of, cell_of), 1.0)
        draws = _drawn_groups(by_group, resamples, generator)
    else:
        draws = _drawn_cells(counts, resamples, generator)
    differences = np.concatenate([tables.difference(drawn) for drawn in draws])
    low, high = np.quantile(differences, [alpha, 1 - alpha])
    estimate = float(tables.difference(counts[None].astype(float))[0])
    return Difference(estimate, float(low), float(high), len(names))


def r2_difference(
    expected: Values,
    answers_a: Values,
    answers_b: Values,
    groups: npt.NDArray[np.object_],
    *,
    alpha: float,
    resamples: int,
    seed: int,
) -> Difference:
    """Return R² of B minus R² of A with a percentile interval.

    Where all expected values of a resample are equal, an R² is 1 without any error and
    else 0.

    Args:
        expected: true values ``[n]``.
        answers_a: values that A answers ``[n]``.
        answers_b: values that B answers ``[n]``.
        groups: the group of each row ``[n]``; groups are resampled whole.
        alpha: see ``f1_difference``.
        resamples: number of bootstrap resamples.
        seed: of the random numbers.

    Raises:
        ValueError: there are no rows.
    """
    if len(expected) == 0:
        raise ValueError("no rows to compare")
    # About the mean of all rows: differences of large numbers would eat the digits.
    centred = expected - expected.mean()
    sums = np.stack(
        [
            np.ones(len(expected)),
            centred,
            np.square(centred),
            np.square(answers_a - expected),
            np.square(answers_b - expected),
        ],
        axis=1,
    )
    names, group_of = np.unique(groups.astype(str), return_inverse=True)
    by_group = np.zeros((len(names), sums.shape[1]))
    np.add.at(by_group, group_of, sums)
    draws = _drawn_groups(by_group, resamples, np.random.default_rng(seed))
    differences = np.concatenate([_r2_difference(drawn) for drawn in draws])
    low, high = np.quantile(differences, [alpha, 1 - alpha])
    estimate = float(_r2_difference(sums.sum(0)[None])[0])
    return Difference(estimate, float(low), float(high), len(names))


def _r2_difference(sums: Values) -> Values:
    """Return R² of B minus that of A for sums ``[resamples, 5]`` of rows, y, y² and errors²."""
    rows, total, squares, errors_a, errors_b = sums.T
    spread = squares - np.square(total) / rows
    # What rounding leaves of a spread of nothing.
    varies = spread > 1e-12 * np.maximum(squares, np.finfo(float).tiny)
    ratio = np.divide(errors_a - errors_b, spread, out=np.zeros_like(spread), where=varies)
    without_spread = (errors_b == 0) * 1.0 - (errors_a == 0)
    return np.asarray(np.where(varies, ratio, without_spread), dtype=np.float64)


def _drawn_groups(
    by_group: Values, resamples: int, generator: np.random.Generator
) -> Iterator[Values]:
    """Yield sums ``[some, k]`` over as many groups as there are, drawn with replacement."""
    groups, numbers = by_group.shape
    share = np.full(groups, 1 / groups)
    for size in _sizes(resamples, max(groups, numbers)):
        yield generator.multinomial(groups, share, size=size).astype(float) @ by_group


def _drawn_cells(
    counts: Classes, resamples: int, generator: np.random.Generator
) -> Iterator[Counts]:
    """Yield counts ``[some, cells]`` of as many rows as there are, drawn with replacement."""
    rows = int(counts.sum())
    for size in _sizes(resamples, len(counts)):
        yield generator.multinomial(rows, counts / rows, size=size).astype(float)


def _sizes(resamples: int, numbers: int) -> Iterator[int]:
    """Yield how many resamples of so many numbers to draw at once."""
    chunk = max(1, _CHUNK_NUMBERS // numbers)
    for start in range(0, resamples, chunk):
        yield min(chunk, resamples - start)


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
