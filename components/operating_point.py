"""The operating point: how probabilities become decisions, for a stated aim.

By default a model answers with its most probable label. A project may want a recall of at
least 99 % of one label at the best precision, a precision at the best recall, or the least
cost of mistakes; and it may want a person to look at rows that the model is unsure of. The
point is chosen on validation rows (``components.threshold``), kept in the bundle, and used
by whoever decides.

Where probabilities are calibrated, the point is chosen on, and applied to, calibrated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from components.settings import Section

ABSTAIN = -1
"""What ``decide`` returns where a person should look."""

Aim = Literal["most-probable", "recall", "precision", "cost"]


class OperatingPointConfig(Section):
    """Part ``operating_point`` of the section ``finetune``."""

    aim: Aim = "most-probable"
    """``recall``: at least ``at_least`` of the rows with ``label`` are called so, at the best
    precision; ``precision``: at least ``at_least`` of those called so are, at the best
    recall; ``cost``: the least expected cost."""
    label: str = ""
    """The label whose recall or precision is meant."""
    at_least: float = Field(default=0.99, gt=0, lt=1)
    by: Literal["measured", "bound"] = "measured"
    """``measured``: validation rows reach the aim, other rows may fall a little short of
    it. ``bound``: other rows reach it with the probability ``confidence``; it takes some
    hundred rows of the label (299 for a recall of 0.99)."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of every lower bound that is reported, and of ``by: bound``."""
    costs: dict[str, dict[str, float]] = {}
    """``costs[true][called]``; a mistake that is not named costs 1, a right answer 0."""
    class_weights: dict[str, float] = {}
    """How much more a row of a label weighs in the cost; 1 if not named."""
    answered_accuracy: float | None = Field(default=None, gt=0, lt=1)
    """If given, the unsurest rows are left to a person, as few as make the accuracy of the
    others at least this; ``by`` and ``confidence`` count here too."""

    @model_validator(mode="after")
    def _keys_suit_the_aim(self) -> OperatingPointConfig:
        named = self.aim in ("recall", "precision")
        if named and not self.label:
            raise ValueError(f"the aim {self.aim} needs a label")
        if self.label and not named:
            raise ValueError("label needs the aim recall or precision")
        if (self.costs or self.class_weights) and self.aim != "cost":
            raise ValueError("costs and class_weights need the aim cost")
        prices = [price for row in self.costs.values() for price in row.values()]
        if not all(np.isfinite(price) and price >= 0 for price in prices):
            raise ValueError("costs must be numbers of at least 0")
        if not all(np.isfinite(w) and w > 0 for w in self.class_weights.values()):
            raise ValueError("class_weights must be numbers above 0")
        return self

    def refuse_unknown_labels(self, labels: Sequence[str]) -> None:
        """Check the labels that the section names.

        Args:
            labels: what the task's models answer; none where they answer with numbers.

        Raises:
            ValueError: the section names another label, or there are none to decide between.
        """
        if not labels and self != OperatingPointConfig():
            raise ValueError("finetune.operating_point needs a task whose answers are labels")
        named = {self.label, *self.costs, *self.class_weights} - {""}
        unknown = sorted(named.union(*self.costs.values()) - set(labels))
        if unknown:
            raise ValueError(
                f"finetune.operating_point names {', '.join(unknown)}; "
                f"the task has {', '.join(labels)}"
            )

    def cost_matrix(self, labels: Sequence[str]) -> list[list[float]]:
        """Return the cost of each true label by called label, times the class weight."""
        return [
            [
                self.class_weights.get(true, 1.0)
                * self.costs.get(true, {}).get(called, float(true != called))
                for called in labels
            ]
            for true in labels
        ]


class Share(Section):
    """A share of validation rows, and what it exceeds on others."""

    measured: float
    low: float
    """Exact lower bound (Clopper & Pearson 1934), one-sided, with the config's confidence.
    It knows nothing of rows that depend on each other."""
    rows: int
    """Rows that it is a share of."""


class OperatingPoint(Section):
    """How to decide, as a bundle keeps it; see ``decide``."""

    aim: Aim = "most-probable"
    labels: tuple[str, ...]
    """In the order of the answers."""
    label: str = ""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """``label`` is answered where its probability is at least this, else the most probable
    of the others; None for the most probable of all."""
    costs: list[list[float]] | None = None
    """By true and by called label; the label with the least expected cost is answered."""
    min_sureness: float = Field(default=0.0, ge=0)
    """Below, nothing is answered; see ``sureness``."""
    reached: bool = True
    """Whether validation rows reach the aim; if not, this is the nearest point."""
    reason: str = ""
    """Why it was not reached."""
    rows: int = 0
    """Validation rows that it was chosen on."""
    recall: Share | None = None
    """Of ``label``, before any row is left to a person."""
    precision: Share | None = None
    """Of ``label``, likewise; it was the best of many, so others may fall below its bound."""
    cost: float | None = None
    """Mean cost of a row, likewise."""
    accuracy: Share | None = None
    """Of the rows that are answered."""
    abstained: float = 0.0
    """Share of rows left to a person."""

    @property
    def band(self) -> tuple[float, float] | None:
        """The probabilities of ``label`` between which rows are left to a person.

        None where there are no two labels with a threshold between them: there, those rows
        are left whose answered label has a probability below ``min_sureness``.
        """
        if self.threshold is None or len(self.labels) != 2:
            return None
        low = self.threshold * (1 - self.min_sureness)
        return low, self.threshold + (1 - self.threshold) * self.min_sureness


def decide(answers: NDArray[np.float64], point: OperatingPoint) -> NDArray[np.int64]:
    """Return the index of the label of each row ``[n]``, ``ABSTAIN`` (-1) where it is unsure.

    Args:
        answers: probabilities ``[n, k]`` in the order of ``point.labels``.
        point: how to decide.

    Raises:
        ValueError: the answers have another number of columns.
    """
    decided = decide_all(answers, point)
    if point.min_sureness > 0:
        decided[sureness(answers, decided, point) < point.min_sureness] = ABSTAIN
    return decided


def decide_all(answers: NDArray[np.float64], point: OperatingPoint) -> NDArray[np.int64]:
    """Return the index of the label of each row ``[n]``, also where it is unsure."""
    if answers.ndim != 2 or answers.shape[1] != len(point.labels):
        raise ValueError(f"answers {answers.shape} are not [n, {len(point.labels)}]")
    if point.costs is not None:
        cheapest: NDArray[np.int64] = (answers @ np.array(point.costs)).argmin(1)
        return cheapest
    if point.threshold is None:
        best: NDArray[np.int64] = answers.argmax(1)
        return best
    wanted = point.labels.index(point.label)
    others = answers.copy()
    others[:, wanted] = -1
    called = answers[:, wanted] >= point.threshold
    return np.where(called, wanted, others.argmax(1)).astype(np.int64)


def sureness(
    answers: NDArray[np.float64], decided: NDArray[np.int64], point: OperatingPoint
) -> NDArray[np.float64]:
    """Return how sure each decision is ``[n]``, 0 to 1: the probability of what is answered.

    Between two labels with a threshold it is the way from the threshold (0) to certainty
    (1), so that what is unsure lies in a band around the threshold.
    """
    if point.threshold is None or len(point.labels) != 2:
        return answers[np.arange(len(answers)), decided]
    score, at = answers[:, point.labels.index(point.label)], point.threshold
    above = np.divide(score - at, 1 - at, out=np.zeros_like(score), where=at < 1)
    below = np.divide(at - score, at, out=np.zeros_like(score), where=at > 0)
    return np.where(score >= at, above, below)
