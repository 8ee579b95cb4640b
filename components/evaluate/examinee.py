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
        all_labels: whether these are all that any of the compared models answers; otherwise
            no rule counts, neither this model's nor another's.
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
        """Return the column, or value, that the model decides for, or leans to ``[n]``.

        Of some labels it is the most probable: its rule was fitted to all of them.
        """
        if len(self.order) == 1:
            return answers[:, 0]
        if not self.all_labels:
            return np.asarray(answers.argmax(1))
        return np.asarray(np.argsort(self.order)[self.model.decided(self._own(answers))])

    def abstained(self, answers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which rows the model leaves to a person ``[n]``; of some labels, none."""
        if not self.all_labels:
            return np.zeros(len(answers), dtype=bool)
        return self.model.abstained(self._own(answers))

    def scores(self, targets: NDArray[Any], answers: NDArray[np.float64]) -> dict[str, float]:
        """Return the task's own scores by name; of some labels, none.

        Args:
            targets: in the gate's order ``[n]``.
            answers: of any model, in the gate's order ``[n, k]``.
        """
        if not self.all_labels:
            return {}
        if len(self.order) == 1:
            return self.model.scores(targets, answers)
        return self.model.scores(self.order[targets], self._own(answers))

    def _own(self, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return all answers in the model's own order ``[n, k]``."""
        own = np.empty_like(answers)
        own[:, self.order] = answers
        return own
