"""How often each of many millions of keys came so far, in bounded memory.

Keys lie in sorted runs, each at least twice as long as the next, so that a few are looked into
and a key is merged only as often as the logarithm of their number. A long run goes to a file,
of which the system holds in memory what it has room for.

References:
    O'Neil et al. (1996), The log-structured merge-tree.
"""

from __future__ import annotations

import tempfile
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

RUN_KEYS = 1 << 22
"""A run of so many keys, 48 MB, is merged no more and goes to a file."""

KindT = TypeVar("KindT", np.uint64, np.uint32)
Run = tuple[NDArray[np.uint64], NDArray[np.uint32]]
"""Sorted keys, each once, and how often each came."""


class Occurrences:
    """Counts keys that come some at a time."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._runs: list[Run] = []

    def add(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Count keys ``[n]``, and return the how manieth of its kind each is, from 1 ``[n]``.

        Examples:
            >>> seen = Occurrences()
            >>> seen.add(np.array([7, 3, 7], np.uint64)).tolist()
            [1, 1, 2]
            >>> seen.add(np.array([7, 5], np.uint64)).tolist()
            [3, 1]
        """
        if not len(keys):
            return np.zeros(0, np.int64)
        order = np.argsort(keys, kind="stable")
        found, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
        before = np.zeros(len(found), np.int64)
        for known, often in self._runs:
            place = np.minimum(np.searchsorted(known, found), len(known) - 1)
            before += np.where(known[place] == found, often[place], 0)
        numbers = np.empty(len(keys), np.int64)
        within = np.arange(len(keys)) - np.repeat(first, counts)
        numbers[order] = np.repeat(before, counts) + within + 1
        self._take((found, counts.astype(np.uint32)))
        return numbers

    def _take(self, run: Run) -> None:
        while self._runs and len(self._runs[-1][0]) < min(2 * len(run[0]), RUN_KEYS):
            run = _merged(self._runs.pop(), run)
        if len(run[0]) >= RUN_KEYS:
            run = (_filed(run[0]), _filed(run[1]))
        self._runs.append(run)


def _merged(one: Run, other: Run) -> Run:
    keys = np.concatenate([one[0], other[0]])
    order = np.argsort(keys, kind="stable")  # of two sorted runs: it merges them
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    counts = np.concatenate([one[1], other[1]])[order]
    return keys[starts], np.add.reduceat(counts, starts, dtype=np.uint32)


def _filed(values: NDArray[KindT]) -> NDArray[KindT]:
    """Return the same values in a file without a name, which goes with them."""
    with tempfile.TemporaryFile(prefix="tokiwa-") as file:
        values.tofile(file)
        return np.memmap(file, values.dtype, "r", shape=values.shape)
