"""Choose an operating point on validation rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.operating_point import (
    OperatingPoint,
    OperatingPointConfig,
    Share,
    decide_all,
    sureness,
)
from components.proportion import lower_bound

_CUTS_BY_BOUND = 20
"""Cuts of which one is chosen by its lower bound; the more, the higher each must reach."""


@dataclass(frozen=True)
class _Cuts:
    """Every way to call the rows with the highest scores, from few rows to all of them.

    Rows with equal scores are called together.
    """

    thresholds: NDArray[np.float64]
    """``[m]``, falling: halfway to the next lower score (0 below the lowest), so that a
    last digit that differs on another machine changes no call."""
    rows: NDArray[np.int64]
    """Rows called ``[m]``."""
    hits: NDArray[np.int64]
    """Those of them that are meant ``[m]``."""

    @classmethod
    def of(cls, scores: NDArray[np.float64], meant: NDArray[np.bool_]) -> _Cuts:
        order = np.argsort(-scores, kind="stable")
        falling = scores[order]
        last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
        here, next_lower = falling[last], np.append(falling[last][1:], 0.0)
        halfway = (here + next_lower) / 2
        return cls(
            thresholds=np.where(halfway > next_lower, halfway, here),
            rows=last + 1,
            hits=np.cumsum(meant[order])[last],
        )

    @property
    def precision(self) -> NDArray[np.float64]:
        return np.asarray(self.hits / self.rows)

    def recall(self, all_hits: int) -> NDArray[np.float64]:
        return np.asarray(self.hits / all_hits)


def choose_point(
    answers: NDArray[np.float64],
    targets: NDArray[Any],
    labels: tuple[str, ...],
    config: OperatingPointConfig,
) -> OperatingPoint:
    """Return the operating point for the aim of a project.

    An aim that validation rows do not reach gives the nearest point, ``reached=False`` and
    a reason; without a row of the label there is no nearest one: the most probable label is
    answered.

    By ``bound``, a recall is reached on new rows with the stated confidence, exactly: the
    share of new rows above the j-th highest of n scores has a beta distribution whatever the
    scores are (Wilks 1941, https://doi.org/10.1214/aoms/1177731788). A precision or an
    accuracy is reached with at least that confidence: twenty cuts are looked at, each with a
    twentieth of the doubt.

    Args:
        answers: probabilities ``[n, k]`` of rows that the model was not trained on.
        targets: index of each row's label ``[n]``.
        labels: names of the columns.
        config: the aim.

    Raises:
        ValueError: the config names an unknown label, or answers are not finite and ``[n, k]``.
    """
    config.refuse_unknown_labels(labels)
    targets = np.asarray(targets)
    if answers.shape != (len(targets), len(labels)):
        raise ValueError(f"answers {answers.shape} are not [{len(targets)}, {len(labels)}]")
    if not np.isfinite(answers).all():
        raise ValueError("answers must be finite")
    costs = config.cost_matrix(labels) if config.aim == "cost" else None
    point = OperatingPoint(
        aim=config.aim, labels=labels, label=config.label, costs=costs, rows=len(targets)
    )
    if len(targets) == 0:
        return _but(point, reached=False, reason="no validation rows")
    if config.aim in ("recall", "precision"):
        meant = targets == labels.index(config.label)
        if not meant.any():
            return _but(point, reached=False, reason=f"no validation row is {config.label!r}")
        point = _with_threshold(point, answers[:, labels.index(config.label)], meant, config)
    decided = decide_all(answers, point)
    if point.costs is not None:
        point = _but(point, cost=float(np.array(point.costs)[targets, decided].mean()))
    if config.answered_accuracy is not None:
        sure = sureness(answers, decided, point)
        return _with_abstention(point, sure, decided == targets, config)
    return _but(point, accuracy=_share(int((decided == targets).sum()), len(targets), config))


def _with_threshold(
    point: OperatingPoint,
    scores: NDArray[np.float64],
    meant: NDArray[np.bool_],
    config: OperatingPointConfig,
) -> OperatingPoint:
    cuts, all_hits = _Cuts.of(scores, meant), int(meant.sum())
    reason = ""
    if config.aim == "recall":
        values = cuts.recall(all_hits)
        if config.by == "bound":
            values = lower_bound(cuts.hits, all_hits, config.confidence)
        reaching = values >= config.at_least
        if reaching.any():
            # Of equal precisions, that of the lower threshold: it recalls more.
            best = _last_best(np.where(reaching, cuts.precision, -1.0))
        else:
            best = int(np.argmax(cuts.hits == all_hits))
            needed = int(np.ceil(np.log(1 - config.confidence) / np.log(config.at_least)))
            reason = (
                f"{all_hits} validation rows of {config.label!r} can show a recall of at most "
                f"{values[best]:.3f} at a confidence of {config.confidence:g}; "
                f"{config.at_least:g} takes {needed} rows or more"
            )
    else:
        best, reason = _lowest_cut(cuts, config.at_least, config, f"precision of {config.label!r}")
    return _but(
        point,
        threshold=float(cuts.thresholds[best]),
        reached=not reason,
        reason=reason,
        recall=_share(int(cuts.hits[best]), all_hits, config),
        precision=_share(int(cuts.hits[best]), int(cuts.rows[best]), config),
    )


def _with_abstention(
    point: OperatingPoint,
    sure: NDArray[np.float64],
    right: NDArray[np.bool_],
    config: OperatingPointConfig,
) -> OperatingPoint:
    assert config.answered_accuracy is not None
    cuts = _Cuts.of(sure, right)
    best, reason = _lowest_cut(cuts, config.answered_accuracy, config, "accuracy of answered rows")
    everything = best == len(cuts.rows) - 1
    return _but(
        point,
        min_sureness=0.0 if everything else float(cuts.thresholds[best]),
        reached=point.reached and not reason,
        reason="; ".join(filter(None, (point.reason, reason))),
        accuracy=_share(int(cuts.hits[best]), int(cuts.rows[best]), config),
        abstained=1 - float(cuts.rows[best]) / len(sure),
    )


def _lowest_cut(
    cuts: _Cuts, floor: float, config: OperatingPointConfig, what: str
) -> tuple[int, str]:
    """Return the cut that calls most rows at a precision of ``floor``; or the nearest, and why."""
    looked_at, values = np.arange(len(cuts.rows)), cuts.precision
    if config.by == "bound":
        wanted = np.linspace(0, cuts.rows[-1], _CUTS_BY_BOUND + 1)[1:]
        looked_at = np.unique(np.searchsorted(cuts.rows, wanted))
        doubt = (1 - config.confidence) / len(looked_at)
        values = lower_bound(cuts.hits[looked_at], cuts.rows[looked_at], 1 - doubt)
    reaching = values >= floor
    if reaching.any():
        return int(looked_at[np.flatnonzero(reaching)[-1]]), ""
    best = _last_best(values)
    sure = f" at a confidence of {config.confidence:g}" if config.by == "bound" else ""
    reason = f"the best {what} is {values[best]:.3f}{sure}, which is below {floor:g}"
    return int(looked_at[best]), reason


def _last_best(values: NDArray[np.float64]) -> int:
    """Return the place of the highest value, the last of equal ones."""
    return len(values) - 1 - int(np.argmax(values[::-1]))


def _share(hits: int, rows: int, config: OperatingPointConfig) -> Share:
    low = float(lower_bound(hits, rows, config.confidence))
    return Share(measured=hits / rows, low=low, rows=rows)


def _but(point: OperatingPoint, **changes: Any) -> OperatingPoint:
    return point.model_copy(update=changes)
