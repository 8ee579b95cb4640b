"""What chance makes of a difference: the gains of resampled groups, and of models that swap.

Groups are resampled, and change sides, whole: their rows are no independent evidence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from components.evaluate.curves import Counts, Curve, Floats
from components.evaluate.metrics import LabelSums, Measure, Ranking, Sums

FLIPS = 9_999
_BLOCK_NUMBERS = 500_000
_MAX_THREADS = 4


def permutation_test(
    contributions: Floats, *, seed: int, flips: int = FLIPS
) -> tuple[Floats, Floats]:
    """Return the p-values of sums above zero and of sums below it ``[k]``.

    A swap of the models in a group turns the sign of what the group adds. If the models are
    exchangeable, all signs are equally likely, and the level is exact for any number of
    groups; if they are merely equally good, it is right for many groups, because the squares
    that the sum is measured by stay what they are (Canay, Romano & Shaikh 2017,
    https://doi.org/10.3982/ECTA13081).

    Args:
        contributions: of each group to each gain ``[groups, k]``.
        seed: of the signs.
        flips: how many times they are drawn.
    """
    generator = np.random.default_rng((seed, 1))
    moving = contributions[(contributions != 0).any(1)]
    groups, tests = moving.shape
    total, size = moving.sum(0), np.abs(moving).sum(0)
    # Sums that differ by rounding are equal, which is evidence for neither.
    slack = 1e-7 * size
    above, below = np.ones(tests), np.ones(tests)
    for some in _sizes(flips, groups):
        bits = generator.integers(0, 256, (some, -(-groups // 8)), dtype=np.uint8)
        kept = np.unpackbits(bits, axis=1, count=groups).astype(np.float64) @ moving
        turned = 2 * kept - total
        above += (turned >= total - slack).sum(0)
        below += (turned <= total + slack).sum(0)
    return above / (flips + 1), below / (flips + 1)


def numbered(groups: NDArray[Any] | None, rows: int) -> tuple[NDArray[np.int64], int]:
    """Return the number of each row's group ``[n]`` and how many groups there are."""
    if groups is not None:
        names, group_of = np.unique(groups.astype(str), return_inverse=True)
        if len(names) < rows:
            return group_of, len(names)
    return np.arange(rows), rows


def by_group(values: Floats, group_of: NDArray[np.int64], count: int) -> Floats:
    """Return sums over the rows of each group: ``[groups]`` of ``[n]``, or with columns."""
    from scipy.sparse import csr_matrix

    rows = len(group_of)
    if count == rows:
        return values
    member = csr_matrix((np.ones(rows), (group_of, np.arange(rows))), shape=(count, rows))
    return np.asarray(member @ values)


def replicates(
    pairs: Sequence[tuple[Measure, Measure]],
    group_of: NDArray[np.int64],
    count: int,
    resamples: int,
    seed: int,
) -> Floats:
    """Return scores of the second model minus the first of resamples ``[resamples, k]``."""
    cells = [isinstance(a, LabelSums) and count == len(group_of) for a, _ in pairs]
    out = np.empty((resamples, len(pairs)))
    for resample, chosen in ((_cell_replicates, cells), (_row_replicates, np.invert(cells))):
        columns = np.flatnonzero(chosen)
        if len(columns):
            generator = np.random.default_rng((seed, 0))
            some = cast(Any, [pairs[index] for index in columns.tolist()])
            out[:, columns] = resample(some, group_of, count, resamples, generator)
    return out


def _cell_replicates(
    pairs: Sequence[tuple[LabelSums, LabelSums]],
    group_of: NDArray[np.int64],
    count: int,
    resamples: int,
    generator: np.random.Generator,
) -> Floats:
    """Resample independent rows by how often each truth with two answers to it occurs."""
    a, b = pairs[0]
    both = np.stack([a.cells, b.cells], axis=1)
    _, first, counts = np.unique(both, axis=0, return_index=True, return_counts=True)
    parts = []
    for size in _sizes(resamples, len(counts)):
        drawn = generator.multinomial(count, counts / count, size).astype(np.float64)
        sums_a, sums_b = drawn @ a.columns[first], drawn @ b.columns[first]
        parts.append(np.stack([b.finish(sums_b) - a.finish(sums_a) for a, b in pairs], axis=1))
    return np.concatenate(parts)


def _row_replicates(
    pairs: Sequence[tuple[Measure, Measure]],
    group_of: NDArray[np.int64],
    count: int,
    resamples: int,
    generator: np.random.Generator,
) -> Floats:
    """Resample groups, each of which brings its sums, and its rows to be ranked."""
    tables: list[Floats] = []
    place: dict[int, tuple[slice, slice]] = {}
    width = 0
    for a, b in pairs:
        if isinstance(a, Sums) and isinstance(b, Sums) and id(a.columns) not in place:
            # Models that answer alike differ by 0 then, and not by what rounding leaves.
            tables += [a.columns, b.columns - a.columns]
            size = a.columns.shape[1]
            place[id(a.columns)] = (
                slice(width, width + size),
                slice(width + size, width + 2 * size),
            )
            width += 2 * size
    ranked = any(isinstance(a, Ranking) for a, _ in pairs)
    table = by_group(np.hstack([*tables, np.zeros((len(group_of), 0))]), group_of, count)
    # Powers of two, so that single precision holds squares of whatever unit, and rounds alike.
    unit = np.exp2(np.frexp(np.abs(table).max(0, initial=0))[1].astype(np.float64))
    table = (table / unit).astype(np.float32)
    sizes = list(_sizes(resamples, max(count, len(group_of) if ranked else width)))

    def block(size: int, generator: np.random.Generator) -> Floats:
        drawn = np.empty((size, count), dtype=np.float32)
        for row, picks in zip(drawn, generator.integers(0, count, (size, count)), strict=True):
            row[:] = np.bincount(picks, minlength=count)
        sums = (drawn @ table).astype(np.float64) * unit
        if ranked:
            # The rows of all resamples side by side are what a ranking sums over.
            by_row = np.ascontiguousarray(drawn.T)
            weights = (by_row if count == len(group_of) else by_row[group_of]).T
        differences = []
        counted: dict[Curve, Counts] = {}
        for a, b in pairs:
            if isinstance(a, Sums) and isinstance(b, Sums):
                own, other = (sums[:, part] for part in place[id(a.columns)])
                differences.append(b.finish(own + other) - a.finish(own))
            else:
                a, b = cast(Ranking, a), cast(Ranking, b)
                differences.append(b.score(weights, counted) - a.score(weights, counted))
        return np.stack(differences, axis=1)

    # A generator for each block: how many threads there are changes no number.
    with ThreadPoolExecutor(min(len(sizes), os.cpu_count() or 1, _MAX_THREADS)) as pool:
        return np.concatenate(list(pool.map(block, sizes, generator.spawn(len(sizes)))))


def _sizes(times: int, numbers: int) -> Iterator[int]:
    """Yield how many resamples of so many numbers to draw at once."""
    chunk = max(1, _BLOCK_NUMBERS // max(1, numbers))
    for start in range(0, times, chunk):
        yield min(chunk, times - start)
