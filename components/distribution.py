"""The distribution of a column of numbers: its values, or above a bound a sketch of them.

A sketch holds a few thousand values whatever the number of rows. It is a KLL sketch, whose
ranks are wrong by no more than a stated share of the rows (Karnin, Lang & Liberty 2016,
https://arxiv.org/abs/1603.05346). Its coins are the library's own, so that two sketches of
the same rows agree within that share, not to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

EXACT_VALUES = 100_000
"""More values than these are kept as a sketch."""
SKETCH_SIZE = 2048
"""KLL's k: ranks are wrong by less than 0.2 % of the rows, in 40 kB."""
COMMON = 0.05
"""Share of rows from which a category tells how alike the rows of a group are."""
SKETCH_POINTS = 10_000
"""So many quantiles stand for a sketch."""


class Distribution:
    """What is known of a column of numbers. Missing and infinite values are only counted."""

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        """Begin with some values, or none."""
        self.missing = 0
        self._rows = 0
        self._parts: list[NDArray[np.float64]] = []
        self._sketch: Any = None
        if values is not None:
            self.update(values)

    @property
    def rows(self) -> int:
        """Values that are finite."""
        return self._rows

    @property
    def rank_error(self) -> float:
        """Largest error of a rank, as a share of the rows, with a probability of 99 %."""
        return 0.0 if self._sketch is None else float(self._sketch.normalized_rank_error(False))

    @property
    def values(self) -> NDArray[np.float64]:
        """Sorted values ``[rows]``, or quantiles that stand for them."""
        if self._sketch is not None:
            shares = (np.arange(SKETCH_POINTS) + 0.5) / SKETCH_POINTS
            return np.asarray(self._sketch.get_quantiles(shares), np.float64)
        return np.sort(np.concatenate([np.zeros(0), *self._parts]))

    def update(self, values: NDArray[Any]) -> None:
        """Add values ``[n]`` in any order."""
        values = np.asarray(values, np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            self.missing += int(len(values) - finite.sum())
            values = values[finite]
        self._rows += len(values)
        if self._sketch is None:
            self._parts.append(values)
        else:
            self._sketch.update(values)
        self._keep_small()

    def merge(self, other: Distribution) -> None:
        """Add what another distribution knows; it stays as it is."""
        self.missing += other.missing
        self._rows += other.rows
        if other._sketch is not None:
            self._become_sketch()
            self._sketch.merge(other._sketch)
        elif self._sketch is not None:
            self._sketch.update(other.values)
        else:
            self._parts.append(other.values)
        self._keep_small()

    def to_tensor(self) -> NDArray[Any]:
        """Return what ``from_tensor`` reads: sorted ``float64``, or a sketch as ``uint8``."""
        if self._sketch is None:
            return self.values
        return np.frombuffer(self._sketch.serialize(), dtype=np.uint8).copy()

    @classmethod
    def from_tensor(cls, tensor: NDArray[Any], missing: int = 0) -> Self:
        """Return a distribution as ``to_tensor`` wrote it."""
        found = cls()
        found.missing = missing
        if tensor.dtype == np.uint8:
            from datasketches import kll_doubles_sketch

            found._sketch = kll_doubles_sketch.deserialize(tensor.tobytes())
            found._rows = found._sketch.n
        else:
            found._parts, found._rows = [tensor.astype(np.float64)], len(tensor)
        return found

    def _keep_small(self) -> None:
        if self._rows > EXACT_VALUES:
            self._become_sketch()

    def _become_sketch(self) -> None:
        if self._sketch is not None:
            return
        from datasketches import kll_doubles_sketch

        self._sketch = kll_doubles_sketch(SKETCH_SIZE)
        for part in self._parts:
            self._sketch.update(part)
        self._parts = []


def effective_rows(values: NDArray[np.float64], groups: NDArray[np.int64] | None) -> float:
    """Return how many independent rows values are worth whose groups resemble each other.

    Sentences of one document are more alike than sentences of two, so that a hundred of
    them say less than a hundred documents would. The rows are divided by Kish's design
    effect ``1 + (b - 1) r``, with ``b`` the mean size of a row's group and ``r`` the
    correlation of ranks within groups, from an analysis of variance; ranks, because
    detectors look at the order of values.

    Args:
        values: ``[n]``, finite.
        groups: number of each row's group ``[n]``, or None where rows are independent.

    References:
        Kish (1965), Survey Sampling; Donner & Klar (2000), Design and Analysis of Cluster
        Randomization Trials.

    >>> effective_rows(np.array([1.0, 1, 2, 2, 3, 3]), np.array([0, 0, 1, 1, 2, 2]))
    3.0
    >>> effective_rows(np.array([1.0, 2, 3, 1, 2, 3]), np.array([0, 0, 0, 1, 1, 1]))
    6.0
    """
    from scipy.stats import rankdata

    rows = len(values)
    if groups is None or rows < 2:
        return float(rows)
    _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    count = len(sizes)
    if count in (1, rows):
        return float(count)
    ranks = rankdata(values)
    total = float(np.square(ranks - ranks.mean()).sum())
    means = np.bincount(member, ranks) / sizes
    between = float((sizes * np.square(means - ranks.mean())).sum())
    if total <= 0:
        return float(rows)
    own_size = float(np.square(sizes).sum()) / rows
    usual_size = (rows - own_size) / (count - 1)
    between /= count - 1
    within = max(0.0, total - between * (count - 1)) / (rows - count)
    correlation = (between - within) / (between + (usual_size - 1) * within)
    return rows / (1 + (own_size - 1) * min(1.0, max(0.0, correlation)))


def effective_category_rows(values: Sequence[str], groups: NDArray[np.int64] | None) -> float:
    """Return how many independent rows categories ``[n]`` are worth, see ``effective_rows``.

    Of the categories that one row in twenty has, the one whose rows stick together most.
    """
    kinds, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    common = [code for code in range(len(kinds)) if (codes == code).mean() >= COMMON]
    rows = [effective_rows((codes == code).astype(np.float64), groups) for code in common]
    return min(rows, default=float(len(codes)))


def distributions_of(
    files: Sequence[Path], columns: Sequence[str], batch_rows: int = 65_536
) -> dict[str, Distribution]:
    """Return the distribution of each column of Parquet files, in bounded memory.

    Parts of a window can be looked at apart, and what they give be merged.

    Args:
        files: read one after the other, a batch at a time.
        columns: names of columns of numbers.
        batch_rows: rows held at a time.
    """
    found = {name: Distribution() for name in columns}
    for batch in _batches(files, columns, batch_rows):
        for name, values in batch.items():
            found[name].update(values)
    return found


def _batches(
    files: Sequence[Path], columns: Sequence[str], batch_rows: int
) -> Iterator[dict[str, NDArray[np.float64]]]:
    import pyarrow.parquet as pq

    for file in files:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_rows, columns=list(columns)):
                yield {
                    name: np.asarray(batch[name].to_numpy(zero_copy_only=False), np.float64)
                    for name in columns
                }
