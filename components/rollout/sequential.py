"""Sequential tests that may be looked at after every request: mixture likelihood ratios.

A test of a fixed size that is looked at again and again raises a false alarm sooner or
later. The mixture sequential probability ratio test (mSPRT; Robbins 1970, Ann. Math.
Statist. 41; Johari, Pekelis & Walsh 2017, KDD, "Peeking at A/B tests") weighs the
hypothesis against a mixture of alternatives. Under the hypothesis that ratio is a
supermartingale that begins at one, so by Ville's inequality it ever exceeds ``1 / alpha``
with a probability of at most ``alpha``, however often and whenever one looks.

Both tests are of one side: only what is worse than allowed counts as evidence. They return
the natural logarithm of the ratio, 0 before anything was seen; see ``is_alarm``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST_SAMPLES = 30
"""Of each arm, before ``excess_evidence`` says anything: it holds for means of many values."""


def is_alarm(evidence: float, alpha: float) -> bool:
    """Tell whether evidence refutes its hypothesis at the level ``alpha``.

    >>> is_alarm(math.log(99), 0.01), is_alarm(math.log(100), 0.01)
    (False, True)
    """
    return evidence >= -math.log(alpha) - 1e-12


def share_evidence(count: float, total: int, limit: float) -> float:
    """Return the evidence that events are more frequent than ``limit``.

    The hypothesis is that each of ``total`` trials, whatever came before it, is an event with
    a probability of at most ``limit``; the mixture is Jeffreys' prior Beta(1/2, 1/2), cut to
    what lies above. The ratio is exact for every number of trials: no approximation makes
    rare errors look like none.

    A trial may also be a share of an event, such as the share of a request's rows, with a mean
    of at most ``limit``. The likelihood ratio of an event's probability is convex in the share,
    so for a given mean it is largest on average where shares are 0 and 1: the test holds for
    shares of any distribution (Hoeffding 1963, J. Am. Statist. Assoc. 58, section 4).

    Args:
        count: events, such as failed requests, or the sum of shares.
        total: trials.
        limit: what is allowed, in (0, 1).

    Returns:
        The natural logarithm of the mixture likelihood ratio.

    Raises:
        ValueError: there are more events than trials, or the limit is no share.

    >>> share_evidence(0, 0, 0.01)
    0.0
    >>> is_alarm(share_evidence(2, 2, 0.01), 0.01)
    True
    >>> is_alarm(share_evidence(10, 1000, 0.01), 0.01)
    False
    """
    if not 0 <= count <= total or not 0 < limit < 1:
        raise ValueError(f"{count} of {total} events at a limit of {limit} cannot be")
    if total == 0:
        return 0.0
    from scipy.special import betaincc, betaln

    a, b = count + 0.5, total - count + 0.5
    above, prior = float(betaincc(a, b, limit)), float(betaincc(0.5, 0.5, limit))
    if above == 0.0:
        return -math.inf  # the trials lie so far below the limit that nothing is left above
    mixed = float(betaln(a, b)) - float(betaln(0.5, 0.5)) + math.log(above) - math.log(prior)
    return mixed - count * math.log(limit) - (total - count) * math.log1p(-limit)


@dataclass(frozen=True)
class Moments:
    """Values of one arm, as far as a test of means needs them.

    Attributes:
        count: how many.
        total: their sum.
        squares: the sum of their squares.
    """

    count: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """The mean; of no values, 0."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """The unbiased variance; of fewer than two values, 0."""
        if self.count < 2:
            return 0.0
        return max(0.0, (self.squares - self.count * self.mean**2) / (self.count - 1))


def excess_evidence(ours: Moments, peer: Moments, limit: float, scale: float) -> float:
    """Return the evidence that our mean exceeds the peer's by more than ``limit``.

    Johari's test of two streams, with a half-normal mixture above the limit. With ``V`` the
    variance of the difference of means, ``d`` its excess over the limit, ``t`` the scale and
    ``W = V (V + t²)``, the ratio is
    ``2 sqrt(V / (V + t²)) exp(t² d² / (2 W)) Φ(t d / sqrt(W))``. The variance is estimated,
    so it holds for means of many values: below ``LEAST_SAMPLES`` of either arm there is no
    evidence.

    Args:
        ours: values of the arm that is tested.
        peer: values of the arm that it is compared with.
        limit: difference of means that is allowed.
        scale: size of the excess that the test should be best at, more than 0.

    Returns:
        The natural logarithm of the mixture likelihood ratio.
    """
    if min(ours.count, peer.count) < LEAST_SAMPLES:
        return 0.0
    from scipy.special import log_ndtr

    # A floor, or values that are all alike would be evidence of anything.
    floor = (1e-3 * scale) ** 2
    variance = (ours.variance + floor) / ours.count + (peer.variance + floor) / peer.count
    excess = ours.mean - peer.mean - limit
    both = variance + scale**2
    return (
        math.log(2)
        + 0.5 * math.log(variance / both)
        + (scale * excess) ** 2 / (2 * variance * both)
        + float(log_ndtr(scale * excess / math.sqrt(variance * both)))
    )
