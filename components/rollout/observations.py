"""What was seen of the champion and of the challenger during one stage, as sums.

Sums can be added: a server that restarts carries on from what it kept, and what several
servers saw is one observation.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from components.rollout.sequential import Moments
from components.settings import Section

FIRST_MS, GROWTH = 0.1, 1.25
BUCKETS = 72
"""Of latencies: up to 0.1 ms, then each bound a quarter higher, to about 10 minutes."""


class Arm(Section):
    """What one version did with its requests."""

    requests: int = Field(default=0, ge=0)
    failures: dict[str, int] = {}
    """Failed requests by what went wrong."""
    log_total: float = 0.0
    """Sum of the natural logarithms of latency plus slack, in ms, of answered requests."""
    log_squares: float = 0.0
    latencies: list[int] = []
    """Answered requests by latency, see ``BUCKETS``; empty before the first."""

    @property
    def errors(self) -> int:
        """Requests that failed."""
        return sum(self.failures.values())

    @property
    def answered(self) -> int:
        """Requests that did not."""
        return self.requests - self.errors

    @property
    def moments(self) -> Moments:
        """Of the logarithms of latencies."""
        return Moments(self.answered, self.log_total, self.log_squares)

    def quantile_ms(self, share: float) -> float | None:
        """Return an upper bound of a quantile of the latency, None without answers."""
        wanted, seen = share * sum(self.latencies), 0
        for place, count in enumerate(self.latencies):
            seen += count
            if count and seen >= wanted:
                return FIRST_MS * GROWTH**place
        return None

    def __add__(self, other: Arm) -> Arm:
        kinds = {**self.failures, **other.failures}
        longer, shorter = sorted((self.latencies, other.latencies), key=len, reverse=True)
        counts = list(longer)
        for place, count in enumerate(shorter):
            counts[place] += count
        return Arm(
            requests=self.requests + other.requests,
            failures={
                kind: self.failures.get(kind, 0) + other.failures.get(kind, 0) for kind in kinds
            },
            log_total=self.log_total + other.log_total,
            log_squares=self.log_squares + other.log_squares,
            latencies=counts,
        )


class Observations(Section):
    """Both versions, side by side."""

    schema_version: int = 2
    champion: Arm = Arm()
    challenger: Arm = Arm()
    compared: int = Field(default=0, ge=0)
    """Requests that both answered."""
    disagreeing: float = Field(default=0.0, ge=0)
    """Sum over those of the share of a request's rows that they decide differently: rows of one
    request are often alike, and so are what becomes of them."""
    broken: str = ""
    """Why the challenger cannot go on whatever the sums say; empty if it can."""

    def __add__(self, other: Observations) -> Observations:
        return Observations(
            champion=self.champion + other.champion,
            challenger=self.challenger + other.challenger,
            compared=self.compared + other.compared,
            disagreeing=self.disagreeing + other.disagreeing,
            broken=self.broken or other.broken,
        )


def answered(latency_ms: float, slack_ms: float) -> Arm:
    """Return the arm of one answered request."""
    logarithm = math.log(max(latency_ms, 0.0) + slack_ms + FIRST_MS)
    place = math.ceil(math.log(max(latency_ms, FIRST_MS) / FIRST_MS, GROWTH))
    counts = [0] * (min(place, BUCKETS - 1) + 1)
    counts[-1] = 1
    return Arm(requests=1, log_total=logarithm, log_squares=logarithm**2, latencies=counts)


def failed(kind: str) -> Arm:
    """Return the arm of one failed request."""
    return Arm(requests=1, failures={kind: 1})


class Tally:
    """Adds observations up; for several threads at once."""

    def __init__(self, begun: Observations | None = None) -> None:
        """Begin with what was kept before."""
        self._seen = begun or Observations()
        self._lock = threading.Lock()
        self.changes = 0

    @property
    def seen(self) -> Observations:
        """All so far."""
        return self._seen

    def add(self, more: Observations) -> None:
        """Take in one observation."""
        with self._lock:
            self._seen = self._seen + more
            self.changes += 1


DIFFERENT_SHARE = 0.1
"""Numbers are answered otherwise if they differ by more than this share of their range."""


def compared(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], answer_range: float
) -> Observations:
    """Return the observation of one request that both answered: one trial, however many rows.

    Args:
        ours: predictions, at least one, see ``components.serve.model``.
        theirs: of the same rows.
        answer_range: how far apart two numbers can be, for answers without a label.
    """
    pairs = zip(ours, theirs, strict=True)
    differing = sum(_differ(one, other, answer_range) for one, other in pairs)
    return Observations(compared=1, disagreeing=differing / len(ours))


def _differ(one: Mapping[str, Any], other: Mapping[str, Any], answer_range: float) -> bool:
    if "label" in one:
        return bool(one["label"] != other["label"])
    return bool(abs(one["value"] - other["value"]) > DIFFERENT_SHARE * answer_range)
