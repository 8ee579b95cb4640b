"""Texts that are nearly the same, found by MinHash and told by their shared pieces.

A text is the set of its pieces of ``PIECE`` bytes, case and spaces folded; two texts are as
alike as the share of pieces that they have in common (Jaccard). Comparing all pairs would
take forever; MinHash signatures that agree in a band of values point to the pairs worth
comparing, and each of these is compared exactly, so that none is called alike that is not.

Broder, On the resemblance and containment of documents, 1997; Leskovec, Rajaraman & Ullman,
Mining of Massive Datasets, 2020, chapter 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PIECE = 5
"""Bytes of a piece."""
VALUES = 120
"""Values of a signature."""
BATCH_BYTES = 1 << 20
MISSED = 0.01
"""Share of the pairs right at the threshold that may be missed; of more alike ones, fewer."""
_WEIGHT = np.uint64(0x9E3779B97F4A7C15)


class NearDuplicates:
    """Remembers texts, and tells which new ones are nearly one of them.

    >>> seen = NearDuplicates(0.8)
    >>> seen.are_new(["the film was very good indeed", "a story"], ["x", "x"]).tolist()
    [True, True]
    >>> later = ["The film was very good, indeed", "A story", "a story"]
    >>> seen.are_new(later, ["x", "x", "y"]).tolist()
    [True, False, True]
    """

    def __init__(self, threshold: float) -> None:
        """Set from which share of common pieces on texts are nearly the same."""
        draw = np.random.default_rng(0)
        self._factors = draw.integers(1, 2**63, VALUES, dtype=np.uint64) | np.uint64(1)
        self._offsets = draw.integers(0, 2**63, VALUES, dtype=np.uint64)
        self._threshold = threshold
        self._rows = band_rows(threshold)
        self._buckets: dict[tuple[int, bytes], list[int]] = {}
        self._pieces: list[frozenset[bytes]] = []
        self._labels: list[str | None] = []

    def are_new(self, texts: Sequence[str], labels: Sequence[str | None]) -> NDArray[np.bool_]:
        """Return which texts are like none before them of the same label, and remember those.

        Args:
            texts: ``n`` of them, of which earlier ones come first.
            labels: theirs; texts of other labels are never duplicates.
        """
        folded = [" ".join(text.casefold().split()).encode("utf-8", "replace") for text in texts]
        new = np.ones(len(texts), bool)
        done = 0
        while done < len(folded):
            end, size = done, 0
            while end < len(folded) and size < BATCH_BYTES:
                size += len(folded[end])
                end += 1
            for row, signature in enumerate(self._signatures(folded[done:end]), start=done):
                new[row] = self._remember(folded[row], labels[row], signature)
            done = end
        return new

    def _remember(self, text: bytes, label: str | None, signature: NDArray[np.uint32]) -> bool:
        bands = [
            (start, signature[start : start + self._rows].tobytes())
            for start in range(0, VALUES - self._rows + 1, self._rows)
        ]
        pieces = pieces_of(text)
        near = {each for band in bands for each in self._buckets.get(band, ())}
        for other in sorted(near):
            if self._labels[other] == label:
                common = len(pieces & self._pieces[other])
                if common >= self._threshold * (len(pieces) + len(self._pieces[other]) - common):
                    return False
        for band in bands:
            self._buckets.setdefault(band, []).append(len(self._pieces))
        self._pieces.append(pieces)
        self._labels.append(label)
        return True

    def _signatures(self, texts: Sequence[bytes]) -> NDArray[np.uint32]:
        """Return the signatures of texts, ``(n, VALUES)``."""
        padded = [text.ljust(PIECE, b"\0") for text in texts]
        data = np.frombuffer(b"".join(padded), np.uint8).astype(np.uint64)
        lengths = np.array([len(text) for text in padded])
        hashes = np.zeros(len(data) - PIECE + 1, np.uint64)
        for place in range(PIECE):
            hashes = hashes * np.uint64(257) + data[place : place + len(hashes)]
        hashes = (hashes * _WEIGHT) ^ (hashes >> np.uint64(29))
        ends = np.cumsum(lengths)
        # Pieces that reach into the next text are none.
        inside = np.ones(len(data), bool)
        for place in range(1, PIECE):
            inside[ends - place] = False
        hashes = hashes[inside[: len(hashes)]]
        starts = np.concatenate([[0], np.cumsum(lengths - PIECE + 1)[:-1]])
        signatures = np.empty((len(texts), VALUES), np.uint32)
        for value in range(VALUES):
            mixed = (hashes * self._factors[value] + self._offsets[value]) >> np.uint64(32)
            signatures[:, value] = np.minimum.reduceat(mixed.astype(np.uint32), starts)
        return signatures


def pieces_of(text: bytes) -> frozenset[bytes]:
    """Return the pieces of a text; of a shorter one, the text itself."""
    last = max(1, len(text) - PIECE + 1)
    return frozenset(text[start : start + PIECE] for start in range(last))


def band_rows(threshold: float) -> int:
    """Return how many values make a band, as many as miss no more than ``MISSED`` of the pairs.

    >>> band_rows(0.8), band_rows(0.5)
    (6, 3)
    """
    for rows in range(VALUES, 1, -1):
        bands = VALUES // rows
        if (1 - threshold**rows) ** bands <= MISSED:
            return rows
    return 1
