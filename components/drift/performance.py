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
BATCH_VALUES = 10_000_000
"""Of resampled weights that are held at a time."""
MIN_GROUPS = 10
"""Fewer are no sample to resample from: their interval would be too narrow."""


class Performance(Section):
    """How good the champion is now, beside how good it was when it was trained."""

    source: Literal["measured", "estimated"]
    """From labels that have come since, or from the answers to this window alone."""
    score: str
    """``accuracy``, or another score of which more is better."""
    rows: int
    window: str = ""
    """Whose labels these are, or which windows'; empty of the window that is looked at."""
    before: float
    guessing: float | None = None
    """Of always answering the commonest class, then; None where answers are no classes."""
    is_guessing: bool = False
    """Whether the champion was not shown, at 95 %, to be better than that."""
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
    """Whether the drop counts; None where the interval leaves it open, or nothing was there to be
    lost: a champion that was no better than guessing cannot get worse."""


class Reconciled(Section):
    """An estimate beside what was measured when the labels came."""

    window: str
    rows: int
    estimated: float
    low: float
    high: float
    """At 95 %: where the truth of these rows lies if the estimate was right."""
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
    guessing = _guessing(before, score)
    return _performance("measured", score, now.groups, then, since, max_drop, guessing)


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
    then = _drawn(before, _truth(before), score)
    since = _promised(before, now, score)
    guessing = _guessing(before, score)
    return _performance("estimated", score, now.groups, then, since, max_drop, guessing)


def reconciled(window: str, before: Answers, now: Answers, score: Score) -> Reconciled:
    """Return what would have been said of a window without labels, beside the truth.

    The interval is of the score of these very rows, whose labels are a draw as well: of the
    estimate plus what resamples say that the truth may differ from it.
    """
    said, truth = _promised(before, now, score), _drawn(now, _truth(now), score, seed=1)
    apart = truth - said
    low, high = said[0] + np.quantile(apart[1:] - apart[0], (0.025, 0.975))
    return Reconciled(
        window=window,
        rows=len(now.decided),
        estimated=float(said[0]),
        low=float(low),
        high=float(high),
        measured=float(truth[0]),
    )


def _promised(before: Answers, now: Answers, score: Score) -> Floats:
    """Return what answers without labels promise of all rows, and of resamples."""
    assert before.targets is not None
    temperature = fit_temperature(before.probabilities, before.targets).value
    then = _drawn(before, _truth(before), score)
    promised = _drawn(before, scaled(before.probabilities, temperature), score)
    promises = _drawn(now, scaled(now.probabilities, temperature), score, seed=1)
    return np.asarray(np.clip(promises - promised + then, 0, 1))


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
    sums = _resampled(np.stack([errors, np.ones(len(errors))], axis=1), groups, seed=1)
    since = 1 - sums[:, 0] / sums[:, 1]
    spread = errors.std() / np.sqrt(max(1, before_rows))
    noise = np.random.default_rng(0).normal(size=RESAMPLES) * spread
    then = 1 - before - np.concatenate([[0.0], noise])
    return _performance("measured", "1 - mean error", groups, then, since, max_drop, None)


def _performance(
    source: Literal["measured", "estimated"],
    score: str,
    groups: NDArray[np.int64],
    then: Floats,
    since: Floats,
    max_drop: float,
    guessing: Floats | None,
) -> Performance:
    """Return the first of the values, with intervals from the others, which are resamples."""
    drops = (then - since) / np.maximum(then, 1e-9)
    low, high = np.quantile(since[1:], (0.025, 0.975))
    drop_low, drop_high = np.quantile(drops[1:], (0.025, 0.975))
    judge = _estimate_hurts if source == "estimated" else _hurts
    hurts = judge(float(drops[0]), float(drop_low), float(drop_high), max_drop)
    is_guessing = guessing is not None and float(np.quantile(then[1:] - guessing[1:], 0.05)) <= 0
    if len(np.unique(groups)) < MIN_GROUPS or (is_guessing and not hurts):
        hurts = None
    return Performance(
        source=source,
        score=score,
        rows=len(groups),
        before=float(then[0]),
        guessing=None if guessing is None else float(guessing[0]),
        is_guessing=is_guessing,
        now=float(since[0]),
        low=float(min(low, since[0])),
        high=float(max(high, since[0])),
        drop=float(drops[0]),
        drop_low=float(drop_low),
        drop_high=float(drop_high),
        hurts=hurts,
    )


def _hurts(drop: float, low: float, high: float, max_drop: float) -> bool | None:
    """Tell whether a drop is both large and no chance; None if it could be either."""
    if drop >= max_drop:
        return True if low > 0 else None
    return False if high < max_drop or (high - low) / 2 <= max_drop else None


def _estimate_hurts(drop: float, low: float, high: float, max_drop: float) -> bool | None:
    """Tell whether an estimated drop counts; None unless its interval lies on one side.

    What inputs of another kind do to calibration is in no interval: an estimate of such a window
    was wrong by up to 7 points (docs/drift.md), so that what is near the limit is not known.
    """
    return True if low >= max_drop else False if high < max_drop else None


def _guessing(before: Answers, score: Score) -> Floats | None:
    """Return the score of always answering the commonest class, of all rows and of resamples.

    None where there is but one.
    """
    truth = _truth(before)
    classes = truth.sum(0)
    if (classes > 0).sum() < 2:
        return None
    commonest = np.full(len(truth), int(classes.argmax()))
    return _drawn(replace(before, decided=commonest), truth, score)


def _truth(answers: Answers) -> Floats:
    """Return the true classes as probabilities ``[n, k]``."""
    assert answers.targets is not None
    return np.asarray(np.eye(answers.probabilities.shape[1])[answers.targets])


def _drawn(answers: Answers, probabilities: Floats, score: Score, seed: int = 0) -> Floats:
    """Return the expected score of all rows, and then of resamples ``[1 + RESAMPLES]``.

    Resamples draw whole groups; the same ones for a seed, so that two expectations of the
    same rows are resampled as pairs.
    """
    sums = _resampled(_parts(probabilities, answers.decided), answers.groups, seed)
    return _scores(sums, score)


def _parts(probabilities: Floats, decided: NDArray[np.int64]) -> Floats:
    """Return what of each row is right, said and true, by class ``[n, 3 k]``."""
    said = np.eye(probabilities.shape[1])[decided]
    return np.concatenate([probabilities * said, said, probabilities], axis=1)


def _scores(sums: Floats, score: Score) -> Floats:
    """Return the score ``[r]`` of sums of parts ``[r, 3 k]``.

    A class that is neither said nor true has no F1; of one that is expected in less than a row,
    so much counts.
    """
    right, said, true = np.split(sums, 3, axis=1)
    if score == "accuracy":
        return np.asarray(right.sum(1) / np.maximum(said.sum(1), 1e-12))
    there = np.minimum(said + true, 1)
    each = 2 * right / np.maximum(said + true, 1e-12)
    return np.asarray((each * there).sum(1) / np.maximum(there.sum(1), 1e-12))


def _resampled(values: Floats, groups: NDArray[Any], seed: int) -> Floats:
    """Return the sum of all rows, and then of resamples of whole groups ``[1 + RESAMPLES, c]``.

    Args:
        values: of each row ``[n, c]``.
        groups: of each row ``[n]``.
        seed: of the resamples.
    """
    _, member = np.unique(groups, return_inverse=True)
    of_groups = np.stack([np.bincount(member, column) for column in values.T], axis=1)
    generator, count = np.random.default_rng(seed), len(of_groups)
    sums = [values.sum(0)[None]]
    for batch in np.array_split(np.arange(RESAMPLES), -(-RESAMPLES * count // BATCH_VALUES)):
        drawn = generator.poisson(1, (len(batch), count)).astype(np.float64)
        drawn[drawn.sum(1) == 0] = 1
        sums.append(drawn @ of_groups)
    return np.concatenate(sums)
