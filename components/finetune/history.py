"""What a training loop reports while it runs, and what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Watcher(Protocol):
    """Is told how training goes: a log line, MLflow, or nothing."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Take metrics by name at an optimizer step."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Take the number of steps done out of all."""


@dataclass
class History:
    """Validation scores by epoch, and which epoch was kept.

    Attributes:
        valid_f1: macro F1 on the validation rows after each epoch.
        train_loss: mean training loss of each epoch.
        best_epoch: the epoch whose weights were kept, counted from one.
        steps: optimizer steps taken.
    """

    valid_f1: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0

    def keep(self, f1: float, loss: float) -> bool:
        """Take an epoch's scores; tell whether it is the best so far."""
        better = not self.valid_f1 or f1 > max(self.valid_f1)
        self.valid_f1.append(f1)
        self.train_loss.append(loss)
        if better:
            self.best_epoch = len(self.valid_f1)
        return better

    def exhausted(self, patience_epochs: int) -> bool:
        """Tell whether the last ``patience_epochs`` epochs brought nothing."""
        return len(self.valid_f1) - self.best_epoch >= patience_epochs


def macro_f1(expected: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> float:
    """Return the mean of the classes' F1; a class neither expected nor predicted counts 0."""
    from sklearn.metrics import f1_score

    return float(
        f1_score(expected, predicted, labels=range(classes), average="macro", zero_division=0)
    )
