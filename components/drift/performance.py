"""How good the champion is: measured where labels have come, estimated where they have not.

The estimate is confidence-based (CBPE, as in NannyML): a calibrated answer that says 0.9 is
right nine times in ten, so that the answers alone say how many of them are right. It holds
as long as the inputs moved and what they mean did not; when concepts change, only labels
tell, and therefore each estimate is laid beside what was measured once they come.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.calibration import fit_temperature, scaled
from components.profile import Answers
from components.settings import Section

Score = Literal["accuracy", "macro_f1"]
Floats = NDArray[np.float64]

RESAMPLES = 400


class Performance(Section):
    """How good the champion is now, beside how good it was when it was trained."""

    source: Literal["measured", "estimated"]
    """From labels that have come since, or from the answers to this window alone."""
    score: str
    """``accuracy``, or another score of which more is better."""
    rows: int
    before: float
    now: float
    low: float
    high: float
    """Interval of ``now`` at 95 %."""
    drop: float
    """Share of ``before`` that is lost; negative where the champion got better."""
    drop_low: float
    drop_high: float
    """Interval of ``drop`` at 95 %."""
    hurts: bool | None
    """Whether the drop counts; None where the interval leaves it open."""


class Reconciled(Section):
    """An estimate beside what was measured when the labels came."""

    window: str
    rows: int
    estimated: float
    low: float
    high: float
    measured: float

    @property
    def held(self) -> bool:
        """Whether the truth lay in the interval of the estimate."""
        return self.low <= self.measured <= self.high


def measured(before: Answers, now: Answers, score: Score, max_drop: float) -> Performance:
    """Return the performance on rows whose labels have come.

    Args:
        before: on the validation rows, when the champion was trained.
        now: with targets.
        score: what is looked at.
        max_drop: relative drop that is tolerated.
    """
    then, since = _drawn(before, _truth(before), score), _drawn(now, _truth(now), score, seed=1)
    return _performance("measured", score, len(now.decided), then, since, max_drop)


def estimated(before: Answers, now: Answers, score: Score, max_drop: float) -> Performance:
    """Return the performance that answers without labels promise.

    Temperature scaling on the validation rows calibrates the answers (Guo et al. 2017).
    What is left there between the promise and the truth is taken off.

    Args:
        before: on the validation rows, when the champion was trained.
        now: without targets, or with targets that are not looked at.
        score: what is looked at.
        max_drop: relative drop that is tolerated.

    References:
        NannyML's documentation, Confidence-based performance estimation; Garg et al. 2022,
        https://arxiv.org/abs/2201.04234, on when such estimates cannot hold.
    """
    assert before.targets is not None
    temperature = fit_temperature(before.probabilities, before.targets).value
    then = _drawn(before, _truth(before), score)
    promised = _drawn(before, scaled(before.probabilities, temperature), score)
    promises = _drawn(now, scaled(now.probabilities, temperature), score, seed=1)
    since = np.clip(promises - promised + then, 0, 1)
    return _performance("estimated", score, len(now.decided), then, since, max_drop)


def reconciled(window: str, before: Answers, now: Answers, score: Score) -> Reconciled:
    """Return what would have been said of a window without labels, beside the truth."""
    said = estimated(before, replace(now, targets=None), score, 0.0)
    truth = measured(before, now, score, 0.0)
    return Reconciled(
        window=window,
        rows=said.rows,
        estimated=said.now,
        low=said.low,
        high=said.high,
        measured=truth.now,
    )


def of_errors(
    before: float, before_rows: int, errors: Floats, groups: NDArray[np.int64], max_drop: float
) -> Performance:
    """Return the performance measured by errors from 0 to 1, where answers are no classes.

    Args:
        before: mean error on the validation rows.
        before_rows: how many they were; they are taken to spread as those of now do.
        errors: of the rows whose labels have come ``[n]``.
        groups: of these rows ``[n]``.
        max_drop: relative drop that is tolerated.
    """
    weights = _weights(groups, seed=1)
    since = 1 - np.concatenate([[errors.mean()], weights @ errors / weights.sum(1)])
    spread = errors.std() / np.sqrt(max(1, before_rows))
    noise = np.random.default_rng(0).normal(size=RESAMPLES) * spread
    then = 1 - before - np.concatenate([[0.0], noise])
    return _performance("measured", "1 - mean error", len(errors), then, since, max_drop)


def _performance(
    source: Literal["measured", "estimated"],
    score: str,
    rows: int,
    then: Floats,
    since: Floats,
    max_drop: float,
) -> Performance:
    """Return the first of the values, with intervals from the others, which are resamples."""
    drops = (then - since) / np.maximum(then, 1e-9)
    low, high = np.quantile(since[1:], (0.025, 0.975))
    drop_low, drop_high = np.quantile(drops[1:], (0.025, 0.975))
    return Performance(
        source=source,
        score=score,
        rows=rows,
        before=float(then[0]),
        now=float(since[0]),
        low=float(min(low, since[0])),
        high=float(max(high, since[0])),
        drop=float(drops[0]),
        drop_low=float(drop_low),
        drop_high=float(drop_high),
        hurts=_hurts(float(drops[0]), float(drop_low), float(drop_high), max_drop),
    )


def _hurts(drop: float, low: float, high: float, max_drop: float) -> bool | None:
    """Tell whether a drop is both large and no chance; None if it could be either."""
    if drop >= max_drop and low > 0:
        return True
    if high < max_drop or (high - low) / 2 <= max_drop:
        return False
    return None


def _truth(answers: Answers) -> Floats:
    """Return the true classes as probabilities ``[n, k]``."""
    assert answers.targets is not None
    return np.asarray(np.eye(answers.probabilities.shape[1])[answers.targets])


def _drawn(answers: Answers, probabilities: Floats, score: Score, seed: int = 0) -> Floats:
    """Return the expected score of all rows, and then of resamples ``[1 + RESAMPLES]``.

    Resamples draw whole groups; the same ones for a seed, so that two expectations of the
    same rows are resampled as pairs.
    """
    classes = probabilities.shape[1]
    decided = np.eye(classes)[answers.decided]
    parts = np.concatenate([probabilities * decided, decided, probabilities], axis=1)
    sums = np.concatenate([parts.sum(0)[None], _weights(answers.groups, seed) @ parts])
    right, said, true = np.split(sums, 3, axis=1)
    if score == "accuracy":
        return np.asarray(right.sum(1) / np.maximum(said.sum(1), 1e-12))
    return np.asarray((2 * right / np.maximum(said + true, 1e-12)).mean(1))


def _weights(groups: NDArray[Any], seed: int) -> Floats:
    """Return how often each resample holds each row ``[RESAMPLES, n]``, whole groups at once."""
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    drawn = np.random.default_rng(seed).poisson(1, (RESAMPLES, count)).astype(np.float64)
    drawn[drawn.sum(1) == 0] = 1
    return np.asarray(drawn[:, member])
