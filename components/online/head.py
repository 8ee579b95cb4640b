"""A linear head that learns one record at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass
class Head:
    """Weights and bias of a softmax layer, changed in place.

    Attributes:
        weights: ``[k, d]``.
        bias: ``[k]``.
    """

    weights: Floats
    bias: Floats

    @classmethod
    def copy_of(cls, weights: NDArray[np.floating], bias: NDArray[np.floating]) -> Self:
        """Return a head that begins where another is, so that it answers as that one does."""
        return cls(np.array(weights, dtype=np.float64), np.array(bias, dtype=np.float64))

    def outputs(self, features: Floats) -> Floats:
        """Return the logits ``[n, k]`` of features ``[n, d]``."""
        return np.asarray(features @ self.weights.T + self.bias)

    def partial_fit(self, features: Floats, target: int, learning_rate: float) -> None:
        """Learn from one record.

        A step down the gradient of the cross-entropy, divided by the squared length of what is
        read (normalised least mean squares; Nagumo & Noda 1967,
        https://doi.org/10.1109/TAC.1967.1098599), so that one rate suits every encoder.

        Args:
            features: of the record ``[d]``.
            target: index of its class.
            learning_rate: 0 to 1.

        >>> head = Head(np.zeros((2, 1)), np.zeros(2))
        >>> head.partial_fit(np.array([2.0]), 1, learning_rate=0.5)
        >>> head.bias.tolist()
        [-0.05, 0.05]
        """
        logits = self.weights @ features + self.bias
        shares = np.exp(logits - logits.max())
        error = shares / shares.sum()
        error[target] -= 1
        step = learning_rate / (1 + float(features @ features)) * error
        self.weights -= np.outer(step, features)
        self.bias -= step
