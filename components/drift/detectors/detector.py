"""What every detector says, and what it needs to say it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Kind = Literal["numbers", "categories", "vectors", "stream"]


@dataclass(frozen=True)
class Comparison:
    """How two samples differ.

    Attributes:
        statistic: what the test is made of.
        effect: how large the difference is, whatever the number of rows; 0 is none.
        p_value: how probable so large a statistic is if both samples are of one kind.
    """

    statistic: float
    effect: float
    p_value: float


@dataclass(frozen=True)
class Detector:
    """A detector as the drift step uses it.

    Attributes:
        kind: what it compares. ``numbers``: a sorted reference ``[n]`` with values ``[m]``;
            ``categories``: counts ``[k]`` with counts ``[k]`` of the same categories;
            ``vectors``: ``[n, d]`` with ``[m, d]``; ``stream``: values in the order of time.
        min_rows: fewer rows on either side say nothing.
        threshold: the effect from which a difference counts, if nothing else is said.
        run: the function, or the class of a stream's detector. Functions of numbers and
            categories take ``reference_rows`` and ``current_rows``, how many independent
            rows each side is worth (``components.distribution.effective_rows``), those of
            vectors ``reference_groups`` and ``current_groups``.
    """

    kind: Kind
    min_rows: int
    threshold: float
    run: Callable[..., Comparison] | Callable[..., Stream]

    def compare(self, reference: NDArray[Any], current: NDArray[Any], **options: Any) -> Comparison:
        """Compare two samples; not for streams."""
        found = self.run(reference, current, **options)
        assert isinstance(found, Comparison)
        return found

    def stream(self, **parameters: Any) -> Stream:
        """Return a detector for one stream."""
        found = self.run(**parameters)
        assert isinstance(found, Stream)
        return found


class Stream(ABC):
    """A detector that looks at values one after the other and remembers what it saw.

    A subclass takes its parameters by keyword; all of them have defaults.
    """

    @abstractmethod
    def update(self, values: Numbers) -> list[int]:
        """Look at further values ``[n]``; return the indices in them that raised an alarm.

        A detector begins anew behind an alarm.
        """


def refuse_unlike(reference: NDArray[np.float32], current: NDArray[np.float32]) -> None:
    """Check two samples of vectors, ``[n, d]`` and ``[m, d]``.

    Raises:
        ValueError: one has fewer than four rows, or the widths differ.
    """
    if min(len(reference), len(current)) < 4:
        raise ValueError("both samples need four rows")
    if reference.shape[1] != current.shape[1]:
        raise ValueError(f"vectors of {reference.shape[1]} and of {current.shape[1]} components")


def bin_edges(reference: Numbers, bins: int = 10) -> Numbers:
    """Return the quantiles of a sorted reference ``[n]``, each the first value of its bin.

    A value that is several quantiles has a bin of its own: what lies above it is another.

    >>> bin_edges(np.array([1.0, 2, 3, 4]), 2)
    array([3.])
    >>> bin_edges(np.zeros(9)).tolist()
    [0.0, 5e-324]
    """
    cuts = reference[np.linspace(0, len(reference), bins + 1)[1:-1].astype(np.int64)]
    edges, times = np.unique(cuts, return_counts=True)
    return np.union1d(edges, np.nextafter(edges[times > 1], np.inf))


def binned(reference: Numbers, current: Numbers, bins: int = 10) -> tuple[Numbers, Numbers]:
    """Return how many values of each side lie between the quantiles of the reference ``[k]``.

    Args:
        reference: sorted values ``[n]``.
        current: values ``[m]`` in any order.
        bins: see ``bin_edges``.

    >>> binned(np.arange(100.0), np.arange(50.0), 4)
    (array([25., 25., 25., 25.]), array([25., 25.,  0.,  0.]))
    """
    edges = bin_edges(reference, bins)
    sides = [
        np.bincount(np.searchsorted(edges, side, side="right"), minlength=len(edges) + 1)
        for side in (reference, current)
    ]
    return sides[0].astype(np.float64), sides[1].astype(np.float64)
