"""What every model answered to every row that the gate looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.decision_rule import DecisionRule
from components.evaluate.comparison import Difference, compare
from components.evaluate.config import EvaluateConfig
from components.evaluate.metrics import ABSTENTION, METRICS, Kind, Scored
from components.tasks.model import Content, Features

Rows = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Perturbed:
    """What became of answers when contents were changed in one way.

    Attributes:
        groups: of the rows that did change ``[m]``.
        kept: by model, whether the answer stayed ``[m]``.
    """

    groups: NDArray[np.object_]
    kept: dict[str, Rows]


@dataclass(frozen=True, eq=False)
class Exam:
    """Rows with their truth, and what models answered; all that checks look at.

    Models are ``challenger``, ``champion`` and, for a first champion, ``naive`` and
    ``probe``. What a model was not asked is NaN.

    Attributes:
        kind: what answers are.
        content: what rows hold.
        metric: the primary one.
        labels: names of the columns of answers, in the order of the task.
        rows: with ``id``, ``group``, ``window``, ``split``, ``text``, ``label``, and the further
            columns of the source; splits are ``test``, ``guard``, ``valid``, ``train`` and
            ``holdout``.
        targets: true class or value ``[n]``.
        answers: by model ``[n, k]``.
        decided: by model, the class or value that it says, or leans to where the row is left
            to a person ``[n]``; -1 where it was not asked.
        errors: by model, how wrong that is, 0 to 1 ``[n]``.
        milliseconds: by model, time of the batch that a row was in, by its rows ``[n]``.
        batch: number of that batch ``[n]``.
        size_bytes: by model, of what is served.
        memory_bytes: by model, at most, of a process that answers; empty if not measured.
        abstained: by model, which rows are left to a person ``[n]``; none of a model that is
            not named.
        rules: how models decide that have been fitted to.
        perturbed: by the way in which contents were changed.
        features: of the test rows' contents ``[m]``.
        vectors: embeddings of the test rows ``[m, d]``; None if there are none.
        opponents: names of what a first champion is compared with, for people.
        broken: why the challenger gives no answers; empty if it does.
        left_out: rows whose label one of the models does not know.
    """

    kind: Kind
    content: Content
    metric: str
    labels: tuple[str, ...]
    rows: pd.DataFrame
    targets: NDArray[Any]
    answers: dict[str, NDArray[np.float64]]
    decided: dict[str, NDArray[Any]]
    errors: dict[str, NDArray[np.float64]]
    milliseconds: dict[str, NDArray[np.float64]]
    batch: NDArray[np.int64]
    size_bytes: dict[str, int]
    memory_bytes: dict[str, int] = field(default_factory=dict)
    abstained: dict[str, Rows] = field(default_factory=dict)
    rules: dict[str, DecisionRule] = field(default_factory=dict)
    perturbed: dict[str, Perturbed] = field(default_factory=dict)
    features: Features = field(default_factory=dict)
    vectors: NDArray[np.float32] | None = None
    opponents: dict[str, str] = field(default_factory=dict)
    broken: str = ""
    left_out: int = 0

    @property
    def has_champion(self) -> bool:
        """Whether there is somebody to beat."""
        return "champion" in self.answers

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, none where answers are numbers."""
        return () if self.kind == "regression" else self.labels

    @property
    def metrics(self) -> list[str]:
        """The metrics that say something of these answers, without those of a single class."""
        known = METRICS | (ABSTENTION if any(map(self.abstains, self.answers)) else {})
        return [name for name, metric in known.items() if self.kind in metric.kinds]

    def abstains(self, model: str) -> bool:
        """Tell whether a model leaves any row to a person."""
        return model in self.abstained and bool(self.abstained[model].any())

    def of(self, *splits: str) -> Rows:
        """Return which rows belong to any of the splits ``[n]``."""
        return np.asarray(self.rows["split"].isin(splits))

    def groups(self, rows: Rows) -> NDArray[np.object_]:
        """Return the group of some rows ``[m]``."""
        return np.asarray(self.rows["group"].to_numpy(object)[rows])

    def scored(self, model: str, rows: Rows) -> Scored:
        """Return a model's answers to some rows."""
        targets, answers = self.targets[rows], self.answers[model][rows]
        if self.kind == "regression":
            return Scored.of(self.kind, targets, answers)
        answered = ~self.abstained[model][rows] if model in self.abstained else None
        return Scored.of(self.kind, targets, answers, self.decided[model][rows], answered)

    def differences(
        self,
        opponent: str,
        rows: Rows,
        metrics: Sequence[str],
        config: EvaluateConfig,
    ) -> dict[str, Difference]:
        """Return how the challenger differs from another model on some rows, by metric."""
        return compare(
            self.scored(opponent, rows),
            self.scored("challenger", rows),
            self.groups(rows),
            metrics,
            alpha=config.alpha,
            resamples=config.resamples,
            seed=config.seed,
            labels=self.classes,
        )

    def row_difference(self, opponent: str, rows: Rows, config: EvaluateConfig) -> Difference:
        """Return how the mean scores of rows differ: 1 less the error of each."""
        if self.kind != "regression":
            return self.differences(opponent, rows, ["accuracy"], config)["accuracy"]
        return mean_difference(
            1 - self.errors[opponent][rows],
            1 - self.errors["challenger"][rows],
            self.groups(rows),
            config,
        )


def mean_difference(
    champion: NDArray[np.float64],
    challenger: NDArray[np.float64],
    groups: NDArray[np.object_],
    config: EvaluateConfig,
) -> Difference:
    """Return how the means of two scores of the same rows differ, scores being 0 to 1 ``[n]``."""
    # The mean absolute error of what lacks to 1.
    a, b = (
        Scored.of("regression", np.ones(len(scores)), scores[:, None])
        for scores in (champion, challenger)
    )
    return compare(
        a,
        b,
        groups,
        ["mae"],
        alpha=config.alpha,
        resamples=config.resamples,
        seed=config.seed,
    )["mae"]
