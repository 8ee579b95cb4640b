"""What a training reports while it runs, and what it leaves behind."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from components.finetune.config import HIGHER_IS_BETTER


class Watcher(Protocol):
    """Is told how training goes: a log line, MLflow, or nothing."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Take metrics by name at an optimizer step."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Take the number of steps done out of all."""


class Silent:
    """A watcher that keeps quiet."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Forget the metrics."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Forget the progress."""


@dataclass
class Clock:
    """Counts what a training takes, over all the processes that took it up in turn.

    Attributes:
        earlier_s: seconds of earlier processes, up to the checkpoint that was taken over.
        started_s: when this process began, by ``time.perf_counter``.
    """

    earlier_s: float = 0.0
    started_s: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return self.earlier_s + time.perf_counter() - self.started_s

    def go_on(self, seconds: float) -> None:
        """Take over what a checkpoint says; of several the latest says most."""
        self.earlier_s = max(self.earlier_s, seconds)


@dataclass
class History:
    """Scores by epoch, and which epoch was kept.

    Attributes:
        metric: the score that names the best epoch.
        valid: scores on the validation rows after each epoch; ``loss`` is one of them.
        train_loss: mean training loss of each epoch.
        start: scores on the validation rows before the first step.
        best_epoch: the epoch whose weights were kept, counted from one; 0 is the start.
        steps: optimizer steps taken.
        rows: training rows that went through the network.
        tokens: their tokens, without padding; pixels do not count.
        accumulation: parts in which a step was computed at the end.
        cut: stages that were frozen at the end.
    """

    metric: str
    start: dict[str, float] = field(default_factory=dict)
    valid: list[dict[str, float]] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    rows: int = 0
    tokens: int = 0
    accumulation: int = 1
    cut: int = 0

    def keep(self, scores: dict[str, float], train_loss: float) -> bool:
        """Take an epoch's scores; tell whether it is better than all before, the start too."""
        before = [*([self.start] if self.start else []), *self.valid]
        better = not before or self._worth(scores) > max(map(self._worth, before))
        self.valid.append(scores)
        self.train_loss.append(train_loss)
        if better:
            self.best_epoch = len(self.valid)
        return better

    @property
    def best_scores(self) -> dict[str, float]:
        """Scores on the validation rows of what was kept: of the best epoch, or of the start."""
        return self.valid[self.best_epoch - 1] if self.best_epoch else self.start

    def exhausted(self, patience_epochs: int) -> bool:
        """Tell whether the last ``patience_epochs`` epochs brought nothing.

        They are compared with the best of the epochs before and not with the start, which
        a training may have to leave before it comes out above it.
        """
        if not self.valid:
            return False
        worths = list(map(self._worth, self.valid))
        return len(worths) - 1 - worths.index(max(worths)) >= patience_epochs

    def _worth(self, scores: dict[str, float]) -> float:
        return scores[self.metric] * (1 if HIGHER_IS_BETTER[self.metric] else -1)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values, for a checkpoint."""
        return asdict(self)


def overfitting_remark(train_loss: list[float], valid: list[dict[str, float]]) -> str:
    """Say in a sentence what the two loss curves show, empty if they show nothing bad.

    Overfitting is read from the validation loss rising over its minimum by more than a
    tenth while the training loss goes on falling.
    """
    losses = [scores["loss"] for scores in valid]
    if len(losses) < 2:
        return ""
    lowest = min(range(len(losses)), key=losses.__getitem__)
    rises = losses[-1] > 1.1 * losses[lowest]
    if lowest < len(losses) - 1 and rises and train_loss[-1] < train_loss[lowest]:
        return (
            f"Overfitting after epoch {lowest + 1}: the validation loss rose from "
            f"{losses[lowest]:.3f} to {losses[-1]:.3f} while the training loss fell to "
            f"{train_loss[-1]:.3f}."
        )
    return ""
