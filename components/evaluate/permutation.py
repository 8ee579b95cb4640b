"""Whether errors gather in slices by more than chance, by exchanging them between groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.evaluate.slices import Slice

_AT_ONCE = 100
"""Permutations that are held at a time."""


def slice_p_values(
    slices: Sequence[Slice],
    errors: NDArray[np.float64],
    groups: Sequence[str],
    among: NDArray[np.bool_],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return for each slice how likely chance alone makes its errors so many, ``[slices]``.

    The p-values are one-sided and adjusted for one another: with no slice worse than the
    rest, any of them is below ``alpha`` with a probability of at most ``alpha`` (Westfall &
    Young 1993, the greatest standardised statistic). Errors of whole groups change places
    with those of groups of as many rows; a group of a size of its own stays.

    Args:
        slices: with rows among ``among``.
        errors: of each row ``[n]``, of any sign.
        groups: of each row ``[n]``.
        among: rows to compare a slice with ``[n]``; for slices found from errors the half
            on which they were not found, ``~search_half(groups)``.
        resamples: permutations; no p-value is below ``1 / (resamples + 1)``.
        seed: of the permutations.
    """
    if not slices:
        return np.ones(0)
    members = np.stack([each.rows & among for each in slices], 1).astype(float)
    blocks = _blocks_by_size(np.asarray(groups, dtype=object), among)
    generator = np.random.default_rng(seed)
    sums = np.empty((resamples + 1, len(slices)))
    sums[0] = errors @ members
    for start in range(1, resamples + 1, _AT_ONCE):
        count = min(_AT_ONCE, resamples + 1 - start)
        moved = np.tile(errors, (count, 1))
        for rows in blocks:
            order = np.argsort(generator.random((count, len(rows))), axis=1)
            moved[:, rows] = errors[rows[order]]
        sums[start : start + count] = moved @ members
    spread = sums.std(0)
    standard = np.divide(sums - sums.mean(0), spread, out=np.zeros_like(sums), where=spread > 1e-12)
    greatest = standard[1:].max(1)
    reached = greatest[:, None] >= standard[0] - 1e-9
    return np.asarray((1 + reached.sum(0)) / (resamples + 1))


def _blocks_by_size(
    groups: NDArray[np.object_], among: NDArray[np.bool_]
) -> list[NDArray[np.int64]]:
    """Return the rows ``[m, size]`` of the groups of each size."""
    rows = np.flatnonzero(among)
    _, group_of, sizes = np.unique(
        groups[rows].astype(str), return_inverse=True, return_counts=True
    )
    rows = rows[np.argsort(group_of, kind="stable")]
    starts = np.cumsum(sizes) - sizes
    return [
        rows[starts[sizes == size][:, None] + np.arange(size)].astype(np.int64)
        for size in np.unique(sizes)
    ]
