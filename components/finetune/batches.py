"""Which rows make up each optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.tasks.model import Example, Model

GROUP_BATCHES = 16
"""Batches among which rows are sorted by length."""


@dataclass(frozen=True)
class Examples:
    """Rows as a model sees them.

    Attributes:
        contents: what the rows hold, to make noisy copies of.
        examples: token ids or pixels of each row.
        targets: of each row, ``[n]``.
    """

    contents: Sequence[str]
    examples: list[Example]
    targets: NDArray[Any]

    @classmethod
    def of(cls, model: Model, frame: pd.DataFrame) -> Examples:
        """Return the rows of a frame with the columns ``text`` and ``label``."""
        contents = frame["text"].tolist()
        return cls(contents, model.encode(contents), model.targets(frame["label"].tolist()))

    def __len__(self) -> int:
        return len(self.examples)

    def where(self, rows: NDArray[np.bool_]) -> Examples:
        """Return the rows for which ``rows [n]`` is true."""
        chosen = np.flatnonzero(rows).tolist()
        return Examples(
            [self.contents[row] for row in chosen],
            [self.examples[row] for row in chosen],
            self.targets[chosen],
        )


Balance = Literal["none", "weights", "over", "under", "smote"]


def class_weights(targets: NDArray[Any], balance: Balance) -> NDArray[np.float32]:
    """Return the weight of each row's loss; with ``weights`` every class weighs the same."""
    if balance != "weights":
        return np.ones(len(targets), dtype=np.float32)
    _, index, counts = np.unique(targets, return_inverse=True, return_counts=True)
    return (len(targets) / (len(counts) * counts[index])).astype(np.float32)


def epoch_rows(
    targets: NDArray[Any], balance: Balance, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return the rows of one epoch in random order.

    ``over`` repeats rows of rarer classes until all are as many as the commonest, and so does
    ``smote``, which then moves some of the repeated ones, see there;
    ``under`` draws from the commoner ones as many as the rarest has.
    """
    if balance not in ("over", "smote", "under"):
        return generator.permutation(len(targets))
    classes, counts = np.unique(targets, return_counts=True)
    wanted = counts.min() if balance == "under" else counts.max()
    parts = []
    for each in classes:
        rows = generator.permutation(np.flatnonzero(targets == each))
        parts.append(np.resize(rows, wanted))
    return generator.permutation(np.concatenate(parts))


def step_rows(
    order: NDArray[np.int64],
    lengths: NDArray[np.int64],
    batch_rows: int,
    batch_tokens: int | None,
    generator: np.random.Generator,
) -> list[NDArray[np.int64]]:
    """Return the rows of each step, such that rows of like length sit together.

    Within groups of some batches rows are sorted by length, which saves most of the
    padding, and the batches are shuffled again, so that length says nothing about
    the order. Same scheme as transformers' ``group_by_length``.

    Args:
        order: the rows of an epoch.
        lengths: of all rows; equal ones keep their order.
        batch_rows: rows of a step.
        batch_tokens: if given, as many rows as fit into so many tokens with padding; a
            row that is longer than that is a step of its own.
        generator: shuffles.
    """
    typical = batch_rows
    if batch_tokens is not None and len(order):
        typical = max(1, int(batch_tokens // max(1.0, float(lengths[order].mean()))))
    steps: list[NDArray[np.int64]] = []
    for start in range(0, len(order), typical * GROUP_BATCHES):
        group = order[start : start + typical * GROUP_BATCHES]
        group = group[np.argsort(-lengths[group], kind="stable")]
        steps += list(_split(group, lengths, batch_rows, batch_tokens))
    return [steps[index] for index in generator.permutation(len(steps))]


def _split(
    group: NDArray[np.int64], lengths: NDArray[np.int64], rows: int, tokens: int | None
) -> Iterator[NDArray[np.int64]]:
    start = 0
    while start < len(group):
        # Longest first: the first row's length is the width of the batch.
        count = rows if tokens is None else max(1, tokens // max(1, int(lengths[group[start]])))
        yield group[start : start + count]
        start += count


def prefetched(batches: Iterator[Any], load: Callable[[Any], Any], ahead: int = 2) -> Iterator[Any]:
    """Yield ``load(batch)`` for each batch, loading some ahead in a thread."""
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Any] = deque()
        for batch in batches:
            waiting.append(pool.submit(load, batch))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
