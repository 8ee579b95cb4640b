"""New rows of rare classes between two that there are, in the space that the head reads.

Texts and images cannot be blended so that they stay such; their features can. So the network
below must rest, as it does with method ``head``.

References:
    Chawla et al. (2002), SMOTE: synthetic minority over-sampling technique,
    https://arxiv.org/abs/1106.1813.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

NEIGHBOURS = 5
_ROWS_AT_ONCE = 1024


def neighbours(features: torch.Tensor, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the nearest rows of the same class to each row ``[n, 5]``, without itself.

    Where a class has fewer rows they repeat; a row that is alone is its own neighbour.

    Args:
        features: of the rows ``[n, d]``.
        targets: index of the class of each ``[n]``.
    """
    out = np.empty((len(targets), NEIGHBOURS), dtype=np.int64)
    for kind in np.unique(targets):
        rows = np.flatnonzero(targets == kind)
        own = features[torch.from_numpy(rows)].float()
        most = min(NEIGHBOURS, len(rows) - 1)
        if not most:
            out[rows] = rows[:, None]
            continue
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = torch.arange(start, min(start + _ROWS_AT_ONCE, len(rows)))
            distances = torch.cdist(own[part], own)
            distances[torch.arange(len(part)), part] = torch.inf
            nearest = rows[distances.topk(most, largest=False).indices.numpy()]
            out[rows[part.numpy()]] = np.resize(nearest.T, (NEIGHBOURS, len(part))).T
    return out


def synthetic_share(targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the drawn rows of each row's class that are to be new ones ``[n]``.

    Drawn until all classes are as many as the commonest, so many draws of a class are repeats.
    """
    _, places, counts = np.unique(targets, return_inverse=True, return_counts=True)
    return np.asarray(1 - counts[places] / counts.max(), dtype=np.float64)


def blended(
    state_of: Callable[[int], torch.Tensor],
    rows: NDArray[np.int64],
    near: NDArray[np.int64],
    share: NDArray[np.float64],
    chance: np.random.Generator,
) -> list[torch.Tensor]:
    """Return the features of drawn rows, some of them moved towards a neighbour.

    Args:
        state_of: from a row to its features.
        rows: which were drawn ``[m]``, perhaps several times.
        near: neighbours of all rows, see ``neighbours``.
        share: see ``synthetic_share``.
        chance: which are moved, where to, and how far.
    """
    moves = chance.random(len(rows)) < share[rows]
    partners = near[rows, chance.integers(NEIGHBOURS, size=len(rows))]
    ways = chance.random(len(rows)) * moves
    return [
        torch.lerp(state_of(row), state_of(partner), way)
        for row, partner, way in zip(rows.tolist(), partners.tolist(), ways.tolist(), strict=True)
    ]
