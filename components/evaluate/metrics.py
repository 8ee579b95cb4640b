"""The metrics of the gate, of all rows or of thousands of resamples of them at once.

A metric is either a function of sums over rows (accuracy, F1, log loss, R²) or of the order
into which scores bring rows (the areas under the ROC and the precision-recall curve). Both
take weights ``[resamples, rows]``: how often each resample holds each row. With a weight of
one for all rows they are scikit-learn's metrics, and with others scikit-learn's with
``sample_weight``; where a metric has no value, they give NaN in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.evaluate.curves import Counts, Curve, Floats, ratio

Kind = Literal["classification", "anomaly", "regression"]
Finish = Callable[[Floats], Floats]

CALIBRATION_BINS = 15


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model answered for rows whose truth is known.

    Attributes:
        kind: what answers are. ``classification``: a probability for each class;
            ``anomaly``: how normal and how anomalous; ``regression``: a value.
        targets: the true class, from 0, or the true value ``[n]``.
        answers: as ``Model.predict`` returns them ``[n, k]``.
        decisions: the class that is answered, or leant to, ``[n]``; of no use to regression.
        answered: which rows are not left to a person ``[n]``; None for all.
    """

    kind: Kind
    targets: NDArray[Any]
    answers: NDArray[np.float64]
    decisions: NDArray[np.int64]
    answered: NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        kind: Kind,
        targets: NDArray[Any],
        answers: NDArray[np.float64],
        decisions: NDArray[np.int64] | None = None,
        answered: NDArray[np.bool_] | None = None,
    ) -> Scored:
        """Return checked answers; without ``decisions`` the class of the highest answer.

        Raises:
            ValueError: there are no rows, shapes do not fit, or answers are not finite.
        """
        decisions = answers.argmax(1) if decisions is None else decisions
        if len(targets) == 0:
            raise ValueError("no rows to score")
        if not len(targets) == len(answers) == len(decisions):
            raise ValueError(
                f"{len(targets)} targets, {len(answers)} answers, {len(decisions)} decisions"
            )
        if not np.isfinite(answers).all():
            raise ValueError("answers are not finite")
        return cls(kind, targets, answers, decisions, answered)

    @cached_property
    def label_columns(self) -> Floats:
        """Whether a row has each class, is given it, and is given it rightly ``[n, 3 classes]``."""
        one = np.eye(self.answers.shape[1])
        true, given = one[self.targets], one[self.decisions]
        return np.hstack([true, given, true * given])

    @cached_property
    def label_cells(self) -> NDArray[np.int64]:
        """A number for each combination of true and given class ``[n]``."""
        cells: NDArray[np.int64] = self.targets * self.answers.shape[1] + self.decisions
        return cells

    @cached_property
    def curves(self) -> list[Curve]:
        """The rows of each class against the rest; of two classes, the second's."""
        classes = self.answers.shape[1]
        present = [1] if classes == 2 else np.unique(self.targets).tolist()
        return [Curve(self.targets == each, self.answers[:, each]) for each in present]


@dataclass(frozen=True, eq=False)
class Sums:
    """A metric that rows enter through sums.

    Attributes:
        columns: what is summed over rows ``[n, c]``.
        finish: makes scores ``[resamples]`` of sums ``[resamples, c]``.
    """

    columns: Floats
    finish: Finish

    def score(self, weights: Floats) -> Floats:
        """Return the metric ``[resamples]`` for weights ``[resamples, n]``."""
        return self.finish(weights @ self.columns)

    def contributions(self, other: Sums) -> Floats:
        """Return what each row adds to the score of ``other`` minus this one ``[n]``.

        It is the slope of the metric midway between the two models, times what differs
        in the row, so that the sum is the difference up to the third order, and that a
        row whose two answers change places changes its sign and nothing else.
        """
        middle = (self.columns.sum(0) + other.columns.sum(0)) / 2
        return np.asarray((other.columns - self.columns) @ self.slope(middle))

    def slope(self, sums: Floats) -> Floats:
        """Return how the score changes with each of its sums ``[c]``."""
        size = np.sqrt(np.square(self.columns).mean(0))
        # A thousandth of a row: little enough for a slope, enough to leave nine digits.
        steps = np.diag(1e-3 * np.where(size > 0, size, 1.0))
        change = self.finish(sums + steps) - self.finish(sums - steps)
        return np.asarray(np.nan_to_num(change / (2 * np.diag(steps))))


@dataclass(frozen=True, eq=False)
class LabelSums(Sums):
    """A metric of how often each class is there, is given, and is given rightly.

    Attributes:
        columns: these three, for each class ``[n, 3 classes]``.
        cells: a number for each combination of true and given class ``[n]``.
    """

    cells: NDArray[np.int64]

    @property
    def largest_change(self) -> float:
        """How much the score changes, at most, with one right answer that turns wrong."""
        true, given, right = np.split(self.columns.sum(0), 3)
        _, by_given, by_right = np.split(self.slope(np.concatenate([true, given, right])), 3)
        change = np.abs((by_given + by_right)[:, None] - by_given)
        np.fill_diagonal(change, 0)
        return float(change[true > 0].max())


class PrecisionSums(LabelSums):
    """A precision, of one class or the mean over classes."""

    def contributions(self, other: Sums) -> Floats:
        """Return what each row adds to the score of ``other`` minus this one ``[n]``.

        The precision of a class that only one model gives jumps from 0, which no slope tells
        of. Had the other model given it to the same rows, and never rightly, its precision
        would be 0 all the same: so it is counted.
        """
        classes = self.columns.shape[1] // 3
        given = slice(classes, 2 * classes)
        ours, theirs = self.columns[:, given], other.columns[:, given]
        by_one_alone = ours.any(0) != theirs.any(0)
        counted = []
        for each in (self, other):
            columns = each.columns.copy()
            columns[:, given] = np.where(
                by_one_alone, np.maximum(ours, theirs), each.columns[:, given]
            )
            counted.append(replace(each, columns=columns))
        return Sums.contributions(*counted)


class Ranking:
    """An area under a curve, of one class against the rest or the mean over such classes.

    Scores count by their order only. A threshold at each distinct score of a positive row is
    enough: between two of them nothing but negative rows is let through.
    """

    def __init__(self, scored: Scored, area: Literal["roc", "pr"]) -> None:
        self._curves = scored.curves
        self._area = area

    def score(self, weights: Floats, counted: dict[Curve, Counts] | None = None) -> Floats:
        """Return the area ``[resamples]`` for weights ``[resamples, n]``.

        It is NaN where a resample holds no positive row or, for ROC, no negative one; the
        mean over classes leaves such classes out.

        Args:
            weights: how often each resample holds each row.
            counted: what was counted with the same weights before, which both areas need;
                it is added to.
        """
        # Rows by resamples, as one block of memory, is what the sums over rows need.
        by_row = np.ascontiguousarray(weights.T)
        counted = {} if counted is None else counted
        for curve in self._curves:
            if curve not in counted:
                counted[curve] = curve.count(by_row)
        areas = np.stack([getattr(counted[curve], self._area) for curve in self._curves])
        known = ~np.isnan(areas)
        total = np.where(known, areas, 0).sum(0)
        return ratio(total, known.sum(0), np.nan)

    def contributions(self, other: Ranking) -> Floats:
        """Return what each row adds to the area of ``other`` minus this one ``[n]``.

        As of ``Sums``; scores are compared between models by their ranks within each
        (Bandos, Rockette & Gur 2005, https://doi.org/10.1002/sim.2149).
        """
        pairs = zip(self._curves, other._curves, strict=True)
        added = [a.contributions(b, self._area) for a, b in pairs]
        return np.asarray(np.mean(added, axis=0))


Measure = Sums | Ranking


@dataclass(frozen=True)
class Metric:
    """What there is to know of a metric without any rows.

    Attributes:
        higher_is_better: or lower.
        kinds: of answers that it can be computed of.
        low: the least that it can be.
        high: the most that it can be.
        is_lifted_by_chance: whether it is greater of few rows than of many, whatever the
            model, so that an interval of a difference does not cover the true one.
        measure: prepares it for given answers.
    """

    higher_is_better: bool
    kinds: tuple[Kind, ...]
    low: float
    high: float
    measure: Callable[[Scored], Measure]
    is_lifted_by_chance: bool = False

    @property
    def best(self) -> float:
        """The score of a model without errors."""
        return self.high if self.higher_is_better else self.low


def score(
    name: str, scored: Scored, weights: Floats | None = None, *, labels: Sequence[str] = ()
) -> Floats:
    """Return a metric of every resample ``[resamples]``; without weights of all rows ``[1]``.

    Args:
        name: as of ``find_metric``.
        scored: answers to rows.
        weights: how often each resample holds each row ``[resamples, n]``.
        labels: names of the classes.

    Raises:
        ValueError: there is no such metric of such answers.
    """
    metric = find_metric(name, scored.kind, labels)
    every = np.ones((1, len(scored.targets))) if weights is None else weights
    return metric.measure(scored).score(every)


def find_metric(name: str, kind: Kind, labels: Sequence[str] = ()) -> Metric:
    """Return a metric by its name in ``METRICS``, or as ``recall:LABEL`` for one class.

    Those of ``ABSTENTION`` are found too.

    Args:
        name: of the metric.
        kind: what answers are.
        labels: names of the classes.

    Raises:
        ValueError: there is no such metric of such answers; says which there are.
    """
    of, _, label = name.partition(":")
    if of in _BY_CLASS and label in labels:
        found = _by_class(of, labels.index(label))
    elif name in (every := METRICS | ABSTENTION):
        found = every[name]
    else:
        known = [each for each, metric in every.items() if kind in metric.kinds]
        if kind != "regression":
            known += [f"{each}:{one}" for each in _BY_CLASS for one in labels]
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"no metric {name!r} among {', '.join(known)}{hint}")
    if kind not in found.kinds:
        raise ValueError(f"{name} is no metric of {kind}")
    return found


# --- functions of sums ---


def _accuracy(true: Floats, given: Floats, right: Floats) -> Floats:
    return ratio(right.sum(-1), true.sum(-1), np.nan)


def _balanced_accuracy(true: Floats, given: Floats, right: Floats) -> Floats:
    """Return the mean recall of the classes that there are."""
    return ratio(ratio(right, true).sum(-1), (true > 0).sum(-1), np.nan)


def _precision(true: Floats, given: Floats, right: Floats, otherwise: float = 0.0) -> Floats:
    """Return 0 for a class that is there and never given, ``otherwise`` if it is not there."""
    return ratio(right, given, np.where(true > 0, 0.0, otherwise))


def _recall(true: Floats, given: Floats, right: Floats, otherwise: float = 0.0) -> Floats:
    return ratio(right, true, otherwise)


def _f1(true: Floats, given: Floats, right: Floats, otherwise: float = 0.0) -> Floats:
    return ratio(2 * right, true + given, otherwise)


_BY_CLASS: dict[str, Callable[..., Floats]] = {
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
}
_SUMS: dict[str, type[LabelSums]] = {"precision": PrecisionSums}


def _macro(of: Callable[..., Floats], true: Floats, given: Floats, right: Floats) -> Floats:
    return np.asarray(of(true, given, right).mean(-1))


def _weighted(of: Callable[..., Floats], true: Floats, given: Floats, right: Floats) -> Floats:
    return ratio((of(true, given, right) * true).sum(-1), true.sum(-1), np.nan)


def _micro(of: Callable[..., Floats], true: Floats, given: Floats, right: Floats) -> Floats:
    return of(true.sum(-1), given.sum(-1), right.sum(-1))


def _one(
    of: Callable[..., Floats], index: int, true: Floats, given: Floats, right: Floats
) -> Floats:
    return of(true[..., index], given[..., index], right[..., index], np.nan)


def _labels(
    of: Callable[..., Floats], sums: type[LabelSums] = LabelSums
) -> Callable[[Scored], LabelSums]:
    """Return what prepares a function of counts of true, given and rightly given classes."""

    def measure(scored: Scored) -> LabelSums:
        return sums(
            scored.label_columns,
            lambda sums: of(*np.split(sums, 3, axis=-1)),
            scored.label_cells,
        )

    return measure


def _mean(of: Callable[[Scored], Floats]) -> Callable[[Scored], Sums]:
    """Return what prepares the mean of something that each row has."""

    def measure(scored: Scored) -> Sums:
        values = of(scored)
        return Sums(
            np.stack([values, np.ones(len(values))], axis=1),
            lambda sums: ratio(sums[..., 0], sums[..., 1], np.nan),
        )

    return measure


def _log_losses(scored: Scored) -> Floats:
    least = np.finfo(np.float64).eps
    right = scored.answers[np.arange(len(scored.targets)), scored.targets]
    return np.asarray(-np.log(right.clip(least, 1 - least)))


def _brier_losses(scored: Scored) -> Floats:
    """Return squared distances from the truth; of two classes those of the second."""
    errors = np.square(scored.answers - np.eye(scored.answers.shape[1])[scored.targets])
    return np.asarray(errors[:, 1] if errors.shape[1] == 2 else errors.sum(1))


def _squared_errors(scored: Scored) -> Floats:
    return np.asarray(np.square(scored.answers[:, 0] - scored.targets))


def _absolute_errors(scored: Scored) -> Floats:
    return np.asarray(np.abs(scored.answers[:, 0] - scored.targets))


def _calibration(scored: Scored) -> Sums:
    """Prepare the expected calibration error in bins of equal width.

    Naeini, Cooper & Hauskrecht (2015); Guo et al. (2017), https://arxiv.org/abs/1706.04599.
    """
    rows = np.arange(len(scored.targets))
    confidence = scored.answers[rows, scored.decisions]
    excess = confidence - (scored.decisions == scored.targets)
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    columns = np.zeros((len(rows), CALIBRATION_BINS + 1))
    columns[rows, bins] = excess
    columns[:, -1] = 1
    return Sums(columns, lambda sums: ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1], np.nan))


def _answered(scored: Scored) -> NDArray[np.bool_]:
    return np.ones(len(scored.targets), bool) if scored.answered is None else scored.answered


def _answered_accuracy(scored: Scored) -> Sums:
    """Prepare the share of the answered rows that is right; it has no value without any."""
    answered = _answered(scored)
    columns = np.stack([answered & (scored.decisions == scored.targets), answered], axis=1)
    return Sums(columns.astype(np.float64), lambda sums: ratio(sums[..., 0], sums[..., 1], np.nan))


def _r2(scored: Scored) -> Sums:
    """Prepare R²; where all true values are equal it is 1 without any error and else 0."""
    # About the mean of all rows: differences of large numbers would eat the digits.
    centred = scored.targets - scored.targets.mean()
    columns = [np.ones(len(centred)), centred, np.square(centred), _squared_errors(scored)]

    def finish(sums: Floats) -> Floats:
        rows, total, squares, errors = np.moveaxis(sums, -1, 0)
        spread = squares - np.square(total) / rows
        # What rounding leaves of a spread of nothing.
        varies = spread > 1e-6 * np.maximum(squares, np.finfo(np.float32).tiny)
        explained = 1 - ratio(errors, np.where(varies, spread, 0))
        return np.where(varies, explained, (errors == 0) * 1.0)

    return Sums(np.stack(columns, axis=1), finish)


_LABELS: tuple[Kind, ...] = ("classification", "anomaly")
_PROBABILITIES: tuple[Kind, ...] = ("classification",)
_VALUES: tuple[Kind, ...] = ("regression",)


def _by_class(name: str, index: int) -> Metric:
    of = partial(_one, _BY_CLASS[name], index)
    return Metric(True, _LABELS, 0, 1, _labels(of, _SUMS.get(name, LabelSums)))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(True, _LABELS, 0, 1, _labels(_accuracy)),
    "balanced_accuracy": Metric(True, _LABELS, 0, 1, _labels(_balanced_accuracy)),
    **{
        f"{prefix}_{name}": Metric(
            True, _LABELS, 0, 1, _labels(partial(average, of), _SUMS.get(name, LabelSums))
        )
        for name, of in _BY_CLASS.items()
        for prefix, average in (("macro", _macro), ("micro", _micro), ("weighted", _weighted))
    },
    "roc_auc": Metric(True, _LABELS, 0, 1, lambda scored: Ranking(scored, "roc")),
    "pr_auc": Metric(True, _LABELS, 0, 1, lambda scored: Ranking(scored, "pr")),
    "log_loss": Metric(False, _PROBABILITIES, 0, np.inf, _mean(_log_losses)),
    "brier": Metric(False, _PROBABILITIES, 0, 2, _mean(_brier_losses)),
    "ece": Metric(False, _PROBABILITIES, 0, 1, _calibration, is_lifted_by_chance=True),
    "mse": Metric(False, _VALUES, 0, np.inf, _mean(_squared_errors)),
    "mae": Metric(False, _VALUES, 0, np.inf, _mean(_absolute_errors)),
    "r2": Metric(True, _VALUES, -np.inf, 1, _r2),
}
"""Name to metric. Averages of precision, recall and F1 are over all classes of the task; a
class that is neither there nor given counts as 0 in them, and has no value by itself. One
that is there and never given has a precision of 0, so that models can be compared by it."""

ABSTENTION: dict[str, Metric] = {
    "coverage": Metric(True, _LABELS, 0, 1, _mean(lambda scored: _answered(scored) * 1.0)),
    "answered_accuracy": Metric(True, _LABELS, 0, 1, _answered_accuracy),
}
"""How many rows a model answers by itself, and how many of those rightly; the one is bought
with the other (El-Yaniv & Wiener 2010, https://jmlr.org/papers/v11/el-yaniv10a.html). All other
metrics count the label that a row would have got, whether it is left to a person or not: what
models know is compared on all rows, however much each of them leaves out."""
