"""Encoded rows, and batches in which texts of like length sit together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from components.tasks.text_classification import TextClassifier, length_sorted, pad

_GROUP_BATCHES = 16


@dataclass(frozen=True)
class Rows:
    """Token ids of each row, and its class as an index ``[n]``."""

    ids: list[list[int]]
    targets: NDArray[np.int64]


def shuffled(
    rows: Rows, batch_rows: int, generator: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield ``(ids, mask, targets)`` over all rows once, in random order.

    Within groups of some batches rows are sorted by length, which saves most of the
    padding, and the batches are shuffled again, so that length says nothing about
    the order. Same scheme as transformers' ``group_by_length``.
    """
    order = generator.permutation(len(rows.ids))
    lengths = np.array([len(row) for row in rows.ids])
    batches = []
    for start in range(0, len(order), batch_rows * _GROUP_BATCHES):
        group = order[start : start + batch_rows * _GROUP_BATCHES]
        group = group[np.argsort(-lengths[group], kind="stable")]
        batches += [group[at : at + batch_rows] for at in range(0, len(group), batch_rows)]
    for index in generator.permutation(len(batches)):
        batch = batches[index]
        yield *pad([rows.ids[row] for row in batch]), torch.from_numpy(rows.targets[batch])


def predict(classifier: TextClassifier, ids: list[list[int]]) -> NDArray[np.int64]:
    """Return the predicted class of each encoded row."""
    out = np.zeros(len(ids), dtype=np.int64)
    classifier.network.eval()
    with torch.inference_mode():
        for rows, padded, mask in length_sorted(ids):
            out[rows] = classifier.network(padded, mask).argmax(-1).numpy()
    return out
