"""The areas under the ROC and the precision-recall curve, of thousands of resamples at once."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class Curve:
    """The rows of one class against all others, in the order of a score."""

    def __init__(self, positive: NDArray[np.bool_], scores: Floats) -> None:
        from scipy.sparse import csr_matrix
        from scipy.stats import rankdata

        self.positive = positive
        self.ranks: Floats = rankdata(scores)
        thresholds = np.unique(self.ranks[positive])[::-1]
        count = len(thresholds)
        # How many thresholds are above a row's rank: the first that lets it through.
        place = np.searchsorted(-thresholds, -self.ranks)
        tied = ~positive & np.isin(self.ranks, thresholds)
        self.has_ties = bool(tied.any())
        # Sums of positive rows by threshold, of negative rows between thresholds, and of
        # negative rows that are tied with one.
        row = place + np.where(positive, 0, count) + np.where(tied, count + 1, 0)
        shape = ((3 if self.has_ties else 2) * count + 1, len(scores))
        ones = np.ones(len(scores), dtype=np.float32)
        self.sums = csr_matrix((ones, (row, np.arange(len(scores)))), shape=shape)
        self.thresholds = count

    def count(self, by_row: Floats) -> Counts:
        """Return what each threshold lets through for weights ``[n, resamples]``."""
        sums = self.sums @ by_row
        ties = 2 * self.thresholds + 1
        return Counts(
            sums[: self.thresholds],
            sums[self.thresholds : ties],
            sums[ties:] if self.has_ties else None,
        )

    def contributions(self, other: Curve, kind: Literal["roc", "pr"]) -> Floats:
        """Return the slope midway between two models, times what differs in each row ``[n]``."""
        slopes = self._roc_slopes if kind == "roc" else self._pr_slopes
        return np.asarray(slopes(other, other.ranks) - slopes(other, self.ranks))

    def _roc_slopes(self, other: Curve, ranks: Floats) -> Floats:
        """Return how often both models together put a row on its side of the other kind's."""
        positive = self.positive
        out = np.zeros(len(ranks))
        if positive.all() or not positive.any():
            return out
        for kind, rivals, sign in ((positive, ~positive, 1.0), (~positive, positive, -1.0)):
            pooled = np.sort(np.concatenate([self.ranks[rivals], other.ranks[rivals]]))
            below = np.searchsorted(pooled, ranks[kind]) + np.searchsorted(
                pooled, ranks[kind], side="right"
            )
            out[kind] = sign * below / (2 * len(pooled) * kind.sum())
        return out

    def _pr_slopes(self, other: Curve, ranks: Floats) -> Floats:
        """Return how the area would grow with a row more at each rank, by both models' rows."""
        positive = self.positive
        if not positive.any():
            return np.zeros(len(ranks))
        theirs, none = (
            np.sort(-np.concatenate([self.ranks[kind], other.ranks[kind]]))
            for kind in (positive, ~positive)
        )
        places, here = np.unique(theirs, return_counts=True)
        right = np.searchsorted(theirs, places, side="right") / 2
        through = right + np.searchsorted(none, places, side="right") / 2
        # What lies at or below a threshold loses or gains by all thresholds from there on.
        gain = here / 2 * (through - right) / np.square(through)
        loss = here / 2 * right / np.square(through)
        onwards = [np.append(np.cumsum(each[::-1])[::-1], 0.0) for each in (gain, loss)]
        at = np.searchsorted(places, -ranks)
        precision = np.append(right / through, 0.0)[at]
        slopes = np.where(positive, precision + onwards[0][at], -onwards[1][at])
        return np.asarray(slopes / positive.sum())


class Counts:
    """How many rows of resamples lie at and between the thresholds of a curve.

    Args:
        positive: positive rows at each threshold, from the highest ``[t, resamples]``.
        between: negative rows above each threshold and below the one before, and at last
            those below all ``[t + 1, resamples]``.
        tied: negative rows at each threshold ``[t, resamples]``, if there are any.
    """

    def __init__(self, positive: Floats, between: Floats, tied: Floats | None) -> None:
        self._positive, self._tied = positive, tied
        self._positives = positive.sum(0)
        self._negatives = between.sum(0)
        self._through = _running_sums(between[:-1])
        if tied is not None:
            self._negatives += tied.sum(0)
            self._through += _running_sums(tied)

    @property
    def roc(self) -> Floats:
        """The area under the ROC curve ``[resamples]``."""
        beaten = self._negatives - self._through
        if self._tied is not None:
            beaten += self._tied / 2
        won = np.einsum("tr,tr->r", self._positive, beaten)
        return ratio(won, self._positives * self._negatives, np.nan)

    @property
    def pr(self) -> Floats:
        """The average precision ``[resamples]``."""
        right = _running_sums(self._positive)
        through = self._through + right
        precision = np.divide(right, through, out=through, where=through > 0)
        return ratio(np.einsum("tr,tr->r", self._positive, precision), self._positives, np.nan)


def ratio(above: Floats, below: Floats, otherwise: float | Floats = 0.0) -> Floats:
    """Return a quotient; ``otherwise`` where nothing is below the line."""
    out = np.full(np.broadcast(above, below).shape, otherwise, dtype=np.float64)
    return np.divide(above, below, out=out, where=below > 0)


def _running_sums(rows: Floats, block: int = 50) -> Floats:
    """Return ``np.cumsum(rows, axis=0)`` in a third of its time: sums of blocks, by a product."""
    whole = len(rows) // block * block
    if not whole:
        return np.cumsum(rows, axis=0)
    triangle = np.tril(np.ones((block, block), dtype=rows.dtype))
    sums = triangle @ rows[:whole].reshape(-1, block, rows.shape[1])
    sums[1:] += np.cumsum(sums[:-1, -1], axis=0)[:, None]
    sums = sums.reshape(whole, -1)
    return np.concatenate([sums, sums[-1] + np.cumsum(rows[whole:], axis=0)])
