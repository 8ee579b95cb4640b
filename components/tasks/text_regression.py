"""Text regression: a number for a text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from components.errors import SourceError
from components.tasks.model import Features, Labelled
from components.tasks.task import Checks
from components.tasks.text import TextModel, TextTask

if TYPE_CHECKING:
    import pandas as pd
    import torch


class TextRegression(TextTask):
    """Section ``task`` with ``kind: text-regression``."""

    exclusive: ClassVar[bool] = False
    score_name: ClassVar[str] = "r2"
    score_title: ClassVar[str] = "R²"
    kind: Literal["text-regression"] = "text-regression"
    low: float
    """The lowest label there can be; a row with a lower one is quarantined."""
    high: float
    """The highest label there can be. Answers stay between the two."""

    @model_validator(mode="after")
    def _low_is_below_high(self) -> TextRegression:
        if self.low >= self.high:
            raise ValueError("task.low must be below task.high")
        return self

    @property
    def label_names(self) -> tuple[str, ...]:
        """None: labels are numbers."""
        return ()

    @property
    def answer_names(self) -> tuple[str, ...]:
        """One column."""
        return ("value",)

    def label_checks(self) -> Checks:
        """Return that a label is a finite number, and one inside of the range."""
        return {
            "label-not-a-number": lambda labels: np.isfinite(_numbers(labels)),
            "label-out-of-range": lambda labels: (
                ~((_numbers(labels) < self.low) | (_numbers(labels) > self.high))
            ),
        }

    def label_fault(self, label: str) -> str:
        """Say that a label is no number of the range, if so."""
        if self.low <= _number(label) <= self.high:
            return ""
        return f"the label {label[:60]!r} is no number from {self.low:g} to {self.high:g}"

    def lacking(self, labels: pd.Series[str], min_rows: int) -> str:
        """Say that all labels are one number, if so."""
        if _numbers(labels).nunique() > 1:
            return ""
        return f"has a single value ({', '.join(labels.unique())})"

    def label_counts(self, labels: pd.Series[str]) -> dict[str, int]:
        """Return how many labels there are in each quarter of the range."""
        edges = np.linspace(self.low, self.high, 5)
        values = _numbers(labels)
        counts, _ = np.histogram(values[np.isfinite(values)], edges)
        names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
        return dict(zip(names, counts.tolist(), strict=True))

    def score(self, labels: Sequence[str], decisions: Sequence[str]) -> float:
        """Return R²."""
        return _r2(*(np.array([_number(each) for each in s]) for s in (labels, decisions)))


class TextRegressor(TextModel):
    """An encoder with one output, which counts quarters of the range from its middle.

    A quarter is about one standard deviation of ratings on a scale, so that the learning
    rates of classification suit regression too.
    """

    score_names: ClassVar[tuple[str, ...]] = ("r2", "mae", "mse")
    metric: ClassVar[str] = "r2"
    gate_metric: ClassVar[str] = "r2"
    naive: ClassVar[str] = "mean value"

    @property
    def _middle(self) -> float:
        return float(self.facts["low"] + self.facts["high"]) / 2

    @property
    def _quarter(self) -> float:
        return float(self.facts["high"] - self.facts["low"]) / 4

    @property
    def answer_names(self) -> tuple[str, ...]:
        """One column."""
        return ("value",)

    @staticmethod
    def facts_of(task: Any) -> dict[str, Any]:
        """Return the range of the labels."""
        return {"low": task.low, "high": task.high}

    @staticmethod
    def outputs_of(task: Any) -> int:
        """Return 1."""
        return 1

    def can_continue(self, task: Any) -> bool:
        """Tell whether the range is the same."""
        return self.facts == self.facts_of(task)

    def targets(self, labels: Sequence[str]) -> NDArray[np.float64]:
        """Return the labels as numbers."""
        low, high = self.facts["low"], self.facts["high"]
        values = np.array([_number(label) for label in labels], dtype=np.float64)
        outside = ~((values >= low) & (values <= high))
        if outside.any():
            first = list(labels)[int(outside.argmax())]
            raise SourceError(f"the label {first!r} is no number from {low:g} to {high:g}")
        return values

    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        """Return the squared error of each row, in quarters of the range."""
        return (outputs[:, 0] - (targets - self._middle) / self._quarter).square()

    def answers(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the value for each row, ``[n, 1]``, kept inside of the range."""
        values = self._middle + self._quarter * outputs.astype(np.float64)
        return values.clip(self.facts["low"], self.facts["high"])

    def decided(self, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values."""
        return answers[:, 0]

    def decisions(self, answers: NDArray[np.float64]) -> list[str]:
        """Return the values as text."""
        return [f"{value:g}" for value in answers[:, 0]]

    def errors(self, targets: NDArray[Any], answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the absolute error as a share of the range."""
        return np.asarray(np.abs(answers[:, 0] - targets) / self.answer_range)

    def responses(self, answers: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Return the value."""
        return [{"value": value} for value in answers[:, 0].tolist()]

    def naive_answers(self, targets: NDArray[Any], rows: int) -> NDArray[np.float64]:
        """Return the mean value for every row."""
        return np.full((rows, 1), targets.mean())

    def probe_answers(
        self, train: Labelled, valid: Labelled, vectors: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return what ridge regression answers, kept inside of the range."""
        weights, bias = self.probe_head(train.vectors, train.targets)
        return self.answers((vectors @ weights.T + bias).astype(np.float32))

    def probe_head(
        self, vectors: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ridge regression onto quarters of the range."""
        from sklearn.linear_model import Ridge

        probe = Ridge(alpha=1.0).fit(vectors, (targets - self._middle) / self._quarter)
        return probe.coef_[None], np.array([probe.intercept_])

    @property
    def answer_range(self) -> float:
        """From the lowest label to the highest."""
        return float(self.facts["high"] - self.facts["low"])

    def answer_features(self, answers: NDArray[np.float64]) -> Features:
        """Return the values."""
        return {"value": answers[:, 0]}

    def scores(self, targets: NDArray[Any], answers: NDArray[np.float64]) -> dict[str, float]:
        """Return R², mean absolute and mean squared error."""
        error = answers[:, 0] - targets
        return {
            "r2": _r2(targets, answers[:, 0]),
            "mae": float(np.abs(error).mean()),
            "mse": float(np.square(error).mean()),
        }


def _r2(targets: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the share of the targets' variance that values explain."""
    spread = float(np.square(targets - targets.mean()).sum())
    squares = float(np.square(values - targets).sum())
    return 1 - squares / spread if spread > 0 else float(squares == 0)


def _numbers(labels: pd.Series[str]) -> pd.Series[float]:
    return labels.map(_number).astype(np.float64)


def _number(label: str) -> float:
    try:
        return float(label)
    except (TypeError, ValueError):
        return math.nan
