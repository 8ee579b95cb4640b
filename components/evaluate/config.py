"""Section ``evaluate``: what the gate asks of a challenger, and which of it must be so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field, model_validator

from components.evaluate.metrics import Kind, find_metric
from components.settings import Section
from components.tasks import TASKS, TaskConfig

CheckName = Literal[
    "loads",
    "floors",
    "baselines",
    "primary",
    "guarded",
    "slices",
    "serving",
    "leak",
    "calibration",
    "operating_point",
    "robustness",
    "fairness",
    "holdout",
    "overfitting",
    "suspicious",
]
BLOCKING: frozenset[CheckName] = frozenset(
    ("loads", "floors", "baselines", "primary", "guarded", "slices", "serving", "leak")
)
"""Checks that keep a challenger out unless a project says otherwise.

A gate with a dozen vetoes stops good models too, so what is left only warns. ``leak`` is
among the vetoes because it is practically never wrong: see ``LeakConfig``.
"""

MIN_COVERAGE = 0.5
"""A model that answers fewer rows is no help, however right it is on those."""


class SlicesConfig(Section):
    """No part of the rows may collapse while the whole gets better."""

    columns: tuple[str, ...] = ()
    """Columns of the rows to slice by, beside source, window, length and language; further ones
    come from ``source.columns.metadata``."""
    margin: float = Field(default=0.1, ge=0, lt=1)
    """How much the mean score of a slice's rows may fall, at most: accuracy, or the part of
    the range that numbers are off by."""
    min_rows: int = Field(default=50, ge=5)
    """Fewer rows are no slice."""
    bins: int = Field(default=4, ge=2, le=20)
    """Slices of a column of numbers, of about as many rows each; groups of people, too."""
    search: bool = True
    """Whether to look for slices in which the challenger's new errors gather."""


class ServingConfig(Section):
    """What a challenger may cost in production. Both models answer batches in turns."""

    max_latency_ratio: float = Field(default=1.5, gt=0)
    """Median time of a batch over the champion's."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """Median time of a row in a batch."""
    max_size_ratio: float = Field(default=1.5, gt=0)
    """Bytes of the served files over the champion's."""
    max_size_mb: float | None = Field(default=None, gt=0)
    max_memory_ratio: float | None = Field(default=None, gt=0)
    """Peak memory of a process that answers with the model, over the champion's. If this or
    ``max_memory_mb`` is given, such processes are run, which takes some seconds."""
    max_memory_mb: float | None = Field(default=None, gt=0)

    @property
    def asks_for_memory(self) -> bool:
        """Whether memory must be measured."""
        return self.max_memory_ratio is not None or self.max_memory_mb is not None


class LeakConfig(Section):
    """A test score far above the validation score is too good to be true.

    Both sets are drawn by the same hash, and validation rows if anything look better, for
    training stops where they do. So the two ask for the same to happen by chance: with these
    defaults that is one run in ten thousand, if the gap is wide enough to matter besides.
    """

    max_p_value: float = Field(default=1e-4, gt=0, lt=0.5)
    min_gap: float = Field(default=0.05, ge=0, lt=1)
    """Of mean scores of rows: accuracy, or the part of the range that numbers are off by."""
    suspicious_score: float = Field(default=0.99, gt=0, le=1)
    """A mean score of test rows that is shown to be higher is warned about, see the check
    ``suspicious``: something in the contents may tell the label."""


class CalibrationConfig(Section):
    """How far probabilities are from frequencies."""

    max_ece: float = Field(default=0.05, ge=0, le=1)
    """Expected calibration error that is still good; more, if chance explains it."""


class RobustnessConfig(Section):
    """Whether answers stay what they are if contents change and their meaning does not."""

    rows: int = Field(default=100, ge=0)
    """Test rows that are changed in each way; 0 turns the check off."""
    perturbations: tuple[str, ...] | None = None
    """Ways to change them; None for all that there are."""
    margin: float = Field(default=0.05, ge=0, lt=1)
    """By how much fewer answers may stay than of the champion's."""
    min_agreement: float = Field(default=0.8, gt=0, le=1)
    """Share of answers of a first champion that must stay."""
    tolerance: float = Field(default=0.05, gt=0, lt=1)
    """A number stays if it moves by less than this part of the range."""


class FairnessConfig(Section):
    """Whether declared groups of people get the favourable answer alike."""

    columns: tuple[str, ...] = ()
    """Columns of ``source.columns.metadata`` that say who is in which group; without any
    nothing is asked."""
    favourable: str = ""
    """The label that people wish for."""
    min_rows: int = Field(default=30, ge=2)
    min_ratio: float = Field(default=0.8, gt=0, le=1)
    """Of the four-fifths rule."""
    max_gap: float = Field(default=0.1, ge=0, lt=1)
    """Of equal opportunity."""

    @model_validator(mode="after")
    def _names_the_favourable_label(self) -> FairnessConfig:
        if self.columns and not self.favourable:
            raise ValueError("evaluate.fairness.columns needs evaluate.fairness.favourable")
        return self


class HoldoutConfig(Section):
    """A file of trusted rows that no source writes to, against poisoned labels."""

    path: str
    """CSV, JSON Lines or Parquet with the columns ``text`` (or ``image``: base64), ``label``
    and, if rows belong together, ``group``; ``package:file`` for one inside an installed
    package, which is where steps in containers find it."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the file; another one stops the run."""
    margin: float = Field(default=0.03, ge=0)
    """How much the primary metric may fall on it, at most, in its own unit."""
    floor: float | None = None
    """What the primary metric must reach on it, also of a first champion; where less is
    better, not exceed."""


class OverfittingConfig(Section):
    """How much better training rows are answered than validation, and these than test rows."""

    rows: int = Field(default=200, ge=0)
    """Training rows to answer again; 0 turns the check off."""
    max_gap: float = Field(default=0.1, ge=0, lt=1)
    """Of mean scores of rows, see ``LeakConfig.min_gap``."""


class EvaluateConfig(Section):
    """Section ``evaluate``: the gate."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability of promoting a model that is no better."""
    primary: str | None = None
    """Metric to be better in; None for the task's own."""
    guarded: dict[str, float] | None = None
    """How much other metrics may get worse on the test rows, at most, each in its own unit.
    None is ``log_loss: 0.1`` for classifiers, which an overconfident one breaks; and
    ``coverage: 0.1``, where the champion leaves rows to a person."""
    guard_margin: float = Field(default=0.03, ge=0)
    """How much the primary metric on the earlier windows may fall, at most, in its own unit."""
    floors: dict[str, float] = {}
    """What metrics must reach on the test rows; where less is better, not exceed. A challenger
    that leaves rows to a person must answer half of them, unless this says ``coverage``."""
    labels: Literal["same", "intersection"] = "same"
    """``intersection``: compare with a champion of other labels on those that both know."""
    required: tuple[CheckName, ...] = ()
    """Checks that block, beside those that do so by default."""
    warn: tuple[CheckName, ...] = ()
    """Checks that only warn."""
    min_groups: int = Field(default=30, ge=2)
    """With fewer groups of test rows an interval cannot be trusted: inconclusive."""
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    seed: int = Field(default=0, ge=0)
    slices: SlicesConfig = SlicesConfig()
    serving: ServingConfig = ServingConfig()
    leak: LeakConfig = LeakConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    robustness: RobustnessConfig = RobustnessConfig()
    fairness: FairnessConfig = FairnessConfig()
    holdout: HoldoutConfig | None = None
    overfitting: OverfittingConfig = OverfittingConfig()

    @model_validator(mode="after")
    def _a_check_blocks_or_warns(self) -> EvaluateConfig:
        both = sorted(set(self.required) & set(self.warn))
        if both:
            raise ValueError(f"evaluate.required and evaluate.warn both name {', '.join(both)}")
        if "loads" in self.warn:
            raise ValueError("evaluate.warn cannot name loads: such a model answers nothing")
        unasked = {
            "holdout": self.holdout is None,
            "fairness": not self.fairness.columns,
            "robustness": self.robustness.rows == 0,
            "overfitting": self.overfitting.rows == 0,
        }
        for name in self.required:
            if unasked.get(name, False):
                raise ValueError(
                    f"evaluate.required names {name}, but evaluate.{name} asks for nothing"
                )
        negative = sorted(name for name, margin in (self.guarded or {}).items() if margin < 0)
        if negative:
            raise ValueError(f"evaluate.guarded: the margin of {negative[0]} is below 0")
        return self

    @property
    def blocking(self) -> frozenset[CheckName]:
        """The checks that keep a challenger out."""
        return (BLOCKING | frozenset(self.required)) - frozenset(self.warn)

    def margins(self, kind: Kind, *, abstains: bool = False) -> dict[str, float]:
        """Return the margin of each guarded metric.

        Args:
            kind: what answers are.
            abstains: whether the champion leaves rows to a person.
        """
        if self.guarded is not None:
            return self.guarded
        losses = {"log_loss": 0.1} if kind == "classification" else {}
        return losses | ({"coverage": 0.1} if abstains else {})

    def reached(self, *, abstains: bool) -> dict[str, float]:
        """Return what each metric must reach.

        Args:
            abstains: whether the challenger leaves rows to a person.
        """
        return ({"coverage": MIN_COVERAGE} if abstains else {}) | self.floors

    def strange(self, task: TaskConfig, labels: Sequence[str]) -> Iterator[str]:
        """Yield which keys name a label of the task that models are not compared on.

        Args:
            task: the section ``task``.
            labels: that both models know.
        """
        asked = {
            "primary": self.primary or "",
            **{f"guarded.{name}": name for name in self.guarded or {}},
            **{f"floors.{name}": name for name in self.floors},
        }
        named = {key: name.partition(":")[2] for key, name in asked.items()}
        if self.fairness.columns:
            named["fairness.favourable"] = self.fairness.favourable
        for key, label in named.items():
            if label in task.label_names and label not in labels:
                yield (
                    f"evaluate.{key} names the label {label!r}, which the champion does not "
                    "know; with evaluate.labels: intersection it cannot be asked about until a "
                    "champion knows it: leave the key out for this promotion"
                )

    def unknown(self, task: TaskConfig, columns: Sequence[str]) -> Iterator[str]:
        """Yield what is wrong with what the section names of a task and its rows.

        There is no such metric, column, label or perturbation, models cannot be compared by
        a metric, it never reaches what is asked of it, or a required check asks for nothing
        of such a task; each problem begins with its key.

        Args:
            task: the section ``task``.
            columns: of the rows that a source may be sliced by.
        """
        from components.evaluate.perturbations import PERTURBATIONS

        yield from self._wrong_metrics(task)
        if "calibration" in self.required and kind_of(task) != "classification":
            yield (
                f"evaluate.required names calibration, but answers of {task.kind} are no "
                "probabilities"
            )
        for key, asked, known, what in (
            ("slices.columns", self.slices.columns, columns, "column"),
            ("fairness.columns", self.fairness.columns, columns, "column"),
            (
                "robustness.perturbations",
                self.robustness.perturbations or (),
                tuple(PERTURBATIONS[task.content]),
                f"perturbation of {task.content}s",
            ),
            (
                "fairness.favourable",
                [self.fairness.favourable] if self.fairness.columns else [],
                task.label_names,
                "label",
            ),
        ):
            there = f"there are {', '.join(known)}" if known else "there is none"
            for each in asked:
                if each not in known:
                    yield f"evaluate.{key} names no {what}: {each!r}; {there}"

    def _wrong_metrics(self, task: TaskConfig) -> Iterator[str]:
        """Yield what is wrong with the metrics that the section names, and with their limits."""
        kind = kind_of(task)
        primary = self.primary or TASKS[task.kind].gate_metric
        of_primary: dict[str, tuple[str, float]] = {"guard_margin": (primary, self.guard_margin)}
        margins = {f"guarded.{name}": (name, limit) for name, limit in (self.guarded or {}).items()}
        floors = {f"floors.{name}": (name, limit) for name, limit in self.floors.items()}
        if self.holdout is not None:
            of_primary["holdout.margin"] = (primary, self.holdout.margin)
            if self.holdout.floor is not None:
                floors["holdout.floor"] = (primary, self.holdout.floor)
        margins |= of_primary
        for key, (name, limit) in ({"primary": (primary, 0.0)} | margins | floors).items():
            try:
                metric = find_metric(name, kind, task.label_names)
            except ValueError as error:
                if key not in (*of_primary, "holdout.floor"):
                    yield f"evaluate.{key} is wrong: {error}"
                continue
            span = f"{name} is {metric.low:g} to {metric.high:g}"
            if metric.is_lifted_by_chance and key not in (*of_primary, *floors):
                yield (
                    f"evaluate.{key} cannot compare models: few rows lift {name} by chance; "
                    "use brier or log_loss, which miscalibration raises, too"
                )
            elif key in floors and not metric.low <= limit <= metric.high:
                yield f"evaluate.{key} is out of reach: {span}, and the floor is {limit:g}"
            elif key in margins and limit >= metric.high - metric.low:
                yield f"evaluate.{key} guards nothing: {span}, and the margin is {limit:g}"


def kind_of(task: TaskConfig) -> Kind:
    """Return what the answers of a task's models are."""
    if not task.label_names:
        return "regression"
    return "anomaly" if task.kind == "text-anomaly" else "classification"
