"""ADWIN: a window over a stream that shrinks when its mean changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.drift.detectors.detector import Numbers, Stream
from components.drift.detectors.rivers import river_drift


@dataclass
class Adwin(Stream):
    """river's ADWIN; only alarms of a mean that rises are passed on.

    It needs no threshold: two halves of the window differ if Hoeffding's bound says so.

    Parameters
    ----------
    delta
        Probability of a false alarm at each look.

    Examples:
    --------
    >>> generator = np.random.default_rng(0)
    >>> Adwin().update((generator.random(1000) < 0.2).astype(float))
    []
    >>> Adwin().update((generator.random(1000) < np.repeat([0.2, 0.6], 500)).astype(float))
    [575]

    References:
    ----------
    Bifet & Gavaldà (2007), Learning from time-changing data with adaptive windowing,
    SIAM International Conference on Data Mining.
    """

    delta: float = 0.002

    def __post_init__(self) -> None:
        self._test = river_drift().ADWIN(delta=self.delta)

    def update(self, values: Numbers) -> list[int]:
        """Look at further values ``[n]``; return the indices that raised an alarm."""
        alarms = []
        for index, value in enumerate(np.asarray(values, np.float64).tolist()):
            before = self._test.estimation
            self._test.update(value)
            if self._test.drift_detected and self._test.estimation > before:
                alarms.append(index)
        return alarms
