"""Anomaly detection on texts: fitted on normal rows only.

The head whitens the features of normal rows, so that the squared length of its output is
the Mahalanobis distance from them, with the covariance shrunk as by Ledoit and Wolf
(2004, https://doi.org/10.1016/S0047-259X(03)00096-4). Methods that train the encoder pull
normal rows to that centre, as Deep SVDD does (Ruff et al. 2018), and whiten again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from components.tasks.classification import Classifier, LabelTask
from components.tasks.model import Labelled
from components.tasks.text import TextModel, TextTask

if TYPE_CHECKING:
    import pandas as pd
    import torch


class TextAnomaly(LabelTask, TextTask):
    """Section ``task`` with ``kind: text-anomaly``."""

    kind: Literal["text-anomaly"] = "text-anomaly"
    normal: str = "normal"
    """The label of the rows to learn from."""
    anomaly: str = "anomaly"
    """The label of the rows to find; they are used to measure, never to learn."""
    false_alarm_rate: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of normal validation rows that may raise an alarm; it sets the threshold, unless
    ``finetune.operating_point`` asks for a recall or a precision, which takes anomalies."""

    @model_validator(mode="after")
    def _labels_differ(self) -> TextAnomaly:
        if self.normal == self.anomaly:
            raise ValueError("task.normal and task.anomaly must differ")
        return self

    @property
    def labels(self) -> tuple[str, str]:
        """Normal, then anomaly."""
        return self.normal, self.anomaly

    @property
    def label_names(self) -> tuple[str, ...]:
        """Normal, then anomaly."""
        return self.labels

    def lacking(self, labels: pd.Series[str], min_rows: int) -> str:
        """Say that there are too few normal rows, if so; anomalies are not learnt from."""
        found = int((labels == self.normal).sum())
        if found >= min_rows:
            return ""
        return f"has {found or 'no'} rows with the label {self.normal!r}"


class TextAnomalyDetector(Classifier, TextModel):
    """Answers with ``d / (d + t)`` for the squared distance d and the threshold t.

    So an anomaly is what scores above a half, and the two answers sum to one.
    """

    score_names: ClassVar[tuple[str, ...]] = (
        *("auroc", "recall_at_false_alarm_rate"),
        *("macro_f1", "accuracy"),
    )
    metric: ClassVar[str] = "auroc"
    probe: ClassVar[str] = "distance from the base's normal rows"
    fits_head: ClassVar[bool] = True
    # They rank rows by their distance, and nothing makes them as probable as they say.
    answers_are_probabilities: ClassVar[bool] = False

    @staticmethod
    def facts_of(task: Any) -> dict[str, Any]:
        """Return labels and false-alarm rate."""
        return {"labels": list(task.labels), "false_alarm_rate": task.false_alarm_rate}

    @staticmethod
    def outputs_of(task: Any) -> int:
        """Return 0: the output is as wide as the features."""
        return 0

    def can_continue(self, task: Any) -> bool:
        """Tell whether normal and anomaly are called the same."""
        known = self.facts.keys() >= self.facts_of(task).keys()
        return known and self.labels == tuple(task.labels)

    def configure(self, task: Any, *, dropout: float) -> None:
        """Take the false-alarm rate from the project."""
        super().configure(task, dropout=dropout)
        self.facts |= self.facts_of(task)

    def trains_on(self, targets: NDArray[Any]) -> NDArray[np.bool_]:
        """Learn from normal rows only."""
        normal: NDArray[np.bool_] = targets == 0
        return normal

    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        """Return the mean squared distance from the centre per dimension."""
        return outputs.square().mean(-1)

    def distillation_losses(
        self, outputs: torch.Tensor, teacher: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Return the distance from where the teacher puts the row."""
        return (outputs - teacher).square().mean(-1)

    def answers(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return ``[n, 2]``: how normal and how anomalous."""
        distance = np.square(outputs.astype(np.float64)).sum(-1)
        score = distance / (distance + self.facts.get("threshold", 1.0))
        return np.stack([1 - score, score], -1)

    def scores(self, targets: NDArray[Any], answers: NDArray[np.float64]) -> dict[str, float]:
        """Return AUROC, the recall at the fixed false-alarm rate, F1 and accuracy.

        AUROC is one half where a kind of row is missing: nothing was told apart.
        """
        from sklearn.metrics import roc_auc_score

        score, anomalous = answers[:, 1], targets == 1
        rate = self.facts["false_alarm_rate"]
        both = anomalous.any() and not anomalous.all()
        limit = np.quantile(score[~anomalous], 1 - rate) if (~anomalous).any() else 0.5
        common = super().scores(targets, answers)
        return {
            "auroc": float(roc_auc_score(anomalous, score)) if both else 0.5,
            "recall_at_false_alarm_rate": float((score[anomalous] > limit).mean()) if both else 0.0,
            "macro_f1": common["macro_f1"],
            "accuracy": common["accuracy"],
        }

    def fit_head(self, train: torch.Tensor, valid: torch.Tensor) -> None:
        """Whiten with normal training features; set the threshold on validation ones."""
        import torch

        centre, whitening = _whitening(train.double().cpu().numpy())
        head: Any = self.network.head
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(whitening.T))
            head.bias.copy_(torch.from_numpy(-centre @ whitening))
            distance = head(valid.to(head.weight)).double().square().sum(-1).cpu().numpy()
        self.facts["threshold"] = float(np.quantile(distance, 1 - self.facts["false_alarm_rate"]))

    def probe_answers(
        self, train: Labelled, valid: Labelled, vectors: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return answers by the Mahalanobis distance from normal embeddings."""
        normal = train.vectors[train.targets == 0].astype(np.float64)
        judges = valid.vectors[valid.targets == 0].astype(np.float64)
        centre, whitening = _whitening(normal)

        def distances(rows: NDArray[Any]) -> NDArray[np.float64]:
            squares: NDArray[np.float64] = np.square((rows - centre) @ whitening)
            return np.asarray(squares.sum(-1))

        judged = distances(judges if len(judges) else normal)
        threshold = np.quantile(judged, 1 - self.facts["false_alarm_rate"])
        found = distances(vectors)
        score = found / (found + threshold)
        return np.stack([1 - score, score], -1)


def _whitening(
    features: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centre ``[d]`` of features ``[n, d]``, and what whitens them, ``[d, d]``."""
    from sklearn.covariance import ledoit_wolf

    centre = features.mean(0)
    covariance, _ = ledoit_wolf(features - centre, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    return centre, vectors / np.sqrt(np.clip(values, 1e-12, None))
