"""Which rows to have labelled: those that would teach most, and not the same thing twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def telling_rows(
    vectors: NDArray[np.float32], answers: NDArray[np.float64], count: int, seed: int = 0
) -> NDArray[np.int64]:
    """Return the indices of the most telling rows, in the order in which they were chosen.

    A row stands for the step that the last layer of the model would take if its own answer
    were right: as long as the model is unsure, and in the direction of the row's embedding.
    Rows are drawn far from those that were drawn already (k-means++), and from no step at all,
    so that they are both uncertain and different. Of models that answer with a number, nothing
    is known of how sure they are, and rows are drawn to be different alone.

    Args:
        vectors: embeddings ``[n, d]``.
        answers: probabilities ``[n, classes]``, or numbers ``[n, 1]``.
        count: how many rows; all of them if there are fewer.
        seed: of the draw.

    References:
        Ash et al. (2020), Deep batch active learning by diverse, uncertain gradient lower
        bounds (BADGE), https://arxiv.org/abs/1906.03671. Arthur & Vassilvitskii (2007),
        k-means++.
    """
    rows = len(vectors)
    if rows <= count:
        return np.arange(rows)
    steps = _steps(answers)
    draw = np.random.default_rng(seed)
    # |s ⊗ v|² and the product of two of them need no outer product.
    lengths = (steps**2).sum(1) * (vectors.astype(np.float64) ** 2).sum(1)
    chosen = [int(lengths.argmax())]
    distances = lengths.copy()
    while True:
        last = chosen[-1]
        products = (steps @ steps[last]) * (vectors @ vectors[last]).astype(np.float64)
        distances = np.minimum(distances, np.maximum(lengths + lengths[last] - 2 * products, 0.0))
        distances[chosen] = 0.0
        if len(chosen) == count:
            return np.array(chosen, dtype=np.int64)
        total = distances.sum()
        if total > 0:
            chosen.append(int(draw.choice(rows, p=distances / total)))
        else:  # all that is left is like what was drawn
            chosen.append(int(np.setdiff1d(np.arange(rows), chosen)[0]))


def _steps(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the gradient of the loss by the outputs, the model's own answer taken as right."""
    if answers.shape[1] == 1:
        return np.ones_like(answers)
    steps = answers.copy()
    steps[np.arange(len(answers)), answers.argmax(1)] -= 1
    return steps
