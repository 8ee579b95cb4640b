"""A model as the gate asks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.tasks.model import Model

MAX_BATCH_ROWS = 64


@dataclass(frozen=True)
class Examinee:
    """A model, and how its answers become those that the gate compares.

    Attributes:
        model: as it was loaded.
        order: place of each column of the gate's answers among the model's own ``[k]``.
        all_labels: whether these are all that the model answers.
    """

    model: Model
    order: NDArray[np.int64]
    all_labels: bool

    def answers(self, contents: Sequence[str]) -> NDArray[np.float64]:
        """Return answers ``[n, k]`` in the gate's order; of some labels they sum to one."""
        answers = self.model.predict(contents, batch_rows=MAX_BATCH_ROWS)[:, self.order]
        if self.all_labels:
            return np.asarray(answers)
        total = answers.sum(1, keepdims=True)
        even = np.full_like(answers, 1 / len(self.order))
        return np.asarray(np.divide(answers, total, out=even, where=total > 0))

    def decided(self, answers: NDArray[np.float64]) -> NDArray[Any]:
        """Return the column, or value, that the model decides for ``[n]``."""
        if len(self.order) == 1:
            return answers[:, 0]
        if not self.all_labels:
            return np.asarray(answers.argmax(1))
        own = np.empty_like(answers)
        own[:, self.order] = answers
        said = self.model.decided(own)
        return np.asarray(np.where(said < 0, said, np.argsort(self.order)[said]))
