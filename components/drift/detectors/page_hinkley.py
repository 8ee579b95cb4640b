"""Page-Hinkley test: does the mean of a stream rise, or fall?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from components.drift.detectors.detector import Numbers, Stream

Direction = Literal["up", "down", "both"]

SHORTEST_BLOCK, LONGEST_BLOCK = 128, 8192
_STATE = ("count", "mean", "rise", "least_rise", "fall", "most_fall")


@dataclass
class PageHinkley(Stream):
    """Page-Hinkley test over one stream or many at once.

    The statistic sums how far each value lies above the running mean plus a tolerance,
    and measures how far that sum has risen from its lowest point; for a falling mean the
    other way round. After an alarm the test begins anew.

    Alarms are those of river's ``PageHinkley`` with the same parameters, up to rounding,
    but blocks of values are looked at together.

    Parameters
    ----------
    delta
        Change of the mean that is tolerated.
    threshold
        Alarm when the statistic exceeds it. Higher means fewer false alarms and a
        longer delay.
    min_values
        No alarm before so many values.
    alpha
        What a sum keeps of itself from one value to the next; below 1 it forgets.
    direction
        Which changes raise an alarm.
    prior_mean, prior_count
        What is known from before: the running mean starts as if ``prior_count`` values
        of mean ``prior_mean`` had come already, so that a stream that is bad from its
        first value is seen as well. None by default, which is the classic test.
    streams
        How many streams are looked at together.

    Examples:
    --------
    >>> test = PageHinkley(delta=0.05, threshold=20)
    >>> test.update(np.zeros(200)), test.update(np.ones(100))
    ([], [22])
    >>> again = PageHinkley.restore(test.state())
    >>> again.update(np.zeros(300)) == test.update(np.zeros(300))
    True

    References:
    ----------
    Page (1954), Continuous inspection schemes, Biometrika 41; Gama et al. (2014), A survey
    on concept drift adaptation, ACM Computing Surveys 46.
    """

    delta: float = 0.005
    threshold: float = 50.0
    min_values: int = 30
    alpha: float = 1.0
    direction: Direction = "up"
    prior_mean: float = 0.0
    prior_count: int = 0
    streams: int = 1
    _now: dict[str, Numbers] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self._now:
            self._now = {name: np.zeros(self.streams) for name in _STATE}
            self._begin_anew(np.arange(self.streams))

    def update(self, values: Numbers) -> list[int]:
        """Look at further values ``[n]``; return the indices in them that raised an alarm."""
        return self.look(values)[0]

    def look(self, values: Numbers) -> tuple[list[int], Numbers]:
        """Look at further values ``[n]``; return alarms and the statistic after each ``[n]``.

        Sums over blocks of time, so that one long stream costs no loop over its values.
        """
        if self.streams != 1:
            raise ValueError("several streams are looked at by update_many")
        values = np.asarray(values, np.float64)
        alarms: list[int] = []
        shown = np.zeros(len(values))
        at, width = 0, SHORTEST_BLOCK
        while at < len(values):
            block = values[at : at + width]
            after, statistic = self._block(block)
            over = (statistic > self.threshold) & (after["count"] >= self.min_values)
            alarmed = bool(over.any())
            seen = int(over.argmax()) + 1 if alarmed else len(block)
            shown[at : at + seen] = statistic[:seen]
            at += seen
            if alarmed:
                alarms.append(at - 1)
                self._begin_anew(np.array([0]))
            else:
                self._now = {name: states[-1:].copy() for name, states in after.items()}
            # Where alarms are rare, few blocks; where they are not, little is summed in vain.
            width = SHORTEST_BLOCK if alarmed else min(LONGEST_BLOCK, 2 * width)
        return alarms, shown

    def _block(self, block: Numbers) -> tuple[dict[str, Numbers], Numbers]:
        """Return the state after each value of a block, and the statistic."""
        now = {name: float(values[0]) for name, values in self._now.items()}
        count = now["count"] + np.arange(1, len(block) + 1)
        known = now["count"] + self.prior_count
        mean = (now["mean"] * known + np.cumsum(block)) / (count + self.prior_count)
        away = block - mean

        def kept(start: float, steps: Numbers) -> Numbers:
            if self.alpha == 1:
                return np.asarray(start + np.cumsum(steps))
            from scipy.signal import lfilter

            return np.asarray(lfilter([1], [1, -self.alpha], steps, zi=[self.alpha * start])[0])

        rise = kept(now["rise"], away - self.delta)
        fall = kept(now["fall"], away + self.delta)
        least = np.minimum(np.minimum.accumulate(rise), now["least_rise"])
        most = np.maximum(np.maximum.accumulate(fall), now["most_fall"])
        up, down = rise - least, most - fall
        sides = {"up": up, "down": down, "both": np.maximum(up, down)}
        after = (count, mean, rise, least, fall, most)
        return dict(zip(_STATE, after, strict=True)), sides[self.direction]

    def update_many(self, values: Numbers) -> list[list[int]]:
        """Look at further values ``[streams, n]``; return each stream's alarms.

        Goes through time with all streams at once.
        """
        if len(values) != self.streams:
            raise ValueError(f"values of {self.streams} streams are needed, not {len(values)}")
        alarms: list[list[int]] = [[] for _ in range(self.streams)]
        count, mean, rise, least, fall, most = (self._now[name] for name in _STATE)
        seen = count + self.prior_count
        away, up, down = (np.empty(self.streams) for _ in range(3))
        rises, falls = self.direction != "down", self.direction != "up"
        for at, value in enumerate(np.ascontiguousarray(np.asarray(values, np.float64).T)):
            seen += 1
            np.subtract(value, mean, out=away)
            away /= seen
            mean += away
            np.subtract(value, mean, out=away)
            over = np.zeros(self.streams, dtype=bool)
            if rises:
                rise *= self.alpha
                rise += away
                rise -= self.delta
                np.minimum(least, rise, out=least)
                np.subtract(rise, least, out=up)
                over |= up > self.threshold
            if falls:
                fall *= self.alpha
                fall += away
                fall += self.delta
                np.maximum(most, fall, out=most)
                np.subtract(most, fall, out=down)
                over |= down > self.threshold
            if over.any():
                over &= seen - self.prior_count >= self.min_values
                alarmed = np.flatnonzero(over)
                for stream in alarmed:
                    alarms[stream].append(at)
                self._begin_anew(alarmed)
                seen[alarmed] = self.prior_count
        count[:] = seen - self.prior_count
        return alarms

    def _begin_anew(self, streams: NDArray[np.int64]) -> None:
        for name in _STATE:
            self._now[name][streams] = 0.0
        self._now["mean"][streams] = self.prior_mean
        self._now["least_rise"][streams] = np.inf
        self._now["most_fall"][streams] = -np.inf

    def state(self) -> dict[str, Any]:
        """Return parameters and what was seen, as JSON-able values."""
        parameters = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if not name.startswith("_")
        }
        # JSON knows no infinity: a stream that has seen nothing has no extremes yet.
        seen = {
            name: [value if np.isfinite(value) else None for value in values.tolist()]
            for name, values in self._now.items()
        }
        return {"parameters": parameters, "seen": seen}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """Return a test that carries on from ``state``."""
        test = cls(**state["parameters"])
        unseen = {"least_rise": np.inf, "most_fall": -np.inf}
        for name, values in state["seen"].items():
            test._now[name] = np.array(
                [unseen[name] if value is None else value for value in values], np.float64
            )
        return test
