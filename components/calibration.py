"""How far probabilities can be trusted, and temperature scaling, which mends them.

A model says 0.9 and should be right nine times in ten. One number, the temperature,
fitted on validation rows, makes the probabilities of a classifier less sure of
themselves (above 1) or surer (below 1) and changes no decision: the most probable label
stays the same. Guo et al. 2017, https://arxiv.org/abs/1706.04599.

Probabilities are ``[n, k]`` in the order of the labels: two, many, or (normal, anomaly).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.settings import Section

Probabilities = NDArray[np.float64]

COLDEST, HOTTEST = 0.05, 20.0
"""No temperature is sought outside: answers would become certain, or all the same."""
_GAIN_BY_CHANCE = 3.84
"""What twice the gain of log likelihood exceeds once in twenty times if 1 is right."""
SMALLEST = 1e-12
"""A probability below is taken for this one, so that its logarithm exists."""


class Temperature(Section):
    """What to divide log probabilities by, and what that did on the rows it was fitted on."""

    value: float = Field(default=1.0, gt=0)
    """1 leaves answers as they are."""
    rows: int = 0
    """Validation rows it was fitted on."""
    log_loss_before: float = 0.0
    log_loss_after: float = 0.0
    """Mean log loss on those rows, in nats; never above the one before."""
    reason: str = ""
    """Why nothing was fitted; empty if something was."""


def fit_temperature(
    probabilities: Probabilities, targets: NDArray[Any], *, min_rows: int = 50
) -> Temperature:
    """Return the temperature with the least log loss on validation rows.

    The log loss has a single minimum over the temperature (it is convex in its inverse),
    so a bounded search over its logarithm finds it. It stays 1, with a reason, where rows
    cannot tell: too few of them, a single class, not one wrong answer (for then the best
    temperature is that of certainty), or a gain that chance explains (by the likelihood
    ratio, Wilks 1938), which would make calibrated answers worse.

    Args:
        probabilities: ``[n, k]`` of rows that the model was not trained on.
        targets: index of each row's label ``[n]``.
        min_rows: with fewer rows nothing is fitted.

    Raises:
        ValueError: shapes that do not fit, or numbers that are no probabilities.
    """
    from scipy.optimize import minimize_scalar

    targets = _checked(probabilities, targets)
    rows = len(targets)
    if rows == 0:
        return Temperature(reason="no validation rows")
    logs = np.log(np.clip(probabilities, SMALLEST, 1))

    def loss(log_temperature: float) -> float:
        scaled = _log_softmax(logs / np.exp(log_temperature))
        return float(-scaled[np.arange(rows), targets].mean())

    before = loss(0.0)
    as_it_is = Temperature(rows=rows, log_loss_before=before, log_loss_after=before)
    reason = ""
    if rows < min_rows:
        reason = f"{rows} validation rows, {min_rows} are needed"
    elif len(np.unique(targets)) < 2:
        reason = "all validation rows have one label"
    elif (probabilities.argmax(1) == targets).all():
        reason = "no validation row is answered wrongly: nothing says how unsure to be"
    if reason:
        return as_it_is.model_copy(update={"reason": reason})
    bounds = np.log((COLDEST, HOTTEST))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    if 2 * rows * (before - best.fun) < _GAIN_BY_CHANCE:
        reason = "the answers are as calibrated as so many rows can tell"
        return as_it_is.model_copy(update={"reason": reason})
    found = {"value": float(np.exp(best.x)), "log_loss_after": float(best.fun)}
    return as_it_is.model_copy(update=found)


def scaled(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return probabilities ``[n, k]`` at a temperature; those at 1 are returned as they are."""
    if temperature == 1:
        return probabilities
    logs = np.log(np.clip(probabilities, SMALLEST, 1))
    return np.exp(_log_softmax(logs / temperature))


def brier(probabilities: Probabilities, targets: NDArray[Any]) -> float:
    """Return the mean squared distance of probabilities from the truth, 0 to 1 or 2.

    Summed over classes and, for two of them, halved, as scikit-learn has it (Brier 1950).

    Raises:
        ValueError: shapes that do not fit, or numbers that are no probabilities.
    """
    targets, classes = _checked(probabilities, targets), probabilities.shape[1]
    squares = np.square(probabilities - np.eye(classes)[targets]).sum(1)
    return float(squares.mean() / (2 if classes == 2 else 1))


def confidences(
    probabilities: Probabilities, targets: NDArray[Any], label: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return how sure each answer is ``[n]``, and whether what it is sure of is so ``[n]``.

    Args:
        probabilities: ``[n, k]``.
        targets: index of each row's label ``[n]``.
        label: look at the probability of this label; by default at the most probable one's.

    Raises:
        ValueError: shapes that do not fit, or numbers that are no probabilities.
    """
    targets = _checked(probabilities, targets)
    if label is None:
        return probabilities.max(1), probabilities.argmax(1) == targets
    return probabilities[:, label], targets == label


@dataclass(frozen=True)
class Bin:
    """One point of a reliability curve: answers that are about as sure."""

    confidence: float
    """Mean of what they say, 0 to 1."""
    accuracy: float
    """Share of them that is right; of calibrated answers the same."""
    rows: int


def reliability(
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    *,
    bins: int = 15,
    equal_mass: bool = True,
) -> list[Bin]:
    """Return the points of a reliability curve, from unsure to sure; bins without rows are not.

    Args:
        confidence: ``[n]``, 0 to 1; see ``confidences``.
        right: whether the answer is right ``[n]``.
        bins: at most so many.
        equal_mass: bins of as many rows each, as far as equal confidences allow (Nguyen &
            O'Connor 2015); otherwise bins of the same width on [0, 1] (Naeini et al. 2015).
    """
    members = _bins_of(confidence, bins, equal_mass)
    rows = np.bincount(members, minlength=bins)
    said = np.bincount(members, confidence, minlength=bins)
    hits = np.bincount(members, right, minlength=bins)
    return [
        Bin(float(said[each] / rows[each]), float(hits[each] / rows[each]), int(rows[each]))
        for each in np.flatnonzero(rows)
    ]


def calibration_error(
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    *,
    bins: int = 15,
    equal_mass: bool = True,
) -> float:
    """Return the expected calibration error (ECE), 0 to 1; 0 without rows.

    Mean over rows of the distance between confidence and accuracy of the row's bin (Naeini
    et al. 2015). Chance alone makes it positive, the more so the fewer rows there are: see
    ``calibration_error_by_chance``. Arguments as of ``reliability``.
    """
    points = reliability(confidence, right, bins=bins, equal_mass=equal_mass)
    distance = sum(point.rows * abs(point.confidence - point.accuracy) for point in points)
    return distance / max(1, len(confidence))


def calibration_error_by_chance(
    confidence: NDArray[np.float64],
    *,
    quantile: float = 0.95,
    bins: int = 15,
    equal_mass: bool = True,
    resamples: int = 500,
    seed: int = 0,
) -> float:
    """Return the ECE that calibrated answers so sure would exceed with ``1 - quantile``.

    A larger one is no chance. Answers are drawn right or wrong with the probability that
    they state: consistency resampling, Bröcker & Smith 2007,
    https://doi.org/10.1175/WAF993.1. Rows count as independent.
    """
    if len(confidence) == 0:
        return 0.0
    members = _bins_of(confidence, bins, equal_mass)
    order = np.argsort(members, kind="stable")
    starts = np.flatnonzero(np.diff(members[order], prepend=-1))
    stated = confidence[order]
    generator = np.random.default_rng(seed)
    errors = np.empty(resamples)
    for each in range(resamples):
        surplus = stated - (generator.random(len(stated)) < stated)
        errors[each] = np.abs(np.add.reduceat(surplus, starts)).sum() / len(stated)
    return float(np.quantile(errors, quantile))


def _bins_of(confidence: NDArray[np.float64], bins: int, equal_mass: bool) -> NDArray[np.int64]:
    """Return the bin of each row ``[n]``; rows with equal confidence share one."""
    if not equal_mass or len(confidence) == 0:
        return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1], method="higher")
    return np.searchsorted(edges, confidence, side="right").astype(np.int64)


def _checked(probabilities: Probabilities, targets: NDArray[Any]) -> NDArray[np.int64]:
    """Return targets as indices, if they and the probabilities make sense."""
    targets = np.asarray(targets)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or targets.ndim != 1:
        raise ValueError("probabilities must be [n, k] with k of at least 2, targets [n]")
    if len(probabilities) != len(targets):
        raise ValueError(f"{len(probabilities)} rows of probabilities, {len(targets)} targets")
    if not (np.isfinite(probabilities).all() and np.allclose(probabilities.sum(1), 1, atol=1e-3)):
        raise ValueError("probabilities must be finite and sum to one in each row")
    if (probabilities < 0).any() or (probabilities > 1 + 1e-6).any():
        raise ValueError("probabilities must be between 0 and 1")
    targets = targets.astype(np.int64)
    if not np.isin(targets, np.arange(probabilities.shape[1])).all():
        raise ValueError("a target is no index of a column of the probabilities")
    return targets


def _log_softmax(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logs - logs.max(1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return normalised
