"""Is the challenger better? Two models' answers to the same rows, compared with honest error.

Rows of one group (a document, a customer) are no independent evidence, so groups are what is
resampled, and what changes sides. A gain is how much better the challenger is, whichever way
its metric runs. Three things make a claim of one trustworthy where rows are few:

- The interval is a percentile bootstrap (Efron & Tibshirani 1993, ch. 13), whose levels are
  taken from Student's t, because a resample of few groups varies too little (Hesterberg 2015,
  https://doi.org/10.1080/00031305.2015.1089789).
- Rows that both models answer alike say nothing of which is better, so t has no more degrees
  of freedom than there are groups that differ, and the interval is no shorter than that of t
  itself: three rows that all speak for one model never resample to anything else. Models that
  differ nowhere are not proved equal; three rows more could speak against the challenger.
- Superiority asks in addition for a permutation test: were the models alike, their answers
  to a group might as well have changed places. For accuracy this is McNemar's exact test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from components.evaluate.curves import Floats
from components.evaluate.metrics import LabelSums, Measure, Scored, find_metric
from components.evaluate.resampling import by_group, numbered, permutation_test, replicates

Verdict = Literal["passed", "failed", "undecided"]

POWER = 0.8
MAX_MORE = 100
"""So many times the rows at hand is the most that is asked for."""
_ROUNDING = 1e-6
"""Of a score, or of what lacks to the best one: what answers in float32 differ by."""


@dataclass(frozen=True)
class Difference:
    """How challenger and champion differ in one metric.

    Attributes:
        metric: its name.
        champion: score of the champion.
        challenger: score of the challenger; NaN, like all that follows from it, where
            the rows give the metric no value.
        gain: how much better the challenger is, in the unit of the metric.
        low: lower bound of the gain.
        high: upper bound of the gain.
        alpha: probability that the gain is beyond one of its bounds, for each of them.
        p_better: of a permutation test that the challenger is no better.
        p_worse: of a permutation test that it is no worse.
        rows: that were answered.
        groups: that the rows fall into.
        differing: effective number of groups that the models differ in: fewer than there
            are if some weigh much more than others.
        step: what a single such group adds to the gain, typically.
        room: the gain of a model without errors.
    """

    metric: str
    champion: float
    challenger: float
    gain: float
    low: float
    high: float
    alpha: float
    p_better: float
    p_worse: float
    rows: int
    groups: int
    differing: float
    step: float
    room: float

    def p_value(self, threshold: float, *, above: bool) -> float:
        """Return the p-value that belongs to the interval.

        Args:
            threshold: the gain that is in question.
            above: whether to ask if the gain is above the threshold, or below it.
        """
        from scipy.special import stdtr

        side = 1 if above else -1
        beyond = side * (self.gain - threshold)
        if math.isnan(beyond) or self.groups < 2:
            return 1.0
        error = self.standard_error(above=above)
        if error == 0:
            return float(beyond <= 0)
        return float(stdtr(self.freedom, -beyond / error))

    def standard_error(self, *, above: bool) -> float:
        """Return the distance to the lower bound (``above``) or the upper one, over its t."""
        reach = self.gain - self.low if above else self.high - self.gain
        return reach / _student(self.freedom, self.alpha)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the errors."""
        return _freedom(self.groups, self.differing)


@dataclass(frozen=True)
class Outcome:
    """What a test of one difference says.

    Attributes:
        verdict: ``passed`` or ``failed`` if that is shown at level alpha.
        threshold: the gain that was in question.
        p_passed: how likely such evidence for passing is if it should not pass.
        p_failed: how likely such evidence for failing is if it should not fail.
        more_rows: with so many more rows an undecided test would pass four times in five
            if the gain is what it seems; None if it seems to be too small, or would take
            more than ``MAX_MORE`` times the rows at hand.
        more_groups: the same, in groups.
    """

    verdict: Verdict
    threshold: float
    p_passed: float
    p_failed: float
    more_rows: int | None = None
    more_groups: int | None = None


@dataclass(frozen=True)
class McNemar:
    """Which model alone is right, and whether that is chance.

    Attributes:
        only_champion: rows that only the champion gets right.
        only_challenger: rows that only the challenger gets right.
        p_better: that the challenger is no better.
        p_value: that neither is better, two-sided.
        exact: of a binomial; else of permuted groups.
    """

    only_champion: int
    only_challenger: int
    p_better: float
    p_value: float
    exact: bool


def compare(
    champion: Scored,
    challenger: Scored,
    groups: NDArray[Any] | None,
    metrics: Sequence[str],
    *,
    alpha: float,
    resamples: int,
    seed: int,
    labels: Sequence[str] = (),
) -> dict[str, Difference]:
    """Return the difference in each metric, with its interval and permutation test.

    Args:
        champion: its answers to the rows.
        challenger: its answers to the same rows in the same order.
        groups: the group of each row ``[n]``, or None if each row is its own.
        metrics: names, see ``find_metric``.
        alpha: each bound is exceeded with this probability, so that the interval covers
            ``1 - 2 alpha`` and one side tests at level ``alpha``.
        resamples: number of bootstrap resamples.
        seed: of all random numbers.
        labels: names of the classes, for metrics of one class.

    Raises:
        ValueError: the models answered other rows, or there is no such metric.
    """
    if not np.array_equal(champion.targets, challenger.targets):
        raise ValueError("champion and challenger must answer the same rows")
    rows = len(champion.targets)
    group_of, count = numbered(groups, rows)
    found = [find_metric(name, champion.kind, labels) for name in metrics]
    pairs = [(metric.measure(champion), metric.measure(challenger)) for metric in found]
    signs = np.array([1.0 if metric.higher_is_better else -1.0 for metric in found])
    added = [by_group(a.contributions(cast(Any, b)), group_of, count) for a, b in pairs]
    contributions = signs * np.stack(added, axis=1)
    gains = signs * replicates(pairs, group_of, count, resamples, seed)
    p_better, p_worse = permutation_test(contributions, seed=seed)
    # One model twice is no sample of models that might yet turn out to differ.
    same = np.array_equal(champion.answers, challenger.answers) and np.array_equal(
        champion.decisions, challenger.decisions
    )
    out = {}
    for index, (name, metric, (a, b)) in enumerate(zip(metrics, found, pairs, strict=True)):
        every = np.ones((1, rows))
        score_a, score_b = float(a.score(every)[0]), float(b.score(every)[0])
        gain = float(signs[index] * (score_b - score_a))
        differing, step = _differing(contributions[:, index], 0.0 if same else _least_step(a))
        low, high = _interval(gain, gains[:, index], count, differing, step, alpha)
        out[name] = Difference(
            metric=name,
            champion=score_a,
            challenger=score_b,
            gain=gain,
            low=low,
            high=high,
            alpha=alpha,
            p_better=float(p_better[index]),
            p_worse=float(p_worse[index]),
            rows=rows,
            groups=count,
            differing=differing,
            step=step,
            room=abs(metric.best - score_a),
        )
    return out


def superiority(difference: Difference) -> Outcome:
    """Test whether the challenger is better than the champion, or worse.

    The interval and the permutation test must agree. The one keeps its level if models are
    equally good in different ways, the other if they hardly differ. What rounding leaves is no
    gain, however regularly it falls on one side.
    """
    if abs(difference.gain) <= _ROUNDING * max(abs(difference.champion), difference.room):
        return _outcome(difference, 0.0, 1.0, 1.0)
    return _outcome(
        difference,
        0.0,
        max(difference.p_better, difference.p_value(0, above=True)),
        max(difference.p_worse, difference.p_value(0, above=False)),
    )


def non_inferiority(difference: Difference, margin: float) -> Outcome:
    """Test whether the challenger is worse by less than a margin, or by more.

    Args:
        difference: of a metric that is to be kept.
        margin: what may be lost, in the unit of the metric, 0 or more.
    """
    return _outcome(
        difference,
        -margin,
        difference.p_value(-margin, above=True),
        difference.p_value(-margin, above=False),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values: of true hypotheses, at most alpha lose one below alpha.

    Holm (1979), https://www.jstor.org/stable/4615733. It asks nothing of how the tests depend
    on each other.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def family(outcomes: Mapping[str, Outcome], alpha: float) -> dict[str, Outcome]:
    """Return outcomes that hold together: any is wrongly passed, or failed, with alpha at most.

    Args:
        outcomes: of one question asked many times, as of each slice of the rows.
        alpha: the level of the whole family.
    """
    passed = holm([each.p_passed for each in outcomes.values()])
    failed = holm([each.p_failed for each in outcomes.values()])
    return {
        name: replace(
            outcome,
            verdict=_verdict(passed[i], failed[i], alpha),
            p_passed=passed[i],
            p_failed=failed[i],
        )
        for i, (name, outcome) in enumerate(outcomes.items())
    }


def detectable_gain(difference: Difference, power: float = POWER) -> float | None:
    """Return the smallest true gain that such rows and models would show with this power.

    It counts two more groups as differing than do (Bonett & Price 2012,
    https://doi.org/10.3102/1076998611411915), and asks for room to be better in: about six
    rows in favour of the challenger alone, however little else varies. More than
    ``Difference.room`` not even a model without errors would show. None if the models never
    differ: nothing is known then of how much they vary.
    """
    if not difference.step > 0:  # or NaN
        return None
    reach = _reach(difference.alpha, power)
    error = difference.step * math.sqrt(difference.differing + 2)
    return max(reach * error, reach**2 * difference.step)


def mcnemar(
    champion_right: NDArray[np.bool_],
    challenger_right: NDArray[np.bool_],
    groups: NDArray[Any] | None = None,
    *,
    seed: int = 0,
) -> McNemar:
    """Test whether two models are right equally often.

    McNemar (1947), https://doi.org/10.1007/BF02295996, with the exact binomial; where rows
    share groups, with the models' answers to whole groups permuted instead.

    Args:
        champion_right: whether it is right ``[n]``.
        challenger_right: whether it is right ``[n]``.
        groups: the group of each row ``[n]``, or None if each row is its own.
        seed: of the permutations.
    """
    from scipy.special import bdtr

    for_b = challenger_right & ~champion_right
    for_a = champion_right & ~challenger_right
    b, a = int(for_b.sum()), int(for_a.sum())
    group_of, count = numbered(groups, len(champion_right))
    exact = count == len(champion_right)
    if exact:
        better, worse = bdtr(a, a + b, 0.5), bdtr(b, a + b, 0.5)
    else:
        ahead = by_group(for_b.astype(float) - for_a, group_of, count)
        (better,), (worse,) = permutation_test(ahead[:, None], seed=seed)
    return McNemar(a, b, float(better), float(min(1.0, 2 * min(better, worse))), exact)


def _outcome(difference: Difference, threshold: float, p_passed: float, p_failed: float) -> Outcome:
    verdict = _verdict(p_passed, p_failed, difference.alpha)
    outcome = Outcome(verdict, threshold, p_passed, p_failed)
    beyond = difference.gain - threshold
    if verdict != "undecided" or difference.groups < 2 or not beyond > 0:
        return outcome
    # An interval shrinks with the root of the rows.
    error = difference.standard_error(above=True)
    reach = _reach(difference.alpha, POWER)
    more = max((reach * error / beyond) ** 2, reach**2 * difference.step / beyond) - 1
    if more > MAX_MORE:
        return outcome
    rows, groups = (max(1, math.ceil(more * n)) for n in (difference.rows, difference.groups))
    return replace(outcome, more_rows=rows, more_groups=groups)


def _verdict(p_passed: float, p_failed: float, alpha: float) -> Verdict:
    return "passed" if p_passed <= alpha else "failed" if p_failed <= alpha else "undecided"


def _reach(alpha: float, power: float) -> float:
    """Return how many standard errors a gain must be to show at a level with a power."""
    from scipy.special import ndtri

    return float(-ndtri(alpha) + ndtri(power))


def _student(freedom: float, alpha: float) -> float:
    """Return the quantile of Student's t that leaves ``alpha`` above."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - alpha))


def _differing(contributions: Floats, least_step: float) -> tuple[float, float]:
    """Return in how many groups models differ, in effect, and what one of them adds."""
    largest = float(np.abs(contributions).max(initial=0))
    if largest == 0:
        return 0.0, least_step
    squares = np.square(contributions / largest)
    total, fourth = float(squares.sum()), float(np.square(squares).sum())
    return total**2 / fourth, largest * math.sqrt(fourth / total)


def _least_step(measure: Measure) -> float:
    """Return what a row would add if one of two models that agree changed its mind.

    Other models than labellers agree in no row, but by being the same.
    """
    return measure.largest_change if isinstance(measure, LabelSums) else 0.0


def _interval(
    gain: float, gains: Floats, groups: int, differing: float, step: float, alpha: float
) -> tuple[float, float]:
    """Return the bounds of a gain from its resamples."""
    from scipy.special import ndtr

    gains = gains[~np.isnan(gains)]
    if math.isnan(gain) or len(gains) == 0:
        return math.nan, math.nan
    if groups < 2:
        return gain, gain
    if differing == 0:
        # The rule of three: with probability alpha, no row shows what so many rows would.
        reach = -math.log(alpha) * step
        return gain - reach, gain + reach
    of_all = _student(groups - 1, alpha)
    level = ndtr(-math.sqrt(groups / (groups - 1)) * of_all)
    low, high = np.quantile(gains, [level, 1 - level]).tolist()
    of_differing = _student(_freedom(groups, differing), alpha)
    least = of_differing * step * math.sqrt(differing)
    below, above = (of_differing / of_all * each for each in (gain - low, high - gain))
    return gain - max(below, least), gain + max(above, least)


def _freedom(groups: int, differing: float) -> float:
    """Return the degrees of freedom of what is known of a gain's error."""
    return min(groups - 1, max(differing, 1.0))
