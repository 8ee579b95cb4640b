"""Classification of anything: one label out of two or more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from components.decision_rule import DecisionRule
from components.errors import SourceError
from components.operating_point import OperatingPointConfig
from components.tasks.model import Features, Labelled, Model
from components.tasks.task import Checks, Task

if TYPE_CHECKING:
    import pandas as pd
    import torch


SHOWN = 10
"""Labels that a message names with their rows."""


def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) != len(labels):
        raise ValueError("labels must differ from each other")
    return labels


Labels = Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_distinct)]
"""The classes of a task, in the order of the model's outputs."""


class LabelTask(Task):
    """A task whose answer is one of ``label_names``."""

    @property
    def answer_names(self) -> tuple[str, ...]:
        """The labels."""
        return self.label_names

    def label_checks(self) -> Checks:
        """Return that a label is one of the task's."""
        return {"unknown-label": lambda labels: labels.isin(self.label_names)}

    def lacking(self, labels: pd.Series[str], min_rows: int) -> str:
        """Say that there is a single class, or none with rows enough, if so."""
        counts = labels.value_counts()
        if (counts >= min_rows).sum() >= 2:
            return ""
        named = [f"{label}: {count}" for label, count in counts.items()]
        found = ", ".join([*named[:SHOWN], "…"] if len(named) > SHOWN else named)
        if len(counts) > 1 and counts.iloc[0] < min_rows:
            return f"has no label with {min_rows} rows ({found})"
        return f"has a single class ({found})"

    def label_counts(self, labels: pd.Series[str]) -> dict[str, int]:
        """Return how many rows have each label, the commonest first."""
        return {str(label): int(count) for label, count in labels.value_counts().items()}

    def score(self, labels: Sequence[str], decisions: Sequence[str]) -> float:
        """Return the accuracy."""
        return float((np.asarray(labels, object) == np.asarray(decisions, object)).mean())


class Classifier(Model):
    """A model that answers with one probability for each label."""

    score_names: ClassVar[tuple[str, ...]] = ("macro_f1", "accuracy", "log_loss")
    metric: ClassVar[str] = "macro_f1"
    gate_metric: ClassVar[str] = "macro_f1"
    naive: ClassVar[str] = "majority class"
    answers_are_probabilities: ClassVar[bool] = True
    """Or mere scores, which no temperature calibrates and no cost can be expected of."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs."""
        return tuple(self.facts["labels"])

    @property
    def answer_names(self) -> tuple[str, ...]:
        """The labels."""
        return self.labels

    @staticmethod
    def facts_of(task: Any) -> dict[str, Any]:
        """Return the labels."""
        return {"labels": list(task.labels)}

    @staticmethod
    def outputs_of(task: Any) -> int:
        """Return the number of labels."""
        return len(task.labels)

    def can_continue(self, task: Any) -> bool:
        """Tell whether the labels are the same, in whatever order."""
        # A model of another kind remembers other things, and may know the same labels.
        known = self.facts.keys() == self.facts_of(task).keys()
        return known and set(self.labels) == set(task.labels)

    def targets(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Return the index of each label."""
        place = {label: index for index, label in enumerate(self.labels)}
        unknown = sorted({str(label) for label in labels} - place.keys())
        if unknown:
            raise SourceError(
                f"labels outside of task.labels: {', '.join(unknown[:5])}; "
                f"the model knows {', '.join(self.labels)}"
            )
        return np.array([place[label] for label in labels], dtype=np.int64)

    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        """Return the cross-entropy of each row."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def distillation_losses(
        self, outputs: torch.Tensor, teacher: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Return the divergence from the teacher's softened probabilities.

        Hinton et al. 2015, https://arxiv.org/abs/1503.02531, with its factor of the
        squared temperature, which keeps gradients of one size.
        """
        from torch.nn.functional import kl_div

        mine = (outputs / temperature).log_softmax(-1)
        theirs = (teacher / temperature).log_softmax(-1)
        divergence = kl_div(mine, theirs, reduction="none", log_target=True).sum(-1)
        return divergence * temperature**2

    def answers(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each label, calibrated if the model was."""
        answers = _softmax(outputs)
        return answers if self.rule is None else self.rule.calibrated(answers)

    def fitted_rule(
        self,
        targets: NDArray[Any],
        answers: NDArray[np.float64],
        aim: OperatingPointConfig,
        *,
        calibrate: bool,
    ) -> DecisionRule | None:
        """Return temperature and operating point."""
        calibrate = calibrate and self.answers_are_probabilities
        return DecisionRule.fit(answers, targets, self.labels, aim, calibrate=calibrate)

    def decided(self, answers: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the index of the label that each row is given, or leans to."""
        if self.rule is not None:
            return self.rule.decided(answers)
        decided: NDArray[np.int64] = answers.argmax(1)
        return decided

    def decisions(self, answers: NDArray[np.float64]) -> list[str]:
        """Return the label that each row is given, or leans to."""
        return [self.labels[said] for said in self.decided(answers)]

    def errors(self, targets: NDArray[Any], answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 1 for a wrong label, 0 for the right one."""
        wrong: NDArray[np.float64] = (self.decided(answers) != targets).astype(np.float64)
        return wrong

    def responses(self, answers: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Return label, confidence and the probability of each label.

        The confidence is the probability of the label. Where rows may be left to a person,
        ``abstained`` says which are; they have no label, and the confidence is of the one
        that they lean to.
        """
        decided, abstained = self.decided(answers).tolist(), self.abstained(answers).tolist()
        may_abstain = self.rule is not None and self.rule.abstains
        return [
            {
                "label": None if left else self.labels[said],
                "confidence": row[said],
                **({"abstained": left} if may_abstain else {}),
                "probabilities": dict(zip(self.labels, row, strict=True)),
            }
            for said, left, row in zip(decided, abstained, answers.tolist(), strict=True)
        ]

    def naive_answers(self, targets: NDArray[Any], rows: int) -> NDArray[np.float64]:
        """Return the majority class for every row."""
        answers = np.zeros((rows, len(self.labels)))
        answers[:, np.bincount(targets).argmax()] = 1
        return answers

    def probe_answers(
        self, train: Labelled, valid: Labelled, vectors: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return what logistic regression answers."""
        weights, bias = self.probe_head(train.vectors, train.targets)
        return _softmax((vectors @ weights.T + bias).astype(np.float32))

    def probe_head(
        self, vectors: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return logistic regression; a label without rows is as good as never answered."""
        from sklearn.linear_model import LogisticRegression

        weights, bias = (
            np.zeros((len(self.labels), vectors.shape[1])),
            np.full(len(self.labels), -20.0),
        )
        classes = np.unique(targets)
        if len(classes) == 1:  # nothing is told apart
            bias[classes] = 0.0
            return weights, bias
        probe = LogisticRegression(max_iter=1000, random_state=0).fit(vectors, targets)
        if len(probe.classes_) == 2:  # one line between the two: half of it for each
            weights[probe.classes_] = np.outer((-0.5, 0.5), probe.coef_[0])
            bias[probe.classes_] = np.outer((-0.5, 0.5), probe.intercept_)[:, 0]
        else:
            weights[probe.classes_], bias[probe.classes_] = probe.coef_, probe.intercept_
        return weights, bias

    def answer_features(self, answers: NDArray[np.float64]) -> Features:
        """Return the confidence: the probability of the most probable label."""
        return {"confidence": answers.max(1)}

    def answer_categories(self, answers: NDArray[np.float64]) -> dict[str, list[str]]:
        """Return the label that is answered."""
        return {"answer": self.decisions(answers)}

    def scores(self, targets: NDArray[Any], answers: NDArray[np.float64]) -> dict[str, float]:
        """Return macro F1, accuracy and log loss."""
        from sklearn.metrics import f1_score

        predicted, classes = self.decided(answers), range(len(self.labels))
        f1 = f1_score(targets, predicted, labels=classes, average="macro", zero_division=0)
        right = np.clip(answers[np.arange(len(targets)), targets], 1e-12, 1)
        return {
            "macro_f1": float(f1),
            "accuracy": float((targets == predicted).mean()),
            "log_loss": float(-np.log(right).mean()),
        }


def _softmax(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probability of each label ``[n, k]`` as the network gives it."""
    wide = outputs.astype(np.float64)
    odds = np.exp(wide - wide.max(-1, keepdims=True))
    return np.asarray(odds / odds.sum(-1, keepdims=True))
